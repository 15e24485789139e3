//! Reads an archive at any position: restores volumes, or only checks them.
//!
//! A restore can be continued: cells that an earlier run noted are read back from their target, and
//! fetched again only if they are not what they should be.
//!
//! Every cell that is read goes through the whole chain of digests. The books that are kept on the
//! way are compared with the manifest at the end. It does not touch cells without data when it
//! restores, because the index says all about them; when it checks, it reads them as well.

use std::sync::Arc;

use super::archive::Archive;
use super::archive::index::add_to_map;
use super::books::Books;
use super::cell::{CellOpener, StoredCell, check_frames, deliver, locate};
use super::plan::IN_FLIGHT_FLOOR;
use super::written::{WrittenCell, read_back};
use super::{Budget, CellLog, Cells, Context, Lease, run_ordered};
use crate::base::{
    BlockIndex, CELL_BLOCKS, CellAddress, Error, ErrorKind, Event, Result, VolumeSize, bits_of,
};
use crate::codec::sha256;
use crate::format::layout::{DATA_FRAME_RAW, MAX_CELL};
use crate::format::{BlockMap, CellEntry, CellFacts, CellRecord, Digest};
use crate::volume::{BlockSink, Delivered};

/// Cells are read in groups of about this many bytes: one read call and, above all, frames enough
/// to be hashed side by side.
const GROUP: u64 = DATA_FRAME_RAW as u64;
/// More damage than this is counted and not listed.
pub(super) const MAX_FINDINGS: usize = 1000;

/// Which cells are read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Selection {
    /// All that hold data or have to be written.
    Restore,
    /// All, those without data too.
    All,
    /// Each with this probability, chosen by this seed.
    Sample {
        /// From 0 to 1.
        fraction: f64,
        /// Start of the random sequence.
        seed: u64,
    },
}

/// Makes the sink of a volume; volumes without one are not read.
pub type SinkFor<'a> = dyn FnMut(u16) -> Result<Option<Arc<dyn BlockSink>>> + Send + 'a;

/// What was checked.
#[derive(Debug, Default)]
pub struct CheckReport {
    /// Blocks in the cells that were read.
    pub blocks: u64,
    /// Cells that were read.
    pub cells: u64,
    /// What is damaged, in the order of the archive. Empty unless damage is collected.
    pub findings: Vec<Error>,
    /// Damage beyond what is listed.
    pub more_findings: u64,
}

impl CheckReport {
    fn add(&mut self, error: Error, context: Context<'_>) {
        context.observer.note(&Event::Damage { error: &error });
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(error)
        } else {
            self.more_findings += 1
        }
    }
}

/// The cells with data that were written, and who hears of each further one after it was.
pub type RestoreLog<'a> = CellLog<'a, WrittenCell>;

/// What is done with the volumes.
pub enum Purpose<'a> {
    /// Write them; the first damage ends it.
    Restore(&'a mut SinkFor<'a>, RestoreLog<'a>),
    /// Check them, and collect damage.
    Check(Selection),
}

enum Job {
    Damage(Error),
    OpenVolume,
    Cells {
        group: Group,
        lease: Lease,
    },
    /// A cell that an earlier run wrote, and what it noted.
    Written {
        group: Group,
        written: WrittenCell,
    },
    CloseGroup(u16, usize),
    CloseVolume(u16),
}

#[derive(Clone)]
pub(super) struct Group {
    pub(super) volume: u16,
    pub(super) size: VolumeSize,
    pub(super) sink: Option<Arc<dyn BlockSink>>,
    pub(super) cells: Vec<(CellAddress, CellEntry, u64)>,
    /// Whether the cells are read, or only their blocks written as zeros.
    pub(super) fetch: bool,
}

enum Piece {
    Damage(Error),
    OpenVolume,
    Cells {
        volume: u16,
        sink: Option<Arc<dyn BlockSink>>,
        results: Vec<Result<OpenedCell>>,
        bytes: u64,
        stored: u64,
        lease: Option<Lease>,
    },
    Kept {
        sink: Arc<dyn BlockSink>,
        cell: OpenedCell,
        bytes: u64,
        stored: u64,
    },
    CloseGroup(u16, usize),
    CloseVolume(u16),
}

/// A cell that is right: what the books want to know of it, and the digests of its blocks with
/// data.
pub(super) struct OpenedCell {
    pub(super) facts: CellFacts,
    digests: Vec<Digest>,
}

impl OpenedCell {
    fn delivered(&self) -> Delivered<'_> {
        let CellFacts { address, present, zero, fill, .. } = self.facts;
        Delivered::new(address, (present, zero, fill), &self.digests)
    }
}

/// Restores or checks the volumes of an archive, one after the other, the cells of each in
/// parallel.
pub fn unpack(
    archive: &Archive,
    mut purpose: Purpose<'_>,
    context: Context<'_>,
) -> Result<CheckReport> {
    let RestoreLog { earlier, note: mut noted } = match &mut purpose {
        Purpose::Restore(_, log) => std::mem::replace(log, RestoreLog::none()),
        Purpose::Check(_) => RestoreLog::none(),
    };
    let collect_damage = matches!(purpose, Purpose::Check(_));
    let sampled = matches!(purpose, Purpose::Check(Selection::Sample { .. }));
    let budget = Budget::new(context.plan.in_flight);
    let mut report = CheckReport::default();
    let mut books = Books::default();
    let reader = archive.reader();
    let damage = |report: &mut CheckReport, error: Error| {
        if collect_damage && error.kind() == ErrorKind::Corrupt {
            report.add(error, context);
            Ok(())
        } else {
            Err(error)
        }
    };
    run_ordered(
        context.plan.threads,
        context.cancel,
        |emit| feed(archive, &mut purpose, earlier, &budget, context, emit),
        || {
            let mut worker = Worker::new()?;
            Ok(move |job| match job {
                Job::Damage(error) => Ok(Piece::Damage(error)),
                Job::OpenVolume => Ok(Piece::OpenVolume),
                Job::CloseGroup(volume, window) => Ok(Piece::CloseGroup(volume, window)),
                Job::CloseVolume(volume) => Ok(Piece::CloseVolume(volume)),
                Job::Cells { group, lease } => worker.cells(archive, &group, Some(lease)),
                Job::Written { group, written } => worker.written(archive, &group, &written),
            })
        },
        |piece| {
            match piece {
                Piece::Damage(error) => {
                    books.damaged = true;
                    damage(&mut report, error)?;
                }
                Piece::OpenVolume => books = Books::default(),
                Piece::Kept { sink, cell, bytes, stored } => {
                    report.cells += 1;
                    report.blocks += u64::from(cell.facts.present.count_ones());
                    books.cell(&cell.facts);
                    sink.confirm(&cell.delivered())?;
                    context.observer.note(&Event::Reused { bytes, stored });
                }
                Piece::Cells { volume, sink, results, bytes, stored, lease } => {
                    drop(lease);
                    report.cells += results.len() as u64;
                    for result in results {
                        match result {
                            Ok(cell) => {
                                report.blocks += u64::from(cell.facts.present.count_ones());
                                books.cell(&cell.facts);
                                let Some(sink) = &sink else { continue };
                                sink.confirm(&cell.delivered())?;
                                let (address, content) = (cell.facts.address, cell.facts.content);
                                if sink.keeps_confirmed() {
                                    noted(&WrittenCell {
                                        volume,
                                        address,
                                        content,
                                        digests: cell.digests,
                                    })?;
                                } else if stored > 0 {
                                    noted(&WrittenCell {
                                        volume,
                                        address,
                                        content,
                                        digests: Vec::new(),
                                    })?;
                                }
                            }
                            Err(error) => {
                                books.damaged = true;
                                damage(&mut report, error)?;
                            }
                        }
                    }
                    context.observer.note(&Event::Advanced { bytes, stored });
                }
                Piece::CloseGroup(volume, window) if !sampled => {
                    if let Err(error) =
                        books.close_group(archive, &archive.root().groups_of(volume)[window])
                    {
                        damage(&mut report, error)?;
                    }
                }
                Piece::CloseVolume(volume) if !sampled => {
                    if let Err(error) = books.close_volume(archive, volume) {
                        damage(&mut report, error)?;
                    }
                }
                Piece::CloseGroup(..) | Piece::CloseVolume(_) => {}
            }
            Ok(())
        },
    )
    .map_err(|error| {
        if error.kind() == ErrorKind::Corrupt { error.at("archive", reader.name()) } else { error }
    })?;
    Ok(report)
}

fn feed(
    archive: &Archive,
    purpose: &mut Purpose<'_>,
    earlier: Cells<'_, WrittenCell>,
    budget: &Budget,
    context: Context<'_>,
    emit: &mut dyn FnMut(Job) -> Result<()>,
) -> Result<()> {
    let mut earlier = earlier.peekable();
    let mut random = match purpose {
        Purpose::Check(Selection::Sample { seed, .. }) => Random(*seed),
        _ => Random(0),
    };
    for (index, entry) in archive.root().manifest.volumes.iter().enumerate() {
        let volume = index as u16;
        let sink = match purpose {
            Purpose::Restore(sink_for, _) => match sink_for(volume)? {
                None => continue,
                sink => sink,
            },
            Purpose::Check(_) => None,
        };
        emit(Job::OpenVolume)?;
        let (readable, stored) =
            read_indexes(archive, volume, budget, context, &mut |error| emit(Job::Damage(error)))?;
        let share = if let Purpose::Check(Selection::Sample { fraction, .. }) = purpose {
            *fraction
        } else {
            1.0
        };
        context.observer.note(&Event::Grew { bytes: (stored as f64 * share) as u64 });
        // However small the share, a volume with cells is not called good without a look at one of
        // them.
        let cells: u64 =
            archive.root().groups_of(volume).iter().map(|window| u64::from(window.entries)).sum();
        let chosen = random.next() % cells.max(1);
        let mut count = 0;
        for (number, window) in archive.root().groups_of(volume).iter().enumerate() {
            if !readable[number] {
                continue;
            }
            archive.prefetch_indexes(volume, number);
            let slots = archive.group_index(window)?.cells;
            let mut feeder = GroupFeeder {
                archive,
                budget,
                context,
                emit,
                template: (volume, entry.size, sink.clone()),
                cells: Vec::new(),
                bytes: 0,
                fetch: true,
            };
            let mut offset = window.offset;
            for slot in slots {
                let address = CellAddress { group: window.group, index: slot.index };
                let at = offset;
                offset += u64::from(slot.cell_len);
                count += 1;
                let fetch = match purpose {
                    Purpose::Restore(..) => slot.present != slot.zero,
                    Purpose::Check(Selection::Sample { fraction, .. })
                        if random.fraction() >= *fraction && count != chosen + 1 =>
                    {
                        continue;
                    }
                    Purpose::Check(_) => true,
                };
                let written = |cell: &Result<WrittenCell>| {
                    cell.as_ref()
                        .map_or(true, |cell| (cell.volume, cell.address) == (volume, address))
                };
                let noted = fetch || sink.as_ref().is_some_and(|sink| sink.keeps_confirmed());
                match earlier.next_if(|cell| noted && written(cell)).transpose()? {
                    Some(cell) => feeder.written((address, slot, at), cell)?,
                    None => feeder.add((address, slot, at), fetch)?,
                }
            }
            feeder.flush()?;
            emit(Job::CloseGroup(volume, number))?;
        }
        emit(Job::CloseVolume(volume))?;
    }
    Ok(())
}

/// Reads all indexes of a volume, and checks that its tar header says the same: whoever only looks
/// at the index must not be shown another disk than stock tools. Tells which indexes are readable,
/// and how many bytes of the volume are stored. Cells come later, and the indexes are read again
/// then: kept, those of a full volume of 64 TiB would take 700 MiB.
pub(super) fn read_indexes(
    archive: &Archive,
    volume: u16,
    budget: &Budget,
    context: Context<'_>,
    damage: &mut dyn FnMut(Error) -> Result<()>,
) -> Result<(Vec<bool>, u64)> {
    let entry = archive.volume_entry(volume);
    let windows = archive.root().groups_of(volume);
    let memory =
        windows.len() as u64 * BlockMap::BITMAP_MEMORY * if entry.fill > 0 { 2 } else { 1 };
    let _lease = budget
        .reserve(memory, IN_FLIGHT_FLOOR, context.cancel)
        .map_err(|error| error.at("snapshot", &entry.name))?;
    let mut map = BlockMap::new(entry.size);
    let mut readable = Vec::with_capacity(windows.len());
    for (number, window) in windows.iter().enumerate() {
        archive.prefetch_indexes(volume, number);
        match archive.group_index(window) {
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

/// Whether a group of so many cells has no room for another, with which it would have `bytes`.
/// Zeros take no room in the archive but do in a volume: a group must not become a long job.
pub(super) fn is_full(cells: usize, bytes: u64) -> bool {
    bytes > GROUP || cells >= 16
}

/// Puts cells that stand side by side into groups.
struct GroupFeeder<'a> {
    archive: &'a Archive,
    budget: &'a Budget,
    context: Context<'a>,
    emit: &'a mut dyn FnMut(Job) -> Result<()>,
    template: (u16, VolumeSize, Option<Arc<dyn BlockSink>>),
    cells: Vec<(CellAddress, CellEntry, u64)>,
    bytes: u64,
    fetch: bool,
}

impl GroupFeeder<'_> {
    fn add(&mut self, cell: (CellAddress, CellEntry, u64), fetch: bool) -> Result<()> {
        let len = u64::from(cell.1.cell_len);
        let adjacent =
            self.cells.last().is_none_or(|(_, last, at)| at + u64::from(last.cell_len) == cell.2);
        if !adjacent || is_full(self.cells.len(), self.bytes + len) || self.fetch != fetch {
            self.flush()?;
        }
        self.fetch = fetch;
        self.bytes += len;
        self.cells.push(cell);
        Ok(())
    }

    /// A cell that an earlier run wrote goes alone.
    fn written(&mut self, cell: (CellAddress, CellEntry, u64), written: WrittenCell) -> Result<()> {
        self.flush()?;
        let (volume, size, sink) = self.template.clone();
        (self.emit)(Job::Written {
            group: Group { volume, size, sink, cells: vec![cell], fetch: true },
            written,
        })
    }

    fn flush(&mut self) -> Result<()> {
        let Some((_, _, start)) = self.cells.first() else { return Ok(()) };
        let lease = self.budget.lease(self.bytes.max(4096), self.context.cancel)?;
        if self.fetch {
            // There is memory for it now; a remote archive begins to send.
            self.archive.reader().prefetch(*start, self.bytes);
        }
        self.bytes = 0;
        let (volume, size, sink) = self.template.clone();
        (self.emit)(Job::Cells {
            group: Group {
                volume,
                size,
                sink,
                cells: std::mem::take(&mut self.cells),
                fetch: self.fetch,
            },
            lease,
        })
    }
}

pub(super) struct Worker {
    opener: CellOpener,
    bytes: Vec<u8>,
}

impl Worker {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { opener: CellOpener::new()?, bytes: Vec::new() })
    }

    /// Looks whether a cell is where an earlier run wrote it; if not it is restored like any other.
    fn written(
        &mut self,
        archive: &Archive,
        group: &Group,
        written: &WrittenCell,
    ) -> Result<Piece> {
        let (Some(sink), [(address, slot, _)]) = (&group.sink, group.cells.as_slice()) else {
            return Err(Error::internal("a cell was written and nobody knows where"));
        };
        let data = slot.present & !slot.zero;
        if sink.keeps_confirmed() {
            if !written.fits(data) {
                return self.cells(archive, &Group { fetch: data != 0, ..group.clone() }, None);
            }
        } else {
            let found = read_back(sink.as_ref(), group.size, *address, data, &mut self.bytes);
            if found
                .map_err(|error| error.at("snapshot", &archive.volume_entry(group.volume).name))?
                != Some(written.content)
            {
                return self.cells(archive, group, None);
            }
            // Whether these were written cannot be seen in what is read.
            write_zeros(*address, slot, group)?;
        }
        let facts = CellFacts {
            content: written.content,
            ..facts_without_data(*address, slot, group.size)
        };
        let cell = OpenedCell { facts, digests: written.digests.clone() };
        Ok(Piece::Kept {
            sink: sink.clone(),
            cell,
            bytes: group.size.cell_bytes(*address, slot.present),
            stored: slot.cell_len.into(),
        })
    }

    fn cells(&mut self, archive: &Archive, group: &Group, lease: Option<Lease>) -> Result<Piece> {
        let (volume, sink) = (group.volume, group.sink.clone());
        let name = &archive.volume_entry(group.volume).name;
        let bytes = group
            .cells
            .iter()
            .map(|(address, slot, _)| group.size.cell_bytes(*address, slot.present))
            .sum();
        if !group.fetch {
            for (address, slot, _) in &group.cells {
                write_zeros(*address, slot, group).map_err(|error| error.at("snapshot", name))?;
            }
            let facts = group
                .cells
                .iter()
                .map(|(address, slot, _)| facts_without_data(*address, slot, group.size));
            let results =
                facts.map(|facts| Ok(OpenedCell { facts, digests: Vec::new() })).collect();
            return Ok(Piece::Cells { volume, sink, results, bytes, stored: 0, lease });
        }
        let results = self.read(archive, group)?;
        let stored = self.bytes.len() as u64;
        Ok(Piece::Cells { volume, sink, results, bytes, stored, lease })
    }

    /// Reads the cells of a group and checks them: each is right, or corrupt. If one is corrupt
    /// they are read once more, because a wrong bit on the way is no damage.
    pub(super) fn read(
        &mut self,
        archive: &Archive,
        group: &Group,
    ) -> Result<Vec<Result<OpenedCell>>> {
        let located = |error: Error| error.at("snapshot", &archive.volume_entry(group.volume).name);
        let start = group.cells.first().map_or(0, |(_, _, start)| *start);
        let stored: u64 = group.cells.iter().map(|(_, slot, _)| u64::from(slot.cell_len)).sum();
        let mut again = false;
        loop {
            self.bytes.resize(stored as usize, 0);
            archive.reader().read_at(start, &mut self.bytes)?;
            let mut results = self.open(group);
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

    /// What was read last, for a buffer to read into next.
    pub(super) fn take_bytes(&mut self, next: Vec<u8>) -> Vec<u8> {
        std::mem::replace(&mut self.bytes, next)
    }

    fn open(&mut self, group: &Group) -> Vec<Result<OpenedCell>> {
        let mut results: Vec<Option<Result<OpenedCell>>> = Vec::with_capacity(group.cells.len());
        let mut cells = Vec::with_capacity(group.cells.len());
        let mut at = 0;
        for (position, (address, slot, offset)) in group.cells.iter().enumerate() {
            let bytes = &self.bytes[at..at + slot.cell_len as usize];
            at += slot.cell_len as usize;
            let (record, frame) = bytes.split_at(slot.record_len() as usize);
            match read_record(record, slot, *address, group.volume) {
                Ok(parsed) => {
                    let facts = CellFacts::new(&parsed, record);
                    results.push(Some(Ok(OpenedCell {
                        facts,
                        digests: parsed.block_digests.clone(),
                    })));
                    cells.push((position, StoredCell { record: parsed, frame }, *offset));
                }
                Err(error) => results.push(Some(Err(locate(error, *address, *offset)))),
            }
        }
        let (positions, cells): (Vec<_>, Vec<_>) =
            cells.into_iter().map(|(position, cell, offset)| ((position, offset), cell)).unzip();
        for (((position, offset), cell), checked) in
            positions.into_iter().zip(&cells).zip(check_frames(&cells))
        {
            let opened = checked.and_then(|()| {
                let raw = self.opener.open(cell, group.size)?;
                group
                    .sink
                    .as_ref()
                    .map_or(Ok(()), |sink| deliver(raw, &cell.record, group.size, sink.as_ref()))
            });
            if let Err(error) = opened {
                let error = if error.kind() == ErrorKind::Corrupt {
                    cell.locate(error, offset)
                } else {
                    error
                };
                results[position] = Some(Err(error));
            }
        }
        results.into_iter().flatten().collect()
    }
}

fn read_record(
    bytes: &[u8],
    slot: &CellEntry,
    address: CellAddress,
    volume: u16,
) -> Result<CellRecord> {
    if sha256::digest(bytes) != slot.record_digest {
        return Err(Error::corrupt("the record of a cell does not match its digest"));
    }
    let record = CellRecord::parse(bytes)?;
    let agree = (record.volume, record.address) == (volume, address)
        && (record.present, record.zero, record.fill) == (slot.present, slot.zero, slot.fill)
        && record.frame_len == slot.frame_len();
    if agree {
        Ok(record)
    } else {
        Err(Error::corrupt("a cell contradicts the index of its window"))
    }
}

/// What the books want to know of a cell that was not read, because it has no data.
fn facts_without_data(address: CellAddress, slot: &CellEntry, size: VolumeSize) -> CellFacts {
    CellFacts {
        address,
        frame_len: slot.frame_len(),
        raw_len: size.cell_bytes(address, slot.present) as u32,
        present: slot.present,
        zero: slot.zero,
        fill: slot.fill,
        record_digest: slot.record_digest,
        content: [0; 32],
    }
}

/// Writes the zero blocks of a cell that was not read.
fn write_zeros(address: CellAddress, slot: &CellEntry, group: &Group) -> Result<()> {
    let Some(sink) = &group.sink else { return Ok(()) };
    for bit in bits_of(slot.zero & !slot.fill) {
        let block = BlockIndex(address.first_block().0 + bit);
        sink.write_zeros(block.offset(), group.size.block_len(block))?;
    }
    Ok(())
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

const _: () = assert!(MAX_CELL as u64 <= 2 * GROUP && CELL_BLOCKS == 8);
