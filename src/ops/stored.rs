//! Results of stores.

use crate::engine::PackReport;
use crate::format::Footer;

/// Result of a store.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The AMI id, if the image has one.
    pub image_id: Option<String>,
    /// Whether the archive was created or existed.
    pub outcome: StoreOutcome,
}

/// Outcome of a store.
#[derive(Clone, Debug)]
pub enum StoreOutcome {
    /// The archive was created: volumes, length and digests.
    Made(PackReport),
    /// The object existed, with the same image as content.
    Present {
        /// Its length.
        archive_len: u64,
        /// Its digests.
        footer: Footer,
    },
    /// The object existed, with the disks of the image and other metadata, and stays as it is.
    MetadataChanged {
        /// Its length.
        archive_len: u64,
        /// Its digests.
        footer: Footer,
        /// The names of the members of the metadata that differ; empty if only the form of the JSON
        /// does.
        changed: Vec<String>,
    },
    /// The object existed, with the disks of the image and other metadata, and got the metadata.
    MetadataUpdated {
        /// Length of the new object.
        archive_len: u64,
        /// Its digests.
        footer: Footer,
        /// The names of the members of the metadata that were updated.
        changed: Vec<String>,
        /// The reason for which the whole archive was sent; `None` if its disks were not.
        sent_whole: Option<&'static str>,
    },
}
