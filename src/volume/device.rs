//! A block device as the target of a volume.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::sink::for_zeros;
use super::{BlockSink, LONG_WRITE};
use crate::base::{Error, Result, VolumeSize};
use crate::format::Digest;
use crate::localfs::{begin_sync, open_device_to_write, write_all_at};

/// A block device that is overwritten in place. A device has no holes, so the caller writes absent
/// blocks as zeros too. Nothing is undone: a failure leaves the device partly written.
#[derive(Debug)]
pub struct DeviceSink {
    path: PathBuf,
    file: File,
    len: u64,
}

impl DeviceSink {
    /// Opens the device `path` for a volume of `size`; `None` if it is not a block device.
    pub fn open(path: &Path, size: VolumeSize) -> Result<Option<Self>> {
        let failed =
            |cause| Error::io("cannot open the block device", cause).at("path", path.display());
        let Some(mut file) = open_device_to_write(path).map_err(failed)? else { return Ok(None) };
        let len = file.seek(SeekFrom::End(0)).map_err(failed)?;
        if len < size.bytes() {
            return Err(Error::usage("the block device is smaller than the volume")
                .at("path", path.display())
                .at("device_size", len)
                .at("volume_size", size.bytes()));
        }
        Ok(Some(Self { path: path.to_owned(), file, len }))
    }

    /// Bytes of the device: at least those of the volume.
    pub fn device_len(&self) -> u64 {
        self.len
    }

    /// Waits until everything is on the device.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|cause| {
            Error::io("cannot write the block device", cause).at("path", self.path.display())
        })
    }
}

impl BlockSink for DeviceSink {
    fn write_zeros(&self, offset: u64, len: u64) -> Result<()> {
        for_zeros(offset, len, |offset, zeros| self.write_data(offset, zeros, &[]))
    }

    fn write_data(&self, offset: u64, data: &[u8], _digests: &[Digest]) -> Result<()> {
        write_all_at(&self.file, data, offset).map_err(|cause| {
            Error::io("cannot write the block device", cause)
                .at("path", self.path.display())
                .at("offset", offset)
        })?;
        if data.len() >= LONG_WRITE {
            begin_sync(&self.file, offset, data.len() as u64);
        }
        Ok(())
    }
}
