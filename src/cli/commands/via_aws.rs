//! `--via-aws`: AWS stores or restores an image by itself, in a format of its own.

use std::path::Path;
use std::sync::Arc;

use super::super::options::{
    ArchiveUrl, Ec2Args, EditArgs, ImageArgs, ObjectArgs, SidesArgs, StateArgs, ThawArgs,
};
use super::super::output::{
    Console, aws_restore_plan, aws_restore_plan_text, aws_restored, aws_restored_text, aws_stored,
    aws_stored_text,
};
use super::super::record::{recorded, task_of};
use super::super::remote::Remote;
use crate::aws::ec2::Ec2Source;
use crate::aws::s3::S3Location;
use crate::base::{Error, ErrorKind, Observer, Result, TaskKind};
use crate::engine::{Archive, is_other_object};
use crate::ops::{RestoreByAws, StoreByAws};
use crate::taskdb::{NewTask, Origin};

/// Options of both directions.
pub(super) struct ViaAws<'a> {
    pub(super) ec2: &'a Ec2Args,
    pub(super) sides: &'a SidesArgs,
    pub(super) dry_run: bool,
    pub(super) state: &'a StateArgs,
    pub(super) remote: Remote,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) console: &'a Console,
}

impl ViaAws<'_> {
    /// Has AWS store an image of EC2 in a bucket.
    pub(super) fn store(
        self,
        source: Option<&Path>,
        archive: &ArchiveUrl,
        object: &ObjectArgs,
        image: &ImageArgs,
    ) -> Result<()> {
        if image.name.is_some() {
            return Err(Error::usage("AWS stores an image under its own name: leave out --name"));
        }
        let source = source.and_then(|path| Ec2Source::parse(&path.to_string_lossy()));
        let (Some(Ok(Ec2Source::Image(id))), Some(target)) = (source, archive.s3()) else {
            return Err(Error::usage(
                "AWS stores images of EC2 in buckets: amistore store --via-aws \
                 ami-0123456789abcdef0 s3://bucket/prefix/",
            ));
        };
        let tags = object.attributes()?.tags.into_iter().collect();
        let store = StoreByAws::new(id, target, tags, self.ec2.poll_interval())?;
        let ec2 = self.remote.control(&self.sides.source()?)?;
        let target = if self.dry_run {
            store.check(&ec2)?;
            store.target()
        } else {
            let planned = store.target();
            let task = NewTask {
                image_id: Some(store.image_id().to_string()),
                bucket: Some(planned.bucket.clone()),
                object_key: Some(planned.key.clone()),
                ..NewTask::new(
                    TaskKind::Store,
                    Origin::Command,
                    store.image_id().as_str(),
                    format!("{planned} (by AWS)"),
                )
            };
            recorded(self.console, self.state, &task, &self.observer, |observer| {
                store.run(&ec2, observer)
            })?
        };
        self.console.result(
            || aws_stored_text(store.image_id(), &target, self.dry_run),
            || aws_stored(store.image_id(), &target, self.dry_run),
        )
    }

    /// Has AWS restore an object that it stored.
    pub(super) fn restore(self, archive: &ArchiveUrl, edits: &EditArgs) -> Result<()> {
        let object = archive.s3().ok_or_else(|| {
            Error::usage(
                "AWS restores objects in buckets: amistore restore --via-aws \
                 s3://bucket/ami-0123456789abcdef0.bin ec2",
            )
        })?;
        edits.refuse_for_aws()?;
        let edits = edits.edits()?;
        self.refuse_archive(object)?;
        let name = edits.name.clone();
        let restore = RestoreByAws::new(object, edits.name, edits.tags, self.ec2.poll_interval());
        let ec2 = self.remote.control(&self.sides.target()?)?;
        let shown = object.to_string();
        if self.dry_run {
            restore.check(&ec2)?;
            return self
                .console
                .result(|| aws_restore_plan_text(&shown), || aws_restore_plan(&shown));
        }
        let task =
            NewTask { name, ..task_of(archive, TaskKind::Restore, shown.as_str(), "ec2 (by AWS)") };
        let restored = recorded(self.console, self.state, &task, &self.observer, |observer| {
            restore.run(&ec2, observer)
        })?;
        self.console
            .result(|| aws_restored_text(&restored, &shown), || aws_restored(&restored, &shown))
    }

    /// Refuses an archive of amistore, of which AWS would say much later that it is not one of its
    /// objects. An object that these credentials may not read, or do not find, is left to AWS.
    fn refuse_archive(&self, object: &S3Location) -> Result<()> {
        let requests = self.sides.only_bucket()?;
        let opened = self.remote.open_object(object, requests, &ThawArgs::default());
        let reader = match opened {
            Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::NotFound) => {
                return Ok(());
            }
            opened => opened?.1,
        };
        match Archive::open(reader) {
            Err(error) if is_other_object(&error) || error.kind() == ErrorKind::Denied => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(Error::usage(
                "this is an archive of amistore, and AWS restores only its own objects: leave out \
                 --via-aws",
            )
            .at("archive", object)),
        }
    }
}
