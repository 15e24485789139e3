//! The stored blocks of a volume: one bit a block, for groups that have any.
//!
//! Memory: 4 KiB for each non-empty group and as much again if it has fill blocks, so at most 32
//! MiB for 64 TiB, however fragmented. It does not know which blocks are zero.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::{
    BLOCK_BYTES, Bitmap8, BlockIndex, CELL_BLOCKS, CELLS_PER_GROUP, CellAddress, GROUP_BLOCKS,
    VolumeSize,
};

/// More extents than this and gaps are filled. Go's reader stops at 42,991, bsdtar's at more (5.3).
const EXTENT_CAP: usize = 32_768;
/// The widest gap worth filling, in blocks.
const MAX_FILLED_GAP: u32 = 64;

/// The stored blocks of one volume. Clones share the bitmaps that neither of them changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockMap {
    size: VolumeSize,
    groups: BTreeMap<u32, Group>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    present: Arc<[Bitmap8]>,
    fill: Option<Arc<[Bitmap8]>>,
}

impl Group {
    fn empty() -> Self {
        Self { present: empty_bits(), fill: None }
    }
}

fn empty_bits() -> Arc<[Bitmap8]> {
    Arc::new([0; CELLS_PER_GROUP as usize])
}

/// The bitmaps of one cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CellBits {
    /// Blocks in the cell.
    pub present: Bitmap8,
    /// Blocks of the cell that are absent in the source.
    pub fill: Bitmap8,
}

/// A run of stored blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first block.
    pub first: u32,
    /// How many; at least 1.
    pub count: u32,
}

impl Extent {
    /// The block after the last.
    pub fn end(self) -> u32 {
        self.first + self.count
    }
}

impl BlockMap {
    /// Bytes of memory for a group; twice as many if it has fill blocks.
    pub const BITMAP_MEMORY: u64 = CELLS_PER_GROUP as u64;

    /// A map without blocks.
    pub fn new(size: VolumeSize) -> Self {
        Self { size, groups: BTreeMap::new() }
    }

    /// The size of the volume.
    pub fn size(&self) -> VolumeSize {
        self.size
    }

    /// Adds blocks `first .. first + count`; those beyond the end of the volume are left out.
    pub fn insert(&mut self, first: u32, count: u32) {
        self.for_cells(first, count, |group, cell, bits| group.present_mut()[cell] |= bits);
    }

    /// Removes a block.
    pub fn remove(&mut self, block: BlockIndex) {
        let address = block.cell();
        if let Some(group) = self.groups.get_mut(&address.group) {
            group.present_mut()[usize::from(address.index)] &= !(1 << block.bit());
            if group.present.iter().all(|bits| *bits == 0) {
                self.groups.remove(&address.group);
            }
        }
    }

    /// Sets the bitmaps of one cell.
    pub fn set(&mut self, address: CellAddress, bits: CellBits) {
        let group = self.groups.entry(address.group).or_insert_with(Group::empty);
        group.present_mut()[usize::from(address.index)] = bits.present;
        if bits.fill != 0 || group.fill.is_some() {
            group.fill_mut()[usize::from(address.index)] = bits.fill;
        }
    }

    /// The bitmaps of one cell.
    pub fn get(&self, address: CellAddress) -> CellBits {
        self.groups
            .get(&address.group)
            .map_or_else(CellBits::default, |group| group.bits(usize::from(address.index)))
    }

    /// The cells that have stored blocks, ascending.
    pub fn cells(&self) -> impl Iterator<Item = (CellAddress, CellBits)> + '_ {
        self.groups.keys().flat_map(|group| self.cells_of(*group))
    }

    /// The groups that have stored blocks, ascending.
    pub fn groups(&self) -> impl Iterator<Item = u32> + '_ {
        self.groups.keys().copied()
    }

    /// The cells of one group that have stored blocks, ascending.
    pub fn cells_of(&self, group: u32) -> impl Iterator<Item = (CellAddress, CellBits)> + '_ {
        let bits = self.groups.get(&group);
        (0..CELLS_PER_GROUP as u16).filter_map(move |cell| {
            let bits = bits?.bits(usize::from(cell));
            (bits.present != 0).then_some((CellAddress { group, index: cell }, bits))
        })
    }

    /// How many blocks are stored, fill included.
    pub fn stored_blocks(&self) -> u64 {
        self.groups.values().map(|group| count(&group.present)).sum()
    }

    /// How many blocks are fill.
    pub fn fill_blocks(&self) -> u64 {
        self.groups.values().filter_map(|group| group.fill.as_deref()).map(count).sum()
    }

    /// Bytes of all stored blocks: the length of the tar member.
    pub fn stored_bytes(&self) -> u64 {
        let last = BlockIndex(self.size.blocks() - 1);
        let whole = self.stored_blocks() * BLOCK_BYTES;
        if self.get(last.cell()).present >> last.bit() & 1 == 1 {
            whole - BLOCK_BYTES + self.size.block_len(last)
        } else {
            whole
        }
    }

    /// Runs of stored blocks, ascending and coalesced.
    pub fn extents(&self) -> impl Iterator<Item = Extent> + '_ {
        let mut runs = self
            .cells()
            .flat_map(|(address, bits)| runs_of(address.first_block().0, bits.present))
            .peekable();
        std::iter::from_fn(move || {
            let mut extent = runs.next()?;
            while let Some(next) = runs.next_if(|next| next.first == extent.end()) {
                extent.count += next.count;
            }
            Some(extent)
        })
    }

    /// Bytes of memory that the map takes.
    pub fn memory(&self) -> u64 {
        let bitmaps = self.groups.values().map(|group| 1 + u64::from(group.fill.is_some()));
        bitmaps.sum::<u64>() * Self::BITMAP_MEMORY
    }

    /// Turns short gaps into fill blocks if there are more extents than common tar readers accept
    /// (5.3). The result depends on the map alone.
    pub fn fill_gaps(&mut self) {
        self.fill_gaps_above(EXTENT_CAP);
    }

    fn fill_gaps_above(&mut self, cap: usize) {
        // `narrower[i]` gaps are at most 2^i blocks wide.
        let (mut extents, mut narrower, mut last) = (0, [0usize; 7], None);
        for extent in self.extents() {
            if let Some(end) = last.replace(extent.end()) {
                for (exponent, gaps) in narrower.iter_mut().enumerate() {
                    *gaps += usize::from(extent.first - end <= 1 << exponent);
                }
            }
            extents += 1;
        }
        if extents <= cap {
            return;
        }
        let Some(exponent) = narrower.iter().position(|gaps| extents - gaps <= cap) else { return };
        debug_assert!(1 << exponent <= MAX_FILLED_GAP);
        // A group at a time: a list of all gaps could be larger than the map.
        let groups: Vec<u32> = self.groups().collect();
        let mut last = None;
        for group in groups {
            let mut gaps = Vec::new();
            for extent in self
                .cells_of(group)
                .flat_map(|(address, bits)| runs_of(address.first_block().0, bits.present))
            {
                if let Some(end) = last
                    .replace(extent.end())
                    .filter(|end| (1..=1 << exponent).contains(&(extent.first - end)))
                {
                    gaps.push((end, extent.first - end));
                }
            }
            for (first, count) in gaps {
                self.for_cells(first, count, |group, cell, bits| {
                    group.present_mut()[cell] |= bits;
                    group.fill_mut()[cell] |= bits;
                });
            }
        }
    }

    fn for_cells(
        &mut self,
        first: u32,
        count: u32,
        mut change: impl FnMut(&mut Group, usize, Bitmap8),
    ) {
        let end = first.saturating_add(count).min(self.size.blocks());
        let mut block = first;
        while block < end {
            let address = BlockIndex(block).cell();
            let group = self.groups.entry(address.group).or_insert_with(Group::empty);
            let group_end = end.min((address.group + 1).saturating_mul(GROUP_BLOCKS));
            while block < group_end {
                let bit = block % CELL_BLOCKS;
                let run = (group_end - block).min(CELL_BLOCKS - bit);
                let bits = (((1u16 << run) - 1) << bit) as Bitmap8;
                change(group, (block % GROUP_BLOCKS / CELL_BLOCKS) as usize, bits);
                block += run;
            }
        }
    }
}

impl Group {
    fn present_mut(&mut self) -> &mut [Bitmap8] {
        Arc::make_mut(&mut self.present)
    }

    fn fill_mut(&mut self) -> &mut [Bitmap8] {
        Arc::make_mut(self.fill.get_or_insert_with(empty_bits))
    }

    fn bits(&self, cell: usize) -> CellBits {
        CellBits {
            present: self.present[cell],
            fill: self.fill.as_ref().map_or(0, |fill| fill[cell]),
        }
    }
}

fn count(bits: &[Bitmap8]) -> u64 {
    bits.iter().map(|byte| u64::from(byte.count_ones())).sum()
}

/// The runs of set bits, as extents that start at block `first`.
fn runs_of(first: u32, bits: Bitmap8) -> impl Iterator<Item = Extent> {
    let mut rest = u32::from(bits);
    std::iter::from_fn(move || {
        if rest == 0 {
            return None;
        }
        let start = rest.trailing_zeros();
        let count = (rest >> start).trailing_ones();
        rest &= !(((1 << count) - 1) << start);
        Some(Extent { first: first + start, count })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(blocks: u64) -> VolumeSize {
        VolumeSize::new(blocks * BLOCK_BYTES).expect("a size")
    }

    fn extents(map: &BlockMap) -> Vec<(u32, u32)> {
        map.extents().map(|extent| (extent.first, extent.count)).collect()
    }

    #[test]
    fn extents_are_coalesced_over_cells_and_groups() {
        let mut map = BlockMap::new(size(100_000));
        map.insert(5, 20);
        map.insert(25, 1);
        map.insert(32_760, 16);
        map.insert(99_999, 10);
        assert_eq!(extents(&map), [(5, 21), (32_760, 16), (99_999, 1)]);
        assert_eq!(map.stored_blocks(), 38);
        map.remove(BlockIndex(99_999));
        assert_eq!(extents(&map), [(5, 21), (32_760, 16)]);
        assert_eq!(map.groups().collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn a_short_last_block_counts_its_own_bytes() {
        let mut map = BlockMap::new(VolumeSize::new(3 * BLOCK_BYTES + 1024).expect("a size"));
        map.insert(0, 1);
        assert_eq!(map.stored_bytes(), BLOCK_BYTES);
        map.insert(3, 1);
        assert_eq!(map.stored_bytes(), BLOCK_BYTES + 1024);
    }

    #[test]
    fn the_narrowest_gaps_that_suffice_are_filled() {
        let mut map = BlockMap::new(size(1000));
        for first in [0, 2, 4, 8, 20, 200] {
            map.insert(first, 1);
        }
        let before = map.clone();
        map.fill_gaps_above(6);
        assert_eq!(map, before, "six extents need nothing");
        map.fill_gaps_above(4);
        assert_eq!(extents(&map), [(0, 5), (8, 1), (20, 1), (200, 1)]);
        assert_eq!(map.fill_blocks(), 2);
        assert_eq!(map.get(BlockIndex(0).cell()), CellBits { present: 0b11111, fill: 0b01010 });
    }

    #[test]
    fn gaps_between_groups_are_filled_as_well() {
        let mut map = BlockMap::new(size(100_000));
        map.insert(0, 1);
        map.insert(GROUP_BLOCKS - 2, 1);
        map.insert(GROUP_BLOCKS + 1, 1);
        map.fill_gaps_above(2);
        assert_eq!(extents(&map), [(0, 1), (GROUP_BLOCKS - 2, 4)]);
        assert_eq!(map.fill_blocks(), 2);
        // A hole in every other place becomes one extent.
        let mut dense = BlockMap::new(size(GROUP_BLOCKS.into()));
        (0..GROUP_BLOCKS / 2).for_each(|index| dense.insert(index * 2, 1));
        dense.fill_gaps_above(10);
        assert_eq!(extents(&dense), [(0, GROUP_BLOCKS - 1)]);
    }

    #[test]
    fn gaps_that_do_not_suffice_are_left_alone() {
        let mut map = BlockMap::new(size(100_000));
        for first in 0..20 {
            map.insert(first * 100, 1);
        }
        let before = map.clone();
        map.fill_gaps_above(10);
        assert_eq!(map, before);
    }
}
