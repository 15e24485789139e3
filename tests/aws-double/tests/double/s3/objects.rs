//! Objects: put, head, get, list, tag, copy, restore, delete.

use std::collections::BTreeMap;

use amistore_aws_double::s3::{
    Algorithm, Attributes, BucketOptions, ChecksumKind, Fault, FaultKind, Limits, ObjectOptions,
    Quirks, Restore, TestS3, When,
};
use aws_sdk_s3::config::RequestChecksumCalculation;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, MetadataDirective, ObjectLockMode, RestoreRequest,
    ServerSideEncryption, StorageClass, Tag, Tagging,
};

use super::client::{Client, Failure, body, failure};

fn start() -> (TestS3, Client) {
    let s3 = TestS3::start();
    s3.create_bucket("images");
    let client = Client::new(&s3);
    (s3, client)
}

#[test]
fn put_object_and_get_object_agree() {
    let (s3, client) = start();
    let put = client
        .sdk
        .put_object()
        .bucket("images")
        .key("a/b c.bin")
        .metadata("Name", "né")
        .tagging("a=1&b=%C3%A9+x");
    let put = put
        .storage_class(StorageClass::StandardIa)
        .content_type("application/x-test")
        .body(body(b"hello"));
    let answer = client.run(put.send()).expect("puts");
    assert_eq!(answer.e_tag(), Some("\"5d41402abc4b2a76b9719d911017c592\""));
    assert_eq!(client.get("images", "a/b c.bin"), Ok(Some(b"hello".to_vec())));
    let object = s3.object("images", "a/b c.bin").expect("stored");
    assert_eq!(object.user_metadata, BTreeMap::from([("name".to_owned(), "né".to_owned())]));
    assert_eq!(
        object.tags,
        BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "é x".to_owned())])
    );
    assert_eq!(object.content_type.as_deref(), Some("application/x-test"));
    assert_eq!(object.etag, "5d41402abc4b2a76b9719d911017c592");

    let head = client
        .run(client.sdk.head_object().bucket("images").key("a/b c.bin").send())
        .expect("looks");
    assert_eq!(
        (head.content_length(), head.storage_class()),
        (Some(5), Some(&StorageClass::StandardIa))
    );
    // Values outside of ASCII come back encoded as in mail headers.
    assert_eq!(
        head.metadata().and_then(|metadata| metadata.get("name")).map(String::as_str),
        Some("=?UTF-8?B?bsOp?=")
    );
    assert_eq!(head.server_side_encryption(), Some(&ServerSideEncryption::Aes256));
    assert_eq!((head.parts_count(), head.version_id()), (None, None));
    assert_eq!(client.get("images", "b"), Err(failure(404, "NoSuchKey")));
    assert_eq!(client.get("pictures", "b"), Err(failure(404, "NoSuchBucket")));
}

#[test]
fn ranges_are_answered() {
    let (s3, client) = start();
    s3.put_object("images", "a", "0123456789", ObjectOptions::default());
    s3.put_object("images", "empty", "", ObjectOptions::default());
    let get = |key: &str, range: &str| -> Result<(String, String), Failure> {
        let answer =
            client.run(client.sdk.get_object().bucket("images").key(key).range(range).send())?;
        let range = answer.content_range().unwrap_or_default().to_owned();
        let bytes = client.wait(answer.body.collect()).expect("all of it").to_vec();
        Ok((String::from_utf8(bytes).expect("text"), range))
    };
    let some = |text: &str, range: &str| Ok((text.to_owned(), range.to_owned()));
    assert_eq!(get("a", "bytes=2-4"), some("234", "bytes 2-4/10"));
    assert_eq!(get("a", "bytes=8-99"), some("89", "bytes 8-9/10"));
    assert_eq!(get("a", "bytes=7-"), some("789", "bytes 7-9/10"));
    assert_eq!(get("a", "bytes=-3"), some("789", "bytes 7-9/10"));
    assert_eq!(get("a", "bytes=10-12"), Err(failure(416, "InvalidRange")));
    assert_eq!(get("empty", "bytes=-1"), Err(failure(416, "InvalidRange")));
    let call = s3.calls().remove(0);
    assert_eq!(
        (call.operation, call.bucket.as_str(), call.key.as_str()),
        ("GetObject", "images", "a")
    );
    assert_eq!(
        (call.number, call.range.as_deref(), call.bytes_out, call.status),
        (1, Some("bytes=2-4"), 3, 206)
    );
}

#[test]
fn reads_check_if_match_and_if_none_match() {
    let (s3, client) = start();
    s3.put_object("images", "a", "hello", ObjectOptions::default());
    let etag = "\"5d41402abc4b2a76b9719d911017c592\"";
    let get = || client.sdk.get_object().bucket("images").key("a");
    assert!(client.run(get().if_match(etag).send()).is_ok());
    assert_eq!(
        client.run(get().if_match("\"other\"").send()).map(drop),
        Err(failure(412, "PreconditionFailed"))
    );
    assert_eq!(
        client.run(get().if_none_match(etag).send()).map(drop).map_err(|failure| failure.0),
        Err(304)
    );
    assert!(client.run(get().if_none_match("\"other\"").send()).is_ok());
}

#[test]
fn checksums_are_verified_stored_and_returned() {
    let (s3, client) = start();
    let crc = Algorithm::Crc64Nvme.of(b"hello");
    let put = |key: &str| client.sdk.put_object().bucket("images").key(key).body(body(b"hello"));
    let answer = client.run(put("none").send()).expect("puts");
    assert_eq!(answer.checksum_crc64_nvme(), Some(crc.as_str()));
    client.run(put("good").checksum_crc64_nvme(&crc).send()).expect("puts");
    assert_eq!(
        client.run(put("bad").checksum_crc64_nvme("AAAAAAAAAAA=").send()).map(drop),
        Err(failure(400, "BadDigest"))
    );
    assert_eq!(
        client.run(put("bad").checksum_sha256(Algorithm::Sha256.of(b"hellO")).send()).map(drop),
        Err(failure(400, "BadDigest"))
    );
    assert_eq!(
        client.run(put("bad").content_md5("XUFAKrxLKna5cZ2REBfFkg==").send()).map(drop),
        Ok(())
    );
    assert_eq!(
        client.run(put("bad").content_md5("YUFAKrxLKna5cZ2REBfFkg==").send()).map(drop),
        Err(failure(400, "BadDigest"))
    );
    assert_eq!(
        client.run(put("bad").content_md5("short").send()).map(drop),
        Err(failure(400, "InvalidDigest"))
    );
    let announced = put("bad").checksum_algorithm(ChecksumAlgorithm::Crc32);
    assert_eq!(client.run(announced.send()).map(drop), Err(failure(400, "InvalidRequest")));
    let two = put("bad")
        .checksum_crc32(Algorithm::Crc32.of(b"hello"))
        .checksum_sha1(Algorithm::Sha1.of(b"hello"));
    assert_eq!(client.run(two.send()).map(drop), Err(failure(400, "InvalidRequest")));
    let computing = Client::with(&s3, |config| {
        config.request_checksum_calculation(RequestChecksumCalculation::WhenSupported)
    });
    for algorithm in [
        Algorithm::Crc32,
        Algorithm::Crc32c,
        Algorithm::Crc64Nvme,
        Algorithm::Sha1,
        Algorithm::Sha256,
    ] {
        let name = algorithm.name();
        let put = computing.sdk.put_object().bucket("images").key(name).body(body(b"hello"));
        computing.run(put.checksum_algorithm(ChecksumAlgorithm::from(name)).send()).expect("puts");
        let stored =
            s3.object("images", name).and_then(|object| object.checksum).expect("a checksum");
        assert_eq!(
            (stored.algorithm, stored.value, stored.kind),
            (algorithm, algorithm.of(b"hello"), ChecksumKind::FullObject)
        );
        // The client verifies the checksum.
        assert_eq!(client.get("images", name), Ok(Some(b"hello".to_vec())));
    }
    let head = |key: &str, mode: Option<ChecksumMode>| {
        let answer = client
            .run(client.sdk.head_object().bucket("images").key(key).set_checksum_mode(mode).send())
            .expect("looks");
        answer.checksum_crc64_nvme().map(str::to_owned)
    };
    assert_eq!(head("none", Some(ChecksumMode::Enabled)), Some(crc));
    assert_eq!(head("none", None), None);
    s3.put_object("images", "old", "hello", ObjectOptions::default());
    assert_eq!(head("old", Some(ChecksumMode::Enabled)), None);
    s3.set_quirks(Quirks { no_checksums: true, ..Quirks::default() });
    client.run(put("quirk").checksum_crc64_nvme("AAAAAAAAAAA=").send()).expect("puts");
    assert_eq!(s3.object("images", "quirk").and_then(|object| object.checksum), None);
}

#[test]
fn chunked_uploads_have_trailing_checksums() {
    let s3 = TestS3::start();
    s3.create_bucket("images");
    let client = Client::with(&s3, |config| {
        config.request_checksum_calculation(RequestChecksumCalculation::WhenSupported)
    });
    let bytes = vec![7; 300_000];
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &bytes).expect("writes");
    let put = |key: &str, algorithm: &str| {
        let body = client.wait(ByteStream::from_path(file.path())).expect("a file");
        let put = client
            .sdk
            .put_object()
            .bucket("images")
            .key(key)
            .checksum_algorithm(ChecksumAlgorithm::from(algorithm))
            .body(body);
        client.run(put.send()).map(drop)
    };
    for algorithm in [Algorithm::Crc32, Algorithm::Crc64Nvme, Algorithm::Sha256] {
        put(algorithm.name(), algorithm.name()).expect("puts");
        let object = s3.object("images", algorithm.name()).expect("stored");
        assert_eq!(object.bytes, bytes);
        assert_eq!(
            object.checksum.clone().map(|checksum| checksum.value),
            Some(algorithm.of(&bytes))
        );
        assert!(
            s3.calls().last().is_some_and(|call| call.bytes_in > bytes.len() as u64),
            "it is not chunked"
        );
    }
    s3.fail(Fault::new(FaultKind::CorruptUpload, When::Next("PutObject", 1)));
    // Without TLS the client signs every chunk, and the signature is checked first.
    assert_eq!(put("b", "CRC64NVME"), Err(failure(403, "SignatureDoesNotMatch")));
    assert!(s3.object("images", "b").is_none());
}

#[test]
fn writes_check_if_match_and_if_none_match() {
    let (s3, client) = start();
    let put =
        || client.sdk.put_object().bucket("images").key("a").body(body(b"x")).if_none_match("*");
    assert_eq!(client.run(put().send()).map(drop), Ok(()));
    assert_eq!(client.run(put().send()).map(drop), Err(failure(412, "PreconditionFailed")));
    let update = |etag: &str| {
        client.sdk.put_object().bucket("images").key("a").body(body(b"x")).if_match(etag).send()
    };
    assert_eq!(client.run(update("\"other\"")).map(drop), Err(failure(412, "PreconditionFailed")));
    let etag = s3.object("images", "a").expect("stored").etag.clone();
    assert_eq!(client.run(update(&format!("\"{etag}\""))).map(drop), Ok(()));
    s3.fail(Fault::new(FaultKind::ConditionalRequestConflict, When::Next("PutObject", 1)));
    assert_eq!(client.run(put().send()).map(drop), Err(failure(409, "ConditionalRequestConflict")));
    s3.set_quirks(Quirks { no_conditional_writes: true, ..Quirks::default() });
    assert_eq!(client.run(put().send()).map(drop), Err(failure(501, "NotImplemented")));
    s3.set_quirks(Quirks { ignores_if_none_match: true, ..Quirks::default() });
    assert_eq!(client.run(put().send()).map(drop), Ok(()));
}

#[test]
fn limits_of_metadata_and_tags_are_enforced() {
    let (s3, client) = start();
    let put = || client.sdk.put_object().bucket("images").key("a").body(body(b"x"));
    assert_eq!(client.run(put().metadata("name", "x".repeat(2044)).send()).map(drop), Ok(()));
    assert_eq!(
        client.run(put().metadata("name", "x".repeat(2045)).send()).map(drop),
        Err(failure(400, "MetadataTooLarge"))
    );
    let tags = (0..11).map(|number| format!("t{number}=x")).collect::<Vec<_>>().join("&");
    assert_eq!(client.run(put().tagging(tags).send()).map(drop), Err(failure(400, "BadRequest")));
    assert_eq!(
        client.run(put().tagging(format!("t={}", "x".repeat(257))).send()).map(drop),
        Err(failure(400, "InvalidTag"))
    );
    let class = StorageClass::from("COLD");
    assert_eq!(
        client.run(put().storage_class(class).send()).map(drop),
        Err(failure(400, "InvalidStorageClass"))
    );
    let encryption = ServerSideEncryption::from("rot13");
    assert_eq!(
        client.run(put().server_side_encryption(encryption).send()).map(drop),
        Err(failure(400, "InvalidArgument"))
    );
    let long = (0..8).fold(put(), |put, number| {
        put.tagging("a=b").content_disposition(format!("{number}{}", "x".repeat(9000)))
    });
    assert_eq!(
        client.run(long.send()).map(drop),
        Err(failure(400, "RequestHeaderSectionTooLarge"))
    );
    assert_eq!(s3.count("PutObject"), 7);
}

#[test]
fn the_etag_of_an_object_with_a_kms_key_is_no_md5() {
    let (s3, client) = start();
    let put = client.sdk.put_object().bucket("images").key("a").body(body(b"hello"));
    let put = put
        .server_side_encryption(ServerSideEncryption::AwsKms)
        .ssekms_key_id("arn:aws:kms:us-east-1:123456789012:key/k");
    let answer = client.run(put.send()).expect("puts");
    assert_eq!(answer.server_side_encryption(), Some(&ServerSideEncryption::AwsKms));
    let object = s3.object("images", "a").expect("stored");
    assert_eq!((object.sse.as_deref(), object.kms_key.is_some()), (Some("aws:kms"), true));
    assert_ne!(object.etag, "5d41402abc4b2a76b9719d911017c592");
}

#[test]
fn put_object_tagging_replaces_tags() {
    let (s3, client) = start();
    client.put("images", "a", b"x");
    let tagging = Tagging::builder()
        .tag_set(Tag::builder().key("k").value("v").build().expect("a tag"))
        .build()
        .expect("tags");
    client
        .run(client.sdk.put_object_tagging().bucket("images").key("a").tagging(tagging).send())
        .expect("tags");
    let tags = || client.run(client.sdk.get_object_tagging().bucket("images").key("a").send());
    assert_eq!(tags().expect("answers").tag_set().len(), 1);
    assert_eq!(s3.object("images", "a").expect("stored").tags["k"], "v");
    s3.set_quirks(Quirks { no_tagging: true, ..Quirks::default() });
    assert_eq!(tags().map(drop), Err(failure(501, "NotImplemented")));
    let put = client.sdk.put_object().bucket("images").key("a").tagging("a=b").body(body(b"x"));
    assert_eq!(client.run(put.send()).map(drop), Err(failure(501, "NotImplemented")));
}

#[test]
fn archived_objects_are_readable_after_a_restore() {
    let (s3, client) = start();
    s3.set_limits(Limits { restore_delay: 2, ..s3.limits() });
    s3.put_object("images", "a", "hello", ObjectOptions::default());
    let restore = || {
        let request = RestoreRequest::builder().days(1).build();
        let error = client.wait(
            client.sdk.restore_object().bucket("images").key("a").restore_request(request).send(),
        );
        error
            .map(drop)
            .map_err(|error| error.raw_response().map_or(0, |answer| answer.status().as_u16()))
    };
    let header = || {
        client
            .run(client.sdk.head_object().bucket("images").key("a").send())
            .expect("looks")
            .restore()
            .map(str::to_owned)
    };
    assert_eq!(restore(), Err(403));
    s3.freeze("images", "a", "DEEP_ARCHIVE");
    assert_eq!(client.get("images", "a"), Err(failure(403, "InvalidObjectState")));
    assert_eq!(header(), None);
    assert_eq!(restore(), Ok(()));
    assert_eq!(
        s3.calls().last().map(|call| (call.operation, call.status)),
        Some(("RestoreObject", 202))
    );
    assert_eq!(restore(), Err(409));
    assert_eq!(header().as_deref(), Some("ongoing-request=\"true\""));
    assert_eq!(client.get("images", "a"), Err(failure(403, "InvalidObjectState")));
    assert_eq!(header().as_deref(), Some("ongoing-request=\"true\""));
    assert!(
        header()
            .is_some_and(|header| header.starts_with("ongoing-request=\"false\", expiry-date=\""))
    );
    assert_eq!(client.get("images", "a"), Ok(Some(b"hello".to_vec())));
    assert_eq!(s3.object("images", "a").map(|object| object.restore), Some(Restore::Done));
    assert_eq!(restore(), Ok(()));
    assert_eq!(s3.calls().last().map(|call| call.status), Some(200));
}

#[test]
fn versioned_buckets_keep_old_versions() {
    let s3 = TestS3::start();
    s3.create_bucket_with("images", BucketOptions { versioning: true, ..BucketOptions::default() });
    let client = Client::new(&s3);
    client.put("images", "a", b"one");
    let first = s3.object("images", "a").and_then(|object| object.version_id).expect("a version");
    client.put("images", "a", b"two");
    let get = |version: &str| {
        let answer = client
            .run(client.sdk.get_object().bucket("images").key("a").version_id(version).send())?;
        Ok(client.wait(answer.body.collect()).expect("all of it").to_vec())
    };
    assert_eq!(get(&first), Ok(b"one".to_vec()));
    assert_eq!(get("version-none"), Err(failure(404, "NoSuchVersion")));
    let deleted =
        client.run(client.sdk.delete_object().bucket("images").key("a").send()).expect("deletes");
    assert_eq!(deleted.delete_marker(), Some(true));
    assert_eq!(client.get("images", "a"), Err(failure(404, "NoSuchKey")));
    assert!(s3.keys("images").is_empty());
    let marker = deleted.version_id().expect("a version").to_owned();
    assert_eq!(get(&marker), Err(failure(405, "MethodNotAllowed")));
    client
        .run(client.sdk.delete_object().bucket("images").key("a").version_id(marker).send())
        .expect("deletes");
    assert_eq!(client.get("images", "a"), Ok(Some(b"two".to_vec())));
    // A bucket without versioning has no object left.
    s3.create_bucket("plain");
    client.put("plain", "a", b"x");
    client.run(client.sdk.delete_object().bucket("plain").key("a").send()).expect("deletes");
    assert!(s3.object("plain", "a").is_none());
}

#[test]
fn locked_versions_cannot_be_deleted() {
    let s3 = TestS3::start();
    s3.create_bucket_with(
        "locked",
        BucketOptions { object_lock: true, ..BucketOptions::default() },
    );
    s3.create_bucket("plain");
    let client = Client::new(&s3);
    let put = |bucket: &str| {
        let put = client.sdk.put_object().bucket(bucket).key("a").body(body(b"hello"));
        put.object_lock_mode(ObjectLockMode::Compliance)
            .object_lock_retain_until_date(DateTime::from_secs(4_000_000_000))
    };
    let with =
        |bucket: &str| client.run(put(bucket).content_md5("XUFAKrxLKna5cZ2REBfFkg==").send());
    assert_eq!(with("plain").map(drop), Err(failure(400, "InvalidRequest")));
    assert_eq!(with("locked").map(drop), Ok(()));
    let version = s3.object("locked", "a").and_then(|object| object.version_id).expect("a version");
    let delete = client.sdk.delete_object().bucket("locked").key("a").version_id(version);
    assert_eq!(client.run(delete.send()).map(drop), Err(failure(403, "AccessDenied")));
    assert_eq!(with("locked").map(drop), Ok(()));
    let head =
        client.run(client.sdk.head_object().bucket("locked").key("a").send()).expect("looks");
    assert_eq!(head.object_lock_mode(), Some(&ObjectLockMode::Compliance));
    assert_eq!(head.object_lock_retain_until_date(), Some(&DateTime::from_secs(4_000_000_000)));
    let create = client
        .sdk
        .create_multipart_upload()
        .bucket("locked")
        .key("b")
        .object_lock_mode(ObjectLockMode::Governance);
    let create = create.object_lock_retain_until_date(DateTime::from_secs(4_000_000_000));
    let id = client.run(create.send()).expect("creates").upload_id;
    let part = || {
        client
            .sdk
            .upload_part()
            .bucket("locked")
            .key("b")
            .set_upload_id(id.clone())
            .part_number(1)
            .body(body(b"hello"))
    };
    assert_eq!(client.run(part().send()).map(drop), Err(failure(400, "InvalidRequest")));
    assert_eq!(client.run(part().content_md5("XUFAKrxLKna5cZ2REBfFkg==").send()).map(drop), Ok(()));
}

#[test]
fn copy_object_copies_or_replaces_attributes() {
    let (s3, client) = start();
    let tags = BTreeMap::from([("t".to_owned(), "1".to_owned())]);
    let attributes = Attributes {
        tags,
        user_metadata: BTreeMap::from([("n".to_owned(), "1".to_owned())]),
        ..Attributes::default()
    };
    s3.put_object(
        "images",
        "a",
        "hello",
        ObjectOptions { attributes, checksum: Some(Algorithm::Crc32c), part_size: Some(2) },
    );
    assert_eq!(s3.object("images", "a").and_then(|object| object.parts), Some(vec![2, 2, 1]));
    let copy =
        |key: &str| client.sdk.copy_object().bucket("images").key(key).copy_source("images/a");
    client.run(copy("b").send()).expect("copies");
    let copied = s3.object("images", "b").expect("stored");
    assert_eq!((copied.user_metadata["n"].as_str(), copied.tags["t"].as_str()), ("1", "1"));
    assert_eq!(
        (copied.etag.as_str(), copied.parts.as_ref()),
        ("5d41402abc4b2a76b9719d911017c592", None)
    );
    client
        .run(copy("c").metadata_directive(MetadataDirective::Replace).metadata("m", "2").send())
        .expect("copies");
    assert_eq!(
        s3.object("images", "c").expect("stored").user_metadata.keys().collect::<Vec<_>>(),
        ["m"]
    );
    assert_eq!(
        client.run(copy("b").copy_source_if_match("\"other\"").send()).map(drop),
        Err(failure(412, "PreconditionFailed"))
    );
    assert_eq!(
        client.run(copy("b").copy_source("images/z").send()).map(drop),
        Err(failure(404, "NoSuchKey"))
    );
    s3.freeze("images", "a", "GLACIER");
    assert_eq!(
        client.run(copy("b").send()).map(drop),
        Err(failure(403, "ObjectNotInActiveTierError"))
    );
}

#[test]
fn a_part_of_an_object_is_read_by_its_number() {
    let (s3, client) = start();
    s3.put_object(
        "images",
        "a",
        "hello",
        ObjectOptions { part_size: Some(2), ..ObjectOptions::default() },
    );
    let head = |number| {
        client.run(client.sdk.head_object().bucket("images").key("a").part_number(number).send())
    };
    let last = head(3).expect("looks");
    assert_eq!((last.content_length(), last.parts_count()), (Some(1), Some(3)));
    assert_eq!(head(4).map(drop).map_err(|failure| failure.0), Err(416));
    let get = client
        .run(client.sdk.get_object().bucket("images").key("a").part_number(2).send())
        .expect("reads");
    assert_eq!(get.content_range(), Some("bytes 2-3/5"));
    assert!(s3.object("images", "a").is_some_and(|object| object.etag.ends_with("-3")));
}
