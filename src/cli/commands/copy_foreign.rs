//! `amistore copy` of an object that is no archive.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use super::super::options::{ArchiveUrl, Settings, refuse_same_file};
use super::super::output::{
    Console, copied_object, copied_object_text, foreign_copy_plan, foreign_copy_plan_text,
};
use super::super::record::{recorded, task_of};
use super::super::remote::{Remote, TargetOptions};
use crate::aws::s3::S3Store;
use crate::base::{Error, Observer, Result, TaskKind};
use crate::object::ObjectReader;
use crate::ops::{CopyOptions, PlannedForeignCopy};
use crate::taskdb::NewTask;

/// An object that is no archive.
pub(super) struct Foreign {
    pub(super) from: ArchiveUrl,
    pub(super) bucket: Option<S3Store>,
    pub(super) reader: Arc<dyn ObjectReader>,
    /// The error of opening it as an archive.
    pub(super) refusal: Error,
}

/// The target of a copy, and its options.
pub(super) struct ForeignTarget<'a> {
    pub(super) to: &'a Path,
    pub(super) target: TargetOptions<'a>,
    pub(super) options: CopyOptions,
}

pub(super) fn run(
    object: &Foreign,
    to: ForeignTarget<'_>,
    remote: &Remote,
    observer: &Arc<dyn Observer>,
    settings: &Settings,
    console: &Console,
) -> Result<()> {
    let Foreign { from, bucket, reader, refusal } = object;
    let name = from.file_name().map_or_else(|| OsString::from("object.bin"), OsString::from);
    let ForeignTarget { to, target: target_options, options } = to;
    let to = ArchiveUrl::parse(to)?.of_archive(&name)?;
    if let (ArchiveUrl::Path(source), ArchiveUrl::Path(target)) = (from, &to) {
        refuse_same_file(target, [source.as_path()])?;
    }
    let (source, target) = (from.source(), to.target());
    let destination = remote.destination(&to, &target_options, source.clone())?;
    let planned = PlannedForeignCopy::new(
        reader.clone(),
        bucket.as_ref().zip(from.s3()).map(|(store, location)| (store, location.key.as_str())),
        refusal,
        destination,
        options,
        &settings.resources,
        observer.as_ref(),
    )?;
    let plan = planned.plan();
    if target_options.write.dry_run {
        let existing = planned.check(observer.as_ref())?;
        return console.result(
            || foreign_copy_plan_text(plan, &source, &target, &existing),
            || foreign_copy_plan(plan, &source, &target, &existing),
        );
    }
    console.explain(|| foreign_copy_plan_text(plan, &source, &target, &Default::default()));
    let task = NewTask {
        size: plan.object.len,
        ..task_of(&to, TaskKind::Copy, source.as_str(), target.as_str())
    };
    if to == ArchiveUrl::Stdio {
        console.give_up_stdout();
    }
    let copied = recorded(console, &target_options.resume.state, &task, observer, |observer| {
        planned.run(observer, &settings.cancel)
    })?;
    console.result(
        || copied_object_text(&copied, &source, &target, false),
        || copied_object(&copied, &source, &target, false),
    )
}
