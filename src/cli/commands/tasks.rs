//! `amistore tasks`.

use super::super::args::TasksArgs;
use super::super::output::{Console, tasks, tasks_text};
use super::super::settings::state_directory;
use crate::base::Result;
use crate::ops;

pub(in super::super) fn run(args: TasksArgs, console: &Console) -> Result<()> {
    let found = ops::describe_tasks(&state_directory(args.state.as_deref())?)?;
    console.result(|| tasks_text(&found), || tasks(&found))
}
