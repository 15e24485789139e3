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

pub use database::{Conflict, Rules, ScopeFilter, TaskDb};
pub use owner::Owner;
pub use pages::{Filter, Page, newest_of_each, page};

/// Tasks are listed for so long after their end, as by EC2.
pub const LISTED_FOR: Duration = Duration::from_secs(31 * 86_400);

/// What sort of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An image goes into an archive.
    Store,
    /// An archive goes into an image.
    Restore,
    /// An archive goes from one store to another.
    Copy,
}

/// Who works on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A server: another one goes on with it.
    Server,
    /// A run of the program: it ends with that.
    Command,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits for a server.
    Queued,
    /// Its owner works on it.
    Running,
    /// It ended well.
    Completed,
    /// It ended with an error.
    Failed,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Store, Self::Restore, Self::Copy];

    /// The stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Restore => "restore",
            Self::Copy => "copy",
        }
    }
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

impl State {
    const ALL: [Self; 4] = [Self::Queued, Self::Running, Self::Completed, Self::Failed];

    /// What it is called in the file.
    fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }

    /// What EC2 calls it: `InProgress`, `Completed` or `Failed`.
    pub fn shown(self) -> &'static str {
        match self {
            Self::Queued | Self::Running => "InProgress",
            Self::Completed => "Completed",
            Self::Failed => "Failed",
        }
    }

    /// Whether there is nothing more to come.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }
}

/// What is known of a task when it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTask {
    /// What sort of work.
    pub kind: Kind,
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
        kind: Kind,
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
    pub state: State,
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
        (self.state == State::Queued).then(|| self.reason.as_deref().unwrap_or("a server"))
    }
}
