//! `amistore clean`.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;

use super::super::options::{ArchiveUrl, AwsArgs, Settings, StateArgs, parse_age};
use super::super::output::{Console, cleaned, cleaned_text};
use super::super::remote::Remote;
use crate::base::{Error, Result};
use crate::ops::{self, CleanAccess, CleanOptions};

/// List leftovers of interrupted work, and remove them if asked to
#[derive(Debug, Args)]
#[command(before_help = "\
Example:
  amistore clean                                        # leftovers of interrupted work
  amistore clean --abort                                # abort uploads, remove partial volumes
  amistore clean s3://bucket/prefix/ --others --older-than 7d --abort")]
pub(in super::super) struct CleanArgs {
    /// Look for open uploads here as well: s3://BUCKET or s3://BUCKET/PREFIX
    #[arg(value_name = "STORE")]
    store: Option<PathBuf>,
    /// Abort the uploads and remove the partial volumes that are listed
    #[arg(long)]
    abort: bool,
    /// Also uploads of *.bin below STORE that are not recorded here: another machine may be working
    /// on them
    #[arg(long, requires = "store")]
    others: bool,
    /// Only leftovers of work that began longer ago: 90s, 30m, 12h, 7d
    #[arg(long, value_name = "AGE")]
    older_than: Option<String>,
    #[command(flatten)]
    state: StateArgs,
    #[command(flatten)]
    aws: AwsArgs,
}

pub(super) fn run(args: &CleanArgs, settings: &Settings, console: &Console) -> Result<()> {
    let observer = console.observer();
    let remote = Remote::new(settings, &observer);
    let directory = args.state.directory()?;
    let age = args.older_than.as_deref().map(parse_age).transpose()?;
    let uploads_below = match args.store.as_deref().map(ArchiveUrl::parse).transpose()? {
        None => None,
        Some(ArchiveUrl::S3(location)) => Some(location),
        Some(_) => {
            return Err(Error::usage(
                "uploads are looked for in buckets: s3://BUCKET or s3://BUCKET/PREFIX",
            ));
        }
    };
    let options = CleanOptions {
        began_before: age
            .map(|age| SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH)),
        uploads_below,
        abort: args.abort,
        others: args.others,
    };
    let requests = args.aws.requests()?;
    let (access, settings) = (requests.access, requests.settings);
    let access = CleanAccess { session: remote.session(), settings, access };
    let found = ops::clean(&directory, &options, &access)?;
    drop(observer);
    let leftovers = &found.leftovers;
    console.result(|| cleaned_text(leftovers, args.abort), || cleaned(leftovers, args.abort))?;
    found.failed.map_or(Ok(()), Err)
}
