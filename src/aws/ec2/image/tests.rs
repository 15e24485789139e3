//! Tests of images as sources.

use super::*;

#[test]
fn sources_are_distinguished_from_files() {
    assert!(Ec2Source::parse("image-dir").is_none());
    assert!(matches!(Ec2Source::parse("ami-0123456789abcdef0"), Some(Ok(Ec2Source::Image(_)))));
    assert!(matches!(
        Ec2Source::parse("snap-01234567,snap-0123456789abcdef0"),
        Some(Ok(Ec2Source::Snapshots(ids))) if ids.len() == 2
    ));
    for bad in ["ami-1", "snap-", "snap-0123", "snap-01234567,", "snap-01234567,ami-01234567"] {
        assert!(matches!(Ec2Source::parse(bad), Some(Err(_))), "{bad}");
    }
}

#[test]
fn an_archive_of_the_image_is_distinguished_from_others() {
    let document = |launched: &str, tag: &str, uefi: &str| {
        let image = json!({
            "ImageId": "ami-01234567", "Name": "web", "LastLaunchedTime": launched,
            "Tags": [{"Key": "a", "Value": tag}],
        });
        let text = json!({
            "Image": image, "ImageAttributes": {"UefiData": uefi},
            "Snapshots": [{"SnapshotId": "snap-a", "Progress": launched}],
        });
        ImageDocument::parse(text.to_string().into_bytes()).expect("a document")
    };
    let described = document("2026", "1", "x");
    let image = Ec2Image { document: described, volumes: Vec::new(), new_name: None };
    let one = |changed: Option<&str>| ImageMatch::Same {
        changed: changed.map(|name| vec![name.to_owned()]),
        disks_are_fixed: true,
    };
    assert_eq!(image.compare(&document("2027", "1", "x")), one(None));
    assert_eq!(image.compare(&document("2026", "2", "x")), one(Some("Image.Tags")));
    assert_eq!(image.compare(&document("2026", "1", "")), one(Some("ImageAttributes.UefiData")));
    let other = ImageDocument::parse(br#"{"Snapshots": [{"SnapshotId": "snap-a"}]}"#.to_vec())
        .expect("a document");
    assert_eq!(image.compare(&other), ImageMatch::Different);
}

#[test]
fn images_that_cannot_be_stored_are_refused_with_a_reason() {
    for (image, kind, word) in [
        (json!({"State": "pending"}), ErrorKind::Io, "still being made"),
        (
            json!({"State": "failed", "StateReason": {"Message": "x"}}),
            ErrorKind::Unsupported,
            "not whole",
        ),
        (json!({"RootDeviceType": "instance-store"}), ErrorKind::Unsupported, "instance store"),
        (json!({"VirtualizationType": "paravirtual"}), ErrorKind::Unsupported, "paravirtual"),
    ] {
        let error = check_image(&image).expect_err("refused");
        assert!(error.kind() == kind && error.message().contains(word), "{error}");
    }
    assert!(
        check_image(
            &json!({"State": "disabled", "RootDeviceType": "ebs", "VirtualizationType": "hvm"})
        )
        .is_ok()
    );
}

#[test]
fn snapshots_that_cannot_be_read_are_refused_with_a_reason() {
    for (snapshot, word) in [
        (None, "not shared"),
        (Some(json!({"State": "pending", "Progress": "3%"})), "still being made"),
        (Some(json!({"State": "completed", "StorageTier": "archive"})), "archive tier"),
        (Some(json!({"State": "error"})), "not whole"),
    ] {
        let error = check_snapshot(snapshot.as_ref()).expect_err("refused");
        assert!(error.message().contains(word), "{error}");
    }
}
