//! Describes unfinished work.

use std::collections::BTreeMap;

use crate::base::Result;
use crate::checkpoint::{SnapshotState, StateDirectory, TaskEntry, TaskRecord, UploadState};

/// As DescribeStoreImageTasks says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// A process works on it.
    InProgress,
    /// Nobody does. It can be continued.
    Failed,
}

impl TaskState {
    /// The stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::InProgress => "InProgress",
            Self::Failed => "Failed",
        }
    }
}

/// How far a task got.
#[derive(Clone, Debug)]
pub struct TaskProgress {
    /// The task.
    pub entry: TaskEntry,
    /// Whether somebody works on it.
    pub state: TaskState,
    /// Why it ended, if that was noted; a process that was killed notes nothing.
    pub reason: Option<String>,
    /// From 0 to 99: what is done is not unfinished.
    pub percent: u8,
    /// Uploads that were begun for it, the last one last.
    pub uploads: Vec<UploadState>,
    /// Snapshots that were begun for it.
    pub snapshots: Vec<SnapshotState>,
}

/// Describes the unfinished tasks of a state directory, oldest first.
pub fn describe_tasks(directory: &StateDirectory) -> Result<Vec<TaskProgress>> {
    directory.tasks()?.into_iter().map(describe).collect()
}

fn describe(entry: TaskEntry) -> Result<TaskProgress> {
    let (mut reason, mut parts, mut uploads, mut snapshots, mut cells) =
        (None, BTreeMap::new(), Vec::new(), Vec::new(), 0);
    for record in entry.records()? {
        match record? {
            TaskRecord::Upload(upload) => {
                uploads.push(upload);
                parts.clear();
            }
            // One that was cut may not be up.
            TaskRecord::Part(part) if part.etag.is_some() => {
                parts.insert(part.number, part.len);
            }
            TaskRecord::Part(_) => {}
            TaskRecord::Cell(_) => cells += 1,
            TaskRecord::Snapshot(snapshot) => snapshots.push(snapshot),
            TaskRecord::Document(_) => {}
            TaskRecord::Failed(text) => reason = Some(text),
        }
    }
    // Cells of a restore hold at most 4 MiB; an estimate, as AWS calls its own.
    let done = if uploads.is_empty() { cells * (4 << 20) } else { parts.values().sum::<u64>() };
    let percent = (u128::from(done) * 100 / u128::from(entry.header.expected.max(1))).min(99) as u8;
    let state = if entry.running { TaskState::InProgress } else { TaskState::Failed };
    Ok(TaskProgress {
        state,
        reason: reason.filter(|_| !entry.running),
        percent,
        uploads,
        snapshots,
        entry,
    })
}
