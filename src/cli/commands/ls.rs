//! `amistore ls`.

use std::path::PathBuf;

use clap::Args;

use super::super::options::{ArchiveUrl, AwsArgs, Settings, located};
use super::super::output::{Console, listed, listed_text};
use super::super::remote::Remote;
use crate::aws::s3::ObjectOptions;
use crate::base::{Error, Result};
use crate::object::{Listed, ObjectStore};
use crate::ops;

/// List the archives in a bucket or directory
#[derive(Debug, Args)]
#[command(before_help = "\
Example:
  amistore ls s3://bucket/prefix/
  amistore ls archives/ --output json | jq '.Archives[].AmiName'")]
pub(in super::super) struct LsArgs {
    /// s3://BUCKET, s3://BUCKET/PREFIX, or a directory
    #[arg(value_name = "STORE")]
    store: PathBuf,
    #[command(flatten)]
    aws: AwsArgs,
}

pub(super) fn run(args: &LsArgs, settings: &Settings, console: &Console) -> Result<()> {
    let observer = console.observer();
    // Line by line, so that a list of any length takes the memory of a page.
    let mut lines = console.lines("Archives");
    let mut found = |found: Listed| lines.item(|| listed_text(&found), || listed(&found));
    match ArchiveUrl::parse(&args.store)? {
        ArchiveUrl::Stdio => {
            return Err(Error::usage("a stream holds one archive: amistore inspect -"));
        }
        ArchiveUrl::Path(path) => ops::list_directory(&path, &mut found)?,
        ArchiveUrl::Store(url) => {
            let (store, prefix) = located(&url)?;
            store.list(&prefix, &mut found)?;
        }
        ArchiveUrl::S3(location) => {
            let remote = Remote::new(settings, &observer);
            let store = remote.bucket(&location, args.aws.requests()?, ObjectOptions::default())?;
            store.list(&location.key, &mut found)?;
        }
    }
    drop(observer);
    lines.finish()
}
