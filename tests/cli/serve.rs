//! Configurations that `amistore serve` refuses before it listens.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::cli::Sandbox;

#[test]
fn an_open_address_without_keys_and_tls_is_refused() {
    let sandbox = Sandbox::new();
    let words = ["others can reach this address", "--access-keys, --tls-cert and --tls-key"];
    sandbox.run(&["serve", "--listen", "0.0.0.0:0"]).failed(2, &words);
    sandbox.run(&["serve", "--listen", "[::]:0"]).failed(2, &words);
    sandbox.run(&["serve", "--listen", "localhost"]).failed(2, &["--listen"]);
    sandbox.run(&["serve", "--tls-cert", "x"]).failed(2, &["--tls-key"]);
}

#[test]
fn secrets_that_other_users_may_read_are_refused() {
    let sandbox = Sandbox::new()
        .and("keys", "[a]\naws_access_key_id=a\naws_secret_access_key=b\n")
        .and("password", "\n");
    fs::set_permissions(sandbox.path("keys"), fs::Permissions::from_mode(0o644)).expect("a mode");
    sandbox.run(&["serve", "--access-keys", "keys"]).failed(4, &["others may read", "chmod 600"]);
    fs::set_permissions(sandbox.path("password"), fs::Permissions::from_mode(0o600))
        .expect("a mode");
    sandbox
        .run(&["serve", "--status-password-file", "password"])
        .failed(2, &["the password is empty"]);
    sandbox
        .run(&["serve", "--access-keys", "nowhere"])
        .failed(3, &["cannot read the file of access keys"]);
}

#[test]
fn a_server_does_not_forward_to_itself() {
    let sandbox = Sandbox::new();
    for url in ["http://127.0.0.1:8673", "http://localhost:8673/", "http://[::1]:8673"] {
        let outcome = sandbox.shell(&format!(
            "AWS_ENDPOINT_URL_EC2={url} \"$AMISTORE\" serve --forward --region us-east-1"
        ));
        outcome.failed(2, &["this server itself", "AWS_ENDPOINT_URL_EC2"]);
    }
}

#[test]
fn options_that_do_not_fit_the_regions_are_refused() {
    let sandbox = Sandbox::new();
    let refused = |more: &[&str], words: &[&str]| {
        let serve = ["serve", "--listen", "127.0.0.1:0", "--state", "state"];
        sandbox.run(&[&serve[..], more].concat()).failed(2, words);
    };
    refused(&["--serve-region", "us-east-1,us east"], &["not a Region"]);
    let two = ["--serve-region", "us-east-1,eu-west-1"];
    let key = |region: &str| format!("arn:aws:kms:{region}:123456789012:key/a");
    let (here, there) = (key("us-east-1"), key("eu-west-1"));
    refused(
        &[&two[..], &["--kms-key-id", &here]].concat(),
        &["belongs to one Region", "eu-west-1"],
    );
    let twice = [&two[..], &["--kms-key-id", &here, "--kms-key-id", &there]].concat();
    refused(&[&twice[..], &["--kms-key-id", &here]].concat(), &["two keys of one Region"]);
    refused(&[&two[..], &["--kms-key-id", "alias/web"]].concat(), &["has to be the ARN"]);
    refused(&[&two[..], &["--tag", "web"]].concat(), &["--tag", "KEY=VALUE"]);
    refused(&["--encrypted", "--allow-unencrypted"], &["--allow-unencrypted"]);
    assert!(!sandbox.path("state").exists(), "nothing is begun");
}
