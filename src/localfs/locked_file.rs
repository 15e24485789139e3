//! Advisory locks on files: they tell whether a process works on a file, and the kernel frees them
//! when that process ends.

use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind as IoKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::io::Errno;

/// An open file with an exclusive lock, which is held until the file is closed.
#[derive(Debug)]
pub struct LockedFile(File);

/// Result of [`LockedFile::acquire`].
#[derive(Debug)]
pub enum LockAttempt {
    /// The lock is ours.
    Locked(LockedFile),
    /// Another open file holds the lock, in this process or in another one.
    Busy,
    /// The file system has no locks; the file is open and not locked.
    Unsupported(File),
}

impl LockedFile {
    /// Locks an open file, without waiting.
    pub fn acquire(file: File) -> io::Result<LockAttempt> {
        match uninterrupted(|| file.try_lock()) {
            Ok(()) => Ok(LockAttempt::Locked(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(LockAttempt::Busy),
            Err(TryLockError::Error(cause)) if is_unsupported(&cause) => {
                Ok(LockAttempt::Unsupported(file))
            }
            Err(TryLockError::Error(cause)) => Err(cause),
        }
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.0
    }

    /// The file, which stays locked until it is closed.
    pub fn into_file(self) -> File {
        self.0
    }
}

/// Whether another open file has this one locked. If not, `file` has a shared lock afterwards,
/// until it is closed: [`LockedFile::acquire`] finds it busy, another call of this function does
/// not.
pub fn is_locked(file: &File) -> bool {
    uninterrupted(|| file.try_lock_shared()).is_err()
}

/// Whether `path` still names this open file. A file may be renamed or removed between open and
/// lock, by the process that held the lock before.
pub fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let own = file.metadata()?;
    match std::fs::symlink_metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (own.dev(), own.ino())),
        Err(cause) if cause.kind() == IoKind::NotFound => Ok(false),
        Err(cause) => Err(cause),
    }
}

/// Repeats a system call that a signal interrupted.
fn uninterrupted(mut lock: impl FnMut() -> Result<(), TryLockError>) -> Result<(), TryLockError> {
    loop {
        match lock() {
            Err(TryLockError::Error(cause)) if cause.kind() == IoKind::Interrupted => {}
            result => return result,
        }
    }
}

/// `ENOSYS`, `EOPNOTSUPP` and, from NFS without a lock daemon, `ENOLCK`.
fn is_unsupported(cause: &io::Error) -> bool {
    cause.kind() == IoKind::Unsupported
        || Errno::from_io_error(cause)
            .is_some_and(|errno| [Errno::NOSYS, Errno::NOTSUP, Errno::NOLCK].contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_exclusive_until_the_file_is_closed_and_seen_by_others() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a");
        let first = File::create(&path).expect("creates");
        let open = || File::open(&path).expect("opens");
        assert!(!is_locked(&open()));
        let LockAttempt::Locked(first) = LockedFile::acquire(first).expect("locks") else {
            panic!("the lock is free");
        };
        assert!(is_locked(&open()) && is_at(first.file(), &path).expect("looks"));
        assert!(matches!(LockedFile::acquire(open()), Ok(LockAttempt::Busy)));
        let file = first.into_file();
        assert!(is_locked(&open()));
        std::fs::remove_file(&path).expect("removes");
        assert!(!is_at(&file, &path).expect("looks"));
        std::fs::write(&path, b"another").expect("writes");
        assert!(!is_at(&file, &path).expect("looks") && !is_locked(&open()));
        // Two processes that look at the same time do not take each other for the owner.
        let (one, two) = (open(), open());
        assert!(!is_locked(&one) && !is_locked(&two));
        assert!(matches!(LockedFile::acquire(open()), Ok(LockAttempt::Busy)));
    }
}
