//! Reads adjacent cells of an archive with one call, checks them, and delivers their blocks.

use super::Archive;
use super::archive::index::IndexedCell;
use super::cell::{
    CellOpener, Depth, StoredCell, check_form, check_frames, deliver, locate, read_record,
};
use crate::base::{BlockIndex, CELL_BLOCKS, Error, ErrorKind, Result, VolumeSize, bits_of};
use crate::format::layout::{DATA_FRAME_RAW, MAX_CELL};
use crate::format::{CellFacts, Digest};
use crate::volume::{BlockSink, Delivered};

/// Cells are read in runs of about this many bytes: one read call and, above all, frames enough
/// to be hashed in parallel.
pub(super) const RUN: u64 = DATA_FRAME_RAW as u64;
/// The most cells of a run.
pub(super) const RUN_CELLS: u64 = 16;

/// Cells that are adjacent in the archive.
pub(super) struct CellRun {
    pub(super) cells: Vec<IndexedCell>,
}

/// The least cells of a run whose frames are only hashed: digests of fewer messages than these are
/// computed at half the speed, and a frame that does not shrink is as long as a run.
const HASHED_TOGETHER: u64 = 3;

/// Whether a run of so many cells has no room for another, with which it would have `bytes`.
/// Zeros take no room in the archive but do in a volume: a run must not become a long job.
pub(super) fn is_full(cells: usize, bytes: u64, longest: u64) -> bool {
    bytes > longest || cells as u64 >= RUN_CELLS
}

/// Most bytes of a run of an operation with `in_flight` bytes of data in flight.
pub(super) fn longest_run(depth: Depth, in_flight: u64) -> u64 {
    match depth {
        Depth::Blocks => RUN,
        // Each job has twice its bytes, and several of them have to be in flight.
        Depth::Stored => (in_flight / 8).clamp(RUN, HASHED_TOGETHER * MAX_CELL as u64),
    }
}

/// A cell that matches its digests: its facts, and the digests of its data blocks.
pub(super) struct OpenedCell {
    pub(super) facts: CellFacts,
    pub(super) digests: Vec<Digest>,
}

impl OpenedCell {
    pub(super) fn delivered(&self) -> Delivered<'_> {
        let CellFacts { address, present, zero, fill, .. } = self.facts;
        Delivered::new(address, (present, zero, fill), &self.digests)
    }
}

/// Reads runs of cells, one at a time.
pub(super) struct CellReader {
    opener: CellOpener,
    /// How far cells are checked that are not delivered.
    depth: Depth,
    bytes: Vec<u8>,
}

impl CellReader {
    pub(super) fn new(depth: Depth) -> Result<Self> {
        Ok(Self { opener: CellOpener::new()?, depth, bytes: Vec::new() })
    }

    /// Bytes of the archive that were read last.
    pub(super) fn stored(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The buffer that cells are read into, for another use between two reads.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The bytes that were read last, in exchange for a buffer for the next read.
    pub(super) fn take_bytes(&mut self, next: Vec<u8>) -> Vec<u8> {
        std::mem::replace(&mut self.bytes, next)
    }

    /// Reads the cells of a run, checks them and delivers their blocks to `sink`. Each result is
    /// a good cell or damage. If a cell is damaged all are read once more, because a bit that
    /// flipped on the network is not damage.
    pub(super) fn read(
        &mut self,
        archive: &Archive,
        volume: u16,
        run: &CellRun,
        sink: Option<&dyn BlockSink>,
    ) -> Result<Vec<Result<OpenedCell>>> {
        let located = |error: Error| error.at("snapshot", &archive.volume_entry(volume).name);
        let start = run.cells.first().map_or(0, |first| first.offset);
        let stored: u64 = run.cells.iter().map(IndexedCell::len).sum();
        let mut again = false;
        loop {
            self.bytes.resize(stored as usize, 0);
            archive.reader().read_at(start, &mut self.bytes)?;
            let mut results = self.open(archive, volume, run, sink);
            if let Some(failed) = results.iter().position(|result| {
                result.as_ref().is_err_and(|error| error.kind() != ErrorKind::Corrupt)
            }) {
                return Err(results
                    .swap_remove(failed)
                    .map_or_else(located, |_| Error::internal("a cell failed and did not")));
            }
            if again || results.iter().all(Result::is_ok) {
                return Ok(results.into_iter().map(|result| result.map_err(located)).collect());
            }
            again = true;
            archive.reader().drop_cache();
        }
    }

    fn open(
        &mut self,
        archive: &Archive,
        volume: u16,
        run: &CellRun,
        sink: Option<&dyn BlockSink>,
    ) -> Vec<Result<OpenedCell>> {
        let size = archive.volume_entry(volume).size;
        let mut results: Vec<Result<OpenedCell>> = Vec::with_capacity(run.cells.len());
        let (mut read, mut cells) = (Vec::new(), Vec::with_capacity(run.cells.len()));
        let mut rest = self.bytes.as_slice();
        for (position, cell) in run.cells.iter().enumerate() {
            let (bytes, behind) = rest.split_at(cell.entry.cell_len as usize);
            rest = behind;
            let (record_bytes, frame) = bytes.split_at(cell.entry.record_len() as usize);
            match read_record(record_bytes, &cell.entry, cell.address, volume) {
                Ok(record) => {
                    let facts = CellFacts::new(&record, record_bytes);
                    let digests = record.block_digests.clone();
                    results.push(Ok(OpenedCell { facts, digests }));
                    read.push((position, cell));
                    cells.push(StoredCell { record, frame });
                }
                Err(error) => results.push(Err(locate(error, cell.address, cell.offset))),
            }
        }
        for (((position, at), cell), checked) in
            read.into_iter().zip(&cells).zip(check_frames(&cells))
        {
            let opened = checked.and_then(|()| match (sink, self.depth) {
                (Some(sink), _) => deliver(self.opener.open(cell, size)?, &cell.record, size, sink),
                (None, Depth::Blocks) => self.opener.open(cell, size).map(drop),
                (None, Depth::Stored) => check_form(cell, size),
            });
            if let Err(error) = opened {
                let is_damage = error.kind() == ErrorKind::Corrupt;
                results[position] =
                    Err(if is_damage { cell.locate(error, at.offset) } else { error });
            }
        }
        results
    }
}

/// The facts of a cell that is not read, because an earlier run wrote it: those of the index, and
/// the content digest that the run noted.
pub(super) fn indexed_facts(cell: &IndexedCell, size: VolumeSize, content: Digest) -> CellFacts {
    let IndexedCell { address, entry, .. } = cell;
    CellFacts {
        address: *address,
        frame_len: entry.frame_len(),
        raw_len: size.cell_bytes(*address, entry.present) as u32,
        present: entry.present,
        zero: entry.zero,
        fill: entry.fill,
        record_digest: entry.record_digest,
        content,
    }
}

/// Writes the zero blocks of a cell that was not read. Fill blocks stay absent.
pub(super) fn write_zeros(
    cell: &IndexedCell,
    size: VolumeSize,
    sink: &dyn BlockSink,
) -> Result<()> {
    for bit in bits_of(cell.entry.zero & !cell.entry.fill) {
        let block = BlockIndex(cell.address.first_block().0 + bit);
        sink.write_zeros(block.offset(), size.block_len(block))?;
    }
    Ok(())
}

const _: () = assert!(MAX_CELL as u64 <= 2 * RUN && CELL_BLOCKS == 8);
