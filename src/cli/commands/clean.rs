//! `amistore clean`.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;

use super::super::options::{ArchiveUrl, AwsArgs, Settings, StateArgs, parse_age};
use super::super::output::{Console, cleaned, cleaned_text};
use super::super::remote::Remote;
use crate::base::{Error, Result};
use crate::localfs::is_directory;
use crate::ops::{self, CleanAccess, CleanOptions};

/// List leftovers of interrupted work, and remove them if asked to
#[derive(Debug, Args)]
#[command(before_help = "\
Example:
  amistore clean                                        # leftovers of interrupted work
  amistore clean --abort                                # abort uploads, remove partial files
  amistore clean archives/ --others --abort             # partial files that no run here recorded
  amistore clean s3://bucket/prefix/ --others --older-than 7d --abort")]
pub(in super::super) struct CleanArgs {
    /// Look here as well: for open uploads in s3://BUCKET or s3://BUCKET/PREFIX, for partial files
    /// in a directory
    #[arg(value_name = "STORE")]
    store: Option<PathBuf>,
    /// Abort the uploads and remove the partial volumes and files that are listed
    #[arg(long)]
    abort: bool,
    /// Also uploads of *.bin below STORE, and partial files in STORE, that are not recorded here:
    /// another machine may be working on the uploads
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
    let (mut uploads_below, mut files_in) = (None, None);
    match args.store.as_deref().map(ArchiveUrl::parse).transpose()? {
        None => {}
        Some(ArchiveUrl::S3(location)) => uploads_below = Some(location),
        Some(ArchiveUrl::Path(path)) if is_directory(&path)? => files_in = Some(path),
        Some(_) => {
            return Err(Error::usage(
                "leftovers are looked for in buckets and directories: s3://BUCKET, \
                 s3://BUCKET/PREFIX or DIRECTORY",
            ));
        }
    }
    // The paths of recorded runs are absolute.
    let files_in = files_in.map(|path| std::path::absolute(&path).unwrap_or(path));
    let options = CleanOptions {
        began_before: age
            .map(|age| SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH)),
        uploads_below,
        files_in,
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
