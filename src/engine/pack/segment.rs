//! Packs a segment of an archive: volumes that follow each other.

use std::ops::Range;
use std::sync::Arc;

use super::super::pipeline::Pipeline;
use super::super::pool::BufferPool;
use super::super::{Budget, Context, Lease, MadeCell};
use super::feeder::PackFeeder;
use super::job::{PackPiece, PackedCell, changed_since};
use super::options::{PackLog, PackOptions};
use super::worker::PackWorker;
use crate::base::Result;
use crate::format::{IndexBuilder, VolumeEntry};
use crate::image::ImageSource;
use crate::object::{ByteRanges, ObjectWriter, SegmentWriter};

/// A packed volume.
#[derive(Clone, Debug)]
pub struct VolumeReport {
    /// Its entry in the manifest.
    pub entry: VolumeEntry,
    /// Bytes of archive for its cells and their index.
    pub stored: u64,
}

/// An image to pack, with options and log.
pub(super) struct Packing<'a> {
    pub(super) image: &'a dyn ImageSource,
    pub(super) options: &'a PackOptions,
    pub(super) log: &'a PackLog<'a>,
}

/// A packed segment: volumes that follow each other.
pub(super) struct Packed {
    pub(super) index: IndexBuilder,
    pub(super) volumes: Vec<VolumeReport>,
}

/// The writer of a segment.
pub(super) enum Output<'a> {
    Object(&'a mut dyn ObjectWriter),
    Segment(&'a mut dyn SegmentWriter),
}

impl Output<'_> {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Object(writer) => writer.append(bytes),
            Self::Segment(segment) => segment.append(bytes),
        }
    }

    fn reused(&self) -> Arc<ByteRanges> {
        match self {
            Self::Object(writer) => writer.stored(),
            Self::Segment(segment) => segment.stored(),
        }
    }

    fn skip(&mut self, len: u64) -> Result<()> {
        match self {
            Self::Object(writer) => writer.skip(len),
            Self::Segment(segment) => segment.skip(len),
        }
    }
}

impl Packing<'_> {
    /// Packs volumes that follow each other, with memory of `budget`. The prologue belongs to the
    /// first volume of the image, and the end of the tar to the last.
    pub(super) fn segment(
        &self,
        volumes: Range<usize>,
        output: &mut Output<'_>,
        budget: &Budget,
        context: Context<'_>,
    ) -> Result<Packed> {
        let pool = BufferPool::default();
        let reused = output.reused();
        let mut collector = PackCollector {
            output,
            log: self.log,
            pool: &pool,
            context,
            index: IndexBuilder::from_volume(volumes.start as u16),
            volumes: Vec::new(),
            volume_start: 0,
        };
        Pipeline::sharing(context, budget).run(
            |feed| {
                let (options, log, reused) = (self.options, self.log, reused.as_ref());
                PackFeeder { feed, options, log, reused, context }.run(self.image, volumes)
            },
            || {
                let mut worker = PackWorker::new(context.plan.level, &pool)?;
                Ok(move |job| worker.work(job))
            },
            |piece, lease| collector.collect(piece, lease),
        )?;
        Ok(Packed { index: collector.index, volumes: collector.volumes })
    }
}

/// Appends pieces to the archive, in order, and builds its index.
struct PackCollector<'a, 'o> {
    output: &'a mut Output<'o>,
    log: &'a PackLog<'a>,
    pool: &'a BufferPool,
    context: Context<'a>,
    index: IndexBuilder,
    volumes: Vec<VolumeReport>,
    /// Offset of the first cell of the open volume.
    volume_start: u64,
}

impl PackCollector<'_, '_> {
    fn collect(&mut self, piece: PackPiece, lease: Lease) -> Result<()> {
        match piece {
            PackPiece::Meta { role, frame, raw_len, digest } => {
                self.output.append(&frame)?;
                self.index.meta_frame(role, frame.len() as u64, raw_len, digest);
            }
            PackPiece::OpenVolume { name, size } => {
                self.index.open_volume(name, size);
                self.volume_start = self.index.offset();
            }
            PackPiece::Cell(cell) => self.cell(cell, lease)?,
            PackPiece::Reused { made, ends_group } => {
                if made.offset != self.index.offset() {
                    return Err(changed_since(made.facts.address));
                }
                self.output.skip(made.len())?;
                self.index.cell(&made.facts)?;
                self.context.reused(made.facts.raw_len.into(), made.len());
                self.end_group(ends_group)?;
            }
            PackPiece::CloseVolume { source } => {
                let entry = self.index.close_volume()?;
                // Pieces come in order: every cell of the volume has been read before this check.
                source.check_unchanged().map_err(|error| error.at("snapshot", &entry.name))?;
                let stored = self.index.offset() - self.volume_start;
                self.volumes.push(VolumeReport { entry, stored });
            }
        }
        Ok(())
    }

    fn cell(&mut self, cell: PackedCell, lease: Lease) -> Result<()> {
        let PackedCell { volume, facts, bytes, earlier, ends_group } = cell;
        let made = MadeCell { volume, offset: self.index.offset(), facts };
        match earlier {
            Some(earlier) if earlier != made => return Err(changed_since(made.facts.address)),
            Some(_) => {}
            None => (self.log.note)(&made)?,
        }
        self.output.append(&bytes)?;
        self.index.cell(&made.facts)?;
        self.context.advanced(made.facts.raw_len.into(), bytes.len() as u64);
        self.pool.put(bytes);
        drop(lease);
        self.end_group(ends_group)
    }

    fn end_group(&mut self, ends_group: bool) -> Result<()> {
        if ends_group {
            self.output.append(&self.index.close_group()?)?;
        }
        Ok(())
    }
}
