//! The state directory, and the continuation of interrupted work.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::base::{Error, Result};
use crate::checkpoint::StateDirectory;
use crate::ops::Resumption;

/// The state directory.
#[derive(Debug, Default, Args)]
pub(in super::super) struct StateArgs {
    /// Directory of unfinished work and tasks [default: $XDG_STATE_HOME/amistore, else
    /// ~/.local/state/amistore]
    #[arg(long, value_name = "DIR", env = "AMISTORE_STATE", hide_env_values = true)]
    state: Option<PathBuf>,
}

/// Options of work that can be continued.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Resume")]
pub(in super::super) struct ResumeArgs {
    #[command(flatten)]
    pub(in super::super) state: StateArgs,
    /// Begin anew although there is something to continue
    #[arg(long)]
    restart: bool,
}

impl StateArgs {
    /// The directory that is given, else that of the XDG rules.
    pub(in super::super) fn directory(&self) -> Result<StateDirectory> {
        let variable = |name: &str| {
            std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
        };
        let standard = || {
            let base = variable("XDG_STATE_HOME")
                .or_else(|| variable("HOME").map(|home| home.join(".local/state")));
            base.map(|base| base.join("amistore"))
        };
        let path = self.state.as_deref().map(Path::to_owned).or_else(standard);
        path.map(StateDirectory::new).ok_or_else(|| {
            Error::usage("no directory for unfinished work is known: give --state, or set HOME")
        })
    }
}

impl ResumeArgs {
    /// How work to `target` is recorded, and continued by the command line of this process.
    pub(in super::super) fn resumption(
        &self,
        source: String,
        target: String,
    ) -> Result<Resumption> {
        Ok(Resumption {
            directory: self.state.directory()?,
            command: command_line(),
            working_directory: std::env::current_dir()
                .map(|path| path.display().to_string())
                .unwrap_or_default(),
            source,
            target,
            restart: self.restart,
        })
    }
}

/// The command line of this process, without `--restart`.
pub(in super::super) fn command_line() -> Vec<String> {
    let arguments = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
    std::iter::once("amistore".to_owned())
        .chain(arguments.filter(|arg| arg != "--restart"))
        .collect()
}
