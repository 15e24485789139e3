//! One file for each verb: its arguments, and its run from settings to use case to output.
//!
//! [`Command`] is the table of verbs: a new one is a file beside this one with its arguments and
//! its `run`, and here a module, a variant and an arm.

mod clean;
mod copy;
mod copy_foreign;
mod copy_stream;
mod documents;
mod extract;
mod inspect;
mod ls;
mod restore;
mod restore_stream;
mod retire;
mod salvage;
mod serve;
mod store;
mod tasks;
mod verify;
mod via_aws;

use clap::Subcommand;

use super::options::Settings;
use super::output::Console;
use crate::base::Result;

// A doc comment here would become the help of the program.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Store(store::StoreArgs),
    Restore(restore::RestoreArgs),
    Verify(verify::VerifyArgs),
    Extract(extract::ExtractArgs),
    Inspect(inspect::InspectArgs),
    Copy(copy::CopyArgs),
    Ls(ls::LsArgs),
    Serve(serve::ServeArgs),
    Tasks(tasks::TasksArgs),
    Clean(clean::CleanArgs),
    Retire(retire::RetireArgs),
    Completions(documents::CompletionsArgs),
    Man(documents::ManArgs),
}

impl Command {
    /// Runs the verb.
    pub(super) fn run(&self, settings: &Settings, console: &Console) -> Result<()> {
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
