//! `amistore restore -`: a restore from standard input.

use std::sync::Arc;

use super::super::options::{ArchiveUrl, Settings, StateArgs};
use super::super::output::{
    Console, Restoration, restoration, restoration_text, stream_restore_plan,
    stream_restore_plan_text,
};
use super::super::record::{recorded, task_of};
use crate::base::{Observer, Result, TaskKind};
use crate::object::PipeReader;
use crate::ops::{PlannedStreamRestore, RestoreDestination};

pub(super) fn run(
    destination: RestoreDestination,
    (name, dry_run): (String, bool),
    state: &StateArgs,
    observer: Arc<dyn Observer>,
    settings: &Settings,
    console: &Console,
) -> Result<()> {
    let planned = PlannedStreamRestore::new(&destination, &settings.resources)?;
    let source = ArchiveUrl::Stdio.source();
    if dry_run {
        planned.check()?;
        return console.result(
            || stream_restore_plan_text(planned.plan(), &source, &name),
            || stream_restore_plan(planned.plan(), &source, &name),
        );
    }
    console.explain(|| stream_restore_plan_text(planned.plan(), &source, &name));
    let target = destination.stream_task_target();
    let task = task_of(&ArchiveUrl::Stdio, TaskKind::Restore, source.as_str(), target);
    let report = recorded(console, state, &task, &observer, |observer| {
        planned.run(PipeReader::stdin(settings.cancel.clone())?, observer, &settings.cancel)
    })?;
    drop(observer);
    let restored = Restoration::new(report, destination, source, name)?;
    console.result(|| restoration_text(&restored), || restoration(&restored))
}
