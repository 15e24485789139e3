//! The S record: the index of a window's cells (3.4).

use super::cell::{check_bitmaps, check_slot};
use super::layout::{MAX_CELL, WINDOW_HEAD, WINDOW_SLOT};
use super::record::{Record, RecordKind};
use super::{CellRecord, Digest};
use crate::base::{Bitmap8, Error, Result, SLOTS_PER_WINDOW, SlotAddress, VolumeSize};

/// One cell of a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowSlot {
    /// Bytes of C record and data frame.
    pub cell_len: u32,
    /// The slot.
    pub slot: u16,
    /// As in the C record.
    pub present: Bitmap8,
    /// As in the C record.
    pub zero: Bitmap8,
    /// As in the C record.
    pub fill: Bitmap8,
    /// SHA-256 of the whole C record.
    pub record_digest: Digest,
}

impl WindowSlot {
    /// Length of the C record.
    pub fn record_len(&self) -> u32 {
        CellRecord::len_of(self.present, self.zero) as u32
    }

    /// Length of the data frame.
    pub fn frame_len(&self) -> u32 {
        self.cell_len - self.record_len()
    }
}

/// The index of one window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowIndex {
    /// The volume, counted from 0.
    pub volume: u16,
    /// The window.
    pub window: u32,
    /// Bytes from the window's first C record to this record.
    pub cells_len: u64,
    /// Content digest of the window (7).
    pub content: Digest,
    /// The cells, by slot.
    pub slots: Vec<WindowSlot>,
}

impl WindowIndex {
    /// The record's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes =
            Record::begin(RecordKind::Window, WINDOW_HEAD + WINDOW_SLOT * self.slots.len());
        bytes.extend_from_slice(&self.volume.to_le_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&self.window.to_le_bytes());
        bytes.extend_from_slice(&(self.slots.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.blocks().to_le_bytes());
        bytes.extend_from_slice(&self.cells_len.to_le_bytes());
        bytes.extend_from_slice(&self.content);
        for slot in &self.slots {
            bytes.extend_from_slice(&slot.cell_len.to_le_bytes());
            bytes.extend_from_slice(&slot.slot.to_le_bytes());
            for bitmap in [slot.present, slot.zero, slot.fill] {
                bytes.extend_from_slice(&u16::from(bitmap).to_le_bytes());
            }
            bytes.extend_from_slice(&slot.record_digest);
        }
        bytes
    }

    /// Reads one whole record of a volume of `size`.
    pub fn parse(bytes: &[u8], size: VolumeSize) -> Result<Self> {
        let mut fields = Record::open(bytes, RecordKind::Window)?;
        let volume = fields.u16()?;
        fields.reserved(2)?;
        let (window, entries, blocks, cells_len) =
            (fields.u32()?, fields.u32()?, fields.u32()?, fields.u64()?);
        let content = fields.bytes()?;
        if entries == 0
            || entries > SLOTS_PER_WINDOW
            || fields.remaining() != WINDOW_SLOT * entries as usize
        {
            return Err(Error::corrupt("a window index has not the number of entries it says")
                .at("entries", entries));
        }
        let mut slots: Vec<WindowSlot> = Vec::with_capacity(entries as usize);
        for _ in 0..entries {
            let (cell_len, slot) = (fields.u32()?, fields.u16()?);
            let (present, zero, fill) = (fields.bitmap()?, fields.bitmap()?, fields.bitmap()?);
            let entry =
                WindowSlot { cell_len, slot, present, zero, fill, record_digest: fields.bytes()? };
            check_bitmaps(present, zero, fill)?;
            if u32::from(slot) >= SLOTS_PER_WINDOW
                || slots.last().is_some_and(|last| last.slot >= slot)
            {
                return Err(
                    Error::corrupt("the slots of a window index are not in order").at("slot", slot)
                );
            }
            check_slot(SlotAddress { window, slot }, present, size)?;
            if cell_len as usize > MAX_CELL || cell_len <= entry.record_len() {
                return Err(Error::corrupt("a window index has a cell of impossible length")
                    .at("slot", slot)
                    .at("cell_len", cell_len));
            }
            slots.push(entry);
        }
        let index = Self { volume, window, cells_len, content, slots };
        if index.blocks() != blocks
            || index.slots.iter().map(|slot| u64::from(slot.cell_len)).sum::<u64>() != cells_len
        {
            return Err(
                Error::corrupt("the totals of a window index do not add up").at("window", window)
            );
        }
        Ok(index)
    }

    /// How many blocks are present.
    pub fn blocks(&self) -> u32 {
        self.slots.iter().map(|slot| slot.present.count_ones()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> WindowIndex {
        let slot = |slot, present, zero| WindowSlot {
            cell_len: 300,
            slot,
            present,
            zero,
            fill: 0,
            record_digest: [slot as u8; 32],
        };
        WindowIndex {
            volume: 3,
            window: 1,
            cells_len: 600,
            content: [9; 32],
            slots: vec![slot(0, 1, 0), slot(4095, 0x81, 0x80)],
        }
    }

    #[test]
    fn a_record_survives_the_round_trip() {
        let size = VolumeSize::new(32 << 30).expect("a size");
        assert_eq!(WindowIndex::parse(&index().encode(), size).expect("parses"), index());
    }

    #[test]
    fn contradictions_are_corrupt() {
        let size = VolumeSize::new(32 << 30).expect("a size");
        for change in [
            (|i: &mut WindowIndex| i.cells_len += 1) as fn(&mut WindowIndex),
            |i| i.slots.clear(),
            |i| i.slots.swap(0, 1),
            |i| i.slots[1].slot = 0,
            |i| i.slots[1].slot = 4096,
            |i| i.window = 2,
            |i| i.slots[0].zero = 2,
            |i| i.slots[0].cell_len = 104,
        ] {
            let mut index = index();
            change(&mut index);
            assert!(WindowIndex::parse(&index.encode(), size).is_err());
        }
    }
}
