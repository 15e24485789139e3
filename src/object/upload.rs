//! Progress of an upload that outlives the process which began it.
//!
//! A store reports each step to the [`UploadJournal`] before it relies on it, and finds the steps
//! of earlier runs in [`PriorUpload`].

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::Result;

/// Receives the progress of an upload. Called from several threads.
pub trait UploadJournal: Send + Sync {
    /// An upload will be begun. On return the record survives a power failure: if the process ends
    /// before it learns the id of the upload, a later run finds the upload by key and time.
    fn upload_intended(&self, intent: &UploadIntent) -> Result<()>;

    /// An upload was begun. On return the record survives a power failure, because no part is sent
    /// before: an upload without a record could neither be continued nor aborted.
    fn upload_begun(&self, upload: &UploadBegun) -> Result<()>;

    /// A part will be sent, or, with its ETag, was confirmed. On return the record survives the
    /// process. If it is lost with the machine, the part is sent again.
    fn part_sent(&self, part: &UploadPart) -> Result<()>;
}

/// Makes an upload resumable.
#[derive(Clone)]
pub struct ResumableUpload {
    /// Receives the progress of this run.
    pub journal: Arc<dyn UploadJournal>,
    /// The progress of earlier runs.
    pub prior: PriorUpload,
}

/// The record of earlier runs of the same work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PriorUpload {
    /// This is the first run.
    None,
    /// An earlier run recorded no upload after its last intent. It may have begun one and been
    /// killed before it could record that.
    Unrecorded {
        /// Time of that intent, or, without one, start of the first run: RFC 3339, UTC.
        started: String,
    },
    /// An earlier run recorded an upload.
    Recorded {
        /// The upload that was begun last.
        upload: Box<UploadBegun>,
        /// Its parts by number. A part that was recorded may not have reached the store.
        parts: BTreeMap<u32, UploadPart>,
    },
}

/// A multipart upload that will be begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadIntent {
    /// URL of the service; empty for the default endpoint.
    pub endpoint: String,
    /// The Region.
    pub region: String,
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// The profile that the credentials came from, if one was named.
    pub profile: Option<String>,
    /// The time before the request: RFC 3339, UTC.
    pub started: String,
}

/// A multipart upload that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadBegun {
    /// URL of the service; empty for the default endpoint.
    pub endpoint: String,
    /// The Region.
    pub region: String,
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// The service's id of the upload.
    pub upload_id: String,
    /// Bytes of every part but the last.
    pub part_size: u64,
    /// Name of the checksum that parts carry.
    pub checksum: String,
    /// Storage class, encryption and tags as text. They are fixed when an upload begins, so an
    /// upload with other ones cannot be continued.
    pub options: String,
    /// The profile that the credentials came from, if one was named.
    pub profile: Option<String>,
    /// The number of the first part of each segment; empty if there is one segment, from part 1.
    pub segments: Vec<u32>,
}

/// A run of bytes of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartPiece {
    /// Index of the segment.
    pub segment: u16,
    /// Offset of the first byte, counted from the segment's start.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// A part of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadPart {
    /// From 1.
    pub number: u32,
    /// Bytes.
    pub len: u64,
    /// Checksum of its bytes, as the service prints it.
    pub checksum: String,
    /// The service's ETag of the part, once it is confirmed.
    pub etag: Option<String>,
    /// The bytes that it consists of, in order; empty where all parts have one size and follow
    /// each other.
    pub pieces: Vec<PartPiece>,
}
