//! One function for each use case.

use std::path::Path;
use std::sync::Arc;

use super::{Image, Options, Store, StoreReport};
#[cfg(feature = "aws")]
use crate::aws::RequestSettings;
#[cfg(feature = "aws")]
use crate::aws::ec2::{Ec2Destination, Ec2Options, Edits};
use crate::base::Result;
#[cfg(feature = "aws")]
use crate::base::{Error, ImageId};
use crate::engine::{Archive, ArchiveVolume, Depth, Incoming, Selection};
use crate::image::DirectoryDestination;
use crate::object::ObjectReader;
use crate::ops::{
    self, Copied, CopyOptions, Extracted, PlannedCopy, PlannedRestore, PlannedStore, Restored,
    Verified,
};

/// Stores `image` in `store`, under the key `<ami-id>.bin`. The archive is visible when this
/// returns, and not before; after an error there is none.
pub fn store(image: &Image, store: &Store, options: &Options) -> Result<StoreReport> {
    let key = image.document().archive_name();
    let source = image.document().image_id().map(ToString::to_string).unwrap_or_default();
    let planned = PlannedStore::new(
        image.source(),
        image.ebs(),
        store.destination(&key, &source, options),
        options.store_options(),
        options.resources(),
    )?;
    let stored = planned.run(options.observer.as_ref(), &options.cancel)?;
    Ok(StoreReport::new(key, &stored))
}

/// Restores an archive to the image directory `directory`: `image.json` and a sparse raw disk for
/// each volume. The image is visible when this returns, and not before.
pub fn restore(
    archive: &Archive,
    directory: impl AsRef<Path>,
    options: &Options,
) -> Result<Restored> {
    let destination = DirectoryDestination {
        path: directory.as_ref().to_owned(),
        overwrite: options.overwrite,
        durability: options.durability,
    };
    let resources = options.resources();
    PlannedRestore::to_directory(archive, destination, None, resources, true)?
        .run(options.observer.as_ref(), &options.cancel)
}

/// Restores an archive to EC2, in the Region of [`Options::access`], and registers an image under
/// `name`, or under its recorded name. Returns the new image id.
#[cfg(feature = "aws")]
pub fn restore_to_ec2(archive: &Archive, name: Option<&str>, options: &Options) -> Result<ImageId> {
    let compute = options.session().compute(&options.access, &RequestSettings::default(), None)?;
    let destination = Ec2Destination::new(Ec2Options {
        ec2: compute.ec2,
        ebs: compute.ebs,
        quotas: compute.quotas,
        memory: 0,
        edits: Edits { name: name.map(ToOwned::to_owned), ..Edits::default() },
        observer: options.observer.clone(),
    });
    let target = ops::ec2_task_target(destination.options(), archive);
    let resumption = options.resumption(archive.reader().name().to_owned(), target);
    let resources = (options.resources(), true);
    PlannedRestore::to_ec2(archive, &destination, resumption, resources, None)?
        .run(options.observer.as_ref(), &options.cancel)?;
    let restored = destination.restored().and_then(|restored| restored.image_id);
    restored.ok_or_else(|| Error::internal("a restore ended without an image"))
}

/// Copies an archive to another store, under the key `<ami-id>.bin`, and compares every stored
/// byte with its digest. An existing copy is no error.
pub fn copy(archive: &Archive, store: &Store, options: &Options) -> Result<Copied> {
    let key = archive.document().archive_name();
    let source = archive.reader().name();
    let destination = store.destination(&key, source, options);
    let copy = CopyOptions { overwrite: options.overwrite, ..CopyOptions::default() };
    PlannedCopy::new(archive, destination, copy, options.resources(), true)?
        .run(options.observer.as_ref(), &options.cancel)
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
