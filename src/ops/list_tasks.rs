//! Lists tasks: unfinished work with its task file, and the rows of the task database.

use super::{TaskProgress, describe_tasks};
use crate::base::{Result, TaskKind, TaskState, rfc3339};
use crate::checkpoint::StateDirectory;
use crate::taskdb::{TaskRow, recent_tasks};

/// A task that is listed.
pub enum ListedTask {
    /// Work that can be continued, and its row in the task database.
    Unfinished(Box<TaskProgress>, Option<TaskRow>),
    /// A row of the task database, without a task file.
    Recorded(TaskRow),
}

impl ListedTask {
    /// Store, restore or copy.
    pub fn kind(&self) -> TaskKind {
        match self {
            Self::Unfinished(task, _) => task.entry.header.kind,
            Self::Recorded(row) => row.task.kind,
        }
    }

    /// `InProgress`, `Completed` or `Failed`.
    pub fn state(&self) -> &'static str {
        match self {
            // It waits for the next server.
            Self::Unfinished(_, Some(row)) if row.state == TaskState::Queued => row.state.name(),
            Self::Unfinished(task, _) => task.state.name(),
            Self::Recorded(row) => row.state.name(),
        }
    }

    /// The source image of the archive.
    pub fn image_id(&self) -> Option<&str> {
        match self {
            Self::Unfinished(task, _) => task.entry.header.image_id.as_deref(),
            Self::Recorded(row) => row.task.image_id.as_deref(),
        }
    }

    /// RFC 3339, UTC.
    pub fn started(&self) -> String {
        match self {
            Self::Unfinished(task, _) => task.entry.header.started.clone(),
            Self::Recorded(row) => rfc3339(row.started),
        }
    }

    /// The row of the task database.
    pub fn row(&self) -> Option<&TaskRow> {
        match self {
            Self::Unfinished(_, row) => row.as_ref(),
            Self::Recorded(row) => Some(row),
        }
    }
}

/// Lists every task once, the newest first: unfinished work stands for all of its runs that did not
/// complete. A task database is read if there is one, and not made.
pub fn list_tasks(directory: &StateDirectory) -> Result<Vec<ListedTask>> {
    let mut rows = recent_tasks(directory.path())?;
    let mut listed = Vec::new();
    for task in describe_tasks(directory)? {
        let header = &task.entry.header;
        let is_same = |row: &TaskRow| {
            let target = &row.task.target;
            row.state != TaskState::Completed
                && row.task.kind == header.kind
                && (*target == header.target
                    || header
                        .target
                        .strip_prefix(target.as_str())
                        .is_some_and(|rest| rest.starts_with(" at ")))
        };
        let (same, others): (Vec<TaskRow>, Vec<TaskRow>) = rows.into_iter().partition(is_same);
        rows = others;
        let newest = same.into_iter().max_by_key(|row| (row.started, row.id));
        listed.push(ListedTask::Unfinished(Box::new(task), newest));
    }
    listed.extend(rows.into_iter().map(ListedTask::Recorded));
    // The text has seconds, rows have milliseconds.
    let position =
        |task: &ListedTask| (task.started(), task.row().map(|row| (row.started, row.id)));
    listed.sort_by_key(|task| std::cmp::Reverse(position(task)));
    Ok(listed)
}
