//! Says what is in an archive, by its head and index alone.

use std::io::Read;

use crate::base::{CELLS_PER_GROUP, GROUP_BLOCKS, Result};
use crate::engine::{Archive, Context, Depth, NoSinks, read_stream};
use crate::format::{Codec, Footer, RootRecord, VolumeEntry};
use crate::image::ImageDocument;

/// How many cells the picture of a volume has.
const MAP_CELLS: u64 = 128;
/// Beyond this much of index (5.8 TiB of full volumes have it) the picture is made of the table of
/// windows alone.
const MAP_INDEX_LIMIT: u64 = 64 << 20;

/// The content of an archive.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The metadata.
    pub document: ImageDocument,
    /// Length of the archive.
    pub archive_len: u64,
    /// The codec of the frames.
    pub codec: Codec,
    /// Tool and version that made the archive.
    pub writer: String,
    /// Root and content root.
    pub footer: Footer,
    /// The volumes.
    pub volumes: Vec<VolumeInspection>,
}

/// A volume of an archive.
#[derive(Clone, Debug)]
pub struct VolumeInspection {
    /// Its entry in the manifest.
    pub entry: VolumeEntry,
    /// Bytes of archive for its cells and their index.
    pub stored: u64,
    /// A picture of its address space, in equal parts; empty if it was read from a stream.
    pub map: Vec<MapCell>,
}

/// A part of a volume in its picture.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MapCell {
    /// Share of blocks that hold data, from 0 to 1.
    pub data: f32,
    /// Share of blocks that are written and zero.
    pub zero: f32,
}

/// Reads head and index of an archive. Nothing of the data is read, or checked.
pub fn inspect(archive: &Archive) -> Result<Inspection> {
    let reader = archive.reader();
    let mut volumes = Vec::new();
    let index_len: u64 = archive.root().groups.iter().map(|group| u64::from(group.index_len)).sum();
    let detailed = index_len <= MAP_INDEX_LIMIT;
    for (index, entry) in archive.root().manifest.volumes.iter().enumerate() {
        let mut picture = Picture::new(entry.size.blocks().into());
        for group in archive.root().groups_of(index as u16) {
            if detailed {
                for cell in archive.group_index(group)?.cells {
                    let block = u64::from(group.group) * u64::from(GROUP_BLOCKS)
                        + u64::from(cell.index) * 8;
                    picture.add(
                        block,
                        8,
                        (cell.present & !cell.zero).count_ones().into(),
                        (cell.zero & !cell.fill).count_ones().into(),
                    );
                }
            } else {
                // Cells of a window over its whole length: coarse, but 16 GiB are a small part of a
                // picture this large.
                let blocks = u64::from(GROUP_BLOCKS);
                picture.add(
                    u64::from(group.group) * blocks,
                    blocks,
                    blocks * u64::from(group.entries) / u64::from(CELLS_PER_GROUP),
                    0,
                );
            }
        }
        volumes.push(VolumeInspection { map: picture.finish(), ..volume(archive.root(), index) });
    }
    let footer = archive.footer();
    Ok(Inspection {
        document: archive.document().clone(),
        archive_len: reader.len(),
        codec: archive.root().manifest.codec.clone(),
        writer: archive.root().manifest.writer.clone(),
        footer: footer.clone(),
        volumes,
    })
}

/// Reads a whole stream, because its index comes last, and checks it on the way.
pub fn inspect_stream(input: impl Read + Send, context: Context<'_>) -> Result<Inspection> {
    let summary = read_stream(input, &mut NoSinks, Depth::Blocks, context)?;
    let volumes = (0..summary.root.manifest.volumes.len())
        .map(|index| volume(&summary.root, index))
        .collect();
    Ok(Inspection {
        document: summary.document,
        archive_len: summary.archive_len,
        codec: summary.root.manifest.codec.clone(),
        writer: summary.root.manifest.writer.clone(),
        footer: summary.footer,
        volumes,
    })
}

fn volume(root: &RootRecord, index: usize) -> VolumeInspection {
    let stored = root
        .groups_of(index as u16)
        .iter()
        .map(|group| group.cells_len + u64::from(group.index_len))
        .sum();
    VolumeInspection { entry: root.manifest.volumes[index].clone(), stored, map: Vec::new() }
}

/// Shares of blocks, summed up into parts of a volume.
struct Picture {
    blocks: u64,
    sums: Vec<(f64, f64)>,
}

impl Picture {
    fn new(blocks: u64) -> Self {
        Self { blocks, sums: vec![(0.0, 0.0); blocks.clamp(1, MAP_CELLS) as usize] }
    }

    /// Spreads counts over the parts that blocks `first .. first + len` touch.
    fn add(&mut self, first: u64, len: u64, data: u64, zero: u64) {
        let end = (first + len).min(self.blocks);
        let parts = self.sums.len() as u64;
        let (from, to) =
            (first * parts / self.blocks, (end * parts).div_ceil(self.blocks).min(parts));
        let width = (end - first) as f64;
        for part in from..to {
            let (start, stop) = (part * self.blocks / parts, (part + 1) * self.blocks / parts);
            let overlap = end.min(stop).saturating_sub(first.max(start)) as f64 / width;
            let sum = &mut self.sums[part as usize];
            sum.0 += data as f64 * overlap;
            sum.1 += zero as f64 * overlap;
        }
    }

    fn finish(self) -> Vec<MapCell> {
        let parts = self.sums.len() as u64;
        let width = |part: u64| {
            ((part + 1) * self.blocks / parts - part * self.blocks / parts).max(1) as f64
        };
        let cell = |(part, (data, zero)): (usize, &(f64, f64))| {
            let width = width(part as u64);
            MapCell { data: (data / width).min(1.0) as f32, zero: (zero / width).min(1.0) as f32 }
        };
        self.sums.iter().enumerate().map(cell).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_shows_where_the_data_is() {
        let mut picture = Picture::new(1024);
        picture.add(0, 8, 8, 0);
        picture.add(512, 8, 0, 4);
        let map = picture.finish();
        assert_eq!(map.len(), 128);
        assert_eq!(map[0], MapCell { data: 1.0, zero: 0.0 });
        assert_eq!(map[1], MapCell::default());
        assert_eq!(map[64], MapCell { data: 0.0, zero: 0.5 });
    }

    #[test]
    fn a_volume_of_a_few_blocks_has_a_small_picture() {
        let mut picture = Picture::new(3);
        picture.add(0, 8, 2, 1);
        let map = picture.finish();
        assert_eq!(map.len(), 3);
        assert!(map.iter().all(|cell| cell.data > 0.6 && cell.zero > 0.3));
    }
}
