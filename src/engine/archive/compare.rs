//! Compares a volume of an archive with a source, by states and digests: the data of the archive is
//! neither fetched nor inflated.

use super::index::IndexedCell;
use super::volume::ArchiveVolume;
use crate::base::{
    BLOCK_BYTES, Bitmap8, BlockIndex, BlockRange, CellAddress, Error, Result, bits_of,
};
use crate::codec::{sha256, zero};
use crate::engine::Context;
use crate::engine::pipeline::Pipeline;
use crate::engine::unpack::MAX_FINDINGS;
use crate::format::ZERO_BLOCK_DIGEST;
use crate::volume::BlockSource;

/// Least lease of a slot, whose digests and states take some memory too.
const LEAST_LEASE: u64 = 4096;

/// A slot that the archive or the source has blocks of.
struct CompareJob {
    address: CellAddress,
    cell: Option<IndexedCell>,
    /// Blocks that are written in the source.
    written: Bitmap8,
}

/// Compares states and bytes of all blocks with those of `source`, which has the same size. The
/// archive itself has been verified. Returns the differences, and the number of further ones.
pub fn compare_volume(
    volume: &ArchiveVolume,
    source: &dyn BlockSource,
    context: Context<'_>,
) -> Result<(Vec<Error>, u64)> {
    let located = |error: Error| error.at("snapshot", volume.snapshot());
    let map = source.block_map().map_err(located)?;
    let mut runs = Runs::default();
    context.grew(map.stored_bytes());
    Pipeline::new(context).run(
        |feed| {
            let mut add = |address, cell: Option<IndexedCell>, written: Bitmap8| {
                let both = cell.as_ref().map_or(0, |cell| cell.written() & written);
                let bytes = u64::from(both.count_ones()) * BLOCK_BYTES;
                let lease = feed.lease(bytes.max(LEAST_LEASE))?;
                if let Some(cell) = &cell {
                    volume.prefetch_record(cell);
                }
                for block in blocks(address, both) {
                    source.prefetch(block.offset(), source.size().block_len(block));
                }
                feed.work(CompareJob { address, cell, written }, lease)
            };
            let mut cells = map.cells().peekable();
            volume.for_each_cell(&mut |cell| {
                let address = cell.address;
                while let Some((before, bits)) = cells.next_if(|(next, _)| *next < address) {
                    add(before, None, bits.present)?;
                }
                let written = cells.next_if(|(next, _)| *next == address);
                add(address, Some(cell), written.map_or(0, |(_, bits)| bits.present))
            })?;
            cells.try_for_each(|(address, bits)| add(address, None, bits.present))
        },
        || {
            let mut buffer = vec![0; BLOCK_BYTES as usize];
            Ok(move |job| compare(volume, source, job, &mut buffer))
        },
        |(different, bytes): (Vec<BlockIndex>, u64), lease| {
            context.advanced(bytes, 0);
            for block in different {
                runs.add(block);
            }
            drop(lease);
            Ok(())
        },
    )?;
    source.check_unchanged().map_err(located)?;
    let differs = |blocks: &BlockRange| {
        located(Error::corrupt("blocks of the archive are not those of the source"))
            .at("blocks", blocks)
    };
    Ok((runs.listed.iter().map(differs).collect(), runs.more))
}

/// The blocks of a slot that differ, and how many bytes of the source were read for that.
fn compare(
    volume: &ArchiveVolume,
    source: &dyn BlockSource,
    job: CompareJob,
    buffer: &mut [u8],
) -> Result<(Vec<BlockIndex>, u64)> {
    let Some(cell) = &job.cell else {
        return Ok((blocks(job.address, job.written).collect(), 0));
    };
    let digests = volume.block_digests(cell)?;
    let mut digests = bits_of(cell.data()).zip(digests).peekable();
    let mut different: Vec<BlockIndex> = Vec::new();
    let mut bytes = 0;
    for bit in bits_of(cell.written() | job.written) {
        while digests.next_if(|(before, _)| *before < bit).is_some() {}
        let expected = digests.next_if(|(this, _)| *this == bit).map(|(_, digest)| digest);
        let block = BlockIndex(job.address.first_block().0 + bit);
        if cell.written() & job.written & 1 << bit == 0 {
            different.push(block);
            continue;
        }
        let len = source.size().block_len(block) as usize;
        let mut known = Vec::new();
        source
            .read_blocks(block.offset(), &mut buffer[..len], &mut known)
            .map_err(|error| error.at("snapshot", volume.snapshot()))?;
        buffer[len..].fill(0);
        bytes += len as u64;
        let digest = known.pop().unwrap_or_else(|| digest_of(buffer));
        if digest != expected.unwrap_or(ZERO_BLOCK_DIGEST) {
            different.push(block);
        }
    }
    Ok((different, bytes))
}

fn digest_of(block: &[u8]) -> [u8; 32] {
    if zero::is_zero(block) { ZERO_BLOCK_DIGEST } else { sha256::digest(block) }
}

fn blocks(address: CellAddress, bits: Bitmap8) -> impl Iterator<Item = BlockIndex> {
    bits_of(bits).map(move |bit| BlockIndex(address.first_block().0 + bit))
}

/// Blocks that differ, as runs; beyond the first [`MAX_FINDINGS`] runs only their number.
#[derive(Default)]
struct Runs {
    listed: Vec<BlockRange>,
    more: u64,
    /// The block after the last one that was added.
    end: Option<u32>,
}

impl Runs {
    fn add(&mut self, block: BlockIndex) {
        let continues = self.end.replace(block.0 + 1) == Some(block.0);
        let full = self.listed.len() >= MAX_FINDINGS;
        match self.listed.last_mut() {
            Some(last) if continues && self.more == 0 => last.count += 1,
            _ if continues => {}
            _ if full => self.more += 1,
            _ => self.listed.push(BlockRange { first: block, count: 1 }),
        }
    }
}
