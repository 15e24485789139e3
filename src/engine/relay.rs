//! Carries an archive from one place to another, byte by byte, and checks all of it on the way.
//!
//! Pieces are read side by side and appended in order, each after it was checked: cells down to
//! their blocks, everything else against the digest that the index has of it. So what arrives is
//! what was checked. Like a pack it can be continued: cells that an earlier run appended, and that
//! are still there, are neither read nor sent again.

use super::archive::Archive;
use super::archive::index::{IndexedCell, indexed_cells};
use super::archive::open::twice;
use super::cell_reader::{CellReader, CellRun, is_full};
use super::memory::IN_FLIGHT_FLOOR;
use super::pool::Pool;
use super::unpack::read_indexes;
use super::volume_totals::VolumeTotals;
use super::{Budget, CellLog, Cells, Context, Lease, MadeCell, run_ordered};
use crate::base::{Error, ErrorKind, Event, Result};
use crate::codec::sha256;
use crate::format::{CellEntry, CellFacts, Digest, FrameLog, MetaRole};
use crate::object::{ByteRanges, ObjectWriter};

enum Job {
    OpenVolume,
    /// Bytes that should have this digest. Those without one are read twice: it is all that can be
    /// done for them.
    Plain {
        offset: u64,
        len: u64,
        digest: Option<Digest>,
        lease: Lease,
    },
    /// Bytes that need not be read.
    Given {
        offset: u64,
        bytes: Vec<u8>,
        lease: Lease,
    },
    Cells {
        volume: u16,
        run: CellRun,
        earlier: Vec<Option<MadeCell>>,
        lease: Lease,
    },
    /// A cell that is there already.
    Known(MadeCell),
    CloseGroup(u16, usize),
    CloseVolume(u16),
}

enum Piece {
    OpenVolume,
    Plain {
        offset: u64,
        bytes: Vec<u8>,
        lease: Lease,
    },
    Cells {
        volume: u16,
        offset: u64,
        bytes: Vec<u8>,
        facts: Vec<CellFacts>,
        earlier: Vec<Option<MadeCell>>,
        raw: u64,
        lease: Lease,
    },
    Known(MadeCell),
    CloseGroup(u16, usize),
    CloseVolume(u16),
}

/// Copies all bytes of `archive` to `writer`, which the caller commits. The first damage ends it.
pub fn relay(
    archive: &Archive,
    writer: &mut dyn ObjectWriter,
    log: CellLog<'_, MadeCell>,
    context: Context<'_>,
) -> Result<()> {
    let CellLog { earlier, mut note } = log;
    let held = writer.stored();
    let budget = Budget::new(context.plan.in_flight);
    let located = |error: Error| {
        if error.kind() == ErrorKind::Corrupt {
            error.at("archive", archive.reader().name())
        } else {
            error
        }
    };
    // What the whole index says of itself comes first: later it could not be stopped any more.
    let (findings, frames) = super::archive::check::check(archive)?;
    if let Some(error) = findings.into_iter().next() {
        return Err(error);
    }
    let pool = Pool::default();
    let mut totals = VolumeTotals::default();
    let mut at = 0;
    let relayed = run_ordered(
        context.plan.threads,
        context.cancel,
        |emit| {
            Feeder { archive, budget: &budget, context, earlier, held: &held, emit }
                .feed(frames.as_ref())
        },
        || {
            let mut worker = CellReader::new()?;
            let pool = &pool;
            Ok(move |job| work(&mut worker, archive, pool, job))
        },
        |piece| {
            match piece {
                Piece::OpenVolume => totals = VolumeTotals::default(),
                Piece::Plain { offset, bytes, lease } => {
                    debug_assert_eq!(offset, at, "pieces tile the archive");
                    writer.append(&bytes)?;
                    at += bytes.len() as u64;
                    context
                        .observer
                        .note(&Event::Advanced { bytes: 0, stored: bytes.len() as u64 });
                    drop(lease);
                }
                Piece::Cells { volume, offset, bytes, facts, earlier, raw, lease } => {
                    for (facts, earlier) in facts.into_iter().zip(earlier) {
                        totals.cell(&facts);
                        if earlier.is_none() {
                            note(&MadeCell { volume, offset: at, facts: facts.clone() })?;
                        }
                        at += u64::from(facts.record_len()) + u64::from(facts.frame_len);
                    }
                    debug_assert_eq!(offset + bytes.len() as u64, at, "pieces tile the archive");
                    writer.append(&bytes)?;
                    context
                        .observer
                        .note(&Event::Advanced { bytes: raw, stored: bytes.len() as u64 });
                    pool.put(bytes);
                    drop(lease);
                }
                Piece::Known(made) => {
                    totals.cell(&made.facts);
                    writer.skip(made.len())?;
                    at += made.len();
                    context.observer.note(&Event::Reused {
                        bytes: made.facts.raw_len.into(),
                        stored: made.len(),
                    });
                }
                Piece::CloseGroup(volume, group) => {
                    totals.close_group(archive, &archive.root().groups_of(volume)[group])?
                }
                Piece::CloseVolume(volume) => totals.close_volume(archive, volume)?,
            }
            Ok(())
        },
    );
    relayed.map_err(located)?;
    if at != archive.reader().len() {
        return Err(Error::internal("a part of the archive was not carried")
            .at("bytes", at)
            .at("expected", archive.reader().len()));
    }
    Ok(())
}

struct Feeder<'a, 'e> {
    archive: &'a Archive,
    budget: &'a Budget,
    context: Context<'a>,
    earlier: Cells<'a, MadeCell>,
    held: &'a ByteRanges,
    emit: &'e mut dyn FnMut(Job) -> Result<()>,
}

impl Feeder<'_, '_> {
    fn feed(mut self, frames: Option<&FrameLog>) -> Result<()> {
        let archive = self.archive;
        let mut earlier =
            std::mem::replace(&mut self.earlier, Box::new(std::iter::empty())).peekable();
        self.meta(MetaRole::Prologue)?;
        for volume in 0..archive.root().manifest.volumes.len() as u16 {
            (self.emit)(Job::OpenVolume)?;
            let mut damage = None;
            let (_, stored) =
                read_indexes(archive, volume, self.budget, self.context, &mut |error| {
                    damage.get_or_insert(error);
                    Ok(())
                })?;
            if let Some(error) = damage {
                return Err(error);
            }
            self.context.observer.note(&Event::Grew { bytes: stored });
            self.meta(MetaRole::Volume(volume))?;
            for (number, group) in archive.root().groups_of(volume).iter().enumerate() {
                archive.prefetch_indexes(volume, number);
                let mut run = Gathered { volume, cells: Vec::new(), earlier: Vec::new(), bytes: 0 };
                for cell in indexed_cells(archive.group_index(group)?, group) {
                    let place = (volume, cell.address, cell.offset);
                    let same = |made: &Result<MadeCell>| {
                        made.as_ref().map_or(true, |made| {
                            (made.volume, made.facts.address, made.offset) == place
                        })
                    };
                    let made = earlier.next_if(same).transpose()?;
                    match made {
                        // What the log says has to be what the index says: only then may the log
                        // speak for the cell.
                        Some(made)
                            if agrees(&made, &cell.entry)
                                && self.held.contains(cell.offset, made.len()) =>
                        {
                            self.flush(&mut run)?;
                            (self.emit)(Job::Known(made))?;
                        }
                        made => {
                            if is_full(run.cells.len(), run.bytes + cell.len()) {
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
                (self.emit)(Job::CloseGroup(volume, number))?;
            }
            (self.emit)(Job::CloseVolume(volume))?;
        }
        self.meta(MetaRole::End)?;
        let footer = archive.footer();
        self.plain(footer.root_offset, footer.root_len, Some(footer.root))?;
        let mut at = footer.root_offset + footer.root_len;
        for len in archive.extra_records() {
            self.plain(at, *len, None)?;
            at += len;
        }
        // These two are under no digest, but they say nothing that the index does not say: what is
        // made of it is what stood there when it was compared.
        let table = frames.ok_or_else(|| Error::internal("an index was read and has no frames"))?;
        for bytes in std::iter::once(footer.encode()).chain(table.table()) {
            let lease = self.budget.lease(bytes.len() as u64, self.context.cancel)?;
            let offset = at;
            at += bytes.len() as u64;
            (self.emit)(Job::Given { offset, bytes, lease })?;
        }
        Ok(())
    }

    fn meta(&mut self, role: MetaRole) -> Result<()> {
        let archive = self.archive;
        archive.meta(role).try_for_each(|meta| self.plain(meta.offset, meta.len, Some(meta.digest)))
    }

    fn plain(&mut self, offset: u64, len: u64, digest: Option<Digest>) -> Result<()> {
        // The root record alone may be longer than what is in flight. Its lease is cut then, as it
        // is the only piece of its kind.
        let lease = self.budget.lease(len.min(IN_FLIGHT_FLOOR), self.context.cancel)?;
        self.archive.reader().prefetch(offset, len);
        (self.emit)(Job::Plain { offset, len, digest, lease })
    }

    fn flush(&mut self, cells: &mut Gathered) -> Result<()> {
        let Some(first) = cells.cells.first() else { return Ok(()) };
        let lease = self.budget.lease(2 * cells.bytes, self.context.cancel)?;
        self.archive.reader().prefetch(first.offset, cells.bytes);
        cells.bytes = 0;
        let run = CellRun { cells: std::mem::take(&mut cells.cells), fetch: true };
        let (volume, earlier) = (cells.volume, std::mem::take(&mut cells.earlier));
        (self.emit)(Job::Cells { volume, run, earlier, lease })
    }
}

/// Cells that stand side by side, and are read together.
struct Gathered {
    volume: u16,
    cells: Vec<IndexedCell>,
    earlier: Vec<Option<MadeCell>>,
    bytes: u64,
}

fn agrees(made: &MadeCell, slot: &CellEntry) -> bool {
    let facts = &made.facts;
    (facts.present, facts.zero, facts.fill) == (slot.present, slot.zero, slot.fill)
        && facts.record_digest == slot.record_digest
        && made.len() == u64::from(slot.cell_len)
}

fn work(worker: &mut CellReader, archive: &Archive, pool: &Pool, job: Job) -> Result<Piece> {
    match job {
        Job::OpenVolume => Ok(Piece::OpenVolume),
        Job::CloseGroup(volume, group) => Ok(Piece::CloseGroup(volume, group)),
        Job::CloseVolume(volume) => Ok(Piece::CloseVolume(volume)),
        Job::Known(made) => Ok(Piece::Known(made)),
        Job::Plain { offset, len, digest, lease } => {
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
            Ok(Piece::Plain { offset, bytes, lease })
        }
        Job::Given { offset, bytes, lease } => Ok(Piece::Plain { offset, bytes, lease }),
        Job::Cells { volume, run, earlier, lease } => {
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
            Ok(Piece::Cells {
                volume,
                offset,
                bytes: worker.take_bytes(pool.take()),
                facts,
                earlier,
                raw,
                lease,
            })
        }
    }
}
