//! Volumes as raw files and block devices.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind as IoKind, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{BlockSink, BlockSource};
use crate::base::{BLOCK_BYTES, BlockIndex, Cancel, Error, ErrorKind, Result, VolumeSize, bits_of};
use crate::codec::zero::is_zero;
use crate::format::{BlockMap, Digest};
use crate::localfs::{Durability, Overwrite, PartialFile, write_all_at, written_ranges};

/// A raw image or a block device, read by positions on one descriptor.
///
/// A regular file has holes where the file system has none written; a block device has no holes.
/// Reading never changes what is a hole.
#[derive(Debug)]
pub struct RawFileSource {
    path: PathBuf,
    file: File,
    size: VolumeSize,
    /// Length and time of the last change; `None` for a device.
    state: Option<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    len: u64,
    modified: (i64, i64),
    /// Unlike the time of modification, nobody can set it back.
    changed: (i64, i64),
}

impl State {
    fn of(file: &File) -> std::io::Result<Self> {
        let metadata = file.metadata()?;
        let (modified, changed) =
            ((metadata.mtime(), metadata.mtime_nsec()), (metadata.ctime(), metadata.ctime_nsec()));
        Ok(Self { len: metadata.len(), modified, changed })
    }
}

impl RawFileSource {
    /// Opens a raw image or block device.
    pub fn open(path: &Path) -> Result<Self> {
        let failed =
            |cause| Error::io("cannot open the disk image", cause).at("path", path.display());
        let mut file = File::open(path).map_err(failed)?;
        let kind = file.metadata().map_err(failed)?.file_type();
        let (len, state) = if kind.is_file() {
            let state = State::of(&file).map_err(failed)?;
            (state.len, Some(state))
        } else if kind.is_block_device() {
            (file.seek(SeekFrom::End(0)).map_err(failed)?, None)
        } else {
            return Err(Error::usage(
                "a disk image is a regular file or a block device, and this is neither",
            )
            .at("path", path.display()));
        };
        let size = VolumeSize::new(len).map_err(|error| match foreign_format(&file) {
            Some(format) => Error::unsupported("the disk image is not raw")
                .at("path", path.display())
                .at("format", format),
            None => error.at("path", path.display()),
        })?;
        Ok(Self { path: path.to_owned(), file, size, state })
    }

    /// The disk image format that the first bytes belong to, if it is a known one that is not raw.
    /// A guess: a raw disk may hold anything.
    pub fn foreign_format(&self) -> Option<&'static str> {
        foreign_format(&self.file)
    }
}

fn foreign_format(file: &File) -> Option<&'static str> {
    let mut magic = [0; 8];
    file.read_exact_at(&mut magic, 0).ok()?;
    match &magic {
        [b'Q', b'F', b'I', 0xFB, ..] => Some("qcow2"),
        [b'K', b'D', b'M', b'V', ..] => Some("vmdk"),
        b"vhdxfile" => Some("vhdx"),
        b"conectix" => Some("vhd"),
        [b'Q', b'E', b'D', 0, ..] => Some("qed"),
        _ => None,
    }
}

impl BlockSource for RawFileSource {
    fn size(&self) -> VolumeSize {
        self.size
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
        self.file.read_exact_at(buffer, offset).map_err(|cause| {
            let message = match cause.kind() {
                IoKind::UnexpectedEof => "the disk image became shorter while it was read",
                _ => "cannot read the disk image",
            };
            Error::new(ErrorKind::Io, message)
                .because(cause)
                .at("path", self.path.display())
                .at("offset", offset)
        })
    }

    fn check_unchanged(&self) -> Result<()> {
        let failed = |cause| {
            Error::io("cannot look at the disk image", cause).at("path", self.path.display())
        };
        let same = match self.state {
            Some(state) => state == State::of(&self.file).map_err(failed)?,
            // A device has no time of change, but it has a size.
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
        let State { len, modified, changed } = self.state?;
        // Not the number of the device: it may be another one after a reboot.
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

/// Takes blocks that read as zeros out of `map`, by reading all of them, on `threads` threads. For
/// images whose holes got lost.
pub fn scan_zero_blocks(
    source: &dyn BlockSource,
    map: &mut BlockMap,
    threads: usize,
    cancel: &Cancel,
) -> Result<()> {
    let kept = Mutex::new(Ok(BlockMap::new(map.size())));
    let cells = Mutex::new(map.cells());
    let failed = AtomicBool::new(false);
    let next = || {
        cells
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .next()
            .filter(|_| !failed.load(Ordering::Relaxed))
    };
    let scan = || -> Result<()> {
        let mut buffer = vec![0; BLOCK_BYTES as usize];
        while let Some((address, mut bits)) = next() {
            cancel.check()?;
            for bit in bits_of(bits.present) {
                let block = BlockIndex(address.first_block().0 + bit);
                let data = &mut buffer[..source.size().block_len(block) as usize];
                source.read_at(block.offset(), data)?;
                bits.present &= !(u8::from(is_zero(data)) << bit);
            }
            if bits.present != 0
                && let Ok(kept) = &mut *kept.lock().unwrap_or_else(PoisonError::into_inner)
            {
                kept.set(address, bits);
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                if let Err(error) = scan()
                    && !failed.swap(true, Ordering::Relaxed)
                {
                    *kept.lock().unwrap_or_else(PoisonError::into_inner) = Err(error);
                }
            });
        }
    });
    drop(cells);
    *map = kept.into_inner().unwrap_or_else(PoisonError::into_inner)?;
    Ok(())
}

/// A sparse raw file. Blocks that are not written stay holes.
#[derive(Debug)]
pub struct RawFileSink(PartialFile);

impl RawFileSink {
    /// Begins a file of `size` that will be called `path`.
    pub fn create(
        path: &Path,
        size: VolumeSize,
        overwrite: Overwrite,
        durability: Durability,
    ) -> Result<Self> {
        Self::sized(PartialFile::create(path, overwrite, durability)?, size)
    }

    /// Continues what an earlier process left of the file under the same `tag`, or begins it. What
    /// is written stays there after an error, too.
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
                    "the file system cannot hold a file of this size (ext4 ends at 16 TiB; XFS does not)"
                }
                _ => "cannot set the size of the disk image",
            };
            Error::new(ErrorKind::Io, message).because(cause).at("path", path.display()).at("size", size.bytes())
        })?;
        Ok(Self(partial))
    }

    /// The name it will have.
    pub fn path(&self) -> &Path {
        self.0.target()
    }

    /// Writes data to disk, if that was asked for.
    pub fn sync(&self) -> Result<()> {
        self.0.sync()
    }

    /// Gives the file its name.
    pub fn commit(self) -> Result<()> {
        self.0.commit()
    }

    /// Gives the file its name, which is durable only when its directory is synced.
    pub fn rename(self) -> Result<()> {
        self.0.rename()
    }
}

impl RawFileSink {
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
        Ok(())
    }

    /// Not by `fallocate`: an unwritten extent is a hole to whoever stores the image next.
    fn write_zeros(&self, offset: u64, len: u64) -> Result<()> {
        super::for_zeros(offset, len, |offset, zeros| self.write(offset, zeros))
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

/// The unit in which file systems allocate.
const PAGE: usize = 4096;
/// Fewer zero pages than this are not worth a hole: they would cost a system call, and a fragment,
/// to save little.
const HOLE_PAGES: usize = 4;

/// The parts of `data` that are worth writing to a file that reads as zeros elsewhere: all but
/// longer runs of zero pages.
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

/// A block device that is overwritten in place. It has no holes and cannot be undone: absent blocks
/// have to be written as zeros, and a failure leaves it half written.
#[derive(Debug)]
pub struct DeviceSink {
    path: PathBuf,
    file: File,
}

impl DeviceSink {
    /// Opens the device `path` for a volume of `size`; `None` if it is no block device.
    pub fn open(path: &Path, size: VolumeSize) -> Result<Option<Self>> {
        let failed =
            |cause| Error::io("cannot open the block device", cause).at("path", path.display());
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.file_type().is_block_device() => {}
            _ => return Ok(None),
        }
        // O_EXCL on a device fails if it is mounted or otherwise in use.
        let flags = rustix::fs::OFlags::EXCL.bits() as i32;
        let mut file =
            std::os::unix::fs::OpenOptionsExt::custom_flags(OpenOptions::new().write(true), flags)
                .open(path)
                .map_err(failed)?;
        let len = file.seek(SeekFrom::End(0)).map_err(failed)?;
        if len < size.bytes() {
            return Err(Error::usage("the block device is smaller than the volume")
                .at("path", path.display())
                .at("device_size", len)
                .at("volume_size", size.bytes()));
        }
        Ok(Some(Self { path: path.to_owned(), file }))
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
        super::for_zeros(offset, len, |offset, zeros| self.write_data(offset, zeros, &[]))
    }

    fn write_data(&self, offset: u64, data: &[u8], _digests: &[Digest]) -> Result<()> {
        write_all_at(&self.file, data, offset).map_err(|cause| {
            Error::io("cannot write the block device", cause)
                .at("path", self.path.display())
                .at("offset", offset)
        })
    }
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
