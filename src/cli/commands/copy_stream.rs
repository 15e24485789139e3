//! `amistore copy -`: a copy from standard input.

use std::path::Path;
use std::sync::Arc;

use super::super::options::{ArchiveUrl, Settings};
use super::super::output::{Console, copied, copied_text, stream_copy_plan, stream_copy_plan_text};
use super::super::record::{recorded, task_of};
use super::super::remote::{Remote, TargetOptions};
use crate::base::{Error, Observer, Result, TaskKind};
use crate::engine::Depth;
use crate::object::PipeReader;
use crate::ops::PlannedStreamCopy;

pub(super) fn run(
    (to, verify_blocks): (&Path, bool),
    options: &TargetOptions<'_>,
    remote: &Remote,
    observer: &Arc<dyn Observer>,
    settings: &Settings,
    console: &Console,
) -> Result<()> {
    let to = ArchiveUrl::parse(to)?;
    let (source, target) = (ArchiveUrl::Stdio.source(), to.target());
    if !to.names_archive()? {
        return Err(
            Error::usage("a stream has no name: name the file or object").at("target", &target)
        );
    }
    let destination = remote.destination_of_stream(&to, options)?;
    let creation = (options.write.overwrite(), options.object.attributes()?);
    let depth = if verify_blocks { Depth::Blocks } else { Depth::Stored };
    let planned = PlannedStreamCopy::new(destination, creation, depth, &settings.resources)?;
    if options.write.dry_run {
        planned.check(observer.as_ref())?;
        return console.result(
            || stream_copy_plan_text(planned.plan(), &source, &target),
            || stream_copy_plan(planned.plan(), depth, &source, &target),
        );
    }
    console.explain(|| stream_copy_plan_text(planned.plan(), &source, &target));
    let task = task_of(&to, TaskKind::Copy, source.as_str(), to.recorded_target());
    if to == ArchiveUrl::Stdio {
        console.give_up_stdout();
    }
    let report = recorded(console, &options.resume.state, &task, observer, |observer| {
        let input = PipeReader::stdin(settings.cancel.clone())?;
        planned.run(input, observer, &settings.cancel)
    })?;
    console.result(
        || copied_text(&report, &source, &target, false),
        || copied(&report, &source, &target, false),
    )
}
