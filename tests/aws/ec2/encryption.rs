//! Encryption of restored snapshots: it never ends without an option, and a key that KMS refuses is
//! known before the first block.

use amistore::internals::aws::ec2::{Edits, Fidelity};
use amistore::internals::base::{Error, ErrorCode, ErrorKind};
use amistore_aws_double::aws::{Content, Fault, FaultKind, Image, Mapping, Snapshot, TestAws};

use super::bench::{Bench, words};

const KEY: &str = "arn:aws:kms:us-east-1:123456789012:key/11111111-aaaa-4bbb-8ccc-0123456789ab";

/// The archive of an image with a plain volume, and behind it an encrypted one.
fn archive() -> Vec<u8> {
    let from = Bench::new();
    let root = from.aws.snapshot_of(1, [(0, Content::bytes(b"plain"))]);
    let data = from.aws.add_snapshot(
        Snapshot { encrypted: true, ..Snapshot::new(1) }.with([(3, Content::bytes(b"secret"))]),
    );
    let mappings = vec![Mapping::of("/dev/xvda", &root), Mapping::of("/dev/sdb", &data)];
    let ami = from.aws.add_image(Image { mappings, ..Image::new("mixed", &root) });
    from.store(&ami).expect("an archive")
}

/// The keys of the snapshots, in the order of their devices; `None` for plain ones.
fn keys(bench: &Bench) -> Vec<Option<String>> {
    let images = bench.aws.images();
    let used = images[0].mappings.iter().filter_map(Mapping::snapshot_id);
    used.map(|id| bench.aws.snapshot(id).expect("there").kms_key_id).collect()
}

fn managed(bench: &Bench) -> String {
    format!(
        "arn:aws:kms:{}:{}:key/00000000-aaaa-4bbb-8ccc-0123456789ab",
        bench.aws.region(),
        TestAws::ACCOUNT
    )
}

fn with_key() -> Edits {
    Edits { kms_key_arn: Some(KEY.to_owned()), ..Edits::default() }
}

#[test]
fn an_encrypted_snapshot_stays_encrypted_and_a_plain_one_plain() {
    let archive = archive();
    let to = Bench::new();
    let restored = to.restore(&archive, "work", &Edits::default()).expect("an image");
    assert_eq!(keys(&to), [None, Some(managed(&to))]);
    let said = to.recorded.take();
    assert!(said.contains("alias/aws/ebs") && said.contains("cannot be shared"), "{said}");
    let encrypted: Vec<bool> = restored.snapshots.iter().map(|it| it.encrypted).collect();
    assert_eq!(encrypted, [false, true]);
    assert_eq!(restored.snapshots[1].kms_key_id, Some(managed(&to)));
    let reported = restored.items.iter().filter(|item| item.attribute == "Encrypted");
    assert!(reported.clone().count() >= 2);
    assert!(reported.clone().all(|item| item.fidelity == Fidelity::Set), "{reported:?}");
}

#[test]
fn the_key_is_the_given_one_or_the_default_of_the_account() {
    let archive = archive();
    let to = Bench::new();
    to.restore(&archive, "work", &with_key()).expect("an image");
    assert_eq!(keys(&to), [Some(KEY.to_owned()), Some(KEY.to_owned())]);
    assert!(!to.recorded.take().contains("cannot be shared"));
    for (encrypts, expected) in [(false, None), (true, Some(KEY.to_owned()))] {
        let to = Bench::new();
        to.aws.encrypt_by_default(TestAws::ACCOUNT, encrypts, Some(KEY));
        to.restore(&archive, "work", &Edits::default()).expect("an image");
        assert_eq!(keys(&to), [expected, Some(KEY.to_owned())]);
        assert!(!to.recorded.take().contains("cannot be shared"), "the key can be shared");
    }
}

#[test]
fn an_option_allows_plain_snapshots_and_the_report_names_them() {
    let (archive, edits) = (archive(), Edits { allow_unencrypted: true, ..Edits::default() });
    let to = Bench::new();
    let restored = to.restore(&archive, "work", &edits).expect("an image");
    assert_eq!(keys(&to), [None, None]);
    assert!(to.recorded.take().contains("was encrypted, and"));
    let changed = restored.items.iter().filter(|item| item.fidelity == Fidelity::Changed);
    assert_eq!(changed.filter(|item| item.attribute == "Encrypted").count(), 1);
    // EBS refuses a request for a plain snapshot in such an account, so none is made.
    let to = Bench::new();
    to.aws.encrypt_by_default(TestAws::ACCOUNT, true, Some(KEY));
    to.restore(&archive, "work", &edits).expect("an image");
    assert_eq!(keys(&to), [Some(KEY.to_owned()), Some(KEY.to_owned())]);
}

#[test]
fn a_default_that_may_not_be_read_counts_as_off_and_is_warned_of() {
    let archive = archive();
    let to = Bench::new();
    to.aws.deny("GetEbsEncryptionByDefault");
    to.aws.deny("GetEbsDefaultKmsKeyId");
    to.restore(&archive, "work", &Edits::default()).expect("an image");
    assert_eq!(keys(&to), [None, Some(managed(&to))]);
    let said = to.recorded.take();
    for words in ["ec2:GetEbsEncryptionByDefault", "ec2:GetEbsDefaultKmsKeyId"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    // A failure is no answer: it is not taken for one.
    let to = Bench::new();
    let down = FaultKind::error(500, "InternalError");
    to.aws.fail(Fault::on("GetEbsEncryptionByDefault", down).always());
    let error = to.restore(&archive, "work", &Edits::default()).expect_err("no answer");
    assert_eq!((error.kind(), to.aws.count("StartSnapshot")), (ErrorKind::Io, 0));
}

#[track_caller]
fn assert_names_the_key(error: &Error, key: &str) {
    assert_eq!(error.kind(), ErrorKind::Denied, "{}", words(error));
    assert!(error.is(ErrorCode::KmsKeyDenied), "{}", words(error));
    assert_eq!(error.fact("kms_key_id"), Some(key), "{}", words(error));
    assert!(words(error).contains("KMS") && words(error).contains("kms:CreateGrant"));
}

#[test]
fn a_key_that_kms_refuses_is_named_before_the_first_block() {
    let archive = archive();
    for edits in [Edits::default(), with_key()] {
        let to = Bench::new();
        to.aws.encrypt_by_default(TestAws::ACCOUNT, false, Some(KEY));
        to.aws.deny_kms_key(KEY);
        for error in [
            to.restore(&archive, "work", &edits).expect_err("denied"),
            to.restore_stream(&archive, &edits).expect_err("denied"),
        ] {
            assert_names_the_key(&error, KEY);
        }
        assert_eq!((to.aws.count("PutSnapshotBlock"), to.aws.snapshots().len()), (0, 0));
        assert_eq!(to.tasks(), 0, "nothing is to be continued");
        to.aws.allow_kms_key(KEY);
        to.restore(&archive, "work", &edits).expect("an image");
    }
}

#[test]
fn the_trial_of_a_key_leaves_no_snapshot() {
    let archive = archive();
    let to = Bench::new();
    to.restore_stream(&archive, &Edits::default()).expect("an image");
    assert_eq!((to.aws.count("StartSnapshot"), to.aws.snapshots().len()), (3, 2));
    assert_eq!(keys(&to), [None, Some(managed(&to))]);
}

#[test]
fn a_key_that_is_withdrawn_between_two_blocks_is_named() {
    let archive = archive();
    let to = Bench::new();
    let refusal = FaultKind::Error {
        status: 403,
        code: "AccessDeniedException".to_owned(),
        reason: "DEPENDENCY_ACCESS_DENIED".to_owned(),
    };
    to.aws.fail(Fault::on("PutSnapshotBlock", refusal).block(3).always());
    let error = to.restore(&archive, "work", &with_key()).expect_err("denied");
    assert_names_the_key(&error, KEY);
    to.aws.clear_faults();
    to.restore(&archive, "work", &with_key()).expect("continued");
    assert_eq!(to.aws.count("StartSnapshot"), 2, "the snapshots of the first run");
}

#[test]
fn a_key_of_another_region_or_an_alias_is_refused_before_any_request() {
    let archive = archive();
    for (key, says) in [
        ("arn:aws:kms:eu-west-1:123456789012:key/1", "another Region"),
        ("arn:aws-us-gov:kms:us-east-1:123456789012:key/1", "another Region"),
        ("arn:aws:kms:us-east-1:123456789012:alias/mine", "alias"),
        ("arn:aws:s3:::bucket", "not the ARN"),
    ] {
        let to = Bench::new();
        let edits = Edits { kms_key_arn: Some(key.to_owned()), ..Edits::default() };
        let error = to.restore(&archive, "work", &edits).expect_err(key);
        assert!(error.kind() == ErrorKind::Usage && words(&error).contains(says), "{error:?}");
        assert!(to.aws.counts().is_empty(), "{key}");
    }
}

#[test]
fn a_service_that_ignores_encryption_gets_no_image() {
    let archive = archive();
    let to = Bench::new();
    to.aws.set(|settings| settings.ignores_encryption = true);
    let error = to.restore(&archive, "work", &Edits::default()).expect_err("a plain snapshot");
    assert!(words(&error).contains("without encryption"), "{}", words(&error));
    assert!(to.aws.images().is_empty());
}
