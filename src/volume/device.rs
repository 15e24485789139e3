//! A block device as the target of a volume.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::sink::for_zeros;
use super::{BlockSink, LONG_WRITE};
use crate::base::{Error, Result, VolumeSize};
use crate::format::Digest;
use crate::localfs::{begin_sync, write_all_at};

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
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.file_type().is_block_device() => {}
            Ok(_) => return Ok(None),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(failed(cause)),
        }
        // O_EXCL on a device fails if it is mounted or otherwise in use.
        let flags = rustix::fs::OFlags::EXCL.bits() as i32;
        let mut file =
            OpenOptions::new().write(true).custom_flags(flags).open(path).map_err(failed)?;
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
