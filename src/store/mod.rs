//! Ports to the places where archives live.
//!
//! It does not know what is in an archive.

mod counting;
mod directory;
mod memory;
mod pipe;

use crate::base::Result;
use crate::disk::Overwrite;

pub use counting::CountingReader;
pub use directory::{DirectoryStore, FileReader};
pub use memory::{MemoryReader, MemoryStore};

pub use pipe::{PipeReader, PipeWriter};

/// An object that can be read at any position, from several threads.
pub trait ObjectReader: Send + Sync {
    /// What to call it in messages.
    fn name(&self) -> &str;
    /// Its length in bytes.
    fn len(&self) -> u64;
    /// Fills `buffer` from `offset`. Reading less than asked for is an error.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()>;

    /// Whether it has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An object being written, front to back. It appears, whole, on `commit`; dropped without, it never was there.
pub trait ObjectWriter: Send {
    /// Appends `bytes`, which are whole zstd frames: a writer that has to cut the object into parts may cut between any two calls.
    fn append(&mut self, bytes: &[u8]) -> Result<()>;
    /// Makes the object visible under its name.
    fn commit(self: Box<Self>) -> Result<()>;
}

/// A place where archives live.
pub trait ObjectStore: Send + Sync {
    /// Opens the object `key`; it is an error of kind `NotFound` if there is none.
    fn open(&self, key: &str) -> Result<Box<dyn ObjectReader>>;
    /// Begins the object `key`. If it exists and must not be overwritten that is an error of kind `Exists`, now and again on `commit`.
    fn create(&self, key: &str, overwrite: Overwrite) -> Result<Box<dyn ObjectWriter>>;
}
