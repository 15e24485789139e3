//! Describes unfinished tasks.

use std::collections::BTreeMap;

use super::records::{TaskRecord, decoded};
use super::resume::TRIAL;
use crate::base::{Result, TaskState};
use crate::checkpoint::{StateDirectory, TaskEntry};
use crate::image::SnapshotBegun;
use crate::object::{UploadBegun, UploadIntent};

/// Progress of a task.
#[derive(Clone, Debug)]
pub struct TaskProgress {
    /// The task.
    pub entry: TaskEntry,
    /// In progress or failed.
    pub state: TaskState,
    /// The error of the last run; absent if its process was killed.
    pub reason: Option<String>,
    /// From 0 to 99: an unfinished task is never at 100.
    pub percent: u8,
    /// An upload that may have been begun, and whose id was not recorded.
    pub intent: Option<UploadIntent>,
    /// Its uploads, oldest first.
    pub uploads: Vec<UploadBegun>,
    /// Its snapshots, oldest first.
    pub snapshots: Vec<SnapshotBegun>,
}

impl TaskProgress {
    /// The object or file that a store or copy writes.
    pub fn object(&self) -> &str {
        let target = &self.entry.header.target;
        without_endpoint(target.strip_suffix(TRIAL).unwrap_or(target))
    }
}

/// The target of a task without the endpoint that tells buckets of one name apart.
pub(super) fn without_endpoint(target: &str) -> &str {
    match target.rsplit_once(" at ") {
        Some((url, endpoint)) if url.starts_with("s3://") && endpoint.starts_with("http") => url,
        _ => target,
    }
}

/// Describes the unfinished tasks of a state directory, oldest first.
pub fn describe_tasks(directory: &StateDirectory) -> Result<Vec<TaskProgress>> {
    directory.tasks()?.into_iter().map(describe).collect()
}

fn describe(entry: TaskEntry) -> Result<TaskProgress> {
    let (mut reason, mut parts, mut uploads, mut snapshots, mut cells) =
        (None, BTreeMap::new(), Vec::new(), Vec::new(), 0);
    let mut last_intent = None;
    for record in decoded(entry.records()?) {
        match record? {
            TaskRecord::Intent(intent) => last_intent = Some(intent),
            TaskRecord::Upload(upload) => {
                last_intent = None;
                uploads.push(upload);
                parts.clear();
            }
            // A part without an ETag may not have arrived.
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
    // A cell has at most 4 MiB of data, so this is an estimate, like that of AWS.
    let done = if uploads.is_empty() { cells * (4 << 20) } else { parts.values().sum::<u64>() };
    let percent = (u128::from(done) * 100 / u128::from(entry.header.expected.max(1))).min(99) as u8;
    let state = if entry.running { TaskState::InProgress } else { TaskState::Failed };
    Ok(TaskProgress {
        state,
        reason: reason.filter(|_| !entry.running),
        percent,
        intent: last_intent,
        uploads,
        snapshots,
        entry,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_of_a_task_is_named_without_its_endpoint() {
        for (target, object) in [
            ("s3://b/look at it.bin at http://127.0.0.1:9", "s3://b/look at it.bin"),
            ("s3://b/look at it.bin", "s3://b/look at it.bin"),
            ("./shop at http.bin", "./shop at http.bin"),
        ] {
            assert_eq!(without_endpoint(target), object);
        }
    }
}
