//! Arguments about images and snapshots in EC2.

use std::path::PathBuf;

use clap::Args;

use super::SidesArgs;

/// How blocks of EBS are read and written.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "EC2")]
pub(in super::super) struct EbsArgs {
    /// Blocks a second that the account may read or write by the EBS direct APIs [default: 5000 in
    /// the five largest Regions, else 1000]
    #[arg(long, value_name = "N")]
    pub(in super::super) ebs_account_rate: Option<u32>,
}

/// How EC2 is used, on either side.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "EC2")]
pub(in super::super) struct Ec2Args {
    /// Let AWS's own store and restore tasks do the work, and follow them to their end. Their
    /// objects can only be restored by AWS
    #[arg(long)]
    pub(in super::super) via_aws: bool,
    #[command(flatten)]
    pub(in super::super) ebs: EbsArgs,
    /// Seconds between two looks at a task of AWS
    #[arg(long, value_name = "SECONDS", default_value = "10", hide = true)]
    pub(in super::super) task_poll: Option<u64>,
}

/// What is to be different of an image that is restored to EC2.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "The new image (with the target ec2)")]
pub(in super::super) struct EditArgs {
    /// Another name [default: the recorded one]
    #[arg(long, value_name = "NAME")]
    pub(in super::super) name: Option<String>,
    /// Another description; empty for none
    #[arg(long, value_name = "TEXT")]
    pub(in super::super) description: Option<String>,
    /// One more tag of image and snapshots, or another value; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(in super::super) tag: Vec<String>,
    /// Leave the recorded tags away
    #[arg(long)]
    pub(in super::super) no_tags: bool,
    /// Another volume type, of all volumes or of one: gp3, /dev/sdb=io2; may be repeated
    #[arg(long, value_name = "[DEVICE=]TYPE")]
    pub(in super::super) volume_type: Vec<String>,
    /// I/O operations a second, of all volumes or of one
    #[arg(long, value_name = "[DEVICE=]N")]
    pub(in super::super) iops: Vec<String>,
    /// MiB a second (gp3), of all volumes or of one
    #[arg(long, value_name = "[DEVICE=]N")]
    pub(in super::super) throughput: Vec<String>,
    /// GiB, not less than the snapshot has, of all volumes or of one
    #[arg(long, value_name = "[DEVICE=]GIB")]
    pub(in super::super) volume_size: Vec<String>,
    /// Whether the volume goes with its instance: true or false, of all volumes or of one
    #[arg(long, value_name = "[DEVICE=]BOOL")]
    pub(in super::super) delete_on_termination: Vec<String>,
    /// Another boot mode
    #[arg(long, value_name = "MODE", value_parser = ["legacy-bios", "uefi", "uefi-preferred"])]
    pub(in super::super) boot_mode: Option<String>,
    /// Have instances use IMDSv2
    #[arg(long, value_name = "VERSION", value_parser = ["v2.0"])]
    pub(in super::super) imds_support: Option<String>,
    /// Encrypt the snapshots [default: as the account does by default]
    #[arg(long)]
    pub(in super::super) encrypted: bool,
    /// ARN of the key to encrypt the snapshots with
    #[arg(long, value_name = "ARN")]
    pub(in super::super) kms_key_id: Option<String>,
    /// Give the recorded launch permissions
    #[arg(long)]
    pub(in super::super) launch_permissions: bool,
    /// Deprecate the image at the recorded time
    #[arg(long)]
    pub(in super::super) deprecation: bool,
    /// Protect the image against deregistration if that was recorded
    #[arg(long)]
    pub(in super::super) deregistration_protection: bool,
    /// Make snapshots only, and register no image
    #[arg(long)]
    pub(in super::super) snapshots_only: bool,
}

/// Take an image in EC2 out of service, after its archive was compared with it
#[derive(Debug, Args)]
#[command(
    before_help = "Example:\n  amistore retire ami-0123456789abcdef0 --archive s3://bucket/prefix/ --disable\n  amistore retire ami-0123456789abcdef0 --archive s3://bucket/ --deregister --delete-snapshots --yes",
    group = clap::ArgGroup::new("action").required(true).args(["deprecate", "disable", "deregister"])
)]
pub(in super::super) struct RetireArgs {
    /// The image
    #[arg(value_name = "AMI")]
    pub(in super::super) image: String,
    /// Its archive: a file or s3://BUCKET/KEY; a directory or s3://BUCKET/PREFIX/ stands for
    /// <ami-id>.bin in it
    #[arg(long, value_name = "ARCHIVE")]
    pub(in super::super) archive: PathBuf,
    /// Hide it from others from this time on (RFC 3339), or from in a few minutes; it can still be
    /// launched
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "now")]
    pub(in super::super) deprecate: Option<String>,
    /// Forbid launches; its launch permissions are lost. It can be enabled again
    #[arg(long)]
    pub(in super::super) disable: bool,
    /// Delete it
    #[arg(long)]
    pub(in super::super) deregister: bool,
    /// Delete its snapshots, too, except those that other images use
    #[arg(long, requires = "deregister")]
    pub(in super::super) delete_snapshots: bool,
    /// Do it without asking
    #[arg(long, short)]
    pub(in super::super) yes: bool,
    /// Compare, print what would be done, and do nothing
    #[arg(long)]
    pub(in super::super) dry_run: bool,
    #[command(flatten)]
    pub(in super::super) ebs: EbsArgs,
    #[command(flatten)]
    pub(in super::super) sides: SidesArgs,
}
