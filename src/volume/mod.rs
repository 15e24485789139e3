//! Ports to volumes: where blocks are read from, and where they go.
//!
//! It does not know archives. An implementation never turns an error into zeros or a hole.

mod memory;
mod raw_file;

use crate::base::{BLOCK_BYTES, Bitmap8, BlockIndex, CellAddress, Result, VolumeSize, bits_of};
use crate::format::{BlockMap, Digest, ZERO_BLOCK_DIGEST};

pub use memory::{MemorySink, MemorySource};
pub use raw_file::{DeviceSink, RawFileSink, RawFileSource, scan_zero_blocks};

/// A volume that can be read.
pub trait BlockSource: Send + Sync {
    /// The size of the volume.
    fn size(&self) -> VolumeSize;
    /// The blocks that were ever written, fill not considered. Two calls for one state of the
    /// volume give the same map.
    fn block_map(&self) -> Result<BlockMap>;
    /// Fills `buffer` from `offset` (bytes); both lie within the volume. May be called from several
    /// threads. Reading less than asked for is an error.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()>;
    /// The same for whole blocks. A source that has to hash what it reads appends the digest of
    /// each of them to `digests`; others append nothing.
    fn read_blocks(&self, offset: u64, buffer: &mut [u8], digests: &mut Vec<Digest>) -> Result<()> {
        let _ = digests;
        self.read_at(offset, buffer)
    }

    /// Begins to fetch `len` bytes from `offset`, which will be read with one call. Of use where a
    /// read has to wait; what is fetched and not read yet is in memory.
    fn prefetch(&self, offset: u64, len: u64) {
        let _ = (offset, len);
    }

    /// Fails if the volume changed since it was opened, as far as that can be known.
    fn check_unchanged(&self) -> Result<()>;
    /// What the volume and its state are known by: the same text later means the same bytes. `None`
    /// where nothing can say so.
    fn identity(&self) -> Option<String>;
}

/// A volume that is being written. Who made it decides when it is whole, and gives it its name.
pub trait BlockSink: Send + Sync {
    /// Writes blocks that hold data at `offset` (bytes), within the volume; `digests` are those of
    /// the blocks, a short last one taken as if padded with zeros. May be called from several
    /// threads for different ranges. A sink that reads as zeros where nothing was written may leave
    /// out zeros within a block, as long as some of it is written. It may return before the data is
    /// where it belongs, if
    /// [`confirm`](Self::confirm) waits for it.
    fn write_data(&self, offset: u64, data: &[u8], digests: &[Digest]) -> Result<()>;
    /// Writes `len` zeros at `offset`: blocks that were written, and are zero, in the source. What
    /// neither method writes stays absent.
    fn write_zeros(&self, offset: u64, len: u64) -> Result<()>;

    /// Fills `buffer` with what is at `offset` now, if an earlier run may have written there.
    /// Returns false where that cannot be told.
    fn read_back(&self, offset: u64, buffer: &mut [u8]) -> Result<bool> {
        let _ = (offset, buffer);
        Ok(false)
    }

    /// Returns when what was written of a cell is where it belongs. Called for all cells of the
    /// volume, those of an earlier run included, ascending, from one thread at a time.
    fn confirm(&self, cell: &Delivered<'_>) -> Result<()> {
        let _ = cell;
        Ok(())
    }

    /// Whether what was confirmed to an earlier run is there, without a look: then nothing of it is
    /// written again.
    fn keeps_confirmed(&self) -> bool {
        false
    }
}

/// What a sink got of a cell.
#[derive(Clone, Copy, Debug)]
pub struct Delivered<'a> {
    /// The cell.
    pub address: CellAddress,
    /// Blocks with data.
    pub data: Bitmap8,
    /// Blocks that were written and are zero.
    pub zero: Bitmap8,
    /// The digests of the blocks with data, ascending.
    pub digests: &'a [Digest],
}

impl<'a> Delivered<'a> {
    /// What a sink gets of a cell with these bitmaps. Fill blocks stay absent.
    pub fn new(
        address: CellAddress,
        (present, zero, fill): (Bitmap8, Bitmap8, Bitmap8),
        digests: &'a [Digest],
    ) -> Self {
        Self { address, data: present & !zero, zero: zero & !fill, digests }
    }

    /// The blocks and their digests, ascending.
    pub fn blocks(&self) -> impl Iterator<Item = (BlockIndex, Digest)> {
        let mut digests = self.digests.iter();
        let first = self.address.first_block().0;
        bits_of(self.data | self.zero).map(move |bit| {
            let digest = if self.data >> bit & 1 == 1 { digests.next() } else { None };
            (BlockIndex(first + bit), *digest.unwrap_or(&ZERO_BLOCK_DIGEST))
        })
    }
}

/// A block of zeros.
static ZEROS: [u8; BLOCK_BYTES as usize] = [0; BLOCK_BYTES as usize];

/// Calls `write` for `len` zeros from `offset`, a block or less at a time.
fn for_zeros(offset: u64, len: u64, mut write: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
    let end = offset + len;
    let mut at = offset;
    while at < end {
        let piece = (end - at).min(BLOCK_BYTES);
        write(at, &ZEROS[..piece as usize])?;
        at += piece;
    }
    Ok(())
}
