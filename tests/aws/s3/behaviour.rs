//! Attributes, checksums, encryption, Regions, copies, and stores that are not AWS.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use amistore::internals::aws::s3::{Checksum, ObjectOptions, Preflight, S3Store, Thaw, ThawTier};
use amistore::internals::aws::{BandwidthLimit, ConnectionOptions};
use amistore::internals::base::ErrorKind;
use amistore::internals::engine::{Archive, Depth};
use amistore::internals::localfs::Overwrite;
use amistore::internals::object::{Attributes, Creation, ObjectStore};
use amistore::internals::ops::{self, ArchiveTarget, ObjectTarget, StoreOutcome};
use amistore_aws_double::s3::{
    BucketOptions, Fault, FaultKind, Limits, ObjectOptions as ServedOptions, Quirks, When,
};

use super::setup::{BUCKET, Bench, PART, image, small_parts, store, with_context};
use crate::support::image::{BLOCK, Random, TestImage};

fn text(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn stores_that_lack_features_get_whole_archives_and_resume() {
    let quirks = [
        ("no checksums", Quirks { no_checksums: true, ..Quirks::default() }, "keeps no checksum"),
        (
            "unknown algorithm",
            Quirks { rejects_checksum_algorithm: true, ..Quirks::default() },
            "MD5",
        ),
        ("conditions ignored", Quirks { ignores_if_none_match: true, ..Quirks::default() }, ""),
        ("no conditions", Quirks { no_conditional_writes: true, ..Quirks::default() }, ""),
        ("no tags", Quirks { no_tagging: true, ..Quirks::default() }, ""),
        (
            "no list of parts",
            Quirks { no_list_parts: true, ..Quirks::default() },
            "cannot be listed",
        ),
        ("one region", Quirks { one_region: true, ..Quirks::default() }, ""),
    ];
    let image = image();
    let archive = image.pack(1, 2);
    for (name, quirks, warning) in quirks {
        let bench = Bench::new();
        bench.server.set_quirks(quirks);
        let bucket = bench.store();
        store(&image, &bucket, "a.bin", None).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        bench.server.fail(Fault::new(FaultKind::AccessDenied, When::CallOf("UploadPart", 12)));
        store(&image, &bucket, "b.bin", Some(bench.resumption("b.bin"))).expect_err("it is denied");
        bench.server.clear_faults();
        store(&image, &bucket, "b.bin", Some(bench.resumption("b.bin")))
            .unwrap_or_else(|error| panic!("{name}: {error:?}"));
        for key in ["a.bin", "b.bin"] {
            assert!(bench.bytes(key).is_some_and(|bytes| bytes == archive), "{name}: {key}");
        }
        let error = store(&image, &bucket, "a.bin", None).expect_err("it exists");
        assert_eq!(error.kind(), ErrorKind::Exists, "{name}");
        // A small object is uploaded by PutObject.
        let mut writer = bucket.create("small.bin", Creation::default()).expect("creates");
        writer.append(b"small").expect("appends");
        writer.commit().unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(bench.bytes("small.bin").as_deref(), Some(&b"small"[..]), "{name}");
        assert_eq!(bench.open_uploads(), 0, "{name}");
        let warnings = bench.recorded.take().warnings;
        let expected = !warning.is_empty();
        assert_eq!(
            warnings.iter().any(|text| !warning.is_empty() && text.contains(warning)),
            expected,
            "{name}: {warnings:?}"
        );
        assert!(expected || warnings.is_empty(), "{name}: {warnings:?}");
    }
}

#[test]
fn tags_that_a_store_refuses_are_an_error_and_leave_no_object() {
    let bench = Bench::new();
    bench.server.set_quirks(Quirks { no_tagging: true, ..Quirks::default() });
    let attributes = Attributes { tags: text(&[("k", "v")]), ..Attributes::default() };
    let mut writer = bench
        .store()
        .create("a.bin", Creation { attributes, ..Creation::default() })
        .expect("creates");
    let outcome = writer.append(&vec![1; 5 * PART as usize]).and_then(|()| writer.commit());
    assert_eq!(outcome.expect_err("no tags").kind(), ErrorKind::Unsupported);
    assert_eq!((bench.open_uploads(), bench.bytes("a.bin")), (0, None));
}

#[test]
fn every_checksum_algorithm_is_sent_with_parts_and_stored() {
    let image = image();
    let archive = image.pack(1, 2);
    let bench = Bench::new();
    for (name, checksum) in Checksum::ALL {
        let bucket = S3Store::new(
            bench.connect(bench.options()),
            BUCKET,
            ObjectOptions { checksum: Some(checksum), ..small_parts() },
        );
        store(&image, &bucket, name, None).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let object = bench.server.object(BUCKET, name).expect("an object");
        assert!(object.bytes == archive, "{name}");
        let stored = object.checksum.expect("a checksum");
        // Without an algorithm S3 uses its default.
        assert_eq!(stored.algorithm.name(), if name == "MD5" { "CRC64NVME" } else { name });
        assert!(bench.recorded.take().warnings.is_empty(), "{name}");
    }
}

#[test]
fn an_object_gets_the_requested_storage_class_and_encryption() {
    let bench = Bench::new();
    let options = ObjectOptions {
        storage_class: Some("STANDARD_IA".to_owned()),
        sse: Some("aws:kms".to_owned()),
        sse_kms_key_id: Some("key-1".to_owned()),
        ..small_parts()
    };
    let bucket = S3Store::new(bench.connect(bench.options()), BUCKET, options);
    for (key, size) in [("small.bin", 10), ("large.bin", 4 * PART as usize)] {
        let mut writer = bucket.create(key, Creation::default()).expect("creates");
        writer.append(&vec![1; size]).expect("appends");
        let digests = [("amistore-content-sha256", "0123"), ("amistore-root-sha256", "4567")];
        let named = digests.map(|(name, digest)| (name.to_owned(), digest.to_owned()));
        writer.identify(&named.into());
        writer.commit().expect("commits");
        let object = bench.server.object(BUCKET, key).expect("an object");
        assert_eq!(object.storage_class.as_deref(), Some("STANDARD_IA"));
        assert_eq!(
            (object.sse.as_deref(), object.kms_key.as_deref()),
            (Some("aws:kms"), Some("key-1"))
        );
        let mut listed = Vec::new();
        bucket
            .list(key, &mut |found| {
                listed.push(found.storage_class);
                Ok(())
            })
            .expect("lists");
        assert_eq!(listed, [Some("STANDARD_IA".to_owned())]);
    }
    // The digests are known before the upload of a small object, and too late for the headers of a
    // large one.
    let small = bench.server.object(BUCKET, "small.bin").expect("an object");
    assert_eq!(small.user_metadata["amistore-content-sha256"], "0123");
    assert_eq!(small.user_metadata["amistore-root-sha256"], "4567");
}

#[test]
fn an_object_that_appears_during_an_upload_stays() {
    let image = image();
    for with_task in [false, true] {
        let bench = Bench::new();
        // HeadObject is denied, so only the condition of the completion finds the object.
        bench.server.deny("HeadObject");
        let bucket = bench.store();
        let outcome = std::thread::scope(|scope| {
            bench.server.set_latency(Duration::from_millis(10));
            let running = scope.spawn(|| {
                store(&image, &bucket, "a.bin", with_task.then(|| bench.resumption("a.bin")))
            });
            crate::support::wait::wait_until("a part", || bench.server.count("UploadPart") > 0);
            bench.server.put_object(BUCKET, "a.bin", &b"theirs"[..], ServedOptions::default());
            running.join().expect("no panic")
        });
        let error = outcome.expect_err("another write was faster");
        assert_eq!(error.kind(), ErrorKind::Exists, "{error:?}");
        assert_eq!(bench.bytes("a.bin").as_deref(), Some(&b"theirs"[..]));
        assert_eq!(bench.open_uploads(), usize::from(with_task));
    }
}

#[test]
fn a_second_store_of_an_image_succeeds_with_a_task() {
    let (bench, image) = (Bench::new(), image());
    let bucket = bench.store();
    let again = || {
        store(&image, &bucket, "a.bin", Some(bench.resumption("a.bin"))).expect("stores").outcome
    };
    assert!(matches!(again(), StoreOutcome::Made(_)));
    bench.server.reset_calls();
    assert!(matches!(again(), StoreOutcome::Present { .. }));
    assert_eq!(
        (bench.server.count("UploadPart"), bench.server.count("CreateMultipartUpload")),
        (0, 0)
    );
    assert_eq!(
        store(&image, &bucket, "a.bin", None).expect_err("exists").kind(),
        ErrorKind::Exists
    );
}

#[test]
fn a_bucket_is_checked_before_the_image_is_read() {
    let bench = Bench::new();
    let look = |name: &str, options: BucketOptions| {
        bench.server.create_bucket_with(name, options);
        let store = S3Store::new(bench.connect(bench.options()), name, small_parts());
        let found = store.preflight("a.bin");
        assert!(bench.server.open_uploads(name).is_empty(), "{name}: an upload is left");
        found
    };
    let plain = look("plain", BucketOptions::default()).expect("a bucket");
    assert_eq!(plain, Preflight { region: Some("us-east-1".to_owned()), ..Preflight::default() });
    let found =
        look("policy", BucketOptions { policy_is_public: Some(true), ..BucketOptions::default() })
            .expect("a bucket");
    assert!(found.public.is_some_and(|why| why.contains("policy")));
    let found = look("acl", BucketOptions { acl_is_public: true, ..BucketOptions::default() })
        .expect("a bucket");
    assert!(found.public.is_some_and(|why| why.contains("access control list")));
    let blocked = BucketOptions {
        acl_is_public: true,
        policy_is_public: Some(true),
        public_access_block: Some(true),
        ..BucketOptions::default()
    };
    assert_eq!(look("blocked", blocked).expect("a bucket").public, None);
    let found = look("locked", BucketOptions { object_lock: true, ..BucketOptions::default() })
        .expect("a bucket");
    assert!(found.object_lock && found.versioned);
    assert!(
        look("versions", BucketOptions { versioning: true, ..BucketOptions::default() })
            .expect("a bucket")
            .versioned
    );

    let missing = S3Store::new(bench.connect(bench.options()), "missing", small_parts())
        .preflight("a.bin")
        .expect_err("is missing");
    assert_eq!(
        (missing.kind(), missing.message()),
        (ErrorKind::NotFound, "there is no such bucket")
    );
    let owner = Some("999999999999".to_owned());
    let theirs = S3Store::new(
        bench.connect(bench.options()),
        "plain",
        ObjectOptions { expected_bucket_owner: owner, ..small_parts() },
    );
    assert_eq!(theirs.preflight("a.bin").expect_err("another's").kind(), ErrorKind::Denied);
    for denied in [
        "GetBucketAcl",
        "GetBucketPolicyStatus",
        "GetPublicAccessBlock",
        "GetBucketVersioning",
        "HeadBucket",
    ] {
        bench.server.deny(denied);
        let found = S3Store::new(bench.connect(bench.options()), "plain", small_parts())
            .preflight("a.bin")
            .expect("a bucket");
        assert_eq!(found.unanswered, [denied]);
        bench.server.allow(denied);
    }
    bench.server.deny("AbortMultipartUpload");
    let error = S3Store::new(bench.connect(bench.options()), "plain", small_parts())
        .preflight("a.bin")
        .expect_err("cannot abort");
    assert_eq!(
        (error.kind(), error.fact("upload_id").is_some()),
        (ErrorKind::Denied, true),
        "{error:?}"
    );
}

#[test]
fn a_bucket_in_another_region_is_found_there() {
    let image = image();
    for one_region in [false, true] {
        let bench = Bench::new();
        bench.server.set_quirks(Quirks { one_region, ..Quirks::default() });
        bench.server.create_bucket_with(
            "far",
            BucketOptions { region: "eu-west-1".to_owned(), ..BucketOptions::default() },
        );
        let far = S3Store::new(bench.connect(bench.options()), "far", small_parts());
        far.preflight("a.bin").expect("a bucket");
        store(&image, &far, "a.bin", None).expect("stores");
        assert_eq!(far.connection().region(), "eu-west-1");
        // A ranged read is redirected as well.
        let reader = S3Store::new(bench.connect(bench.options()), "far", small_parts())
            .open("a.bin")
            .expect("opens");
        assert!(Archive::open(reader).is_ok());
    }
}

#[test]
fn an_archived_object_is_reported_and_can_be_restored() {
    let (bench, image) = (Bench::new(), image());
    let archive = image.pack(1, 2);
    let bucket = bench.store();
    for class in ["GLACIER", "DEEP_ARCHIVE"] {
        bench.server.put_object(BUCKET, "a.bin", archive.clone(), ServedOptions::default());
        bench.server.freeze(BUCKET, "a.bin", class);
        bench.server.set_limits(Limits { restore_delay: 3, ..bench.server.limits() });
        let error = bucket.open("a.bin").err().expect("it is frozen");
        assert_eq!(
            (error.kind(), error.fact("frozen")),
            (ErrorKind::Io, Some("true")),
            "{error:?}"
        );
        let thaw =
            Thaw { tier: ThawTier::Bulk, days: 2, wait: false, poll: Duration::from_millis(5) };
        let error = bucket.thaw("a.bin", thaw).expect_err("not yet");
        assert!(
            error.message().contains("not there yet") && error.fact("storage_class") == Some(class),
            "{error:?}"
        );
        // A second RestoreObject while the first is in progress.
        bucket.thaw("a.bin", Thaw { wait: true, ..thaw }).expect("thaws");
        assert_eq!(bench.server.count("RestoreObject"), 1);
        bench.server.reset_calls();
        bucket.thaw("a.bin", thaw).expect("is thawed");
        assert_eq!(bench.server.count("RestoreObject"), 0);
        bench.server.reset_calls();
        let reader = bucket.open("a.bin").expect("opens");
        Archive::open(reader).expect("an archive");
    }
}

#[test]
fn a_copy_within_a_service_downloads_no_data() {
    let (bench, image) = (Bench::new(), image());
    let archive = image.pack(1, 2);
    let bucket = bench.store();
    bench.server.create_bucket("other");
    let other = S3Store::new(bucket.connection().clone(), "other", small_parts());
    let attributes = Attributes {
        metadata: text(&[("ami-name", "ü"), ("x", "y")]),
        tags: text(&[("k e y", "v/ü")]),
    };
    for (key, algorithm) in
        [("a b+ü.bin", Some(amistore_aws_double::s3::Algorithm::Crc64Nvme)), ("plain.bin", None)]
    {
        bench.server.put_object(
            BUCKET,
            key,
            archive.clone(),
            ServedOptions { checksum: algorithm, ..ServedOptions::default() },
        );
        bench.server.reset_calls();
        let copied = other
            .copy_from(key, (&bucket, key, None), &attributes, Overwrite::No, None)
            .expect("copies");
        assert_eq!(
            (copied.len, copied.checksum_compared),
            (archive.len() as u64, algorithm.is_some())
        );
        assert_eq!((bench.server.count("GetObject"), bench.server.count("UploadPartCopy")), (0, 1));
        let object = bench.server.object("other", key).expect("an object");
        assert!(object.bytes == archive);
        assert_eq!(object.tags, attributes.tags);
        assert_eq!(other.open(key).expect("opens").attributes().metadata, attributes.metadata);
        let error = other
            .copy_from(key, (&bucket, key, None), &attributes, Overwrite::No, None)
            .expect_err("exists");
        assert_eq!(error.kind(), ErrorKind::Exists);
        let error = other
            .copy_from(key, (&bucket, key, Some("\"another\"")), &attributes, Overwrite::Yes, None)
            .expect_err("replaced");
        assert!(error.message().contains("replaced"), "{error:?}");
    }
    // No failure leaves an object or upload.
    for (kind, operation) in [
        (FaultKind::AccessDenied, "UploadPartCopy"),
        (FaultKind::AccessDenied, "CompleteMultipartUpload"),
        (FaultKind::ConditionalRequestConflict, "CompleteMultipartUpload"),
    ] {
        bench.server.reset_calls();
        bench.server.fail(Fault::new(kind, When::CallOf(operation, 1)));
        other
            .copy_from("new.bin", (&bucket, "plain.bin", None), &attributes, Overwrite::No, None)
            .expect_err(operation);
        bench.server.clear_faults();
        assert!(
            bench.server.open_uploads("other").is_empty()
                && bench.server.object("other", "new.bin").is_none(),
            "{operation}"
        );
    }
    // Retryable faults are retried, also a lost answer.
    for (index, kind) in [
        FaultKind::ErrorIn200,
        FaultKind::ResetAfter,
        FaultKind::SlowDown,
        FaultKind::TruncatedBody,
    ]
    .into_iter()
    .enumerate()
    {
        for operation in ["UploadPartCopy", "CompleteMultipartUpload", "CreateMultipartUpload"] {
            if (kind, operation) == (FaultKind::ErrorIn200, "CreateMultipartUpload") {
                continue;
            }
            let key = format!("{index}-{operation}.bin");
            bench.server.reset_calls();
            bench.server.fail(Fault::new(kind, When::CallOf(operation, 1)));
            let copied = other.copy_from(
                &key,
                (&bucket, "plain.bin", None),
                &attributes,
                Overwrite::No,
                None,
            );
            copied.unwrap_or_else(|error| panic!("{kind:?} {operation}: {error:?}"));
            bench.server.clear_faults();
            assert!(
                bench.server.object("other", &key).is_some_and(|object| object.bytes == archive),
                "{kind:?} {operation}"
            );
            assert!(bench.server.open_uploads("other").is_empty(), "{kind:?} {operation}");
        }
    }
}

#[test]
fn a_damaged_archive_is_not_copied() {
    let bench = Bench::new();
    let archive = image().pack(1, 2);
    let bucket = bench.store();
    for at in (40..archive.len()).step_by(archive.len() / 12) {
        let mut damaged = archive.clone();
        damaged[at] ^= 4;
        bench.server.put_object(BUCKET, "a.bin", damaged, ServedOptions::default());
        let reader = bucket.open("a.bin").expect("opens");
        let outcome = Archive::open(reader).and_then(|archive| {
            let (overwrite, attributes) = (Overwrite::No, Attributes::default());
            let target = ArchiveTarget::Object(ObjectTarget {
                store: &bucket,
                key: "b.bin".to_owned(),
                overwrite,
                attributes,
                at_most: archive.reader().len(),
                segments: Vec::new(),
                resumption: None,
                on_metadata_change: None,
            });
            with_context(|context| ops::copy(&archive, target, Depth::Stored, context))
        });
        assert_eq!(outcome.expect_err("damaged").kind(), ErrorKind::Corrupt, "byte {at}");
        assert_eq!((bench.bytes("b.bin"), bench.open_uploads()), (None, 0), "byte {at}");
    }
}

#[test]
fn an_inspection_of_a_large_archive_fetches_little() {
    let bench = Bench::new();
    let mut random = Random(8);
    let blocks = (0..24).map(|block| (block * 9, random.noise(BLOCK))).collect();
    let archive = TestImage::new(vec![(300 * BLOCK as u64, blocks)]).pack(1, 2);
    assert!(archive.len() > 12 << 20);
    bench.server.put_object(BUCKET, "a.bin", archive, ServedOptions::default());
    let reader = bench.store().open("a.bin").expect("opens");
    ops::inspect(&Archive::open(reader).expect("opens")).expect("inspects");
    let calls = bench.server.calls();
    let fetched: u64 = calls.iter().map(|call| call.bytes_out).sum();
    assert!(fetched < 200 << 10 && calls.len() <= 6, "{fetched} bytes in {} requests", calls.len());
}

#[test]
fn a_bandwidth_limit_holds_for_uploads_and_downloads() {
    let (bench, image) = (Bench::new(), image());
    let archive = image.pack(1, 2);
    let rate = 500_000;
    let least = Duration::from_secs_f64((archive.len() as f64 - 64e3) / rate as f64);
    let options =
        || ConnectionOptions { bandwidth: Some(BandwidthLimit::new(rate)), ..bench.options() };
    let bucket = bench.store_with(bench.connect(options()));
    let started = Instant::now();
    store(&image, &bucket, "a.bin", None).expect("stores");
    assert!(started.elapsed() >= least, "{:?} is less than {least:?}", started.elapsed());
    let bucket = bench.store_with(bench.connect(options()));
    let started = Instant::now();
    let reader = bucket.open("a.bin").expect("opens");
    let mut bytes = vec![0; archive.len()];
    reader.read_at(0, &mut bytes).expect("reads");
    assert!(
        bytes == archive && started.elapsed() >= least,
        "{:?} is less than {least:?}",
        started.elapsed()
    );
}
