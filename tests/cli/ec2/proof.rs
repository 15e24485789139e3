//! Archives are compared with what EC2 has, and restored images name their origin.

use amistore_aws_double::aws::{Content, Image, Mapping};
use serde_json::{Value, json};

use super::partitions::{BUCKET, Partitions};

const COM: [&str; 4] = ["--source-profile", "com", "--target-profile", "com"];

/// An image of two volumes, its snapshots, and its archive in its bucket and as `a.bin`.
fn archived() -> (Partitions, String, Vec<String>) {
    let world = Partitions::new();
    let snapshots: Vec<String> = (0..2)
        .map(|seed| world.com.aws.snapshot_of(1, [(3, Content::random(seed)), (9, Content::Zero)]))
        .collect();
    let mappings =
        vec![Mapping::of("/dev/xvda", &snapshots[0]), Mapping::of("/dev/sdb", &snapshots[1])];
    let ami = world.com.aws.add_image(Image { mappings, ..Image::new("web", &snapshots[0]) });
    for target in ["s3://images/", "a.bin"] {
        world.run(&[&["store", &ami, target][..], &COM].concat()).succeeded();
    }
    (world, ami, snapshots)
}

fn verify(world: &Partitions, archive: &str, against: &str) -> (i32, Value) {
    let args = ["verify", archive, "--against", against, "--output", "json"];
    let outcome = world.run(&[&args[..], &COM].concat());
    (outcome.code, outcome.json())
}

#[test]
fn an_archive_is_compared_with_an_image_or_snapshots_in_ec2() {
    let (world, ami, snapshots) = archived();
    let object = format!("s3://images/{ami}.bin");
    for archive in [object.as_str(), "a.bin"] {
        let (code, report) = verify(&world, archive, &ami);
        assert_eq!((code, &report["Outcome"]), (0, &json!("ok")), "{report}");
    }
    world.run(&[&["store", &snapshots.join(","), "bare.bin"][..], &COM].concat()).succeeded();
    let (code, report) = verify(&world, "bare.bin", &snapshots.join(","));
    assert_eq!((code, &report["Outcome"]), (0, &json!("ok")), "{report}");
    assert_eq!(verify(&world, "a.bin", &snapshots.join(",")).1["Outcome"], json!("different"));
    world.com.aws.change_image(&ami, |image| drop(image.tags.insert("a".into(), "b".into())));
    let (code, report) = verify(&world, &object, &ami);
    assert_eq!((code, &report["Outcome"]), (5, &json!("metadata_changed")), "{report}");
    assert_eq!(report["MetadataChanged"], json!(["Image.Tags"]));
    world.com.aws.change_snapshot(&snapshots[1], |snapshot| {
        drop(snapshot.blocks.insert(3, Content::bytes(b"other")));
    });
    let (code, report) = verify(&world, &object, &ami);
    assert_eq!((code, &report["Outcome"]), (5, &json!("different")), "{report}");
    let unknown = ["verify", "a.bin", "--against", "ami-0123456789abcdef0"];
    world.run(&[&unknown[..], &COM].concat()).failed(3, &["ami-0123456789abcdef0"]);
    world.run(&["verify", "a.bin", "--against", "ami-1"]).failed(2, &["image id"]);
}

#[test]
fn objects_and_lists_have_the_root_of_their_archive() {
    let (world, ami, _) = archived();
    let key = format!("{ami}.bin");
    let object = format!("s3://images/{key}");
    let root = world.json(&["inspect", &object, "--profile", "com"])["RootSha256"].clone();
    let metadata = |partition: &super::partitions::Partition| {
        let object = partition.s3.object(BUCKET, &key).expect("an object");
        json!(object.user_metadata.get("amistore-root-sha256"))
    };
    assert_eq!(metadata(&world.com), root, "a small archive is sent in one request");
    let sides = ["--source-profile", "com", "--target-profile", "gov"];
    world.run(&[&["copy", &object, "s3://images/"][..], &sides].concat()).succeeded();
    assert_eq!(metadata(&world.gov), root);
    let bytes = world.com.s3.object(BUCKET, &key).expect("an object").bytes;
    world.com.s3.put_object(BUCKET, "plain.bin", bytes, Default::default());
    world.com.s3.put_object(BUCKET, "foreign.bin", &b"no archive"[..], Default::default());
    let listed = world.json(&["ls", "s3://images/", "--profile", "com"]);
    let listed = listed["Archives"].as_array().expect("a list");
    assert_eq!(listed.len(), 3);
    for archive in listed {
        let expected = if archive["S3objectKey"] == "foreign.bin" { &Value::Null } else { &root };
        assert_eq!(&archive["RootSha256"], expected, "{archive}");
    }
    // Only the two objects without the metadata were read.
    assert!(world.com.s3.count("GetObject") >= 2);
}

#[test]
fn a_restored_image_names_its_origin_on_request() {
    let (world, ami, _) = archived();
    let restore = |more: &[&str]| {
        let args = ["restore", "a.bin", "ec2", "--target-profile", "gov"];
        let restored = world.json(&[&args[..], more].concat());
        let id = restored["RestoredImageId"].as_str().expect("an image").to_owned();
        world.gov.aws.image(&id).expect("there").tags
    };
    assert!(restore(&[]).is_empty());
    let tags = restore(&["--name", "tagged", "--tag-source", "--tag", "mine=1"]);
    let expected = [
        ("amistore:source-image-id", ami.as_str()),
        ("amistore:source-image-region", "eu-central-1"),
        ("mine", "1"),
    ];
    assert_eq!(
        tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect::<Vec<_>>(),
        expected
    );
}
