//! `amistore completions` and `amistore man`: files that packagers install beside the program.

use std::path::{Path, PathBuf};

use clap::Args;
use clap_mangen::Man;

use super::super::command;
use super::super::output::Console;
use crate::base::{Error, ErrorKind, Result};
use crate::localfs::{Durability, Overwrite, PartialFile, write_all};

/// Print a completion script
#[derive(Debug, Args)]
#[command(before_help = "Example:\n  amistore completions bash > /etc/bash_completion.d/amistore")]
pub(in super::super) struct CompletionsArgs {
    /// The shell
    shell: clap_complete::Shell,
}

/// Print the manual page, or write all pages to a directory
#[derive(Debug, Args)]
#[command(before_help = "\
Example:
  amistore man | man -l -
  amistore man --dir /usr/local/share/man/man1")]
pub(in super::super) struct ManArgs {
    /// The command of the page [default: the program]
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    verb: Option<String>,
    /// Write all pages to this directory, which is made if it does not exist
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn completions(args: &CompletionsArgs, console: &Console) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "amistore", &mut script);
    console.write(&script)
}

pub(super) fn man(args: &ManArgs, console: &Console) -> Result<()> {
    let mut program = command();
    program.build();
    if let Some(directory) = &args.dir {
        std::fs::create_dir_all(directory).map_err(|cause| {
            Error::io("cannot make the directory of manual pages", cause)
                .at("path", directory.display())
        })?;
        write_page(directory, "amistore", &program)?;
        for verb in program.get_subcommands() {
            write_page(directory, &format!("amistore-{}", verb.get_name()), verb)?;
        }
        return Ok(());
    }
    let page = match &args.verb {
        None => page("amistore", &program)?,
        Some(name) => {
            let verb = program.get_subcommands().find(|verb| verb.get_name() == name);
            let verb = verb.ok_or_else(|| {
                Error::new(ErrorKind::NotFound, "there is no such command").at("command", name)
            })?;
            page(&format!("amistore-{name}"), verb)?
        }
    };
    console.write(&page)
}

fn page(title: &str, command: &clap::Command) -> Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command.clone())
        .title(title)
        .render(&mut page)
        .map_err(|cause| Error::internal("cannot make the manual page").because(cause))?;
    Ok(page)
}

fn write_page(directory: &Path, title: &str, command: &clap::Command) -> Result<()> {
    let path = directory.join(format!("{title}.1"));
    let page = page(title, command)?;
    let write = || {
        let file = PartialFile::create(&path, Overwrite::Yes, Durability::Cached)?;
        write_all(file.file(), &page).map_err(|cause| {
            Error::io("cannot write the file", cause).at("path", path.display())
        })?;
        file.commit()
    };
    write().map_err(|error: Error| {
        Error::new(error.kind(), "cannot write the manual page").because(error)
    })
}
