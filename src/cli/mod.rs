//! The command line: arguments, commands, output, exit codes.
//!
//! `args` only parses; `settings` turns arguments into plain, checked types; `commands` call the
//! use cases and hand what they return to `output`. It does not do any of the work itself.

mod args;
mod commands;
mod hints;
mod interrupt;
mod output;
mod record;
mod remote;
mod settings;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::base::{Error, Result};
use args::{Cli, Command};
use output::Console;
use settings::Settings;

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let console = Console::new(&cli.global);
    match run(cli, &console) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console.error(&error);
            ExitCode::from(error.kind().exit_code())
        }
    }
}

/// The command line as clap knows it, for completions, manual pages and tests.
pub fn command() -> clap::Command {
    Cli::command()
}

fn run(cli: Cli, console: &Console) -> Result<()> {
    let settings = Settings::new(&cli.global)?;
    match cli.command {
        Command::Store(args) => commands::store::run(args, &settings, console),
        Command::Restore(args) => commands::restore::run(args, &settings, console),
        Command::Verify(args) => commands::verify::run(args, &settings, console),
        Command::Extract(args) => commands::extract::run(args, &settings, console),
        Command::Inspect(args) => commands::inspect::run(args, &settings, console),
        Command::Copy(args) => commands::copy::run(args, &settings, console),
        Command::Ls(args) => commands::ls::run(args, &settings, console),
        Command::Serve(args) => commands::serve::run(args, &settings, console),
        Command::Tasks(args) => commands::tasks::run(args, console),
        Command::Clean(args) => commands::clean::run(args, &settings, console),
        Command::Retire(args) => commands::retire::run(args, &settings, console),
        Command::Completions(args) => commands::documents::completions(args, console),
        Command::Man(args) => commands::documents::man(args, console),
    }
}

/// Prints what clap has to say. Scripts that asked for JSON get an error in JSON even if their
/// arguments are wrong.
fn refuse(error: &clap::Error) -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let json = arguments.iter().any(|arg| arg == "--output=json")
        || arguments.windows(2).any(|pair| pair[0] == "--output" && pair[1] == "json")
        || std::env::var("AMISTORE_OUTPUT").is_ok_and(|value| value == "json");
    if json && error.use_stderr() {
        let text = error.render().to_string();
        // The first paragraph: what is wrong, and the arguments it is about.
        let lines: Vec<&str> =
            text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
        let message = lines.join(" ").trim_start_matches("error: ").to_owned();
        output::print_json_error(&Error::usage(message));
        return ExitCode::from(2);
    }
    // A closed stdout cannot be told to anybody.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { 2 } else { 0 })
}
