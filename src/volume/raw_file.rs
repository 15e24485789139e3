//! Volumes as raw files. Block devices are read the same way.

use std::fs::File;
use std::io::{ErrorKind as IoKind, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::sink::for_zeros;
use super::writers::writers_of;
use super::{BlockSink, BlockSource, DiskFormat, LONG_WRITE, recognise_format};
use crate::base::{BLOCK_BYTES, Error, ErrorKind, Result, VolumeSize};
use crate::codec::zero::is_zero;
use crate::format::{BlockMap, Digest};
use crate::localfs::{
    Durability, Opened, Overwrite, PartialFile, open_to_read, punch_hole, write_all_at,
    written_ranges,
};

/// A raw image or a block device, read by positions on one descriptor.
///
/// A regular file has a hole where nothing was written; a block device has no holes. Reading never
/// changes a hole.
#[derive(Debug)]
pub struct RawFileSource {
    path: PathBuf,
    file: File,
    size: VolumeSize,
    /// Length and time of the last change; `None` for a device.
    state: Option<FileState>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileState {
    len: u64,
    modified: (i64, i64),
    /// Unlike the time of modification it cannot be set back.
    changed: (i64, i64),
}

impl FileState {
    fn of(file: &File) -> std::io::Result<Self> {
        let metadata = file.metadata()?;
        let (modified, changed) =
            ((metadata.mtime(), metadata.mtime_nsec()), (metadata.ctime(), metadata.ctime_nsec()));
        Ok(Self { len: metadata.len(), modified, changed })
    }
}

/// A file or block device that holds a disk in some format.
#[derive(Debug)]
pub(super) struct DiskFile {
    path: PathBuf,
    file: File,
    len: u64,
    state: Option<FileState>,
}

impl DiskFile {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let failed =
            |cause| Error::io("cannot open the disk image", cause).at("path", path.display());
        let (file, len, state) = match open_to_read(path).map_err(failed)? {
            Opened::Regular(file) => {
                let state = FileState::of(&file).map_err(failed)?;
                (file, state.len, Some(state))
            }
            Opened::BlockDevice(mut file) => {
                let len = file.seek(SeekFrom::End(0)).map_err(failed)?;
                (file, len, None)
            }
            Opened::Other(kind) => {
                return Err(Error::usage(
                    "the disk image is neither a regular file nor a block device",
                )
                .at("path", path.display())
                .at("found", kind));
            }
        };
        Ok(Self { path: path.to_owned(), file, len, state })
    }

    /// The format that the content belongs to; `None` for raw disks.
    pub(super) fn format(&self) -> Result<Option<DiskFormat>> {
        recognise_format(self.len, |offset, buffer| read(&self.file, &self.path, offset, buffer))
    }

    /// The bytes as a raw disk. They have to be whole sectors.
    pub(super) fn into_raw(self) -> Result<RawFileSource> {
        let size =
            VolumeSize::new(self.len).map_err(|error| error.at("path", self.path.display()))?;
        Ok(RawFileSource { path: self.path, file: self.file, size, state: self.state })
    }
}

impl RawFileSource {
    /// Opens a raw image or block device. Every content is taken as raw.
    pub fn open(path: &Path) -> Result<Self> {
        DiskFile::open(path)?.into_raw()
    }
}

fn read(file: &File, path: &Path, offset: u64, buffer: &mut [u8]) -> Result<()> {
    file.read_exact_at(buffer, offset).map_err(|cause| {
        let message = match cause.kind() {
            IoKind::UnexpectedEof => "the disk image became shorter while it was read",
            _ => "cannot read the disk image",
        };
        Error::new(ErrorKind::Io, message)
            .because(cause)
            .at("path", path.display())
            .at("offset", offset)
    })
}

impl BlockSource for RawFileSource {
    fn size(&self) -> VolumeSize {
        self.size
    }

    fn writers(&self) -> Vec<String> {
        writers_of(&self.file)
    }

    fn block_map(&self) -> Result<BlockMap> {
        let mut map = BlockMap::new(self.size);
        if self.state.is_none() {
            map.insert(0, self.size.blocks());
            return Ok(map);
        }
        written_ranges(&self.file, self.size.bytes(), |range| {
            let (first, end) =
                ((range.start / BLOCK_BYTES) as u32, range.end.div_ceil(BLOCK_BYTES) as u32);
            map.insert(first, end - first);
        })
        .map_err(|error| error.at("path", self.path.display()))?;
        Ok(map)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        read(&self.file, &self.path, offset, buffer)
    }

    fn check_unchanged(&self) -> Result<()> {
        let failed = |cause| {
            Error::io("cannot read the state of the disk image", cause)
                .at("path", self.path.display())
        };
        let same = match self.state {
            Some(state) => state == FileState::of(&self.file).map_err(failed)?,
            // A device has a size but no time of change.
            None => self.size.bytes() == (&self.file).seek(SeekFrom::End(0)).map_err(failed)?,
        };
        if same {
            Ok(())
        } else {
            Err(Error::new(ErrorKind::Io, "the disk image changed while it was read")
                .at("path", self.path.display()))
        }
    }

    fn identity(&self) -> Option<String> {
        let metadata = self.file.metadata().ok()?;
        let FileState { len, modified, changed } = self.state?;
        // Without the number of the device, which may change at a reboot.
        Some(format!(
            "{}:{len}:{}.{}:{}.{}",
            metadata.ino(),
            modified.0,
            modified.1,
            changed.0,
            changed.1
        ))
    }
}

/// A sparse raw file. Blocks that are not written stay holes.
#[derive(Debug)]
pub struct RawFileSink(PartialFile);

impl RawFileSink {
    /// Begins a file of `size` whose final name is `path`.
    pub fn create(
        path: &Path,
        size: VolumeSize,
        overwrite: Overwrite,
        durability: Durability,
    ) -> Result<Self> {
        Self::sized(PartialFile::create(path, overwrite, durability)?, size)
    }

    /// Continues the partial file that an earlier process left under the same `tag`, or begins one.
    /// After an error the partial file stays, to be continued.
    pub fn resume(
        path: &Path,
        tag: &str,
        size: VolumeSize,
        overwrite: Overwrite,
        durability: Durability,
    ) -> Result<Self> {
        let mut partial = PartialFile::open(path, Some(tag), overwrite, durability)?;
        partial.keep();
        Self::sized(partial, size)
    }

    fn sized(partial: PartialFile, size: VolumeSize) -> Result<Self> {
        let path = partial.target().to_owned();
        partial.file().set_len(size.bytes()).map_err(|cause| {
            let message = match cause.kind() {
                IoKind::FileTooLarge | IoKind::InvalidInput => {
                    "the file system cannot hold a file of this size \
                     (ext4 ends at 16 TiB; XFS does not)"
                }
                _ => "cannot set the size of the disk image",
            };
            Error::new(ErrorKind::Io, message)
                .because(cause)
                .at("path", path.display())
                .at("size", size.bytes())
        })?;
        Ok(Self(partial))
    }

    /// The final name.
    pub fn path(&self) -> &Path {
        self.0.target()
    }

    /// Writes data to disk if the durability is `Synced`.
    pub fn sync(&self) -> Result<()> {
        self.0.sync()
    }

    /// Gives the file its final name.
    pub fn commit(self) -> Result<()> {
        self.0.commit()
    }

    /// Gives the file its final name. The name is durable once the directory is synced.
    pub fn rename(self) -> Result<()> {
        self.0.rename().map(drop)
    }

    /// Sets the size again.
    pub fn resize(&self, size: VolumeSize) -> Result<()> {
        self.0.file().set_len(size.bytes()).map_err(|cause| {
            Error::io("cannot set the size of the disk image", cause)
                .at("path", self.path().display())
                .at("size", size.bytes())
        })
    }

    /// Makes a hole again of `len` bytes at `offset`, or zeros where the file system has no holes.
    pub fn withdraw(&self, offset: u64, len: u64) -> Result<()> {
        match punch_hole(self.0.file(), offset, len) {
            Ok(true) => Ok(()),
            Ok(false) => for_zeros(offset, len, |offset, zeros| self.write(offset, zeros)),
            Err(cause) => Err(Error::io("cannot make a hole in the disk image", cause)
                .at("path", self.path().display())
                .at("offset", offset)),
        }
    }

    /// Changes the final name, within the directory.
    pub fn rename_to(&mut self, path: PathBuf) {
        self.0.rename_to(path);
    }

    /// The inode of the file, which it keeps under its final name.
    pub fn inode(&self) -> Result<u64> {
        self.0.file().metadata().map(|metadata| metadata.ino()).map_err(|cause| {
            Error::io("cannot look at the disk image", cause).at("path", self.path().display())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        write_all_at(self.0.file(), data, offset).map_err(|cause| {
            Error::io("cannot write the disk image", cause)
                .at("path", self.0.target().display())
                .at("offset", offset)
        })
    }
}

impl BlockSink for RawFileSink {
    fn write_data(&self, offset: u64, data: &[u8], _digests: &[Digest]) -> Result<()> {
        for run in written_runs(data) {
            self.write(offset + run.start as u64, &data[run])?;
        }
        if data.len() >= LONG_WRITE {
            self.0.begin_sync(offset, data.len() as u64);
        }
        Ok(())
    }

    /// Writes zeros instead of calling `fallocate`: a later store of the image takes an unwritten
    /// extent for a hole.
    fn write_zeros(&self, offset: u64, len: u64) -> Result<()> {
        for_zeros(offset, len, |offset, zeros| self.write(offset, zeros))
    }

    fn read_back(&self, offset: u64, buffer: &mut [u8]) -> Result<bool> {
        let read = self.0.file().read_exact_at(buffer, offset);
        read.map_err(|cause| {
            Error::io("cannot read back the disk image", cause)
                .at("path", self.0.target().display())
                .at("offset", offset)
        })?;
        Ok(true)
    }
}

/// The allocation unit of common file systems, in bytes.
const PAGE: usize = 4096;
/// The shortest hole, in pages. A shorter one costs a system call and a fragment, and saves little.
const HOLE_PAGES: usize = 4;

/// The parts of `data` to write to a file that reads as zeros elsewhere: all but runs of at least
/// [`HOLE_PAGES`] zero pages.
fn written_runs(data: &[u8]) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
    let mut at = 0;
    let is_hole = move |at: usize| {
        at >= data.len() || is_zero(&data[at..(at + HOLE_PAGES * PAGE).min(data.len())])
    };
    std::iter::from_fn(move || {
        while at < data.len() && is_zero(&data[at..(at + PAGE).min(data.len())]) {
            at += PAGE;
        }
        if at >= data.len() {
            return None;
        }
        let start = at;
        while !is_hole(at) {
            at += PAGE;
        }
        Some(start..at.min(data.len()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_longer_runs_of_zeros_become_holes() {
        let mut data = vec![0; 64 * PAGE];
        let runs = |data: &[u8]| written_runs(data).collect::<Vec<_>>();
        assert!(runs(&data).is_empty());
        data[PAGE * 10] = 1;
        data[PAGE * 14 - 1] = 1;
        assert_eq!(
            runs(&data),
            vec![10 * PAGE..14 * PAGE; 1],
            "two zero pages between them are written"
        );
        data[PAGE * 18] = 1;
        data[64 * PAGE - 1] = 1;
        assert_eq!(runs(&data), [10 * PAGE..14 * PAGE, 18 * PAGE..19 * PAGE, 63 * PAGE..64 * PAGE]);
        data.truncate(18 * PAGE + 512);
        assert_eq!(runs(&data), [10 * PAGE..14 * PAGE, 18 * PAGE..18 * PAGE + 512]);
    }
}
