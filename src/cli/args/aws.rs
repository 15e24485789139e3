//! Arguments about AWS and S3, shared by several commands.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in super::super) enum AddressingForm {
    Auto,
    Path,
    Virtual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in super::super) enum TierForm {
    Expedited,
    Standard,
    Bulk,
}

#[derive(Debug, Default, Args)]
#[command(
    next_help_heading = "AWS options (for s3:// places; every AWS_* variable of the AWS CLI is honoured, too)"
)]
pub(in super::super) struct AwsArgs {
    /// The Region
    #[arg(long, value_name = "REGION")]
    pub(in super::super) region: Option<String>,
    /// A profile of ~/.aws/config and ~/.aws/credentials
    #[arg(long, value_name = "NAME")]
    pub(in super::super) profile: Option<String>,
    /// Another endpoint, such as http://127.0.0.1:9000
    #[arg(long, value_name = "URL")]
    pub(in super::super) endpoint_url: Option<String>,
    #[command(flatten)]
    pub(in super::super) link: LinkArgs,
}

#[derive(Clone, Debug, Default, Args)]
pub(in super::super) struct LinkArgs {
    /// Do not sign requests: for buckets that are open to all
    #[arg(long)]
    pub(in super::super) no_sign_request: bool,
    /// Where the bucket goes in URLs; auto: into the path with an endpoint URL, else into the host
    /// name
    #[arg(long, value_name = "STYLE", default_value = "auto")]
    pub(in super::super) addressing_style: Option<AddressingForm>,
    /// The account that has to own the bucket (of a copy: the one that is written to)
    #[arg(long, value_name = "ACCOUNT")]
    pub(in super::super) expected_bucket_owner: Option<String>,
    /// Agree to pay for requests to buckets of others
    #[arg(long)]
    pub(in super::super) request_payer: bool,
    /// Send and receive at most so many bytes a second; bytes, or with KiB, MiB, GiB
    #[arg(long, value_name = "SIZE", env = "AMISTORE_LIMIT_RATE", hide_env_values = true)]
    pub(in super::super) limit_rate: Option<String>,
    /// Attempts of each request [default: AWS_MAX_ATTEMPTS, else 10]
    #[arg(long, value_name = "N")]
    pub(in super::super) max_attempts: Option<u32>,
    /// Seconds that making a connection may take
    #[arg(long, value_name = "SECONDS", default_value = "10")]
    pub(in super::super) connect_timeout: Option<u64>,
    /// Seconds that a request may be silent: no byte moved, no answer
    #[arg(long, value_name = "SECONDS", default_value = "60")]
    pub(in super::super) read_timeout: Option<u64>,
}

/// Two sides, each with credentials of its own.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "AWS options (every AWS_* variable of the AWS CLI is honoured, too)")]
pub(in super::super) struct SidesArgs {
    /// The profile to read with
    #[arg(long, value_name = "NAME")]
    pub(in super::super) source_profile: Option<String>,
    /// The Region to read from
    #[arg(long, value_name = "REGION")]
    pub(in super::super) source_region: Option<String>,
    /// The endpoint to read from
    #[arg(long, value_name = "URL")]
    pub(in super::super) source_endpoint_url: Option<String>,
    /// The account that has to own the bucket that is read from
    #[arg(long, value_name = "ACCOUNT")]
    pub(in super::super) source_expected_bucket_owner: Option<String>,
    /// The profile to write with
    #[arg(long, value_name = "NAME")]
    pub(in super::super) target_profile: Option<String>,
    /// The Region to write to
    #[arg(long, value_name = "REGION")]
    pub(in super::super) target_region: Option<String>,
    /// The endpoint to write to
    #[arg(long, value_name = "URL")]
    pub(in super::super) target_endpoint_url: Option<String>,
    /// The profile of both sides, where they have none of their own
    #[arg(long, value_name = "NAME")]
    pub(in super::super) profile: Option<String>,
    /// The Region of both sides, where they have none of their own
    #[arg(long, value_name = "REGION")]
    pub(in super::super) region: Option<String>,
    /// The endpoint of both sides, where they have none of their own
    #[arg(long, value_name = "URL")]
    pub(in super::super) endpoint_url: Option<String>,
    #[command(flatten)]
    pub(in super::super) link: LinkArgs,
}

/// What an object in S3 gets.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Object in S3")]
pub(in super::super) struct ObjectArgs {
    /// Such as STANDARD_IA, GLACIER_IR, DEEP_ARCHIVE [default: that of the bucket]
    #[arg(long, value_name = "CLASS")]
    pub(in super::super) storage_class: Option<String>,
    /// Encryption by the service: AES256, aws:kms, aws:kms:dsse [default: that of the bucket]
    #[arg(long, value_name = "KIND")]
    pub(in super::super) sse: Option<String>,
    /// The key of aws:kms
    #[arg(long, value_name = "KEY", requires = "sse")]
    pub(in super::super) sse_kms_key_id: Option<String>,
    /// A tag of the object; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(in super::super) s3_object_tag: Vec<String>,
    /// Checksum that travels with every part: CRC64NVME, CRC32C, CRC32, SHA256, MD5 [default:
    /// CRC64NVME; MD5 for volumes that are stored side by side]
    #[arg(long, value_name = "NAME")]
    pub(in super::super) checksum_algorithm: Option<String>,
    /// Size of parts, 5MiB to 5GiB [default: as small as 10,000 of them allow, from 8 MiB]
    #[arg(long, value_name = "SIZE", env = "AMISTORE_PART_SIZE", hide_env_values = true)]
    pub(in super::super) part_size: Option<String>,
    /// Write to a bucket although everybody may read it
    #[arg(long)]
    pub(in super::super) allow_public_bucket: bool,
}

/// How interrupted work is continued.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Resume")]
pub(in super::super) struct ResumeArgs {
    /// Where unfinished work is remembered [default: $XDG_STATE_HOME/amistore, else
    /// ~/.local/state/amistore]
    #[arg(long, value_name = "DIR", env = "AMISTORE_STATE", hide_env_values = true)]
    pub(in super::super) state: Option<PathBuf>,
    /// Begin anew although there is something to continue
    #[arg(long)]
    pub(in super::super) restart: bool,
}

/// What is done about objects in an archive tier.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Archive tiers")]
pub(in super::super) struct ThawArgs {
    /// Ask for a readable copy of an object in GLACIER or DEEP_ARCHIVE: expedited (minutes),
    /// standard (hours), bulk (cheapest)
    #[arg(long, value_name = "TIER")]
    pub(in super::super) thaw: Option<TierForm>,
    /// Days that the readable copy stays
    #[arg(long, value_name = "DAYS", default_value = "7", requires = "thaw")]
    pub(in super::super) thaw_days: Option<u32>,
    /// Wait until it is there, and go on
    #[arg(long, requires = "thaw")]
    pub(in super::super) wait: bool,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value = "60", hide = true)]
    pub(in super::super) thaw_poll: Option<u64>,
}
