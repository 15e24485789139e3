//! Tasks as a table and as JSON.

use serde_json::{Value, json};

use super::safe_text::SafeText;
use super::table::{Align, Table};
use super::text::name_of;
use crate::aws::s3::S3Location;
use crate::base::{Result, TaskKind, TaskState, rfc3339};
use crate::ops::{ListedTask, TaskProgress, shell_line};
use crate::taskdb::{Origin, TaskRow};

/// The reason of a task whose process was killed.
const KILLED: &str = "the process ended without a word";

/// Stores are shaped like the answer of DescribeStoreImageTasks, and have the members of all tasks
/// besides.
pub(in super::super) fn tasks(found: &[ListedTask]) -> Value {
    let one = |entry: &ListedTask| {
        let mut members = match entry {
            ListedTask::Unfinished(task, _) => unfinished(task),
            ListedTask::Recorded(row) => recorded(row),
        };
        let row = entry.row();
        members["Kind"] = json!(entry.kind().name());
        members["ImageId"] = json!(entry.image_id());
        members["Archive"] = json!(entry.archive());
        members["TaskState"] = json!(entry.state());
        if entry.state() != "Failed" {
            members["TaskFailureReason"] = Value::Null;
        }
        if let Some(row) = row {
            members["ProgressPercentage"] = json!(row.percent);
        }
        members["WaitsFor"] = json!(row.and_then(TaskRow::waits_for));
        members["Origin"] = json!(row.map_or("command", |row| row.task.origin.name()));
        members["TaskEndTime"] = json!(row.and_then(|row| row.ended).map(rfc3339));
        members["ReservedImageId"] = json!(row.and_then(|row| row.task.reserved_id.as_ref()));
        members["RestoredImageId"] = json!(row.and_then(|row| row.restored_id.as_ref()));
        if entry.kind() == TaskKind::Store {
            members["AmiId"] = members["ImageId"].clone();
            members["StoreTaskState"] = members["TaskState"].clone();
            members["StoreTaskFailureReason"] = members["TaskFailureReason"].clone();
        }
        members
    };
    let of = |kind: TaskKind| {
        found.iter().filter(|entry| entry.kind() == kind).map(one).collect::<Vec<_>>()
    };
    json!({
        "Outcome": "listed",
        "DryRun": false,
        "StoreImageTaskResults": of(TaskKind::Store),
        "RestoreImageTaskResults": of(TaskKind::Restore),
        "CopyTaskResults": of(TaskKind::Copy),
    })
}

fn unfinished(task: &TaskProgress) -> Value {
    let header = &task.entry.header;
    let object = S3Location::parse(task.object()).and_then(Result::ok);
    let snapshots: Vec<&String> =
        task.snapshots.iter().map(|snapshot| &snapshot.snapshot_id).collect();
    let uploads: Vec<&String> = task.uploads.iter().map(|upload| &upload.upload_id).collect();
    json!({
        "TaskStartTime": header.started,
        "Bucket": object.as_ref().map(|object| &object.bucket),
        "S3objectKey": object.as_ref().map(|object| &object.key),
        "ProgressPercentage": task.percent,
        "TaskFailureReason": task.reason.as_deref().unwrap_or(KILLED),
        "Source": header.source,
        "Target": header.target,
        "SnapshotIds": snapshots,
        "UploadIds": uploads,
        "ResumeCommand": shell_line(&header.command),
        "ResumeDirectory": header.directory,
        "StateFile": task.entry.path.display().to_string(),
    })
}

/// A task without a task file: there is nothing to continue.
fn recorded(row: &TaskRow) -> Value {
    json!({
        "TaskStartTime": rfc3339(row.started),
        "Bucket": row.task.bucket,
        "S3objectKey": row.task.object_key,
        "ProgressPercentage": row.percent,
        "TaskFailureReason": row.reason,
        "Source": row.task.source,
        "Target": row.task.target,
        "SnapshotIds": [],
        "UploadIds": [],
        "ResumeCommand": null,
        "ResumeDirectory": null,
        "StateFile": null,
    })
}

pub(in super::super) fn tasks_text(found: &[ListedTask]) -> SafeText {
    if found.is_empty() {
        return "no tasks".to_owned().into();
    }
    let mut table = Table::new([
        ("BEGUN", Align::Left),
        ("KIND", Align::Left),
        ("IMAGE", Align::Left),
        ("DONE", Align::Right),
        ("TARGET", Align::Left),
        ("STATE", Align::Left),
    ]);
    for entry in found {
        let (target, percent, state) = match entry {
            // The server reports the percentage of the row.
            ListedTask::Unfinished(task, row) => (
                &task.entry.header.target,
                row.as_ref().map_or(task.percent, |row| row.percent),
                unfinished_state(task, row.as_ref()),
            ),
            ListedTask::Recorded(row) => (&row.task.target, row.percent, recorded_state(row)),
        };
        table.row([
            entry.started(),
            entry.kind().name().to_owned(),
            name_of(entry.image_id()).to_owned(),
            format!("{percent} %"),
            target.clone(),
            state,
        ]);
        if let Some(command) = to_continue(entry) {
            table.below(format!("continue with: {command}"));
        }
    }
    table.text()
}

fn unfinished_state(task: &TaskProgress, row: Option<&TaskRow>) -> String {
    match row.and_then(TaskRow::waits_for) {
        Some(waits) => format!("waits for {waits}"),
        None if task.state == TaskState::InProgress => "running".to_owned(),
        None => format!("interrupted: {}", task.reason.as_deref().unwrap_or(KILLED)),
    }
}

fn recorded_state(row: &TaskRow) -> String {
    match row.state {
        TaskState::Queued => format!("waits for {}", row.waits_for().unwrap_or_default()),
        TaskState::InProgress => "running".to_owned(),
        TaskState::Completed => {
            let made = row.restored_id.as_ref().map(|id| format!(" as {id}")).unwrap_or_default();
            format!("completed {}{made}", row.ended.map(rfc3339).unwrap_or_default())
        }
        TaskState::Failed => {
            format!("failed: {}", row.reason.as_deref().unwrap_or("no reason is given"))
        }
    }
}

/// The command that continues interrupted work.
fn to_continue(entry: &ListedTask) -> Option<String> {
    let ListedTask::Unfinished(task, row) = entry else { return None };
    let waits = row.as_ref().and_then(TaskRow::waits_for);
    if waits.is_some() || task.state == TaskState::InProgress {
        return None;
    }
    if row.as_ref().is_some_and(|row| row.task.origin == Origin::Server) {
        return Some("the same request to the server".to_owned());
    }
    let header = &task.entry.header;
    let directory = shell_line(std::slice::from_ref(&header.directory));
    Some(format!("cd {directory} && {}", shell_line(&header.command)))
}
