//! Runs of the program in the record of tasks.

use std::path::Path;
use std::sync::Arc;

use super::output::Console;
use super::settings::state_directory;
use crate::base::{ErrorCode, Observer, Result};
use crate::taskdb::{NewTask, Owner, Recorder, TaskDb, failure_reason};

/// Does some work, and records that it began, how far it is and how it ended. Where that cannot be
/// recorded the work is done all the same.
pub(super) fn recorded<T>(
    console: &Console,
    state: Option<&Path>,
    task: &NewTask,
    observer: &Arc<dyn Observer>,
    work: impl FnOnce(&dyn Observer) -> Result<T>,
) -> Result<T> {
    let run = match Run::begin(state, task, observer) {
        Ok(run) => run,
        Err(error) => {
            console.explain(|| format!("this is not recorded: {error:?}"));
            return work(observer.as_ref());
        }
    };
    let outcome = work(run.recorder.observer().as_ref());
    if let Err(error) = run.end(&outcome) {
        console.explain(|| format!("the end of this is not recorded: {error:?}"));
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
    fn begin(state: Option<&Path>, task: &NewTask, observer: &Arc<dyn Observer>) -> Result<Self> {
        let state = state_directory(state)?;
        let task_db = Arc::new(TaskDb::open(state.path())?);
        let owner = Arc::new(Owner::register(state.path())?);
        let id = task_db.begin(task, &owner)?;
        let recorder = Recorder::start(task_db.clone(), owner.clone(), (id, 0), observer.clone())?;
        Ok(Self { task_db, owner, id, recorder })
    }

    fn end<T>(self, outcome: &Result<T>) -> Result<()> {
        let Self { task_db, owner, id, recorder } = self;
        // The last of its progress comes before its end.
        drop(recorder);
        match outcome {
            Ok(_) => task_db.complete(id, &owner),
            // Another process does it, and will tell how it ends.
            Err(error) if error.is(ErrorCode::TaskInProgress) => task_db.forget(id, &owner),
            Err(error) => task_db.fail(id, &owner, &failure_reason(error)),
        }
    }
}
