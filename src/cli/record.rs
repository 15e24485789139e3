//! Runs of the program in the task database.

use std::sync::Arc;

use super::options::{ArchiveUrl, StateArgs};
use super::output::Console;
use crate::base::{ErrorCode, Observer, Result, TaskKind};
use crate::taskdb::{NewTask, Origin, Owner, Recorder, TaskDb, failure_reason};

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
    let run = match Run::begin(state, task, observer) {
        Ok(run) => run,
        Err(error) => {
            console.explain(|| format!("this run is not recorded: {error:?}"));
            return work(observer.as_ref());
        }
    };
    let outcome = work(run.recorder.observer().as_ref());
    if let Err(error) = run.end(&outcome) {
        console.explain(|| format!("the end of this run is not recorded: {error:?}"));
    }
    outcome
}

struct Run {
    task_db: Arc<TaskDb>,
    owner: Arc<Owner>,
    id: i64,
    recorder: Recorder,
}

impl Run {
    fn begin(state: &StateArgs, task: &NewTask, observer: &Arc<dyn Observer>) -> Result<Self> {
        let state = state.directory()?;
        let task_db = Arc::new(TaskDb::open(state.path())?);
        let owner = Arc::new(Owner::register(state.path())?);
        let id = task_db.begin(task, &owner)?;
        let recorder = Recorder::start(task_db.clone(), owner.clone(), (id, 0), observer.clone())?;
        Ok(Self { task_db, owner, id, recorder })
    }

    fn end<T>(self, outcome: &Result<T>) -> Result<()> {
        let Self { task_db, owner, id, recorder } = self;
        // The last progress is recorded before the end.
        drop(recorder);
        match outcome {
            Ok(_) => task_db.complete(id, &owner),
            // Another process works on the task, and records its end.
            Err(error) if error.is(ErrorCode::TaskInProgress) => task_db.forget(id, &owner),
            Err(error) => task_db.fail(id, &owner, &failure_reason(error)),
        }
    }
}
