//! Work that can be continued: what a use case needs to begin or find its task.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::base::{Error, ErrorKind, Event, Observer, Result, hex, random_id, rfc3339};
use crate::checkpoint::{
    Earlier, SharedTask, StateDirectory, Task, TaskHeader, TaskKind, TaskRecord, TaskRecords,
};
use crate::codec::sha256;
use crate::engine::{CellLog, Cells, LoggedCell};
use crate::object::ObjectStore;

/// Bytes of notes beside those of cells: header, upload, parts.
const NOTES: u64 = 2 << 20;
/// The least that a cell without holes holds.
const CELL: u64 = 4 << 20;
/// Bytes of notes for a cell.
pub(super) const NOTE: u64 = 128;
/// The same with the digests of its blocks.
pub(super) const NOTE_WITH_DIGESTS: u64 = 320;

/// How unfinished work is remembered.
#[derive(Clone, Debug)]
pub struct Resumption {
    /// Where.
    pub directory: StateDirectory,
    /// The command line that continues it.
    pub command: Vec<String>,
    /// The directory in which that was given.
    pub working_directory: String,
    /// Where from, for people.
    pub source: String,
    /// Where to: a URL or an absolute path. There is one task for each.
    pub target: String,
    /// Begin anew, whatever is there.
    pub restart: bool,
}

/// What of a task is decided by the use case.
pub(super) struct Work<'a> {
    pub(super) kind: TaskKind,
    pub(super) image_id: Option<String>,
    pub(super) expected: u64,
    /// What the result is made of.
    pub(super) fingerprint: &'a [&'a str],
    /// How it is made.
    pub(super) settings: &'a [&'a str],
    /// Bytes of notes for a cell.
    pub(super) note: u64,
}

impl Resumption {
    /// Begins the task or continues it. What one with another fingerprint left is undone by
    /// `discard`.
    pub(super) fn begin(
        &self,
        work: &Work<'_>,
        observer: &dyn Observer,
        discard: impl Fn(&Earlier) -> Result<()>,
    ) -> Result<RunningTask> {
        self.directory.check_room(NOTES + work.expected / CELL * work.note)?;
        let header = TaskHeader {
            kind: work.kind,
            command: self.command.clone(),
            directory: self.working_directory.clone(),
            source: self.source.clone(),
            target: self.target.clone(),
            image_id: work.image_id.clone(),
            started: rfc3339(SystemTime::now()),
            nonce: format!("{:032x}", random_id()?),
            fingerprint: digest(work.fingerprint),
            settings: digest(work.settings),
            expected: work.expected,
        };
        let discard = |earlier: &Earlier| {
            let message = format!(
                "an unfinished {} to {} is of something else, and is undone",
                earlier.header.kind.name(),
                self.target
            );
            observer.note(&Event::Warning { message });
            discard(earlier)
        };
        let task = self.directory.begin(&self.target, &header, self.restart, &discard)?;
        if task.is_resumed() {
            observer.note(&Event::Note {
                message: format!("continues what was begun at {}", task.header().started),
            });
        }
        Ok(RunningTask(Arc::new(Mutex::new(task))))
    }
}

/// A digest of texts, each with its length.
fn digest(texts: &[&str]) -> String {
    let mut input = Vec::new();
    for text in texts {
        input.extend_from_slice(&(text.len() as u64).to_le_bytes());
        input.extend_from_slice(text.as_bytes());
    }
    hex(&sha256::digest(&input))
}

/// Undoes the uploads that a task noted.
pub(super) fn abandon_uploads(store: &dyn ObjectStore, records: TaskRecords) -> Result<()> {
    for record in records {
        if let TaskRecord::Upload(upload) = record? {
            store.abandon(&upload)?;
        }
    }
    Ok(())
}

/// A task, while its work is done.
pub(super) struct RunningTask(SharedTask);

impl RunningTask {
    pub(super) fn shared(&self) -> SharedTask {
        self.0.clone()
    }

    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Task) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn is_resumed(&self) -> bool {
        self.with(|task| task.is_resumed())
    }

    /// Undoes the uploads that were noted.
    pub(super) fn abandon_uploads(&self, store: &dyn ObjectStore) -> Result<()> {
        let records = self.with(|task| task.flush().and_then(|()| task.records()))?;
        abandon_uploads(store, records)
    }

    /// The metadata that was noted when the work began.
    pub(super) fn document(&self) -> Result<Option<Vec<u8>>> {
        let noted = self.with(|task| task.earlier())?.find_map(|record| match record {
            Ok(TaskRecord::Document(bytes)) => Some(Ok(bytes)),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        });
        noted.transpose()
    }

    /// Notes the metadata.
    pub(super) fn note_document(&self, bytes: &[u8]) -> Result<()> {
        self.with(|task| {
            task.note(&TaskRecord::Document(bytes.to_vec())).and_then(|()| task.flush())
        })
    }

    /// Notes a cell.
    pub(super) fn note_cell<C: LoggedCell>(&self, cell: &C) -> Result<()> {
        // A thousand of them fit into the buffer, which stand for gigabytes that would be done
        // again after a kill.
        self.with(|task| task.note(&TaskRecord::Cell(cell.encode())).and_then(|()| task.flush()))
    }

    /// The cells that earlier processes noted, and where this one notes. What cannot be read as a
    /// cell ends them. With a volume only its cells, as far as they are in the snapshot that was
    /// begun for it last.
    pub(super) fn log<C: LoggedCell>(&self, volume: Option<u16>) -> Result<CellLog<'static, C>> {
        let task = Self(self.shared());
        let note = move |cell: &C| task.note_cell(cell);
        // What came before the last snapshot of a volume is not in that.
        let mut begun = BTreeMap::new();
        for (position, record) in self.with(|task| task.records())?.enumerate() {
            if let TaskRecord::Snapshot(snapshot) = record? {
                begun.insert(snapshot.volume, position);
            }
        }
        let earlier = self.noted_cells()?.filter_map(move |cell| match cell {
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

    /// The cells of a volume that earlier processes noted, where there is nothing but an archive
    /// that they are in.
    pub(super) fn cells_of<C: LoggedCell>(&self, volume: u16) -> Result<Cells<'static, C>> {
        let cells = self.noted_cells::<C>()?.map(|cell| cell.map(|(_, cell)| cell));
        Ok(Box::new(
            cells.filter(move |cell| cell.as_ref().map_or(true, |cell| cell.volume() == volume)),
        ))
    }

    /// All cells that earlier processes noted, each with its position among all records. What
    /// cannot be read as a cell ends them.
    fn noted_cells<C: LoggedCell>(
        &self,
    ) -> Result<impl Iterator<Item = Result<(usize, C)>> + Send + use<C>> {
        let cells =
            self.with(|task| task.earlier())?.enumerate().filter_map(|(position, record)| {
                match record {
                    Ok(TaskRecord::Cell(bytes)) => Some(Ok((position, bytes))),
                    Ok(_) => None,
                    Err(error) => Some(Err(error)),
                }
            });
        Ok(cells.map_while(|cell| match cell {
            Ok((position, bytes)) => C::decode(&bytes).map(|cell| Ok((position, cell))),
            Err(error) => Some(Err(error)),
        }))
    }

    /// The work ended like this. If something can be continued, an error says so; otherwise `undo`
    /// is called, and the task is forgotten.
    pub(super) fn end<T>(
        self,
        outcome: Result<T>,
        resumption: &Resumption,
        undo: impl FnOnce(&Earlier) -> Result<()>,
    ) -> Result<T> {
        let error = match outcome {
            Ok(value) => {
                self.with(|task| task.finish())?;
                return Ok(value);
            }
            Err(error) => error,
        };
        match self.worth(&error) {
            Ok(Worth { is_worth: true, snapshots }) => {
                let error = if snapshots.is_empty() {
                    error
                } else {
                    error.at("snapshots_kept", snapshots.join(", "))
                };
                let reason = std::iter::once(error.message().to_owned())
                    .chain(error.causes())
                    .collect::<Vec<_>>()
                    .join(": ");
                // The error that brought us here is the one to report.
                let _ = self
                    .with(|task| task.note(&TaskRecord::Failed(reason)).and_then(|()| task.sync()));
                // The same command would meet the same object, or the same change.
                let hopeless =
                    error.kind() == ErrorKind::Exists || error.fact("cannot_continue").is_some();
                if hopeless {
                    Err(error)
                } else {
                    Err(error.at("resume_with", shell_line(&resumption.command)))
                }
            }
            Ok(Worth { is_worth: false, .. }) => {
                // What cannot be undone stays remembered.
                match undo(&self.with(|task| task.as_earlier())) {
                    Ok(()) => {
                        let _ = self.with(|task| task.finish());
                        Err(error)
                    }
                    Err(left) => {
                        Err(error
                            .at("left_behind", left.fact("snapshots").unwrap_or(left.message())))
                    }
                }
            }
            Err(_) => Err(error),
        }
    }

    /// Whether something was done that is of use to a next run.
    fn worth(&self, error: &Error) -> Result<Worth> {
        // A restore keeps what it wrote; of an archive nothing is kept that was not sent.
        let restores = self.with(|task| task.header().kind) == TaskKind::Restore;
        // If there is no room for it, what was noted before still counts.
        let _ = self.with(|task| task.sync());
        let (mut begun, mut snapshots) = (false, Vec::new());
        for record in self.with(|task| task.records())? {
            match record? {
                TaskRecord::Upload(_) => begun = true,
                TaskRecord::Cell(_) => begun |= restores,
                TaskRecord::Snapshot(snapshot) => snapshots.push(snapshot.snapshot_id),
                _ => {}
            }
        }
        // A damaged archive does not become whole by being continued, and snapshots cost money.
        let is_worth =
            if snapshots.is_empty() { begun } else { error.kind() != ErrorKind::Corrupt };
        Ok(Worth { is_worth, snapshots })
    }
}

/// What a next run could use.
struct Worth {
    is_worth: bool,
    /// Snapshots in EC2 that wait for it.
    snapshots: Vec<String>,
}

/// A command line as a shell reads it.
pub fn shell_line(command: &[String]) -> String {
    let plain = |word: &str| {
        !word.is_empty()
            && word
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_./:=,@%+".contains(&byte))
    };
    let quoted = |word: &String| {
        if plain(word) { word.clone() } else { format!("'{}'", word.replace('\'', "'\\''")) }
    };
    command.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// An object is there already; whether that is an error is for the use case to say.
pub(super) fn is_existing(error: &Error) -> bool {
    error.kind() == ErrorKind::Exists && error.fact("state_file").is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_survives_the_shell() {
        let words = ["amistore", "store", "--name", "it's mine", "", "s3://bucket/a b"]
            .map(ToOwned::to_owned);
        assert_eq!(
            shell_line(&words),
            r"amistore store --name 'it'\''s mine' '' 's3://bucket/a b'"
        );
    }
}
