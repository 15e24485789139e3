//! `amistore tasks`.

use super::super::args::TasksArgs;
use super::super::output::{Console, tasks, tasks_text};
use super::super::settings::state_directory;
use crate::base::Result;
use crate::ops::{self, ListedTask};

pub(in super::super) fn run(args: TasksArgs, console: &Console) -> Result<()> {
    let directory = state_directory(args.state.as_deref())?;
    let is_selected = |task: &ListedTask| {
        let state = args.task_state.is_none_or(|state| state.name() == task.state());
        let kind = args.kind.is_none_or(|kind| kind == task.kind());
        let image = args.image_id.is_empty()
            || task.image_id().is_some_and(|id| args.image_id.iter().any(|given| given == id));
        state && kind && image
    };
    let mut found = ops::list_tasks(&directory)?;
    found.retain(is_selected);
    console.result(|| tasks_text(&found), || tasks(&found))
}
