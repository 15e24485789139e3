//! Tags.

use amistore_aws_double::aws::{Image, Tags, TestAws};

use super::client::Client;

fn start() -> (TestAws, Client, String, String) {
    let aws = TestAws::start();
    let snapshot = aws.snapshot_of(1, []);
    let tags = Tags::from([("aws:made-by".to_owned(), "x".to_owned())]);
    let image = aws.add_image(Image { tags, ..Image::new("image", &snapshot) });
    let client = Client::new(&aws);
    (aws, client, image, snapshot)
}

fn shown(tags: &Tags) -> String {
    tags.iter().map(|(key, value)| format!("{key}={value} ")).collect()
}

#[test]
fn tags_are_created_and_deleted() {
    let (aws, client, image, snapshot) = start();
    let both = [("ResourceId.1", image.as_str()), ("ResourceId.2", snapshot.as_str())];
    let with = |action: &str, more: &[(&str, &str)]| {
        client.ec2(action, &[&both[..], more].concat()).outcome().1
    };
    let now = || shown(&aws.snapshot(&snapshot).expect("a snapshot").tags);
    assert_eq!(
        with(
            "CreateTags",
            &[
                ("Tag.1.Key", "Größe 尺寸"),
                ("Tag.1.Value", "ja & 是"),
                ("Tag.2.Key", "empty"),
                ("Tag.2.Value", "")
            ]
        ),
        ""
    );
    assert_eq!(now(), "Größe 尺寸=ja & 是 empty= ");
    assert_eq!(with("CreateTags", &[("Tag.1.Key", "empty"), ("Tag.1.Value", "full")]), "");
    assert_eq!(
        with("CreateTags", &[("Tag.1.Key", "aws:x"), ("Tag.1.Value", "")]),
        "InvalidParameterValue"
    );
    assert_eq!(with("CreateTags", &[("Tag.1.Key", &"x".repeat(129))]), "InvalidParameterValue");
    assert_eq!(with("CreateTags", &[]), "MissingParameter");
    let described = client
        .ec2("DescribeTags", &[("Filter.1.Name", "resource-type"), ("Filter.1.Value.1", "image")]);
    assert_eq!(
        (described.all("key").len(), described.get("resourceId"), described.get("key")),
        (3, Some(image.clone()), Some("Größe 尺寸".to_owned()))
    );
    let by = |name: &str, value: &str| {
        client
            .ec2("DescribeImages", &[("Filter.1.Name", name), ("Filter.1.Value.1", value)])
            .all("imageId")
            .len()
    };
    assert_eq!(
        (
            by("tag:empty", "f*l"),
            by("tag:empty", "x"),
            by("tag-key", "Größe*"),
            by("tag:none", "*")
        ),
        (1, 0, 1, 0)
    );
    assert_eq!(with("DeleteTags", &[("Tag.1.Key", "empty"), ("Tag.1.Value", "")]), "");
    assert_eq!(now(), "Größe 尺寸=ja & 是 empty=full ");
    assert_eq!(with("DeleteTags", &[("Tag.1.Key", "empty")]), "");
    assert_eq!(now(), "Größe 尺寸=ja & 是 ");
    assert_eq!(with("DeleteTags", &[]), "");
    assert_eq!(
        (now(), shown(&aws.image(&image).expect("an image").tags)),
        (String::new(), "aws:made-by=x ".to_owned())
    );
    assert_eq!(
        client
            .ec2("CreateTags", &[("ResourceId.1", "ami-0123456789abcdef0"), ("Tag.1.Key", "a")])
            .outcome()
            .1,
        "InvalidAMIID.NotFound"
    );
}

#[test]
fn a_resource_has_at_most_50_tags() {
    let (aws, client, image, _) = start();
    for number in 0..50 {
        aws.change_image(&image, |image| {
            drop(image.tags.insert(number.to_string(), String::new()))
        });
    }
    let create = |key: &str| {
        client.ec2("CreateTags", &[("ResourceId.1", &image), ("Tag.1.Key", key)]).outcome().1
    };
    assert_eq!((create("7"), create("new")), (String::new(), "TagLimitExceeded".to_owned()));
    let mut found = 0;
    let mut token = None;
    loop {
        let mut parameters = vec![("MaxResults", "20")];
        parameters.extend(token.as_deref().map(|token| ("NextToken", token)));
        let page = client.ec2("DescribeTags", &parameters);
        found += page.all("key").len();
        token = page.get("nextToken");
        if token.is_none() {
            break;
        }
    }
    assert_eq!(found, 51);
}
