//! The notes on a restored cell, with which the next run need not fetch it again.

use super::LoggedCell;
use crate::base::{Bitmap8, BlockIndex, CellAddress, Result, VolumeSize, bits_of};
use crate::codec::sha256;
use crate::format::Digest;
use crate::volume::BlockSink;

/// A cell whose blocks were written to a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenCell {
    /// The volume it belongs to.
    pub volume: u16,
    /// The slot.
    pub address: CellAddress,
    /// The digest of the digests of its data blocks.
    pub content: Digest,
    /// The block digests, for targets that cannot be read back.
    pub digests: Vec<Digest>,
}

impl WrittenCell {
    /// Bytes of it as it is noted, without the digests of blocks.
    const ENCODED: usize = 2 + 4 + 2 + 32;

    /// Whether there is a digest for each of these blocks with data, and the digest of all of them
    /// is that of the cell.
    pub(super) fn fits(&self, data: Bitmap8) -> bool {
        self.digests.len() == data.count_ones() as usize
            && sha256::digest(self.digests.as_flattened()) == self.content
    }
}

/// The fields, little-endian, in the order of the structure.
impl LoggedCell for WrittenCell {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::ENCODED);
        bytes.extend_from_slice(&self.volume.to_le_bytes());
        bytes.extend_from_slice(&self.address.group.to_le_bytes());
        bytes.extend_from_slice(&self.address.index.to_le_bytes());
        bytes.extend_from_slice(&self.content);
        bytes.extend_from_slice(self.digests.as_flattened());
        bytes
    }

    fn volume(&self) -> u16 {
        self.volume
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (bytes, digests): (&[u8; Self::ENCODED], _) = bytes.split_first_chunk()?;
        let (digests, []) = digests.as_chunks() else { return None };
        let ([v0, v1, w0, w1, w2, w3, s0, s1], content) =
            (bytes.first_chunk()?, bytes.last_chunk()?);
        let address = CellAddress {
            group: u32::from_le_bytes([*w0, *w1, *w2, *w3]),
            index: u16::from_le_bytes([*s0, *s1]),
        };
        Some(Self {
            volume: u16::from_le_bytes([*v0, *v1]),
            address,
            content: *content,
            digests: digests.to_vec(),
        })
    }
}

/// The content digest that the data blocks of a slot have in a target; `None` if it cannot be read
/// back.
pub(super) fn read_back(
    sink: &dyn BlockSink,
    size: VolumeSize,
    address: CellAddress,
    data: Bitmap8,
    buffer: &mut Vec<u8>,
) -> Result<Option<Digest>> {
    const BLOCK: usize = super::cell::BLOCK;
    // A short last block is hashed as if padded.
    buffer.clear();
    buffer.resize(data.count_ones() as usize * BLOCK, 0);
    for (bit, slice) in bits_of(data).zip(buffer.chunks_mut(BLOCK)) {
        let block = BlockIndex(address.first_block().0 + bit);
        if !sink.read_back(block.offset(), &mut slice[..size.block_len(block) as usize])? {
            return Ok(None);
        }
    }
    let inputs: Vec<&[u8]> = buffer.chunks(BLOCK).collect();
    let mut digests = vec![[0; 32]; inputs.len()];
    sha256::digest_many(&inputs, &mut digests);
    Ok(Some(sha256::digest(digests.as_flattened())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_comes_back_as_it_was() {
        let address = CellAddress { group: 70_000, index: 4095 };
        for digests in [vec![], vec![[6; 32], [7; 32]]] {
            let cell = WrittenCell { volume: 3, address, content: [5; 32], digests };
            assert_eq!(WrittenCell::decode(&cell.encode()), Some(cell.clone()));
            assert_eq!(WrittenCell::decode(&cell.encode()[1..]), None);
        }
    }
}
