//! Targets of archives.

use super::existing::MetadataPolicy;
use super::resume::Resumption;
use crate::localfs::Overwrite;
use crate::object::{Attributes, ObjectStore, ObjectWriter};

/// Target of an archive.
pub enum ArchiveTarget<'a> {
    /// An object of a store.
    Object(ObjectTarget<'a>),
    /// A stream.
    Stream(Box<dyn ObjectWriter>),
}

impl ArchiveTarget<'_> {
    /// This target with the treatment of an object with the same disks and other metadata.
    #[must_use]
    pub fn on_metadata_change(self, policy: Option<MetadataPolicy>) -> Self {
        match self {
            Self::Object(object) => {
                Self::Object(ObjectTarget { on_metadata_change: policy, ..object })
            }
            stream @ Self::Stream(_) => stream,
        }
    }
}

/// An object to create.
pub struct ObjectTarget<'a> {
    /// The store.
    pub store: &'a dyn ObjectStore,
    /// The key; [`ImageDocument::archive_name`](crate::image::ImageDocument::archive_name) by
    /// convention.
    pub key: String,
    /// Whether an existing object may be replaced.
    pub overwrite: Overwrite,
    /// Metadata and tags.
    pub attributes: Attributes,
    /// Upper bound of the archive's length in bytes; decides the part size of a multipart upload.
    pub at_most: u64,
    /// Upper bound of each volume's segment in bytes, to pack and upload volumes in parallel:
    /// [`StorePlan::segments`](super::StorePlan::segments). Empty: one volume after the other.
    pub segments: Vec<u64>,
    /// Makes the work resumable. Then an existing object with the same content is no error.
    pub resumption: Option<Box<Resumption>>,
    /// The treatment of an object with the same disks and other metadata. `None`: an object that
    /// exists is an error for work without `resumption`, and is kept by other work.
    pub on_metadata_change: Option<MetadataPolicy>,
}
