//! Volumes: the ports to their blocks, and adapters for raw files, block devices and memory.
//!
//! It does not know archives. An implementation never turns an error into zeros or a hole. The
//! [`BlockMap`](crate::format::BlockMap) of a volume belongs to `format`.
//!
//! `disk_format` recognises disk images that are not raw. [`open_disk`] is the table of the formats
//! that are read: a new one is a file beside this one, and an arm there.

mod device;
mod disk_format;
mod gpt;
#[cfg(feature = "internals")]
mod memory;
mod raw_file;
mod scan;
mod sink;
mod source;
mod writers;

/// The shortest write whose way to disk begins at once: shorter ones are better merged by the
/// system.
const LONG_WRITE: usize = 1 << 20;

use std::path::Path;
use std::sync::Arc;

use crate::base::Result;
use raw_file::DiskFile;

pub use device::DeviceSink;
pub use disk_format::{DiskFormat, DiskFormats, recognise_format};
pub use gpt::{backup_header_note, has_gpt, note_on_larger_device};
#[cfg(feature = "internals")]
pub use memory::{MemorySink, MemorySource};
pub use raw_file::{RawFileSink, RawFileSource};
pub use scan::scan_zero_blocks;
pub use sink::{BlockSink, Delivered};
pub use source::BlockSource;

/// Opens a disk image or a block device that is to be stored. Unless `formats` takes every content
/// as raw, a format that is not read is an error of kind `Unsupported`, with the command that
/// converts it.
pub fn open_disk(path: &Path, formats: DiskFormats) -> Result<Arc<dyn BlockSource>> {
    let disk = DiskFile::open(path)?;
    match (formats, disk.format()?) {
        (DiskFormats::RawOnly, Some(format)) => Err(format.refused(path)),
        (DiskFormats::AsRaw, _) | (_, None) => Ok(Arc::new(disk.into_raw()?)),
    }
}
