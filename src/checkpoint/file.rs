//! A task file: header and journal of one unfinished task.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::journal::{Appender, Record, Records, encode};
use crate::base::{Error, ErrorCode, ErrorKind, Result, TaskKind};
use crate::localfs::{
    Durability, LockAttempt, LockedFile, Opened, Overwrite, PartialFile, is_at, open_to_read,
    sync_directory,
};

/// Between two attempts to lock or create a file.
const PAUSE: Duration = Duration::from_millis(10);
/// Kind of the first record, whose payload is the JSON of a [`TaskHeader`].
const HEADER: u8 = b'H';

/// Identity of a task. Written once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskHeader {
    /// Kind of the task.
    pub kind: TaskKind,
    /// The command line that continues it.
    pub command: Vec<String>,
    /// The working directory of the command.
    pub directory: String,
    /// The source, for people.
    pub source: String,
    /// The target, for people: a URL or a path.
    pub target: String,
    /// The image's id, if it has one.
    pub image_id: Option<String>,
    /// Start of the first run: RFC 3339, UTC.
    pub started: String,
    /// 128 random bits in hex: make client tokens unique when two hosts start the same restore in
    /// one second.
    #[serde(default)]
    pub nonce: String,
    /// Digest of the source. An unfinished task with another one is discarded.
    pub fingerprint: String,
    /// Digest of the options. An unfinished task with other ones is kept, and can be continued with
    /// its own options only.
    pub settings: String,
    /// Estimate of the bytes to write, for percentages.
    pub expected: u64,
}

impl TaskHeader {
    /// Whether `other` is the same work, and continues the task in the file `path`. The same work
    /// with other settings is an error of kind `Usage`.
    fn is_continued_by(&self, other: &Self, path: &Path) -> Result<bool> {
        if (self.kind, &self.fingerprint) != (other.kind, &other.fingerprint) {
            return Ok(false);
        }
        if self.settings == other.settings {
            return Ok(true);
        }
        Err(Error::usage(
            "this was begun with other settings, and can only be continued with those",
        )
        .code_as(ErrorCode::BegunWithOtherSettings)
        .at("state_file", path.display())
        .at("begun_with", self.command.join(" ")))
    }

    /// Part of the names of the task's partial files: the first 16 digits of the fingerprint.
    pub fn tag(&self) -> String {
        self.fingerprint.chars().take(16).collect()
    }
}

/// The file of a task that this process works on. It is locked until it is dropped.
pub struct TaskFile {
    path: PathBuf,
    header: TaskHeader,
    log: Appender,
    /// Whether an earlier process began the task.
    resumed: bool,
    /// The offset behind the records of earlier processes.
    earlier: u64,
}

impl TaskFile {
    /// Begins the task of this file, or continues it if header and file agree. If another process
    /// works on it, that is an error of kind `Exists`. With another fingerprint, or with `anew`,
    /// the unfinished task is given to `discard`, which removes its leftovers, and the file is
    /// replaced. With the same fingerprint and other settings it is an error of kind `Usage`.
    pub fn begin(
        path: &Path,
        header: &TaskHeader,
        anew: bool,
        discard: &dyn Fn(&PriorTask) -> Result<()>,
    ) -> Result<Self> {
        let failed = |cause: std::io::Error| unusable("cannot write the state file", cause, path);
        loop {
            if let Some(file) = open_locked(path, &failed)? {
                // Without a header there are no records either.
                if let Some(earlier) = read_header(&file).map_err(failed)? {
                    if !anew && earlier.is_continued_by(header, path)? {
                        return Self::resume(path, file, earlier).map_err(failed);
                    }
                    discard(&PriorTask { path: path.to_owned(), header: earlier })?;
                }
                std::fs::remove_file(path).map_err(failed)?;
            }
            if let Some(task) = Self::create(path, header.clone())? {
                return Ok(task);
            }
            // Another process created the file first, or is about to; a later attempt finds its
            // lock.
            std::thread::sleep(PAUSE);
        }
    }

    /// Fails as [`begin`](Self::begin) would, and changes nothing: the lock is tried, and freed
    /// again. Returns the task that `begin` would continue.
    pub(super) fn inspect(
        path: &Path,
        header: &TaskHeader,
        anew: bool,
    ) -> Result<Option<PriorTask>> {
        let Some(file) = lock(path)? else { return Ok(None) };
        let earlier = read_header(&file)
            .map_err(|cause| unusable("cannot read the state file", cause, path))?;
        match earlier {
            Some(earlier) if !anew && earlier.is_continued_by(header, path)? => {
                Ok(Some(PriorTask { path: path.to_owned(), header: earlier }))
            }
            _ => Ok(None),
        }
    }

    /// Creates the file with its header, locked; `None` if it exists by now.
    fn create(path: &Path, header: TaskHeader) -> Result<Option<Self>> {
        let failed = |cause: std::io::Error| unusable("cannot write the state file", cause, path);
        // Readable by its user only: a command line may contain names that are private.
        let partial = match PartialFile::open_private(path, Overwrite::No, Durability::Synced) {
            Err(error) if error.is(ErrorCode::PartialFileInTheWay) => return Err(error),
            // Another process creates it.
            Err(error) if error.kind() == ErrorKind::Exists => return Ok(None),
            Err(error) => return Err(error.code_as(ErrorCode::StateDirectoryUnusable)),
            Ok(partial) => partial,
        };
        // A lock that was taken before is taken again, unless there are no locks.
        let same = partial.file().try_clone().map_err(failed)?;
        let LockAttempt::Locked(_) = LockedFile::acquire(same).map_err(failed)? else {
            return Err(failed(std::io::ErrorKind::Unsupported.into()));
        };
        let json = serde_json::to_vec(&header).map_err(|cause| failed(cause.into()))?;
        let mut file = partial.file();
        file.set_len(0).and_then(|()| file.write_all(&encode(HEADER, &json))).map_err(failed)?;
        let file = match partial.rename() {
            Err(error) if error.kind() == ErrorKind::Exists => return Ok(None),
            renamed => renamed.map_err(|error| error.code_as(ErrorCode::StateDirectoryUnusable))?,
        };
        // A power failure must not lose the file's name, and with it the id of an upload.
        sync_directory(path).map_err(|error| error.code_as(ErrorCode::StateDirectoryUnusable))?;
        Ok(Some(Self {
            path: path.to_owned(),
            header,
            log: Appender::new(file),
            resumed: false,
            earlier: 0,
        }))
    }

    fn resume(path: &Path, file: File, header: TaskHeader) -> std::io::Result<Self> {
        let mut file = file;
        file.seek(SeekFrom::Start(0))?;
        let mut records = Records::new(file.try_clone()?, u64::MAX);
        while records.next()?.is_some() {}
        file.set_len(records.end())?;
        file.seek(SeekFrom::Start(records.end()))?;
        let earlier = records.end();
        Ok(Self { path: path.to_owned(), header, log: Appender::new(file), resumed: true, earlier })
    }

    /// The header.
    pub fn header(&self) -> &TaskHeader {
        &self.header
    }

    /// Whether an earlier process began the task.
    pub fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// The task as a later process would find it.
    pub fn as_prior(&self) -> PriorTask {
        PriorTask { path: self.path.clone(), header: self.header.clone() }
    }

    /// The records of earlier processes, without those of this one.
    pub fn earlier(&self) -> Result<TaskRecords> {
        TaskRecords::open(&self.path, self.earlier)
    }

    /// All records that were flushed.
    pub fn records(&self) -> Result<TaskRecords> {
        TaskRecords::open(&self.path, u64::MAX)
    }

    /// Appends a record. It survives the process after [`flush`](Self::flush), and a power failure
    /// after [`sync`](Self::sync).
    pub fn append(&mut self, record: &Record) -> Result<()> {
        debug_assert!(record.kind != HEADER, "the header is written once");
        self.log.append(record.kind, &record.payload).map_err(|cause| self.failed(cause))
    }

    /// Writes buffered records to the file.
    pub fn flush(&mut self) -> Result<()> {
        self.log.flush().map_err(|cause| self.failed(cause))
    }

    /// Flushes, and syncs the file.
    pub fn sync(&mut self) -> Result<()> {
        self.log.sync().map_err(|cause| self.failed(cause))
    }

    /// Removes the file: the task is completed or undone, and there is nothing to continue.
    pub fn remove(&self) -> Result<()> {
        // `clean` may have removed it, and another process may have created the next one.
        if !is_at(self.log.file(), &self.path).map_err(|cause| self.failed(cause))? {
            return Ok(());
        }
        match std::fs::remove_file(&self.path) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(self.failed(cause)),
            _ => Ok(()),
        }
    }

    fn failed(&self, cause: std::io::Error) -> Error {
        unusable("cannot write the state file", cause, &self.path)
    }
}

/// An unfinished task of an earlier process; no process works on it.
pub struct PriorTask {
    path: PathBuf,
    /// Its header.
    pub header: TaskHeader,
}

impl PriorTask {
    /// Its records.
    pub fn records(&self) -> Result<TaskRecords> {
        TaskRecords::open(&self.path, u64::MAX)
    }
}

/// The records of a task file, without the header.
pub struct TaskRecords {
    path: PathBuf,
    records: Records,
}

impl TaskRecords {
    pub(super) fn open(path: &Path, end: u64) -> Result<Self> {
        let failed = |cause| unusable("cannot read the state file", cause, path);
        match open_to_read(path).map_err(failed)? {
            Opened::Regular(file) => {
                Ok(Self { path: path.to_owned(), records: Records::new(file, end) })
            }
            Opened::BlockDevice(_) | Opened::Other(_) => {
                Err(failed(std::io::ErrorKind::InvalidInput.into()))
            }
        }
    }
}

impl Iterator for TaskRecords {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut record = self.records.next();
        if record.as_ref().is_ok_and(|record| matches!(record, Some(Record { kind: HEADER, .. }))) {
            record = self.records.next();
        }
        record
            .map_err(|cause| unusable("cannot read the state file", cause, &self.path))
            .transpose()
    }
}

/// The header of a task file, if it has one.
pub(super) fn read_header(file: &File) -> std::io::Result<Option<TaskHeader>> {
    let mut file = file.try_clone()?;
    file.seek(SeekFrom::Start(0))?;
    let header = match Records::new(file, u64::MAX).next()? {
        Some(Record { kind: HEADER, payload }) => serde_json::from_slice(&payload).ok(),
        _ => None,
    };
    Ok(header)
}

/// Opens and locks a task file; `None` if it does not exist.
fn open_locked(path: &Path, failed: &impl Fn(std::io::Error) -> Error) -> Result<Option<File>> {
    // A process that lists tasks has a shared lock for a moment.
    const ATTEMPTS: u32 = 20;
    let mut attempt = 0;
    loop {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(failed(cause)),
        };
        match LockedFile::acquire(file).map_err(failed)? {
            LockAttempt::Locked(locked) => {
                // The earlier holder may have removed the file between our open and our lock.
                if is_at(locked.file(), path).map_err(failed)? {
                    return Ok(Some(locked.into_file()));
                }
            }
            LockAttempt::Busy if attempt < ATTEMPTS => {
                attempt += 1;
                std::thread::sleep(PAUSE);
            }
            LockAttempt::Busy => {
                return Err(Error::new(
                    ErrorKind::Exists,
                    "another process does this at the moment",
                )
                .code_as(ErrorCode::TaskInProgress)
                .at("state_file", path.display()));
            }
            LockAttempt::Unsupported(_) => {
                return Err(failed(std::io::ErrorKind::Unsupported.into()));
            }
        }
    }
}

/// The state file at `path` cannot be used.
pub(super) fn unusable(message: &'static str, cause: std::io::Error, path: &Path) -> Error {
    Error::io(message, cause)
        .code_as(ErrorCode::StateDirectoryUnusable)
        .at("state_file", path.display())
}

/// Locks the file of a task; `None` if it does not exist.
pub(super) fn lock(path: &Path) -> Result<Option<File>> {
    open_locked(path, &|cause| unusable("cannot open the state file", cause, path))
}
