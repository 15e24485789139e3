//! Looks for the blocks of a cell that prove themselves although its record, its frame or both are
//! damaged.

use super::super::cell::{BLOCK, blocks_of};
use crate::base::{Bitmap8, CellAddress, Result, VolumeSize};
use crate::codec::sha256;
use crate::codec::zero::is_zero;
use crate::codec::zstd::{Decoder, PrefixDecoder};
use crate::format::layout::CELL_HEAD;
use crate::format::{CellRecord, Digest, frame};

/// Bytes of a C record before its digest of the frame.
const FRAME_DIGEST: usize = 40;

/// The digests that prove a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Proof {
    /// The zstd frame's own checksum of 32 bits, and the position of the frame: the C record is
    /// damaged.
    Checksum,
    /// SHA-256 digests in the C record.
    Record,
}

/// The position and the blocks of a cell, by its record or by the map of its volume.
#[derive(Clone, Copy, Debug)]
pub(super) struct CellPosition {
    pub(super) volume: u16,
    pub(super) address: CellAddress,
    pub(super) present: Bitmap8,
    pub(super) size: VolumeSize,
}

/// The blocks of a cell that prove themselves.
pub(super) struct Examined {
    /// The inflated bytes of the frame, as far as it inflates.
    pub(super) raw: Vec<u8>,
    /// Blocks with data.
    pub(super) data: Bitmap8,
    /// Blocks that are zero.
    pub(super) zero: Bitmap8,
    pub(super) proof: Proof,
    /// The record that a writer makes of this content, without fill blocks; `None` if the frame is
    /// damaged.
    pub(super) made: Option<CellRecord>,
}

/// Examines cells, one at a time.
pub(super) struct Examiner {
    decoder: Decoder,
    raw: Vec<u8>,
}

impl Examiner {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { decoder: Decoder::new()?, raw: Vec::new() })
    }

    /// A buffer for the next cell.
    pub(super) fn give_back(&mut self, raw: Vec<u8>) {
        self.raw = raw;
    }

    /// Examines the cell at `position`. `record` are the bytes that stand where its record should
    /// be, right or wrong, and `parsed` is the record if it is a good one; `stored` is its frame,
    /// which may be damaged or cut short.
    pub(super) fn examine(
        &mut self,
        position: &CellPosition,
        record: &[u8],
        parsed: Option<&CellRecord>,
        stored: &[u8],
    ) -> Result<Examined> {
        let CellPosition { volume, address, present, size } = *position;
        let raw_len = size.cell_bytes(address, present);
        let frame_digest = sha256::digest(stored);
        let mut raw = std::mem::take(&mut self.raw);
        // zstd compares the checksum of the frame.
        let is_whole = frame::check(stored, raw_len).is_ok()
            && self.decoder.decode(stored, raw_len as usize, &mut raw).is_ok();
        if !is_whole {
            inflate_prefix(stored, raw_len as usize, &mut raw)?;
        }
        let by_frame = is_whole && record.get(FRAME_DIGEST..CELL_HEAD) == Some(&frame_digest);
        let claimed: &[Digest] = record.get(CELL_HEAD..).unwrap_or_default().as_chunks().0;
        let (mut data, mut zero, mut all_claimed) = (0, 0, true);
        let (mut digests, mut padded) = (Vec::with_capacity(8), Vec::new());
        for (bit, block) in blocks_of(&raw, present, size, address) {
            let len = size.block_len(crate::base::BlockIndex(address.first_block().0 + bit));
            if (block.len() as u64) < len {
                break;
            }
            let mask = 1 << bit;
            if is_zero(block) {
                let is_claimed = parsed.is_some_and(|record| record.zero & mask != 0);
                if is_whole || is_claimed {
                    zero |= mask;
                }
                continue;
            }
            let digest = if block.len() < BLOCK {
                padded.clear();
                padded.extend_from_slice(block);
                padded.resize(BLOCK, 0);
                sha256::digest(&padded)
            } else {
                sha256::digest(block)
            };
            let is_claimed = match parsed {
                // The digest of this block, at its position in the list.
                Some(record) => {
                    let before = record.present & !record.zero & (mask - 1);
                    record.zero & mask == 0
                        && record.block_digests.get(before.count_ones() as usize) == Some(&digest)
                }
                None => claimed.contains(&digest),
            };
            all_claimed &= is_claimed;
            if is_whole || is_claimed {
                data |= mask;
            }
            digests.push(digest);
        }
        let proof = if by_frame || all_claimed { Proof::Record } else { Proof::Checksum };
        let made = is_whole.then_some(CellRecord {
            volume,
            address,
            frame_len: stored.len() as u32,
            raw_len: raw_len as u32,
            present,
            zero,
            fill: 0,
            frame_digest,
            block_digests: digests,
        });
        Ok(Examined { raw, data, zero, proof, made })
    }
}

/// Inflates the blocks of a damaged frame up to the first that does not inflate. The bytes prove
/// nothing.
fn inflate_prefix(stored: &[u8], raw_len: usize, raw: &mut Vec<u8>) -> Result<()> {
    let mut decoder = PrefixDecoder::new(raw_len)?;
    raw.clear();
    let mut at = 0;
    for end in frame::block_ends(stored, raw_len as u64) {
        if !decoder.feed(&stored[at..end], raw) {
            return Ok(());
        }
        at = end;
    }
    Ok(())
}
