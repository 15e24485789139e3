//! Group indexes: read, checked against the table of groups, fetched ahead.

use super::Archive;
use super::open::twice;
use crate::base::{BLOCK_BYTES, Bitmap8, BlockRange, CellAddress, Error, GROUP_BLOCKS, Result};
use crate::codec::sha256;
use crate::format::layout::DATA_FRAME_RAW;
use crate::format::{BlockMap, CellBits, CellEntry, GroupEntry, GroupIndex};

/// Bytes of volume in a cell with all its blocks.
pub(super) const CELL_BYTES: u64 = DATA_FRAME_RAW as u64;
/// Indexes that are fetched while one is read: at most 1.5 MiB.
const INDEXES_AHEAD: usize = 8;

/// A cell, as the index of its group lists it.
#[derive(Clone, Debug)]
pub(in super::super) struct IndexedCell {
    pub(in super::super) address: CellAddress,
    pub(in super::super) entry: CellEntry,
    /// Where its record begins in the archive.
    pub(in super::super) offset: u64,
}

impl IndexedCell {
    /// Bytes of its record and its frame.
    pub(in super::super) fn len(&self) -> u64 {
        self.entry.cell_len.into()
    }

    /// Where it ends in the archive.
    pub(in super::super) fn end(&self) -> u64 {
        self.offset + self.len()
    }

    /// Blocks that hold data.
    pub(in super::super) fn data(&self) -> Bitmap8 {
        self.entry.present & !self.entry.zero
    }

    /// Whether a block holds data.
    pub(in super::super) fn has_data(&self) -> bool {
        self.data() != 0
    }

    /// Blocks that are not absent in the source: data and zeros.
    pub(in super::super) fn written(&self) -> Bitmap8 {
        self.entry.present & !self.entry.fill
    }

    /// True if a block that holds data lies in `len` bytes of the volume from `offset`, which lie
    /// in the slot of the cell.
    pub(in super::super) fn has_data_in(&self, offset: u64, len: u64) -> bool {
        self.runs_in(offset, len).any(|(holds_data, _)| holds_data)
    }

    /// Divides `len` bytes of the volume from `offset`, which lie in the slot of the cell, into
    /// runs of blocks that hold data, or do not, each with its length in bytes.
    pub(in super::super) fn runs_in(
        &self,
        offset: u64,
        len: u64,
    ) -> impl Iterator<Item = (bool, u64)> + use<> {
        let data = self.data();
        let start = offset - self.address.first_block().offset();
        let (mut at, end) = (start, start + len);
        let holds_data = move |at: u64| data >> (at / BLOCK_BYTES) & 1 == 1;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let (first, this) = (at, holds_data(at));
            while at < end && holds_data(at) == this {
                at = ((at / BLOCK_BYTES + 1) * BLOCK_BYTES).min(end);
            }
            Some((this, at - first))
        })
    }
}

/// The cells of an index, ascending.
pub(in super::super) fn indexed_cells(
    index: GroupIndex,
    group: &GroupEntry,
) -> impl Iterator<Item = IndexedCell> {
    let (group, mut next) = (index.group, group.offset);
    index.cells.into_iter().map(move |entry| {
        let offset = next;
        next += u64::from(entry.cell_len);
        IndexedCell { address: CellAddress { group, index: entry.index }, entry, offset }
    })
}

impl Archive {
    /// Reads and checks the index of a group.
    pub fn group_index(&self, entry: &GroupEntry) -> Result<GroupIndex> {
        let read = || {
            let mut bytes = vec![0; entry.index_len as usize];
            self.reader().read_at(entry.index_offset(), &mut bytes)?;
            if sha256::digest(&bytes) != entry.index_digest {
                return Err(Error::corrupt("the index of a window does not match its digest"));
            }
            let index = GroupIndex::parse(&bytes, self.volume_entry(entry.volume).size)?;
            let agree = index.volume == entry.volume
                && index.group == entry.group
                && index.cells_len == entry.cells_len
                && index.cells.len() == entry.entries as usize
                && index.content == entry.content;
            if agree {
                Ok(index)
            } else {
                Err(Error::corrupt("the index of a window contradicts the table of windows"))
            }
        };
        twice(self.reader(), read).map_err(|error| self.locate_group(error, entry))
    }

    /// Begins to fetch the index [`INDEXES_AHEAD`] groups after group `number`, and with the first
    /// group all up to it: a loop over the indexes then does not wait for each.
    pub(in super::super) fn prefetch_indexes(&self, volume: u16, number: usize) {
        let groups = self.root().groups_of(volume);
        let from = if number == 0 { 0 } else { number + INDEXES_AHEAD };
        for entry in groups.iter().take(number + INDEXES_AHEAD + 1).skip(from) {
            self.reader().prefetch(entry.index_offset(), entry.index_len.into());
        }
    }

    /// Adds snapshot, blocks and offset of a group whose index is damaged.
    pub(in super::super) fn locate_group(&self, error: Error, entry: &GroupEntry) -> Error {
        let volume = self.volume_entry(entry.volume);
        let first = CellAddress { group: entry.group, index: 0 }.first_block();
        let count = GROUP_BLOCKS.min(volume.size.blocks() - first.0);
        error
            .at("snapshot", &volume.name)
            .at("blocks", BlockRange { first, count })
            .at("offset", entry.index_offset())
    }
}

/// Adds the blocks of a group index to `map`.
pub(in super::super) fn add_to_map(index: &GroupIndex, map: &mut BlockMap) {
    for cell in &index.cells {
        let address = CellAddress { group: index.group, index: cell.index };
        map.set(address, CellBits { present: cell.present, fill: cell.fill });
    }
}
