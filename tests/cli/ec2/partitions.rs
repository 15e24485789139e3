//! Two separate partitions, each with its EC2, EBS and S3, its account and its credentials.

use std::process::Command;

use amistore_aws_double::aws::TestAws;
use amistore_aws_double::s3::{BucketOptions, TestS3};
use serde_json::Value;

use crate::support::cli::{Outcome, Running, Sandbox};

/// The bucket of each partition.
pub const BUCKET: &str = "images";

/// One partition.
pub struct Partition {
    pub aws: TestAws,
    pub s3: TestS3,
    /// Access key and secret.
    pub key: (&'static str, &'static str),
}

impl Partition {
    fn new(region: &str, account: &str, key: (&'static str, &'static str)) -> Self {
        let s3 = TestS3::start();
        let aws = TestAws::builder().region(region).account(account).buckets(s3.buckets()).start();
        aws.add_key_of(account, key.0, key.1, None);
        s3.create_bucket_with(
            BUCKET,
            BucketOptions { region: region.to_owned(), ..BucketOptions::default() },
        );
        s3.set_min_part_size(1);
        s3.add_key(key.0, key.1, None);
        Self { aws, s3, key }
    }
}

/// Both partitions, and a sandbox with a profile for each.
pub struct Partitions {
    pub com: Partition,
    pub gov: Partition,
    pub sandbox: Sandbox,
}

impl Partitions {
    pub fn new() -> Self {
        let com = Partition::new(
            "eu-central-1",
            "111122223333",
            ("AKIACOMCOMCOMCOMCOM1", "commercial/secret+commercial/secret+comm"),
        );
        let gov = Partition::new(
            "us-gov-west-1",
            "444455556666",
            ("AKIAGOVGOVGOVGOVGOV1", "government/secret+government/secret+gove"),
        );
        let sandbox = Sandbox::new();
        let (mut config, mut credentials) = (String::new(), String::new());
        for (name, side) in [("com", &com), ("gov", &gov)] {
            let (aws, s3, region) = (side.aws.endpoint(), side.s3.endpoint(), side.aws.region());
            config += &format!(
                "[profile {name}]\nregion = {region}\nservices = {name}\n[services {name}]\n"
            );
            for (service, url) in [("ec2", &aws), ("ebs", &aws), ("s3", &s3)] {
                config += &format!("{service} =\n  endpoint_url = {url}\n");
            }
            credentials += &format!(
                "[{name}]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
                side.key.0, side.key.1
            );
        }
        sandbox.write("aws-config", config);
        sandbox.write("aws-credentials", credentials);
        Self { com, gov, sandbox }
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.sandbox.command(args);
        command
            .env("AWS_CONFIG_FILE", self.sandbox.path("aws-config"))
            .env("AWS_SHARED_CREDENTIALS_FILE", self.sandbox.path("aws-credentials"))
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AMISTORE_STATE", self.sandbox.path("state"));
        command
    }

    pub fn start(&self, args: &[&str]) -> Running {
        self.sandbox.start(&mut self.command(args))
    }

    pub fn run(&self, args: &[&str]) -> Outcome {
        self.start(args).wait()
    }

    pub fn json(&self, args: &[&str]) -> Value {
        self.run(&[args, &["--output", "json"]].concat()).succeeded().json()
    }
}
