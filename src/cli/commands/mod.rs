//! One file for each verb: from settings to use case to output.

pub(super) mod clean;
pub(super) mod copy;
pub(super) mod documents;
pub(super) mod extract;
pub(super) mod inspect;
pub(super) mod ls;
pub(super) mod restore;
pub(super) mod retire;
pub(super) mod serve;
pub(super) mod store;
pub(super) mod tasks;
pub(super) mod verify;
mod via_aws;

use super::output::Console;
use super::settings::{Place, Settings};
use crate::base::{Error, ErrorKind, Observer, Result, TaskKind};
use crate::engine::{Context, Plan};
use crate::taskdb::{NewTask, Origin};

/// What the engine gets.
fn context<'a>(
    plan: &'a Plan,
    observer: &'a dyn Observer,
    settings: &'a Settings,
    console: &Console,
) -> Context<'a> {
    console.explain(|| {
        format!(
            "{} threads, {} of {} bytes for data in flight",
            plan.threads, plan.in_flight, settings.memory
        )
    });
    Context { plan, observer, cancel: &settings.cancel }
}

/// A task of this run, with the place of its archive if that is a bucket.
fn in_bucket(
    place: &Place,
    kind: TaskKind,
    source: impl Into<String>,
    target: impl Into<String>,
) -> NewTask {
    let (bucket, object_key) = match place {
        Place::S3(place) => (Some(place.bucket.clone()), Some(place.key.clone())),
        Place::Path(_) | Place::Stdio => (None, None),
    };
    NewTask { bucket, object_key, ..NewTask::new(kind, Origin::Command, source, target) }
}

/// Refuses to replace a file, as a write without `--force` does.
fn refuse_existing(path: &std::path::Path, write: &super::args::WriteArgs) -> Result<()> {
    if !write.force && path.exists() {
        return Err(Error::new(ErrorKind::Exists, "the file exists").at("path", path.display()));
    }
    Ok(())
}
