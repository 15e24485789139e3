//! The trial upload before a store or copy to a bucket: whether an upload can be begun and aborted.
//!
//! It has a task file of its own for as long as it exists: if the process is killed between its
//! beginning and its end, the next run with this target finds the upload by key and time, and so
//! does `clean`.

use super::resume::{Resumption, RunningTask, TRIAL, Work};
use crate::aws::s3::S3Store;
use crate::base::{ErrorCode, Observer, Result, TaskKind};
use crate::object::UploadJournal;

/// Checks that an object may be written, as [`S3Store::check_writable`] does. Without `resumption`
/// the trial upload is not recorded.
pub fn check_writable(
    store: &S3Store,
    key: &str,
    allow_public: bool,
    resumption: Option<&Resumption>,
    observer: &dyn Observer,
) -> Result<()> {
    let Some(trial) = resumption.map(begin).transpose()?.flatten() else {
        return store.check_writable(key, allow_public, None, observer);
    };
    // The upload of a trial that was killed.
    trial.abort_uploads(store)?;
    let journal: &dyn UploadJournal = &trial;
    match store.check_writable(key, allow_public, Some(journal), observer) {
        Ok(()) => trial.remove(),
        Err(error) => {
            // Its file stays while there may be an upload that it names: not in a bucket that does
            // not exist. The first error is the one to report.
            let _ = if error.is(ErrorCode::NoSuchBucket) {
                trial.remove()
            } else {
                trial.give_up(store).map(drop)
            };
            Err(error)
        }
    }
}

/// Begins the task; `None` if the state directory cannot be used, which the store or copy itself
/// reports unless it needs none, or if another process tries an upload of this key.
fn begin(resumption: &Resumption) -> Result<Option<RunningTask>> {
    let trial = Resumption {
        target: format!("{}{TRIAL}", resumption.target),
        restart: false,
        ..resumption.clone()
    };
    let work = Work {
        kind: TaskKind::Store,
        image_id: None,
        expected: 0,
        fingerprint: Vec::new(),
        settings: Vec::new(),
        cell_record: 0,
    };
    match trial.begin_silently(&work) {
        Err(error)
            if matches!(
                error.code(),
                Some(ErrorCode::StateDirectoryUnusable | ErrorCode::TaskInProgress)
            ) =>
        {
            Ok(None)
        }
        begun => begun.map(Some),
    }
}
