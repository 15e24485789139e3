//! Which bytes of an unfinished object are there already.

/// Ranges of bytes, ascending, that do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held(Vec<(u64, u64)>);

impl Held {
    /// Adds the `len` bytes at `offset`, which stand behind all that were added before.
    pub fn push(&mut self, offset: u64, len: u64) {
        match self.0.last_mut() {
            Some((_, end)) if *end == offset => *end += len,
            _ => self.0.push((offset, offset + len)),
        }
    }

    /// Whether all `len` bytes at `offset` are there.
    pub fn contains(&self, offset: u64, len: u64) -> bool {
        let behind = self.0.partition_point(|(start, _)| *start <= offset);
        behind > 0 && offset + len <= self.0[behind - 1].1
    }

    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many bytes are there.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_held_only_as_a_whole() {
        let mut held = Held::default();
        assert!(!held.contains(0, 1));
        held.push(10, 10);
        held.push(20, 5);
        held.push(40, 5);
        assert_eq!(held.bytes(), 20);
        for (offset, len, expected) in [
            (10, 15, true),
            (9, 2, false),
            (15, 10, true),
            (15, 11, false),
            (24, 17, false),
            (40, 5, true),
            (45, 1, false),
        ] {
            assert_eq!(held.contains(offset, len), expected, "{offset} {len}");
        }
    }
}
