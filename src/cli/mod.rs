//! The command line: arguments, commands, output, exit codes.
//!
//! `options` parses groups of options and converts them to checked settings; `commands` has one
//! file for each verb: it plans a use case of `ops`, carries it out, and gives its report to
//! `output`. `remote` opens connections and archives, `source` the image to store; `record` notes
//! runs in the task database, `hints` advises on errors.

mod commands;
mod hints;
mod interrupt;
mod options;
mod output;
mod record;
mod remote;
mod source;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, Parser};

use crate::base::{Cancel, Error, Printable, Result};
use commands::Command;
use options::GlobalArgs;
use output::{Console, SafeText};

/// Store an Amazon Machine Image as one compressed, verifiable object, and restore it anywhere.
#[derive(Debug, Parser)]
#[command(
    name = "amistore",
    version,
    disable_help_subcommand = true,
    max_term_width = 120,
    before_help = "\
Example:
  amistore store --disk /dev/xvda=root.raw --name \"my image\" archives/   # pack a raw disk image
  amistore verify archives/ami-*.bin                                     # check every block
  amistore restore archives/ami-*.bin restored/                          # and get it back
  amistore store image-dir/ s3://bucket/prefix/                          # to a bucket, resumable
  amistore store ami-0123456789abcdef0 s3://bucket/                      # an AMI of EC2
  amistore restore s3://bucket/ami-0123456789abcdef0.bin ec2             # and as a new AMI",
    after_help = "\
Exit codes: 0 ok, 1 internal, 2 usage, 3 not found, 4 denied, 5 corrupt, 6 I/O, 7 limit, \
8 unsupported, 9 exists, 130 interrupted.
An archive opens with stock tools, too: zstd -dc ami.bin | tar -xSf -"
)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(error),
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
    let cancel = Cancel::new();
    interrupt::listen(&cancel)?;
    cli.command.run(&cli.global.settings(cancel)?, console)
}

/// Prints the help or the error of clap. Scripts with `--output json` get an error in JSON even if
/// their arguments are wrong.
fn refuse(error: clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // An error is ignored: the output that could show it is closed.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let json = arguments.iter().any(|arg| arg == "--output=json")
        || arguments.windows(2).any(|pair| pair[0] == "--output" && pair[1] == "json")
        || std::env::var("AMISTORE_OUTPUT").is_ok_and(|value| value == "json");
    if json {
        let text = error.render().to_string();
        // The first paragraph: the fault, and its arguments.
        let lines: Vec<&str> =
            text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
        let message = lines.join(" ").trim_start_matches("error: ").to_owned();
        output::print_json_error(&Error::usage(message));
    } else {
        let no_color = arguments.iter().any(|arg| arg == "--no-color");
        usage_text(error).to_stderr_as_error(output::is_colored(no_color));
    }
    ExitCode::from(2)
}

/// An error of the arguments in clap's words. An argument in it ends no line, either.
fn usage_text(mut error: clap::Error) -> SafeText {
    let shown = |text: &dyn std::fmt::Display| Printable(text).to_string();
    let values: Vec<(ContextKind, ContextValue)> = error
        .context()
        .filter_map(|(kind, value)| {
            let shown = match value {
                ContextValue::String(text) => ContextValue::String(shown(text)),
                ContextValue::Strings(texts) => {
                    ContextValue::Strings(texts.iter().map(|text| shown(text)).collect())
                }
                ContextValue::StyledStrs(texts) => {
                    ContextValue::StyledStrs(texts.iter().map(|text| shown(text).into()).collect())
                }
                _ => return None,
            };
            Some((kind, shown))
        })
        .collect();
    for (kind, value) in values {
        error.insert(kind, value);
    }
    error.render().to_string().trim_start_matches("error: ").lines().collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_help_starts_with_an_example() {
        let mut command = Cli::command();
        command.build();
        for verb in command.get_subcommands_mut() {
            let help = verb.render_help().to_string();
            assert!(help.starts_with("Example:\n  amistore "), "{help}");
        }
    }
}
