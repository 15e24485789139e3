//! The owner of tasks: a process with a locked file. The kernel frees the lock when the process
//! ends, however it ends.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::base::{Error, Result, random_id};
use crate::localfs::{
    LockAttempt, LockedFile, Opened, is_at, is_locked, make_private_directory, open_to_read,
};

const EXTENSION: &str = "lock";

/// An owner of tasks, until it is dropped.
#[derive(Debug)]
pub struct Owner {
    name: String,
    path: PathBuf,
    _file: LockedFile,
}

impl Owner {
    /// Takes a new name in the state directory, and removes the files of ended processes.
    pub fn register(state: &Path) -> Result<Self> {
        let directory = directory(state);
        let failed = |cause: std::io::Error| {
            Error::io("cannot make a lock file", cause).at("directory", directory.display())
        };
        make_private_directory(&directory).map_err(failed)?;
        sweep(&directory);
        loop {
            let name = format!("{:016x}", random_id()? as u64);
            let path = path_of(&directory, &name);
            let file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)
            {
                Err(cause) if cause.kind() == std::io::ErrorKind::AlreadyExists => continue,
                file => file.map_err(failed)?,
            };
            // Between creation and lock another process may have swept the file.
            if let Ok(LockAttempt::Locked(file)) = LockedFile::acquire(file)
                && is_at(file.file(), &path).unwrap_or(false)
            {
                own().insert(name.clone());
                return Ok(Self { name, path, _file: file });
            }
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        own().remove(&self.name);
        // Still locked: no other process sweeps it. A file that stays is swept by the next owner.
        let _ = fs::remove_file(&self.path);
    }
}

/// Tells whether the owner of this name is alive.
pub(super) fn is_alive(state: &Path, name: &str) -> bool {
    // This process is alive even if its file was removed.
    if own().contains(name) {
        return true;
    }
    match open_to_read(&path_of(&directory(state), name)) {
        Ok(Opened::Regular(file)) => is_locked(&file),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => false,
        // A file that cannot be read counts as locked.
        Ok(Opened::BlockDevice(_) | Opened::Other(_)) | Err(_) => true,
    }
}

/// The owners of this process.
fn own() -> MutexGuard<'static, BTreeSet<String>> {
    static OWN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn directory(state: &Path) -> PathBuf {
    state.join("runners")
}

fn path_of(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.{EXTENSION}"))
}

/// Removes the files of owners that were killed.
fn sweep(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.extension().is_none_or(|extension| extension != EXTENSION) {
            continue;
        }
        if let Ok(Opened::Regular(file)) = open_to_read(&path)
            && !is_locked(&file)
            && is_at(&file, &path).unwrap_or(false)
        {
            let _ = fs::remove_file(&path);
        }
    }
}
