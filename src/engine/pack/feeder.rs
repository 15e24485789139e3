//! The feeder of a pack: lists the frames and cells of an archive, in their order.

use std::ops::Range;
use std::sync::Arc;

use super::super::pipeline::Feed;
use super::super::seek_table_lease::SeekTableLease;
use super::super::{Cells, Context, MadeCell};
use super::job::{CellPlan, PackJob, PackPiece, changed_since, runs};
use super::options::{PackLog, PackOptions, stored_blocks};
use crate::base::{Error, Result};
use crate::format::layout::{MAX_CELL, META_FRAME_RAW};
use crate::format::{MetaRole, tar};
use crate::image::ImageSource;
use crate::object::ByteRanges;
use crate::volume::BlockSource;

pub(super) struct PackFeeder<'a, 'f> {
    pub(super) feed: &'a mut Feed<'f, PackJob, PackPiece>,
    pub(super) options: &'a PackOptions,
    pub(super) log: &'a PackLog<'a>,
    /// Bytes of the archive that the writer has from an earlier run.
    pub(super) reused: &'a ByteRanges,
    pub(super) context: Context<'a>,
}

impl PackFeeder<'_, '_> {
    pub(super) fn run(mut self, image: &dyn ImageSource, volumes: Range<usize>) -> Result<()> {
        if volumes.start == 0 {
            let prologue = tar::prologue(image.document().bytes(), tar::format_text().as_bytes());
            for raw in prologue.chunks(META_FRAME_RAW) {
                self.meta(MetaRole::Prologue, raw.to_vec())?;
            }
        }
        let mut seek_table = SeekTableLease::default();
        let last = volumes.end == image.volumes().len();
        for index in volumes {
            let (snapshot, source) =
                (&image.document().snapshots()[index], &image.volumes()[index]);
            let located = |error: Error| error.at("snapshot", &snapshot.id);
            let volume = index as u16;
            let mut earlier = (self.log.earlier)(volume)?;
            let map =
                stored_blocks(source.as_ref(), self.options, self.context).map_err(located)?;
            let _map_lease = self.feed.reserve(map.memory()).map_err(located)?;
            seek_table.grow(map.cells().count() as u64, self.feed).map_err(located)?;
            self.context.grew(map.stored_bytes());
            for raw in tar::volume_header(&snapshot.id, &map) {
                self.meta(MetaRole::Volume(volume), raw)?;
            }
            let (name, size) = (snapshot.id.clone(), map.size());
            self.feed.forward(PackPiece::OpenVolume { name, size })?;
            let mut cells = map.cells().peekable();
            while let Some((address, bits)) = cells.next() {
                let ends_group = cells.peek().is_none_or(|(next, _)| next.group != address.group);
                let cell = CellPlan { volume, address, bits, ends_group };
                self.cell(source, cell, &mut earlier).map_err(located)?;
            }
            self.feed.forward(PackPiece::CloseVolume { source: source.clone() })?;
        }
        if last {
            self.meta(MetaRole::End, tar::trailer())?;
        }
        Ok(())
    }

    fn meta(&mut self, role: MetaRole, raw: Vec<u8>) -> Result<()> {
        // Raw and compressed bytes exist at the same time.
        let lease = self.feed.lease(2 * META_FRAME_RAW as u64)?;
        self.feed.work(PackJob::Meta { role, raw }, lease)
    }

    fn cell(
        &mut self,
        source: &Arc<dyn BlockSource>,
        cell: CellPlan,
        earlier: &mut Cells<'_, MadeCell>,
    ) -> Result<()> {
        match earlier.next().transpose()? {
            Some(made) if (made.volume, made.facts.address) != (cell.volume, cell.address) => {
                Err(changed_since(cell.address))
            }
            Some(made) if self.reused.contains(made.offset, made.len()) => {
                self.feed.forward(PackPiece::Reused { made, ends_group: cell.ends_group })
            }
            earlier => {
                let lease = self.feed.lease(MAX_CELL as u64)?;
                for run in
                    runs(cell.bits, source.size(), cell.address).iter().filter(|run| !run.fill)
                {
                    source.prefetch(run.offset, run.len as u64);
                }
                self.feed.work(PackJob::Cell { source: source.clone(), cell, earlier }, lease)
            }
        }
    }
}
