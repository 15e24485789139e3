//! `amistore copy`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::super::options::{
    ArchiveUrl, ObjectArgs, ResumeArgs, Settings, SidesArgs, ThawArgs, WriteArgs, refuse_same_file,
};
use super::super::output::{Console, copied, copied_text, copy_plan, copy_plan_text};
use super::super::record::{recorded, task_of};
use super::super::remote::{Remote, TargetOptions};
use super::copy_foreign::{self, Foreign, ForeignTarget};
use super::copy_stream;
use crate::aws::s3::S3Store;
use crate::base::{Result, TaskKind};
use crate::engine::{Archive, is_other_object};
use crate::object::ObjectReader;
use crate::ops::{CopyOptions, PlannedCopy};
use crate::taskdb::NewTask;

/// Copy an archive from one store to another, without local disk, and check every byte of it
#[derive(Debug, Args)]
#[command(before_help = "\
Example:
  amistore copy s3://commercial/ami-x.bin s3://govcloud/ --source-profile com \
--target-profile gov
  amistore copy ami-x.bin s3://bucket/prefix/
  amistore copy s3://bucket/ami-x.bin archives/")]
pub(in super::super) struct CopyArgs {
    /// A file, s3://BUCKET/KEY, or - for stdin. Objects that are no archives are copied as they are
    #[arg(value_name = "FROM")]
    from: PathBuf,
    /// A file or s3://BUCKET/KEY, a directory or s3://BUCKET/PREFIX/ (stands for the same name in
    /// it), or - for stdout
    #[arg(value_name = "TO")]
    to: PathBuf,
    /// Within one store, read and check every byte here as well, instead of letting the service
    /// copy by itself
    #[arg(long)]
    no_server_copy: bool,
    /// Inflate every frame and check every block as well, not only the stored bytes; implies
    /// --no-server-copy
    #[arg(long)]
    verify_blocks: bool,
    #[command(flatten)]
    write: WriteArgs,
    #[command(flatten)]
    object: ObjectArgs,
    #[command(flatten)]
    resume: ResumeArgs,
    #[command(flatten)]
    thaw: ThawArgs,
    #[command(flatten)]
    sides: SidesArgs,
}

pub(super) fn run(args: &CopyArgs, settings: &Settings, console: &Console) -> Result<()> {
    let observer = console.observer();
    let from = ArchiveUrl::parse(&args.from)?;
    let remote = Remote::new(settings, &observer);
    let Some((bucket, reader)) = args.open(&from, &remote)? else {
        let to = (args.to.as_path(), args.verify_blocks);
        return copy_stream::run(to, &args.target(), &remote, &observer, settings, console);
    };
    let archive = match Archive::open(reader.clone()) {
        Err(refusal) if is_other_object(&refusal) => {
            let object = Foreign { from, bucket, reader, refusal };
            let to = args.foreign_target()?;
            return copy_foreign::run(&object, to, &remote, &observer, settings, console);
        }
        archive => archive?,
    };
    let name = from.file_name().unwrap_or_else(|| archive.document().archive_name().into());
    let to = ArchiveUrl::parse(&args.to)?.of_archive(&name)?;
    if let (ArchiveUrl::Path(source), ArchiveUrl::Path(target)) = (&from, &to) {
        refuse_same_file(target, [source.as_path()])?;
    }
    let (source, target) = (from.source(), to.target());
    let destination = remote.destination(&to, &args.target(), source.clone())?;
    let (options, resources) = (args.options()?, &settings.resources);
    let object = bucket.as_ref().zip(from.s3());
    let planned = match object.map(|(store, location)| (store, location.key.as_str())) {
        Some(object) => {
            let observer = observer.as_ref();
            PlannedCopy::of_object(&archive, object, destination, options, resources, observer)?
        }
        None => PlannedCopy::new(&archive, destination, options, resources)?,
    };
    if args.write.dry_run {
        let existing = planned.check(observer.as_ref())?;
        return console.result(
            || copy_plan_text(planned.plan(), &source, &target, &existing),
            || copy_plan(planned.plan(), &source, &target, &existing),
        );
    }
    console.explain(|| copy_plan_text(planned.plan(), &source, &target, &Default::default()));
    let volumes = &archive.root().manifest.volumes;
    let task = NewTask {
        image_id: archive.document().image_id().map(ToString::to_string),
        name: archive.document().name().map(ToOwned::to_owned),
        size: volumes.iter().map(|volume| volume.size.bytes()).sum(),
        ..task_of(&to, TaskKind::Copy, source.as_str(), to.recorded_target())
    };
    if to == ArchiveUrl::Stdio {
        console.give_up_stdout();
    }
    let report = recorded(console, &args.resume.state, &task, &observer, |observer| {
        planned.run(observer, &settings.cancel)
    })?;
    drop((planned, remote, observer));
    console.result(
        || copied_text(&report, &source, &target, false),
        || copied(&report, &source, &target, false),
    )
}

/// An archive, and its bucket if it is in one.
type Opened = (Option<S3Store>, Arc<dyn ObjectReader>);

impl CopyArgs {
    /// Opens the archive; `None` for standard input.
    fn open(&self, from: &ArchiveUrl, remote: &Remote) -> Result<Option<Opened>> {
        let requests = self.sides.source()?;
        if let Some(location) = from.s3() {
            let (store, reader) = remote.open_object(location, requests, &self.thaw)?;
            return Ok(Some((Some(store), reader)));
        }
        Ok(remote.open(from, requests, &self.thaw)?.map(|reader| (None, reader)))
    }

    /// The target of an object that is no archive.
    fn foreign_target(&self) -> Result<ForeignTarget<'_>> {
        Ok(ForeignTarget { to: &self.to, target: self.target(), options: self.options()? })
    }

    /// The options of the destination.
    fn target(&self) -> TargetOptions<'_> {
        let Self { object, write, resume, sides, .. } = self;
        TargetOptions { object, write, resume, sides, volumes_at_once: None }
    }

    fn options(&self) -> Result<CopyOptions> {
        Ok(CopyOptions {
            overwrite: self.write.overwrite(),
            tags: self.object.attributes()?.tags,
            by_service: !self.no_server_copy,
            verify_blocks: self.verify_blocks,
        })
    }
}
