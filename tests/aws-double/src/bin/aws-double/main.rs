//! The EC2, the EBS and the S3 of the tests as a program, for scripts, other tools and benchmarks.
//!
//! ```text
//! cargo build --release -p amistore-aws-double
//! target/release/aws-double [--s3] [--together]
//!     [--server REGION[,ACCOUNT[,ACCESS_KEY,SECRET_KEY]]]...
//! ```
//!
//! It starts a server for each `--server` (one in us-east-1 if there is none), with `--s3` an S3
//! for the store tasks of each, and prints one line of JSON: the endpoints of the servers and of
//! the admin interface, and the environment variables for AWS tools. With `--together` all servers
//! have one endpoint and one S3. It ends with its standard input. `admin` has the requests of the
//! admin interface.

mod admin;
mod bodies;

use std::error::Error;
use std::io::Read as _;
use std::sync::Arc;

use amistore_aws_double::aws::TestAws;
use amistore_aws_double::s3::TestS3;
use serde_json::{Value, json};

/// The servers of one Region.
pub struct Region {
    /// Its EC2 and EBS.
    pub aws: TestAws,
    /// Its S3, with `--s3`.
    pub s3: Option<Arc<TestS3>>,
    access_key: String,
    secret_key: String,
}

impl Region {
    fn start(description: &str, s3: Option<Arc<TestS3>>) -> Result<Self, String> {
        let words: Vec<&str> = description.split(',').collect();
        let (region, account, keys) = match words.as_slice() {
            [region] => (*region, TestAws::ACCOUNT, None),
            [region, account] => (*region, *account, None),
            [region, account, access_key, secret_key] => {
                (*region, *account, Some((*access_key, *secret_key)))
            }
            _ => {
                return Err(format!(
                    "--server takes REGION[,ACCOUNT[,ACCESS_KEY,SECRET_KEY]], and not {description}"
                ));
            }
        };
        let mut builder = TestAws::builder().region(region).account(account);
        if let Some(s3) = &s3 {
            builder = builder.buckets(s3.buckets());
        }
        let aws = builder.start();
        let (access_key, secret_key) = keys.unwrap_or((TestAws::ACCESS_KEY, TestAws::SECRET_KEY));
        aws.add_key(access_key, secret_key, None);
        // One key for everything, as it is with AWS.
        s3.iter().for_each(|s3| s3.add_key(access_key, secret_key, None));
        Ok(Self { aws, s3, access_key: access_key.to_owned(), secret_key: secret_key.to_owned() })
    }

    fn describe(&self, endpoint: &str) -> Value {
        let region = self.aws.region();
        let s3 = self.s3.as_ref().map(|s3| s3.endpoint());
        let mut environment = json!({
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        });
        if let Some(s3) = &s3 {
            environment["AWS_ENDPOINT_URL_S3"] = s3.clone().into();
        }
        json!({
            "endpoint": endpoint,
            "region": region,
            "account": self.aws.account(),
            "s3": s3,
            "environment": environment,
        })
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (mut with_s3, mut together, mut descriptions) = (false, false, Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--s3" => with_s3 = true,
            "--together" => together = true,
            "--server" => descriptions.push(arguments.next().ok_or("--server needs a Region")?),
            other => return Err(format!("there is no option {other}").into()),
        }
    }
    if descriptions.is_empty() {
        descriptions.push(TestAws::REGION.to_owned());
    }
    let start_s3 = || with_s3.then(|| Arc::new(TestS3::start()));
    let shared_s3 = together.then(start_s3).flatten();
    let regions = descriptions
        .iter()
        .map(|description| Region::start(description, shared_s3.clone().or_else(start_s3)))
        .collect::<Result<Vec<_>, _>>()?;
    if together {
        TestAws::together(&regions.iter().map(|region| &region.aws).collect::<Vec<_>>());
    }
    let regions = Arc::new(regions);
    let admin = admin::start(Arc::clone(&regions));
    let servers: Vec<Value> = regions
        .iter()
        .map(|region| match together {
            true => region.describe(&regions[0].aws.endpoint()),
            false => region.describe(&region.aws.endpoint()),
        })
        .collect();
    println!("{}", json!({ "admin": admin.endpoint(), "servers": servers }));
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest)?;
    Ok(())
}
