//! Options of EC2 and EBS.

use std::time::Duration;

use clap::Args;

use crate::base::{Error, Result};

/// Options of the requests that read and write blocks of EBS.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "EC2")]
pub(in super::super) struct EbsArgs {
    /// Blocks a second that the account may read or write by the EBS direct APIs [default: 5000 in
    /// the five largest Regions, else 1000]
    #[arg(long, value_name = "N")]
    ebs_account_rate: Option<u32>,
}

/// Options of EC2 on either side.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "EC2")]
pub(in super::super) struct Ec2Args {
    /// Let AWS's own store and restore tasks do the work, and follow them to their end. Their
    /// objects can only be restored by AWS
    #[arg(long)]
    pub(in super::super) via_aws: bool,
    #[command(flatten)]
    pub(in super::super) ebs: EbsArgs,
    /// Poll interval of tasks of AWS in seconds
    #[arg(long, value_name = "SECONDS", default_value = "10", hide = true)]
    task_poll: Option<u64>,
}

impl EbsArgs {
    /// The account's quota of blocks a second, if it is not that of the Region.
    pub(in super::super) fn account_rate(&self) -> Result<Option<u32>> {
        match self.ebs_account_rate {
            Some(0) => Err(Error::usage("--ebs-account-rate has to be more than 0")),
            rate => Ok(rate),
        }
    }
}

impl Ec2Args {
    /// The poll interval of tasks of AWS.
    pub(in super::super) fn poll_interval(&self) -> Duration {
        Duration::from_secs(self.task_poll.unwrap_or(10))
    }
}
