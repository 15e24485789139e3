//! Options of objects in an archive tier.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::aws::s3::{Thaw, ThawTier};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TierForm {
    Expedited,
    Standard,
    Bulk,
}

/// Options of an archive that may be in an archive tier.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Archive tiers")]
pub(in super::super) struct ThawArgs {
    /// Ask for a readable copy of an object in GLACIER or DEEP_ARCHIVE: expedited (minutes),
    /// standard (hours), bulk (cheapest)
    #[arg(long, value_name = "TIER")]
    thaw: Option<TierForm>,
    /// Days that the readable copy stays
    #[arg(long, value_name = "DAYS", default_value = "7", requires = "thaw")]
    thaw_days: Option<u32>,
    /// Wait until it can be read, and go on
    #[arg(long, requires = "thaw")]
    wait: bool,
    /// Poll interval in seconds
    #[arg(long, value_name = "SECONDS", default_value = "60", hide = true)]
    thaw_poll: Option<u64>,
}

impl ThawArgs {
    /// The thaw that is asked for.
    pub(in super::super) fn thaw(&self) -> Option<Thaw> {
        let tier = match self.thaw? {
            TierForm::Expedited => ThawTier::Expedited,
            TierForm::Standard => ThawTier::Standard,
            TierForm::Bulk => ThawTier::Bulk,
        };
        let poll = Duration::from_secs(self.thaw_poll.unwrap_or(60).max(1));
        Some(Thaw { tier, days: self.thaw_days.unwrap_or(7).max(1), wait: self.wait, poll })
    }
}
