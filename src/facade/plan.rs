//! Dry runs: what a use case would do.

use std::path::Path;

use super::operations::{planned_copy, planned_restore, planned_store};
use super::{Image, Options, Store};
use crate::base::Result;
use crate::engine::{Archive, ArchiveVolume};
use crate::ops::{self, CopyPlan, Existing, Extracted, RestorePlan, StorePlan};
#[cfg(feature = "aws")]
use {
    super::operations::{ec2_destination, planned_ec2_restore, with_retire},
    super::{Clean, operations},
    crate::aws::ec2::{RetireAction, RetirePlan},
    crate::base::ImageId,
    crate::object::ObjectReader,
    crate::ops::Cleaned,
    std::sync::Arc,
};

/// A plan, and the archive at the target as it is now.
#[derive(Clone, Debug)]
pub struct Planned<P> {
    /// The plan: volumes, memory, requests to AWS and their price.
    pub plan: P,
    /// [`Existing::Same`] if the target holds the archive already, so that a run writes nothing.
    pub existing: Existing,
}

/// Plans [`store`](fn@super::store): requests the block maps, reads no block.
///
/// ```
/// use amistore::{Disks, MemoryStore, Options, Store, plan};
///
/// # fn main() -> amistore::Result<()> {
/// # let directory = tempfile::tempdir().expect("a directory");
/// # let disk = directory.path().join("root.raw");
/// # std::fs::write(&disk, vec![7; 9 << 20]).expect("a disk");
/// let image = Disks::named("web").disk("/dev/xvda", disk).open()?;
/// let store = Store::new(MemoryStore::default());
/// let planned = plan::store(&image, &store, &Options::default())?;
/// assert_eq!(planned.plan.volumes.bytes(), 9 << 20);
/// assert!(planned.plan.aws.is_empty(), "no request to AWS");
/// assert!(store.list()?.is_empty(), "nothing is written");
/// # Ok(())
/// # }
/// ```
pub fn store(image: &Image, store: &Store, options: &Options) -> Result<Planned<StorePlan>> {
    let planned = planned_store(image, store, options)?;
    let existing = planned.check(options.observer.as_ref(), &options.cancel)?;
    Ok(Planned { plan: planned.plan().clone(), existing })
}

/// Plans [`copy`](fn@super::copy).
pub fn copy(archive: &Archive, store: &Store, options: &Options) -> Result<Planned<CopyPlan>> {
    let planned = planned_copy(archive, store, options)?;
    let existing = planned.check(options.observer.as_ref())?;
    Ok(Planned { plan: planned.plan().clone(), existing })
}

/// Plans [`restore`](fn@super::restore).
pub fn restore(
    archive: &Archive,
    directory: impl AsRef<Path>,
    options: &Options,
) -> Result<RestorePlan> {
    let planned = planned_restore(archive, directory.as_ref(), options)?;
    planned.check()?;
    Ok(planned.plan().clone())
}

/// Plans [`restore_to_ec2`](fn@super::restore_to_ec2): its account of the image's attributes is in
/// [`RestorePlan::items`].
#[cfg(feature = "aws")]
pub fn restore_to_ec2(
    archive: &Archive,
    name: Option<&str>,
    options: &Options,
) -> Result<RestorePlan> {
    let destination = ec2_destination(name, options)?;
    let planned = planned_ec2_restore(archive, &destination, options)?;
    planned.check()?;
    Ok(planned.plan().clone())
}

/// Plans [`extract`](fn@super::extract), from the index alone.
pub fn extract(
    volume: &ArchiveVolume,
    output: impl AsRef<Path>,
    options: &Options,
) -> Result<Extracted> {
    ops::check_output(output.as_ref(), options.overwrite)?;
    ops::plan_extract(volume, None)
}

/// Plans [`retire`](fn@super::retire): compares the archive with the image, and changes nothing.
#[cfg(feature = "aws")]
pub fn retire(
    image_id: &ImageId,
    archive: Arc<dyn ObjectReader>,
    action: RetireAction,
    options: &Options,
) -> Result<RetirePlan> {
    with_retire(image_id, archive, action, options, |planned| Ok(planned.plan().clone()))
}

/// Plans [`clean`](fn@super::clean): lists the leftovers, and removes none.
#[cfg(feature = "aws")]
pub fn clean(selection: &Clean, options: &Options) -> Result<Cleaned> {
    operations::run_clean(selection, false, options)
}
