//! Tasks as they are listed.

use super::Options;
use crate::base::{Result, TaskKind, TaskState};
use crate::ops::{self, TaskProgress, shell_line};
#[cfg(feature = "server")]
use {crate::base::rfc3339, crate::ops::ListedTask};

/// A store, restore or copy: unfinished, or one of the last 31 days.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Store, restore or copy.
    pub kind: TaskKind,
    /// The state.
    pub state: TaskState,
    /// The source image of the archive, if that is known.
    pub image_id: Option<String>,
    /// The source, for people.
    pub source: String,
    /// The target, for people.
    pub target: String,
    /// Its start: RFC 3339, UTC.
    pub started: String,
    /// From 0 to 100, and 100 only when it is completed.
    pub percent: u8,
    /// The reason of a failure or of a wait.
    pub reason: Option<String>,
    /// Whether the same call continues it: its task file is there.
    pub can_continue: bool,
    /// The command line that continues it; absent for tasks of this library.
    pub command: Option<String>,
}

impl Task {
    fn unfinished(task: &TaskProgress) -> Self {
        let header = &task.entry.header;
        Self {
            kind: header.kind,
            state: task.state,
            image_id: header.image_id.clone(),
            source: header.source.clone(),
            target: header.target.clone(),
            started: header.started.clone(),
            percent: task.percent,
            reason: task.reason.clone(),
            can_continue: true,
            command: (!header.command.is_empty()).then(|| shell_line(&header.command)),
        }
    }

    #[cfg(feature = "server")]
    fn listed(task: &ListedTask) -> Self {
        match task {
            ListedTask::Unfinished(task, _) => Self::unfinished(task),
            ListedTask::Recorded(row) => Self {
                kind: row.task.kind,
                state: row.state,
                image_id: row.task.image_id.clone(),
                source: row.task.source.clone(),
                target: row.task.target.clone(),
                started: rfc3339(row.started),
                percent: row.percent,
                reason: row.reason.clone(),
                can_continue: false,
                command: None,
            },
        }
    }
}

/// Lists the tasks of the [state directory](Options::state_directory), the newest first: unfinished
/// work that the same call continues, and with feature `server` what the task database recorded of
/// the program and its servers.
pub fn tasks(options: &Options) -> Result<Vec<Task>> {
    let directory = options.state()?;
    #[cfg(feature = "server")]
    let tasks = ops::list_tasks(&directory)?.iter().map(Task::listed).collect();
    #[cfg(not(feature = "server"))]
    let tasks = ops::describe_tasks(&directory)?.iter().rev().map(Task::unfinished).collect();
    Ok(tasks)
}
