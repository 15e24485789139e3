//! Attributes of restored images, edits, and the report on attributes.

use amistore::internals::aws::ec2::{
    DeviceChange, DeviceEdit, Ec2Restored, Edits, Fidelity, FidelityItem,
};
use amistore::internals::base::DeviceName;
use amistore_aws_double::aws::{Image, TestAws};

use super::bench::{Bench, Restoration, words};
use crate::support::ec2::{assert_same, rich_image};

/// Changes the rich image, stores it, and restores it with these edits.
fn restored(change: impl FnOnce(&mut Image), edits: &Edits) -> (Restoration, Image, Ec2Restored) {
    restored_to(Bench::new(), change, edits)
}

fn restored_to(
    to: Bench,
    change: impl FnOnce(&mut Image),
    edits: &Edits,
) -> (Restoration, Image, Ec2Restored) {
    let from = Bench::new();
    let ami = rich_image(&from.aws);
    from.aws.change_image(&ami, change);
    let archive = from.store(&ami).unwrap_or_else(|error| panic!("{}", words(&error)));
    let restored =
        to.restore(&archive, "work", edits).unwrap_or_else(|error| panic!("{}", words(&error)));
    let image =
        to.aws.image(restored.image_id.as_ref().expect("an image").as_str()).expect("there");
    (Restoration { from, ami, archive, to }, image, restored)
}

#[track_caller]
fn item<'a>(restored: &'a Ec2Restored, subject: &str, attribute: &str) -> &'a FidelityItem {
    let found =
        restored.items.iter().find(|item| item.subject == subject && item.attribute == attribute);
    found.unwrap_or_else(|| {
        panic!("{subject} {attribute} is accounted for in {:#?}", restored.items)
    })
}

#[track_caller]
fn assert_fidelity(restored: &Ec2Restored, subject: &str, attribute: &str, fidelity: Fidelity) {
    let item = item(restored, subject, attribute);
    assert_eq!(item.fidelity, fidelity, "{item:?}");
    assert_eq!(item.reason.is_none(), fidelity == Fidelity::Set, "{item:?}");
}

#[test]
fn a_restore_without_edits_makes_the_same_image() {
    let (work, image, restored) = restored(|_| {}, &Edits::default());
    assert_same(&work.from.aws, &work.ami, &work.to.aws, &image.id);
    for attribute in [
        "Name",
        "Description",
        "Architecture",
        "BootMode",
        "TpmSupport",
        "ImdsSupport",
        "UefiData",
        "EnaSupport",
    ] {
        assert_fidelity(&restored, "image", attribute, Fidelity::Set);
    }
    for attribute in ["LaunchPermission", "DeprecationTime", "DeregistrationProtection"] {
        assert_fidelity(&restored, "image", attribute, Fidelity::Left);
    }
    for attribute in ["ImageId", "CreationDate", "LastLaunchedTime", "NewThing"] {
        assert_fidelity(&restored, "image", attribute, Fidelity::Impossible);
    }
    for (device, attribute) in [
        ("/dev/xvda", "Iops"),
        ("/dev/sdb", "VolumeType"),
        ("/dev/sdc", "VolumeSize"),
        ("/dev/sde", "VirtualName"),
    ] {
        assert_fidelity(&restored, device, attribute, Fidelity::Set);
    }
    assert!(
        restored
            .items
            .iter()
            .filter(|item| item.attribute.starts_with("Tag "))
            .all(|item| item.fidelity == Fidelity::Set)
    );
    assert_eq!(restored.items.iter().filter(|item| item.attribute.starts_with("Tag ")).count(), 33);
    assert!(
        image.launch.users.is_empty()
            && image.deprecation_time.is_none()
            && image.deregistration_protection.is_none()
    );
    for action in [
        "ModifyImageAttribute",
        "EnableImageDeprecation",
        "EnableImageDeregistrationProtection",
        "CreateTags",
    ] {
        assert_eq!(work.to.aws.count(action), 0, "{action}");
    }
}

#[test]
fn permissions_deprecation_and_protection_are_restored_on_request() {
    let edits = Edits {
        launch_permissions: true,
        deprecation: true,
        deregistration_protection: true,
        ..Edits::default()
    };
    for protection in ["enabled-without-cooldown", "enabled-with-cooldown"] {
        let (_, image, restored) =
            restored(|image| image.deregistration_protection = Some(protection.into()), &edits);
        assert_eq!(image.launch.users.iter().collect::<Vec<_>>(), ["777788889999"]);
        assert_eq!(image.deprecation_time.as_deref(), Some("2035-01-01T00:00:00.000Z"));
        assert_eq!(image.deregistration_protection.as_deref(), Some(protection));
        for attribute in ["LaunchPermission", "DeprecationTime", "DeregistrationProtection"] {
            assert_fidelity(&restored, "image", attribute, Fidelity::Set);
        }
    }
}

#[test]
fn attributes_of_another_partition_or_the_past_are_impossible() {
    let organization = "arn:aws:organizations::111122223333:organization/o-123example";
    let unit = "arn:aws:organizations::111122223333:ou/o-123example/ou-1234-5example";
    let edits = Edits { launch_permissions: true, deprecation: true, ..Edits::default() };
    let change = |image: &mut Image| {
        image.launch.organizations.insert(organization.into());
        image.launch.units.insert(unit.into());
        image.deprecation_time = Some("2021-01-01T00:00:00.000Z".into());
    };
    let gov = Bench { aws: TestAws::builder().region("us-gov-west-1").start(), ..Bench::new() };
    let (_, image, restored) = restored_to(gov, change, &edits);
    assert_eq!(
        (image.launch.users.len(), image.launch.organizations.len(), image.launch.units.len()),
        (1, 0, 0)
    );
    let permissions: Vec<Fidelity> = restored
        .items
        .iter()
        .filter(|item| item.attribute == "LaunchPermission")
        .map(|item| item.fidelity)
        .collect();
    assert_eq!(
        permissions.iter().filter(|fidelity| **fidelity == Fidelity::Impossible).count(),
        2,
        "{permissions:?}"
    );
    assert_fidelity(&restored, "image", "DeprecationTime", Fidelity::Impossible);
    assert_eq!(image.deprecation_time, None);
    // Within the partition they are restored.
    let (_, image, _) = super::edits::restored(change, &edits);
    assert!(image.launch.organizations.contains(organization) && image.launch.units.contains(unit));
}

#[test]
fn billing_products_are_reported_as_impossible() {
    let change = |image: &mut Image| {
        (image.platform, image.platform_details) = (Some("windows".into()), Some("Windows".into()));
        image.usage_operation = Some("RunInstances:0002".into());
        image.product_codes = vec![("abc".into(), "marketplace".into())];
    };
    let (_, image, restored) = restored(change, &Edits::default());
    for attribute in ["Platform", "PlatformDetails", "UsageOperation", "ProductCodes"] {
        assert_fidelity(&restored, "image", attribute, Fidelity::Impossible);
    }
    assert_eq!(image.platform_details.as_deref(), Some("Linux/UNIX"));
    assert!(
        item(&restored, "image", "PlatformDetails")
            .reason
            .as_ref()
            .is_some_and(|reason| reason.contains("--via-aws"))
    );
}

#[test]
fn edits_apply_to_one_device_or_to_all() {
    let edit = |device: Option<&str>, change| DeviceEdit {
        device: device.map(|name| DeviceName::parse(name).expect("a name")),
        change,
    };
    let edits = Edits {
        name: Some("another name".into()),
        description: Some("another text".into()),
        tags: vec![("ключ-00".into(), "new".into()), ("added".into(), "1".into())],
        boot_mode: Some("uefi".into()),
        devices: vec![
            edit(None, DeviceChange::VolumeType("gp3".into())),
            edit(None, DeviceChange::Iops(3400)),
            edit(Some("/dev/sdd"), DeviceChange::VolumeType("gp2".into())),
            edit(Some("/dev/xvda"), DeviceChange::VolumeSize(50)),
            edit(Some("/dev/xvda"), DeviceChange::Throughput(500)),
            edit(None, DeviceChange::DeleteOnTermination(true)),
        ],
        ..Edits::default()
    };
    let (work, image, restored) = restored(|_| {}, &edits);
    assert_eq!(
        (image.name.as_str(), image.description.as_deref()),
        ("another name", Some("another text"))
    );
    assert_eq!(
        (image.tags["ключ-00"].as_str(), image.tags["added"].as_str(), image.tags.len()),
        ("new", "1", 31)
    );
    assert!(work.to.aws.snapshots().iter().all(|snapshot| snapshot.tags["added"] == "1"));
    let volume = |device: &str| {
        let mapping =
            image.mappings.iter().find(|mapping| mapping.device == device).expect("a device");
        mapping.ebs.clone().expect("a volume")
    };
    let root = volume("/dev/xvda");
    assert_eq!((root.volume_size, root.iops, root.throughput), (Some(50), Some(3400), Some(500)));
    assert_eq!(volume("/dev/sdd").volume_type.as_deref(), Some("gp2"));
    for device in ["/dev/xvda", "/dev/sdb", "/dev/sdc", "/dev/sdf"] {
        assert_eq!(volume(device).volume_type.as_deref(), Some("gp3"), "{device}");
        assert_eq!(volume(device).delete_on_termination, Some(true), "{device}");
    }
    for (subject, attribute) in [
        ("image", "Name"),
        ("image", "Description"),
        ("/dev/xvda", "VolumeSize"),
        ("/dev/sdb", "VolumeType"),
    ] {
        assert_fidelity(&restored, subject, attribute, Fidelity::Changed);
    }
    assert_fidelity(&restored, "image", "Tag ключ-00", Fidelity::Changed);
}

#[test]
fn without_tags_only_the_added_tags_are_set() {
    let edits =
        Edits { no_tags: true, tags: vec![("mine".into(), "1".into())], ..Edits::default() };
    let (work, image, restored) = restored(|_| {}, &edits);
    assert_eq!(image.tags.keys().collect::<Vec<_>>(), ["mine"]);
    assert!(work.to.aws.snapshots().iter().all(|snapshot| snapshot.tags.keys().eq(["mine"])));
    assert_fidelity(&restored, "image", "Tag ключ-00", Fidelity::Left);
}

#[test]
fn encryption_follows_edits_and_the_account() {
    let key = "arn:aws:kms:us-east-1:123456789012:key/11111111-aaaa-4bbb-8ccc-0123456789ab";
    let keys = |work: &Restoration| -> Vec<Option<String>> {
        work.to.aws.snapshots().into_iter().map(|snapshot| snapshot.kms_key_id).collect()
    };
    let edits = Edits { allow_unencrypted: true, ..Edits::default() };
    let (work, _, restored) = restored(|_| {}, &edits);
    assert!(
        keys(&work).iter().all(Option::is_none),
        "an encrypted snapshot is decrypted where that is allowed"
    );
    assert!(work.to.recorded.take().contains("was encrypted, and"), "which is warned of");
    assert_eq!(
        restored
            .items
            .iter()
            .filter(|item| item.attribute == "Encrypted" && item.fidelity == Fidelity::Changed)
            .count(),
        1
    );
    let (work, _, _) = super::edits::restored(
        |_| {},
        &Edits { kms_key_arn: Some(key.into()), ..Edits::default() },
    );
    assert!(keys(&work).iter().all(|used| used.as_deref() == Some(key)));
    let bench = Bench::new();
    bench.aws.encrypt_by_default(TestAws::ACCOUNT, true, Some(key));
    let (work, _, _) = restored_to(bench, |_| {}, &Edits::default());
    assert!(keys(&work).iter().all(|used| used.as_deref() == Some(key)));
}

#[test]
fn a_denied_attribute_is_not_reported_as_changed() {
    let bench = Bench::new();
    bench.aws.deny("DescribeImageAttribute");
    let (_, image, restored) = restored_to(bench, |_| {}, &Edits::default());
    assert_eq!(image.uefi_data.as_deref(), Some("QU1aTlVFRkkA"));
    assert_fidelity(&restored, "image", "UefiData", Fidelity::Set);
}

#[test]
fn a_failed_change_of_the_new_image_is_retried_by_the_next_run() {
    for (action, edits) in [
        ("ModifyImageAttribute", Edits { launch_permissions: true, ..Edits::default() }),
        ("EnableImageDeprecation", Edits { deprecation: true, ..Edits::default() }),
        (
            "EnableImageDeregistrationProtection",
            Edits { deregistration_protection: true, ..Edits::default() },
        ),
    ] {
        let (from, to) = (Bench::new(), Bench::new());
        let ami = rich_image(&from.aws);
        let archive = from.store(&ami).expect("an archive");
        to.aws.deny(action);
        let error = to.restore(&archive, "work", &edits).expect_err("denied");
        let id = to.aws.images()[0].id.clone();
        assert!(
            words(&error).contains(action) && error.fact("registered") == Some(&id),
            "{}",
            words(&error)
        );
        to.recorded.take();
        to.restore(&archive, "work", &edits).expect_err("still denied");
        assert!(to.recorded.take().contains(action), "the cause is said again");
        to.aws.allow(action);
        let restored = to.restore(&archive, "work", &edits).expect("finished");
        assert_eq!(
            (restored.image_id.map(|id| id.to_string()), to.aws.images().len(), to.tasks()),
            (Some(id), 1, 0)
        );
    }
}

#[test]
fn tags_too_long_for_start_snapshot_are_set_by_create_tags() {
    let (from, to) = (Bench::new(), Bench::new());
    let snapshot = from.aws.snapshot_of(1, []);
    from.aws.change_snapshot(&snapshot, |snapshot| {
        drop(snapshot.tags.insert("long".into(), "x".repeat(256)));
    });
    let ami = from.aws.add_image(Image::new("long tags", &snapshot));
    let archive = from.store(&ami).expect("an archive");
    to.restore(&archive, "work", &Edits::default())
        .unwrap_or_else(|error| panic!("{}", words(&error)));
    assert_eq!(to.aws.snapshots()[0].tags["long"].len(), 256);
    assert_eq!(to.aws.count("CreateTags"), 1);
}
