//! One file for each verb: from settings to use case to output.
//!
//! [`Command`] is the table of verbs: a new one is a file beside this one with its arguments and its
//! `run`, and here a module, a variant and an arm.

pub(super) mod clean;
mod copy;
mod documents;
mod extract;
mod inspect;
mod ls;
mod restore;
mod retire;
mod serve;
mod store;
pub(super) mod tasks;
mod verify;
mod via_aws;

use clap::Subcommand;

use super::args::{
    CleanArgs, CompletionsArgs, CopyArgs, ExtractArgs, InspectArgs, LsArgs, ManArgs, RestoreArgs,
    RetireArgs, ServeArgs, StoreArgs, TasksArgs, VerifyArgs,
};
use super::output::Console;
use super::settings::{Place, Settings};
use crate::base::{Error, ErrorKind, Observer, Result, TaskKind};
use crate::engine::{Context, Plan};
use crate::taskdb::{NewTask, Origin};

// A doc comment here would become the help of the program.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Store(StoreArgs),
    Restore(RestoreArgs),
    Verify(VerifyArgs),
    Extract(ExtractArgs),
    Inspect(InspectArgs),
    Copy(CopyArgs),
    Ls(LsArgs),
    Serve(ServeArgs),
    Tasks(TasksArgs),
    Clean(CleanArgs),
    Retire(RetireArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

impl Command {
    /// Runs the verb.
    pub(super) fn run(self, settings: &Settings, console: &Console) -> Result<()> {
        match self {
            Self::Store(args) => store::run(args, settings, console),
            Self::Restore(args) => restore::run(args, settings, console),
            Self::Verify(args) => verify::run(args, settings, console),
            Self::Extract(args) => extract::run(args, settings, console),
            Self::Inspect(args) => inspect::run(args, settings, console),
            Self::Copy(args) => copy::run(args, settings, console),
            Self::Ls(args) => ls::run(args, settings, console),
            Self::Serve(args) => serve::run(args, settings, console),
            Self::Tasks(args) => tasks::run(args, console),
            Self::Clean(args) => clean::run(args, settings, console),
            Self::Retire(args) => retire::run(args, settings, console),
            Self::Completions(args) => documents::completions(args, console),
            Self::Man(args) => documents::man(args, console),
        }
    }
}

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
        Place::Path(_) | Place::Stdio | Place::Url(_) => (None, None),
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
