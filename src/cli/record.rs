//! Runs of the program in the task database.

use std::sync::Arc;

use super::options::{ArchiveUrl, StateArgs};
use super::output::Console;
use crate::base::{ErrorCode, Observer, Result, TaskKind};
use crate::taskdb::{NewTask, Origin, Recorder, Run, failure_reason};

/// A task of this run; `archive` is the archive that is read or written.
pub(super) fn task_of(
    archive: &ArchiveUrl,
    kind: TaskKind,
    source: impl Into<String>,
    target: impl Into<String>,
) -> NewTask {
    let object = archive.s3();
    NewTask {
        bucket: object.map(|location| location.bucket.clone()),
        object_key: object.map(|location| location.key.clone()),
        ..NewTask::new(kind, Origin::Command, source, target)
    }
}

/// Calls `work`, and records its begin, its progress and its end. Work that cannot be recorded is
/// done all the same.
pub(super) fn recorded<T>(
    console: &Console,
    state: &StateArgs,
    task: &NewTask,
    observer: &Arc<dyn Observer>,
    work: impl FnOnce(&dyn Observer) -> Result<T>,
) -> Result<T> {
    let (run, recorder) = match begin(state, task, observer) {
        Ok(begun) => begun,
        Err(error) => {
            console.explain(|| format!("this run is not recorded: {error:?}"));
            return work(observer.as_ref());
        }
    };
    let outcome = work(recorder.observer().as_ref());
    // The last progress is recorded before the end.
    drop(recorder);
    let ended = match &outcome {
        Ok(_) => run.end(None),
        // Another process works on the task, and records its end.
        Err(error) if error.is(ErrorCode::TaskInProgress) => run.forget(),
        Err(error) => run.end(Some(failure_reason(error))),
    };
    if let Err(error) = ended {
        console.explain(|| format!("the end of this run is not recorded: {error:?}"));
    }
    outcome
}

fn begin(
    state: &StateArgs,
    task: &NewTask,
    observer: &Arc<dyn Observer>,
) -> Result<(Arc<Run>, Recorder)> {
    let run = Arc::new(Run::begin(state.directory()?.path(), task)?);
    match Recorder::start(run.clone(), 0, observer.clone()) {
        Ok(recorder) => Ok((run, recorder)),
        Err(error) => {
            // It would be listed as lost.
            let _ = run.forget();
            Err(error)
        }
    }
}
