//! The directory of the task files.

use std::fs;
use std::path::{Path, PathBuf};

use super::file::{PriorTask, TaskFile, TaskHeader, TaskRecords, lock, read_header};
use crate::base::{Error, ErrorCode, ErrorKind, Result, hex};
use crate::codec::sha256;
use crate::localfs::{Opened, free_bytes, is_locked, make_private_directory, open_to_read};

/// The state directory. Its task files are named `<16 hex digits>.task`.
#[derive(Clone, Debug)]
pub struct StateDirectory(PathBuf);

/// An unfinished task in the state directory.
#[derive(Clone, Debug)]
pub struct TaskEntry {
    /// Its file.
    pub path: PathBuf,
    /// Its header.
    pub header: TaskHeader,
    /// Whether a process works on it.
    pub running: bool,
}

impl TaskEntry {
    /// Its records.
    pub fn records(&self) -> Result<TaskRecords> {
        TaskRecords::open(&self.path, u64::MAX)
    }

    /// Locks the task until the returned value is dropped; `None` if another process works on it,
    /// or it does not exist any more.
    pub fn lock(&self) -> Result<Option<impl Sized + use<>>> {
        match lock(&self.path) {
            Err(error) if error.kind() == ErrorKind::Exists => Ok(None),
            locked => locked,
        }
    }

    /// Removes its file.
    pub fn remove(&self) -> Result<()> {
        fs::remove_file(&self.path).map_err(|cause| {
            super::file::unusable("cannot remove the state file", cause, &self.path)
        })
    }
}

impl StateDirectory {
    /// The directory `path`, which is created when the first task begins.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The file of the task with this `target` (a URL or an absolute path). There is one for each
    /// target, so the same command finds the task that it began.
    pub fn task_file(&self, target: &str) -> PathBuf {
        self.0.join(format!("{}.task", &hex(&sha256::digest(target.as_bytes()))[..16]))
    }

    /// Fails if the file system has less than `bytes` free. Called before the work begins.
    pub fn check_room(&self, bytes: u64) -> Result<()> {
        // A file system that does not report its free space reports an error when it is full.
        let Some(free) = free_bytes(&self.0) else { return Ok(()) };
        if free < bytes {
            return Err(Error::new(
                ErrorKind::Io,
                "there is too little room to remember how far the work got",
            )
            .code_as(ErrorCode::StateDirectoryUnusable)
            .at("state_directory", self.0.display())
            .at("needed", bytes)
            .at("free", free));
        }
        Ok(())
    }

    /// Begins or continues the task with this `target`; see [`TaskFile::begin`].
    pub fn begin(
        &self,
        target: &str,
        header: &TaskHeader,
        anew: bool,
        discard: &dyn Fn(&PriorTask) -> Result<()>,
    ) -> Result<TaskFile> {
        make_private_directory(&self.0).map_err(|cause| {
            Error::io("cannot make the state directory", cause)
                .code_as(ErrorCode::StateDirectoryUnusable)
                .at("state_directory", self.0.display())
        })?;
        TaskFile::begin(&self.task_file(target), header, anew, discard)
    }

    /// Fails as [`begin`](Self::begin) would because of an unfinished task with this `target`, and
    /// changes nothing. Returns the task that `begin` would continue.
    pub fn inspect(
        &self,
        target: &str,
        header: &TaskHeader,
        anew: bool,
    ) -> Result<Option<PriorTask>> {
        TaskFile::inspect(&self.task_file(target), header, anew)
    }

    /// All unfinished tasks, oldest first.
    pub fn tasks(&self) -> Result<Vec<TaskEntry>> {
        let failed = |cause| {
            Error::io("cannot read the state directory", cause)
                .code_as(ErrorCode::StateDirectoryUnusable)
                .at("state_directory", self.0.display())
        };
        let entries = match fs::read_dir(&self.0) {
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut tasks = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_none_or(|extension| extension != "task") {
                continue;
            }
            // The task may have ended since the directory was read.
            let Ok(Opened::Regular(file)) = open_to_read(&path) else { continue };
            if let Some(header) = read_header(&file).map_err(failed)? {
                tasks.push(TaskEntry { running: is_locked(&file), header, path });
            }
        }
        tasks.sort_by(|a, b| (&a.header.started, &a.path).cmp(&(&b.header.started, &b.path)));
        Ok(tasks)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Record;
    use super::*;
    use crate::base::TaskKind;

    fn record(byte: u8) -> Record {
        Record { kind: b'C', payload: vec![byte] }
    }

    fn header(fingerprint: &str) -> TaskHeader {
        TaskHeader {
            kind: TaskKind::Store,
            command: vec!["amistore".into(), "store".into()],
            directory: "/".into(),
            source: "image".into(),
            target: "s3://bucket/a.bin".into(),
            image_id: None,
            started: "2026-01-01T00:00:00Z".into(),
            nonce: String::new(),
            fingerprint: fingerprint.into(),
            settings: "s".into(),
            expected: 1,
        }
    }

    fn never(_: &PriorTask) -> Result<()> {
        panic!("nothing is discarded")
    }

    #[test]
    fn a_task_is_continued_where_it_stopped() {
        let root = tempfile::tempdir().expect("a directory");
        let directory = StateDirectory::new(root.path().join("new"));
        assert!(directory.tasks().expect("lists").is_empty());
        let mut task = directory.begin("t", &header("f"), false, &never).expect("begins");
        task.append(&record(1)).expect("appends");
        task.sync().expect("syncs");
        task.append(&record(2)).expect("appends");
        let busy = directory.begin("t", &header("f"), false, &never).err().expect("busy");
        assert_eq!(busy.kind(), ErrorKind::Exists);
        for anew in [false, true] {
            let busy = directory.inspect("t", &header("f"), anew).err().expect("busy");
            assert!(busy.is(ErrorCode::TaskInProgress), "{busy:?}");
        }
        assert!(directory.tasks().expect("lists")[0].running);
        drop(task);
        // A record that was not flushed is lost, and half a record as well.
        let path = directory.task_file("t");
        let mut bytes = fs::read(&path).expect("reads");
        bytes.extend_from_slice(&[9, 0, 0]);
        fs::write(&path, bytes).expect("writes");
        let mut task = directory.begin("t", &header("f"), false, &never).expect("continues");
        assert!(task.is_resumed());
        task.append(&Record { kind: b'E', payload: b"no power".to_vec() }).expect("appends");
        task.sync().expect("syncs");
        let records: Vec<_> =
            task.earlier().expect("opens").map(|record| record.expect("reads")).collect();
        assert_eq!(records, [record(1)]);
        assert_eq!(task.records().expect("opens").count(), 2);
        task.remove().expect("removes");
        assert!(directory.tasks().expect("lists").is_empty());
    }

    #[test]
    fn an_inspection_refuses_what_begin_refuses_and_changes_nothing() {
        let root = tempfile::tempdir().expect("a directory");
        let directory = StateDirectory::new(root.path().join("new"));
        let inspect = |header: &TaskHeader, anew| directory.inspect("t", header, anew);
        assert!(inspect(&header("f"), false).expect("no task").is_none());
        assert!(!directory.path().exists());
        drop(directory.begin("t", &header("f"), false, &never).expect("begins"));
        let path = directory.task_file("t");
        let before = fs::read(&path).expect("reads");
        let other = TaskHeader { settings: "other".into(), ..header("f") };
        let refused = inspect(&other, false).err().expect("other settings");
        assert!(refused.is(ErrorCode::BegunWithOtherSettings), "{refused:?}");
        assert!(inspect(&other, true).expect("anew").is_none());
        assert!(inspect(&header("g"), false).expect("something else").is_none());
        assert!(inspect(&header("f"), false).expect("continued").is_some());
        assert!(fs::read(&path).expect("reads") == before);
        assert!(!directory.tasks().expect("lists")[0].running, "the lock is free again");
    }

    #[test]
    fn room_is_looked_for_where_the_directory_will_be() {
        let root = tempfile::tempdir().expect("a directory");
        let directory = StateDirectory::new(root.path().join("not/there/yet"));
        assert!(directory.check_room(1).is_ok());
        assert_eq!(
            directory.check_room(u64::MAX).expect_err("too much").fact("needed"),
            Some("18446744073709551615")
        );
    }

    #[test]
    fn a_task_of_something_else_is_discarded() {
        let root = tempfile::tempdir().expect("a directory");
        let directory = StateDirectory::new(root.path());
        drop(directory.begin("t", &header("one"), false, &never).expect("begins"));
        let discarded = std::cell::RefCell::new(None);
        let discard = |prior: &PriorTask| {
            discarded.replace(Some(prior.header.fingerprint.clone()));
            Ok(())
        };
        let task = directory.begin("t", &header("two"), false, &discard);
        assert!(!task.expect("begins").is_resumed());
        assert_eq!(discarded.take().as_deref(), Some("one"));
        // With other settings it is kept, unless it is to be begun anew.
        let other = TaskHeader { settings: "other".into(), ..header("two") };
        assert_eq!(
            directory.begin("t", &other, false, &never).err().expect("refused").kind(),
            ErrorKind::Usage
        );
        assert!(!directory.begin("t", &other, true, &discard).expect("begins").is_resumed());
        assert_eq!(discarded.take().as_deref(), Some("two"));
    }
}
