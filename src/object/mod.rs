//! Ports to the stores that archives live in.
//!
//! An [`ObjectStore`] reads, creates and lists objects. A store that can continue an interrupted
//! upload reports its progress to an [`UploadJournal`], and is given the record of earlier runs as
//! a [`PriorUpload`]; it knows neither where that record is kept nor what an object contains.
//!
//! [`open_url`] is the table of URL schemes: a new store is a file beside this one, and a line
//! there.

mod byte_ranges;
mod counting;
mod directory;
mod memory;
mod pipe;
mod splice;
mod upload;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::{Error, Result};
use crate::localfs::Overwrite;

pub use byte_ranges::ByteRanges;
pub use counting::CountingReader;
pub use directory::{DirectoryStore, FileReader, FileStore};
pub use memory::{MemoryReader, MemoryStore};
pub use pipe::{PipeReader, PipeWriter};
pub use splice::{Splice, Spliced};
pub use upload::{
    PartPiece, PriorUpload, ResumableUpload, UploadBegun, UploadIntent, UploadJournal, UploadPart,
};

/// A store, and a key or prefix in it.
pub type Located = (Arc<dyn ObjectStore>, String);

/// The store, and the key or prefix in it, that a URL names by its scheme; `None` for other
/// schemes, and for paths. `s3` is not among them: it needs credentials.
pub fn open_url(url: &str) -> Option<Result<Located>> {
    let (scheme, rest) = url.split_once("://")?;
    match scheme {
        "file" => Some(directory::open_path(rest)),
        _ => None,
    }
}

/// The service that has an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectService {
    /// The Region of AWS; `None` for a service that is not AWS's.
    pub region: Option<String>,
}

/// An object that can be read at any position, from several threads.
pub trait ObjectReader: Send + Sync {
    /// The object's name in messages.
    fn name(&self) -> &str;
    /// Its length in bytes.
    fn len(&self) -> u64;
    /// Fills `buffer` from `offset`. A short read is an error; so is an object that was replaced
    /// since it was opened.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()>;

    /// Announces one read of exactly these bytes; the caller has memory for them. A remote object
    /// begins to fetch them.
    fn prefetch(&self, offset: u64, len: u64) {
        let _ = (offset, len);
    }

    /// Withdraws a [`prefetch`](Self::prefetch) of exactly these bytes that will not be read. No
    /// effect if they were read.
    fn cancel_prefetch(&self, offset: u64, len: u64) {
        let _ = (offset, len);
    }

    /// Drops cached bytes. Called when a digest does not match, before the range is read once
    /// more: a bit that flipped on the network is not damage.
    fn drop_cache(&self) {}

    /// The service that each read is a request to; `None` for files and memory.
    fn service(&self) -> Option<ObjectService> {
        None
    }

    /// The version that is read, such as its ETag, in stores that can bind a write to it.
    fn version(&self) -> Option<String> {
        None
    }

    /// The open file, if the object is one.
    fn file(&self) -> Option<&std::fs::File> {
        None
    }

    /// Metadata and tags, as far as the store returned them on open.
    fn attributes(&self) -> Attributes {
        Attributes::default()
    }

    /// True for an object without bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An object being written, front to back. It appears, whole, on `commit`; dropped without, it
/// never existed.
///
/// With [`Creation::resume`] a dropped writer leaves the uploaded bytes in place for a later run.
pub trait ObjectWriter: Send {
    /// Appends `bytes`. Bytes that the store already has are not sent again.
    fn append(&mut self, bytes: &[u8]) -> Result<()>;

    /// Byte ranges of the object that an earlier run stored, and that were verified.
    fn stored(&self) -> Arc<ByteRanges> {
        Arc::default()
    }

    /// Advances by `len` bytes, all of which are in [`stored`](Self::stored).
    fn skip(&mut self, len: u64) -> Result<()> {
        Err(Error::internal("bytes are skipped that the store does not have").at("length", len))
    }

    /// The interface for a parallel upload of segments, if the creation named segments and the
    /// store supports it.
    fn parallel(&mut self) -> Option<&mut dyn ParallelWriter> {
        None
    }

    /// Adds digests of the archive to the user metadata, shortly before `commit`. A store without
    /// user metadata, or an upload that was begun before, leaves them out.
    fn identify(&mut self, digests: &BTreeMap<String, String>) {
        let _ = digests;
    }

    /// Makes the object visible under its name.
    fn commit(self: Box<Self>) -> Result<()>;
}

/// An object whose leading segments are uploaded in parallel. Bytes appended to the object itself
/// follow the last segment.
pub trait ParallelWriter {
    /// The number of segments that memory suffices for at a time: at least one.
    fn workers(&self) -> usize;
    /// Begins segment `index` of those in [`Creation::segments`]. Segments begin in ascending
    /// order; the length of each is known when it is finished.
    fn begin(&mut self, index: usize) -> Result<Box<dyn SegmentWriter>>;
    /// Appends the finished segments to the object. Every segment that was begun has to be
    /// finished.
    fn join(&mut self) -> Result<()>;
}

/// A segment of an object, written front to back. Dropped without `finish`, it is continued as an
/// object is.
pub trait SegmentWriter: Send {
    /// Appends `bytes`. Bytes that the store already has are not sent again.
    fn append(&mut self, bytes: &[u8]) -> Result<()>;
    /// Byte ranges of the segment that an earlier run stored, counted from the segment's start.
    fn stored(&self) -> Arc<ByteRanges>;
    /// Advances by `len` bytes, all of which are in [`stored`](Self::stored).
    fn skip(&mut self, len: u64) -> Result<()>;
    /// Ends the segment. Returns when the store has confirmed it, except for the bytes at its two
    /// ends, which [`ParallelWriter::join`] uploads.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// Metadata and tags of an object. Stores without them ignore them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// User metadata, names in lower case.
    pub metadata: BTreeMap<String, String>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

/// Parameters of a new object.
#[derive(Clone, Default)]
pub struct Creation {
    /// Whether an existing object may be replaced.
    pub overwrite: Overwrite,
    /// The [version](ObjectReader::version) of the object that is replaced. Another one is not
    /// replaced, whatever `overwrite` says; tags, storage class and KMS key of the old object stay
    /// unless the new one has its own.
    pub replaces: Option<String>,
    /// Upper bound of the object's length in bytes; decides the part size of a multipart upload.
    pub at_most: u64,
    /// Upper bound of each segment's length in bytes, for a parallel upload. With fewer than two
    /// the object is written front to back. Stores without parallel uploads are given none.
    pub segments: Vec<u64>,
    /// Metadata and tags.
    pub attributes: Attributes,
    /// Makes the upload resumable. Without it an upload that is not committed is aborted.
    pub resume: Option<ResumableUpload>,
    /// Whether a resumed run is known to produce the same bytes. If not, `stored` is empty: all
    /// bytes are appended, and a part whose checksum equals an uploaded one is not sent again.
    pub repeatable: bool,
}

/// An object as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key, or file name.
    pub key: String,
    /// Its length in bytes.
    pub len: u64,
    /// Time of the last write: RFC 3339, UTC, whole seconds.
    pub modified: String,
    /// The storage class, such as `GLACIER`; absent in stores without classes.
    pub storage_class: Option<String>,
    /// User metadata.
    pub metadata: BTreeMap<String, String>,
}

/// A store of archives.
pub trait ObjectStore: Send + Sync {
    /// Opens the object `key`; an error of kind `NotFound` if it does not exist.
    fn open(&self, key: &str) -> Result<Arc<dyn ObjectReader>>;
    /// Checks, before anything is read, that objects can be created: a dry run calls it as well.
    fn check(&self) -> Result<()> {
        Ok(())
    }
    /// Begins the object `key`. If it exists and must not be overwritten that is an error of kind
    /// `Exists`, now and again on `commit`.
    fn create(&self, key: &str, creation: Creation) -> Result<Box<dyn ObjectWriter>>;
    /// Replaces the object `key`, which `old` reads, by new bytes around a range of its own. Those
    /// bytes do not pass through this process where the store can copy them; a store that cannot
    /// returns [`Spliced::Whole`], and changes nothing.
    fn splice(&self, key: &str, old: &dyn ObjectReader, splice: Splice<'_>) -> Result<Spliced> {
        let _ = (key, old, splice);
        Ok(Spliced::Whole("the store does not copy parts of objects"))
    }
    /// Aborts an upload that an earlier run began and that will not be completed. An upload that
    /// does not exist any more is no error.
    fn abort(&self, upload: &UploadBegun) -> Result<()> {
        let _ = upload;
        Ok(())
    }
    /// Aborts an upload that an earlier run may have begun without learning its id.
    fn abort_intended(&self, intent: &UploadIntent) -> Result<()> {
        let _ = intent;
        Ok(())
    }
    /// Lists the objects whose keys begin with `prefix` and end with `.bin`, ascending by key.
    fn list(&self, prefix: &str, found: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()>;
}
