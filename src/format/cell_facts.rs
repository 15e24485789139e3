//! The members of a cell that indexes and content digests are built from.

use super::{CellRecord, Digest};
use crate::base::{Bitmap8, CellAddress};
use crate::codec::sha256;

/// The members of a cell that the index is built from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellFacts {
    /// The cell.
    pub address: CellAddress,
    /// Length of the data frame.
    pub frame_len: u32,
    /// Length of its content.
    pub raw_len: u32,
    /// Blocks in the cell.
    pub present: Bitmap8,
    /// Blocks that are all zeros.
    pub zero: Bitmap8,
    /// Blocks that are absent in the source.
    pub fill: Bitmap8,
    /// SHA-256 of the C record.
    pub record_digest: Digest,
    /// The cell's content digest (7).
    pub content: Digest,
}

impl CellFacts {
    /// The facts of the cell with this record, whose bytes are `encoded`.
    pub fn new(record: &CellRecord, encoded: &[u8]) -> Self {
        Self {
            address: record.address,
            frame_len: record.frame_len,
            raw_len: record.raw_len,
            present: record.present,
            zero: record.zero,
            fill: record.fill,
            record_digest: sha256::digest(encoded),
            content: record.content(),
        }
    }

    /// Length of the C record.
    pub fn record_len(&self) -> u32 {
        CellRecord::len_of(self.present, self.zero) as u32
    }
}
