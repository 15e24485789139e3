//! A file that appears under its name whole, or not at all.
//!
//! It grows as `.NAME.partial` beside its target, locked, and is renamed at the end. An error or an
//! interrupt removes it; a killed process leaves it behind, unlocked, and the next one to write the
//! same target takes it over.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind as IoKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::io::{Errno, retry_on_intr};

use super::locked_file::{LockAttempt, LockedFile, is_at};
use super::write::begin_sync;
use crate::base::{Error, ErrorCode, ErrorKind, Result};

/// Whether an existing target is replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overwrite {
    /// Fail, and leave it alone.
    #[default]
    No,
    /// Replace it, at the end and at once.
    Yes,
}

/// Whether success means that the data survives a power failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Data and name are on disk before success is reported.
    #[default]
    Synced,
    /// The operating system writes them when it likes.
    Cached,
}

/// A file on its way to its name.
#[derive(Debug)]
pub struct PartialFile {
    /// Declared before `file`: the name goes while the lock is still ours.
    partial: PartialName,
    file: File,
    target: PathBuf,
    overwrite: Overwrite,
    durability: Durability,
}

/// The name of a partial file, which is made before the file.
#[derive(Debug)]
struct PartialName {
    path: PathBuf,
    /// Whether the file is removed when this is dropped.
    vanishes: bool,
}

impl PartialFile {
    /// Begins a file that will be called `target`. If that exists and must not be overwritten it is
    /// an error of kind `Exists`; so is another process that writes it at the moment.
    pub fn create(target: &Path, overwrite: Overwrite, durability: Durability) -> Result<Self> {
        Self::create_tagged(target, None, overwrite, durability)
    }

    /// Begins a file like [`create`](Self::create), with a `tag` in the name of the partial file.
    pub fn create_tagged(
        target: &Path,
        tag: Option<&str>,
        overwrite: Overwrite,
        durability: Durability,
    ) -> Result<Self> {
        let this = Self::open(target, tag, overwrite, durability)?;
        this.file.set_len(0).map_err(|cause| {
            Error::io("cannot create the file", cause).at("path", target.display())
        })?;
        Ok(this)
    }

    /// Continues a file that an earlier process left behind, or begins one: what is in it stays as
    /// it is. With a `tag` the partial file is called `.NAME.TAG.partial`: what is found under that
    /// name was begun for the same purpose.
    pub fn open(
        target: &Path,
        tag: Option<&str>,
        overwrite: Overwrite,
        durability: Durability,
    ) -> Result<Self> {
        Self::open_with_mode(target, tag, 0o666, overwrite, durability)
    }

    /// Begins or continues a file that only its user may read.
    pub fn open_private(
        target: &Path,
        overwrite: Overwrite,
        durability: Durability,
    ) -> Result<Self> {
        Self::open_with_mode(target, None, 0o600, overwrite, durability)
    }

    fn open_with_mode(
        target: &Path,
        tag: Option<&str>,
        mode: u32,
        overwrite: Overwrite,
        durability: Durability,
    ) -> Result<Self> {
        let failed = |cause: io::Error| {
            let error = Error::io("cannot create the file", cause).at("path", target.display());
            match error.kind() {
                ErrorKind::NotFound => error.code_as(ErrorCode::NoParentDirectory),
                _ => error,
            }
        };
        if target.file_name().is_none() {
            return Err(Error::usage("this path does not name a file").at("path", target.display()));
        }
        match fs::symlink_metadata(target) {
            Ok(_) if overwrite == Overwrite::No => return Err(exists(target)),
            Ok(found) if !found.is_file() => {
                return Err(Error::usage("the target exists and is not a regular file")
                    .at("path", target.display()));
            }
            Ok(_) => {}
            Err(cause) if cause.kind() == IoKind::NotFound => {}
            Err(cause) => return Err(failed(cause)),
        }
        let partial = Self::partial_path(target, tag);
        let (partial, file) = match lock(&partial, mode).map_err(failed)? {
            Locked::Ours(mut partial, file) => {
                partial.vanishes = true;
                (partial, file)
            }
            Locked::Busy => {
                return Err(Error::new(ErrorKind::Exists, "another process is writing this file")
                    .code_as(ErrorCode::FileInUse)
                    .at("path", target.display()));
            }
            Locked::InTheWay => {
                return Err(Error::new(
                    ErrorKind::Exists,
                    "a partial file is in the way, and another process may be writing it",
                )
                .code_as(ErrorCode::PartialFileInTheWay)
                .at("path", target.display())
                .at("partial_file", partial.display()));
            }
        };
        Ok(Self { partial, file, target: target.to_owned(), overwrite, durability })
    }

    /// From now on an error leaves the partial file where it is, to be continued.
    pub fn keep(&mut self) {
        self.partial.vanishes = false;
    }

    /// Where the partial file of `target` is.
    pub fn partial_path(target: &Path, tag: Option<&str>) -> PathBuf {
        let mut partial = OsString::from(".");
        partial.push(target.file_name().unwrap_or_default());
        if let Some(tag) = tag {
            partial.push(".");
            partial.push(tag);
        }
        partial.push(".partial");
        target.with_file_name(partial)
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The final path.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Begins to write a range to disk, if that was asked for, and does not wait.
    pub fn begin_sync(&self, offset: u64, len: u64) {
        if self.durability == Durability::Synced {
            begin_sync(&self.file, offset, len);
        }
    }

    /// Changes the final path, within the directory.
    pub fn rename_to(&mut self, target: PathBuf) {
        debug_assert_eq!(target.parent(), self.target.parent());
        self.target = target;
    }

    /// Writes data to disk, if that was asked for.
    pub fn sync(&self) -> Result<()> {
        match self.durability {
            Durability::Synced => self.file.sync_all().map_err(|cause| {
                Error::io("cannot write the file to disk", cause).at("path", self.target.display())
            }),
            Durability::Cached => Ok(()),
        }
    }

    /// Gives the file its name. Syncs data and directory, if that was asked for.
    pub fn commit(self) -> Result<()> {
        let (target, durability) = (self.target.clone(), self.durability);
        self.rename()?;
        if durability == Durability::Synced {
            sync_directory(&target)?;
        }
        Ok(())
    }

    /// Syncs data, if that was asked for, and gives the file its name, which is durable only when
    /// the directory is synced. Returns the file, which is still locked.
    pub fn rename(self) -> Result<File> {
        self.sync()?;
        let Self { mut partial, file, target, overwrite, .. } = self;
        let renamed = match overwrite {
            Overwrite::Yes => fs::rename(&partial.path, &target),
            Overwrite::No => rename_new(&partial.path, &target),
        };
        match renamed {
            Ok(()) => {
                partial.vanishes = false;
                Ok(file)
            }
            Err(cause) if cause.kind() == IoKind::AlreadyExists => Err(exists(&target)),
            Err(cause) => {
                Err(Error::io("cannot give the file its name", cause).at("path", target.display()))
            }
        }
    }
}

impl Drop for PartialName {
    fn drop(&mut self) {
        if self.vanishes {
            // Nothing better can be done than to leave a file whose name says that it is partial.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn exists(target: &Path) -> Error {
    Error::new(ErrorKind::Exists, "the file exists").at("path", target.display())
}

/// Result of the attempt to lock the partial file.
enum Locked {
    Ours(PartialName, File),
    /// Another process has it locked.
    Busy,
    /// It exists and belongs to another user, or its file system has no locks.
    InTheWay,
}

/// Opens and locks the partial file; takes over one that is not locked. A file that was created
/// here goes again if it cannot be locked or looked at.
fn lock(path: &Path, mode: u32) -> io::Result<Locked> {
    loop {
        let mut partial = PartialName { path: path.to_owned(), vanishes: false };
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(mode).custom_flags(OFlags::NOFOLLOW.bits() as i32);
        let file = match options.clone().create_new(true).open(path) {
            Ok(file) => {
                partial.vanishes = true;
                match LockedFile::acquire(file)? {
                    LockAttempt::Locked(locked) => locked.into_file(),
                    LockAttempt::Busy => {
                        partial.vanishes = false;
                        return Ok(Locked::Busy);
                    }
                    // This process created it; without locks no other process takes it over.
                    LockAttempt::Unsupported(file) => file,
                }
            }
            Err(cause) if cause.kind() == IoKind::AlreadyExists => match options.open(path) {
                Ok(file) if !is_ours(&file)? => return Ok(Locked::InTheWay),
                Ok(file) => match LockedFile::acquire(file)? {
                    LockAttempt::Locked(locked) => locked.into_file(),
                    LockAttempt::Busy => return Ok(Locked::Busy),
                    LockAttempt::Unsupported(_) => return Ok(Locked::InTheWay),
                },
                Err(cause) if cause.kind() == IoKind::NotFound => continue,
                Err(cause) => return Err(cause),
            },
            Err(cause) => return Err(cause),
        };
        // The earlier holder may have renamed or removed it between our open and our lock.
        if is_at(&file, path)? {
            return Ok(Locked::Ours(partial, file));
        }
        partial.vanishes = false;
    }
}

/// Whether a file that was left behind may be emptied: a regular one of ours, without a second
/// name.
pub(super) fn is_ours(file: &File) -> io::Result<bool> {
    let metadata = file.metadata()?;
    Ok(metadata.is_file()
        && metadata.nlink() == 1
        && metadata.uid() == rustix::process::geteuid().as_raw())
}

/// Renames without replacing; by a hard link where the file system has no such rename.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match retry_on_intr(|| renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from).inspect_err(|_| {
                // After an error the file has only the name that it had before.
                let _ = fs::remove_file(to);
            })
        }
        result => Ok(result?),
    }
}

/// Makes the name of `path` durable.
pub fn sync_directory(path: &Path) -> Result<()> {
    let parent =
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|directory| directory.sync_all()).map_err(|cause| {
        Error::io("cannot write the directory to disk", cause).at("path", parent.display())
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(directory)
            .expect("lists")
            .map(|entry| entry.expect("an entry").file_name().display().to_string())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_on_commit_and_vanishes_without() {
        let directory = tempfile::tempdir().expect("a directory");
        let target = directory.path().join("a.bin");
        let partial =
            PartialFile::create(&target, Overwrite::No, Durability::Synced).expect("creates");
        assert_eq!(names(directory.path()), [".a.bin.partial"]);
        drop(partial);
        assert_eq!(names(directory.path()), [""; 0]);
        let partial =
            PartialFile::create(&target, Overwrite::No, Durability::Synced).expect("creates");
        partial.file().write_all(b"x").expect("writes");
        partial.commit().expect("commits");
        assert_eq!(names(directory.path()), ["a.bin"]);
    }

    #[test]
    fn an_existing_file_is_replaced_only_with_overwrite() {
        let directory = tempfile::tempdir().expect("a directory");
        let target = directory.path().join("a.bin");
        let early =
            PartialFile::create(&target, Overwrite::No, Durability::Cached).expect("creates");
        fs::write(&target, b"theirs").expect("writes");
        assert_eq!(early.commit().expect_err("exists").kind(), ErrorKind::Exists);
        assert_eq!(
            PartialFile::create(&target, Overwrite::No, Durability::Cached)
                .expect_err("exists")
                .kind(),
            ErrorKind::Exists
        );
        PartialFile::create(&target, Overwrite::Yes, Durability::Cached)
            .expect("creates")
            .commit()
            .expect("commits");
        assert_eq!(fs::read(&target).expect("reads"), b"");
        assert_eq!(names(directory.path()), ["a.bin"]);
    }

    #[test]
    fn two_writers_of_one_file_do_not_meet_and_a_dead_one_is_taken_over() {
        let directory = tempfile::tempdir().expect("a directory");
        let target = directory.path().join("a.bin");
        fs::write(directory.path().join(".a.bin.partial"), b"left behind").expect("writes");
        let first =
            PartialFile::create(&target, Overwrite::No, Durability::Cached).expect("takes over");
        assert_eq!(first.file().metadata().expect("metadata").len(), 0);
        let second =
            PartialFile::create(&target, Overwrite::No, Durability::Cached).expect_err("locked");
        assert_eq!(second.kind(), ErrorKind::Exists);
        first.commit().expect("commits");
    }
}
