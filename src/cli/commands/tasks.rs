//! `amistore tasks`.

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};

use super::super::options::StateArgs;
use super::super::output::{Console, tasks, tasks_text};
use crate::base::{Result, TaskKind, TaskState};
use crate::ops::{self, TaskSelection};

/// List stores, restores and copies of the last 31 days, those of servers too: running, ended, and
/// interrupted ones that can be continued
#[derive(Debug, Args)]
#[command(before_help = "\
Example:
  amistore tasks --last 5
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
    /// Only tasks whose image or archive file has this name; * and ? stand for other characters
    #[arg(long, value_name = "PATTERN")]
    name: Option<String>,
    /// Only the N newest
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    last: Option<u32>,
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
    let selection = TaskSelection {
        image_ids: args.image_id.clone(),
        state: args.task_state,
        kind: args.kind,
        name: args.name.clone(),
        last: args.last.map(|last| last as usize),
    };
    let found = selection.of(ops::list_tasks(&args.state.directory()?)?);
    console.result(|| tasks_text(&found), || tasks(&found))
}
