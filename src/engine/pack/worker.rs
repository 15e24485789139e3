//! The workers of a pack: read the blocks of a slot, find zeros, hash, compress.

use super::super::cell::{BLOCK, blocks_of};
use super::super::pool::BufferPool;
use super::job::{CellPlan, PackJob, PackPiece, PackedCell, runs};
use crate::base::{Bitmap8, CellAddress, Result, VolumeSize, bits_of};
use crate::codec::zstd::Encoder;
use crate::codec::{sha256, zero};
use crate::format::layout::DATA_FRAME_RAW;
use crate::format::{CellBits, CellFacts, CellRecord, Digest};
use crate::volume::BlockSource;

pub(super) struct PackWorker<'a> {
    encoder: Encoder,
    raw: Vec<u8>,
    frame: Vec<u8>,
    pool: &'a BufferPool,
}

impl<'a> PackWorker<'a> {
    pub(super) fn new(level: i32, pool: &'a BufferPool) -> Result<Self> {
        Ok(Self {
            encoder: Encoder::new(level)?,
            raw: vec![0; DATA_FRAME_RAW],
            frame: Vec::new(),
            pool,
        })
    }

    pub(super) fn work(&mut self, job: PackJob) -> Result<PackPiece> {
        match job {
            PackJob::Meta { role, raw } => {
                self.encoder.encode(&raw, &mut self.frame)?;
                Ok(PackPiece::Meta {
                    role,
                    raw_len: raw.len() as u64,
                    digest: sha256::digest(&self.frame),
                    frame: self.frame.clone(),
                })
            }
            PackJob::Cell { source, cell, earlier } => {
                let (bytes, facts) = self.cell(source.as_ref(), &cell)?;
                let CellPlan { volume, ends_group, .. } = cell;
                Ok(PackPiece::Cell(PackedCell { volume, facts, bytes, earlier, ends_group }))
            }
        }
    }

    fn cell(&mut self, source: &dyn BlockSource, cell: &CellPlan) -> Result<(Vec<u8>, CellFacts)> {
        let CellPlan { volume, address, bits, .. } = *cell;
        let size = source.size();
        let raw_len = size.cell_bytes(address, bits.present) as usize;
        let known = self
            .read(source, address, bits)
            .map_err(|error| error.at("blocks", address.blocks()))?;
        let raw = &mut self.raw[..raw_len];
        let zero = zero_blocks(raw, bits.present, size, address);
        self.encoder.encode(raw, &mut self.frame)?;
        let (frame_digest, block_digests) =
            self.digest(raw_len, bits.present & !zero, bits, &known, (size, address));
        let record = CellRecord {
            volume,
            address,
            frame_len: self.frame.len() as u32,
            raw_len: raw_len as u32,
            present: bits.present,
            zero,
            fill: bits.fill,
            frame_digest,
            block_digests,
        };
        let encoded = record.encode();
        let facts = CellFacts::new(&record, &encoded);
        let mut bytes = self.pool.take();
        bytes.clear();
        bytes.reserve_exact(encoded.len() + self.frame.len());
        bytes.extend_from_slice(&encoded);
        bytes.extend_from_slice(&self.frame);
        Ok((bytes, facts))
    }

    /// Reads the present blocks of a slot to the front of `raw`, one read for each run; fill blocks
    /// become zeros. Returns the digests of the blocks that were read, or none if the source has
    /// none of them.
    fn read(
        &mut self,
        source: &dyn BlockSource,
        address: CellAddress,
        bits: CellBits,
    ) -> Result<Vec<Digest>> {
        let size = source.size();
        let mut known = Vec::new();
        let mut at = 0;
        for run in runs(bits, size, address) {
            let target = &mut self.raw[at..at + run.len];
            at += run.len;
            if run.fill {
                target.fill(0);
            } else {
                source.read_blocks(run.offset, target, &mut known)?;
            }
        }
        Ok(known)
    }

    /// The digests of the frame and of the data blocks, computed together: they are independent, so
    /// they fill the vector registers of the SHA-256 kernel. Digests that are `known` are not
    /// computed again.
    fn digest(
        &self,
        raw_len: usize,
        data: Bitmap8,
        bits: CellBits,
        known: &[Digest],
        (size, address): (VolumeSize, CellAddress),
    ) -> (Digest, Vec<Digest>) {
        let present = bits.present;
        let read = present & !bits.fill;
        if !known.is_empty() && known.len() == read.count_ones() as usize {
            let blocks = bits_of(read)
                .zip(known)
                .filter(|(bit, _)| data >> bit & 1 == 1)
                .map(|(_, digest)| *digest);
            return (sha256::digest(&self.frame), blocks.collect());
        }
        let raw = &self.raw[..raw_len];
        // A short last block is hashed as if padded. It is the last of its volume, so the copy is
        // rare.
        let mut padded = Vec::new();
        let short = blocks_of(raw, present, size, address)
            .find(|(bit, block)| data >> bit & 1 == 1 && block.len() < BLOCK);
        if let Some((_, block)) = short {
            padded.extend_from_slice(block);
            padded.resize(BLOCK, 0);
        }
        let mut inputs: Vec<&[u8]> = Vec::with_capacity(9);
        inputs.push(&self.frame);
        for (bit, block) in blocks_of(raw, present, size, address) {
            if data >> bit & 1 == 1 {
                inputs.push(if block.len() < BLOCK { &padded } else { block });
            }
        }
        let mut digests = vec![[0; 32]; inputs.len()];
        sha256::digest_many(&inputs, &mut digests);
        let blocks = digests.split_off(1);
        (digests[0], blocks)
    }
}

fn zero_blocks(raw: &[u8], present: Bitmap8, size: VolumeSize, address: CellAddress) -> Bitmap8 {
    blocks_of(raw, present, size, address)
        .filter(|(_, block)| zero::is_zero(block))
        .fold(0, |bits, (bit, _)| bits | 1 << bit)
}
