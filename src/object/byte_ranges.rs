//! The byte ranges of an unfinished object that a store already has.

/// Ascending, disjoint byte ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ByteRanges(Vec<(u64, u64)>);

impl ByteRanges {
    /// Adds the `len` bytes at `offset`, which is at or behind the end of the last range.
    pub fn push(&mut self, offset: u64, len: u64) {
        match self.0.last_mut() {
            Some((_, end)) if *end == offset => *end += len,
            _ => self.0.push((offset, offset + len)),
        }
    }

    /// Whether one range contains all `len` bytes at `offset`.
    pub fn contains(&self, offset: u64, len: u64) -> bool {
        let behind = self.0.partition_point(|(start, _)| *start <= offset);
        behind > 0 && offset + len <= self.0[behind - 1].1
    }

    /// Whether there is no range.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes in all ranges.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_contained_only_as_a_whole() {
        let mut ranges = ByteRanges::default();
        assert!(!ranges.contains(0, 1));
        ranges.push(10, 10);
        ranges.push(20, 5);
        ranges.push(40, 5);
        assert_eq!(ranges.bytes(), 20);
        for (offset, len, expected) in [
            (10, 15, true),
            (9, 2, false),
            (15, 10, true),
            (15, 11, false),
            (24, 17, false),
            (40, 5, true),
            (45, 1, false),
        ] {
            assert_eq!(ranges.contains(offset, len), expected, "{offset} {len}");
        }
    }
}
