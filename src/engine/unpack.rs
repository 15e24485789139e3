//! Writes the volumes of an archive to sinks, or only checks them, the cells of a volume in
//! parallel.
//!
//! A restore can be continued: cells that an earlier run noted are read back from their target, and
//! fetched again only if they are not what they should be.
//!
//! Every cell goes through the whole chain of digests; what the cells add up to is compared with
//! the manifest at the end. Cells of zeros alone are read as well, although the index says all
//! about them: stock tools write the bytes of their frames, so these have to be zeros.

use std::sync::Arc;

use super::archive::index::{IndexedCell, add_to_map, indexed_cells};
use super::archive::{Archive, ArchiveVolume};
use super::cell::Depth;
use super::cell_reader::{
    CellReader, CellRun, OpenedCell, indexed_facts, is_full, longest_run, write_zeros,
};
use super::memory::IN_FLIGHT_FLOOR;
use super::pipeline::{Feed, Pipeline};
use super::volume_totals::VolumeTotals;
use super::written::{WrittenCell, read_back};
use super::{Budget, CellLog, Cells, Context, Lease};
use crate::base::{Error, ErrorKind, Result};
use crate::format::{BlockMap, CellFacts};
use crate::volume::{BlockSink, BlockSource};

/// More damage than this is counted and not listed.
pub(super) const MAX_FINDINGS: usize = 1000;

/// Which cells a check reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Selection {
    /// All.
    All,
    /// Each with this probability, chosen by this seed.
    Sample {
        /// From 0 to 1.
        fraction: f64,
        /// Start of the random sequence.
        seed: u64,
    },
}

/// Result of a check.
#[derive(Debug, Default)]
pub struct CheckReport {
    /// Blocks in the cells that were read.
    pub blocks: u64,
    /// Cells that were read.
    pub cells: u64,
    /// The damage, in the order of the archive.
    pub findings: Vec<Error>,
    /// Damage beyond what is listed.
    pub more_findings: u64,
}

impl CheckReport {
    /// Lists damage, or counts it if the list is full; other errors end the check.
    fn add(&mut self, error: Error, context: Context<'_>) -> Result<()> {
        if error.kind() != ErrorKind::Corrupt {
            return Err(error);
        }
        context.damage(&error);
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(error);
        } else {
            self.more_findings += 1;
        }
        Ok(())
    }
}

/// The cells that an earlier run wrote, and a hook for each one that this run wrote.
pub type RestoreLog<'a> = CellLog<'a, WrittenCell>;

/// A job of a worker.
enum UnpackJob {
    Cells(CellRun),
    /// A cell that an earlier run wrote, and its note.
    Written {
        run: CellRun,
        written: WrittenCell,
    },
}

/// A piece of a volume, in the order of the archive.
enum UnpackPiece {
    Damage(Error),
    Cells { results: Vec<Result<OpenedCell>>, bytes: u64, stored: u64 },
    Reused { cell: OpenedCell, bytes: u64, stored: u64 },
    CloseGroup(usize),
}

/// Writes a volume to `sink`. The first damage ends it.
pub fn unpack_volume(
    volume: &ArchiveVolume,
    sink: Arc<dyn BlockSink>,
    log: RestoreLog<'_>,
    context: Context<'_>,
) -> Result<()> {
    let RestoreLog { earlier, mut note } = log;
    let archive = volume.archive();
    let groups = archive.root().groups_of(volume.index());
    let mut totals = VolumeTotals::default();
    let target = sink.clone();
    let collect = |piece, lease| match piece {
        UnpackPiece::Damage(error) => Err(error),
        UnpackPiece::Reused { cell, bytes, stored } => {
            totals.cell(&cell.facts);
            sink.confirm(&cell.delivered())?;
            context.reused(bytes, stored);
            Ok(())
        }
        UnpackPiece::Cells { results, bytes, stored } => {
            // The blocks are delivered; only their confirmation may be open.
            drop(lease);
            for cell in results {
                let cell = cell?;
                totals.cell(&cell.facts);
                sink.confirm(&cell.delivered())?;
                let digests = if sink.keeps_confirmed() { cell.digests } else { Vec::new() };
                let CellFacts { address, content, .. } = cell.facts;
                note(&WrittenCell { volume: volume.index(), address, content, digests })?;
            }
            context.advanced(bytes, stored);
            Ok(())
        }
        UnpackPiece::CloseGroup(number) => totals.close_group(archive, &groups[number]),
    };
    let choice = Choice::Restore(target, earlier);
    walk(volume, choice, Depth::Blocks, context, collect)
        .and_then(|()| totals.close_volume(archive, volume.index()))
        .map_err(|error| in_archive(archive, error))
}

/// Checks the volumes of an archive, one after the other, so far as `depth` says. Damage is
/// collected.
pub fn check_volumes(
    archive: &Archive,
    selection: Selection,
    depth: Depth,
    context: Context<'_>,
) -> Result<CheckReport> {
    let mut report = CheckReport::default();
    let mut random = Random(match selection {
        Selection::All => 0,
        Selection::Sample { seed, .. } => seed,
    });
    let sampled = matches!(selection, Selection::Sample { .. });
    for volume in archive.volumes() {
        let groups = archive.root().groups_of(volume.index());
        let mut totals = VolumeTotals::default();
        let collect = |piece, _lease: Lease| match piece {
            UnpackPiece::Damage(error) => {
                totals.damaged = true;
                report.add(error, context)
            }
            UnpackPiece::Cells { results, bytes, stored } => {
                report.cells += results.len() as u64;
                for result in results {
                    match result {
                        Ok(cell) => {
                            report.blocks += u64::from(cell.facts.present.count_ones());
                            totals.cell(&cell.facts);
                        }
                        Err(error) => {
                            totals.damaged = true;
                            report.add(error, context)?;
                        }
                    }
                }
                context.advanced(bytes, stored);
                Ok(())
            }
            UnpackPiece::CloseGroup(number) if !sampled => totals
                .close_group(archive, &groups[number])
                .or_else(|error| report.add(error, context)),
            UnpackPiece::CloseGroup(_) => Ok(()),
            UnpackPiece::Reused { .. } => Err(Error::internal("a check reused a cell")),
        };
        let choice = match selection {
            Selection::All => Choice::All,
            Selection::Sample { fraction, .. } => Choice::Sample(fraction, &mut random),
        };
        walk(&volume, choice, depth, context, collect)
            .map_err(|error| in_archive(archive, error))?;
        if !sampled {
            totals
                .close_volume(archive, volume.index())
                .or_else(|error| report.add(error, context))?;
        }
    }
    Ok(report)
}

fn in_archive(archive: &Archive, error: Error) -> Error {
    match error.kind() {
        ErrorKind::Corrupt => error.at("archive", archive.reader().name()),
        _ => error,
    }
}

/// The cells that are read.
enum Choice<'a> {
    /// All, for this sink, without those that an earlier run wrote.
    Restore(Arc<dyn BlockSink>, Cells<'a, WrittenCell>),
    All,
    Sample(f64, &'a mut Random),
}

/// Runs the pipeline over the cells of a volume; `collect` gets its pieces in the order of the
/// archive.
fn walk(
    volume: &ArchiveVolume,
    choice: Choice<'_>,
    depth: Depth,
    context: Context<'_>,
    collect: impl FnMut(UnpackPiece, Lease) -> Result<()>,
) -> Result<()> {
    let sink = match &choice {
        Choice::Restore(sink, _) => Some(sink.clone()),
        Choice::All | Choice::Sample(..) => None,
    };
    let longest = longest_run(depth, context.plan.in_flight);
    Pipeline::new(context).run(
        |feed| {
            let (cells, bytes) = (Vec::new(), 0);
            UnpackFeeder { feed, volume, context, longest, cells, bytes }.run(choice)
        },
        || {
            let mut reader = CellReader::new(depth)?;
            let sink = sink.as_deref();
            Ok(move |job| match job {
                UnpackJob::Cells(run) => unpack(&mut reader, volume, &run, sink),
                UnpackJob::Written { run, written } => {
                    reuse(&mut reader, volume, &run, sink, written)
                }
            })
        },
        collect,
    )
}

/// Reads all indexes of a volume, and checks that its tar header says the same, so that a reader of
/// the index alone and stock tools see one disk. Returns which indexes are readable, and the stored
/// bytes of the volume. The indexes are read again with the cells: those of a full volume of 64 TiB
/// would take 700 MiB of memory.
pub(super) fn read_indexes(
    archive: &Archive,
    volume: u16,
    budget: &Budget,
    context: Context<'_>,
    damage: &mut dyn FnMut(Error) -> Result<()>,
) -> Result<(Vec<bool>, u64)> {
    let entry = archive.volume_entry(volume);
    let groups = archive.root().groups_of(volume);
    let memory = groups.len() as u64 * BlockMap::BITMAP_MEMORY * if entry.fill > 0 { 2 } else { 1 };
    let _lease = budget
        .reserve(memory, IN_FLIGHT_FLOOR, context.cancel)
        .map_err(|error| error.at("snapshot", &entry.name))?;
    let mut map = BlockMap::new(entry.size);
    let mut readable = Vec::with_capacity(groups.len());
    for (number, group) in groups.iter().enumerate() {
        archive.prefetch_indexes(volume, number);
        match archive.group_index(group) {
            Ok(index) => {
                add_to_map(&index, &mut map);
                readable.push(true);
            }
            Err(error) => {
                damage(error)?;
                readable.push(false);
            }
        }
    }
    if readable.iter().all(|readable| *readable)
        && let Err(error) = archive.check_header(volume, &map)
    {
        damage(error)?;
    }
    Ok((readable, map.stored_bytes()))
}

/// Lists the cells of a volume, in order.
struct UnpackFeeder<'a, 'f> {
    feed: &'a mut Feed<'f, UnpackJob, UnpackPiece>,
    volume: &'a ArchiveVolume,
    context: Context<'a>,
    /// Most bytes of a job.
    longest: u64,
    /// Adjacent cells that will be one job.
    cells: Vec<IndexedCell>,
    bytes: u64,
}

impl UnpackFeeder<'_, '_> {
    fn run(mut self, mut choice: Choice<'_>) -> Result<()> {
        let (archive, volume) = (self.volume.archive().clone(), self.volume.index());
        let budget = self.feed.budget().clone();
        let (readable, stored) =
            read_indexes(&archive, volume, &budget, self.context, &mut |error| {
                self.feed.forward(UnpackPiece::Damage(error))
            })?;
        let share = if let Choice::Sample(fraction, _) = choice { fraction } else { 1.0 };
        self.context.grew((stored as f64 * share) as u64);
        let groups = archive.root().groups_of(volume);
        // However small the share, a volume with cells is not called good without a look at one of
        // them.
        let cells: u64 = groups.iter().map(|group| u64::from(group.entries)).sum();
        let chosen = match &mut choice {
            Choice::Sample(_, random) => random.next() % cells.max(1),
            Choice::Restore(..) | Choice::All => 0,
        };
        let mut count = 0;
        let mut earlier = match &mut choice {
            Choice::Restore(_, earlier) => std::mem::replace(earlier, Box::new(std::iter::empty())),
            Choice::All | Choice::Sample(..) => Box::new(std::iter::empty()),
        }
        .peekable();
        for (number, group) in groups.iter().enumerate() {
            if !readable[number] {
                continue;
            }
            archive.prefetch_indexes(volume, number);
            for cell in indexed_cells(archive.group_index(group)?, group) {
                count += 1;
                if let Choice::Sample(fraction, random) = &mut choice
                    && random.fraction() >= *fraction
                    && count != chosen + 1
                {
                    continue;
                }
                let same = |written: &Result<WrittenCell>| {
                    written.as_ref().map_or(true, |written| {
                        (written.volume, written.address) == (volume, cell.address)
                    })
                };
                match earlier.next_if(same).transpose()? {
                    Some(written) => self.written(cell, written)?,
                    None => self.add(cell)?,
                }
            }
            self.flush()?;
            self.feed.forward(UnpackPiece::CloseGroup(number))?;
        }
        Ok(())
    }

    fn add(&mut self, cell: IndexedCell) -> Result<()> {
        let adjacent = self.cells.last().is_none_or(|last| last.end() == cell.offset);
        if !adjacent || is_full(self.cells.len(), self.bytes + cell.len(), self.longest) {
            self.flush()?;
        }
        self.bytes += cell.len();
        self.cells.push(cell);
        Ok(())
    }

    /// A cell that an earlier run wrote is a job of its own.
    fn written(&mut self, cell: IndexedCell, written: WrittenCell) -> Result<()> {
        self.flush()?;
        let run = CellRun { cells: vec![cell] };
        self.feed.work(UnpackJob::Written { run, written }, Lease::none())
    }

    fn flush(&mut self) -> Result<()> {
        let Some(first) = self.cells.first() else { return Ok(()) };
        let lease = self.feed.lease(self.bytes.max(4096))?;
        // There is memory for it now; a remote archive begins to send.
        self.volume.archive().reader().prefetch(first.offset, self.bytes);
        self.bytes = 0;
        let run = CellRun { cells: std::mem::take(&mut self.cells) };
        self.feed.work(UnpackJob::Cells(run), lease)
    }
}

/// Reads a run of cells, and writes their blocks to `sink`.
fn unpack(
    reader: &mut CellReader,
    volume: &ArchiveVolume,
    run: &CellRun,
    sink: Option<&dyn BlockSink>,
) -> Result<UnpackPiece> {
    let size = volume.size();
    let lengths = run.cells.iter().map(|cell| size.cell_bytes(cell.address, cell.entry.present));
    let bytes = lengths.sum();
    let results = reader.read(volume.archive(), volume.index(), run, sink)?;
    Ok(UnpackPiece::Cells { results, bytes, stored: reader.stored() })
}

/// Checks that a cell is where an earlier run wrote it; if not it is restored like any other.
fn reuse(
    reader: &mut CellReader,
    volume: &ArchiveVolume,
    run: &CellRun,
    sink: Option<&dyn BlockSink>,
    written: WrittenCell,
) -> Result<UnpackPiece> {
    let (Some(target), [cell]) = (sink, run.cells.as_slice()) else {
        return Err(Error::internal("a cell was written and has no target"));
    };
    let (size, data) = (volume.size(), cell.data());
    if target.keeps_confirmed() {
        if !written.fits(data) {
            return unpack(reader, volume, run, sink);
        }
    } else {
        let located = |error: Error| error.at("snapshot", volume.snapshot());
        let found = read_back(target, size, cell.address, data, reader.buffer());
        if found.map_err(located)? != Some(written.content) {
            return unpack(reader, volume, run, sink);
        }
        // Whether these were written cannot be seen in the data that was read back.
        write_zeros(cell, size, target)?;
    }
    Ok(UnpackPiece::Reused {
        cell: OpenedCell {
            facts: indexed_facts(cell, size, written.content),
            digests: written.digests,
        },
        bytes: size.cell_bytes(cell.address, cell.entry.present),
        stored: cell.len(),
    })
}

/// A random sequence (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 to 1, 1 excluded.
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}
