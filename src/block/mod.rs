//! Ports to volumes: where blocks are read from, and where they go.
//!
//! It does not know archives. An implementation never turns an error into zeros or a hole.

mod memory;
mod raw_file;

use crate::base::{Result, VolumeSize};
use crate::format::BlockMap;

pub use memory::{MemorySink, MemorySource};
pub use raw_file::{DeviceSink, RawFileSink, RawFileSource, scan_zero_blocks};

/// A volume that can be read.
pub trait BlockSource: Send + Sync {
    /// The size of the volume.
    fn size(&self) -> VolumeSize;
    /// The blocks that were ever written, fill not considered. Two calls for one state of the volume give the same map.
    fn block_map(&self) -> Result<BlockMap>;
    /// Fills `buffer` from `offset` (bytes); both lie within the volume. May be called from several threads. Reading less than asked for is an error.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()>;
    /// Fails if the volume changed since it was opened, as far as that can be known.
    fn check_unchanged(&self) -> Result<()>;
}

/// A volume that is being written. Who made it decides when it is whole, and gives it its name.
pub trait BlockSink: Send + Sync {
    /// Writes `data` at `offset` (bytes), within the volume. May be called from several threads for different ranges. What is never written stays absent.
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()>;
}
