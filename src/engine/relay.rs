//! Copies the bytes of an archive to a writer, and checks all of them on the way.
//!
//! Pieces are read in parallel and appended in order, each after it was compared with its digest:
//! the root commits to every byte of the archive before it, and what stands behind it is made
//! again or read twice. So exactly the checked bytes arrive. Frames are inflated, and their blocks
//! checked, only if the caller asks for it. Like a pack it can be continued: cells that an earlier
//! run appended, and that the writer still has, are neither read nor sent again.

use super::archive::Archive;
use super::archive::index::{IndexedCell, indexed_cells};
use super::archive::open::twice;
use super::cell::Depth;
use super::cell_reader::{CellReader, CellRun, is_full, longest_run};
use super::memory::IN_FLIGHT_FLOOR;
use super::pipeline::{Feed, Pipeline};
use super::pool::BufferPool;
use super::unpack::read_indexes;
use super::volume_totals::VolumeTotals;
use super::{CellLog, Cells, Context, Lease, MadeCell, Note};
use crate::base::{Error, ErrorKind, Result};
use crate::codec::sha256;
use crate::format::{CellEntry, CellFacts, Digest, FrameLog, MetaRole};
use crate::object::{ByteRanges, ObjectWriter};

/// A job of a worker.
enum RelayJob {
    /// Bytes with this digest. Bytes without one are read twice and compared, for want of anything
    /// better.
    Plain { offset: u64, len: u64, digest: Option<Digest> },
    /// Cells, and the log's entries of them.
    Cells { volume: u16, run: CellRun, earlier: Vec<Option<MadeCell>> },
}

/// A piece of the archive, in order.
enum RelayPiece {
    OpenVolume,
    Plain {
        offset: u64,
        bytes: Vec<u8>,
    },
    Cells(CheckedCells),
    /// A cell that an earlier run appended and the writer has.
    Reused(MadeCell),
    CloseGroup(u16, usize),
    CloseVolume(u16),
}

/// Cells that were read and checked.
struct CheckedCells {
    volume: u16,
    offset: u64,
    bytes: Vec<u8>,
    facts: Vec<CellFacts>,
    earlier: Vec<Option<MadeCell>>,
    /// Bytes of volume data in them.
    raw: u64,
}

/// Copies all bytes of `archive` to `writer`, which the caller commits, and checks cells as far as
/// `depth` says. The first damage ends it.
pub fn relay(
    archive: &Archive,
    writer: &mut dyn ObjectWriter,
    log: CellLog<'_, MadeCell>,
    depth: Depth,
    context: Context<'_>,
) -> Result<()> {
    let CellLog { earlier, note } = log;
    let reused = writer.stored();
    let located = |error: Error| {
        if error.kind() == ErrorKind::Corrupt {
            error.at("archive", archive.reader().name())
        } else {
            error
        }
    };
    // The index is checked as a whole before any byte of it is appended.
    let (findings, frames) = super::archive::check::check(archive)?;
    if let Some(error) = findings.into_iter().next() {
        return Err(error);
    }
    let pool = BufferPool::default();
    let mut collector = RelayCollector {
        archive,
        writer,
        note,
        pool: &pool,
        context,
        totals: VolumeTotals::default(),
        at: 0,
    };
    let relayed = Pipeline::new(context).run(
        |feed| {
            let longest = longest_run(depth, context.plan.in_flight);
            RelayFeeder { feed, archive, reused: &reused, longest, context }
                .run(earlier, frames.as_ref())
        },
        || {
            let mut worker = CellReader::new(depth)?;
            let pool = &pool;
            Ok(move |job| work(&mut worker, archive, pool, job))
        },
        |piece, lease| collector.collect(piece, lease),
    );
    relayed.map_err(located)?;
    if collector.at != archive.reader().len() {
        return Err(Error::internal("a part of the archive was not copied")
            .at("bytes", collector.at)
            .at("expected", archive.reader().len()));
    }
    Ok(())
}

/// Appends checked pieces to the writer, in order.
struct RelayCollector<'a> {
    archive: &'a Archive,
    writer: &'a mut dyn ObjectWriter,
    note: Note<'a, MadeCell>,
    pool: &'a BufferPool,
    context: Context<'a>,
    totals: VolumeTotals,
    /// Bytes of archive so far.
    at: u64,
}

impl RelayCollector<'_> {
    fn collect(&mut self, piece: RelayPiece, lease: Lease) -> Result<()> {
        match piece {
            RelayPiece::OpenVolume => self.totals = VolumeTotals::default(),
            RelayPiece::Plain { offset, bytes } => {
                debug_assert_eq!(offset, self.at, "pieces tile the archive");
                self.writer.append(&bytes)?;
                self.at += bytes.len() as u64;
                self.context.advanced(0, bytes.len() as u64);
            }
            RelayPiece::Cells(cells) => self.cells(cells)?,
            RelayPiece::Reused(made) => {
                self.totals.cell(&made.facts);
                self.writer.skip(made.len())?;
                self.at += made.len();
                self.context.reused(made.facts.raw_len.into(), made.len());
            }
            RelayPiece::CloseGroup(volume, group) => {
                let entry = &self.archive.root().groups_of(volume)[group];
                self.totals.close_group(self.archive, entry)?;
            }
            RelayPiece::CloseVolume(volume) => self.totals.close_volume(self.archive, volume)?,
        }
        drop(lease);
        Ok(())
    }

    fn cells(&mut self, cells: CheckedCells) -> Result<()> {
        let CheckedCells { volume, offset, bytes, facts, earlier, raw } = cells;
        for (facts, earlier) in facts.into_iter().zip(earlier) {
            self.totals.cell(&facts);
            let len = u64::from(facts.record_len()) + u64::from(facts.frame_len);
            if earlier.is_none() {
                (self.note)(&MadeCell { volume, offset: self.at, facts })?;
            }
            self.at += len;
        }
        debug_assert_eq!(offset + bytes.len() as u64, self.at, "pieces tile the archive");
        self.writer.append(&bytes)?;
        self.context.advanced(raw, bytes.len() as u64);
        self.pool.put(bytes);
        Ok(())
    }
}

/// Lists the pieces of the archive, in order.
struct RelayFeeder<'a, 'f> {
    feed: &'a mut Feed<'f, RelayJob, RelayPiece>,
    archive: &'a Archive,
    /// Bytes of the archive that the writer has from an earlier run.
    reused: &'a ByteRanges,
    /// Most bytes of cells that are one job.
    longest: u64,
    context: Context<'a>,
}

impl RelayFeeder<'_, '_> {
    fn run(mut self, earlier: Cells<'_, MadeCell>, frames: Option<&FrameLog>) -> Result<()> {
        let archive = self.archive;
        let mut earlier = earlier.peekable();
        self.meta(MetaRole::Prologue)?;
        for volume in 0..archive.root().manifest.volumes.len() as u16 {
            self.feed.forward(RelayPiece::OpenVolume)?;
            let mut damage = None;
            let (_, stored) =
                read_indexes(archive, volume, self.feed.budget(), self.context, &mut |error| {
                    damage.get_or_insert(error);
                    Ok(())
                })?;
            if let Some(error) = damage {
                return Err(error);
            }
            self.context.grew(stored);
            self.meta(MetaRole::Volume(volume))?;
            for (number, group) in archive.root().groups_of(volume).iter().enumerate() {
                archive.prefetch_indexes(volume, number);
                let mut run = Gathered { volume, cells: Vec::new(), earlier: Vec::new(), bytes: 0 };
                for cell in indexed_cells(archive.group_index(group)?, group) {
                    let position = (volume, cell.address, cell.offset);
                    let same = |made: &Result<MadeCell>| {
                        made.as_ref().map_or(true, |made| {
                            (made.volume, made.facts.address, made.offset) == position
                        })
                    };
                    let made = earlier.next_if(same).transpose()?;
                    match made {
                        // An entry of the log counts for a cell only if it agrees with the index.
                        Some(made)
                            if agrees(&made, &cell.entry)
                                && self.reused.contains(cell.offset, made.len()) =>
                        {
                            self.flush(&mut run)?;
                            self.feed.forward(RelayPiece::Reused(made))?;
                        }
                        made => {
                            if is_full(run.cells.len(), run.bytes + cell.len(), self.longest) {
                                self.flush(&mut run)?;
                            }
                            run.bytes += cell.len();
                            run.cells.push(cell);
                            run.earlier.push(made);
                        }
                    }
                }
                self.flush(&mut run)?;
                self.plain(group.index_offset(), group.index_len.into(), Some(group.index_digest))?;
                self.feed.forward(RelayPiece::CloseGroup(volume, number))?;
            }
            self.feed.forward(RelayPiece::CloseVolume(volume))?;
        }
        self.meta(MetaRole::End)?;
        let footer = archive.footer();
        self.plain(footer.root_offset, footer.root_len, Some(footer.root))?;
        let mut at = footer.root_offset + footer.root_len;
        for len in archive.extra_records() {
            self.plain(at, *len, None)?;
            at += len;
        }
        // Footer and seek table are under no digest, but both follow from the index: they are made
        // again, and equal to those that were compared with it.
        let table = frames.ok_or_else(|| Error::internal("an index was read and has no frames"))?;
        for bytes in std::iter::once(footer.encode()).chain(table.table()) {
            let lease = self.feed.lease(bytes.len() as u64)?;
            let offset = at;
            at += bytes.len() as u64;
            self.feed.forward_leased(RelayPiece::Plain { offset, bytes }, lease)?;
        }
        Ok(())
    }

    fn meta(&mut self, role: MetaRole) -> Result<()> {
        let archive = self.archive;
        archive.meta(role).try_for_each(|meta| self.plain(meta.offset, meta.len, Some(meta.digest)))
    }

    fn plain(&mut self, offset: u64, len: u64, digest: Option<Digest>) -> Result<()> {
        // The root record alone may be longer than the memory in flight. Its lease is cut then, as
        // it is the only piece of its kind.
        let lease = self.feed.lease(len.min(IN_FLIGHT_FLOOR))?;
        self.archive.reader().prefetch(offset, len);
        self.feed.work(RelayJob::Plain { offset, len, digest }, lease)
    }

    fn flush(&mut self, cells: &mut Gathered) -> Result<()> {
        let Some(first) = cells.cells.first() else { return Ok(()) };
        let lease = self.feed.lease(2 * cells.bytes)?;
        self.archive.reader().prefetch(first.offset, cells.bytes);
        cells.bytes = 0;
        let run = CellRun { cells: std::mem::take(&mut cells.cells) };
        let (volume, earlier) = (cells.volume, std::mem::take(&mut cells.earlier));
        self.feed.work(RelayJob::Cells { volume, run, earlier }, lease)
    }
}

/// Adjacent cells that are read together.
struct Gathered {
    volume: u16,
    cells: Vec<IndexedCell>,
    earlier: Vec<Option<MadeCell>>,
    bytes: u64,
}

fn agrees(made: &MadeCell, entry: &CellEntry) -> bool {
    let facts = &made.facts;
    (facts.present, facts.zero, facts.fill) == (entry.present, entry.zero, entry.fill)
        && facts.record_digest == entry.record_digest
        && made.len() == u64::from(entry.cell_len)
}

fn work(
    worker: &mut CellReader,
    archive: &Archive,
    pool: &BufferPool,
    job: RelayJob,
) -> Result<RelayPiece> {
    match job {
        RelayJob::Plain { offset, len, digest } => {
            let read = || -> Result<Vec<u8>> {
                let mut bytes = vec![0; len as usize];
                archive.reader().read_at(offset, &mut bytes)?;
                Ok(bytes)
            };
            let bytes = match digest {
                Some(digest) => twice(archive.reader(), || match read()? {
                    bytes if sha256::digest(&bytes) == digest => Ok(bytes),
                    _ => Err(Error::corrupt("a piece of the archive does not match its digest")
                        .at("offset", offset)),
                })?,
                None => {
                    let bytes = read()?;
                    archive.reader().drop_cache();
                    if read()? != bytes {
                        let differ = Error::new(
                            ErrorKind::Io,
                            "two reads of one piece of the archive gave different bytes",
                        );
                        return Err(differ.at("offset", offset));
                    }
                    bytes
                }
            };
            Ok(RelayPiece::Plain { offset, bytes })
        }
        RelayJob::Cells { volume, run, earlier } => {
            let offset = run.cells.first().map_or(0, |first| first.offset);
            let size = archive.volume_entry(volume).size;
            let raw = run
                .cells
                .iter()
                .map(|cell| size.cell_bytes(cell.address, cell.entry.present))
                .sum();
            let facts = worker
                .read(archive, volume, &run, None)?
                .into_iter()
                .map(|cell| cell.map(|cell| cell.facts))
                .collect::<Result<Vec<_>>>()?;
            let bytes = worker.take_bytes(pool.take());
            Ok(RelayPiece::Cells(CheckedCells { volume, offset, bytes, facts, earlier, raw }))
        }
    }
}
