//! Credentials and endpoints of source and target: two partitions in one process, by flags and by
//! variables, and credentials that expire.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use amistore::internals::aws::{
    Access, Credentials, RequestSettings, RetryPolicy, Session, StaticCredentials,
    needs_other_credentials,
};
use amistore::internals::base::{Cancel, ErrorKind, NullObserver};
use amistore_aws_double::aws::{Content, Image, TestAws};
use amistore_aws_double::s3::TestS3;
use serde_json::json;

use super::partitions::Partitions;
use crate::support::cli::{Outcome, wait_until};

/// An image in the commercial partition.
fn image(world: &Partitions) -> String {
    let snapshot = world.com.aws.snapshot_of(
        1,
        [(0, Content::bytes(b"boot")), (3, Content::Zero), (9, Content::random(1))],
    );
    world.com.aws.add_image(Image::new("small", &snapshot))
}

/// Asserts that each partition received requests of its own key only.
#[track_caller]
fn assert_apart(world: &Partitions) {
    for side in [&world.com, &world.gov] {
        assert!(
            !side.aws.calls().is_empty()
                && side
                    .aws
                    .calls()
                    .iter()
                    .all(|call| call.access_key.as_deref() == Some(side.key.0))
        );
    }
}

fn outcome(world: &Partitions, command: &mut Command) -> Outcome {
    world.sandbox.start(command).wait()
}

#[test]
fn source_and_target_flags_keep_the_partitions_apart() {
    let world = Partitions::new();
    let ami = image(&world);
    // The archive is in one partition, and the image is restored directly to the other.
    world
        .run(&["store", &ami, "s3://images/", "--source-profile", "com", "--target-profile", "gov"])
        .succeeded();
    assert!(
        world.gov.s3.object("images", &format!("{ami}.bin")).is_some()
            && world.com.s3.keys("images").is_empty()
    );
    let object = format!("s3://images/{ami}.bin");
    world
        .run(&["restore", &object, "ec2", "--source-profile", "gov", "--target-profile", "gov"])
        .succeeded();
    assert_eq!(world.gov.aws.images().len(), 1);
    assert_apart(&world);
}

#[test]
fn one_profile_is_for_source_and_target() {
    let world = Partitions::new();
    let ami = image(&world);
    world.run(&["store", &ami, "s3://images/", "--profile", "com"]).succeeded();
    assert!(world.com.s3.object("images", &format!("{ami}.bin")).is_some());
    assert!(world.gov.aws.calls().is_empty());
}

#[test]
fn source_and_target_flags_win_over_common_flags() {
    let world = Partitions::new();
    let ami = image(&world);
    world
        .run(&["store", &ami, "s3://images/", "--profile", "gov", "--source-profile", "com"])
        .succeeded();
    assert!(world.gov.s3.object("images", &format!("{ami}.bin")).is_some());
    assert!(world.com.aws.count("GetSnapshotBlock") > 0 && world.gov.aws.calls().is_empty());
}

#[test]
fn variables_set_the_endpoints_of_services() {
    let world = Partitions::new();
    let ami = image(&world);
    let mut command = world.command(&["store", &ami, "s3://images/"]);
    command
        .env("AWS_ACCESS_KEY_ID", world.com.key.0)
        .env("AWS_SECRET_ACCESS_KEY", world.com.key.1)
        .env("AWS_REGION", world.com.aws.region())
        .env("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        .env("AWS_ENDPOINT_URL_EC2", world.com.aws.endpoint())
        .env("AWS_ENDPOINT_URL_EBS", world.com.aws.endpoint())
        .env("AWS_ENDPOINT_URL_S3", world.com.s3.endpoint());
    outcome(&world, &mut command).succeeded();
    assert!(world.com.s3.object("images", &format!("{ami}.bin")).is_some());
    // Variables win over the endpoints of a profile, for source and target.
    assert!(world.com.aws.calls().iter().any(|call| call.service == "ebs"));
}

#[test]
fn an_endpoint_for_all_services_is_used_for_ec2_and_ebs() {
    let world = Partitions::new();
    let ami = image(&world);
    let mut command = world.command(&[
        "store",
        &ami,
        "a.bin",
        "--source-endpoint-url",
        &world.com.aws.endpoint(),
    ]);
    command
        .env("AWS_ACCESS_KEY_ID", world.com.key.0)
        .env("AWS_SECRET_ACCESS_KEY", world.com.key.1)
        .env("AWS_REGION", world.com.aws.region());
    outcome(&world, &mut command).succeeded();
    let services: std::collections::BTreeSet<&str> =
        world.com.aws.calls().iter().map(|call| call.service).collect();
    assert!(services.into_iter().eq(["ebs", "ec2"]));
}

#[test]
fn keys_of_the_other_partition_are_refused_and_leave_nothing() {
    let world = Partitions::new();
    let ami = image(&world);
    world.run(&["store", &ami, "a.bin", "--source-profile", "com"]).succeeded();
    let mut command = world.command(&[
        "restore",
        "a.bin",
        "ec2",
        "--target-endpoint-url",
        &world.gov.aws.endpoint(),
    ]);
    command
        .env("AWS_ACCESS_KEY_ID", world.com.key.0)
        .env("AWS_SECRET_ACCESS_KEY", world.com.key.1)
        .env("AWS_REGION", world.gov.aws.region());
    outcome(&world, &mut command).failed(4, &["AuthFailure"]);
    assert_eq!((world.gov.aws.images().len(), world.gov.aws.snapshots().len()), (0, 0));
}

/// A profile with a credential process that reads a file.
fn with_process(world: &Partitions, session: &str) {
    let (aws, region) = (world.com.aws.endpoint(), world.com.aws.region());
    renew(world, session);
    let file = world.sandbox.path("session.json").display().to_string();
    let services = format!(
        "services = own\n[services own]\n\
         ec2 =\n  endpoint_url = {aws}\n\
         ebs =\n  endpoint_url = {aws}\n"
    );
    world.sandbox.write(
        "aws-config",
        format!("[profile own]\nregion = {region}\ncredential_process = cat {file}\n{services}"),
    );
}

/// Replaces the session of the credential process.
fn renew(world: &Partitions, session: &str) {
    let (key, token) = (format!("ASIA{session}"), format!("token of {session}"));
    world.com.aws.add_key_of("111122223333", &key, TestAws::SECRET_KEY, Some(&token));
    let credentials = json!({
        "Version": 1,
        "AccessKeyId": key,
        "SecretAccessKey": TestAws::SECRET_KEY,
        "SessionToken": token,
    });
    // By a rename: the credential process may be reading the file.
    world.sandbox.write("session.new", credentials.to_string());
    std::fs::rename(world.sandbox.path("session.new"), world.sandbox.path("session.json"))
        .expect("renamed");
}

#[test]
fn credentials_that_expire_during_a_store_are_renewed() {
    let world = Partitions::new();
    let ami = image(&world);
    with_process(&world, "ONE");
    world.com.aws.set(|settings| settings.latency = std::time::Duration::from_millis(30));
    for (args, at) in [
        (vec!["store", &ami, "a.bin"], "GetSnapshotBlock"),
        (vec!["restore", "a.bin", "ec2", "--name", "new"], "PutSnapshotBlock"),
    ] {
        renew(&world, "ONE");
        world.com.aws.reset_calls();
        let running = world.start(&[&args[..], &["--profile", "own"]].concat());
        wait_until("a block", || world.com.aws.count(at) > 0);
        renew(&world, "TWO");
        world.com.aws.expire_key("ASIAONE");
        running.wait().succeeded();
        let calls = world.com.aws.calls();
        assert!(calls.iter().any(|call| call.access_key.as_deref() == Some("ASIATWO")), "{at}");
    }
}

#[test]
fn a_store_resumes_after_its_credentials_expired() {
    let world = Partitions::new();
    let ami = image(&world);
    with_process(&world, "ONE");
    world.run(&["store", &ami, "a.bin", "--profile", "own"]).succeeded();
    world.com.aws.set(|settings| settings.latency = std::time::Duration::from_millis(30));
    let args = ["restore", "a.bin", "ec2", "--name", "new", "--profile", "own"];
    let running = world.start(&args);
    wait_until("a block", || world.com.aws.count("PutSnapshotBlock") > 0);
    world.com.aws.expire_key("ASIAONE");
    running.wait().failed(4, &["xpire", "continue with: amistore restore"]);
    renew(&world, "TWO");
    world.run(&args).succeeded();
    assert_eq!(world.com.aws.images().len(), 2);
    assert_eq!(world.com.aws.count("StartSnapshot"), 1);
}

#[test]
fn the_account_of_credentials_comes_from_sts() {
    let (aws, s3) = (TestAws::start(), TestS3::start());
    aws.add_key_of("210987654321", "AKIAOTHER", "other", None);
    s3.add_key(TestAws::ACCESS_KEY, TestAws::SECRET_KEY, None);
    let session = Session::new(Arc::new(NullObserver), Cancel::new());
    let retry = RetryPolicy {
        max_attempts: 2,
        base: Duration::from_millis(1),
        cap: Duration::from_millis(1),
    };
    let settings = RequestSettings { retry, ..RequestSettings::default() };
    let account = |endpoint: &str, id: &str, secret: &str| {
        let keys = StaticCredentials {
            access_key_id: id.to_owned(),
            secret_access_key: secret.to_owned(),
            session_token: None,
        };
        let (region, endpoint_url) = (Some(TestAws::REGION.to_owned()), Some(endpoint.to_owned()));
        session.account(
            &Access {
                region,
                endpoint_url,
                credentials: Credentials::Static(keys),
                ..Access::default()
            },
            &settings,
        )
    };
    let own = |endpoint: &str| account(endpoint, TestAws::ACCESS_KEY, TestAws::SECRET_KEY);
    assert_eq!(own(&aws.endpoint()).expect("an account").as_deref(), Some(TestAws::ACCOUNT));
    assert_eq!(
        account(&aws.endpoint(), "AKIAOTHER", "other").expect("an account").as_deref(),
        Some("210987654321")
    );
    // A service without STS answers with an error of its own.
    assert_eq!(own(&s3.endpoint()).expect("an answer without an account"), None);
    // An unreachable service or a refused key may answer later.
    assert_eq!(own("http://127.0.0.1:9").expect_err("no server listens").kind(), ErrorKind::Io);
    assert_eq!(
        account(&aws.endpoint(), TestAws::ACCESS_KEY, "wrong").expect_err("not believed").kind(),
        ErrorKind::Denied
    );
    aws.expire_key(TestAws::ACCESS_KEY);
    assert!(needs_other_credentials(&own(&aws.endpoint()).expect_err("its time is over")));
}
