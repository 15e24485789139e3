//! Partial files that killed processes left: found by their names, removed under their lock.

use std::fs;
use std::io::{self, ErrorKind as IoKind};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::atomic_file::is_ours;
use super::locked_file::{LockAttempt, LockedFile, is_at};
use super::look::{Opened, open_to_read};
use crate::base::{Error, Result};

/// A partial file that no process writes. It is locked until this is dropped, so that none begins
/// to write it.
#[derive(Debug)]
pub struct LeftPartial {
    path: PathBuf,
    modified: SystemTime,
    _lock: LockedFile,
}

impl LeftPartial {
    /// Looks at the path of a partial file. `None` if there is none, if a process writes it, or if
    /// that cannot be told: a file of another user, one with a second name, or one on a file system
    /// without locks.
    pub fn find(path: &Path) -> Result<Option<Self>> {
        Self::look(path).map_err(|cause| {
            Error::io("cannot look at the partial file", cause).at("path", path.display())
        })
    }

    /// All of a directory, ascending by name.
    pub fn find_in(directory: &Path) -> Result<Vec<Self>> {
        let failed =
            |cause| Error::io("cannot list the directory", cause).at("path", directory.display());
        let mut paths = Vec::new();
        for entry in fs::read_dir(directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let name = name.as_encoded_bytes();
            if name.starts_with(b".") && name.ends_with(b".partial") {
                paths.push(entry.path());
            }
        }
        paths.sort();
        let mut found = Vec::new();
        for path in paths {
            found.extend(Self::find(&path)?);
        }
        Ok(found)
    }

    fn look(path: &Path) -> io::Result<Option<Self>> {
        let absent =
            |cause: &io::Error| matches!(cause.kind(), IoKind::NotFound | IoKind::NotADirectory);
        // A link is not followed: its target may be any file.
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_file() => {}
            Ok(_) => return Ok(None),
            Err(cause) if absent(&cause) => return Ok(None),
            Err(cause) => return Err(cause),
        }
        let file = match open_to_read(path) {
            Ok(Opened::Regular(file)) => file,
            Ok(Opened::BlockDevice(_) | Opened::Other(_)) => return Ok(None),
            Err(cause) if absent(&cause) => return Ok(None),
            Err(cause) => return Err(cause),
        };
        if !is_ours(&file)? {
            return Ok(None);
        }
        let LockAttempt::Locked(lock) = LockedFile::acquire(file)? else { return Ok(None) };
        if !is_at(lock.file(), path)? {
            return Ok(None);
        }
        let modified = lock.file().metadata()?.modified()?;
        Ok(Some(Self { path: path.to_owned(), modified, _lock: lock }))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The time of its last write.
    pub fn modified(&self) -> SystemTime {
        self.modified
    }

    /// Removes it.
    pub fn remove(self) -> Result<()> {
        fs::remove_file(&self.path).map_err(|cause| {
            Error::io("cannot remove the partial file", cause).at("path", self.path.display())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Durability, Overwrite, PartialFile};
    use super::*;

    #[test]
    fn a_partial_file_is_found_when_no_process_writes_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let target = directory.path().join("a.bin");
        let partial = PartialFile::partial_path(&target, None);
        let found = || LeftPartial::find(&partial).expect("looks").is_some();
        assert!(!found(), "there is none");
        let mut written =
            PartialFile::create(&target, Overwrite::No, Durability::Cached).expect("creates");
        written.keep();
        assert!(!found(), "it is being written");
        drop(written);
        fs::write(directory.path().join("b.partial"), b"").expect("writes");
        std::os::unix::fs::symlink("a.bin", directory.path().join(".c.partial")).expect("links");
        let mut all = LeftPartial::find_in(directory.path()).expect("lists");
        let left = all.pop().expect("one");
        assert!(all.is_empty() && left.path() == partial);
        let refused = PartialFile::create(&target, Overwrite::No, Durability::Cached);
        assert!(refused.is_err(), "it is locked while it is looked at");
        fs::hard_link(&partial, directory.path().join("second name")).expect("links");
        drop(left);
        assert!(!found(), "it has a second name");
        fs::remove_file(directory.path().join("second name")).expect("removes");
        LeftPartial::find(&partial).expect("looks").expect("it stayed").remove().expect("removes");
        assert!(!partial.exists());
    }
}
