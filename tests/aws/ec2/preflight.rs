//! Preflight of a store: all reasons against it are found before its blocks are read, and reported
//! together with hints.

use amistore::internals::base::ErrorKind;
use amistore::internals::image::ImageSource;
use amistore_aws_double::aws::{Content, Image, Mapping, Permissions, Snapshot, TestAws};
use serde_json::{Value, json};

use super::bench::{BLOCKS, Bench, small_image, words};

/// An image of one volume with two blocks.
fn image(
    bench: &Bench,
    change: impl FnOnce(&mut Image),
    snapshot: impl FnOnce(&mut Snapshot),
) -> (String, String) {
    let mut root = Snapshot::new(1).with([(0, Content::random(1)), (5, Content::random(1))]);
    snapshot(&mut root);
    let root = bench.aws.add_snapshot(root);
    let mut image = Image::new("an image", &root);
    change(&mut image);
    (bench.aws.add_image(image), root)
}

/// The store is refused with an error of these words, and has read at most one block of each
/// snapshot.
#[track_caller]
fn assert_refused(bench: &Bench, source: &str, kind: ErrorKind, says: &[&str]) {
    let error = bench.open(source).err().expect("refused");
    let text = words(&error);
    assert_eq!(error.kind(), kind, "{text}");
    for word in says {
        assert!(text.contains(word), "`{word}` is missing in {text}");
    }
    assert!(bench.aws.count("GetSnapshotBlock") <= 1, "blocks were read");
}

#[test]
fn a_snapshot_in_the_archive_tier_is_refused() {
    let bench = Bench::new();
    let (ami, snapshot) = image(&bench, |_| {}, |snapshot| snapshot.tier = "archive".into());
    assert_refused(&bench, &ami, ErrorKind::Io, &[&snapshot, "archive tier", "72 hours"]);
}

#[test]
fn an_incomplete_snapshot_is_refused() {
    for (state, kind, says) in [
        ("pending", ErrorKind::Io, "still being made"),
        ("error", ErrorKind::Unsupported, "not whole"),
        ("recoverable", ErrorKind::Io, "recycle bin"),
    ] {
        let bench = Bench::new();
        let (ami, snapshot) = image(&bench, |_| {}, |snapshot| snapshot.state = state.into());
        assert_refused(&bench, &ami, kind, &[&snapshot, says]);
    }
}

#[test]
fn foreign_snapshots_are_read_only_if_shared_with_the_account() {
    let bench = Bench::new();
    let other = |permissions: Permissions| {
        let change = |image: &mut Image| {
            image.owner = "999999999999".into();
            image.launch.users.insert(TestAws::ACCOUNT.to_owned());
        };
        image(&bench, change, |snapshot| {
            (snapshot.owner, snapshot.permissions) = ("999999999999".into(), permissions);
        })
    };
    let (ami, snapshot) = other(Permissions::default());
    assert_refused(&bench, &ami, ErrorKind::NotFound, &[&snapshot, "not shared"]);
    let (ami, snapshot) = other(Permissions { all: true, ..Permissions::default() });
    assert_refused(
        &bench,
        &ami,
        ErrorKind::Denied,
        &[&snapshot, "the snapshot is public", "copy it"],
    );
    let (ami, _) = other(Permissions {
        users: [TestAws::ACCOUNT.to_owned()].into(),
        ..Permissions::default()
    });
    bench.recorded.take();
    bench.store(&ami).expect("it is shared");
    let text = bench.recorded.take();
    assert!(
        text.contains(
            "warning: only the owner of the image may read launchPermission and uefiData"
        ),
        "{text}"
    );
}

#[test]
fn a_denied_kms_key_is_named() {
    let bench = Bench::new();
    let (ami, snapshot) = image(&bench, |_| {}, |snapshot| snapshot.encrypted = true);
    let key =
        bench.aws.snapshot(&snapshot).and_then(|snapshot| snapshot.kms_key_id).expect("a key");
    bench.aws.deny_kms_key(&key);
    assert_refused(&bench, &ami, ErrorKind::Denied, &[&snapshot, &key, "kms:Decrypt"]);
}

#[test]
fn unsuitable_images_are_refused_before_their_blocks_are_read() {
    type Change = fn(&mut Image);
    let cases: [(Change, ErrorKind, &[&str]); 5] = [
        (
            |image| image.virtualization_type = "paravirtual".into(),
            ErrorKind::Unsupported,
            &["paravirtual", "store its snapshots alone"],
        ),
        (
            |image| image.root_device_type = "instance-store".into(),
            ErrorKind::Unsupported,
            &["instance store"],
        ),
        (
            |image| (image.state, image.pending_for) = ("pending".into(), u32::MAX),
            ErrorKind::Io,
            &["wait until it is available"],
        ),
        (
            |image| {
                (image.state, image.state_reason) =
                    ("failed".into(), Some(("Client.X".into(), "no luck".into())));
            },
            ErrorKind::Unsupported,
            &["no luck"],
        ),
        (
            |image| image.mappings = vec![Mapping::default()],
            ErrorKind::Unsupported,
            &["no snapshot"],
        ),
    ];
    for (change, kind, says) in cases {
        let bench = Bench::new();
        let (ami, _) = image(&bench, change, |_| {});
        assert_refused(&bench, &ami, kind, &[says, &[&ami]].concat());
        assert_eq!(bench.aws.count("ListSnapshotBlocks"), 0);
    }
}

#[test]
fn a_store_warns_of_attributes_that_a_restore_cannot_set() {
    let bench = Bench::new();
    let change = |image: &mut Image| {
        image.product_codes = vec![("abc".into(), "marketplace".into())];
        image.platform_details = Some("Windows".into());
    };
    let (ami, _) = image(&bench, change, |_| {});
    bench.open(&ami).expect("it can be stored");
    let text = bench.recorded.take();
    assert!(
        text.contains("billed as \"Windows\"")
            && text.contains("--via-aws")
            && text.contains("product codes"),
        "{text}"
    );
}

#[test]
fn all_unreadable_snapshots_are_named() {
    let bench = Bench::new();
    let archived = bench.aws.add_snapshot(Snapshot { tier: "archive".into(), ..Snapshot::new(1) });
    let pending = bench.aws.add_snapshot(Snapshot { state: "pending".into(), ..Snapshot::new(1) });
    let good = bench.aws.snapshot_of(1, [(0, Content::random(1))]);
    let foreign =
        bench.aws.add_snapshot(Snapshot { owner: "999999999999".into(), ..Snapshot::new(1) });
    let mappings = [
        ("/dev/xvda", &good),
        ("/dev/sdb", &archived),
        ("/dev/sdc", &pending),
        ("/dev/sdd", &foreign),
    ];
    let mappings = mappings.map(|(device, snapshot)| Mapping::of(device, snapshot)).to_vec();
    let ami = bench.aws.add_image(Image { mappings, ..Image::new("several", &good) });
    assert_refused(
        &bench,
        &ami,
        ErrorKind::Io,
        &[&archived, "archive tier", &pending, "still being made", &foreign, "not shared"],
    );
}

#[test]
fn every_missing_permission_of_a_store_is_named() {
    for action in ["DescribeImages", "DescribeSnapshots", "ListSnapshotBlocks", "GetSnapshotBlock"]
    {
        let bench = Bench::new();
        let (ami, _) = image(&bench, |_| {}, |_| {});
        bench.aws.deny(action);
        assert_refused(&bench, &ami, ErrorKind::Denied, &[action]);
        bench.aws.allow(action);
        bench.store(&ami).expect("it may be stored");
    }
}

#[test]
fn denied_attributes_are_omitted_with_a_warning() {
    let bench = Bench::new();
    let (ami, _) = image(&bench, |image| image.uefi_data = Some("QU1a".into()), |_| {});
    bench.aws.deny("DescribeImageAttribute");
    bench.aws.deny("DescribeSnapshotAttribute");
    let opened = bench.open(&ami).expect("it can be stored");
    assert_eq!(
        opened.document().value()["ImageAttributes"],
        json!({"NotRecorded": ["launchPermission", "uefiData"]})
    );
    assert!(bench.recorded.take().contains("launchPermission and uefiData"));
}

#[test]
fn a_missing_image_is_not_found() {
    let bench = Bench::new();
    for source in ["ami-0123456789abcdef0", "snap-0123456789abcdef0"] {
        assert_refused(&bench, source, ErrorKind::NotFound, &[source]);
    }
}

#[test]
fn the_image_document_has_all_attributes_of_ec2() {
    let bench = Bench::new();
    let extra = "<newThing><item><deep>1</deep></item></newThing>";
    let (ami, snapshot) = image(
        &bench,
        |image| {
            image.extra_xml = extra.into();
            image.uefi_data = Some("QU1a".into());
            image.launch =
                Permissions { users: ["777788889999".to_owned()].into(), ..Permissions::default() };
        },
        |snapshot| {
            snapshot.extra_xml = "<snapshotThing>x</snapshotThing>".into();
            snapshot.permissions =
                Permissions { users: ["777788889999".to_owned()].into(), ..Permissions::default() };
        },
    );
    let opened = bench.open(&ami).expect("it can be stored");
    let document: &Value = opened.document().value();
    let text = document.to_string();
    assert!(text.contains("NewThing") && text.contains("SnapshotThing"), "{text}");
    assert_eq!(document["ImageAttributes"]["UefiData"]["Value"], "QU1a");
    assert_eq!(document["ImageAttributes"]["LaunchPermissions"][0]["UserId"], "777788889999");
    assert_eq!(document["SnapshotAttributes"][0]["SnapshotId"], json!(snapshot));
    assert_eq!(document["Source"], json!({"Partition": "aws", "Region": "us-east-1"}));
}

#[test]
fn bare_snapshots_are_stored_without_an_image() {
    let bench = Bench::new();
    let ami = small_image(&bench.aws);
    let ids: Vec<String> = bench
        .aws
        .image(&ami)
        .expect("an image")
        .mappings
        .iter()
        .filter_map(|m| m.snapshot_id().map(str::to_owned))
        .collect();
    let unpacked =
        crate::support::image::by_ranges(&bench.store(&ids.join(",")).expect("an archive"))
            .expect("unpacks");
    assert_eq!(unpacked.volumes.iter().map(|volume| volume.0.as_str()).collect::<Vec<_>>(), ids);
    assert_eq!(unpacked.volumes.iter().map(|volume| volume.2.len()).sum::<usize>() as u64, BLOCKS);
    let document: Value = serde_json::from_slice(&unpacked.image_json).expect("JSON");
    assert!(document.get("Image").is_none());
}

#[test]
fn a_snapshot_behind_two_devices_is_read_once() {
    let bench = Bench::new();
    let snapshot = bench.aws.snapshot_of(1, [(0, Content::random(1)), (9, Content::random(1))]);
    let mappings = vec![Mapping::of("/dev/xvda", &snapshot), Mapping::of("/dev/sdb", &snapshot)];
    let ami = bench.aws.add_image(Image { mappings, ..Image::new("twice", &snapshot) });
    bench.store(&ami).expect("an archive");
    assert_eq!(bench.aws.count("GetSnapshotBlock"), 2 + 1);
}
