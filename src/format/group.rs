//! The S record: the index of a group's cells (3.4).

use super::cell::{check_bitmaps, check_cell};
use super::layout::{CELL_ENTRY, GROUP_HEAD, MAX_CELL};
use super::record::{Record, RecordKind};
use super::{CellRecord, Digest};
use crate::base::{Bitmap8, CELLS_PER_GROUP, CellAddress, Error, Result, VolumeSize};

/// One cell of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellEntry {
    /// Bytes of C record and data frame.
    pub cell_len: u32,
    /// The cell, counted from the start of the group.
    pub index: u16,
    /// As in the C record.
    pub present: Bitmap8,
    /// As in the C record.
    pub zero: Bitmap8,
    /// As in the C record.
    pub fill: Bitmap8,
    /// SHA-256 of the whole C record.
    pub record_digest: Digest,
}

impl CellEntry {
    /// Length of the C record.
    pub fn record_len(&self) -> u32 {
        CellRecord::len_of(self.present, self.zero) as u32
    }

    /// Length of the data frame.
    pub fn frame_len(&self) -> u32 {
        self.cell_len - self.record_len()
    }
}

/// The index of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupIndex {
    /// The volume, counted from 0.
    pub volume: u16,
    /// The group.
    pub group: u32,
    /// Bytes from the group's first C record to this record.
    pub cells_len: u64,
    /// Content digest of the group (7).
    pub content: Digest,
    /// The cells, ascending.
    pub cells: Vec<CellEntry>,
}

impl GroupIndex {
    /// The record's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes =
            Record::begin(RecordKind::Group, GROUP_HEAD + CELL_ENTRY * self.cells.len());
        bytes.extend_from_slice(&self.volume.to_le_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&self.group.to_le_bytes());
        bytes.extend_from_slice(&(self.cells.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.blocks().to_le_bytes());
        bytes.extend_from_slice(&self.cells_len.to_le_bytes());
        bytes.extend_from_slice(&self.content);
        for cell in &self.cells {
            bytes.extend_from_slice(&cell.cell_len.to_le_bytes());
            bytes.extend_from_slice(&cell.index.to_le_bytes());
            for bitmap in [cell.present, cell.zero, cell.fill] {
                bytes.extend_from_slice(&u16::from(bitmap).to_le_bytes());
            }
            bytes.extend_from_slice(&cell.record_digest);
        }
        bytes
    }

    /// Reads one whole record of a volume of `size`.
    pub fn parse(bytes: &[u8], size: VolumeSize) -> Result<Self> {
        let mut fields = Record::open(bytes, RecordKind::Group)?;
        let volume = fields.u16()?;
        fields.reserved(2)?;
        let (group, entries, blocks, cells_len) =
            (fields.u32()?, fields.u32()?, fields.u32()?, fields.u64()?);
        let content = fields.bytes()?;
        if entries == 0
            || entries > CELLS_PER_GROUP
            || fields.remaining() != CELL_ENTRY * entries as usize
        {
            return Err(Error::corrupt(
                "a group index does not have the number of entries in its head",
            )
            .at("entries", entries));
        }
        let mut cells: Vec<CellEntry> = Vec::with_capacity(entries as usize);
        for _ in 0..entries {
            let (cell_len, index) = (fields.u32()?, fields.u16()?);
            let (present, zero, fill) = (fields.bitmap()?, fields.bitmap()?, fields.bitmap()?);
            let entry =
                CellEntry { cell_len, index, present, zero, fill, record_digest: fields.bytes()? };
            check_bitmaps(present, zero, fill)?;
            if u32::from(index) >= CELLS_PER_GROUP
                || cells.last().is_some_and(|last| last.index >= index)
            {
                return Err(
                    Error::corrupt("the cells of a group index are not in order").at("cell", index)
                );
            }
            check_cell(CellAddress { group, index }, present, size)?;
            if cell_len as usize > MAX_CELL || cell_len <= entry.record_len() {
                return Err(Error::corrupt("a group index has a cell of impossible length")
                    .at("cell", index)
                    .at("cell_len", cell_len));
            }
            cells.push(entry);
        }
        let index = Self { volume, group, cells_len, content, cells };
        if index.blocks() != blocks
            || index.cells.iter().map(|cell| u64::from(cell.cell_len)).sum::<u64>() != cells_len
        {
            return Err(
                Error::corrupt("the totals of a group index do not add up").at("group", group)
            );
        }
        Ok(index)
    }

    /// How many blocks are present.
    pub fn blocks(&self) -> u32 {
        self.cells.iter().map(|cell| cell.present.count_ones()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> GroupIndex {
        let cell = |index, present, zero| CellEntry {
            cell_len: 300,
            index,
            present,
            zero,
            fill: 0,
            record_digest: [index as u8; 32],
        };
        GroupIndex {
            volume: 3,
            group: 1,
            cells_len: 600,
            content: [9; 32],
            cells: vec![cell(0, 1, 0), cell(4095, 0x81, 0x80)],
        }
    }

    #[test]
    fn a_record_survives_the_round_trip() {
        let size = VolumeSize::new(32 << 30).expect("a size");
        assert_eq!(GroupIndex::parse(&index().encode(), size).expect("parses"), index());
    }

    #[test]
    fn contradictions_are_corrupt() {
        let size = VolumeSize::new(32 << 30).expect("a size");
        for change in [
            (|i: &mut GroupIndex| i.cells_len += 1) as fn(&mut GroupIndex),
            |i| i.cells.clear(),
            |i| i.cells.swap(0, 1),
            |i| i.cells[1].index = 0,
            |i| i.cells[1].index = 4096,
            |i| i.group = 2,
            |i| i.cells[0].zero = 2,
            |i| i.cells[0].cell_len = 104,
        ] {
            let mut index = index();
            change(&mut index);
            assert!(GroupIndex::parse(&index.encode(), size).is_err());
        }
    }
}
