//! The ranges of a volume that were not rescued.

use crate::base::{Bitmap8, BlockIndex, CELL_BLOCKS, CELLS_PER_GROUP, CellAddress, VolumeSize};
use crate::format::BlockMap;

/// The most ranges of a volume. Beyond, neighbours are joined.
const MOST: usize = 1 << 16;

/// A range of a volume that lacks blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingRange {
    /// The first byte.
    pub offset: u64,
    /// Bytes from the first missing block to the last one.
    pub len: u64,
    /// Bytes of the blocks that are missing. Less than `len` if blocks between them were never
    /// written, or if a volume has more ranges than are listed.
    pub missing: u64,
    /// The cause.
    pub cause: String,
}

/// Which blocks of a volume were stored, as far as known, and which were rescued.
pub(super) struct Coverage<'a> {
    pub(super) size: VolumeSize,
    pub(super) expected: &'a BlockMap,
    pub(super) rescued: &'a BlockMap,
    /// Whether `expected` has all stored blocks of a group.
    pub(super) is_known: &'a dyn Fn(u32) -> bool,
    /// The cause of damage at a cell.
    pub(super) cause: &'a dyn Fn(CellAddress) -> String,
}

/// The ranges without rescued blocks between two missing ones, ascending. A block of which it is
/// not known whether it was stored counts as missing.
pub(super) fn missing(coverage: &Coverage<'_>) -> Vec<MissingRange> {
    let (size, mut ranges) = (coverage.size, Vec::<MissingRange>::new());
    let mut open = false;
    for group in 0..size.groups() {
        let is_known = (coverage.is_known)(group);
        for index in 0..CELLS_PER_GROUP as u16 {
            let address = CellAddress { group, index };
            let inside = size.cell_mask(address);
            if inside == 0 {
                break;
            }
            let rescued = coverage.rescued.get(address).present;
            let stored: Bitmap8 =
                if is_known { coverage.expected.get(address).present } else { inside };
            let lost = stored & !rescued;
            if lost == 0 && rescued == 0 {
                continue;
            }
            for bit in 0..CELL_BLOCKS {
                let block = BlockIndex(address.first_block().0 + bit);
                if rescued >> bit & 1 == 1 {
                    open = false;
                } else if lost >> bit & 1 == 1 {
                    let (offset, len) = (block.offset(), size.block_len(block));
                    match ranges.last_mut().filter(|_| open) {
                        Some(range) => {
                            range.len = offset + len - range.offset;
                            range.missing += len;
                        }
                        None => {
                            let cause = (coverage.cause)(address);
                            ranges.push(MissingRange { offset, len, missing: len, cause });
                        }
                    }
                    open = true;
                }
            }
            if ranges.len() > MOST {
                ranges = joined(ranges);
            }
        }
    }
    ranges
}

/// Half as many ranges.
fn joined(ranges: Vec<MissingRange>) -> Vec<MissingRange> {
    let mut all = ranges.into_iter();
    let mut halved = Vec::with_capacity(MOST / 2 + 1);
    while let Some(mut range) = all.next() {
        if let Some(next) = all.next() {
            range.len = next.offset + next.len - range.offset;
            range.missing += next.missing;
        }
        halved.push(range);
    }
    halved
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::BLOCK_BYTES;

    fn ranges(size: u64, expected: &[(u32, u32)], rescued: &[(u32, u32)]) -> Vec<(u64, u64, u64)> {
        let size = VolumeSize::new(size).expect("a size");
        let map = |extents: &[(u32, u32)]| {
            let mut map = BlockMap::new(size);
            for (first, count) in extents {
                map.insert(*first, *count);
            }
            map
        };
        let (is_known, cause) = (|group| group == 0, |_| String::new());
        let coverage = Coverage {
            size,
            expected: &map(expected),
            rescued: &map(rescued),
            is_known: &is_known,
            cause: &cause,
        };
        let blocks = |range: MissingRange| {
            (range.offset / BLOCK_BYTES, range.len.div_ceil(BLOCK_BYTES), range.missing)
        };
        missing(&coverage).into_iter().map(blocks).collect()
    }

    #[test]
    fn a_range_goes_on_over_blocks_that_were_never_written_and_ends_at_rescued_ones() {
        const BLOCK: u64 = BLOCK_BYTES;
        assert_eq!(
            ranges(100 * BLOCK, &[(1, 3), (20, 30)], &[(2, 1), (30, 2)]),
            [(1, 1, BLOCK), (3, 27, 11 * BLOCK), (32, 18, 18 * BLOCK)]
        );
        assert_eq!(ranges(100 * BLOCK, &[(1, 3)], &[(1, 3)]), []);
        // The last block is short.
        assert_eq!(ranges(9 * BLOCK + 512, &[(8, 2)], &[]), [(8, 2, BLOCK + 512)]);
    }

    #[test]
    fn all_of_a_group_is_missing_if_its_blocks_are_not_known() {
        let group = 32_768 * BLOCK_BYTES;
        assert_eq!(
            ranges(2 * group, &[], &[(40_000, 1)]),
            [(32_768, 7_232, 7_232 * BLOCK_BYTES), (40_001, 25_535, 25_535 * BLOCK_BYTES)]
        );
    }

    #[test]
    fn the_list_has_an_end_and_its_sum_stays_right() {
        let expected: Vec<_> = (0..200_000).map(|at| (at * 4, 1)).collect();
        let rescued: Vec<_> = (0..200_000).map(|at| (at * 4 + 2, 1)).collect();
        let mut last = BlockMap::new(VolumeSize::new(1 << 40).expect("a size"));
        for (first, count) in &expected {
            last.insert(*first, *count);
        }
        let mut saved = BlockMap::new(last.size());
        for (first, count) in &rescued {
            saved.insert(*first, *count);
        }
        let coverage = Coverage {
            size: last.size(),
            expected: &last,
            rescued: &saved,
            is_known: &|_| true,
            cause: &|_| String::new(),
        };
        let found = missing(&coverage);
        assert!(found.len() <= MOST, "{}", found.len());
        assert_eq!(found.iter().map(|range| range.missing).sum::<u64>(), 200_000 * BLOCK_BYTES);
    }
}
