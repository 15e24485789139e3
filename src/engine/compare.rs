//! Compares a volume of an archive with the volume it was made from, by digests: the archive's data
//! is not inflated again.

use super::unpack::MAX_FINDINGS;
use super::{Archive, Budget, Context, Lease, run_ordered};
use crate::base::{
    BLOCK_BYTES, Bitmap8, BlockIndex, BlockRange, CELL_BLOCKS, CellAddress, Error, Event, Result,
    bits_of,
};
use crate::codec::{sha256, zero};
use crate::format::layout::{DATA_FRAME_RAW, MAX_CELL_RECORD};
use crate::format::{BlockMap, CellEntry, CellRecord};
use crate::volume::BlockSource;

struct Job {
    address: CellAddress,
    /// The cell in the archive and where it stands, if there is one.
    cell: Option<(CellEntry, u64)>,
    /// Blocks that are written in the source.
    written: Bitmap8,
    lease: Lease,
}

/// Compares states and bytes of all blocks with those of `source`, which has the same size. The
/// archive itself has been verified. Returns what differs, and how much more does than is listed.
pub fn compare_volume(
    archive: &Archive,
    volume: u16,
    source: &dyn BlockSource,
    context: Context<'_>,
) -> Result<(Vec<Error>, u64)> {
    let entry = archive.volume_entry(volume);
    let map = source.block_map().map_err(|error| error.at("snapshot", &entry.name))?;
    let budget = Budget::new(context.plan.in_flight);
    let mut runs = Runs::default();
    context.observer.note(&Event::Grew { bytes: map.stored_bytes() });
    run_ordered(
        context.plan.threads,
        context.cancel,
        |emit| feed(archive, volume, source, &map, &budget, context, emit),
        || {
            let mut buffer = vec![0; DATA_FRAME_RAW];
            Ok(move |job| compare(archive, volume, source, job, &mut buffer))
        },
        |(different, bytes, lease): (Vec<u32>, u64, Lease)| {
            drop(lease);
            context.observer.note(&Event::Advanced { bytes, stored: 0 });
            different.into_iter().for_each(|block| runs.add(block));
            Ok(())
        },
    )?;
    source.check_unchanged().map_err(|error| error.at("snapshot", &entry.name))?;
    let differs = |blocks: &BlockRange| {
        Error::corrupt("blocks of the archive are not those of the source")
            .at("snapshot", &entry.name)
            .at("blocks", blocks)
    };
    Ok((runs.listed.iter().map(differs).collect(), runs.more))
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
    fn add(&mut self, block: u32) {
        let continues = self.end.replace(block + 1) == Some(block);
        let full = self.listed.len() >= MAX_FINDINGS;
        match self.listed.last_mut() {
            Some(last) if continues && self.more == 0 => last.count += 1,
            _ if continues => {}
            _ if full => self.more += 1,
            _ => self.listed.push(BlockRange { first: BlockIndex(block), count: 1 }),
        }
    }
}

fn feed(
    archive: &Archive,
    volume: u16,
    volume_source: &dyn BlockSource,
    map: &BlockMap,
    budget: &Budget,
    context: Context<'_>,
    emit: &mut dyn FnMut(Job) -> Result<()>,
) -> Result<()> {
    let mut source = map.cells().peekable();
    let size = volume_source.size();
    for window in archive.root().groups_of(volume) {
        let mut offset = window.offset;
        for slot in archive.group_index(window)?.cells {
            let address = CellAddress { group: window.group, index: slot.index };
            while let Some((before, bits)) = source.next_if(|(next, _)| *next < address) {
                emit(Job {
                    address: before,
                    cell: None,
                    written: bits.present,
                    lease: budget.lease(4096, context.cancel)?,
                })?;
            }
            let written =
                source.next_if(|(next, _)| *next == address).map_or(0, |(_, bits)| bits.present);
            let at = offset;
            offset += u64::from(slot.cell_len);
            let both = slot.present & !slot.fill & written;
            let lease = budget
                .lease((u64::from(both.count_ones()) * BLOCK_BYTES).max(4096), context.cancel)?;
            archive.reader().prefetch(at, slot.record_len().into());
            for bit in bits_of(both) {
                let block = BlockIndex(address.first_block().0 + bit);
                volume_source.prefetch(block.offset(), size.block_len(block));
            }
            emit(Job { address, cell: Some((slot, at)), written, lease })?;
        }
    }
    source.try_for_each(|(address, bits)| {
        emit(Job {
            address,
            cell: None,
            written: bits.present,
            lease: budget.lease(4096, context.cancel)?,
        })
    })
}

/// The blocks of a slot that differ.
fn compare(
    archive: &Archive,
    volume: u16,
    source: &dyn BlockSource,
    job: Job,
    buffer: &mut [u8],
) -> Result<(Vec<u32>, u64, Lease)> {
    let first = job.address.first_block().0;
    let size = source.size();
    let Some((slot, offset)) = job.cell else {
        return Ok((bits_of(job.written).map(|bit| first + bit).collect(), 0, job.lease));
    };
    let mut record = [0; MAX_CELL_RECORD];
    let record = &mut record[..slot.record_len() as usize];
    archive.reader().read_at(offset, record)?;
    if sha256::digest(record) != slot.record_digest {
        return Err(
            Error::corrupt("the archive changed while it was compared").at("offset", offset)
        );
    }
    let record = CellRecord::parse(record)?;
    let stored = slot.present & !slot.fill;
    let mut different = stored ^ job.written;
    let mut digests = record.block_digests.iter();
    let mut bytes = 0;
    for bit in 0..CELL_BLOCKS {
        let expected =
            if record.present & !record.zero & 1 << bit != 0 { digests.next() } else { None };
        if stored & job.written & 1 << bit == 0 {
            continue;
        }
        let block = BlockIndex(first + bit);
        let len = size.block_len(block) as usize;
        let data = &mut buffer[..BLOCK_BYTES as usize];
        let mut known = Vec::new();
        source
            .read_blocks(block.offset(), &mut data[..len], &mut known)
            .map_err(|error| error.at("snapshot", &archive.volume_entry(volume).name))?;
        data[len..].fill(0);
        bytes += len as u64;
        let same = match expected {
            Some(digest) => known.pop().unwrap_or_else(|| sha256::digest(data)) == *digest,
            None => zero::is_zero(data),
        };
        different |= u8::from(!same) << bit;
    }
    Ok((bits_of(different).map(|bit| first + bit).collect(), bytes, job.lease))
}
