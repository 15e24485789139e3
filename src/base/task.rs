//! Kinds and states of tasks, shared by checkpoints, the task database and the use cases.

use serde::{Deserialize, Serialize};

/// Kind of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskKind {
    /// Stores an image as an archive.
    Store,
    /// Restores an archive to an image.
    Restore,
    /// Copies an archive from one store to another.
    Copy,
}

/// State of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// It waits for a server.
    Queued,
    /// A process works on it.
    InProgress,
    /// It ended without an error.
    Completed,
    /// It ended with an error, or its process was killed.
    Failed,
}

impl TaskKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Store, Self::Restore, Self::Copy];

    /// The stable name, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Restore => "restore",
            Self::Copy => "copy",
        }
    }
}

impl TaskState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Queued, Self::InProgress, Self::Completed, Self::Failed];

    /// EC2's name, as in DescribeStoreImageTasks, which does not tell queued tasks apart.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued | Self::InProgress => "InProgress",
            Self::Completed => "Completed",
            Self::Failed => "Failed",
        }
    }
}
