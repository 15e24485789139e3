//! Stores an image to an object, so that it can be continued.

use super::look_at_bucket;
use crate::aws::s3::S3Store;
use crate::base::Result;
use crate::engine::{Context, PackOptions};
use crate::image::ImageSource;
use crate::localfs::Overwrite;
use crate::object::Attributes;
use crate::ops::{self, ArchiveTarget, ObjectTarget, Resumption, Stored};

/// A store to a bucket.
pub struct StoreJob<'a> {
    /// The image.
    pub image: &'a dyn ImageSource,
    /// How it is packed.
    pub options: &'a PackOptions,
    /// The bucket.
    pub store: &'a S3Store,
    /// The key.
    pub key: String,
    /// Whether it may be there already.
    pub overwrite: Overwrite,
    /// What is kept with the object.
    pub attributes: Attributes,
    /// The archive is not longer.
    pub at_most: u64,
    /// How long the segment of each volume can become, if volumes go up side by side.
    pub segments: Vec<u64>,
    /// Whether everybody may read the bucket.
    pub allow_public: bool,
    /// How the work is remembered.
    pub resumption: Resumption,
}

/// Stores an image to a bucket, or goes on with that. The object is there when this returns, and
/// not before.
pub fn store_to_bucket(job: StoreJob<'_>, context: Context<'_>) -> Result<Stored> {
    look_at_bucket(job.store, &job.key, job.allow_public, context.observer)?;
    let target = ObjectTarget {
        store: job.store,
        key: job.key,
        overwrite: job.overwrite,
        attributes: job.attributes,
        at_most: job.at_most,
        segments: job.segments,
        resumption: Some(Box::new(job.resumption)),
    };
    ops::store(job.image, ArchiveTarget::Object(target), job.options, context)
}
