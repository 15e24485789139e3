//! `tasks` lists every store, restore and copy once.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;

use crate::support::cli::{IMAGE, Outcome, Sandbox, wait_until};

fn listed(sandbox: &Sandbox, more: &[&str]) -> Value {
    sandbox.run(&[&["tasks", "--output", "json"], more].concat()).succeeded().json()
}

fn states(tasks: &Value, kind: &str) -> Vec<String> {
    let found = tasks[kind].as_array().expect("a list");
    // Only stores wear the names of DescribeStoreImageTasks.
    let wears = kind == "StoreImageTaskResults";
    for name in ["AmiId", "StoreTaskState", "StoreTaskFailureReason"] {
        assert!(found.iter().all(|task| task.get(name).is_some() == wears), "{name}: {tasks}");
    }
    found.iter().map(|task| task["TaskState"].as_str().expect("a state").to_owned()).collect()
}

#[test]
fn tasks_are_listed_newest_first_without_dry_runs() {
    let sandbox = Sandbox::with_image();
    sandbox.run(&["tasks"]).succeeded();
    sandbox.run(&["store", "image", "a.bin"]).succeeded();
    sandbox.run(&["store", "image", "b.bin", "--dry-run"]).succeeded();
    sandbox.run(&["store", "image", "a.bin"]).failed(9, &["exists"]);
    sandbox.run(&["copy", "a.bin", "c.bin"]).succeeded();
    sandbox.run(&["restore", "a.bin", "back"]).succeeded();
    let tasks = listed(&sandbox, &[]);
    assert_eq!(states(&tasks, "StoreImageTaskResults"), ["Failed", "Completed"], "{tasks}");
    assert_eq!(
        (states(&tasks, "CopyTaskResults").len(), states(&tasks, "RestoreImageTaskResults").len()),
        (1, 1)
    );
    let (failed, stored) = (&tasks["StoreImageTaskResults"][0], &tasks["StoreImageTaskResults"][1]);
    assert!(
        failed["StoreTaskFailureReason"].as_str().expect("a reason").contains("exists"),
        "{failed}"
    );
    assert_eq!(
        (
            stored["AmiId"].as_str(),
            stored["ProgressPercentage"].as_u64(),
            stored["Origin"].as_str()
        ),
        (Some(IMAGE), Some(100), Some("command"))
    );
    assert!(
        stored["Bucket"].is_null()
            && stored["ResumeCommand"].is_null()
            && stored["TaskEndTime"].is_string(),
        "{stored}"
    );
    let text = sandbox.run(&["tasks"]).succeeded().text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 1 + 4, "a title and four tasks: {text}");
    assert!(
        lines[1].contains(" restore ")
            && text.contains("completed 20")
            && text.contains("failed: "),
        "{text}"
    );
    // The columns are aligned.
    for title in ["KIND", "IMAGE", "TARGET", "STATE"] {
        let at = lines[0].find(title).expect("a title");
        assert!(
            lines.iter().all(|line| line[..at].ends_with("  ") && line.as_bytes()[at] != b' '),
            "{text}"
        );
    }
}

#[test]
fn tasks_are_filtered_by_image_state_kind_name_and_number() {
    let sandbox = Sandbox::with_image();
    sandbox.run(&["store", "image", "a.bin"]).succeeded();
    sandbox.run(&["store", "image", "a.bin"]).failed(9, &[]);
    sandbox.run(&["copy", "a.bin", "c.bin"]).succeeded();
    for (flags, stores, copies) in [
        (&["--task-state", "Completed"][..], 1, 1),
        (&["--task-state", "Failed"], 1, 0),
        (&["--task-state", "InProgress"], 0, 0),
        (&["--kind", "copy"], 0, 1),
        (&["--image-id", IMAGE], 2, 1),
        (&["--image-id", "ami-00000000"], 0, 0),
        (&["--name", "samp*"], 2, 1),
        (&["--name", "c.bin"], 0, 1),
        (&["--name", "c"], 0, 0),
        (&["--last", "1"], 0, 1),
        (&["--last", "2"], 1, 1),
        (&["--last", "1", "--kind", "store"], 1, 0),
    ] {
        let tasks = listed(&sandbox, flags);
        let found = (
            states(&tasks, "StoreImageTaskResults").len(),
            states(&tasks, "CopyTaskResults").len(),
        );
        assert_eq!(found, (stores, copies), "{flags:?}");
    }
    sandbox.run(&["tasks", "--last", "0"]).failed(2, &["--last"]);
    sandbox.run(&["tasks", "--task-state", "completed"]).failed(2, &["InProgress"]);
}

#[test]
fn a_damaged_task_database_does_not_stop_a_store() {
    let sandbox = Sandbox::with_image();
    sandbox.make_directory("state");
    sandbox.write("state/tasks.sqlite", vec![0x55; 10_000]);
    // A file where the directory of runs belongs.
    sandbox.write("state/runs", b"");
    let state = ["--state", "state"];
    sandbox
        .run(&[&["store", "image", "a.bin", "--verbose"][..], &state].concat())
        .succeeded()
        .says(&["not recorded", "state/runs"]);
    let quiet = sandbox.run(&[&["store", "image", "b.bin"][..], &state].concat()).succeeded();
    assert!(!quiet.stderr.contains("record"), "{}", quiet.stderr);
    sandbox
        .run(&[&["tasks"][..], &state].concat())
        .failed(5, &["damaged", "move this file away", "state/tasks.sqlite"]);
}

#[test]
fn the_tasks_command_makes_no_database() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.run(&["tasks", "--state", "state"]).succeeded().text(), "no tasks\n");
    assert!(!sandbox.path("state").exists());
}

#[test]
fn a_run_that_is_killed_is_listed_as_running_and_then_as_failed() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.command(&["restore", "-", "back"]);
    // It waits for an archive that is never sent.
    let mut running = sandbox.start(command.stdin(Stdio::piped()));
    wait_until("it to be listed", || {
        states(&listed(&sandbox, &[]), "RestoreImageTaskResults") == ["InProgress"]
    });
    running.signal("KILL");
    assert_eq!(running.wait().code, -9);
    let tasks = listed(&sandbox, &[]);
    assert_eq!(states(&tasks, "RestoreImageTaskResults"), ["Failed"]);
    let reason =
        tasks["RestoreImageTaskResults"][0]["TaskFailureReason"].as_str().expect("a reason");
    assert!(reason.contains("without a word"), "{reason}");
}

/// The only task file of a sandbox.
fn task_file(sandbox: &Sandbox) -> PathBuf {
    let entries = std::fs::read_dir(sandbox.path("state")).expect("a state directory");
    let mut files = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "task"));
    let file = files.next().expect("a task file");
    assert_eq!(files.next(), None);
    file
}

/// Asserts that a dry run refuses an interrupted task with the code of the run, and does not change
/// the task file: with the settings `other`, and while another process works on the task. `args`
/// are those of the task.
#[track_caller]
pub fn assert_dry_run_refuses(
    sandbox: &Sandbox,
    run: &dyn Fn(&[&str]) -> Outcome,
    args: &[&str],
    other: &[&str],
) {
    let file = task_file(sandbox);
    let records = std::fs::read(&file).expect("reads");
    let dry_run = |more: &[&str]| {
        let outcome = run(&[args, more, &["--dry-run", "--quiet", "--output", "json"]].concat());
        assert!(task_file(sandbox) == file && std::fs::read(&file).expect("reads") == records);
        outcome
    };
    let begun = |more: &[&str]| {
        run(&[args, more, &["--quiet", "--output", "json"]].concat()).json_error()["code"].clone()
    };
    dry_run(&[]).succeeded();
    dry_run(&[other, &["--restart"]].concat()).succeeded();
    let lock = std::fs::File::open(&file).expect("opens");
    lock.lock().expect("locks");
    for more in [&[][..], &["--restart"]] {
        assert_eq!(dry_run(more).json_error()["code"], "task_in_progress");
    }
    assert_eq!(begun(&[]), "task_in_progress");
    drop(lock);
    assert_eq!(dry_run(other).json_error()["code"], "begun_with_other_settings");
    assert_eq!(begun(other), "begun_with_other_settings");
}
