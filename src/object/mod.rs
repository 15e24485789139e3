//! Ports to the places where archives live.
//!
//! It does not know what is in an archive.

mod counting;
mod directory;
mod held;
mod memory;
mod pipe;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::{Error, Result};
use crate::checkpoint::{SharedTask, UploadState};
use crate::localfs::Overwrite;

pub use counting::CountingReader;
pub use directory::{DirectoryStore, FileReader};
pub use held::Held;
pub use memory::{MemoryReader, MemoryStore};
pub use pipe::{PipeReader, PipeWriter};

/// An object that can be read at any position, from several threads.
pub trait ObjectReader: Send + Sync {
    /// What to call it in messages.
    fn name(&self) -> &str;
    /// Its length in bytes.
    fn len(&self) -> u64;
    /// Fills `buffer` from `offset`. Reading less than asked for is an error; so is an object that
    /// was replaced since it was opened.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()>;

    /// Says that exactly these bytes will be read soon, once, and that there is memory for them. A
    /// remote object begins to fetch them.
    fn prefetch(&self, offset: u64, len: u64) {
        let _ = (offset, len);
    }

    /// Says that bytes which were read are not what they should be. Perhaps they arrived wrong:
    /// from now on nothing is answered from what was read before.
    fn distrust(&self) {}

    /// What the store knows of it beside its bytes.
    fn attributes(&self) -> Attributes {
        Attributes::default()
    }

    /// Whether it has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An object being written, front to back. It appears, whole, on `commit`; dropped without, it
/// never was there.
///
/// One that was made with a task is not undone when it is dropped: what was written waits to be
/// continued.
pub trait ObjectWriter: Send {
    /// Appends `bytes`. Where the object lies already, they are passed over.
    fn append(&mut self, bytes: &[u8]) -> Result<()>;

    /// What of the object an earlier run left there, and was found whole.
    fn held(&self) -> Arc<Held> {
        Arc::default()
    }

    /// Passes over the next `len` bytes, which are held.
    fn pass(&mut self, len: u64) -> Result<()> {
        Err(Error::internal("bytes are passed over that nobody holds").at("length", len))
    }

    /// How stretches of the object are written side by side, if that was asked for.
    fn side_by_side(&mut self) -> Option<&mut dyn SideBySide> {
        None
    }

    /// Tells the digest of what the archive holds, shortly before `commit`; for stores that keep it
    /// with the object.
    fn identify(&mut self, content_sha256: &str) {
        let _ = content_sha256;
    }

    /// Makes the object visible under its name.
    fn commit(self: Box<Self>) -> Result<()>;
}

/// An object whose stretches are written side by side, before what is appended to the object itself
/// stands behind them all.
pub trait SideBySide {
    /// How many there is memory for at a time: at least one.
    fn lanes(&self) -> usize;
    /// Begins stretch `index` of those that the creation named. They begin in their order; each
    /// stands behind the one before, however long that will be.
    fn begin(&mut self, index: usize) -> Result<Box<dyn Stretch>>;
    /// Puts those that were finished behind what was there before. All that began have to be
    /// finished.
    fn join(&mut self) -> Result<()>;
}

/// A stretch of an object, written front to back. Dropped without `finish`, it is continued as an
/// object is.
pub trait Stretch: Send {
    /// Appends `bytes`. Where they lie already, they are passed over.
    fn append(&mut self, bytes: &[u8]) -> Result<()>;
    /// What of it an earlier run left there, counted from its own beginning.
    fn held(&self) -> Arc<Held>;
    /// Passes over the next `len` bytes, which are held.
    fn pass(&mut self, len: u64) -> Result<()>;
    /// All of it was appended. Returns when it is there, but for what lies at its ends, which
    /// [`SideBySide::join`] deals with.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// What is kept with an object beside its bytes. Stores that cannot keep it, do not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// User metadata, names in lower case.
    pub metadata: BTreeMap<String, String>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

/// How an object is made.
#[derive(Clone, Default)]
pub struct Creation {
    /// Whether it may be there already.
    pub overwrite: Overwrite,
    /// No more bytes than this will be written; decides the size of parts.
    pub at_most: u64,
    /// The stretches that are to be written side by side, and how long each can become. One or
    /// none: the object is written front to back. A store that does not know how to is not given
    /// any.
    pub stretches: Vec<u64>,
    /// What is kept with it.
    pub attributes: Attributes,
    /// Where it is noted what was written, and, if the task is continued, what was written before.
    pub task: Option<SharedTask>,
    /// Whether the same task is known to make the same bytes. If not, nothing is passed over: what
    /// is there is compared, and not sent again if it is the same.
    pub repeatable: bool,
}

/// An object as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key, or file name.
    pub key: String,
    /// Its length in bytes.
    pub len: u64,
    /// When it was last written: RFC 3339, UTC, whole seconds.
    pub modified: String,
    /// Where the store keeps it, such as `GLACIER`; absent where there is no choice.
    pub storage_class: Option<String>,
    /// User metadata.
    pub metadata: BTreeMap<String, String>,
}

/// A place where archives live.
pub trait ObjectStore: Send + Sync {
    /// Opens the object `key`; it is an error of kind `NotFound` if there is none.
    fn open(&self, key: &str) -> Result<Arc<dyn ObjectReader>>;
    /// Begins the object `key`. If it exists and must not be overwritten that is an error of kind
    /// `Exists`, now and again on `commit`.
    fn create(&self, key: &str, creation: Creation) -> Result<Box<dyn ObjectWriter>>;
    /// Undoes an upload that an earlier process began here and will not finish. One that is gone is
    /// no error.
    fn abandon(&self, upload: &UploadState) -> Result<()> {
        let _ = upload;
        Ok(())
    }
    /// Lists the objects whose keys begin with `prefix` and end with `.bin`, in the order of their
    /// keys.
    fn list(&self, prefix: &str, found: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()>;
}
