//! The C record, in front of each data frame (3.3).

use super::Digest;
use super::layout::{CELL_HEAD, DATA_FRAME_RAW, MAX_GROUPS, max_frame_len};
use super::record::{Record, RecordKind};
use crate::base::{Bitmap8, CELLS_PER_GROUP, CellAddress, Error, Result, VolumeSize};
use crate::codec::sha256;

/// SHA-256 of 524,288 zero bytes.
pub const ZERO_BLOCK_DIGEST: Digest = [
    0x07, 0x85, 0x4d, 0x2f, 0xef, 0x29, 0x7a, 0x06, 0xba, 0x81, 0x68, 0x5e, 0x66, 0x0c, 0x33, 0x2d,
    0xe3, 0x6d, 0x5d, 0x18, 0xd5, 0x46, 0x92, 0x7d, 0x30, 0xda, 0xad, 0x6d, 0x7f, 0xda, 0x15, 0x41,
];

/// The record of a cell: its address, the contents of its frame, and the digests of both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellRecord {
    /// The volume, counted from 0.
    pub volume: u16,
    /// The cell whose blocks the frame holds.
    pub address: CellAddress,
    /// Bytes of the data frame.
    pub frame_len: u32,
    /// Bytes it inflates to.
    pub raw_len: u32,
    /// Blocks in the frame.
    pub present: Bitmap8,
    /// Blocks that are all zeros; subset of `present`.
    pub zero: Bitmap8,
    /// Blocks that are absent in the source; subset of `zero`.
    pub fill: Bitmap8,
    /// SHA-256 of the data frame as stored.
    pub frame_digest: Digest,
    /// SHA-256 of each block of `present & !zero`, ascending.
    pub block_digests: Vec<Digest>,
}

impl CellRecord {
    /// Length of the record with these bitmaps.
    pub fn len_of(present: Bitmap8, zero: Bitmap8) -> usize {
        CELL_HEAD + 32 * (present & !zero).count_ones() as usize
    }

    /// The record's bytes.
    pub fn encode(&self) -> Vec<u8> {
        debug_assert_eq!(
            self.block_digests.len(),
            (self.present & !self.zero).count_ones() as usize
        );
        let mut bytes = Record::begin(RecordKind::Cell, Self::len_of(self.present, self.zero));
        bytes.extend_from_slice(&self.volume.to_le_bytes());
        bytes.extend_from_slice(&self.address.index.to_le_bytes());
        bytes.extend_from_slice(&self.address.group.to_le_bytes());
        bytes.extend_from_slice(&self.frame_len.to_le_bytes());
        bytes.extend_from_slice(&self.raw_len.to_le_bytes());
        for bitmap in [self.present, self.zero, self.fill, 0] {
            bytes.extend_from_slice(&u16::from(bitmap).to_le_bytes());
        }
        bytes.extend_from_slice(&self.frame_digest);
        bytes.extend_from_slice(self.block_digests.as_flattened());
        bytes
    }

    /// Reads one whole record. Checks everything that does not depend on the size of the volume.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut fields = Record::open(bytes, RecordKind::Cell)?;
        let (volume, cell, group) = (fields.u16()?, fields.u16()?, fields.u32()?);
        let (frame_len, raw_len) = (fields.u32()?, fields.u32()?);
        let (present, zero, fill) = (fields.bitmap()?, fields.bitmap()?, fields.bitmap()?);
        fields.reserved(2)?;
        let frame_digest = fields.bytes()?;
        check_bitmaps(present, zero, fill)?;
        if u32::from(cell) >= CELLS_PER_GROUP || group >= MAX_GROUPS {
            return Err(Error::corrupt("a cell lies outside of any volume")
                .at("group", group)
                .at("cell", cell));
        }
        if raw_len as usize > DATA_FRAME_RAW || u64::from(frame_len) > max_frame_len(raw_len.into())
        {
            return Err(Error::corrupt("a data frame is longer than the format allows")
                .at("frame_len", frame_len)
                .at("raw_len", raw_len));
        }
        if fields.remaining() != 32 * (present & !zero).count_ones() as usize {
            return Err(Error::corrupt(
                "a cell record does not have one digest for each data block",
            ));
        }
        let mut block_digests = Vec::with_capacity(8);
        while fields.remaining() > 0 {
            let digest = fields.bytes()?;
            if digest == ZERO_BLOCK_DIGEST {
                return Err(Error::corrupt("a block of zeros is not marked as zero"));
            }
            block_digests.push(digest);
        }
        Ok(Self {
            volume,
            address: CellAddress { group, index: cell },
            frame_len,
            raw_len,
            present,
            zero,
            fill,
            frame_digest,
            block_digests,
        })
    }

    /// Checks that the cell lies within a volume of `size`, and that its raw length is that of its
    /// blocks.
    pub fn check_within(&self, size: VolumeSize) -> Result<()> {
        check_cell(self.address, self.present, size)?;
        let expected = size.cell_bytes(self.address, self.present);
        if u64::from(self.raw_len) != expected {
            return Err(Error::corrupt("the raw length of a cell is not that of its blocks")
                .at("raw_len", self.raw_len)
                .at("expected", expected));
        }
        Ok(())
    }

    /// The cell's content digest (7): SHA-256 of its block digests.
    pub fn content(&self) -> Digest {
        sha256::digest(self.block_digests.as_flattened())
    }
}

/// Checks `fill ⊆ zero ⊆ present ≠ ∅`.
pub(super) fn check_bitmaps(present: Bitmap8, zero: Bitmap8, fill: Bitmap8) -> Result<()> {
    if present == 0 || zero & !present != 0 || fill & !zero != 0 {
        return Err(Error::corrupt("the bitmaps of a cell contradict each other")
            .at("present", format!("{present:08b}"))
            .at("zero", format!("{zero:08b}"))
            .at("fill", format!("{fill:08b}")));
    }
    Ok(())
}

/// Checks that the blocks of `present` lie within a volume of `size`.
pub(super) fn check_cell(address: CellAddress, present: Bitmap8, size: VolumeSize) -> Result<()> {
    if address.group >= size.groups() || present & !size.cell_mask(address) != 0 {
        return Err(Error::corrupt("a block lies beyond the end of its volume")
            .at("group", address.group)
            .at("cell", address.index)
            .at("volume_size", size.bytes()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> CellRecord {
        CellRecord {
            volume: 1,
            address: CellAddress { group: 2, index: 3 },
            frame_len: 70,
            raw_len: 3 * 524_288,
            present: 0b1011,
            zero: 0b1000,
            fill: 0b1000,
            frame_digest: [1; 32],
            block_digests: vec![[2; 32], [3; 32]],
        }
    }

    #[test]
    fn the_digest_of_a_zero_block_is_the_constant() {
        assert_eq!(sha256::digest(&vec![0; 524_288]), ZERO_BLOCK_DIGEST);
    }

    #[test]
    fn a_record_survives_the_round_trip() {
        let bytes = record().encode();
        assert_eq!(bytes.len(), 136);
        assert_eq!(CellRecord::parse(&bytes).expect("parses"), record());
    }

    #[test]
    fn contradictions_are_corrupt() {
        for change in [
            (|r: &mut CellRecord| r.zero = 0b0100) as fn(&mut CellRecord),
            |r| r.fill = 0b0001,
            |r| r.address.index = 4096,
            |r| r.address.group = 4096,
            |r| r.raw_len = 4_194_305,
            |r| r.frame_len = 5 << 20,
            |r| r.block_digests[1] = ZERO_BLOCK_DIGEST,
        ] {
            let mut record = record();
            change(&mut record);
            record
                .block_digests
                .resize((record.present & !record.zero).count_ones() as usize, [4; 32]);
            assert!(CellRecord::parse(&record.encode()).is_err());
        }
    }

    #[test]
    fn a_cell_beyond_its_volume_is_corrupt() {
        let size = VolumeSize::new(40 << 30).expect("a size");
        assert!(record().check_within(size).is_ok());
        assert!(record().check_within(VolumeSize::new(32 << 30).expect("a size")).is_err());
        assert!(CellRecord { raw_len: 524_288, ..record() }.check_within(size).is_err());
    }
}
