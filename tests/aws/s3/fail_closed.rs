//! Writes to stores that differ from S3, and with credentials that may do little: no object is
//! replaced unasked, and none that differs from the bytes that were sent is taken for finished.

use std::time::SystemTime;

use amistore::internals::aws::s3::{ObjectOptions, S3Store};
use amistore::internals::base::{Error, ErrorCode, ErrorKind, rfc3339};
use amistore::internals::localfs::Overwrite;
use amistore::internals::object::{Attributes, Creation, ObjectStore};
use amistore_aws_double::s3::{
    BucketOptions, Fault, FaultKind, ObjectOptions as ServedOptions, Quirks, When,
};

use super::setup::{BUCKET, Bench, PART, image, small_parts, store};

const OTHER: &[u8] = b"another archive";

/// A bench with an object at `a.bin`.
fn occupied(quirks: Quirks) -> Bench {
    let bench = Bench::new();
    bench.server.put_object(BUCKET, "a.bin", OTHER.to_vec(), ServedOptions::default());
    bench.server.set_quirks(quirks);
    bench
}

/// Writes an object of so many bytes.
fn write(store: &S3Store, key: &str, overwrite: Overwrite, len: usize) -> Result<(), Error> {
    let mut writer = store.create(key, Creation { overwrite, ..Creation::default() })?;
    writer.append(&vec![7; len])?;
    writer.commit()
}

const SMALL: usize = 100;
const LARGE: usize = 4 * PART as usize;

#[test]
fn an_object_that_neither_head_nor_a_condition_protects_is_not_replaced() {
    let without = [
        Quirks { no_conditional_writes: true, ..Quirks::default() },
        Quirks { ignores_if_none_match: true, ..Quirks::default() },
    ];
    for quirks in without {
        let bench = occupied(quirks);
        bench.server.deny("HeadObject");
        let bucket = bench.store();
        for key in ["a.bin", "free.bin"] {
            for len in [SMALL, LARGE] {
                let error = write(&bucket, key, Overwrite::No, len).expect_err("refused");
                assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
                assert!(error.is(ErrorCode::ExistenceUnknown), "{error:?}");
                assert!(error.message().contains("--force"), "{error:?}");
            }
        }
        let error = store(&image(), &bucket, "a.bin", Some(bench.resumption("a.bin")))
            .expect_err("refused");
        assert!(error.is(ErrorCode::ExistenceUnknown), "{error:?}");
        let from = Bench::new();
        from.server.put_object(BUCKET, "a.bin", vec![1; LARGE], ServedOptions::default());
        let source = from.store();
        let error = bucket
            .copy_from(
                "a.bin",
                (&source, "a.bin", None),
                &Attributes::default(),
                Overwrite::No,
                None,
            )
            .expect_err("refused");
        assert!(error.is(ErrorCode::ExistenceUnknown), "{error:?}");
        assert_eq!(bench.server.keys(BUCKET), ["a.bin"], "no probe object stays");
        assert_eq!(bench.bytes("a.bin").as_deref(), Some(OTHER));
        assert_eq!(bench.open_uploads(), 0);
        write(&bucket, "a.bin", Overwrite::Yes, SMALL).expect("is replaced when asked for");
    }
}

#[test]
fn a_store_that_refuses_the_probe_object_or_its_deletion_is_refused() {
    for operation in ["PutObject", "DeleteObject"] {
        let bench = occupied(Quirks::default());
        bench.server.deny("HeadObject");
        bench.server.deny(operation);
        let error = write(&bench.store(), "free.bin", Overwrite::No, LARGE).expect_err("refused");
        assert!(error.is(ErrorCode::ExistenceUnknown), "{operation}: {error:?}");
    }
}

#[test]
fn a_store_proves_once_with_a_probe_that_it_honours_conditions() {
    let bench = occupied(Quirks::default());
    bench.server.deny("HeadObject");
    let bucket = bench.store();
    write(&bucket, "b.bin", Overwrite::No, LARGE).expect("writes");
    write(&bucket, "c.bin", Overwrite::No, SMALL).expect("writes");
    assert_eq!(bench.server.keys(BUCKET), ["a.bin", "b.bin", "c.bin"]);
    let probes = |operation| {
        let calls = bench.server.calls();
        let of_probe = |call: &&amistore_aws_double::s3::Call| {
            call.operation == operation && call.key.contains(".amistore-probe-")
        };
        calls.iter().filter(of_probe).count()
    };
    assert_eq!((probes("PutObject"), probes("DeleteObject")), (2, 1));
    let warnings = bench.recorded.take().warnings;
    assert!(warnings.iter().all(|text| text.contains("length")), "{warnings:?}");
    for len in [SMALL, LARGE] {
        let error = write(&bucket, "a.bin", Overwrite::No, len).expect_err("it exists");
        assert_eq!(error.kind(), ErrorKind::Exists, "{error:?}");
    }
    assert_eq!(bench.bytes("a.bin").as_deref(), Some(OTHER));
}

#[test]
fn a_key_that_may_only_write_learns_of_another_object_by_the_condition() {
    let bench = occupied(Quirks::default());
    for operation in ["HeadObject", "GetObject", "ListObjectsV2", "ListParts"] {
        bench.server.deny(operation);
    }
    let bucket = bench.store();
    for resumption in [None, Some(bench.resumption("a.bin"))] {
        let error = store(&image(), &bucket, "a.bin", resumption).expect_err("it exists");
        assert_eq!(error.kind(), ErrorKind::Exists, "{error:?}");
    }
    assert_eq!(bench.bytes("a.bin").as_deref(), Some(OTHER));
    bench.recorded.take();
    store(&image(), &bucket, "free.bin", None).expect("stores");
    let warnings = bench.recorded.take().warnings;
    assert!(warnings.iter().any(|text| text.contains("neither read nor list")), "{warnings:?}");
}

#[test]
fn the_length_of_a_finished_object_is_compared_although_head_is_refused() {
    for denied in [&["HeadObject"][..], &["HeadObject", "GetObject"]] {
        let bench = Bench::new();
        for operation in denied {
            bench.server.deny(operation);
        }
        write(&bench.store(), "a.bin", Overwrite::No, SMALL).expect("writes");
        let warnings = bench.recorded.take().warnings;
        assert!(warnings.iter().any(|text| text.contains("only its length")), "{warnings:?}");
    }
}

#[test]
fn a_finished_object_that_differs_is_removed() {
    for len in [SMALL, LARGE] {
        let bench = occupied(Quirks { damages_archives: true, ..Quirks::default() });
        let bucket = bench.store();
        let error = write(&bucket, "b.bin", Overwrite::No, len).expect_err("differs");
        assert!(error.is(ErrorCode::FinishedObjectDiffers), "{error:?}");
        assert!(error.fact("removed").is_some(), "{error:?}");
        assert_eq!(bench.server.keys(BUCKET), ["a.bin"]);
        // With versions only the version that was made is removed.
        let options = BucketOptions { versioning: true, ..BucketOptions::default() };
        bench.server.create_bucket_with("versioned", options);
        bench.server.set_quirks(Quirks::default());
        bench.server.put_object("versioned", "a.bin", OTHER.to_vec(), ServedOptions::default());
        bench.server.set_quirks(Quirks { damages_archives: true, ..Quirks::default() });
        let versioned = S3Store::new(bucket.connection().clone(), "versioned", small_parts());
        let error = write(&versioned, "a.bin", Overwrite::Yes, len).expect_err("differs");
        assert!(error.fact("removed").is_some(), "{error:?}");
        let object = bench.server.object("versioned", "a.bin").expect("the earlier version");
        assert_eq!(object.bytes, OTHER);
    }
}

#[test]
fn a_finished_object_that_differs_stays_where_no_delete_is_bound_to_it() {
    let quirks =
        Quirks { damages_archives: true, ignores_delete_if_match: true, ..Quirks::default() };
    let bench = occupied(quirks);
    let error = write(&bench.store(), "b.bin", Overwrite::No, LARGE).expect_err("differs");
    assert!(error.is(ErrorCode::FinishedObjectDiffers), "{error:?}");
    assert!(error.fact("kept").is_some_and(|reason| reason.contains("If-Match")), "{error:?}");
    assert_eq!(bench.server.keys(BUCKET), ["a.bin", "b.bin"]);
}

#[test]
fn a_copy_with_another_checksum_than_its_source_is_removed() {
    let bench = Bench::new();
    let options = ServedOptions {
        checksum: Some(amistore_aws_double::s3::Algorithm::Crc64Nvme),
        ..ServedOptions::default()
    };
    bench.server.put_object(BUCKET, "a.bin", vec![1; LARGE], options);
    bench.server.set_quirks(Quirks { damages_archives: true, ..Quirks::default() });
    let bucket = bench.store();
    let source = (&bucket, "a.bin", None);
    let error = bucket
        .copy_from("b.bin", source, &Attributes::default(), Overwrite::No, None)
        .expect_err("differs");
    assert!(error.is(ErrorCode::FinishedObjectDiffers), "{error:?}");
    assert_eq!(bench.server.keys(BUCKET), ["a.bin"]);
}

#[test]
fn stores_that_refuse_checksum_headers_get_md5_on_every_path() {
    let image = image();
    let archive = image.pack(1, 2);
    let bench = Bench::new();
    bench.server.set_quirks(Quirks { rejects_checksum_headers: true, ..Quirks::default() });
    let bucket = bench.store();
    store(&image, &bucket, "a.bin", None).expect("stores");
    assert!(bench.bytes("a.bin").is_some_and(|bytes| bytes == archive));
    write(&bucket, "small.bin", Overwrite::No, SMALL).expect("writes");
    for len in [SMALL, LARGE] {
        let error = write(&bucket, "a.bin", Overwrite::No, len).expect_err("it exists");
        assert_eq!(error.kind(), ErrorKind::Exists, "{error:?}");
    }
    let mut listed = Vec::new();
    bucket
        .list("", &mut |found| {
            listed.push((found.key, found.metadata.len()));
            Ok(())
        })
        .expect("lists");
    assert!(listed[0].1 > 0, "the metadata is listed: {listed:?}");
    let source = (&bucket, "a.bin", None);
    bucket
        .copy_from("copy.bin", source, &Attributes::default(), Overwrite::No, None)
        .expect("copies");
    assert!(bench.bytes("copy.bin").is_some_and(|bytes| bytes == archive));
    assert_eq!(bench.open_uploads(), 0);
    let warnings = bench.recorded.take().warnings;
    assert!(warnings.iter().all(|text| text.contains("MD5")), "{warnings:?}");
}

#[test]
fn an_upload_whose_id_was_never_learnt_is_found_by_key_and_time() {
    let bench = Bench::new();
    bench.server.deny("ListMultipartUploads");
    bench.server.fail(Fault::new(FaultKind::ResetAfter, When::EveryOf("CreateMultipartUpload", 1)));
    let started = rfc3339(SystemTime::now());
    let options = ObjectOptions { parallel_segments: Some(1), ..small_parts() };
    let bucket = bench.store().with_options(options);
    write(&bucket, "a.bin", Overwrite::No, LARGE).expect_err("no answer arrives");
    bench.server.clear_faults();
    bench.server.allow("ListMultipartUploads");
    assert!(bench.open_uploads() > 0);
    let found = bucket.unrecorded_uploads("a.bin", &started).expect("lists");
    assert_eq!(found.len(), bench.open_uploads());
    assert!(bucket.unrecorded_uploads("b.bin", &started).expect("lists").is_empty());
    assert!(bucket.unrecorded_uploads("a.bin", "2999-01-01T00:00:00Z").expect("lists").is_empty());
    for upload in found {
        bucket.abort_upload(&upload.key, &upload.upload_id).expect("aborts");
    }
    assert_eq!(bench.open_uploads(), 0);
}
