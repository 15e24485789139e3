//! Volumes: the ports to their blocks, and adapters for raw files, block devices and memory.
//!
//! It does not know archives. An implementation never turns an error into zeros or a hole. The
//! [`BlockMap`](crate::format::BlockMap) of a volume belongs to `format`.

mod device;
mod memory;
mod raw_file;
mod scan;
mod sink;
mod source;

pub use device::DeviceSink;
pub use memory::{MemorySink, MemorySource};
pub use raw_file::{RawFileSink, RawFileSource};
pub use scan::scan_zero_blocks;
pub use sink::{BlockSink, Delivered};
pub use source::BlockSource;
