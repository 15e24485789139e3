//! Upper bounds of the ranges that are read from an archive, by its root record alone: a remote
//! store counts each range as a request.

use super::Archive;
use super::cell_reader::{RUN, RUN_CELLS};
use crate::format::{MetaFrame, MetaRole};

impl Archive {
    /// Ranges that opening the archive reads: its first bytes, its end, footer, root record,
    /// records behind it, and the frames of the prologue.
    pub fn reads_to_open(&self) -> u64 {
        let manifest = &self.root().manifest;
        let volumes = self.volumes().flat_map(|volume| self.header_frames(volume.index()));
        let meta = manifest.meta.len() - volumes.count();
        4 + (self.extra_records().len() + meta) as u64
    }

    /// Ranges that restoring all volumes reads: each group index twice, the tar headers, and runs
    /// of cells.
    pub fn reads_to_restore(&self) -> u64 {
        self.volumes().map(|volume| self.reads_of_volume(volume.index(), 2)).sum()
    }

    /// Ranges that copying the archive reads: each group index four times, because the index as a
    /// whole is checked before the first byte is written, and index and cells are then copied;
    /// metadata twice; root record and seek table.
    pub fn reads_to_copy(&self) -> u64 {
        let volumes: u64 =
            self.volumes().map(|volume| self.reads_of_volume(volume.index(), 4)).sum();
        let meta = self.root().manifest.meta.len() as u64;
        let extra = self.extra_records().len() as u64;
        let table = self.reader().len() - self.footer().offset;
        volumes + 2 * meta + 2 * extra + 1 + table.div_ceil(1 << 20)
    }

    fn header_frames(&self, volume: u16) -> impl Iterator<Item = &MetaFrame> {
        self.meta(MetaRole::Volume(volume))
    }

    /// Ranges of a volume of which each group index is read `index_reads` times.
    fn reads_of_volume(&self, volume: u16, index_reads: u64) -> u64 {
        let groups = self.root().groups_of(volume);
        let sums = groups.iter().fold((0, 0), |(cells, bytes), group| {
            (cells + u64::from(group.entries), bytes + group.cells_len)
        });
        let count = groups.len() as u64;
        let headers = self.header_frames(volume).count() as u64;
        index_reads * count + headers + runs(count, sums)
    }
}

/// Runs of cells: a run ends with its group, and before a cell with which it would be too long. Two
/// adjacent runs that end for their length have more than [`RUN`] bytes or [`RUN_CELLS`] cells
/// together.
fn runs(groups: u64, (cells, bytes): (u64, u64)) -> u64 {
    let full = 2 * bytes / RUN + cells / RUN_CELLS;
    cells.min(groups + full)
}
