//! The log entry of a packed cell, with which it need not be packed again.

use super::LoggedCell;
use crate::base::CellAddress;
use crate::format::CellFacts;

/// A cell of an archive: its offset, and the members that an index is built from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MadeCell {
    /// The volume it belongs to.
    pub volume: u16,
    /// Offset of its record in the archive.
    pub offset: u64,
    /// The members that an index is built from.
    pub facts: CellFacts,
}

impl MadeCell {
    /// Bytes of an entry.
    pub const ENCODED: usize = 2 + 8 + 4 + 2 + 4 + 4 + 3 + 64;

    /// Its length in the archive.
    pub fn len(&self) -> u64 {
        u64::from(self.facts.record_len()) + u64::from(self.facts.frame_len)
    }

    /// Always false: a cell has a record.
    #[cfg(feature = "internals")]
    pub fn is_empty(&self) -> bool {
        false
    }
}

/// The fields, little-endian, in the order of the structure.
impl LoggedCell for MadeCell {
    fn encode(&self) -> Vec<u8> {
        let facts = &self.facts;
        let mut bytes = Vec::with_capacity(Self::ENCODED);
        bytes.extend_from_slice(&self.volume.to_le_bytes());
        bytes.extend_from_slice(&self.offset.to_le_bytes());
        bytes.extend_from_slice(&facts.address.group.to_le_bytes());
        bytes.extend_from_slice(&facts.address.index.to_le_bytes());
        bytes.extend_from_slice(&facts.frame_len.to_le_bytes());
        bytes.extend_from_slice(&facts.raw_len.to_le_bytes());
        bytes.extend_from_slice(&[facts.present, facts.zero, facts.fill]);
        bytes.extend_from_slice(&facts.record_digest);
        bytes.extend_from_slice(&facts.content);
        bytes
    }

    fn volume(&self) -> u16 {
        self.volume
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::ENCODED] = bytes.try_into().ok()?;
        let mut rest = &bytes[..];
        Some(Self {
            volume: u16::from_le_bytes(take(&mut rest)?),
            offset: u64::from_le_bytes(take(&mut rest)?),
            facts: CellFacts {
                address: CellAddress {
                    group: u32::from_le_bytes(take(&mut rest)?),
                    index: u16::from_le_bytes(take(&mut rest)?),
                },
                frame_len: u32::from_le_bytes(take(&mut rest)?),
                raw_len: u32::from_le_bytes(take(&mut rest)?),
                present: take::<1>(&mut rest)?[0],
                zero: take::<1>(&mut rest)?[0],
                fill: take::<1>(&mut rest)?[0],
                record_digest: take(&mut rest)?,
                content: take(&mut rest)?,
            },
        })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_comes_back_as_it_was() {
        let facts = CellFacts {
            address: CellAddress { group: 7, index: 4095 },
            frame_len: 1234,
            raw_len: 4 << 20,
            present: 0xFF,
            zero: 2,
            fill: 0,
            record_digest: [3; 32],
            content: [4; 32],
        };
        let cell = MadeCell { volume: 2, offset: 1 << 45, facts };
        let bytes = cell.encode();
        assert_eq!(bytes.len(), MadeCell::ENCODED);
        assert_eq!(MadeCell::decode(&bytes), Some(cell));
        assert_eq!(MadeCell::decode(&bytes[1..]), None);
    }
}
