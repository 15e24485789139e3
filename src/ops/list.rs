//! Lists the archives of a directory with the metadata of their images, and selects archives of a
//! list.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::store::image_metadata;
use crate::base::{Error, ErrorKind, Result, fits_pattern, hex};
use crate::engine::{Archive, digest_metadata, is_other_object};
use crate::localfs::Durability;
use crate::object::{DirectoryStore, FileReader, Listed, ObjectStore};

/// Metadata that only amistore gives objects begin with this.
const OWN_METADATA: &str = "amistore-";

/// An object of a list.
#[derive(Clone, Debug)]
pub struct ListedObject {
    /// The object as its store lists it.
    pub listed: Listed,
    /// True for an archive of amistore; `None` if it cannot be read, or is damaged. An object of
    /// AWS's own store tasks is none.
    pub is_archive: Option<bool>,
    /// Its root in hex, if the archive was opened to find that out.
    pub root: Option<String>,
}

/// Finds out which objects of a list are archives. An object without metadata of amistore is
/// opened.
pub fn judged(list: Vec<Listed>, store: &dyn ObjectStore) -> Vec<ListedObject> {
    let judge = |listed: Listed| {
        let is_ours = listed.metadata.keys().any(|name| name.starts_with(OWN_METADATA));
        if is_ours {
            return ListedObject { listed, is_archive: Some(true), root: None };
        }
        let (is_archive, root) = match store.open(&listed.key).and_then(Archive::open) {
            Ok(archive) => (Some(true), Some(hex(&archive.footer().root))),
            Err(error) if is_other_object(&error) => (Some(false), None),
            Err(_) => (None, None),
        };
        ListedObject { listed, is_archive, root }
    };
    list.into_iter().map(judge).collect()
}

/// Lists the archives of a directory, ascending by name. A store has the metadata of an image
/// beside the object; a directory has not, so it is read from the archive. An archive that cannot
/// be read is listed without metadata.
pub fn list_directory(directory: &Path, found: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
    DirectoryStore::new(directory, Durability::Cached).list("", &mut |listed| {
        let metadata = FileReader::open(&directory.join(&listed.key))
            .and_then(|reader| Archive::open(Arc::new(reader)))
            .map(|archive| {
                let mut metadata = image_metadata(archive.document());
                // The time of the store is that of the file, which is listed.
                metadata.remove("ami-store-date");
                metadata.extend(digest_metadata(archive.footer()));
                metadata
            });
        found(Listed { metadata: metadata.unwrap_or_default(), ..listed })
    })
}

/// Options of a list of archives.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// A pattern of the image's name, or of the file name in the key: `*` and `?` stand for other
    /// characters.
    pub name: Option<String>,
    /// At most so many, the newest.
    pub last: Option<usize>,
}

/// Collects archives within a limit of memory, and sorts them by time.
pub struct ArchiveList {
    options: ListOptions,
    memory: u64,
    used: u64,
    /// By time and key, so that the first item is the oldest.
    found: BTreeMap<(String, Reverse<String>), Listed>,
}

impl ArchiveList {
    /// An empty list that takes at most about `memory` bytes.
    pub fn new(options: ListOptions, memory: u64) -> Self {
        Self { options, memory, used: 0, found: BTreeMap::new() }
    }

    /// Adds an archive if the options select it. Too many for the memory are an error of kind
    /// `Limit`.
    pub fn add(&mut self, listed: Listed) -> Result<()> {
        if !self.options.selects(&listed) {
            return Ok(());
        }
        self.used += memory_of(&listed);
        self.found.insert((listed.modified.clone(), Reverse(listed.key.clone())), listed);
        if self.options.last.is_some_and(|last| self.found.len() > last)
            && let Some((_, oldest)) = self.found.pop_first()
        {
            self.used -= memory_of(&oldest);
        }
        if self.used <= self.memory {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Limit,
            "the list of archives does not fit into --memory: name a longer prefix, or the number \
             of the newest archives with --last",
        )
        .at("archives", self.found.len())
        .at("memory", self.memory))
    }

    /// The archives, the newest first, those of one second by key.
    pub fn newest_first(self) -> Vec<Listed> {
        self.found.into_values().rev().collect()
    }
}

impl ListOptions {
    fn selects(&self, listed: &Listed) -> bool {
        let Some(pattern) = &self.name else { return true };
        let file_name = listed.key.rsplit('/').next().unwrap_or(&listed.key);
        let name = listed.metadata.get("ami-name");
        name.is_some_and(|name| fits_pattern(pattern, name)) || fits_pattern(pattern, file_name)
    }
}

/// Bytes of an item in the list and in the result that is printed, roughly.
fn memory_of(listed: &Listed) -> u64 {
    let metadata = listed.metadata.iter().map(|(name, value)| name.len() + value.len() + 100);
    4 * (200 + 2 * listed.key.len() + metadata.sum::<usize>()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ErrorKind;

    #[test]
    fn a_file_that_is_no_archive_is_listed_without_metadata() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("b.bin"), b"no archive").expect("writes");
        std::fs::write(directory.path().join("notes.txt"), b"no name of one").expect("writes");
        let mut names = Vec::new();
        list_directory(directory.path(), &mut |listed| {
            assert!(listed.metadata.is_empty());
            names.push((listed.key, listed.len));
            Ok(())
        })
        .expect("a list");
        assert_eq!(names, [("b.bin".to_owned(), 10)]);
        let error = list_directory(&directory.path().join("none"), &mut |_| Ok(()))
            .expect_err("no directory");
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    fn listed(key: &str, modified: &str, name: &str) -> Listed {
        Listed {
            key: key.to_owned(),
            len: 1,
            modified: modified.to_owned(),
            storage_class: None,
            metadata: [("ami-name".to_owned(), name.to_owned())].into(),
        }
    }

    fn keys(options: ListOptions) -> Vec<String> {
        let mut list = ArchiveList::new(options, 1 << 20);
        for (key, modified, name) in [
            ("p/a.bin", "2026-01-01T00:00:00Z", "web 1"),
            ("p/b.bin", "2026-03-01T00:00:00Z", "db"),
            ("p/c.bin", "2026-02-01T00:00:00Z", "web 2"),
            ("p/d.bin", "2026-03-01T00:00:00Z", "mail"),
        ] {
            list.add(listed(key, modified, name)).expect("fits");
        }
        list.newest_first().into_iter().map(|listed| listed.key).collect()
    }

    #[test]
    fn a_list_has_the_newest_archives_that_are_selected_first() {
        let with = |name: Option<&str>, last| {
            keys(ListOptions { name: name.map(ToOwned::to_owned), last })
        };
        assert_eq!(with(None, None), ["p/b.bin", "p/d.bin", "p/c.bin", "p/a.bin"]);
        assert_eq!(with(None, Some(1)), ["p/b.bin"]);
        assert_eq!(with(Some("web*"), Some(1)), ["p/c.bin"]);
        assert_eq!(with(Some("?.bin"), Some(3)), ["p/b.bin", "p/d.bin", "p/c.bin"]);
        assert_eq!(with(Some("a"), None), [""; 0]);
    }

    #[test]
    fn a_list_takes_no_more_memory_than_it_may() {
        let fill = |last| {
            let mut list =
                ArchiveList::new(ListOptions { last, ..ListOptions::default() }, 100_000);
            (0..1000).try_for_each(|n| list.add(listed(&format!("{n:04}"), "2026", "x")))
        };
        let error = fill(None).expect_err("too many");
        assert_eq!((error.kind(), error.fact("memory")), (ErrorKind::Limit, Some("100000")));
        fill(Some(10)).expect("the newest fit");
    }
}
