//! Lists tasks: unfinished work with its task file, and the rows of the task database.

use super::resume::TRIAL;
use super::tasks::without_endpoint;
use super::{TaskProgress, describe_tasks};
use crate::base::{Result, TaskKind, TaskState, fits_pattern, rfc3339};
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

    /// The archive: the target of a store or copy, the source of a restore.
    pub fn archive(&self) -> String {
        let is_restore = self.kind() == TaskKind::Restore;
        match self {
            Self::Unfinished(task, _) if is_restore => task.entry.header.source.clone(),
            Self::Unfinished(task, _) => task.object().to_owned(),
            Self::Recorded(row) => match (&row.task.bucket, &row.task.object_key) {
                (Some(bucket), Some(key)) => format!("s3://{bucket}/{key}"),
                _ if is_restore => row.task.source.clone(),
                _ => without_endpoint(&row.task.target).to_owned(),
            },
        }
    }

    /// The name of the stored or new image, if it is recorded.
    pub fn name(&self) -> Option<&str> {
        self.row().and_then(|row| row.task.name.as_deref())
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

/// Options of a list of tasks.
#[derive(Clone, Debug, Default)]
pub struct TaskSelection {
    /// Tasks of these images; all if there are none.
    pub image_ids: Vec<String>,
    /// Tasks in this state.
    pub state: Option<TaskState>,
    /// Tasks of this kind.
    pub kind: Option<TaskKind>,
    /// A pattern of the image's name, or of the archive's file name: `*` and `?` stand for other
    /// characters.
    pub name: Option<String>,
    /// At most so many, the newest.
    pub last: Option<usize>,
}

impl TaskSelection {
    /// The selected tasks of a list whose first task is the newest.
    pub fn of(&self, mut tasks: Vec<ListedTask>) -> Vec<ListedTask> {
        tasks.retain(|task| self.selects(task));
        tasks.truncate(self.last.unwrap_or(usize::MAX));
        tasks
    }

    fn selects(&self, task: &ListedTask) -> bool {
        let state = self.state.is_none_or(|state| state.name() == task.state());
        let kind = self.kind.is_none_or(|kind| kind == task.kind());
        let image = self.image_ids.is_empty()
            || task.image_id().is_some_and(|id| self.image_ids.iter().any(|given| given == id));
        let name = self.name.as_deref().is_none_or(|pattern| {
            let archive = task.archive();
            let file = archive.rsplit('/').next().unwrap_or_default();
            task.name().is_some_and(|name| fits_pattern(pattern, name))
                || fits_pattern(pattern, file)
        });
        state && kind && image && name
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
            let known = header.target.strip_suffix(TRIAL).unwrap_or(&header.target);
            row.state != TaskState::Completed
                && row.task.kind == header.kind
                && (target == known
                    || known
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
