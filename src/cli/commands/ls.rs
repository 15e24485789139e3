//! `amistore ls`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::super::options::{ArchiveUrl, AwsArgs, Settings};
use super::super::output::{Console, listed, listed_text};
use super::super::remote::Remote;
use crate::aws::s3::ObjectOptions;
use crate::base::{Error, Result};
use crate::localfs::Durability;
use crate::object::{DirectoryStore, Listed, ObjectStore};
use crate::ops::{self, ArchiveList, ListOptions};

/// List the archives in a bucket or directory, the newest first
#[derive(Debug, Args)]
#[command(before_help = "\
Example:
  amistore ls s3://bucket/prefix/
  amistore ls s3://bucket/ --name 'web*' --last 10
  amistore ls s3://bucket/ --output json | jq -r '.Archives[] | \"\\(.RootSha256) \\(.Archive)\"'")]
pub(in super::super) struct LsArgs {
    /// s3://BUCKET, s3://BUCKET/PREFIX, or a directory
    #[arg(value_name = "STORE")]
    store: PathBuf,
    /// Only archives whose image or file has this name; * and ? stand for other characters
    #[arg(long, value_name = "PATTERN")]
    name: Option<String>,
    /// Only the N newest
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    last: Option<u32>,
    #[command(flatten)]
    aws: AwsArgs,
}

pub(super) fn run(args: &LsArgs, settings: &Settings, console: &Console) -> Result<()> {
    let observer = console.observer();
    let last = args.last.map(|last| last as usize);
    let options = ListOptions { name: args.name.clone(), last };
    let mut list = ArchiveList::new(options, settings.resources.memory);
    let mut found = |found: Listed| list.add(found);
    let url = ArchiveUrl::parse(&args.store)?;
    let (store, ended): (Arc<dyn ObjectStore>, _) = match &url {
        ArchiveUrl::Stdio => {
            return Err(Error::usage("a stream holds one archive: amistore inspect -"));
        }
        ArchiveUrl::Path(path) => {
            let store = DirectoryStore::new(path, Durability::Cached);
            (Arc::new(store), ops::list_directory(path, &mut found))
        }
        ArchiveUrl::Store(url) => {
            let (store, prefix) = ops::located(url)?;
            let ended = store.list(&prefix, &mut found);
            (store, ended)
        }
        ArchiveUrl::S3(location) => {
            let remote = Remote::new(settings, &observer);
            let store = remote.bucket(location, args.aws.requests()?, ObjectOptions::default())?;
            let ended = store.list(&location.key, &mut found);
            (Arc::new(store), ended)
        }
    };
    let found = ops::judged(list.newest_first(), store.as_ref());
    let roots = ops::roots_of(store.as_ref(), &found, observer.as_ref(), &settings.cancel)?;
    drop((store, observer));
    // An archive that cannot be listed does not hide the others.
    if ended.is_ok() || !found.is_empty() {
        console.result(
            || listed_text(&found, &roots),
            || listed(&found, &roots, &|key| url.of_key(key)),
        )?;
    }
    ended
}
