//! Where an archive goes.

use super::resume::Resumption;
use crate::localfs::Overwrite;
use crate::object::{Attributes, ObjectStore, ObjectWriter};

/// Where an archive goes.
pub enum ArchiveTarget<'a> {
    /// An object of a store.
    Object(ObjectTarget<'a>),
    /// A stream.
    Stream(Box<dyn ObjectWriter>),
}

/// An object to be made.
pub struct ObjectTarget<'a> {
    /// The store.
    pub store: &'a dyn ObjectStore,
    /// The object; [`ImageDocument::archive_name`](crate::image::ImageDocument::archive_name) by
    /// convention.
    pub key: String,
    /// Whether it may be there already.
    pub overwrite: Overwrite,
    /// What is kept with the object.
    pub attributes: Attributes,
    /// The archive is not longer; decides the size of parts, where an object is cut into parts.
    pub at_most: u64,
    /// How long each volume's stretch of it can become, if volumes are to be packed side by side:
    /// [`StorePlan::stretches`](super::StorePlan::stretches). None: one after the other.
    pub stretches: Vec<u64>,
    /// How the work is remembered, if it can be continued. Then an object that is there already and
    /// holds the same is no error.
    pub resumption: Option<Box<Resumption>>,
}
