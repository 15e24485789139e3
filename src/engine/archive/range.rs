//! Reads a range of a volume front to back, its cells in parallel.

use super::index::{CELL_BYTES, IndexedCell};
use super::volume::ArchiveVolume;
use crate::base::Result;
use crate::engine::pipeline::Pipeline;
use crate::engine::pool::BufferPool;
use crate::engine::{Context, Plan};

/// A part of a range, in the order of the volume.
#[derive(Debug)]
pub enum RangePart<'a> {
    /// Bytes of blocks that hold data.
    Data(&'a [u8]),
    /// So many zeros: absent blocks, fill blocks and blocks that were written as zeros.
    Zeros(u64),
}

/// The cells that a range of a volume needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeCells {
    /// Bytes of the archive: the cells.
    pub stored: u64,
    /// Bytes of the range in blocks that hold data.
    pub data: u64,
}

/// A job of a worker: blocks of a cell that lie in the range.
struct RangeJob {
    cell: IndexedCell,
    offset: u64,
    len: u64,
}

/// A piece of the range, in order.
enum RangePiece {
    Zeros(u64),
    Data { cell: IndexedCell, offset: u64, bytes: Vec<u8> },
}

impl ArchiveVolume {
    /// Finds the cells that `len` bytes from `offset` need, by the index alone.
    pub fn cells_of_range(&self, offset: u64, len: u64) -> Result<RangeCells> {
        let mut cells = RangeCells::default();
        self.for_each_part_of(offset, len, &mut |part| {
            if let Part::Data { cell, offset, len } = part {
                cells.stored += cell.len();
                let runs = cell.runs_in(offset, len);
                cells.data += runs.filter(|(data, _)| *data).map(|(_, len)| len).sum::<u64>();
            }
            Ok(())
        })?;
        Ok(cells)
    }

    /// Reads `len` bytes from `offset`, which lie within the volume, and calls `write` for one part
    /// after the other. The first damage ends it: all parts before were right. Reads the cells of
    /// the range and the indexes of its groups, and nothing else.
    pub fn read_range(
        &self,
        offset: u64,
        len: u64,
        context: Context<'_>,
        mut write: impl FnMut(RangePart<'_>) -> Result<()>,
    ) -> Result<()> {
        // One half for the parts, one for the cells that they are copied from.
        let plan = Plan { in_flight: context.plan.in_flight / 2, ..*context.plan };
        let volume = self.with_cell_cache(plan.in_flight);
        let pool = BufferPool::default();
        Pipeline::new(Context { plan: &plan, ..context }).run(
            |feed| {
                volume.for_each_part_of(offset, len, &mut |part| match part {
                    Part::Zeros(len) => feed.forward(RangePiece::Zeros(len)),
                    Part::Data { cell, offset, len } => {
                        let lease = feed.lease(volume.weight(&cell))?;
                        volume.prefetch_cell(&cell);
                        feed.work(RangeJob { cell, offset, len }, lease)
                    }
                })
            },
            || {
                let (volume, pool) = (&volume, &pool);
                Ok(move |job| {
                    let RangeJob { cell, offset, len } = job;
                    let mut bytes = pool.take();
                    bytes.resize(len as usize, 0);
                    volume.copy_from(&cell, offset, &mut bytes)?;
                    Ok(RangePiece::Data { cell, offset, bytes })
                })
            },
            |piece, lease| {
                match piece {
                    RangePiece::Zeros(len) => {
                        write(RangePart::Zeros(len))?;
                        context.advanced(len, 0);
                    }
                    RangePiece::Data { cell, offset, bytes } => {
                        let mut rest = bytes.as_slice();
                        for (holds_data, len) in cell.runs_in(offset, bytes.len() as u64) {
                            let (run, behind) = rest.split_at(len as usize);
                            rest = behind;
                            write(if holds_data {
                                RangePart::Data(run)
                            } else {
                                RangePart::Zeros(len)
                            })?;
                        }
                        context.advanced(bytes.len() as u64, cell.len());
                        pool.put(bytes);
                    }
                }
                drop(lease);
                Ok(())
            },
        )
    }

    /// Calls `found` for the parts of a range, ascending: one for each cell with data, one for all
    /// between two of them.
    fn for_each_part_of(
        &self,
        offset: u64,
        len: u64,
        found: &mut dyn FnMut(Part) -> Result<()>,
    ) -> Result<()> {
        self.check_range(offset, len)?;
        let (mut at, end) = (offset, offset + len);
        self.for_each_cell_of(offset, end, &mut |cell| {
            let first = cell.address.first_block().offset();
            let (start, stop) = (first.max(at), (first + CELL_BYTES).min(end));
            if start >= stop || !cell.has_data_in(start, stop - start) {
                return Ok(());
            }
            if start > at {
                found(Part::Zeros(start - at))?;
            }
            at = stop;
            found(Part::Data { cell, offset: start, len: stop - start })
        })?;
        if at < end { found(Part::Zeros(end - at)) } else { Ok(()) }
    }
}

enum Part {
    Zeros(u64),
    Data { cell: IndexedCell, offset: u64, len: u64 },
}
