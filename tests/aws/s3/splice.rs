//! The metadata of an archive in a bucket is updated without its disks: the service copies them.

use std::collections::BTreeMap;
use std::time::Duration;

use amistore::internals::aws::s3::{ObjectOptions, S3Store};
use amistore::internals::base::{ErrorCode, Result};
use amistore::internals::engine::PackOptions;
use amistore::internals::image::ImageSource;
use amistore::internals::localfs::Overwrite;
use amistore::internals::object::Attributes;
use amistore::internals::ops::{self, ArchiveTarget, MetadataPolicy, ObjectTarget, StoreOutcome};
use amistore_aws_double::s3::{
    Attributes as ServedAttributes, Fault, FaultKind, ObjectOptions as ServedOptions, Quirks, When,
};

use super::setup::{BUCKET, Bench, with_cancel};
use crate::support::image::{BLOCK, Random, TestImage};
use crate::support::wait::wait_until;

const MIB: u64 = 1 << 20;
const KEY: &str = "a.bin";

/// An image with `noise` blocks that do not compress, and this note in its metadata.
fn image(noise: u32, note: &str) -> TestImage {
    let mut random = Random(5);
    let blocks: BTreeMap<u32, Vec<u8>> =
        (0..noise).map(|block| (block * 3 / 2, random.noise(BLOCK))).collect();
    let size = u64::from(noise) * 2 * BLOCK as u64;
    let json = format!(r#"{{"Note": "{note}", "Snapshots": [{{"SnapshotId": "snap-0"}}]}}"#);
    TestImage::with_document(json.into_bytes(), vec![(size, blocks)])
}

/// An image whose archive has about 22 MiB.
fn large(note: &str) -> TestImage {
    image(44, note)
}

fn bucket(bench: &Bench) -> S3Store {
    let options = ObjectOptions { part_size: Some(5 * MIB), ..ObjectOptions::default() };
    S3Store::new(bench.connect(bench.options()), BUCKET, options)
}

fn attempt(
    bench: &Bench,
    store: &S3Store,
    image: &dyn ImageSource,
    policy: MetadataPolicy,
) -> Result<StoreOutcome> {
    with_cancel(&Default::default(), bench.recorded.as_ref(), |context| {
        let target = ObjectTarget {
            store,
            key: KEY.to_owned(),
            overwrite: Overwrite::No,
            attributes: Attributes::default(),
            at_most: ops::plan_volumes(image)?.longest_archive,
            segments: Vec::new(),
            resumption: Some(Box::new(bench.resumption(KEY))),
            on_metadata_change: Some(policy),
        };
        let options = PackOptions::default();
        ops::store(image, ArchiveTarget::Object(target), &options, context)
            .map(|stored| stored.outcome)
    })
}

fn update(bench: &Bench, image: &dyn ImageSource) -> Result<StoreOutcome> {
    attempt(bench, &bucket(bench), image, MetadataPolicy::Update)
}

/// A bucket that holds the archive of `image`.
fn with_archive(image: &TestImage) -> Bench {
    let bench = Bench::new();
    bench.server.set_min_part_size(5 * MIB);
    update(&bench, image).expect("stores");
    bench.server.reset_calls();
    bench.recorded.take();
    bench
}

/// Asserts that the bucket holds what a store of `image` makes, and nothing else.
#[track_caller]
fn assert_holds(bench: &Bench, image: &TestImage) {
    assert!(bench.bytes(KEY).is_some_and(|bytes| bytes == image.pack(1, 2)), "byte for byte");
    assert_eq!(bench.open_uploads(), 0);
    assert_eq!(bench.server.keys(BUCKET), [KEY]);
}

/// Bytes that were sent in parts and objects.
fn sent(bench: &Bench) -> u64 {
    let writes = ["UploadPart", "PutObject"];
    let calls = bench.server.calls();
    calls.iter().filter(|call| writes.contains(&call.operation)).map(|call| call.bytes_in).sum()
}

#[test]
fn only_the_first_part_and_the_tail_are_sent() {
    let (old, new) = (large("old"), large(&"longer ".repeat(50)));
    let bench = with_archive(&old);
    let StoreOutcome::MetadataUpdated { changed, sent_whole, footer, archive_len } =
        update(&bench, &new).expect("updates")
    else {
        panic!("another outcome");
    };
    assert_eq!((changed, sent_whole), (vec!["Note".to_owned()], None));
    assert_holds(&bench, &new);
    let object = bench.server.object(BUCKET, KEY).expect("an object");
    assert_eq!(archive_len, object.bytes.len() as u64);
    let hex = |digest: [u8; 32]| digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let metadata: [Option<&String>; 2] = ["amistore-root-sha256", "amistore-content-sha256"]
        .map(|name| object.user_metadata.get(name));
    let digests: [String; 2] = [hex(footer.root), hex(footer.content_root)];
    assert_eq!(metadata, [Some(&digests[0]), Some(&digests[1])]);
    assert_eq!(bench.server.count("UploadPart"), 2);
    assert!(bench.server.count("UploadPartCopy") >= 3);
    assert!(sent(&bench) < 5 * MIB + (64 << 10), "{}", sent(&bench));
    // Idempotent, and back again: the metadata becomes shorter.
    bench.server.reset_calls();
    assert!(matches!(update(&bench, &new).expect("is there"), StoreOutcome::Present { .. }));
    assert_eq!((sent(&bench), bench.server.count("CreateMultipartUpload")), (0, 0));
    update(&bench, &old).expect("updates");
    assert_holds(&bench, &old);
}

#[test]
fn an_interrupted_update_copies_no_part_twice() {
    let (old, new) = (large("old"), large("new"));
    for (operation, nth) in [
        ("UploadPartCopy", 2),
        ("UploadPart", 1),
        ("UploadPart", 2),
        ("CompleteMultipartUpload", 1),
    ] {
        let bench = with_archive(&old);
        bench.server.fail(Fault::new(FaultKind::AccessDenied, When::CallOf(operation, nth)));
        update(&bench, &new).expect_err(operation);
        assert!(bench.bytes(KEY).is_some_and(|bytes| bytes == old.pack(1, 2)), "{operation}");
        bench.server.clear_faults();
        let copied = bench.server.calls();
        let copied =
            copied.iter().filter(|it| it.operation == "UploadPartCopy" && it.status == 200);
        let (copied, all) = (copied.count(), 3);
        bench.server.reset_calls();
        update(&bench, &new).expect("continues");
        assert_holds(&bench, &new);
        let count = bench.server.count("UploadPartCopy");
        assert!(count <= all - copied + 1, "{operation}: {count} after {copied}");
        assert_eq!(bench.server.count("CreateMultipartUpload"), 0, "{operation}");
    }
}

#[test]
fn an_update_of_other_metadata_than_the_interrupted_one_begins_anew() {
    let (old, new) = (large("old"), large("newest"));
    let bench = with_archive(&old);
    bench.server.fail(Fault::new(FaultKind::AccessDenied, When::CallOf("UploadPart", 1)));
    update(&bench, &large("new")).expect_err("interrupted");
    bench.server.clear_faults();
    update(&bench, &new).expect("updates");
    assert_holds(&bench, &new);
}

#[test]
fn an_object_that_is_replaced_meanwhile_is_not_overwritten() {
    for (noise, operation) in [(44, "UploadPartCopy"), (4, "HeadObject")] {
        let (old, new) = (image(noise, "old"), image(noise, "new"));
        let bench = with_archive(&old);
        let error = std::thread::scope(|scope| {
            bench.server.set_latency(Duration::from_millis(30));
            let running = scope.spawn(|| update(&bench, &new));
            wait_until("the update", || bench.server.count(operation) > 1);
            bench.server.put_object(BUCKET, KEY, &b"theirs"[..], ServedOptions::default());
            running.join().expect("no panic").expect_err("another write was faster")
        });
        assert_eq!(bench.bytes(KEY).as_deref(), Some(&b"theirs"[..]), "{error:?}");
        assert_eq!(bench.open_uploads(), 0, "{error:?}");
        let is_named =
            error.is(ErrorCode::ObjectReplaced) || error.is(ErrorCode::PreconditionFailed);
        assert!(is_named, "{error:?}");
    }
}

#[test]
fn a_small_archive_and_a_store_without_part_copies_get_the_whole_archive() {
    let (old, new) = (image(4, "old"), image(4, "new"));
    let bench = with_archive(&old);
    let outcome = update(&bench, &new).expect("updates");
    let StoreOutcome::MetadataUpdated { sent_whole: Some(reason), .. } = outcome else {
        panic!("not sent as a whole");
    };
    assert!(reason.contains("5 MiB"), "{reason}");
    assert_eq!(bench.server.count("UploadPartCopy"), 0);
    assert_holds(&bench, &new);
    let (old, new) = (large("old"), large("new"));
    let bench = with_archive(&old);
    bench.server.set_quirks(Quirks { no_part_copies: true, ..Quirks::default() });
    let outcome = update(&bench, &new).expect("updates");
    assert!(matches!(outcome, StoreOutcome::MetadataUpdated { sent_whole: Some(_), .. }));
    assert_holds(&bench, &new);
}

#[test]
fn class_tags_and_key_of_the_old_object_stay() {
    for noise in [4, 44] {
        let (old, new) = (image(noise, "old"), image(noise, "new"));
        let bench = with_archive(&old);
        let tags = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
        let attributes = ServedAttributes {
            tags: tags.clone(),
            storage_class: Some("STANDARD_IA".to_owned()),
            sse: Some("aws:kms".to_owned()),
            kms_key: Some("arn:aws:kms:k".to_owned()),
            ..ServedAttributes::default()
        };
        let options = ServedOptions { attributes, ..ServedOptions::default() };
        bench.server.put_object(BUCKET, KEY, old.pack(1, 2), options);
        update(&bench, &new).expect("updates");
        let object = bench.server.object(BUCKET, KEY).expect("an object");
        assert_eq!(object.tags, tags);
        assert_eq!(object.storage_class.as_deref(), Some("STANDARD_IA"));
        assert_eq!(object.kms_key.as_deref(), Some("arn:aws:kms:k"));
        assert_holds(&bench, &new);
    }
}

#[test]
fn a_lost_answer_and_a_store_without_conditions_are_no_obstacles() {
    let (old, new) = (large("old"), large("new"));
    let bench = with_archive(&old);
    bench
        .server
        .fail(Fault::new(FaultKind::ResetAfter, When::CallOf("CompleteMultipartUpload", 1)));
    update(&bench, &new).expect("updates");
    assert_holds(&bench, &new);
    let bench = with_archive(&old);
    bench.server.set_quirks(Quirks { no_conditional_writes: true, ..Quirks::default() });
    update(&bench, &new).expect("updates");
    assert_holds(&bench, &new);
}

#[test]
fn a_policy_keeps_or_refuses_metadata_and_other_disks_are_another_image() {
    let (old, new) = (image(4, "old"), image(4, "new"));
    let bench = with_archive(&old);
    let outcome = attempt(&bench, &bucket(&bench), &new, MetadataPolicy::Keep).expect("is there");
    assert!(
        matches!(outcome, StoreOutcome::MetadataChanged { changed, .. } if changed == ["Note"])
    );
    let warnings = bench.recorded.take().warnings.join("\n");
    assert!(warnings.contains("Note") && warnings.contains("--on-metadata-change"), "{warnings}");
    let error = attempt(&bench, &bucket(&bench), &new, MetadataPolicy::Fail).expect_err("fails");
    assert!(error.is(ErrorCode::MetadataDiffers), "{error:?}");
    assert_eq!(error.fact("members"), Some("Note"));
    let error = update(&bench, &image(5, "new")).expect_err("other disks");
    assert_eq!(error.fact("content"), Some("another image"));
    assert_holds(&bench, &old);
}
