//! Runs of the program: a file for each, in `runs/` of the state directory.
//!
//! The record of a run is optional, and needs no database: SQLite maps shared memory, and where the
//! disk is full the system ends a process that touches such memory. Nothing is synced: a power
//! failure may take the record. The file is locked for as long as its process exists.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind as IoKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::schema::{millis, time};
use super::{LISTED_FOR, LOST, NewTask, Origin, ProgressLog, TaskRow};
use crate::base::{Error, Result, TaskKind, TaskState, random_id};
use crate::localfs::{
    LockAttempt, LockedFile, Opened, is_locked, make_private_directory, open_to_read, write_all_at,
};

const EXTENSION: &str = "run";
/// The longest file that is read, in bytes.
const READ_LIMIT: u64 = 1 << 20;

/// A run whose work is in progress. Dropped without an end it is listed as lost.
#[derive(Debug)]
pub struct Run {
    path: PathBuf,
    file: File,
    /// The offset of the status.
    status_at: u64,
    /// The last progress.
    percent: AtomicU8,
    bytes: AtomicU64,
}

/// The first line of the file.
#[derive(Serialize, Deserialize)]
struct Header {
    kind: TaskKind,
    image_id: Option<String>,
    bucket: Option<String>,
    object_key: Option<String>,
    source: String,
    target: String,
    name: Option<String>,
    size: u64,
    /// Milliseconds since 1970.
    started: i64,
}

/// The second line, which is replaced.
#[derive(Default, Serialize, Deserialize)]
struct Status {
    percent: u8,
    bytes: u64,
    ended: Option<Ended>,
}

#[derive(Serialize, Deserialize)]
struct Ended {
    /// Milliseconds since 1970.
    at: i64,
    /// The reason of a failure.
    reason: Option<String>,
}

impl Run {
    /// Records that a run begins, and forgets those that are not listed any more.
    pub fn begin(state: &Path, task: &NewTask) -> Result<Self> {
        let directory = directory(state);
        let failed = |cause: std::io::Error| {
            Error::io("cannot record the run", cause).at("directory", directory.display())
        };
        make_private_directory(&directory).map_err(failed)?;
        sweep(&directory);
        let started = millis(SystemTime::now());
        // Later runs have higher numbers; 20 random bits keep those of one millisecond apart.
        let id = started << 20 | i64::try_from(random_id()? & 0xF_FFFF).unwrap_or(0);
        let path = directory.join(format!("{id:016x}.{EXTENSION}"));
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        let run = Self::write_header(&path, file, task, started);
        run.map_err(|cause| {
            // Without a header the file means nothing.
            let _ = fs::remove_file(&path);
            failed(cause)
        })
    }

    fn write_header(
        path: &Path,
        file: File,
        task: &NewTask,
        started: i64,
    ) -> std::io::Result<Self> {
        let file = match LockedFile::acquire(file)? {
            LockAttempt::Locked(file) => file.into_file(),
            // A process that lists runs has a shared lock for a moment.
            LockAttempt::Busy => return Err(IoKind::WouldBlock.into()),
            LockAttempt::Unsupported(_) => return Err(IoKind::Unsupported.into()),
        };
        let task = task.clone();
        let mut header = serde_json::to_vec(&Header {
            kind: task.kind,
            image_id: task.image_id,
            bucket: task.bucket,
            object_key: task.object_key,
            source: task.source,
            target: task.target,
            name: task.name,
            size: task.size,
            started,
        })?;
        header.push(b'\n');
        write_all_at(&file, &header, 0)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            status_at: header.len() as u64,
            percent: AtomicU8::new(0),
            bytes: AtomicU64::new(0),
        })
    }

    /// Records the end: a success, or the reason of a failure, which people read.
    pub fn end(&self, reason: Option<String>) -> Result<()> {
        let last = self.percent.load(Ordering::Relaxed);
        let percent = if reason.is_none() { 100 } else { last };
        let ended = Some(Ended { at: millis(SystemTime::now()), reason });
        self.write(&Status { percent, bytes: self.bytes.load(Ordering::Relaxed), ended })
    }

    /// Removes the record, because another process performs the task.
    pub fn forget(&self) -> Result<()> {
        fs::remove_file(&self.path).map_err(|cause| self.failed(cause))
    }

    fn write(&self, status: &Status) -> Result<()> {
        let mut line = serde_json::to_vec(status).map_err(|cause| self.failed(cause.into()))?;
        line.push(b'\n');
        write_all_at(&self.file, &line, self.status_at).map_err(|cause| self.failed(cause))
    }

    fn failed(&self, cause: std::io::Error) -> Error {
        Error::io("cannot record the run", cause).at("path", self.path.display())
    }
}

impl ProgressLog for Run {
    fn advance(&self, percent: u8, bytes: u64) -> Result<()> {
        let percent = percent.min(99);
        self.percent.store(percent, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
        self.write(&Status { percent, bytes, ended: None })
    }
}

/// The runs that are listed, in no order. A file that is not one of a run is left out.
pub fn recorded_runs(state: &Path) -> Result<Vec<TaskRow>> {
    let directory = directory(state);
    let failed = |cause| {
        Error::io("cannot read the record of runs", cause).at("directory", directory.display())
    };
    let entries = match fs::read_dir(&directory) {
        Err(cause) if cause.kind() == IoKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut rows = Vec::new();
    for entry in entries {
        rows.extend(row(&entry.map_err(failed)?.path()));
    }
    Ok(rows)
}

/// The run of a file; `None` for other files, and for a run that ended too long ago.
fn row(path: &Path) -> Option<TaskRow> {
    let name = path.file_name()?.to_str()?.strip_suffix(EXTENSION)?.strip_suffix('.')?;
    let id = i64::from_str_radix(name, 16).ok()?;
    let Ok(Opened::Regular(file)) = open_to_read(path) else { return None };
    // Looked at before the status is read: a process that has ended has written it.
    let running = is_locked(&file);
    let modified = file.metadata().ok()?.modified().ok()?;
    let mut text = Vec::new();
    file.take(READ_LIMIT).read_to_end(&mut text).ok()?;
    let mut lines = text.split(|byte| *byte == b'\n');
    let header: Header = serde_json::from_slice(lines.next()?).ok()?;
    // A status that is being replaced is read the next time.
    let status: Option<Status> = lines.next().and_then(|line| serde_json::from_slice(line).ok());
    let status = status.unwrap_or_default();
    let (state, ended, reason) = match status.ended {
        Some(Ended { at, reason: None }) => (TaskState::Completed, Some(time(at)), None),
        Some(Ended { at, reason }) => (TaskState::Failed, Some(time(at)), reason),
        None if running => (TaskState::InProgress, None, None),
        None => (TaskState::Failed, Some(modified), Some(LOST.to_owned())),
    };
    if ended.is_some_and(is_old) {
        return None;
    }
    let task = NewTask {
        image_id: header.image_id,
        bucket: header.bucket,
        object_key: header.object_key,
        name: header.name,
        size: header.size,
        ..NewTask::new(header.kind, Origin::Command, header.source, header.target)
    };
    Some(TaskRow {
        id,
        task,
        restored_id: None,
        state,
        percent: status.percent,
        bytes: status.bytes,
        started: time(header.started),
        ended,
        reason,
        owner: None,
    })
}

/// Removes the files of runs that ended too long ago. A run of which nothing is known any more is
/// none.
fn sweep(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        // The age first: most files are young, and are not opened.
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        if !modified.is_ok_and(is_old) {
            continue;
        }
        let path = entry.path();
        if matches!(open_to_read(&path), Ok(Opened::Regular(file)) if !is_locked(&file)) {
            let _ = fs::remove_file(&path);
        }
    }
}

fn is_old(time: SystemTime) -> bool {
    // A clock that was set back makes nothing old.
    SystemTime::now().duration_since(time).unwrap_or(Duration::ZERO) > LISTED_FOR
}

fn directory(state: &Path) -> PathBuf {
    state.join("runs")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> NewTask {
        let bucket = Some("b".to_owned());
        NewTask { bucket, ..NewTask::new(TaskKind::Store, Origin::Command, "disk", "s3://b/a") }
    }

    #[test]
    fn a_run_is_listed_while_its_process_exists_and_after_its_end() {
        let state = tempfile::tempdir().expect("a directory");
        assert_eq!(recorded_runs(state.path()).expect("no runs"), []);
        let run = Run::begin(state.path(), &task()).expect("begins");
        run.advance(100, 7).expect("writes");
        let listed = recorded_runs(state.path()).expect("lists").remove(0);
        assert_eq!((listed.state, listed.percent, listed.bytes), (TaskState::InProgress, 99, 7));
        assert_eq!(listed.task, task());
        run.end(None).expect("ends");
        let listed = recorded_runs(state.path()).expect("lists").remove(0);
        assert_eq!((listed.state, listed.percent), (TaskState::Completed, 100));
        assert!(listed.ended.is_some_and(|ended| ended >= listed.started));
        let failed = Run::begin(state.path(), &task()).expect("begins");
        failed.end(Some("no room".to_owned())).expect("ends");
        drop(Run::begin(state.path(), &task()).expect("begins"));
        Run::begin(state.path(), &task()).expect("begins").forget().expect("removes");
        let mut listed = recorded_runs(state.path()).expect("lists");
        listed.sort_by(|one, other| one.reason.cmp(&other.reason));
        let reasons: Vec<_> = listed.iter().map(|row| row.reason.as_deref()).collect();
        assert_eq!(reasons, [None, Some("no room"), Some(LOST)]);
    }

    #[test]
    fn a_file_that_is_not_of_a_run_is_left_out_and_an_old_run_is_removed() {
        let state = tempfile::tempdir().expect("a directory");
        Run::begin(state.path(), &task()).expect("begins").end(None).expect("ends");
        let directory = directory(state.path());
        let old = directory.join("0000000000000001.run");
        fs::write(&old, "half a hea").expect("writes");
        fs::write(directory.join("x.run"), "{}\n").expect("writes");
        assert_eq!(recorded_runs(state.path()).expect("lists").len(), 1);
        let long_ago = SystemTime::now() - LISTED_FOR - Duration::from_secs(1);
        let file = File::options().write(true).open(&old).expect("opens");
        file.set_modified(long_ago).expect("sets the time");
        drop(Run::begin(state.path(), &task()).expect("begins"));
        assert!(!old.exists());
    }
}
