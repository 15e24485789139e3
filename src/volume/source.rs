//! The port to a volume that is read.

use crate::base::{Result, VolumeSize};
use crate::format::{BlockMap, Digest};

/// A volume that can be read.
pub trait BlockSource: Send + Sync {
    /// The size of the volume.
    fn size(&self) -> VolumeSize;
    /// The blocks that were ever written; a source has no fill blocks. Two calls for one state of
    /// the volume return equal maps.
    fn block_map(&self) -> Result<BlockMap>;
    /// Fills `buffer` with the bytes from `offset`; the range lies within the volume. Callable from
    /// several threads at once. A short read is an error.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()>;
    /// Fills `buffer` with whole blocks from `offset`. A source that hashes blocks to check them
    /// appends the digest of each to `digests`; other sources append nothing.
    fn read_blocks(&self, offset: u64, buffer: &mut [u8], digests: &mut Vec<Digest>) -> Result<()> {
        let _ = digests;
        self.read_at(offset, buffer)
    }

    /// Starts to fetch `len` bytes from `offset`, which one later call reads. For sources across a
    /// network; fetched bytes stay in memory until they are read.
    fn prefetch(&self, offset: u64, len: u64) {
        let _ = (offset, len);
    }

    /// Uses of the volume during which its content may change, such as "mounted at /data".
    fn writers(&self) -> Vec<String> {
        Vec::new()
    }

    /// Returns an error if the volume is known to have changed since it was opened.
    fn check_unchanged(&self) -> Result<()>;
    /// A text that identifies the volume and its state: equal texts mean equal bytes, also across
    /// runs. `None` if the source has no such text.
    fn identity(&self) -> Option<String>;
}
