//! The command line: arguments, commands, output, exit codes.
//!
//! `config` adds the options of a configuration file to the arguments. `options` parses groups of
//! options and converts them to checked settings; `commands` has one file for each verb: it plans a
//! use case of `ops`, carries it out, and gives its report to `output`. `remote` opens connections
//! and archives, `source` the image to store; `record` notes runs in the task database, `hints`
//! advises on errors.

mod commands;
mod config;
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

use crate::base::{Cancel, Error, ErrorKind, Printable, Result, catches_panic};
use commands::Command;
use config::Configured;
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
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !catches_panic() {
            hook(panic);
        }
    }));
    let given: Vec<OsString> = std::env::args_os().collect();
    let configured = match config::configured(&command(), given.clone()) {
        Ok(configured) => configured,
        Err(error) => return print(&error, &given),
    };
    let cli = match Cli::try_parse_from(&configured.arguments) {
        Ok(cli) => cli,
        Err(error) => return refuse(error, &given, &configured),
    };
    let console = Console::new(&cli.global);
    console.explain(|| configured.lines().into_iter().collect::<SafeText>());
    match run(cli, &console) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error = match configured.source() {
                Some(source) if error.kind() == ErrorKind::Usage => {
                    error.at("configuration", source)
                }
                _ => error,
            };
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
fn refuse(error: clap::Error, given: &[OsString], configured: &Configured) -> ExitCode {
    if !error.use_stderr() {
        // An error is ignored: the output that could show it is closed.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let origin = option_of(&error).and_then(|option| configured.line_of(&option));
    let origin = configured.source().zip(origin).map(|(source, line)| (source, line.to_string()));
    if wants_json(given) {
        let text = error.render().to_string();
        // The first paragraph: the fault, and its arguments.
        let lines: Vec<&str> =
            text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
        let message = lines.join(" ").trim_start_matches("error: ").to_owned();
        let error = Error::usage(message);
        output::print_json_error(&match origin {
            Some((source, line)) => error.at("configuration", source).at("line", line),
            None => error,
        });
    } else {
        let mut text = usage_text(error);
        if let Some((source, line)) = origin {
            text.line(format_args!("  configuration: {source}, line {line}"));
        }
        text.to_stderr_as_error(output::is_colored(has_no_color(given)));
    }
    ExitCode::from(2)
}

/// The long name of the option that an error of clap is about.
fn option_of(error: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(shown)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let name = shown.trim_start_matches("--").split([' ', '=']).next()?;
    Some(name.to_owned())
}

/// Prints an error that comes before the arguments are parsed.
fn print(error: &Error, given: &[OsString]) -> ExitCode {
    if wants_json(given) {
        output::print_json_error(error);
    } else {
        output::print_error(error, output::is_colored(has_no_color(given)));
    }
    ExitCode::from(error.kind().exit_code())
}

fn has_no_color(given: &[OsString]) -> bool {
    given.iter().any(|arg| arg == "--no-color")
}

/// Whether the arguments, which cannot be parsed, select output in JSON.
fn wants_json(given: &[OsString]) -> bool {
    given.iter().any(|arg| arg == "--output=json")
        || given.windows(2).any(|pair| pair[0] == "--output" && pair[1] == "json")
        || std::env::var("AMISTORE_OUTPUT").is_ok_and(|value| value == "json")
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
