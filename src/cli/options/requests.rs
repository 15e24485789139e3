//! Options of requests to AWS: profile, Region, endpoint, retries, limits.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::values::parse_size;
use crate::aws::{Access, Addressing, Credentials, RequestSettings, RetryPolicy};
use crate::base::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AddressingForm {
    Auto,
    Path,
    Virtual,
}

/// Options of commands that use one service.
#[derive(Debug, Default, Args)]
#[command(
    next_help_heading = "AWS options (for s3:// URLs; every AWS_* variable of the AWS CLI is \
                         honoured, too)"
)]
pub(in super::super) struct AwsArgs {
    /// The Region
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// A profile of ~/.aws/config and ~/.aws/credentials
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Another endpoint, such as http://127.0.0.1:9000
    #[arg(long, value_name = "URL")]
    endpoint_url: Option<String>,
    #[command(flatten)]
    requests: RequestArgs,
}

/// Options of all requests of a command.
#[derive(Clone, Debug, Default, Args)]
pub(in super::super) struct RequestArgs {
    /// Do not sign requests: for buckets that are open to all
    #[arg(long)]
    no_sign_request: bool,
    /// Where the bucket goes in URLs; auto: into the path with an endpoint URL, else into the host
    /// name
    #[arg(long, value_name = "STYLE", default_value = "auto")]
    addressing_style: Option<AddressingForm>,
    /// The account that has to own the bucket (of a copy: the one that is written to)
    #[arg(long, value_name = "ACCOUNT")]
    expected_bucket_owner: Option<String>,
    /// Agree to pay for requests to buckets of others
    #[arg(long)]
    request_payer: bool,
    /// Bandwidth limit in bytes a second; bytes, or with KiB, MiB, GiB
    #[arg(long, value_name = "SIZE", env = "AMISTORE_LIMIT_RATE", hide_env_values = true)]
    limit_rate: Option<String>,
    /// Attempts of each request [default: AWS_MAX_ATTEMPTS, else 10]
    #[arg(long, value_name = "N")]
    max_attempts: Option<u32>,
    /// Seconds that making a connection may take
    #[arg(long, value_name = "SECONDS", default_value = "10")]
    connect_timeout: Option<u64>,
    /// Idle timeout of a request in seconds: no byte sent or received, no answer
    #[arg(long, value_name = "SECONDS", default_value = "60")]
    read_timeout: Option<u64>,
}

/// Options of commands that read from one side and write to another, each with credentials of its
/// own.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "AWS options (every AWS_* variable of the AWS CLI is honoured, too)")]
pub(in super::super) struct SidesArgs {
    /// The profile to read with
    #[arg(long, value_name = "NAME")]
    source_profile: Option<String>,
    /// The Region to read from
    #[arg(long, value_name = "REGION")]
    source_region: Option<String>,
    /// The endpoint to read from
    #[arg(long, value_name = "URL")]
    source_endpoint_url: Option<String>,
    /// The account that has to own the bucket that is read from
    #[arg(long, value_name = "ACCOUNT")]
    source_expected_bucket_owner: Option<String>,
    /// The profile to write with
    #[arg(long, value_name = "NAME")]
    target_profile: Option<String>,
    /// The Region to write to
    #[arg(long, value_name = "REGION")]
    target_region: Option<String>,
    /// The endpoint to write to
    #[arg(long, value_name = "URL")]
    target_endpoint_url: Option<String>,
    /// The profile of both sides, where they have none of their own
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// The Region of both sides, where they have none of their own
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// The endpoint of both sides, where they have none of their own
    #[arg(long, value_name = "URL")]
    endpoint_url: Option<String>,
    #[command(flatten)]
    requests: RequestArgs,
}

/// Credentials and settings of the requests to one service.
pub(in super::super) struct Requests {
    /// Profile, Region, endpoint and credentials.
    pub(in super::super) access: Access,
    /// Retries, timeouts, limits and the owner of the bucket.
    pub(in super::super) settings: RequestSettings,
}

impl AwsArgs {
    /// The requests of the command.
    pub(in super::super) fn requests(&self) -> Result<Requests> {
        let access = self.requests.access(Access {
            profile: self.profile.clone(),
            region: self.region.clone(),
            endpoint_url: self.endpoint_url.clone(),
            ..Access::default()
        });
        Ok(Requests { access, settings: self.requests.settings()? })
    }
}

impl SidesArgs {
    /// The requests of the source; `--source-expected-bucket-owner` names the owner of its bucket.
    pub(in super::super) fn source(&self) -> Result<Requests> {
        let settings = RequestSettings {
            expected_bucket_owner: self.source_expected_bucket_owner.clone(),
            ..self.requests.settings()?
        };
        Ok(Requests { access: self.source_access(), settings })
    }

    /// The requests of the source of a command with one bucket: either option names its owner.
    pub(in super::super) fn only_bucket(&self) -> Result<Requests> {
        let settings = self.requests.settings()?;
        let owner =
            self.source_expected_bucket_owner.clone().or(settings.expected_bucket_owner.clone());
        let settings = RequestSettings { expected_bucket_owner: owner, ..settings };
        Ok(Requests { access: self.source_access(), settings })
    }

    /// These options at another Region, or with another profile, or both. The bucket side follows,
    /// unless it has a profile or a Region of its own; a profile brings its own Region.
    pub(in super::super) fn at(&self, profile: Option<&str>, region: Option<&str>) -> Self {
        let mut sides = self.clone();
        let own = |text: &str| Some(text.to_owned());
        let has_bucket_profile = self.target_profile.is_some();
        if let Some(profile) = profile {
            (sides.source_profile, sides.source_region) = (own(profile), None);
            if !has_bucket_profile {
                (sides.target_profile, sides.target_region) = (own(profile), None);
            }
        }
        if let Some(region) = region {
            sides.source_region = own(region);
            if !has_bucket_profile && sides.target_region.is_none() {
                sides.target_region = own(region);
            }
        }
        sides
    }

    /// The requests of the target.
    pub(in super::super) fn target(&self) -> Result<Requests> {
        let side = (&self.target_profile, &self.target_region, &self.target_endpoint_url);
        Ok(Requests { access: self.access(side), settings: self.requests.settings()? })
    }

    fn source_access(&self) -> Access {
        self.access((&self.source_profile, &self.source_region, &self.source_endpoint_url))
    }

    /// Profile, Region and endpoint of a side, else those of both.
    fn access(
        &self,
        (profile, region, endpoint_url): (&Option<String>, &Option<String>, &Option<String>),
    ) -> Access {
        self.requests.access(Access {
            profile_region_first: profile.is_some(),
            profile: profile.clone().or_else(|| self.profile.clone()),
            region: region.clone().or_else(|| self.region.clone().filter(|_| profile.is_none())),
            endpoint_url: endpoint_url.clone().or_else(|| self.endpoint_url.clone()),
            ..Access::default()
        })
    }
}

impl RequestArgs {
    fn settings(&self) -> Result<RequestSettings> {
        // As other AWS tools do: a variable that is no number is ignored.
        let variable =
            || std::env::var("AWS_MAX_ATTEMPTS").ok().and_then(|value| value.trim().parse().ok());
        let max_attempts =
            self.max_attempts.or_else(variable).unwrap_or(RetryPolicy::default().max_attempts);
        let limit_rate = self.limit_rate.as_deref().map(parse_size).transpose()?;
        if max_attempts == 0 || limit_rate == Some(0) {
            return Err(Error::usage("--max-attempts and --limit-rate have to be more than 0"));
        }
        Ok(RequestSettings {
            retry: RetryPolicy { max_attempts, ..RetryPolicy::default() },
            idle_timeout: Duration::from_secs(self.read_timeout.unwrap_or(60).max(1)),
            limit_rate,
            expected_bucket_owner: self.expected_bucket_owner.clone(),
            request_payer: self.request_payer,
        })
    }

    fn access(&self, access: Access) -> Access {
        Access {
            addressing: match self.addressing_style {
                None | Some(AddressingForm::Auto) => Addressing::Auto,
                Some(AddressingForm::Path) => Addressing::Path,
                Some(AddressingForm::Virtual) => Addressing::Virtual,
            },
            credentials: if self.no_sign_request {
                Credentials::Anonymous
            } else {
                Credentials::Chain
            },
            connect_timeout: self
                .connect_timeout
                .map(|seconds| Duration::from_secs(seconds.max(1))),
            ..access
        }
    }
}
