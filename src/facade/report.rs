//! Reports that differ from those of the use cases.

use crate::ops::{StoreOutcome, Stored};

/// Report of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreReport {
    /// The key of the archive in its store: `<ami-id>.bin`.
    pub key: String,
    /// Length of the archive in bytes.
    pub archive_len: u64,
    /// SHA-256 of the root record: commits to every byte of the archive before it.
    pub root: [u8; 32],
    /// Digest of metadata and data, independent of level, version and store.
    pub content_root: [u8; 32],
    /// Whether the archive existed with the same disks as content, which were not written.
    pub existed: bool,
}

impl StoreReport {
    pub(super) fn new(key: String, stored: &Stored) -> Self {
        let (archive_len, footer, existed) = match &stored.outcome {
            StoreOutcome::Made(report) => (report.archive_len, &report.footer, false),
            StoreOutcome::Present { archive_len, footer }
            | StoreOutcome::MetadataChanged { archive_len, footer, .. }
            | StoreOutcome::MetadataUpdated { archive_len, footer, .. } => {
                (*archive_len, footer, true)
            }
        };
        Self { key, archive_len, root: footer.root, content_root: footer.content_root, existed }
    }
}
