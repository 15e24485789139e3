//! Volumes: the ports to their blocks, and adapters for raw files, block devices and memory.
//!
//! It does not know archives. An implementation never turns an error into zeros or a hole. The
//! [`BlockMap`](crate::format::BlockMap) of a volume belongs to `format`.
//!
//! [`open_disk`] is the table of disk image formats: a new format is a file beside this one, and an
//! arm there.

mod device;
#[cfg(feature = "internals")]
mod memory;
mod raw_file;
mod scan;
mod sink;
mod source;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use crate::base::{Error, Result};

pub use device::DeviceSink;
#[cfg(feature = "internals")]
pub use memory::{MemorySink, MemorySource};
pub use raw_file::{RawFileSink, RawFileSource};
pub use scan::scan_zero_blocks;
pub use sink::{BlockSink, Delivered};
pub use source::BlockSource;

/// Opens a disk image or a block device, in the format that its first bytes belong to. An error of
/// kind `Unsupported` for a format that is not read. A guess: a raw disk may begin with any bytes.
pub fn open_disk(path: &Path) -> Result<Arc<dyn BlockSource>> {
    let file = File::open(path).map_err(|cause| {
        Error::io("cannot open the disk image", cause).at("path", path.display())
    })?;
    match raw_file::foreign_format(&file) {
        None => Ok(Arc::new(RawFileSource::open(path)?)),
        Some(format) => Err(raw_file::not_raw(path, format)),
    }
}
