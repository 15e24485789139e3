//! The port to a volume that is written.

use std::sync::LazyLock;

use crate::base::{BLOCK_BYTES, Bitmap8, BlockIndex, CellAddress, Result, bits_of};
use crate::format::{Digest, ZERO_BLOCK_DIGEST};

/// A volume that is being written. Its creator decides when it is complete, and names it.
pub trait BlockSink: Send + Sync {
    /// Writes blocks with data at `offset` (bytes), within the volume. `digests` are those of the
    /// blocks, a short last block padded with zeros. Callable from several threads for different
    /// ranges. A sink that reads as zeros where nothing was written may skip zeros within a block,
    /// as long as it writes a part of the block. It may return before the data has arrived, if
    /// [`confirm`](Self::confirm) waits for it.
    fn write_data(&self, offset: u64, data: &[u8], digests: &[Digest]) -> Result<()>;
    /// Writes `len` zeros at `offset`: blocks that are present and zero in the source. A block that
    /// neither method writes stays absent.
    fn write_zeros(&self, offset: u64, len: u64) -> Result<()>;

    /// Fills `buffer` with the present bytes at `offset`, to compare them with those of an earlier
    /// run. Returns false if the sink cannot read.
    fn read_back(&self, offset: u64, buffer: &mut [u8]) -> Result<bool> {
        let _ = (offset, buffer);
        Ok(false)
    }

    /// Waits until the blocks of a cell have arrived. Called for all cells of the volume in
    /// ascending order, those of an earlier run included, from one thread at a time.
    fn confirm(&self, cell: &Delivered<'_>) -> Result<()> {
        let _ = cell;
        Ok(())
    }

    /// Whether cells that were confirmed to an earlier run are certain to be there. They are then
    /// not read back and not written again.
    fn keeps_confirmed(&self) -> bool {
        false
    }
}

/// The blocks of a cell that a sink received.
#[derive(Clone, Copy, Debug)]
pub struct Delivered<'a> {
    /// Group and cell.
    pub address: CellAddress,
    /// Blocks with data.
    pub data: Bitmap8,
    /// Blocks that are present and zero in the source.
    pub zero: Bitmap8,
    /// The digests of the blocks with data, ascending.
    pub digests: &'a [Digest],
}

impl<'a> Delivered<'a> {
    /// The blocks of a cell with these bitmaps. Fill blocks stay absent.
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

/// A block of zeros. Memory that is only read costs one page, and no room in the program.
static ZEROS: LazyLock<Vec<u8>> = LazyLock::new(|| vec![0; BLOCK_BYTES as usize]);

/// Calls `write` with `len` zeros from `offset`, at most a block at a time.
pub(super) fn for_zeros(
    offset: u64,
    len: u64,
    mut write: impl FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    let end = offset + len;
    let mut at = offset;
    while at < end {
        let piece = (end - at).min(BLOCK_BYTES);
        write(at, &ZEROS[..piece as usize])?;
        at += piece;
    }
    Ok(())
}
