//! Options of encryption: the dry run says what becomes of it, and the run does that.

use amistore_aws_double::aws::{Content, Image, Snapshot};
use serde_json::{Value, json};

use super::partitions::Partitions;

const GOV: [&str; 2] = ["--target-profile", "gov"];
const ACCOUNT: &str = "444455556666";
const KEY: &str = "arn:aws-us-gov:kms:us-gov-west-1:444455556666:key/1111-2222";

/// Two partitions, and the archive `a.bin` of an image with one encrypted snapshot.
fn world() -> (Partitions, String) {
    let world = Partitions::new();
    let snapshot = world.com.aws.add_snapshot(
        Snapshot { encrypted: true, ..Snapshot::new(1) }.with([(0, Content::bytes(b"secret"))]),
    );
    let ami = world.com.aws.add_image(Image::new("secret", &snapshot));
    world.run(&["store", &ami, "a.bin", "--source-profile", "com"]).succeeded();
    (world, snapshot)
}

fn restore(more: &[&str]) -> Vec<String> {
    let args = [&["restore", "a.bin", "ec2"][..], &GOV, more].concat();
    args.into_iter().map(ToOwned::to_owned).collect()
}

fn as_text(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

#[test]
fn a_dry_run_says_what_becomes_of_encryption() {
    let (world, snapshot) = world();
    let key = Some(KEY.to_owned());
    for (more, account_key, expected) in [
        (&[][..], None, json!({"KmsKeyId": "alias/aws/ebs", "Encrypted": [snapshot]})),
        (&[], key.clone(), json!({"KmsKeyId": KEY, "Encrypted": [snapshot]})),
        (&["--kms-key-id", KEY], None, json!({"KmsKeyId": KEY, "Encrypted": [snapshot]})),
        (&["--allow-unencrypted"], key, json!({"EncryptedNoLonger": [snapshot]})),
    ] {
        world.gov.aws.encrypt_by_default(ACCOUNT, false, account_key.as_deref());
        let args = restore(&[more, &["--dry-run"]].concat());
        let plan = world.json(&as_text(&args));
        for name in ["KmsKeyId", "Encrypted", "EncryptedNoLonger"] {
            let missing = if name == "KmsKeyId" { Value::Null } else { json!([]) };
            let expected = expected.get(name).unwrap_or(&missing);
            assert_eq!(&plan["Encryption"][name], expected, "{more:?} {name}");
        }
        let text = world.run(&as_text(&args)).succeeded();
        let line = match expected["KmsKeyId"].as_str() {
            Some(key) => format!("encrypted under {key}: {snapshot}"),
            None => format!("encrypted no longer: {snapshot}"),
        };
        assert!(text.text().contains(&line), "{}", text.text());
        let warns = expected["KmsKeyId"] == "alias/aws/ebs";
        assert_eq!(text.stderr.contains("cannot be shared"), warns, "{}", text.stderr);
    }
    assert_eq!(world.gov.aws.count("StartSnapshot"), 0);
    let both = restore(&["--allow-unencrypted", "--encrypted"]);
    world.run(&as_text(&both)).failed(2, &["--encrypted"]);
}

#[test]
fn a_refusal_by_kms_names_the_key_and_its_permissions() {
    let (world, _) = world();
    world.gov.aws.encrypt_by_default(ACCOUNT, false, Some(KEY));
    world.gov.aws.deny_kms_key(KEY);
    let args = restore(&[]);
    world.run(&as_text(&args)).failed(4, &["KMS", KEY, "kms:CreateGrant", "ec2-restore-kms"]);
    assert!(world.gov.aws.snapshots().is_empty());
    world.gov.aws.allow_kms_key(KEY);
    let restored = world.json(&as_text(&args));
    assert_eq!(restored["Snapshots"][0]["KmsKeyId"], json!(KEY));
}
