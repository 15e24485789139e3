//! Resumable work: begins or continues the task file of a use case, records its progress, and
//! removes the file at its end. No other module begins or ends a task file.
//!
//! Ports report progress to journals ([`UploadJournal`], [`RestoreJournal`]); the [`RunningTask`]
//! writes it down, and gives ports the record of earlier runs as data.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::records::{TaskRecord, decoded};
use crate::base::{
    Error, ErrorCode, ErrorKind, Event, Observer, Result, Resume, TaskKind, hex, random_id,
    rfc3339, steers_terminal,
};
use crate::checkpoint::{PriorTask, StateDirectory, TaskFile, TaskHeader, TaskRecords};
use crate::codec::sha256;
use crate::engine::{CellLog, Cells, LoggedCell};
use crate::image::{RestoreJournal, RestoreRecord, ResumableRestore, SnapshotBegun};
use crate::object::{
    ObjectStore, PriorUpload, ResumableUpload, UploadBegun, UploadIntent, UploadJournal, UploadPart,
};

/// Bytes of all records but those of cells: header, upload, parts.
const OTHER_RECORDS: u64 = 2 << 20;
/// The end of the target of a trial upload: it has a task of its own.
pub(super) const TRIAL: &str = " (trial upload)";
/// Bytes of data in a cell without holes.
const CELL: u64 = 4 << 20;
/// Bytes of the record of a cell.
pub(super) const CELL_RECORD: u64 = 128;
/// Bytes of the record of a cell with the digests of its blocks.
pub(super) const CELL_RECORD_WITH_DIGESTS: u64 = 320;

/// Makes a use case resumable.
#[derive(Clone, Debug)]
pub struct Resumption {
    /// The directory of task files.
    pub directory: StateDirectory,
    /// The command line that continues it.
    pub command: Vec<String>,
    /// The working directory of that command.
    pub working_directory: String,
    /// The source, for people.
    pub source: String,
    /// The target: a URL or an absolute path. There is one task for each.
    pub target: String,
    /// Discards an unfinished task and begins anew.
    pub restart: bool,
}

/// The part of a task's header that the use case decides.
pub(super) struct Work {
    pub(super) kind: TaskKind,
    pub(super) image_id: Option<String>,
    pub(super) expected: u64,
    /// Identity of the source. With another one an unfinished task is discarded.
    pub(super) fingerprint: Vec<String>,
    /// Options of the work. With other ones it cannot be continued.
    pub(super) settings: Vec<String>,
    /// Bytes of the record of a cell.
    pub(super) cell_record: u64,
}

impl Resumption {
    /// Begins the task or continues it. `discard` removes the leftovers of an unfinished task with
    /// another fingerprint.
    pub(super) fn begin(
        &self,
        work: &Work,
        observer: &dyn Observer,
        discard: impl Fn(&PriorTask) -> Result<()>,
    ) -> Result<RunningTask> {
        let header = self.header(work)?;
        let discard = |prior: &PriorTask| {
            let message = format!(
                "an unfinished {} to {} is of something else, and is undone",
                prior.header.kind.name(),
                self.target
            );
            observer.note(&Event::Warning { message });
            discard(prior)
        };
        let task = self.directory.begin(&self.target, &header, self.restart, &discard)?;
        if task.is_resumed() {
            observer.note(&Event::Note {
                message: format!("continues what was begun at {}", task.header().started),
            });
        }
        Ok(RunningTask(Arc::new(Mutex::new(task))))
    }

    /// Begins or continues a task with the only fingerprint of its target.
    #[cfg(feature = "aws")]
    pub(super) fn begin_silently(&self, work: &Work) -> Result<RunningTask> {
        let header = self.header(work)?;
        let task = self.directory.begin(&self.target, &header, self.restart, &|_| Ok(()))?;
        Ok(RunningTask(Arc::new(Mutex::new(task))))
    }

    /// Fails as [`begin`](Self::begin) would, and changes nothing: the state directory has no room,
    /// another process works on the task, or the task was begun with other settings. Returns the
    /// task that `begin` would continue.
    pub(super) fn check(&self, work: &Work) -> Result<Option<PriorTask>> {
        self.directory.inspect(&self.target, &self.header(work)?, self.restart)
    }

    /// The header of a new task; an error if the state directory has no room for its records.
    fn header(&self, work: &Work) -> Result<TaskHeader> {
        self.directory.check_room(OTHER_RECORDS + work.expected / CELL * work.cell_record)?;
        Ok(TaskHeader {
            kind: work.kind,
            command: self.command.clone(),
            directory: self.working_directory.clone(),
            source: self.source.clone(),
            target: self.target.clone(),
            image_id: work.image_id.clone(),
            started: rfc3339(SystemTime::now()),
            nonce: format!("{:032x}", random_id()?),
            fingerprint: digest(&work.fingerprint),
            settings: digest(&work.settings),
            expected: work.expected,
        })
    }
}

/// The SHA-256 of texts, each preceded by its length, in hex.
fn digest(texts: &[String]) -> String {
    let mut input = Vec::new();
    for text in texts {
        input.extend_from_slice(&(text.len() as u64).to_le_bytes());
        input.extend_from_slice(text.as_bytes());
    }
    hex(&sha256::digest(&input))
}

/// Aborts the uploads in the records of a task.
pub(super) fn abort_uploads(store: &dyn ObjectStore, records: TaskRecords) -> Result<()> {
    let mut last_intent = None;
    for record in decoded(records) {
        match record? {
            TaskRecord::Intent(intent) => last_intent = Some(intent),
            TaskRecord::Upload(upload) => {
                last_intent = None;
                store.abort(&upload)?;
            }
            _ => {}
        }
    }
    match last_intent {
        Some(intent) => store.abort_intended(&intent),
        None => Ok(()),
    }
}

/// The record of a restore, as its destination needs it.
pub(super) fn restore_record(prior: &PriorTask) -> Result<RestoreRecord> {
    record_of(&prior.header, prior.records()?)
}

fn record_of(header: &TaskHeader, records: TaskRecords) -> Result<RestoreRecord> {
    let mut snapshots = Vec::new();
    for record in decoded(records) {
        if let TaskRecord::Snapshot(snapshot) = record? {
            snapshots.push(snapshot);
        }
    }
    let TaskHeader { fingerprint, settings, started, nonce, target, .. } = header;
    let identity = format!("{fingerprint} {settings} {started} {nonce} {target}");
    Ok(RestoreRecord { tag: header.tag(), identity, snapshots })
}

/// The upload of a task that would be continued.
#[cfg(feature = "aws")]
pub(super) fn prior_upload(prior: &PriorTask) -> Result<PriorUpload> {
    upload_of(prior.header.started.clone(), prior.records()?)
}

/// The upload in the records of a task that was started at `started`.
fn upload_of(started: String, records: TaskRecords) -> Result<PriorUpload> {
    let (mut found, mut intended) = (None, None);
    for record in decoded(records) {
        let record = record?;
        match &record {
            TaskRecord::Intent(intent) => intended = Some(intent.started.clone()),
            TaskRecord::Upload(_) => intended = None,
            _ => {}
        }
        match (record, &mut found) {
            // A later upload replaces an earlier one that was gone.
            (TaskRecord::Upload(upload), _) => found = Some((upload, BTreeMap::new())),
            (TaskRecord::Part(part), Some((_, parts))) => {
                parts.insert(part.number, part);
            }
            _ => {}
        }
    }
    if let Some(started) = intended {
        return Ok(PriorUpload::Unrecorded { started });
    }
    Ok(match found {
        Some((upload, parts)) => PriorUpload::Recorded { upload: Box::new(upload), parts },
        None => PriorUpload::Unrecorded { started },
    })
}

/// A task whose work is in progress. Clones share it.
#[derive(Clone)]
pub(super) struct RunningTask(Arc<Mutex<TaskFile>>);

impl RunningTask {
    fn with<T>(&self, work: impl FnOnce(&mut TaskFile) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Appends a record. It survives this process.
    fn record(&self, record: &TaskRecord) -> Result<()> {
        let record = record.encode()?;
        self.with(|file| file.append(&record).and_then(|()| file.flush()))
    }

    /// Appends a record. It survives a power failure.
    fn record_durably(&self, record: &TaskRecord) -> Result<()> {
        let record = record.encode()?;
        self.with(|file| file.append(&record).and_then(|()| file.sync()))
    }

    /// The records of earlier runs.
    fn earlier(&self) -> Result<impl Iterator<Item = Result<TaskRecord>> + Send + use<>> {
        Ok(decoded(self.with(|file| file.earlier())?))
    }

    /// The records of all runs.
    fn records(&self) -> Result<impl Iterator<Item = Result<TaskRecord>> + Send + use<>> {
        Ok(decoded(self.with(|file| file.records())?))
    }

    pub(super) fn is_resumed(&self) -> bool {
        self.with(|file| file.is_resumed())
    }

    /// The journal of an upload, and the upload of earlier runs.
    pub(super) fn upload(&self) -> Result<ResumableUpload> {
        Ok(ResumableUpload { journal: Arc::new(self.clone()), prior: self.prior_upload()? })
    }

    fn prior_upload(&self) -> Result<PriorUpload> {
        if !self.is_resumed() {
            return Ok(PriorUpload::None);
        }
        let (started, earlier) = self.with(|file| (file.header().started.clone(), file.earlier()));
        upload_of(started, earlier?)
    }

    /// The journal of a restore, and its record.
    pub(super) fn restore(&self) -> Result<ResumableRestore> {
        let (header, earlier) = self.with(|file| (file.header().clone(), file.earlier()));
        let record = record_of(&header, earlier?)?;
        Ok(ResumableRestore { journal: Arc::new(self.clone()), record })
    }

    /// Aborts all recorded uploads.
    pub(super) fn abort_uploads(&self, store: &dyn ObjectStore) -> Result<()> {
        let records = self.with(|file| file.flush().and_then(|()| file.records()))?;
        abort_uploads(store, records)
    }

    /// The bytes of `image.json` that the first run recorded.
    pub(super) fn document(&self) -> Result<Option<Vec<u8>>> {
        let recorded = self.earlier()?.find_map(|record| match record {
            Ok(TaskRecord::Document(bytes)) => Some(Ok(bytes)),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        });
        recorded.transpose()
    }

    /// Records the bytes of `image.json`.
    pub(super) fn record_document(&self, bytes: &[u8]) -> Result<()> {
        self.record(&TaskRecord::Document(bytes.to_vec()))
    }

    /// Records a cell.
    pub(super) fn record_cell<C: LoggedCell>(&self, cell: &C) -> Result<()> {
        // Flushed at once: a buffer of 64 KiB has a thousand records, and they stand for gigabytes
        // that would be processed again after a kill.
        self.record(&TaskRecord::Cell(cell.encode()))
    }

    /// The cells that earlier runs recorded, up to the first that cannot be decoded, and a function
    /// that records those of this run. With a `volume` only its cells. Cells that were recorded
    /// before the last snapshot of their volume are not in that snapshot, and are left out.
    pub(super) fn log<C: LoggedCell>(&self, volume: Option<u16>) -> Result<CellLog<'static, C>> {
        let task = self.clone();
        let note = move |cell: &C| task.record_cell(cell);
        let mut begun = BTreeMap::new();
        for (position, record) in self.records()?.enumerate() {
            if let TaskRecord::Snapshot(snapshot) = record? {
                begun.insert(snapshot.volume, position);
            }
        }
        let earlier = self.recorded_cells()?.filter_map(move |cell| match cell {
            Ok((position, cell)) => {
                let cell: C = cell;
                let counts = volume.is_none_or(|volume| cell.volume() == volume);
                let is_there = begun.get(&cell.volume()).is_none_or(|begun| position > *begun);
                (counts && is_there).then_some(Ok(cell))
            }
            Err(error) => Some(Err(error)),
        });
        Ok(CellLog { earlier: Box::new(earlier), note: Box::new(note) })
    }

    /// The cells of a volume that earlier runs recorded, for work without snapshots.
    pub(super) fn cells_of<C: LoggedCell>(&self, volume: u16) -> Result<Cells<'static, C>> {
        let cells = self.recorded_cells::<C>()?.map(|cell| cell.map(|(_, cell)| cell));
        Ok(Box::new(
            cells.filter(move |cell| cell.as_ref().map_or(true, |cell| cell.volume() == volume)),
        ))
    }

    /// All cells that earlier runs recorded, each with its position among all records, up to the
    /// first that cannot be decoded.
    fn recorded_cells<C: LoggedCell>(
        &self,
    ) -> Result<impl Iterator<Item = Result<(usize, C)>> + Send + use<C>> {
        let cells = self.earlier()?.enumerate().filter_map(|(position, record)| match record {
            Ok(TaskRecord::Cell(bytes)) => Some(Ok((position, bytes))),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        });
        Ok(cells.map_while(|cell| match cell {
            Ok((position, bytes)) => C::decode(&bytes).map(|cell| Ok((position, cell))),
            Err(error) => Some(Err(error)),
        }))
    }

    /// Ends the task with the outcome of its work. After success its file is removed. After an
    /// error it stays if a later run can reuse something, and the error names the command that
    /// continues; otherwise `undo` removes the leftovers, and the file is removed.
    pub(super) fn end<T>(
        self,
        outcome: Result<T>,
        resumption: &Resumption,
        undo: impl FnOnce(&PriorTask) -> Result<()>,
    ) -> Result<T> {
        let error = match outcome {
            Ok(value) => {
                self.remove()?;
                return Ok(value);
            }
            Err(error) => error,
        };
        match self.worth(&error) {
            Ok(Worth { is_worth: true, snapshots }) => {
                let keeps_snapshots = !snapshots.is_empty();
                let error = if snapshots.is_empty() {
                    error
                } else {
                    error.at("snapshots_kept", snapshots.join(", "))
                };
                let reason = std::iter::once(error.message().to_owned())
                    .chain(error.causes())
                    .collect::<Vec<_>>()
                    .join(": ");
                // The first error is the one to report.
                let _ = self.record_durably(&TaskRecord::Failed(reason));
                if is_final(&error) {
                    Err(error)
                } else {
                    let command = shell_line(&resumption.command);
                    Err(error.resumed_by(Resume { command, keeps_snapshots }))
                }
            }
            Ok(Worth { is_worth: false, .. }) => {
                // The file stays while there are leftovers that it names.
                match undo(&self.with(|file| file.as_prior())) {
                    Ok(()) => {
                        let _ = self.remove();
                        Err(error)
                    }
                    Err(left) => Err(error.at("left_behind", left_behind(&left))),
                }
            }
            Err(_) => Err(error),
        }
    }

    /// Removes the task file.
    pub(super) fn remove(&self) -> Result<()> {
        self.with(|file| file.remove())
    }

    /// Aborts all recorded uploads and removes the task file, after damage to the source. If that
    /// fails the task stays.
    pub(super) fn give_up(&self, store: &dyn ObjectStore) -> Result<bool> {
        if self.abort_uploads(store).is_err() {
            return Ok(false);
        }
        self.remove().map(|()| true)
    }

    /// Determines what a later run can reuse.
    fn worth(&self, error: &Error) -> Result<Worth> {
        // The cells of a restore are in its volumes; those of an archive only if they were sent.
        let restores = self.with(|file| file.header().kind) == TaskKind::Restore;
        // If the disk is full, the records that were flushed before still count.
        let _ = self.with(|file| file.sync());
        let (mut begun, mut snapshots) = (false, Vec::new());
        for record in self.records()? {
            match record? {
                TaskRecord::Upload(_) => begun = true,
                TaskRecord::Cell(_) => begun |= restores,
                TaskRecord::Snapshot(snapshot) => snapshots.push(snapshot.snapshot_id),
                _ => {}
            }
        }
        // A damaged archive cannot be restored by a later run either, and snapshots cost money.
        let is_worth = !error.undoes()
            && if snapshots.is_empty() { begun } else { error.kind() != ErrorKind::Corrupt };
        Ok(Worth { is_worth, snapshots })
    }
}

/// Whether the same command would fail again: it would find the same object, or the same change.
fn is_final(error: &Error) -> bool {
    error.kind() == ErrorKind::Exists
        || matches!(
            error.code(),
            Some(
                ErrorCode::BegunWithOtherSettings
                    | ErrorCode::SourceChanged
                    | ErrorCode::FinishedObjectDiffers
            )
        )
}

/// The snapshots that could not be deleted, or the reason why something could not be undone.
fn left_behind(error: &Error) -> String {
    match error.left_snapshots() {
        [] => error.message().to_owned(),
        snapshots => snapshots.join(", "),
    }
}

/// Resources that a later run can reuse.
struct Worth {
    is_worth: bool,
    /// Ids of snapshots in EC2 that stay for it.
    snapshots: Vec<String>,
}

impl UploadJournal for RunningTask {
    fn upload_intended(&self, intent: &UploadIntent) -> Result<()> {
        self.record_durably(&TaskRecord::Intent(intent.clone()))
    }

    fn upload_begun(&self, upload: &UploadBegun) -> Result<()> {
        self.record_durably(&TaskRecord::Upload(upload.clone()))
    }

    fn part_sent(&self, part: &UploadPart) -> Result<()> {
        self.record(&TaskRecord::Part(part.clone()))
    }
}

impl RestoreJournal for RunningTask {
    fn snapshot_begun(&self, snapshot: &SnapshotBegun) -> Result<()> {
        self.record_durably(&TaskRecord::Snapshot(snapshot.clone()))
    }
}

/// A command line in the syntax of a shell: of POSIX, which since 2024 has `$'...'` for words with
/// characters that no terminal shows.
pub fn shell_line(command: &[String]) -> String {
    let plain = |word: &str| {
        !word.is_empty()
            && word
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_./:=,@%+".contains(&byte))
    };
    let quoted = |word: &String| {
        if plain(word) {
            word.clone()
        } else if word.contains(steers_terminal) {
            format!("$'{}'", word.chars().map(escaped).collect::<String>())
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    };
    command.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// A character within `$'...'`: octal bytes, which unlike hexadecimal ones have an end.
fn escaped(char: char) -> String {
    match char {
        '\'' | '\\' => format!("\\{char}"),
        _ if steers_terminal(char) => {
            char.encode_utf8(&mut [0; 4]).bytes().map(|byte| format!("\\{byte:03o}")).collect()
        }
        _ => char.to_string(),
    }
}

/// Whether the error says that the object or image exists, and not that another process works on
/// the task.
pub(super) fn is_existing(error: &Error) -> bool {
    error.kind() == ErrorKind::Exists && !error.is(ErrorCode::TaskInProgress)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::NullObserver;

    #[test]
    fn an_upload_that_was_intended_and_not_recorded_is_found_by_its_time() {
        let state = tempfile::TempDir::new().expect("a directory");
        let resumption = Resumption {
            directory: StateDirectory::new(state.path().join("state")),
            command: Vec::new(),
            working_directory: "/".to_owned(),
            source: "image".to_owned(),
            target: "s3://bucket/key".to_owned(),
            restart: false,
        };
        let work = Work {
            kind: TaskKind::Store,
            image_id: None,
            expected: 1,
            fingerprint: vec!["image".to_owned()],
            settings: vec!["level".to_owned()],
            cell_record: CELL_RECORD,
        };
        let begin = || resumption.begin(&work, &NullObserver, |_| Ok(())).expect("begins");
        let prior = || begin().upload().expect("reads").prior;
        let intent = UploadIntent {
            endpoint: String::new(),
            region: "r".to_owned(),
            bucket: "bucket".to_owned(),
            key: "key".to_owned(),
            profile: None,
            started: "2026-11-30T00:00:00Z".to_owned(),
        };
        let upload = UploadBegun {
            endpoint: String::new(),
            region: "r".to_owned(),
            bucket: "bucket".to_owned(),
            key: "key".to_owned(),
            upload_id: "id".to_owned(),
            part_size: 1,
            checksum: "MD5".to_owned(),
            options: "-".to_owned(),
            profile: None,
            segments: Vec::new(),
        };
        let unrecorded = PriorUpload::Unrecorded { started: intent.started.clone() };
        let described = || {
            let tasks = super::super::describe_tasks(&resumption.directory).expect("tasks");
            tasks[0].intent.clone()
        };
        begin().upload_intended(&intent).expect("records");
        assert_eq!((prior(), described()), (unrecorded.clone(), Some(intent.clone())));
        begin().upload_begun(&upload).expect("records");
        assert!(matches!(prior(), PriorUpload::Recorded { .. }));
        assert_eq!(described(), None);
        // The recorded upload is gone, and another was intended.
        begin().upload_intended(&intent).expect("records");
        assert_eq!((prior(), described()), (unrecorded, Some(intent)));
    }

    #[test]
    fn a_command_line_survives_the_shell() {
        let words = ["amistore", "store", "--name", "it's mine", "", "s3://bucket/a b"]
            .map(ToOwned::to_owned);
        assert_eq!(
            shell_line(&words),
            r"amistore store --name 'it'\''s mine' '' 's3://bucket/a b'"
        );
        let words = ["it's\n\u{1b}[2J1\u{202e}\\"].map(ToOwned::to_owned);
        assert_eq!(shell_line(&words), r"$'it\'s\012\033[2J1\342\200\256\\'");
    }
}
