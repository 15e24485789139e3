//! The task database: every store, restore and copy of the last 31 days. Tasks of servers are in
//! one SQLite file, each run of the program in a small file of its own ([`Run`]).
//!
//! A process that performs tasks has a locked file ([`Owner`], [`Run`]); when the lock is free, its
//! tasks have no owner, however the process ended. The database does not know how tasks are
//! performed or continued: that is in the task files.

#[cfg(test)]
mod clock_tests;
mod database;
mod owner;
mod pages;
mod progress;
mod reason;
mod restores;
mod runs;
mod schema;
mod signatures;
#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use crate::base::{TaskKind, TaskState};

pub use database::{ClaimedTask, Conflict, Rules, ScopeFilter, TaskDb, recent_tasks};
pub use owner::Owner;
pub use pages::{Filter, Page, newest_of_each, page};
pub use progress::{ProgressLog, Recorder};
pub use reason::{failure_reason, one_line_of};
pub use runs::{Run, recorded_runs};
pub use signatures::SignatureUse;

/// The reason of a run of the program that was killed.
const LOST: &str = "the process ended without a word; the same command goes on where it stopped";

/// Tasks are listed for this time after their end, as by EC2.
pub const LISTED_FOR: Duration = Duration::from_secs(31 * 86_400);

/// The kind of process that performs a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A server: another server continues its tasks.
    Server,
    /// A run of the program: its task ends with the process.
    Command,
}

impl Origin {
    const ALL: [Self; 2] = [Self::Server, Self::Command];

    /// The stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Command => "command",
        }
    }
}

/// A task as it is requested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTask {
    /// Store, restore or copy.
    pub kind: TaskKind,
    /// The kind of process that performs it.
    pub origin: Origin,
    /// The stored image.
    pub image_id: Option<String>,
    /// The bucket of the archive; `None` for a file.
    pub bucket: Option<String>,
    /// The key of the archive in the bucket.
    pub object_key: Option<String>,
    /// The source, for people.
    pub source: String,
    /// The target, for people; the task file has the same text.
    pub target: String,
    /// The name of the stored image, or of the new one.
    pub name: Option<String>,
    /// The reserved id of the new image.
    pub reserved_id: Option<String>,
    /// The request in JSON, from which a server performs the task.
    pub request: Option<String>,
    /// Account, Region and endpoints: servers of other scopes leave the task alone.
    pub scope: Option<String>,
    /// Bytes of the volumes.
    pub size: u64,
}

impl NewTask {
    /// A task without optional parts.
    pub fn new(
        kind: TaskKind,
        origin: Origin,
        source: impl Into<String>,
        target: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            origin,
            image_id: None,
            bucket: None,
            object_key: None,
            source: source.into(),
            target: target.into(),
            name: None,
            reserved_id: None,
            request: None,
            scope: None,
            size: 0,
        }
    }
}

/// A task as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRow {
    /// Its number: later tasks have higher numbers.
    pub id: i64,
    /// The task as it was requested.
    pub task: NewTask,
    /// EC2's id of the restored image.
    pub restored_id: Option<String>,
    /// The state.
    pub state: TaskState,
    /// From 0 to 100, and 100 only when it is completed.
    pub percent: u8,
    /// Bytes of volumes that were read or written.
    pub bytes: u64,
    /// The time of the request.
    pub started: SystemTime,
    /// The time of the end.
    pub ended: Option<SystemTime>,
    /// The reason of a failure, with advice; of a queued task the reason of the wait.
    pub reason: Option<String>,
    /// The name of its owner.
    pub owner: Option<String>,
}

impl TaskRow {
    /// The reason of the wait of a queued task.
    pub fn waits_for(&self) -> Option<&str> {
        (self.state == TaskState::Queued).then(|| self.reason.as_deref().unwrap_or("a server"))
    }
}
