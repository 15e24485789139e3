//! Options of all commands: output, progress, threads and memory.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::values::parse_size;
use crate::base::{Cancel, Error, Result};
use crate::engine::{Incoming, MemoryUses, Plan, Resources};

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(in super::super) struct GlobalArgs {
    /// Form of results and errors
    #[arg(
        long,
        global = true,
        value_name = "FORM",
        env = "AMISTORE_OUTPUT",
        default_value = "text",
        hide_env_values = true
    )]
    pub(in super::super) output: OutputForm,
    /// Form of progress on stderr; auto: a bar on a terminal, otherwise a line every 10 s
    #[arg(
        long,
        global = true,
        value_name = "FORM",
        env = "AMISTORE_PROGRESS",
        default_value = "auto",
        hide_env_values = true
    )]
    pub(in super::super) progress: ProgressForm,
    /// Print results and errors only: no progress, no warnings
    #[arg(long, short, global = true)]
    pub(in super::super) quiet: bool,
    /// Print decisions as well: threads, memory, the plan, retries
    #[arg(long, short, global = true, conflicts_with = "quiet")]
    pub(in super::super) verbose: bool,
    /// No colours (also by the variable NO_COLOR)
    #[arg(long, global = true)]
    pub(in super::super) no_color: bool,
    /// Memory limit; bytes, or with KiB, MiB, GiB
    #[arg(
        long,
        global = true,
        value_name = "SIZE",
        env = "AMISTORE_MEMORY",
        default_value = "256MiB",
        hide_env_values = true
    )]
    memory: String,
    /// File with profiles of options [default: $XDG_CONFIG_HOME/amistore/config, else
    /// ~/.config/amistore/config]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "AMISTORE_CONFIG",
        hide_env_values = true
    )]
    config: Option<PathBuf>,
    /// The profile of that file whose options are used, unless the command line or the environment
    /// has them [default: default, if the file has it]
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "AMISTORE_CONFIG_PROFILE",
        hide_env_values = true
    )]
    config_profile: Option<String>,
    /// Worker threads [default: one for each CPU]
    #[arg(long, global = true, value_name = "N", env = "AMISTORE_THREADS", hide_env_values = true)]
    threads: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in super::super) enum OutputForm {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in super::super) enum ProgressForm {
    Auto,
    Bar,
    Plain,
    Json,
    None,
}

/// Settings of all commands.
pub(in super::super) struct Settings {
    /// Threads and memory.
    pub(in super::super) resources: Resources,
    /// Cancelled by SIGINT and SIGTERM.
    pub(in super::super) cancel: Cancel,
}

impl GlobalArgs {
    /// The settings; operations end with `cancel`.
    pub(in super::super) fn settings(&self, cancel: Cancel) -> Result<Settings> {
        let threads = match self.threads {
            Some(0) => return Err(Error::usage("--threads has to be at least 1")),
            Some(threads) => threads.min(1024),
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        Ok(Settings { resources: Resources { threads, memory: parse_size(&self.memory)? }, cancel })
    }
}

impl Settings {
    /// Threads and memory of an operation with `incoming` data.
    pub(in super::super) fn plan(&self, incoming: Incoming) -> Result<Plan> {
        let uses = MemoryUses { incoming, ..MemoryUses::default() };
        Ok(self.resources.split(&uses)?.plan)
    }
}
