//! Window indexes: read, checked against the table of windows, fetched ahead.

use super::Archive;
use super::open::twice;
use crate::base::{BlockRange, Error, Result, SlotAddress, WINDOW_BLOCKS};
use crate::codec::sha256;
use crate::format::{BlockMap, SlotBits, WindowEntry, WindowIndex};

/// Indexes that are fetched while one is read: at most 1.5 MiB.
const INDEXES_AHEAD: usize = 8;

impl Archive {
    /// Reads and checks the index of a window.
    pub fn window_index(&self, entry: &WindowEntry) -> Result<WindowIndex> {
        let read = || {
            let mut bytes = vec![0; entry.index_len as usize];
            self.reader().read_at(entry.index_offset(), &mut bytes)?;
            if sha256::digest(&bytes) != entry.index_digest {
                return Err(Error::corrupt("the index of a window does not match its digest"));
            }
            let index = WindowIndex::parse(&bytes, self.volume_entry(entry.volume).size)?;
            let agree = index.volume == entry.volume
                && index.window == entry.window
                && index.cells_len == entry.cells_len
                && index.slots.len() == entry.entries as usize
                && index.content == entry.content;
            if agree {
                Ok(index)
            } else {
                Err(Error::corrupt("the index of a window contradicts the table of windows"))
            }
        };
        twice(self.reader(), read).map_err(|error| self.locate_window(error, entry))
    }

    /// Begins to fetch the index [`INDEXES_AHEAD`] windows after window `number`, and with the first
    /// window all up to it: a loop over the indexes then does not wait for each.
    pub(in super::super) fn prefetch_indexes(&self, volume: u16, number: usize) {
        let windows = self.root().windows_of(volume);
        let from = if number == 0 { 0 } else { number + INDEXES_AHEAD };
        for entry in windows.iter().take(number + INDEXES_AHEAD + 1).skip(from) {
            self.reader().prefetch(entry.index_offset(), entry.index_len.into());
        }
    }

    /// Adds snapshot, blocks and offset of a window whose index is damaged.
    pub(in super::super) fn locate_window(&self, error: Error, entry: &WindowEntry) -> Error {
        let volume = self.volume_entry(entry.volume);
        let first = SlotAddress { window: entry.window, slot: 0 }.first_block();
        let count = WINDOW_BLOCKS.min(volume.size.blocks() - first.0);
        error
            .at("snapshot", &volume.name)
            .at("blocks", BlockRange { first, count })
            .at("offset", entry.index_offset())
    }
}

/// Adds the blocks of a window index to `map`.
pub(in super::super) fn add_to_map(index: &WindowIndex, map: &mut BlockMap) {
    for slot in &index.slots {
        let address = SlotAddress { window: index.window, slot: slot.slot };
        map.set(address, SlotBits { present: slot.present, fill: slot.fill });
    }
}
