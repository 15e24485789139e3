//! Window indexes: read, checked against the table of windows, fetched ahead.

use super::Archive;
use super::open::twice;
use crate::base::{BlockRange, CellAddress, Error, GROUP_BLOCKS, Result};
use crate::codec::sha256;
use crate::format::{BlockMap, CellBits, GroupEntry, GroupIndex};

/// Indexes that are fetched while one is read: at most 1.5 MiB.
const INDEXES_AHEAD: usize = 8;

impl Archive {
    /// Reads and checks the index of a window.
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

    /// Begins to fetch the index [`INDEXES_AHEAD`] windows after window `number`, and with the first
    /// window all up to it: a loop over the indexes then does not wait for each.
    pub(in super::super) fn prefetch_indexes(&self, volume: u16, number: usize) {
        let windows = self.root().groups_of(volume);
        let from = if number == 0 { 0 } else { number + INDEXES_AHEAD };
        for entry in windows.iter().take(number + INDEXES_AHEAD + 1).skip(from) {
            self.reader().prefetch(entry.index_offset(), entry.index_len.into());
        }
    }

    /// Adds snapshot, blocks and offset of a window whose index is damaged.
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

/// Adds the blocks of a window index to `map`.
pub(in super::super) fn add_to_map(index: &GroupIndex, map: &mut BlockMap) {
    for slot in &index.cells {
        let address = CellAddress { group: index.group, index: slot.index };
        map.set(address, CellBits { present: slot.present, fill: slot.fill });
    }
}
