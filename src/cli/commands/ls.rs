//! `amistore ls`.

use std::path::Path;
use std::sync::Arc;

use super::super::args::LsArgs;
use super::super::output::{Console, listed, listed_text};
use super::super::remote::Remote;
use super::super::settings::{Place, Settings, located};
use crate::aws::s3::ObjectOptions;
use crate::base::{Error, Result};
use crate::engine::Archive;
use crate::localfs::Durability;
use crate::object::{DirectoryStore, FileReader, Listed, ObjectStore};
use crate::ops;

pub(in super::super) fn run(args: LsArgs, settings: &Settings, console: &Console) -> Result<()> {
    let observer = console.observer();
    // Line by line, so that a list of any length takes the memory of a page.
    let mut lines = console.lines("Archives");
    match Place::parse(&args.store)? {
        Place::Stdio => return Err(Error::usage("a stream holds one archive: amistore inspect -")),
        Place::Path(path) => {
            let store = DirectoryStore::new(&path, Durability::Cached);
            store.list("", &mut |found| {
                let found = described(&path, found);
                lines.item(|| listed_text(&found), || listed(&found))
            })?;
        }
        Place::Url(url) => {
            let (store, prefix) = located(&url)?;
            store.list(&prefix, &mut |found| {
                lines.item(|| listed_text(&found), || listed(&found))
            })?;
        }
        Place::S3(place) => {
            let store = Remote::new(settings, &observer).store(
                &place,
                args.aws.access(),
                &args.aws.link,
                ObjectOptions::default(),
            )?;
            store.list(&place.key, &mut |found| {
                lines.item(|| listed_text(&found), || listed(&found))
            })?;
        }
    }
    drop(observer);
    lines.finish()
}

/// A file has no metadata beside it; the archive in it has. One that cannot be read is listed
/// without.
fn described(directory: &Path, found: Listed) -> Listed {
    let open = || -> Result<_> {
        let reader = FileReader::open(&directory.join(&found.key))?;
        let archive = Archive::open(Arc::new(reader))?;
        let mut metadata = ops::image_metadata(archive.document());
        // Of a file that is the time it was written, which is listed.
        metadata.remove("ami-store-date");
        Ok(metadata)
    };
    let metadata = open().unwrap_or_default();
    Listed { metadata, ..found }
}
