//! `amistore tasks`.

use super::super::args::TasksArgs;
use super::super::output::{Console, tasks, tasks_text};
use super::super::settings::state_directory;
use crate::base::{Result, TaskState, rfc3339};
use crate::ops::{self, TaskProgress};
use crate::taskdb::{TaskDb, TaskRow};

/// A task that is listed.
pub(in super::super) enum Entry {
    /// There is something to continue; and what the record says of it.
    Unfinished(Box<TaskProgress>, Option<TaskRow>),
    /// It is in the record alone.
    Recorded(TaskRow),
}

impl Entry {
    /// `store`, `restore` or `copy`.
    pub(in super::super) fn kind(&self) -> &'static str {
        match self {
            Self::Unfinished(task, _) => task.entry.header.kind.name(),
            Self::Recorded(row) => row.task.kind.name(),
        }
    }

    /// `InProgress`, `Completed` or `Failed`.
    pub(in super::super) fn state(&self) -> &'static str {
        match self {
            // It waits for the next server.
            Self::Unfinished(_, Some(row)) if row.state == TaskState::Queued => row.state.name(),
            Self::Unfinished(task, _) => task.state.name(),
            Self::Recorded(row) => row.state.name(),
        }
    }

    /// The image that is or was stored.
    pub(in super::super) fn image_id(&self) -> Option<&str> {
        match self {
            Self::Unfinished(task, _) => task.entry.header.image_id.as_deref(),
            Self::Recorded(row) => row.task.image_id.as_deref(),
        }
    }

    /// RFC 3339, UTC.
    pub(in super::super) fn started(&self) -> String {
        match self {
            Self::Unfinished(task, _) => task.entry.header.started.clone(),
            Self::Recorded(row) => rfc3339(row.started),
        }
    }

    /// What the record says.
    pub(in super::super) fn row(&self) -> Option<&TaskRow> {
        match self {
            Self::Unfinished(_, row) => row.as_ref(),
            Self::Recorded(row) => Some(row),
        }
    }
}

pub(in super::super) fn run(args: TasksArgs, console: &Console) -> Result<()> {
    let directory = state_directory(args.state.as_deref())?;
    // Whoever only looks makes no record.
    let rows = if TaskDb::is_in(directory.path()) {
        TaskDb::open(directory.path())?.recent(usize::MAX)?
    } else {
        Vec::new()
    };
    let is_asked = |entry: &Entry| {
        let state = args.task_state.is_none_or(|state| state.name() == entry.state());
        let kind = args.kind.is_none_or(|kind| kind.name() == entry.kind());
        let image = args.image_id.is_empty()
            || entry.image_id().is_some_and(|id| args.image_id.iter().any(|asked| asked == id));
        state && kind && image
    };
    let found: Vec<Entry> =
        merged(ops::describe_tasks(&directory)?, rows).into_iter().filter(is_asked).collect();
    console.result(|| tasks_text(&found), || tasks(&found))
}

/// Every task once, the newest first: unfinished work stands for all runs at it that did not get to
/// the end.
fn merged(unfinished: Vec<TaskProgress>, mut rows: Vec<TaskRow>) -> Vec<Entry> {
    let mut entries = Vec::new();
    for task in unfinished {
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
        entries.push(Entry::Unfinished(Box::new(task), same.into_iter().max_by_key(|row| row.id)));
    }
    entries.extend(rows.into_iter().map(Entry::Recorded));
    entries
        .sort_by_key(|entry| std::cmp::Reverse((entry.started(), entry.row().map(|row| row.id))));
    entries
}
