//! `--via-aws`: AWS stores or restores an image by itself, in a format of its own.

use std::path::Path;
use std::sync::Arc;

use super::super::options::{ArchiveUrl, Ec2Args, EditArgs, ImageArgs, ObjectArgs, SidesArgs};
use super::super::output::{
    Console, aws_restore_plan, aws_restore_plan_text, aws_restored, aws_restored_text, aws_stored,
    aws_stored_text,
};
use super::super::remote::Remote;
use crate::aws::ec2::Ec2Source;
use crate::base::{Error, Observer, Result};
use crate::ops::{RestoreByAws, StoreByAws};

/// Options of both directions.
pub(super) struct ViaAws<'a> {
    pub(super) ec2: &'a Ec2Args,
    pub(super) sides: &'a SidesArgs,
    pub(super) dry_run: bool,
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
            store.run(&ec2, self.observer.as_ref())?
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
        let restore = RestoreByAws::new(object, edits.name, edits.tags, self.ec2.poll_interval());
        let ec2 = self.remote.control(&self.sides.target()?)?;
        let shown = object.to_string();
        if self.dry_run {
            restore.check(&ec2)?;
            return self
                .console
                .result(|| aws_restore_plan_text(&shown), || aws_restore_plan(&shown));
        }
        let restored = restore.run(&ec2, self.observer.as_ref())?;
        self.console
            .result(|| aws_restored_text(&restored, &shown), || aws_restored(&restored, &shown))
    }
}
