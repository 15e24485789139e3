//! The parameters of RegisterImage, and the report on attributes.

use super::super::edits::DeviceEdit;
use super::*;
use crate::base::DeviceName;

fn document(image: Value) -> ImageDocument {
    let mut image = image;
    let members = image.as_object_mut().expect("an object");
    for (member, value) in [
        ("ImageId", json!("ami-0123456789abcdef0")),
        ("Name", json!("web")),
        ("Architecture", json!("arm64")),
    ] {
        members.entry(member).or_insert(value);
    }
    let document = json!({"Image": image, "ImageAttributes": {"UefiData": {"Value": "QU1a"}}});
    ImageDocument::parse(document.to_string().into_bytes()).expect("a document")
}

fn planned(image: Value, edits: &Edits) -> Registration {
    plan(&document(image), edits, &|id| Some((format!("new-{id}"), 8))).expect("a plan")
}

fn item<'a>(registration: &'a Registration, subject: &str, attribute: &str) -> &'a FidelityItem {
    let found = registration
        .items
        .iter()
        .find(|item| item.subject == subject && item.attribute == attribute);
    found.unwrap_or_else(|| panic!("{subject} {attribute} is in the report"))
}

#[test]
fn everything_that_can_be_set_is_set() {
    let image = json!({
        "BootMode": "uefi", "TpmSupport": "v2.0", "ImdsSupport": "v2.0", "EnaSupport": true,
        "SriovNetSupport": "simple", "Description": "d", "RootDeviceName": "/dev/xvda",
        "VirtualizationType": "hvm", "PlatformDetails": "Windows", "NewThing": {"A": 1},
        "Tags": [{"Key": "größe", "Value": "ü"}, {"Key": "aws:x", "Value": "y"}],
        "BlockDeviceMappings": [
            {"DeviceName": "/dev/xvda", "Ebs": {
                "SnapshotId": "snap-a", "VolumeSize": 20, "VolumeType": "gp3", "Iops": 4000,
                "Throughput": 250, "DeleteOnTermination": true, "Encrypted": true,
                "KmsKeyId": "arn:k",
            }},
            {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"},
            {"DeviceName": "/dev/sdc", "NoDevice": ""},
            {"DeviceName": "/dev/sdd", "Ebs": {
                "VolumeSize": 5, "VolumeType": "standard", "Encrypted": true,
            }},
        ],
    });
    let registration = planned(image, &Edits::default());
    let expected = [
        ("Name", "web"),
        ("Description", "d"),
        ("Architecture", "arm64"),
        ("BootMode", "uefi"),
        ("ImdsSupport", "v2.0"),
        ("TpmSupport", "v2.0"),
        ("UefiData", "QU1a"),
        ("EnaSupport", "true"),
        ("SriovNetSupport", "simple"),
        ("RootDeviceName", "/dev/xvda"),
        ("VirtualizationType", "hvm"),
        ("BlockDeviceMapping.1.DeviceName", "/dev/xvda"),
        ("BlockDeviceMapping.1.Ebs.SnapshotId", "new-snap-a"),
        ("BlockDeviceMapping.1.Ebs.VolumeSize", "20"),
        ("BlockDeviceMapping.1.Ebs.VolumeType", "gp3"),
        ("BlockDeviceMapping.1.Ebs.Iops", "4000"),
        ("BlockDeviceMapping.1.Ebs.Throughput", "250"),
        ("BlockDeviceMapping.1.Ebs.DeleteOnTermination", "true"),
        ("BlockDeviceMapping.2.DeviceName", "/dev/sdb"),
        ("BlockDeviceMapping.2.VirtualName", "ephemeral0"),
        ("BlockDeviceMapping.3.DeviceName", "/dev/sdc"),
        ("BlockDeviceMapping.3.NoDevice", ""),
        ("BlockDeviceMapping.4.DeviceName", "/dev/sdd"),
        ("BlockDeviceMapping.4.Ebs.VolumeSize", "5"),
        ("BlockDeviceMapping.4.Ebs.VolumeType", "standard"),
        ("BlockDeviceMapping.4.Ebs.Encrypted", "true"),
        ("TagSpecification.1.ResourceType", "image"),
        ("TagSpecification.1.Tag.1.Key", "größe"),
        ("TagSpecification.1.Tag.1.Value", "ü"),
    ];
    let found: Vec<(&str, &str)> = registration
        .params
        .pairs()
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(found, expected);
    for (subject, attribute) in [
        ("image", "Tag aws:x"),
        ("image", "PlatformDetails"),
        ("image", "NewThing"),
        ("/dev/xvda", "KmsKeyId"),
    ] {
        assert_eq!(
            item(&registration, subject, attribute).fidelity,
            Fidelity::Impossible,
            "{attribute}"
        );
    }
}

#[test]
fn nothing_is_left_to_the_defaults_of_ec2() {
    let registration = planned(json!({}), &Edits::default());
    assert_eq!(registration.params.get("VirtualizationType"), Some("hvm"));
    let silent =
        ImageDocument::parse(br#"{"Image": {"ImageId": "ami-01234567", "Name": "web"}}"#.to_vec())
            .expect("a document");
    assert!(
        plan(&silent, &Edits::default(), &|_| None)
            .err()
            .expect("refused")
            .message()
            .contains("i386")
    );
}

#[test]
fn a_root_device_without_a_volume_is_refused_and_can_be_named() {
    let mapping = json!([{"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": "snap-a"}}]);
    let refused = |image: Value| {
        let edits = Edits::default();
        plan(&document(image), &edits, &|_| Some(("x".into(), 8))).err().expect("refused")
    };
    for image in [
        json!({"BlockDeviceMappings": mapping}),
        json!({"RootDeviceName": "/dev/xvda", "BlockDeviceMappings": mapping}),
        json!({"RootDeviceName": "/dev/sdb", "BlockDeviceMappings": [
            {"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": "snap-a"}},
            {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"},
        ]}),
    ] {
        let error = refused(image.clone());
        assert!(error.message().contains("--root-device"), "{error:?}");
        assert_eq!(error.fact("devices"), Some("/dev/sda1"));
        let edits = Edits { root_device: DeviceName::parse("/dev/sda1").ok(), ..Edits::default() };
        let named = planned(image, &edits);
        assert_eq!(named.params.get("RootDeviceName"), Some("/dev/sda1"));
        assert_eq!(item(&named, "image", "RootDeviceName").fidelity, Fidelity::Changed);
    }
}

#[test]
fn a_volume_type_that_needs_iops_is_refused_without_them() {
    let image = json!({"RootDeviceName": "/dev/sda1", "BlockDeviceMappings": [
        {"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": "snap-a", "VolumeType": "gp2"}},
    ]});
    let edit = |change| DeviceEdit { device: None, change };
    for kind in ["io1", "io2"] {
        let kind = || edit(DeviceChange::VolumeType(kind.into()));
        let edits = Edits { devices: vec![kind()], ..Edits::default() };
        let error = plan(&document(image.clone()), &edits, &|_| Some(("x".into(), 8)))
            .err()
            .expect("refused");
        assert!(error.message().contains("--iops"), "{error:?}");
        let devices = vec![kind(), edit(DeviceChange::Iops(500))];
        let given = planned(image.clone(), &Edits { devices, ..Edits::default() });
        assert_eq!(given.params.get("BlockDeviceMapping.1.Ebs.Iops"), Some("500"));
    }
}

#[test]
fn edits_are_applied_and_reported() {
    let edit = |device: &str, change| DeviceEdit { device: DeviceName::parse(device).ok(), change };
    let edits = Edits {
        name: Some("other".into()),
        description: Some(String::new()),
        tags: vec![("a".into(), "new".into()), ("b".into(), "2".into())],
        boot_mode: Some("uefi-preferred".into()),
        devices: vec![
            edit("/dev/xvda", DeviceChange::VolumeType("io2".into())),
            edit("/dev/xvda", DeviceChange::Iops(9000)),
            edit("/dev/xvda", DeviceChange::VolumeSize(30)),
            edit("/dev/xvda", DeviceChange::DeleteOnTermination(false)),
        ],
        ..Edits::default()
    };
    let image = json!({
        "Description": "d", "TpmSupport": "v2.0", "BootMode": "uefi", "RootDeviceName": "/dev/xvda",
        "Tags": [{"Key": "a", "Value": "1"}],
        "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {
            "SnapshotId": "snap-a", "VolumeSize": 8, "VolumeType": "gp3", "Throughput": 200,
            "DeleteOnTermination": true,
        }}],
    });
    let registration = planned(image.clone(), &edits);
    let get = |name| registration.params.get(name);
    assert_eq!((get("Name"), get("Description"), get("TpmSupport")), (Some("other"), None, None));
    assert_eq!(get("BlockDeviceMapping.1.Ebs.VolumeType"), Some("io2"));
    assert_eq!(get("BlockDeviceMapping.1.Ebs.Iops"), Some("9000"));
    assert_eq!(get("BlockDeviceMapping.1.Ebs.VolumeSize"), Some("30"));
    assert_eq!(get("BlockDeviceMapping.1.Ebs.Throughput"), None);
    assert_eq!(get("BlockDeviceMapping.1.Ebs.DeleteOnTermination"), Some("false"));
    assert_eq!(
        (get("TagSpecification.1.Tag.1.Value"), get("TagSpecification.1.Tag.2.Key")),
        (Some("new"), Some("b"))
    );
    assert_eq!(item(&registration, "/dev/xvda", "VolumeSize").fidelity, Fidelity::Changed);
    assert_eq!(item(&registration, "/dev/xvda", "Throughput").fidelity, Fidelity::Impossible);
    let smaller =
        Edits { devices: vec![edit("/dev/xvda", DeviceChange::VolumeSize(7))], ..Edits::default() };
    assert!(plan(&document(image.clone()), &smaller, &|_| Some(("x".into(), 8))).is_err());
    let unknown =
        Edits { devices: vec![edit("/dev/sdz", DeviceChange::VolumeSize(70))], ..Edits::default() };
    assert!(plan(&document(image), &unknown, &|_| Some(("x".into(), 8))).is_err());
}

#[test]
fn the_report_follows_the_description_of_the_new_image() {
    let image = json!({
        "OwnerId": "1", "PlatformDetails": "Linux/UNIX", "EnaSupport": true,
        "RootDeviceName": "/dev/xvda",
        "Tags": [{"Key": "a", "Value": ""}],
        "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {
            "SnapshotId": "snap-a", "VolumeSize": 8, "VolumeType": "gp3", "Encrypted": false,
        }}],
    });
    let mut registration = planned(image.clone(), &Edits::default());
    let mut described = image;
    described["OwnerId"] = json!("2");
    described["EnaSupport"] = json!(false);
    described["Name"] = json!("web");
    described["Architecture"] = json!("arm64");
    observe(&mut registration.items, &described, Some(&json!({"UefiData": {"Value": "QU1a"}})));
    let fidelity = |subject, attribute| item(&registration, subject, attribute).fidelity;
    assert_eq!(fidelity("image", "OwnerId"), Fidelity::Impossible);
    assert_eq!(fidelity("image", "PlatformDetails"), Fidelity::Set);
    assert_eq!(fidelity("image", "EnaSupport"), Fidelity::Changed);
    assert_eq!(fidelity("image", "UefiData"), Fidelity::Set);
    assert_eq!(fidelity("/dev/xvda", "Encrypted"), Fidelity::Set);
    assert_eq!(item(&registration, "image", "EnaSupport").now, Some(json!(false)));
    assert_eq!(fidelity("image", "Tag a"), Fidelity::Set, "an empty value is a value");
}
