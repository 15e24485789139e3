//! Packs an image into an archive.
//!
//! The bytes are a function of the image, the level, the writer's name and libzstd: pieces are made
//! independently and put together in order. An error of the source is an error of the pack; nothing
//! is ever taken for zeros.
//!
//! Because of that a pack can be continued: whoever kept what the books want to know of each cell
//! ([`MadeCell`]) need not make those again whose bytes are where they belong.

use std::ops::Range;
use std::sync::Arc;

use super::budget::SeekTableLease;
use super::memory::IN_FLIGHT_FLOOR;
use super::pool::Pool;
use super::stretches::side_by_side;
use super::{Budget, Cells, Context, Lease, MadeCell, run_ordered};
use crate::base::{
    Bitmap8, CellAddress, Error, ErrorCode, ErrorKind, Event, Result, SnapshotId, Stage,
    VolumeSize, bits_of, hex,
};
use crate::codec::zstd::Encoder;
use crate::codec::{sha256, zero, zstd};
use crate::format::layout::{DATA_FRAME_RAW, MAX_CELL, META_FRAME_RAW};
use crate::format::{
    BlockMap, CellBits, CellFacts, CellRecord, Codec, Digest, Footer, IndexBuilder, MetaRole,
    VolumeEntry, tar,
};
use crate::image::ImageSource;
use crate::object::{ByteRanges, ObjectWriter, SegmentWriter};
use crate::volume::{BlockSource, scan_zero_blocks};

/// What can be chosen.
#[derive(Clone, Debug)]
pub struct PackOptions {
    /// Takes blocks that read as zeros for absent. For sources whose holes got lost; costs a pass
    /// over the data.
    pub sparse: bool,
    /// Name and version of the tool, as it is written into the manifest.
    pub writer: String,
}

impl Default for PackOptions {
    fn default() -> Self {
        Self { sparse: false, writer: format!("amistore/{}", env!("CARGO_PKG_VERSION")) }
    }
}

/// What was packed.
#[derive(Clone, Debug)]
pub struct PackReport {
    /// The volumes.
    pub volumes: Vec<VolumeReport>,
    /// Length of the archive.
    pub archive_len: u64,
    /// The footer: root and content root.
    pub footer: Footer,
}

/// What was packed of a volume.
#[derive(Clone, Debug)]
pub struct VolumeReport {
    /// What the manifest says of it.
    pub entry: VolumeEntry,
    /// Bytes of archive for its cells and their index.
    pub stored: u64,
}

/// The cells that earlier runs made, and who hears of each further one before it is appended.
pub struct PackLog<'a> {
    /// The cells of a volume that were noted, in the order of the archive.
    pub earlier: Box<dyn Fn(u16) -> Result<Cells<'static, MadeCell>> + Sync + 'a>,
    /// Hears of each further cell; of cells of different volumes from different threads.
    pub note: NoteOfCells<'a>,
}

/// Hears of cells, from several threads.
pub type NoteOfCells<'a> = Box<dyn Fn(&MadeCell) -> Result<()> + Sync + 'a>;

impl PackLog<'_> {
    /// Nothing came before, and nothing will come after.
    pub fn none() -> Self {
        Self { earlier: Box::new(|_| Ok(Box::new(std::iter::empty()))), note: Box::new(|_| Ok(())) }
    }
}

enum Job {
    Meta { role: MetaRole, raw: Vec<u8>, lease: Lease },
    Open { name: SnapshotId, size: VolumeSize },
    Cell { source: Arc<dyn BlockSource>, cell: Cell, earlier: Option<MadeCell>, lease: Lease },
    Known { made: MadeCell, ends_group: bool },
    Close { source: Arc<dyn BlockSource> },
}

#[derive(Clone, Copy)]
struct Cell {
    volume: u16,
    address: CellAddress,
    bits: CellBits,
    ends_group: bool,
}

enum Piece {
    Meta { role: MetaRole, frame: Vec<u8>, raw_len: u64, digest: Digest, lease: Lease },
    Open { name: SnapshotId, size: VolumeSize },
    Cell { bytes: Vec<u8>, cell: Cell, facts: CellFacts, earlier: Option<MadeCell>, lease: Lease },
    Known { made: MadeCell, ends_group: bool },
    Close { source: Arc<dyn BlockSource> },
}

/// Packs `image` and commits the archive. Volumes are packed side by side if the writer takes them
/// so, and one after the other if not; the bytes are the same.
pub fn pack(
    image: &dyn ImageSource,
    options: &PackOptions,
    mut writer: Box<dyn ObjectWriter>,
    log: PackLog<'_>,
    context: Context<'_>,
) -> Result<PackReport> {
    let stage = context.stage(Stage::Store);
    let packing = Packing { image, options, log: &log };
    let Packed { mut index, volumes } = match writer.parallel() {
        Some(stretches) => side_by_side(&packing, stretches, context)?,
        None => {
            packing.lane(0..image.volumes().len(), &mut Output::Object(writer.as_mut()), context)?
        }
    };
    let codec = Codec {
        level: context.plan.level.into(),
        lib: zstd::library_version().to_owned(),
        name: "zstd".to_owned(),
    };
    let tail = index.finish(&sha256::digest(image.document().bytes()), codec, &options.writer);
    writer.append(&tail.root_record)?;
    writer.append(&tail.footer)?;
    for piece in index.seek_table() {
        writer.append(&piece)?;
    }
    stage.finish();
    let stage = context.stage(Stage::Sync);
    context.cancel.check()?;
    writer.identify(&hex(&tail.root.content_root));
    writer.commit()?;
    stage.finish();
    Ok(PackReport {
        volumes,
        archive_len: index.offset() + index.seek_table_len(),
        footer: tail.root,
    })
}

/// What is packed, and how.
pub(super) struct Packing<'a> {
    pub(super) image: &'a dyn ImageSource,
    options: &'a PackOptions,
    log: &'a PackLog<'a>,
}

/// Volumes that were packed, and the books of their stretch.
pub(super) struct Packed {
    pub(super) index: IndexBuilder,
    pub(super) volumes: Vec<VolumeReport>,
}

/// Where bytes go.
pub(super) enum Output<'a> {
    Object(&'a mut dyn ObjectWriter),
    Stretch(&'a mut dyn SegmentWriter),
}

impl Output<'_> {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Object(writer) => writer.append(bytes),
            Self::Stretch(stretch) => stretch.append(bytes),
        }
    }

    fn stored(&self) -> Arc<ByteRanges> {
        match self {
            Self::Object(writer) => writer.stored(),
            Self::Stretch(stretch) => stretch.stored(),
        }
    }

    fn skip(&mut self, len: u64) -> Result<()> {
        match self {
            Self::Object(writer) => writer.skip(len),
            Self::Stretch(stretch) => stretch.skip(len),
        }
    }
}

impl Packing<'_> {
    /// Packs volumes that follow each other: what comes before the first volume belongs to that,
    /// and what comes behind the last to this.
    pub(super) fn lane(
        &self,
        volumes: Range<usize>,
        output: &mut Output<'_>,
        context: Context<'_>,
    ) -> Result<Packed> {
        let held = output.stored();
        let mut index = IndexBuilder::from_volume(volumes.start as u16);
        let mut reports = Vec::new();
        let mut volume_start = 0;
        let pool = Pool::default();
        let budget = Budget::new(context.plan.in_flight);
        run_ordered(
            context.plan.threads,
            context.cancel,
            |emit| {
                let earlier = Box::new(std::iter::empty());
                Feeder {
                    options: self.options,
                    budget: &budget,
                    context,
                    log: self.log,
                    earlier,
                    held: &held,
                    emit,
                }
                .feed(self.image, volumes)
            },
            || {
                let mut worker = Worker {
                    encoder: Encoder::new(context.plan.level)?,
                    raw: vec![0; DATA_FRAME_RAW],
                    frame: Vec::new(),
                    pool: &pool,
                };
                Ok(move |job| worker.work(job))
            },
            |piece| {
                match piece {
                    Piece::Meta { role, frame, raw_len, digest, lease } => {
                        output.append(&frame)?;
                        index.meta_frame(role, frame.len() as u64, raw_len, digest);
                        drop(lease);
                    }
                    Piece::Open { name, size } => {
                        index.open_volume(name, size);
                        volume_start = index.offset();
                    }
                    Piece::Cell { bytes, cell, facts, earlier, lease } => {
                        let made = MadeCell { volume: cell.volume, offset: index.offset(), facts };
                        match earlier {
                            Some(earlier) if earlier != made => {
                                return Err(changed_since(cell.address));
                            }
                            Some(_) => {}
                            None => (self.log.note)(&made)?,
                        }
                        output.append(&bytes)?;
                        index.cell(&made.facts)?;
                        context.observer.note(&Event::Advanced {
                            bytes: made.facts.raw_len.into(),
                            stored: bytes.len() as u64,
                        });
                        pool.put(bytes);
                        drop(lease);
                        if cell.ends_group {
                            output.append(&index.close_group()?)?;
                        }
                    }
                    Piece::Known { made, ends_group } => {
                        if made.offset != index.offset() {
                            return Err(changed_since(made.facts.address));
                        }
                        output.skip(made.len())?;
                        index.cell(&made.facts)?;
                        context.observer.note(&Event::Reused {
                            bytes: made.facts.raw_len.into(),
                            stored: made.len(),
                        });
                        if ends_group {
                            output.append(&index.close_group()?)?;
                        }
                    }
                    Piece::Close { source } => {
                        let entry = index.close_volume()?;
                        // Pieces come in order: every cell of the volume has been read, and this
                        // look comes after the last read.
                        source
                            .check_unchanged()
                            .map_err(|error| error.at("snapshot", &entry.name))?;
                        reports.push(VolumeReport { entry, stored: index.offset() - volume_start });
                    }
                }
                Ok(())
            },
        )?;
        Ok(Packed { index, volumes: reports })
    }
}

/// The blocks of a volume that a pack stores: those that were written, without zeros if they are
/// not wanted, and what fills gaps.
pub fn stored_blocks(
    source: &dyn BlockSource,
    options: &PackOptions,
    context: Context<'_>,
) -> Result<BlockMap> {
    let mut map = source.block_map()?;
    if options.sparse {
        scan_zero_blocks(source, &mut map, context.plan.threads, context.cancel)?;
    }
    map.fill_gaps();
    Ok(map)
}

/// The bytes would not be those that are there already.
fn changed_since(address: CellAddress) -> Error {
    Error::new(ErrorKind::Io, "the source is not what it was when this store began")
        .code_as(ErrorCode::SourceChanged)
        .at("blocks", address.blocks())
        .at("cannot_continue", true)
}

struct Feeder<'a, 'e> {
    options: &'a PackOptions,
    budget: &'a Budget,
    context: Context<'a>,
    log: &'a PackLog<'a>,
    /// Of the volume that is fed.
    earlier: Cells<'static, MadeCell>,
    held: &'a ByteRanges,
    emit: &'e mut dyn FnMut(Job) -> Result<()>,
}

impl Feeder<'_, '_> {
    fn feed(mut self, image: &dyn ImageSource, volumes: Range<usize>) -> Result<()> {
        let (budget, context) = (self.budget, self.context);
        // Raw and compressed, while it is between the two.
        let meta_lease = || budget.lease(2 * META_FRAME_RAW as u64, context.cancel);
        if volumes.start == 0 {
            let prologue = tar::prologue(image.document().bytes(), tar::format_text().as_bytes());
            for raw in prologue.chunks(META_FRAME_RAW) {
                (self.emit)(Job::Meta {
                    role: MetaRole::Prologue,
                    raw: raw.to_vec(),
                    lease: meta_lease()?,
                })?;
            }
        }
        let mut seek_table = SeekTableLease::default();
        let last = volumes.end == image.volumes().len();
        for index in volumes {
            let (snapshot, source) =
                (&image.document().snapshots()[index], &image.volumes()[index]);
            let located = |error: Error| error.at("snapshot", &snapshot.id);
            let volume = index as u16;
            self.earlier = (self.log.earlier)(volume)?;
            let map = stored_blocks(source.as_ref(), self.options, context).map_err(located)?;
            let _map_lease =
                budget.reserve(map.memory(), IN_FLIGHT_FLOOR, context.cancel).map_err(located)?;
            seek_table
                .grow(map.cells().count() as u64, budget, IN_FLIGHT_FLOOR, context.cancel)
                .map_err(located)?;
            context.observer.note(&Event::Grew { bytes: map.stored_bytes() });
            for raw in tar::volume_header(&snapshot.id, &map) {
                (self.emit)(Job::Meta {
                    role: MetaRole::Volume(volume),
                    raw,
                    lease: meta_lease()?,
                })?;
            }
            (self.emit)(Job::Open { name: snapshot.id.clone(), size: map.size() })?;
            let mut slots = map.cells().peekable();
            while let Some((address, bits)) = slots.next() {
                let ends_group = slots.peek().is_none_or(|(next, _)| next.group != address.group);
                self.cell(source, Cell { volume, address, bits, ends_group }).map_err(located)?;
            }
            (self.emit)(Job::Close { source: source.clone() })?;
        }
        if last {
            (self.emit)(Job::Meta {
                role: MetaRole::End,
                raw: tar::trailer(),
                lease: meta_lease()?,
            })?;
        }
        Ok(())
    }

    fn cell(&mut self, source: &Arc<dyn BlockSource>, cell: Cell) -> Result<()> {
        let earlier = self.earlier.next().transpose()?;
        match earlier {
            Some(made) if (made.volume, made.facts.address) != (cell.volume, cell.address) => {
                Err(changed_since(cell.address))
            }
            Some(made) if self.held.contains(made.offset, made.len()) => {
                (self.emit)(Job::Known { made, ends_group: cell.ends_group })
            }
            earlier => {
                let lease = self.budget.lease(MAX_CELL as u64, self.context.cancel)?;
                for run in
                    runs(cell.bits, source.size(), cell.address).iter().filter(|run| !run.fill)
                {
                    source.prefetch(run.offset, run.len as u64);
                }
                (self.emit)(Job::Cell { source: source.clone(), cell, earlier, lease })
            }
        }
    }
}

struct Worker<'a> {
    encoder: Encoder,
    raw: Vec<u8>,
    frame: Vec<u8>,
    pool: &'a Pool,
}

impl Worker<'_> {
    fn work(&mut self, job: Job) -> Result<Piece> {
        match job {
            Job::Meta { role, raw, lease } => {
                self.encoder.encode(&raw, &mut self.frame)?;
                Ok(Piece::Meta {
                    role,
                    raw_len: raw.len() as u64,
                    digest: sha256::digest(&self.frame),
                    frame: self.frame.clone(),
                    lease,
                })
            }
            Job::Open { name, size } => Ok(Piece::Open { name, size }),
            Job::Close { source } => Ok(Piece::Close { source }),
            Job::Known { made, ends_group } => Ok(Piece::Known { made, ends_group }),
            Job::Cell { source, cell, earlier, lease } => {
                let (bytes, facts) =
                    self.cell(source.as_ref(), cell.volume, cell.address, cell.bits)?;
                Ok(Piece::Cell { bytes, cell, facts, earlier, lease })
            }
        }
    }

    fn cell(
        &mut self,
        source: &dyn BlockSource,
        volume: u16,
        address: CellAddress,
        bits: CellBits,
    ) -> Result<(Vec<u8>, CellFacts)> {
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
    /// become zeros. Returns the digests of the blocks that were read, or none, if the source does
    /// not tell them.
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
                target.fill(0)
            } else {
                source.read_blocks(run.offset, target, &mut known)?
            }
        }
        Ok(known)
    }

    /// The digests of the frame and of the data blocks, in one go: the blocks and the frame are
    /// independent, so they fill all lanes of the kernel. Those that are `known` are not computed
    /// again.
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
        let short = super::cell::blocks_of(raw, present, size, address)
            .find(|(bit, block)| data >> bit & 1 == 1 && block.len() < super::cell::BLOCK);
        if let Some((_, block)) = short {
            padded.extend_from_slice(block);
            padded.resize(super::cell::BLOCK, 0);
        }
        let mut inputs: Vec<&[u8]> = Vec::with_capacity(9);
        inputs.push(&self.frame);
        for (bit, block) in super::cell::blocks_of(raw, present, size, address) {
            if data >> bit & 1 == 1 {
                inputs.push(if block.len() < super::cell::BLOCK { &padded } else { block });
            }
        }
        let mut digests = vec![[0; 32]; inputs.len()];
        sha256::digest_many(&inputs, &mut digests);
        let blocks = digests.split_off(1);
        (digests[0], blocks)
    }
}

struct Run {
    offset: u64,
    len: usize,
    fill: bool,
}

/// The present blocks of a slot as runs of one kind.
fn runs(bits: CellBits, size: VolumeSize, address: CellAddress) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::with_capacity(4);
    let first = address.first_block();
    for bit in bits_of(bits.present) {
        let block = crate::base::BlockIndex(first.0 + bit);
        let (offset, len, fill) =
            (block.offset(), size.block_len(block) as usize, bits.fill >> bit & 1 == 1);
        match runs.last_mut() {
            Some(last) if last.fill == fill && last.offset + last.len as u64 == offset => {
                last.len += len
            }
            _ => runs.push(Run { offset, len, fill }),
        }
    }
    runs
}

fn zero_blocks(raw: &[u8], present: Bitmap8, size: VolumeSize, address: CellAddress) -> Bitmap8 {
    super::cell::blocks_of(raw, present, size, address)
        .filter(|(_, block)| zero::is_zero(block))
        .fold(0, |bits, (bit, _)| bits | 1 << bit)
}
