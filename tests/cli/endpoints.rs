//! Buckets and ARNs for which there is no endpoint: refused before any request, and not as a
//! failure of the network.

use crate::support::cli::{Outcome, Sandbox};

/// Lists a bucket of AWS with credentials that no service sees.
fn list(url: &str) -> Outcome {
    let sandbox = Sandbox::new();
    let mut command = sandbox.command(&["ls", url]);
    command
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .env("AWS_CONFIG_FILE", sandbox.path("none"))
        .env("AWS_SHARED_CREDENTIALS_FILE", sandbox.path("none"))
        .env("AWS_EC2_METADATA_DISABLED", "true");
    sandbox.start(&mut command).wait()
}

#[test]
fn an_arn_without_an_endpoint_is_a_usage_error_without_a_hint_on_the_network() {
    for (arn, cause) in [
        ("arn:aws-cn:s3:cn-north-1:111122223333:accesspoint/ap", "partition"),
        ("arn:aws:s3:us-east-1:1111_2222:accesspoint:ap", "account id"),
    ] {
        let refused = list(&format!("s3://{arn}/")).failed(2, &[cause, "hint: check the name"]);
        assert!(!refused.stderr.contains("network"), "{}", refused.stderr);
    }
}

#[test]
fn arns_of_buckets_and_of_several_regions_are_refused_with_what_helps() {
    list("s3://arn:aws:s3:::bucket/key").failed(2, &["a bucket is given by its name"]);
    list("s3://arn:aws:s3::111122223333:accesspoint/m.mrap/").failed(8, &["SigV4A"]);
}
