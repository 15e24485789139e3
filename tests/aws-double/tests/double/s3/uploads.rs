//! Multipart uploads: parts, lists, completion, checksums, conflicts.

use amistore_aws_double::s3::{
    Algorithm, ChecksumKind, Fault, FaultKind, Limits, ObjectOptions, Quirks, TestS3, When,
};
use aws_sdk_s3::operation::complete_multipart_upload::CompleteMultipartUploadOutput;
use aws_sdk_s3::operation::complete_multipart_upload::builders as complete_upload;
use aws_sdk_s3::operation::create_multipart_upload::builders as create_upload;
use aws_sdk_s3::operation::upload_part::UploadPartOutput;
use aws_sdk_s3::operation::upload_part::builders::UploadPartFluentBuilder;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart, ServerSideEncryption,
    StorageClass,
};

use super::client::{Client, Failure, body, failure};

type Create = create_upload::CreateMultipartUploadFluentBuilder;
type Complete = complete_upload::CompleteMultipartUploadFluentBuilder;

/// A server without a minimum part size, and a client that uploads to `images/a`.
struct Rig {
    s3: TestS3,
    client: Client,
}

impl Rig {
    fn new() -> Self {
        let s3 = TestS3::start();
        s3.create_bucket("images");
        s3.set_min_part_size(1);
        let client = Client::new(&s3);
        Self { s3, client }
    }

    fn create(&self, change: impl FnOnce(Create) -> Create) -> Result<String, Failure> {
        let create = change(self.client.sdk.create_multipart_upload().bucket("images").key("a"));
        Ok(self.client.run(create.send())?.upload_id().expect("an id").to_owned())
    }

    /// An upload whose checksum is made of all bytes by CRC-64/NVME.
    fn full(&self) -> String {
        let full = |create: Create| {
            create
                .checksum_algorithm(ChecksumAlgorithm::Crc64Nvme)
                .checksum_type(ChecksumType::FullObject)
        };
        self.create(full).expect("creates")
    }

    fn part(&self, id: &str, number: i32, bytes: &[u8]) -> UploadPartFluentBuilder {
        self.client
            .sdk
            .upload_part()
            .bucket("images")
            .key("a")
            .upload_id(id)
            .part_number(number)
            .body(body(bytes))
    }

    fn upload(&self, id: &str, number: i32, bytes: &[u8]) -> Result<CompletedPart, Failure> {
        let answer: UploadPartOutput = self.client.run(self.part(id, number, bytes).send())?;
        Ok(CompletedPart::builder().part_number(number).set_e_tag(answer.e_tag).build())
    }

    fn complete(&self, id: &str, parts: &[CompletedPart]) -> Complete {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.to_vec())).build();
        self.client
            .sdk
            .complete_multipart_upload()
            .bucket("images")
            .key("a")
            .upload_id(id)
            .multipart_upload(parts)
    }

    fn completed(&self, complete: Complete) -> Result<CompleteMultipartUploadOutput, Failure> {
        self.client.run(complete.send())
    }

    fn outcome(&self, complete: Complete) -> Result<(), Failure> {
        self.completed(complete).map(drop)
    }
}

fn changed(part: &CompletedPart, change: impl FnOnce(&mut CompletedPart)) -> CompletedPart {
    let mut part = part.clone();
    change(&mut part);
    part
}

#[test]
fn an_object_appears_when_its_upload_is_completed() {
    let rig = Rig::new();
    let described = |create: Create| {
        create
            .metadata("n", "1")
            .tagging("t=2")
            .content_type("x/y")
            .storage_class(StorageClass::GlacierIr)
    };
    let id = rig.create(described).expect("creates");
    let parts = [
        rig.upload(&id, 1, b"wrong").expect("uploads"),
        rig.upload(&id, 3, b"lo").expect("uploads"),
    ];
    let again = rig.upload(&id, 1, b"hel").expect("uploads");
    assert!(rig.s3.object("images", "a").is_none());
    let open = rig.s3.open_uploads("images").remove(0);
    assert_eq!(
        (open.key.as_str(), &open.upload_id, open.attributes.tags["t"].as_str()),
        ("a", &id, "2")
    );
    assert_eq!(
        open.parts.iter().map(|(number, part)| (*number, part.bytes.len())).collect::<Vec<_>>(),
        [(1, 3), (3, 2)]
    );

    // The second upload of part 1 replaces the first.
    assert_eq!(rig.outcome(rig.complete(&id, &parts)), Err(failure(400, "InvalidPart")));
    let parts = [again, parts[1].clone()];
    let answer = rig.completed(rig.complete(&id, &parts)).expect("completes");
    let object = rig.s3.object("images", "a").expect("stored");
    assert_eq!(object.bytes, b"hello".as_slice());
    assert_eq!(object.parts, Some(vec![3, 2]));
    assert!(object.etag.ends_with("-2"));
    assert_eq!(answer.e_tag().map(|etag| etag.trim_matches('"')), Some(object.etag.as_str()));
    assert_eq!(
        (object.user_metadata["n"].as_str(), object.content_type.as_deref()),
        ("1", Some("x/y"))
    );
    assert_eq!(object.storage_class.as_deref(), Some("GLACIER_IR"));
    // Without a named algorithm S3 makes a checksum by default.
    assert_eq!(
        object.checksum.as_ref().map(|checksum| checksum.value.clone()),
        Some(Algorithm::Crc64Nvme.of(b"hello"))
    );
    assert_eq!(rig.outcome(rig.complete(&id, &parts)), Err(failure(404, "NoSuchUpload")));
    assert_eq!(rig.upload(&id, 1, b"x"), Err(failure(404, "NoSuchUpload")));
    assert!(rig.s3.open_uploads("images").is_empty());
}

#[test]
fn the_etag_of_an_upload_is_that_of_aws() {
    let rig = Rig::new();
    let id = rig.create(|create| create).expect("creates");
    let parts = [
        rig.upload(&id, 1, &vec![b'a'; 5 << 20]).expect("uploads"),
        rig.upload(&id, 2, b"b").expect("uploads"),
    ];
    rig.completed(rig.complete(&id, &parts)).expect("completes");
    // md5(md5(5 MiB of "a") + md5("b")), by other means.
    assert_eq!(
        rig.s3.object("images", "a").expect("stored").etag,
        "e5a8c5272b26fc10581a21089559b006-2"
    );
}

#[test]
fn parts_are_listed_in_order_and_in_pages() {
    let rig = Rig::new();
    rig.s3.set_limits(Limits { page_size: 3, ..rig.s3.limits() });
    let id = rig.full();
    for number in [7, 2, 5, 1, 9] {
        rig.upload(&id, number, &vec![number as u8; number as usize]).expect("uploads");
    }
    let list = |max, marker: Option<String>| {
        let list =
            rig.client.sdk.list_parts().bucket("images").key("a").upload_id(&id).set_max_parts(max);
        rig.client.run(list.set_part_number_marker(marker).send()).expect("lists")
    };
    let first = list(None, None);
    let numbers = |parts: &[aws_sdk_s3::types::Part]| {
        parts.iter().filter_map(|part| part.part_number()).collect::<Vec<_>>()
    };
    assert_eq!((numbers(first.parts()), first.is_truncated()), (vec![1, 2, 5], Some(true)));
    let rest = list(None, first.next_part_number_marker().map(str::to_owned));
    assert_eq!((numbers(rest.parts()), rest.is_truncated()), (vec![7, 9], Some(false)));
    let part = &rest.parts()[0];
    assert_eq!(
        (part.size(), part.checksum_crc64_nvme()),
        (Some(7), Some(Algorithm::Crc64Nvme.of(&[7; 7]).as_str()))
    );
    assert!(part.e_tag().is_some());
    assert_eq!(rest.checksum_type(), Some(&ChecksumType::FullObject));
    assert_eq!(numbers(list(Some(1), Some("2".to_owned())).parts()), [5]);
    rig.s3.set_quirks(Quirks { no_list_parts: true, ..Quirks::default() });
    let refused = rig.client.sdk.list_parts().bucket("images").key("a").upload_id(&id);
    assert_eq!(rig.client.run(refused.send()).map(drop), Err(failure(501, "NotImplemented")));
}

#[test]
fn uploads_are_listed_in_pages_until_they_are_aborted() {
    let rig = Rig::new();
    rig.s3.set_limits(Limits { page_size: 2, ..rig.s3.limits() });
    for key in ["b/1", "b/2", "a", "b/1", "b/3"] {
        rig.client
            .run(rig.client.sdk.create_multipart_upload().bucket("images").key(key).send())
            .expect("creates");
    }
    let list = || {
        let (mut found, mut key, mut id) = (Vec::new(), None, None);
        loop {
            let list = rig.client.sdk.list_multipart_uploads().bucket("images").prefix("b/");
            let page = rig
                .client
                .run(list.set_key_marker(key).set_upload_id_marker(id).send())
                .expect("lists");
            assert!(page.uploads().len() <= 2);
            found.extend(page.uploads().iter().map(|upload| {
                (upload.key().map(str::to_owned), upload.upload_id().map(str::to_owned))
            }));
            if page.is_truncated() != Some(true) {
                return found;
            }
            (key, id) = (
                page.next_key_marker().map(str::to_owned),
                page.next_upload_id_marker().map(str::to_owned),
            );
        }
    };
    let found = list();
    assert_eq!(
        found.iter().filter_map(|(key, _)| key.as_deref()).collect::<Vec<_>>(),
        ["b/1", "b/1", "b/2", "b/3"]
    );
    let (key, id) = found[0].clone();
    let abort = || {
        let abort = rig
            .client
            .sdk
            .abort_multipart_upload()
            .bucket("images")
            .set_key(key.clone())
            .set_upload_id(id.clone());
        rig.client.run(abort.send()).map(drop)
    };
    rig.s3.deny("AbortMultipartUpload");
    assert_eq!(abort(), Err(failure(403, "AccessDenied")));
    rig.s3.allow("AbortMultipartUpload");
    assert_eq!(abort(), Ok(()));
    assert_eq!(abort(), Err(failure(404, "NoSuchUpload")));
    assert_eq!(list(), found[1..]);
    rig.s3.drop_upload("images", found[1].1.as_deref().expect("an id"));
    assert_eq!(list(), found[2..]);
}

#[test]
fn complete_multipart_upload_checks_the_listed_parts() {
    let rig = Rig::new();
    rig.s3.set_min_part_size(3);
    rig.s3.set_limits(Limits { max_parts: 20, ..rig.s3.limits() });
    let id = rig.full();
    assert_eq!(rig.upload(&id, 0, b"x"), Err(failure(400, "InvalidArgument")));
    assert_eq!(rig.upload(&id, 21, b"x"), Err(failure(400, "InvalidArgument")));
    let part = |number, bytes: &[u8]| rig.upload(&id, number, bytes).expect("uploads");
    let (one, two, three, last) = (part(1, b"abc"), part(2, b"de"), part(3, b"f"), part(20, b"g"));
    let complete = |parts: &[CompletedPart]| rig.outcome(rig.complete(&id, parts));
    assert_eq!(complete(&[]), Err(failure(400, "MalformedXML")));
    assert_eq!(complete(&[two.clone(), one.clone()]), Err(failure(400, "InvalidPartOrder")));
    assert_eq!(complete(&[one.clone(), one.clone()]), Err(failure(400, "InvalidPartOrder")));
    assert_eq!(
        complete(&[one.clone(), changed(&two, |part| part.part_number = Some(4))]),
        Err(failure(400, "InvalidPart"))
    );
    assert_eq!(
        complete(&[changed(&one, |part| part.e_tag = two.e_tag.clone())]),
        Err(failure(400, "InvalidPart"))
    );
    let checksum = Some(Algorithm::Crc64Nvme.of(b"other"));
    assert_eq!(
        complete(&[changed(&one, |part| part.checksum_crc64_nvme = checksum)]),
        Err(failure(400, "InvalidPart"))
    );
    assert_eq!(complete(&[one.clone(), two, three]), Err(failure(400, "EntityTooSmall")));
    // With a checksum algorithm, part numbers must be consecutive.
    assert_eq!(complete(&[one.clone(), last]), Err(failure(400, "InvalidPartOrder")));
    assert_eq!(complete(&[one, part(2, b"f")]), Ok(()));
}

#[test]
fn complete_multipart_upload_checks_size_and_checksum() {
    let rig = Rig::new();
    let id = rig.full();
    let bad = rig.part(&id, 1, b"abc").checksum_crc64_nvme(Algorithm::Crc64Nvme.of(b"abd"));
    assert_eq!(rig.client.run(bad.send()).map(drop), Err(failure(400, "BadDigest")));
    let good = rig.part(&id, 1, b"abc").checksum_crc64_nvme(Algorithm::Crc64Nvme.of(b"abc"));
    assert!(rig.client.run(good.send()).is_ok());
    let other = rig.part(&id, 1, b"abc").checksum_crc32(Algorithm::Crc32.of(b"abc"));
    assert_eq!(rig.client.run(other.send()).map(drop), Err(failure(400, "InvalidRequest")));
    let parts =
        [rig.upload(&id, 1, b"abc").expect("uploads"), rig.upload(&id, 2, b"de").expect("uploads")];
    let complete = || rig.complete(&id, &parts);
    let (right, wrong) = (Algorithm::Crc64Nvme.of(b"abcde"), Algorithm::Crc64Nvme.of(b"abcd"));
    assert_eq!(rig.outcome(complete().checksum_crc64_nvme(wrong)), Err(failure(400, "BadDigest")));
    assert_eq!(
        rig.outcome(complete().checksum_crc32(Algorithm::Crc32.of(b"abcde"))),
        Err(failure(400, "InvalidRequest"))
    );
    assert_eq!(rig.outcome(complete().mpu_object_size(4)), Err(failure(400, "InvalidRequest")));
    rig.s3.put_object("images", "a", "there", ObjectOptions::default());
    assert_eq!(rig.outcome(complete().if_none_match("*")), Err(failure(412, "PreconditionFailed")));
    let answer = rig
        .completed(complete().checksum_crc64_nvme(&right).mpu_object_size(5))
        .expect("completes");
    assert_eq!(
        (answer.checksum_crc64_nvme(), answer.checksum_type()),
        (Some(right.as_str()), Some(&ChecksumType::FullObject))
    );
    assert_eq!(rig.s3.object("images", "a").expect("stored").bytes, b"abcde".as_slice());
}

#[test]
fn composite_checksums_are_made_of_those_of_the_parts() {
    let rig = Rig::new();
    for algorithm in [Algorithm::Sha256, Algorithm::Sha1, Algorithm::Crc32, Algorithm::Crc32c] {
        let name = ChecksumAlgorithm::from(algorithm.name());
        let id = rig.create(|create| create.checksum_algorithm(name)).expect("creates");
        assert_eq!(
            rig.upload(&id, 1, b"abc"),
            Err(failure(400, "InvalidRequest")),
            "without a checksum"
        );
        let part = |number, bytes: &[u8]| {
            let value = Some(algorithm.of(bytes));
            let set = |name| value.clone().filter(|_| algorithm == name);
            let (sha256, sha1, crc32, crc32c) = (
                set(Algorithm::Sha256),
                set(Algorithm::Sha1),
                set(Algorithm::Crc32),
                set(Algorithm::Crc32c),
            );
            let send = rig
                .part(&id, number, bytes)
                .set_checksum_sha256(sha256.clone())
                .set_checksum_sha1(sha1.clone());
            let send = send.set_checksum_crc32(crc32.clone()).set_checksum_crc32_c(crc32c.clone());
            let etag = rig.client.run(send.send()).expect("uploads").e_tag;
            let part = CompletedPart::builder()
                .part_number(number)
                .set_e_tag(etag)
                .set_checksum_sha256(sha256);
            part.set_checksum_sha1(sha1)
                .set_checksum_crc32(crc32)
                .set_checksum_crc32_c(crc32c)
                .build()
        };
        let (one, two, four) = (part(1, b"abc"), part(2, b"de"), part(4, b"f"));
        let bare = CompletedPart::builder().part_number(2).set_e_tag(two.e_tag.clone()).build();
        assert_eq!(
            rig.outcome(rig.complete(&id, &[one.clone(), bare])),
            Err(failure(400, "InvalidRequest"))
        );
        assert_eq!(
            rig.outcome(rig.complete(&id, &[one.clone(), four])),
            Err(failure(500, "InternalError")),
            "a gap"
        );
        rig.completed(rig.complete(&id, &[one, two])).expect("completes");
        let checksum =
            rig.s3.object("images", "a").and_then(|object| object.checksum).expect("a checksum");
        assert_eq!(
            (checksum.kind, checksum.value.ends_with("-2")),
            (ChecksumKind::Composite, true)
        );
        if algorithm == Algorithm::Sha256 {
            // sha256(sha256("abc") + sha256("de")), by other means.
            assert_eq!(checksum.value, "pyZWkm6RFqVJbElnQg0d9KLHeUtVgfzxbxt5JkJkjBA=-2");
        }
    }
    let impossible = |algorithm, kind| {
        rig.create(|create| create.checksum_algorithm(algorithm).checksum_type(kind)).map(drop)
    };
    assert_eq!(
        impossible(ChecksumAlgorithm::Sha256, ChecksumType::FullObject),
        Err(failure(400, "InvalidRequest"))
    );
    assert_eq!(
        impossible(ChecksumAlgorithm::Crc64Nvme, ChecksumType::Composite),
        Err(failure(400, "InvalidRequest"))
    );
    assert_eq!(impossible(ChecksumAlgorithm::Crc32, ChecksumType::FullObject), Ok(()));
    let only = rig.create(|create| create.checksum_type(ChecksumType::FullObject)).map(drop);
    assert_eq!(only, Err(failure(400, "InvalidRequest")));
}

#[test]
fn a_part_without_an_announced_checksum_may_not_have_one() {
    let rig = Rig::new();
    let id = rig.create(|create| create).expect("creates");
    let part = rig.part(&id, 1, b"abc").checksum_crc32(Algorithm::Crc32.of(b"abc"));
    let error = rig.client.wait(part.send()).expect_err("refused");
    let text = error
        .as_service_error()
        .and_then(|error| error.meta().message())
        .unwrap_or_default()
        .to_owned();
    assert_eq!(
        text,
        "Checksum Type mismatch occurred, expected checksum Type: null, actual checksum Type: crc32"
    );
}

#[test]
fn parts_are_copied_from_other_objects() {
    let rig = Rig::new();
    rig.s3.put_object("images", "source", "0123456789", ObjectOptions::default());
    let etag = rig.s3.object("images", "source").expect("stored").etag.clone();
    let id = rig.full();
    let copy = |number, range: &str, etag: &str| {
        let copy = rig
            .client
            .sdk
            .upload_part_copy()
            .bucket("images")
            .key("a")
            .upload_id(&id)
            .part_number(number);
        let copy =
            copy.copy_source("images/source").copy_source_range(range).copy_source_if_match(etag);
        let answer = rig.client.run(copy.send())?;
        let etag = answer.copy_part_result().and_then(|result| result.e_tag()).map(str::to_owned);
        Ok(CompletedPart::builder().part_number(number).set_e_tag(etag).build())
    };
    assert_eq!(copy(1, "bytes=0-3", "\"other\""), Err(failure(412, "PreconditionFailed")));
    assert_eq!(copy(1, "bytes=0-10", &etag), Err(failure(400, "InvalidArgument")));
    assert_eq!(copy(1, "bytes=0-", &etag), Err(failure(400, "InvalidArgument")));
    let parts = [
        copy(1, "bytes=0-3", &etag).expect("copies"),
        copy(2, "bytes=8-9", &etag).expect("copies"),
    ];
    assert_eq!(
        rig.s3.calls().last().and_then(|call| call.range.clone()).as_deref(),
        Some("bytes=8-9")
    );
    rig.completed(rig.complete(&id, &parts)).expect("completes");
    assert_eq!(rig.s3.object("images", "a").expect("stored").bytes, b"012389".as_slice());
}

#[test]
fn a_changed_part_is_detected() {
    let rig = Rig::new();
    let id = rig.full();
    let part = rig.upload(&id, 1, b"abc").expect("uploads");
    rig.s3.corrupt_part("images", &id, 1);
    let list = rig
        .client
        .run(rig.client.sdk.list_parts().bucket("images").key("a").upload_id(&id).send())
        .expect("lists");
    let listed = &list.parts()[0];
    assert_eq!(listed.size(), Some(3));
    assert_ne!(
        (listed.e_tag(), listed.checksum_crc64_nvme()),
        (part.e_tag(), Some(Algorithm::Crc64Nvme.of(b"abc").as_str()))
    );
    assert_eq!(
        rig.outcome(rig.complete(&id, std::slice::from_ref(&part))),
        Err(failure(400, "InvalidPart"))
    );
    let changed = changed(&part, |part| part.e_tag = listed.e_tag.clone());
    let crc = Algorithm::Crc64Nvme.of(b"abc");
    assert_eq!(
        rig.outcome(rig.complete(&id, &[changed]).checksum_crc64_nvme(crc)),
        Err(failure(400, "BadDigest"))
    );
}

#[test]
fn an_upload_that_conflicted_cannot_be_completed() {
    let rig = Rig::new();
    let id = rig.full();
    let parts = [rig.upload(&id, 1, b"abc").expect("uploads")];
    let complete = || rig.outcome(rig.complete(&id, &parts).if_none_match("*"));
    rig.s3.fail(Fault::new(
        FaultKind::ConditionalRequestConflict,
        When::Next("CompleteMultipartUpload", 1),
    ));
    assert_eq!(complete(), Err(failure(409, "ConditionalRequestConflict")));
    assert_eq!(complete(), Err(failure(409, "ConditionalRequestConflict")));
    assert_eq!(rig.s3.open_uploads("images").len(), 1);
}

#[test]
fn an_upload_can_be_dropped() {
    let rig = Rig::new();
    let id = rig.full();
    rig.s3.fail(Fault::new(FaultKind::NoSuchUpload, When::NextPart(2, 1)));
    assert!(rig.upload(&id, 1, b"abc").is_ok());
    assert_eq!(rig.upload(&id, 2, b"abc"), Err(failure(404, "NoSuchUpload")));
    assert!(rig.s3.open_uploads("images").is_empty());
    assert_eq!(rig.upload(&id, 2, b"abc"), Err(failure(404, "NoSuchUpload")));
}

#[test]
fn other_servers_refuse_or_forget_checksums() {
    let rig = Rig::new();
    rig.s3.set_quirks(Quirks { rejects_checksum_algorithm: true, ..Quirks::default() });
    let create = |algorithm| rig.create(|create| create.checksum_algorithm(algorithm)).map(drop);
    assert_eq!(create(ChecksumAlgorithm::Crc64Nvme), Err(failure(501, "NotImplemented")));
    assert_eq!(create(ChecksumAlgorithm::Crc32C), Ok(()));
    rig.s3.set_quirks(Quirks { no_checksums: true, ..Quirks::default() });
    let id = rig.full();
    let send = rig.part(&id, 1, b"abc").checksum_crc64_nvme("AAAAAAAAAAA=");
    assert_eq!(rig.client.run(send.send()).expect("uploads").checksum_crc64_nvme(), None);
    let parts = [rig.upload(&id, 1, b"abc").expect("uploads")];
    rig.completed(rig.complete(&id, &parts).checksum_crc64_nvme("AAAAAAAAAAA="))
        .expect("completes");
    assert_eq!(rig.s3.object("images", "a").and_then(|object| object.checksum), None);
}

#[test]
fn an_object_has_the_encryption_of_its_upload() {
    let rig = Rig::new();
    let id = rig
        .create(|create| create.server_side_encryption(ServerSideEncryption::AwsKms))
        .expect("creates");
    let parts = [rig.upload(&id, 1, b"abc").expect("uploads")];
    let answer = rig.completed(rig.complete(&id, &parts)).expect("completes");
    assert_eq!(answer.server_side_encryption(), Some(&ServerSideEncryption::AwsKms));
    assert_eq!(
        rig.s3.object("images", "a").and_then(|object| object.sse.clone()).as_deref(),
        Some("aws:kms")
    );
}
