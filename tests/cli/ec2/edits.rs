//! Flags that change the restored image.

use super::partitions::Partitions;
use crate::support::ec2::rich_image;

#[test]
fn flags_edit_an_image_and_the_report_lists_the_attributes() {
    let world = Partitions::new();
    let ami = rich_image(&world.com.aws);
    world.run(&["store", &ami, "a.bin", "--source-profile", "com"]).succeeded();
    let args = [
        &[
            "restore",
            "a.bin",
            "ec2",
            "--target-profile",
            "gov",
            "--name",
            "by flags",
            "--description",
            "",
            "--tag",
            "new=1",
        ][..],
        &[
            "--volume-type",
            "gp3",
            "--volume-type",
            "/dev/sdd=gp2",
            "--iops",
            "3400",
            "--throughput",
            "/dev/xvda=300",
        ],
        &[
            "--volume-size",
            "/dev/sdb=40",
            "--delete-on-termination",
            "/dev/sdb=true",
            "--boot-mode",
            "uefi",
            "--imds-support",
            "v2.0",
        ],
        &["--encrypted", "--launch-permissions", "--deprecation", "--deregistration-protection"],
    ]
    .concat();
    let planned = world.run(&[&args[..], &["--dry-run"]].concat()).succeeded().text();
    assert!(planned.contains("attributes: ") && planned.contains("would restore"), "{planned}");
    assert!(world.gov.aws.images().is_empty() && world.gov.aws.snapshots().is_empty());
    let text = world.run(&args).succeeded().text();
    let image = world.gov.aws.images().remove(0);
    for line in [
        &format!("as {} in us-gov-west-1", image.id),
        "changed    image Name web server (v1.0) -> by flags: asked for",
        "changed    /dev/sdb VolumeSize 10 -> 40: asked for",
        "impossible image ImageId",
    ] {
        assert!(text.contains(line), "`{line}` is missing in {text}");
    }
    let volume = |device: &str| {
        image
            .mappings
            .iter()
            .find(|mapping| mapping.device == device)
            .and_then(|m| m.ebs.clone())
            .expect("a volume")
    };
    assert_eq!(
        (volume("/dev/sdd").volume_type.as_deref(), volume("/dev/sdc").volume_type.as_deref()),
        (Some("gp2"), Some("gp3"))
    );
    assert_eq!(
        (volume("/dev/sdb").volume_size, volume("/dev/sdb").delete_on_termination),
        (Some(40), Some(true))
    );
    assert_eq!(
        (volume("/dev/xvda").throughput, volume("/dev/xvda").iops, image.description.as_deref()),
        (Some(300), Some(3400), None)
    );
    assert!(world.gov.aws.snapshots().iter().all(|snapshot| snapshot.encrypted));
    let report = world.json(&[
        "restore",
        "a.bin",
        "ec2",
        "--target-profile",
        "gov",
        "--name",
        "again",
        "--no-tags",
        "--snapshots-only",
    ]);
    assert_eq!(
        (&report["RestoredImageId"], report["Snapshots"].as_array().map(Vec::len)),
        (&serde_json::Value::Null, Some(3))
    );
    let left = report["Fidelity"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|item| item["Result"] == "left")
        .count();
    assert_eq!(left, 3, "the tags of the one snapshot that has some");
    for (flag, says) in [("/dev/sdz=gp3", "no volume at this device"), ("/dev/xvda=1=2", "")] {
        let args = [
            "restore",
            "a.bin",
            "ec2",
            "--target-profile",
            "gov",
            "--name",
            "never",
            "--volume-type",
            flag,
        ];
        world.run(&args).failed(2, &[says]);
    }
}
