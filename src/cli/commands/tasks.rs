//! `amistore tasks`.

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};

use super::super::options::StateArgs;
use super::super::output::{Console, tasks, tasks_text};
use crate::base::{Result, TaskKind, TaskState};
use crate::ops::{self, ListedTask};

/// List stores, restores and copies of the last 31 days, those of servers too: running, ended, and
/// interrupted ones that can be continued
#[derive(Debug, Args)]
#[command(before_help = "\
Example:
  amistore tasks
  amistore tasks --task-state Failed --output json | jq -r \
'.StoreImageTaskResults[].ResumeCommand'")]
pub(in super::super) struct TasksArgs {
    /// Only tasks of this image; may be repeated
    #[arg(long, value_name = "AMI")]
    image_id: Vec<String>,
    /// Only tasks in this state
    #[arg(long, value_name = "STATE")]
    task_state: Option<TaskState>,
    /// Only tasks of this kind
    #[arg(long, value_name = "KIND")]
    kind: Option<TaskKind>,
    #[command(flatten)]
    state: StateArgs,
}

impl ValueEnum for TaskState {
    fn value_variants<'a>() -> &'a [Self] {
        // EC2 names a queued task `InProgress` as well.
        &[Self::InProgress, Self::Completed, Self::Failed]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

impl ValueEnum for TaskKind {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

pub(super) fn run(args: &TasksArgs, console: &Console) -> Result<()> {
    let directory = args.state.directory()?;
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
