//! One function for each use case.

use std::path::Path;
use std::sync::Arc;

use super::{Image, Options, Store, StoreReport};
use crate::base::Result;
use crate::engine::{Archive, ArchiveVolume, Depth, Incoming, Selection};
use crate::image::DirectoryDestination;
use crate::object::ObjectReader;
use crate::ops::{
    self, Copied, CopyOptions, Extracted, Inspection, PlannedCopy, PlannedRestore, PlannedStore,
    Restored, Verified,
};
#[cfg(feature = "aws")]
use {
    super::Clean,
    crate::aws::RequestSettings,
    crate::aws::ec2::{Ec2Destination, Ec2Options, Edits, RetireAction, RetirePlan},
    crate::base::{Error, ImageId},
    crate::ops::{CleanAccess, Cleaned, PermittedRetire, PlannedRetire},
};

/// Stores `image` in `store`, under the key `<ami-id>.bin`. The archive is visible when this
/// returns, and not before; after an error there is none.
pub fn store(image: &Image, store: &Store, options: &Options) -> Result<StoreReport> {
    let stored =
        planned_store(image, store, options)?.run(options.observer.as_ref(), &options.cancel)?;
    Ok(StoreReport::new(image.document().archive_name(), &stored))
}

pub(super) fn planned_store<'a>(
    image: &'a Image,
    store: &Store,
    options: &Options,
) -> Result<PlannedStore<'a>> {
    let key = image.document().archive_name();
    let source = image.document().image_id().map(ToString::to_string).unwrap_or_default();
    PlannedStore::new(
        image.source(),
        image.ebs(),
        store.destination(&key, &source, options),
        options.store_options(),
        options.resources(),
    )
}

/// Restores an archive to the image directory `directory`: `image.json` and a sparse raw disk for
/// each volume. The image is visible when this returns, and not before.
pub fn restore(
    archive: &Archive,
    directory: impl AsRef<Path>,
    options: &Options,
) -> Result<Restored> {
    planned_restore(archive, directory.as_ref(), options)?
        .run(options.observer.as_ref(), &options.cancel)
}

pub(super) fn planned_restore<'a>(
    archive: &'a Archive,
    directory: &Path,
    options: &Options,
) -> Result<PlannedRestore<'a>> {
    let destination = DirectoryDestination {
        path: directory.to_owned(),
        overwrite: options.overwrite,
        durability: options.durability,
    };
    PlannedRestore::to_directory(archive, destination, None, options.resources())
}

/// Restores an archive to EC2, in the Region of [`Options::access`], and registers an image under
/// `name`, or under its recorded name. Returns the new image id.
#[cfg(feature = "aws")]
pub fn restore_to_ec2(archive: &Archive, name: Option<&str>, options: &Options) -> Result<ImageId> {
    let destination = ec2_destination(name, options)?;
    planned_ec2_restore(archive, &destination, options)?
        .run(options.observer.as_ref(), &options.cancel)?;
    let restored = destination.restored().and_then(|restored| restored.image_id);
    restored.ok_or_else(|| Error::internal("a restore ended without an image"))
}

#[cfg(feature = "aws")]
pub(super) fn ec2_destination(name: Option<&str>, options: &Options) -> Result<Ec2Destination> {
    let compute = options.session().compute(&options.access, &RequestSettings::default(), None)?;
    let edits = Edits { name: name.map(ToOwned::to_owned), ..Edits::default() };
    Ok(Ec2Destination::new(Ec2Options::new(compute, edits, options.observer.clone())))
}

#[cfg(feature = "aws")]
pub(super) fn planned_ec2_restore<'a>(
    archive: &'a Archive,
    destination: &Ec2Destination,
    options: &Options,
) -> Result<PlannedRestore<'a>> {
    let target = ops::ec2_task_target(destination.options(), archive);
    let resumption = options.resumption(archive.reader().name().to_owned(), target);
    PlannedRestore::to_ec2(archive, destination, resumption, options.resources(), None)
}

/// Copies an archive to another store, under the key `<ami-id>.bin`, and compares every stored
/// byte with its digest. An existing copy is no error.
pub fn copy(archive: &Archive, store: &Store, options: &Options) -> Result<Copied> {
    planned_copy(archive, store, options)?.run(options.observer.as_ref(), &options.cancel)
}

pub(super) fn planned_copy<'a>(
    archive: &'a Archive,
    store: &Store,
    options: &Options,
) -> Result<PlannedCopy<'a>> {
    let key = archive.document().archive_name();
    let destination = store.destination(&key, archive.reader().name(), options);
    let copy = CopyOptions { overwrite: options.overwrite, ..CopyOptions::default() };
    PlannedCopy::new(archive, destination, copy, options.resources())
}

/// Tells the content of an archive: metadata, volumes, digests. Reads the index, and no data.
pub fn inspect(archive: &Archive) -> Result<Inspection> {
    ops::inspect(archive)
}

/// Checks every byte of the archive in `object`. Damage is not an error but a finding: see
/// [`Verified::is_ok`].
pub fn verify(object: Arc<dyn ObjectReader>, options: &Options) -> Result<Verified> {
    options.with_context(Incoming::Archive, |context| {
        ops::verify(object, Selection::All, Depth::Blocks, context)
    })
}

/// Checks an archive as [`verify`] does, and compares it with an image, block by block.
pub fn verify_against(
    object: Arc<dyn ObjectReader>,
    image: &Image,
    options: &Options,
) -> Result<Verified> {
    let incoming = if image.ebs().is_some() { Incoming::Both } else { Incoming::Archive };
    options.with_context(incoming, |context| ops::verify_against(object, image.source(), context))
}

/// Writes a volume to a new sparse file; with [`Options::overwrite`] also over an existing file or
/// to a block device.
pub fn extract(
    volume: &ArchiveVolume,
    output: impl AsRef<Path>,
    options: &Options,
) -> Result<Extracted> {
    let (overwrite, durability) = (options.overwrite, options.durability);
    options.with_context(Incoming::Archive, |context| {
        ops::extract(volume, output.as_ref(), overwrite, durability, context)
    })
}

/// Takes an image in EC2 out of service, after every block of its archive was compared with it. An
/// archive that differs is an error of kind [`Corrupt`](crate::base::ErrorKind::Corrupt), and
/// nothing is done to the image.
#[cfg(feature = "aws")]
pub fn retire(
    image_id: &ImageId,
    archive: Arc<dyn ObjectReader>,
    action: RetireAction,
    options: &Options,
) -> Result<RetirePlan> {
    with_retire(image_id, archive, action, options, |planned| planned.run())
}

/// Calls `finish` with the retirement when the archive was compared with the image.
#[cfg(feature = "aws")]
pub(super) fn with_retire(
    image_id: &ImageId,
    archive: Arc<dyn ObjectReader>,
    action: RetireAction,
    options: &Options,
    finish: impl FnOnce(&PlannedRetire<'_>) -> Result<RetirePlan>,
) -> Result<RetirePlan> {
    let compute = options.session().compute(&options.access, &RequestSettings::default(), None)?;
    let permitted = PermittedRetire::new(&compute, image_id.clone(), action)?;
    options.with_context(Incoming::Both, |context| finish(&permitted.compare(archive, context)?))
}

/// Removes leftovers of interrupted work: uploads, snapshots and partial volumes. Needs
/// [`Options::state_directory`]. Work that a process does at the moment keeps its own.
#[cfg(feature = "aws")]
pub fn clean(selection: &Clean, options: &Options) -> Result<Cleaned> {
    run_clean(selection, true, options)
}

#[cfg(feature = "aws")]
pub(super) fn run_clean(selection: &Clean, abort: bool, options: &Options) -> Result<Cleaned> {
    let (session, access) = (&options.session(), options.access.clone());
    let access = CleanAccess { session, settings: RequestSettings::default(), access };
    ops::clean(&options.state()?, &selection.options(abort)?, &access)
}
