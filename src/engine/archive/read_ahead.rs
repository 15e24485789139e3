//! Tells sequential reads from random ones.

use std::sync::{Mutex, PoisonError};

use super::index::CELL_BYTES;

/// Sequences of reads that are followed at a time: a file system has a few, and each of several
/// threads may have one.
const SEQUENCES: usize = 16;
/// Reads that follow one another before the next one is expected. Two could be chance: a file
/// system reads the block behind one that it has just read.
const SEQUENTIAL: u32 = 3;

/// The reads of a volume, as sequences.
#[derive(Default)]
pub(super) struct Sequences(Mutex<Vec<Sequence>>);

struct Sequence {
    /// The end of its last read, in bytes.
    end: u64,
    reads: u32,
    /// The cell of the last byte for which reading ahead was said to be worth it.
    ahead_of: Option<u64>,
}

impl Sequences {
    /// Notes a read of `len` bytes from `offset`, at least one. Returns whether the cells behind it
    /// will probably be read next: true once for each cell that a sequence comes to.
    pub(super) fn note(&self, offset: u64, len: u64) -> bool {
        let mut sequences = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The one that was read last is at the end.
        let mut sequence = match sequences.iter().position(|sequence| sequence.end == offset) {
            Some(position) => sequences.remove(position),
            None => {
                if sequences.len() == SEQUENCES {
                    sequences.remove(0);
                }
                Sequence { end: offset, reads: 0, ahead_of: None }
            }
        };
        sequence.end += len;
        sequence.reads = sequence.reads.saturating_add(1);
        let cell = (sequence.end - 1) / CELL_BYTES;
        let comes_to_it =
            sequence.reads >= SEQUENTIAL && sequence.ahead_of.replace(cell) != Some(cell);
        sequences.push(sequence);
        comes_to_it
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_that_follow_one_another_are_sequential() {
        let sequences = Sequences::default();
        let found = [0, 100, 200, 300].map(|offset| sequences.note(offset, 100));
        assert_eq!(found, [false, false, true, false], "once for the first cell");
        assert!(sequences.note(400, CELL_BYTES), "and once for the next");
        assert!(!sequences.note(0, 100), "a jump begins anew");
    }

    #[test]
    fn sequences_may_be_mixed_with_each_other_and_with_random_reads() {
        let sequences = Sequences::default();
        for read in 0..4 {
            for start in [0, 1 << 30] {
                assert_eq!(sequences.note(start + read * 512, 512), read == 2);
            }
            sequences.note(5 << 30 | read << 20, 512);
        }
    }

    #[test]
    fn a_sequence_that_is_not_continued_is_forgotten() {
        let sequences = Sequences::default();
        for read in 0..3 {
            sequences.note(read * 10, 10);
        }
        for read in 1..=SEQUENCES as u64 {
            sequences.note(read << 30, 10);
        }
        assert!(!sequences.note(30, 10));
    }
}
