//! `amistore completions` and `amistore man`: what packagers install beside the program.

use std::path::Path;

use clap_mangen::Man;

use super::super::args::{CompletionsArgs, ManArgs};
use super::super::command;
use super::super::output::Console;
use crate::base::{Error, ErrorKind, Result};

pub(in super::super) fn completions(args: CompletionsArgs, console: &Console) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "amistore", &mut script);
    console.write(&script)
}

pub(in super::super) fn man(args: ManArgs, console: &Console) -> Result<()> {
    let mut program = command();
    program.build();
    if let Some(directory) = args.dir {
        write_page(&directory, "amistore", &program)?;
        for verb in program.get_subcommands() {
            write_page(&directory, &format!("amistore-{}", verb.get_name()), verb)?;
        }
        return Ok(());
    }
    let page = match &args.verb {
        None => page("amistore", &program)?,
        Some(wanted) => {
            let verb = program.get_subcommands().find(|verb| verb.get_name() == wanted);
            let verb = verb.ok_or_else(|| {
                Error::new(ErrorKind::NotFound, "there is no such command").at("command", wanted)
            })?;
            page(&format!("amistore-{wanted}"), verb)?
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
    std::fs::write(&path, page(title, command)?).map_err(|cause| {
        Error::io("cannot write the manual page", cause).at("path", path.display())
    })
}
