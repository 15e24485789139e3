//! The names of the files of an image directory, given at its commit: those of the volumes first,
//! then that of `image.json`.
//!
//! No file system gives several names at once. So a record of the volumes and their inodes is in
//! the directory before the first volume gets its name, and goes after `image.json` has its own. A
//! process that finds the record and no `image.json` takes the names back, from wherever its own
//! archive comes. The record is the partial file of `image.json`; the process that writes the
//! directory has it locked.

use std::fs;
use std::io::{ErrorKind as IoKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::{Error, Result, SnapshotId};
use crate::localfs::{
    Durability, Opened, Overwrite, PartialFile, exists, is_locked, open_to_read, rename_new,
    sync_directory,
};
use crate::volume::RawFileSink;

/// The metadata file.
pub const IMAGE_JSON: &str = "image.json";
/// The longest record that is read, in bytes. One of 256 volumes has 40 KiB.
const READ_LIMIT: u64 = 1 << 20;

/// The right to write an image directory. Only one process has it.
pub(super) struct DirectoryClaim {
    directory: PathBuf,
    record: PartialFile,
    durability: Durability,
}

/// The volumes that get their names.
#[derive(Serialize, Deserialize)]
struct NameRecord {
    /// The tag in their partial names; without one their data is not continued.
    tag: Option<String>,
    volumes: Vec<NamedVolume>,
}

#[derive(Serialize, Deserialize)]
struct NamedVolume {
    snapshot: String,
    /// A file with another inode has the name for another reason.
    inode: u64,
}

impl DirectoryClaim {
    /// Claims a directory, and takes back the names that an interrupted commit gave.
    pub(super) fn take(directory: &Path, durability: Durability) -> Result<Self> {
        let json = directory.join(IMAGE_JSON);
        let record = PartialFile::open(&json, None, Overwrite::Yes, durability)?;
        let claim = Self { directory: directory.to_owned(), record, durability };
        // With an image.json the commit was complete.
        if !exists(&json)? {
            claim.take_back()?;
        }
        claim.clear()?;
        Ok(claim)
    }

    /// Whether a directory has a claim, of a process that writes it or of one that was killed.
    pub(super) fn is_in(directory: &Path) -> Result<bool> {
        exists(&PartialFile::partial_path(&directory.join(IMAGE_JSON), None))
    }

    /// Whether no process has the claim that is in a directory.
    pub(super) fn is_free(directory: &Path) -> Result<bool> {
        let path = PartialFile::partial_path(&directory.join(IMAGE_JSON), None);
        match open_to_read(&path) {
            Ok(Opened::Regular(file)) => Ok(!is_locked(&file)),
            Ok(Opened::BlockDevice(_) | Opened::Other(_)) => Ok(false),
            Err(cause) if cause.kind() == IoKind::NotFound => Ok(false),
            Err(cause) => {
                Err(Error::io("cannot look at the partial file", cause).at("path", path.display()))
            }
        }
    }

    /// Records the volumes that are about to get their names.
    pub(super) fn record(&self, tag: Option<&str>, volumes: &[RawFileSink]) -> Result<()> {
        let named = |sink: &RawFileSink| {
            let name = sink.path().file_stem().unwrap_or_default();
            Ok(NamedVolume { snapshot: name.display().to_string(), inode: sink.inode()? })
        };
        let volumes = volumes.iter().map(named).collect::<Result<_>>()?;
        let record = NameRecord { tag: tag.map(ToOwned::to_owned), volumes };
        let json = serde_json::to_vec(&record).map_err(|cause| self.failed(cause.into()))?;
        self.clear()?;
        let mut file = self.record.file();
        file.seek(SeekFrom::Start(0))
            .and_then(|_| file.write_all(&json))
            .map_err(|cause| self.failed(cause))?;
        self.record.sync()?;
        match self.durability {
            Durability::Synced => sync_directory(&self.directory.join(IMAGE_JSON)),
            Durability::Cached => Ok(()),
        }
    }

    /// Takes the names of the recorded volumes back: a volume with a tag gets its partial name
    /// again, and one without is removed.
    pub(super) fn take_back(&self) -> Result<()> {
        // A record that is cut off was not complete before the first name.
        let Some(record) = self.recorded()? else { return Ok(()) };
        for volume in &record.volumes {
            let path = self.directory.join(SnapshotId::parse(&volume.snapshot)?.file_name());
            match fs::symlink_metadata(&path) {
                Ok(found) if found.is_file() && found.ino() == volume.inode => {}
                Ok(_) => continue,
                Err(cause) if cause.kind() == IoKind::NotFound => continue,
                Err(cause) => return Err(self.failed(cause)),
            }
            let moved = match record.tag.as_deref() {
                Some(tag) => rename_new(&path, &PartialFile::partial_path(&path, Some(tag))),
                None => fs::remove_file(&path),
            };
            match moved {
                // Both names are those of one file, where renames are made by links.
                Err(cause) if cause.kind() == IoKind::AlreadyExists => fs::remove_file(&path),
                moved => moved,
            }
            .map_err(|cause| self.failed(cause))?;
        }
        Ok(())
    }

    fn recorded(&self) -> Result<Option<NameRecord>> {
        let mut bytes = Vec::new();
        let mut file = self.record.file();
        file.seek(SeekFrom::Start(0))
            .and_then(|_| file.take(READ_LIMIT).read_to_end(&mut bytes))
            .map_err(|cause| self.failed(cause))?;
        let record: Option<NameRecord> = serde_json::from_slice(&bytes).ok();
        // The tag becomes a part of a path.
        let is_plain = |tag: &String| tag.bytes().all(|byte| byte.is_ascii_alphanumeric());
        Ok(record.filter(|record| record.tag.as_ref().is_none_or(is_plain)))
    }

    fn clear(&self) -> Result<()> {
        self.record.file().set_len(0).map_err(|cause| self.failed(cause))
    }

    fn failed(&self, cause: std::io::Error) -> Error {
        Error::io("cannot prepare the names of the image directory", cause)
            .at("path", self.directory.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ErrorKind, VolumeSize};

    const TAG: &str = "0123456789abcdef";

    /// A directory in which a commit of two volumes was killed behind its first rename. Returns the
    /// content of the named volume.
    fn interrupted(directory: &Path, tag: Option<&str>) -> Vec<u8> {
        let size = VolumeSize::new(1024).expect("a size");
        let sinks: Vec<RawFileSink> = ["snap-a", "snap-b"]
            .iter()
            .map(|name| {
                let path = directory.join(format!("{name}.raw"));
                let (no, cached) = (Overwrite::No, Durability::Cached);
                match tag {
                    Some(tag) => RawFileSink::resume(&path, tag, size, no, cached),
                    None => RawFileSink::create(&path, size, no, cached),
                }
                .expect("a volume")
            })
            .collect();
        let claim = DirectoryClaim::take(directory, Durability::Cached).expect("a claim");
        claim.record(tag, &sinks).expect("records");
        let partial = PartialFile::partial_path(&directory.join(IMAGE_JSON), None);
        let record = fs::read(&partial).expect("a record");
        sinks.into_iter().next().expect("a volume").rename().expect("gets its name");
        drop(claim);
        // The guard of a killed process does nothing.
        fs::write(&partial, record).expect("writes");
        fs::write(directory.join("snap-a.raw"), [7; 1024]).expect("writes");
        fs::read(directory.join("snap-a.raw")).expect("reads")
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("lists");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("an entry").file_name().display().to_string())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_volume_that_was_named_alone_gets_its_partial_name_again_or_goes() {
        for tag in [None, Some(TAG)] {
            let directory = tempfile::tempdir().expect("a directory");
            let content = interrupted(directory.path(), tag);
            assert!(DirectoryClaim::is_free(directory.path()).expect("looks"));
            drop(DirectoryClaim::take(directory.path(), Durability::Cached).expect("a claim"));
            let a = format!(".snap-a.raw.{TAG}.partial");
            if tag.is_some() {
                assert_eq!(names(directory.path()), [a.clone(), a.replace("-a", "-b")]);
                assert_eq!(fs::read(directory.path().join(a)).expect("reads"), content);
            } else {
                assert_eq!(names(directory.path()), [""; 0]);
            }
        }
    }

    #[test]
    fn a_file_that_the_record_does_not_mean_keeps_its_name() {
        let directory = tempfile::tempdir().expect("a directory");
        let volume = directory.path().join("snap-a.raw");
        interrupted(directory.path(), None);
        let other = directory.path().join("other");
        fs::write(&other, b"theirs").expect("writes");
        fs::rename(&other, &volume).expect("replaces");
        drop(DirectoryClaim::take(directory.path(), Durability::Cached).expect("a claim"));
        assert_eq!(fs::read(&volume).expect("reads"), b"theirs");
    }

    #[test]
    fn a_record_beside_an_image_or_cut_off_or_of_another_path_means_nothing() {
        for cut in [true, false] {
            let directory = tempfile::tempdir().expect("a directory");
            interrupted(directory.path(), None);
            let partial = PartialFile::partial_path(&directory.path().join(IMAGE_JSON), None);
            if cut {
                let record = fs::read(&partial).expect("a record");
                fs::write(&partial, &record[..record.len() - 1]).expect("writes");
            } else {
                fs::write(directory.path().join(IMAGE_JSON), b"{}").expect("writes");
            }
            drop(DirectoryClaim::take(directory.path(), Durability::Cached).expect("a claim"));
            assert!(directory.path().join("snap-a.raw").exists() && !partial.exists());
        }
        let directory = tempfile::tempdir().expect("a directory");
        let partial = PartialFile::partial_path(&directory.path().join(IMAGE_JSON), None);
        let record = r#"{"tag":"/../x","volumes":[{"snapshot":"../x","inode":1}]}"#;
        fs::write(&partial, record).expect("writes");
        drop(DirectoryClaim::take(directory.path(), Durability::Cached).expect("a claim"));
        fs::write(&partial, record.replace("/../x", "")).expect("writes");
        let refused = DirectoryClaim::take(directory.path(), Durability::Cached).err();
        assert_eq!(refused.expect("no snapshot id").kind(), ErrorKind::Usage);
    }

    #[test]
    fn a_directory_has_one_claim_at_a_time() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = DirectoryClaim::take(directory.path(), Durability::Cached).expect("a claim");
        assert!(!DirectoryClaim::is_free(directory.path()).expect("looks"));
        let second = DirectoryClaim::take(directory.path(), Durability::Cached).err();
        assert_eq!(second.expect("busy").kind(), ErrorKind::Exists);
        drop(first);
        assert!(!DirectoryClaim::is_in(directory.path()).expect("looks"));
    }
}
