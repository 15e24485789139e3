//! One piece of unfinished work, and its file.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::log::{Appender, Records, encode};
use crate::base::{Error, ErrorKind, Result};
use crate::localfs::{rename_new, sync_directory};

const HEADER: u8 = b'H';
const UPLOAD: u8 = b'U';
const PART: u8 = b'P';
const CELL: u8 = b'C';
const DOCUMENT: u8 = b'D';
const SNAPSHOT: u8 = b'S';
const FAILED: u8 = b'E';

/// What sort of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskKind {
    /// An image goes into an archive.
    Store,
    /// An archive goes into an image.
    Restore,
    /// An archive goes from one store to another.
    Copy,
}

impl TaskKind {
    /// The stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Restore => "restore",
            Self::Copy => "copy",
        }
    }
}

/// What the work is. Written once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskHeader {
    /// What sort of work.
    pub kind: TaskKind,
    /// The command line that continues it.
    pub command: Vec<String>,
    /// Where it was given; relative paths in the command mean places below.
    pub directory: String,
    /// Where from, for people.
    pub source: String,
    /// Where to, for people: a URL or a path.
    pub target: String,
    /// The AMI id, if the image has one.
    pub image_id: Option<String>,
    /// When it began: RFC 3339, UTC.
    pub started: String,
    /// What no other work has, of another machine and of the same second neither.
    #[serde(default)]
    pub nonce: String,
    /// Digest of what the result is made of. Work with another one is of no use any more.
    pub fingerprint: String,
    /// Digest of how it is made. Work with another one is of use, but not to this command.
    pub settings: String,
    /// About how many bytes there are to be written; for percentages.
    pub expected: u64,
}

impl TaskHeader {
    /// Whether the work of the other is just this work.
    fn is_same(&self, other: &Self) -> bool {
        (self.kind, &self.fingerprint, &self.settings)
            == (other.kind, &other.fingerprint, &other.settings)
    }

    /// What partial files of the task are called by: the same for the same result, and for no
    /// other.
    pub fn tag(&self) -> String {
        self.fingerprint.chars().take(16).collect()
    }
}

/// A multipart upload that was begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadState {
    /// Where the service is; empty for AWS's own endpoint.
    pub endpoint: String,
    /// The Region.
    pub region: String,
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// What the service calls the upload.
    pub upload_id: String,
    /// Length of every part but the last.
    pub part_size: u64,
    /// The checksum that parts carry.
    pub checksum: String,
    /// What was asked for with the object: encryption, class, tags. An upload cannot change it any
    /// more.
    pub options: String,
    /// The profile that was named.
    pub profile: Option<String>,
    /// The number of the first part of each stretch that is written for itself; none if there is
    /// one stretch, from part 1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stretches: Vec<u32>,
}

/// A run of bytes of a stretch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// The stretch.
    pub stretch: u16,
    /// Where it begins, counted from the beginning of the stretch.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// A part that was cut, and may have been sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRecord {
    /// From 1.
    pub number: u32,
    /// Bytes.
    pub len: u64,
    /// Checksum of its bytes, as the service prints it.
    pub checksum: String,
    /// What the service called it, once it was confirmed.
    pub etag: Option<String>,
    /// What it is made of, in order; nothing where all parts have one size and follow each other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pieces: Vec<Piece>,
}

/// A snapshot in EC2 that was begun. Cells of its volume that were noted before are not in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotState {
    /// The volume of the archive.
    pub volume: u16,
    /// What EC2 calls it.
    pub snapshot_id: String,
    /// Which attempt at this volume it is, from 0.
    pub attempt: u32,
    /// Where EBS is; empty for AWS's own endpoint.
    pub ebs_endpoint: String,
    /// Where EC2 is; empty for AWS's own endpoint.
    pub ec2_endpoint: String,
    /// The Region.
    pub region: String,
    /// The profile that was named.
    pub profile: Option<String>,
}

/// What a task file says, in the order it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskRecord {
    /// An upload was begun.
    Upload(UploadState),
    /// A part was cut.
    Part(PartRecord),
    /// A cell was made, or written; what the bytes say is the business of whoever wrote them.
    Cell(Vec<u8>),
    /// The metadata of the image as it was when the work began.
    Document(Vec<u8>),
    /// A snapshot was begun.
    Snapshot(SnapshotState),
    /// The work ended with this error, and can be continued.
    Failed(String),
}

/// A task that this process works on. The file is locked until it is dropped.
pub struct Task {
    path: PathBuf,
    header: TaskHeader,
    log: Appender,
    /// Continues what an earlier process began.
    resumed: bool,
    /// Where its records end.
    earlier: u64,
}

impl Task {
    /// Begins or continues the task of this file. One that another process works on is an error of
    /// kind `Exists`; one of the same thing in another way is an error of kind `Usage`, unless it
    /// is to be begun `anew`. One of something else is given to `discard`, which undoes what it
    /// left behind.
    pub fn begin(
        path: &Path,
        header: &TaskHeader,
        anew: bool,
        discard: &dyn Fn(&Earlier) -> Result<()>,
    ) -> Result<Self> {
        let failed = |cause: std::io::Error| {
            Error::io("cannot write the state file", cause).at("state_file", path.display())
        };
        loop {
            if let Some(file) = open_locked(path, &failed)? {
                match read_header(&file).map_err(failed)? {
                    // Not even a header: nothing was done.
                    None => {}
                    Some(earlier) if !anew && earlier.is_same(header) => {
                        return Self::resume(path, file, earlier).map_err(failed);
                    }
                    Some(earlier)
                        if !anew
                            && earlier.kind == header.kind
                            && earlier.fingerprint == header.fingerprint =>
                    {
                        return Err(Error::usage("this was begun with other settings, and can only be continued with those")
                            .at("state_file", path.display())
                            .at("begun_with", earlier.command.join(" ")));
                    }
                    Some(earlier) => discard(&Earlier { path: path.to_owned(), header: earlier })?,
                }
                std::fs::remove_file(path).map_err(failed)?;
            }
            if let Some(task) = Self::create(path, header.clone()).map_err(failed)? {
                return Ok(task);
            }
            // Somebody else was there first; the lock tells.
        }
    }

    /// Makes the file, whole and locked; `None` if there is one meanwhile.
    fn create(path: &Path, header: TaskHeader) -> std::io::Result<Option<Self>> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let fresh = path.with_file_name(name);
        // A command line may hold what is nobody else's business.
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let json = serde_json::to_vec(&header)?;
        file.write_all(&encode(HEADER, &json))?;
        file.sync_data()?;
        match rename_new(&fresh, path) {
            Err(cause) if cause.kind() == std::io::ErrorKind::AlreadyExists => {
                std::fs::remove_file(&fresh)?;
                return Ok(None);
            }
            renamed => renamed?,
        }
        // Without its name on disk the file would be lost with the power, and with it the upload.
        sync_directory(path).map_err(std::io::Error::other)?;
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

    /// What the work is.
    pub fn header(&self) -> &TaskHeader {
        &self.header
    }

    /// Whether an earlier process began it.
    pub fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// The task as a later process would find it.
    pub fn as_earlier(&self) -> Earlier {
        Earlier { path: self.path.clone(), header: self.header.clone() }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What earlier processes noted, from the start. What this one notes does not come into it.
    pub fn earlier(&self) -> Result<TaskRecords> {
        TaskRecords::open(&self.path, self.earlier)
    }

    /// What was noted by all, as far as it was flushed.
    pub fn records(&self) -> Result<TaskRecords> {
        TaskRecords::open(&self.path, u64::MAX)
    }

    /// Notes something. It survives a crash of the process after [`flush`](Self::flush) and one of
    /// the machine after [`sync`](Self::sync).
    pub fn note(&mut self, record: &TaskRecord) -> Result<()> {
        let written = match record {
            TaskRecord::Upload(upload) => serde_json::to_vec(upload)
                .map_err(Into::into)
                .and_then(|json| self.log.append(UPLOAD, &json)),
            TaskRecord::Part(part) => serde_json::to_vec(part)
                .map_err(Into::into)
                .and_then(|json| self.log.append(PART, &json)),
            TaskRecord::Cell(bytes) => self.log.append(CELL, bytes),
            TaskRecord::Document(bytes) => self.log.append(DOCUMENT, bytes),
            TaskRecord::Snapshot(snapshot) => serde_json::to_vec(snapshot)
                .map_err(Into::into)
                .and_then(|json| self.log.append(SNAPSHOT, &json)),
            TaskRecord::Failed(reason) => self.log.append(FAILED, reason.as_bytes()),
        };
        written.map_err(|cause| self.failed(cause))
    }

    /// Hands what was noted to the system.
    pub fn flush(&mut self) -> Result<()> {
        self.log.flush().map_err(|cause| self.failed(cause))
    }

    /// Writes what was noted to disk.
    pub fn sync(&mut self) -> Result<()> {
        self.log.sync().map_err(|cause| self.failed(cause))
    }

    /// The work is done, or undone: there is nothing to continue.
    pub fn finish(&self) -> Result<()> {
        // Whoever cleaned up meanwhile may have made room for another.
        if !is_named(self.log.file(), &self.path).map_err(|cause| self.failed(cause))? {
            return Ok(());
        }
        match std::fs::remove_file(&self.path) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(self.failed(cause)),
            _ => Ok(()),
        }
    }

    fn failed(&self, cause: std::io::Error) -> Error {
        Error::io("cannot write the state file", cause).at("state_file", self.path.display())
    }
}

/// A task of an earlier process, which nobody works on.
pub struct Earlier {
    path: PathBuf,
    /// What the work was.
    pub header: TaskHeader,
}

impl Earlier {
    /// What was noted.
    pub fn records(&self) -> Result<TaskRecords> {
        TaskRecords::open(&self.path, u64::MAX)
    }
}

/// The records of a task, one by one.
pub struct TaskRecords {
    path: PathBuf,
    records: Records,
}

impl TaskRecords {
    pub(super) fn open(path: &Path, end: u64) -> Result<Self> {
        let file = File::open(path).map_err(|cause| {
            Error::io("cannot read the state file", cause).at("state_file", path.display())
        })?;
        Ok(Self { path: path.to_owned(), records: Records::new(file, end) })
    }

    fn next_record(&mut self) -> std::io::Result<Option<TaskRecord>> {
        while let Some((kind, payload)) = self.records.next()? {
            let record = match kind {
                UPLOAD => serde_json::from_slice(&payload).ok().map(TaskRecord::Upload),
                PART => serde_json::from_slice(&payload).ok().map(TaskRecord::Part),
                CELL => Some(TaskRecord::Cell(payload)),
                DOCUMENT => Some(TaskRecord::Document(payload)),
                SNAPSHOT => serde_json::from_slice(&payload).ok().map(TaskRecord::Snapshot),
                FAILED => Some(TaskRecord::Failed(String::from_utf8_lossy(&payload).into_owned())),
                // The header, and what later versions may write.
                _ => None,
            };
            if record.is_some() {
                return Ok(record);
            }
        }
        Ok(None)
    }
}

impl Iterator for TaskRecords {
    type Item = Result<TaskRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = self.next_record();
        record
            .map_err(|cause| {
                Error::io("cannot read the state file", cause).at("state_file", self.path.display())
            })
            .transpose()
    }
}

/// The header of a task file, if it has one.
pub(super) fn read_header(file: &File) -> std::io::Result<Option<TaskHeader>> {
    let mut file = file.try_clone()?;
    file.seek(SeekFrom::Start(0))?;
    let header = match Records::new(file, u64::MAX).next()? {
        Some((HEADER, json)) => serde_json::from_slice(&json).ok(),
        _ => None,
    };
    Ok(header)
}

/// Opens the file of a task and locks it; `None` if there is none.
fn open_locked(path: &Path, failed: &impl Fn(std::io::Error) -> Error) -> Result<Option<File>> {
    // Whoever lists tasks holds the lock for a moment.
    const ATTEMPTS: u32 = 20;
    let mut attempt = 0;
    loop {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(failed(cause)),
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            // Whoever held it may have finished the task, and removed the file, between our open
            // and our lock.
            Ok(()) if is_named(&file, path).map_err(failed)? => return Ok(Some(file)),
            Ok(()) => {}
            Err(Errno::AGAIN) if attempt < ATTEMPTS => {
                attempt += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(Errno::AGAIN) => {
                return Err(Error::new(
                    ErrorKind::Exists,
                    "another process does this at the moment",
                )
                .at("state_file", path.display()));
            }
            Err(cause) => return Err(failed(cause.into())),
        }
    }
}

/// Whether `path` is still the name of this file.
fn is_named(file: &File, path: &Path) -> std::io::Result<bool> {
    let own = file.metadata()?;
    match std::fs::symlink_metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (own.dev(), own.ino())),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(cause) => Err(cause),
    }
}

/// Locks the file of a task.
pub(super) fn hold(path: &Path) -> Result<Option<File>> {
    open_locked(path, &|cause| {
        Error::io("cannot open the state file", cause).at("state_file", path.display())
    })
}

/// Whether somebody works on the task of this file.
pub(super) fn is_locked(file: &File) -> bool {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            let _ = flock(file, FlockOperation::Unlock);
            false
        }
        Err(_) => true,
    }
}
