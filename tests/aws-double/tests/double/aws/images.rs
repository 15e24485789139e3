//! Images: registered and described.

use amistore_aws_double::aws::{Content, Image, Snapshot, TestAws};

use super::client::{Client, outcome};

fn start() -> (TestAws, Client, String) {
    let aws = TestAws::start();
    let id = aws.snapshot_of(8, [(0, Content::random(1))]);
    let client = Client::new(&aws);
    (aws, client, id)
}

#[test]
fn an_image_is_registered_and_described() {
    let (aws, client, snapshot) = start();
    let answer = client.ec2(
        "RegisterImage",
        &[
            ("Name", "my image"),
            ("Architecture", "arm64"),
            ("VirtualizationType", "hvm"),
            ("RootDeviceName", "/dev/xvda"),
            ("BootMode", "uefi"),
            ("EnaSupport", "true"),
            ("BlockDeviceMapping.1.DeviceName", "/dev/xvda"),
            ("BlockDeviceMapping.1.Ebs.SnapshotId", &snapshot),
            ("BlockDeviceMapping.1.Ebs.VolumeType", "gp3"),
            ("BlockDeviceMapping.2.DeviceName", "/dev/sdb"),
            ("BlockDeviceMapping.2.VirtualName", "ephemeral0"),
            ("TagSpecification.1.ResourceType", "image"),
            ("TagSpecification.1.Tag.1.Key", "ключ <&>"),
            ("TagSpecification.1.Tag.1.Value", ""),
        ],
    );
    let id = answer.get("imageId").expect("an id");
    let shown = client.ec2("DescribeImages", &[("ImageId.1", &id)]);
    let namespace = "http://ec2.amazonaws.com/doc/2016-11-15/";
    let root = format!("<DescribeImagesResponse xmlns=\"{namespace}\"><requestId>7e57a350-");
    assert!(shown.text().contains(&root));
    let fields = [
        "architecture",
        "imageState",
        "bootMode",
        "volumeType",
        "iops",
        "throughput",
        "volumeSize",
        "virtualName",
        "key",
    ];
    let values: Vec<String> = fields.iter().filter_map(|field| shown.get(field)).collect();
    assert_eq!(
        values,
        [
            "arm64",
            "available",
            "uefi",
            "gp3",
            "3000",
            "125",
            "8",
            "ephemeral0",
            "ключ &lt;&amp;&gt;"
        ]
    );
    let attribute =
        |name: &str| client.ec2("DescribeImageAttribute", &[("ImageId", &id), ("Attribute", name)]);
    assert_eq!(attribute("bootMode").get("value"), Some("uefi".to_owned()));
    assert!(attribute("uefiData").text().contains("<uefiData/>"));
    assert_eq!(attribute("blockDeviceMapping").outcome(), outcome(403, "AuthFailure"));
    assert_eq!(
        client.ec2("DeleteSnapshot", &[("SnapshotId", &snapshot)]).outcome(),
        outcome(400, "InvalidSnapshot.InUse")
    );
    assert_eq!(client.ec2("DeregisterImage", &[("ImageId", &id)]).outcome(), outcome(200, ""));
    assert_eq!(
        client.ec2("DeleteSnapshot", &[("SnapshotId", &snapshot)]).outcome(),
        outcome(200, "")
    );
    assert!(aws.images().is_empty() && aws.snapshots().is_empty());
}

#[test]
fn extra_xml_is_part_of_descriptions() {
    let (aws, client, snapshot) = start();
    let image = aws.add_image(Image {
        extra_xml: "<newThing><item>1</item></newThing>".to_owned(),
        ..Image::new("a", &snapshot)
    });
    let other =
        aws.add_snapshot(Snapshot { extra_xml: "<newer>2</newer>".to_owned(), ..Snapshot::new(1) });
    assert_eq!(
        client.ec2("DescribeImages", &[("ImageId.1", &image)]).get("newThing"),
        Some("<item>1</item>".to_owned())
    );
    assert_eq!(
        client.ec2("DescribeSnapshots", &[("SnapshotId.1", &other)]).get("newer"),
        Some("2".to_owned())
    );
    assert_eq!(
        client
            .ec2(
                "CreateTags",
                &[("ResourceId.1", &image), ("Tag.1.Key", "a"), ("Tag.1.Value", "b")]
            )
            .outcome(),
        outcome(200, "")
    );
    assert_eq!(aws.image(&image).map(|image| image.tags["a"].clone()), Some("b".to_owned()));
}
