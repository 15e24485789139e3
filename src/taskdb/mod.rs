//! What was asked for and what became of it: every store, restore and copy of the last 31 days, in
//! one SQLite file.
//!
//! Servers and runs of the program write to one file side by side. Whoever works on tasks holds a
//! locked file ([`Owner`]); the work of one whose lock is free belongs to nobody, however its
//! process ended. It does not know how work is done or continued: that is in the task files beside
//! it.

mod database;
mod owner;
mod pages;
mod schema;
mod signatures;
#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use crate::base::{TaskKind, TaskState};

pub use database::{Conflict, Rules, ScopeFilter, TaskDb};
pub use owner::Owner;
pub use pages::{Filter, Page, newest_of_each, page};

/// Tasks are listed for so long after their end, as by EC2.
pub const LISTED_FOR: Duration = Duration::from_secs(31 * 86_400);

/// Who works on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A server: another one goes on with it.
    Server,
    /// A run of the program: it ends with that.
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

/// What is known of a task when it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTask {
    /// What sort of work.
    pub kind: TaskKind,
    /// Who works on it.
    pub origin: Origin,
    /// The image that is stored, or was.
    pub image_id: Option<String>,
    /// The bucket of the archive, if it is in one.
    pub bucket: Option<String>,
    /// Its key there.
    pub object_key: Option<String>,
    /// From where, for people.
    pub source: String,
    /// To where, for people; what the task file of the work says as well, if there is one.
    pub target: String,
    /// The name that the new image will have.
    pub name: Option<String>,
    /// The id that was promised for the new image.
    pub reserved_id: Option<String>,
    /// What a server needs to do it again.
    pub request: Option<String>,
    /// The account, Region and endpoints it is for: servers for others leave it alone.
    pub scope: Option<String>,
    /// Bytes of the volumes.
    pub size: u64,
}

impl NewTask {
    /// A task of which nothing else is known.
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

/// A task as it is in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRow {
    /// Its number: later ones have higher ones.
    pub id: i64,
    /// What was known when it was asked for.
    pub task: NewTask,
    /// What EC2 calls the image that was made.
    pub restored_id: Option<String>,
    /// How far it is.
    pub state: TaskState,
    /// From 0 to 100, and 100 only when it is completed.
    pub percent: u8,
    /// Bytes of volumes that were handled.
    pub bytes: u64,
    /// When it was asked for.
    pub started: SystemTime,
    /// When it ended.
    pub ended: Option<SystemTime>,
    /// Why it failed, and what to do; of one that is queued, what it waits for.
    pub reason: Option<String>,
    /// The name of the owner that works on it.
    pub owner: Option<String>,
}

impl TaskRow {
    /// What it waits for, if it waits.
    pub fn waits_for(&self) -> Option<&str> {
        (self.state == TaskState::Queued).then(|| self.reason.as_deref().unwrap_or("a server"))
    }
}
