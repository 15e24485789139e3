//! Size and number of the parts in memory: a pure function of the object's largest length.

use crate::base::{Error, ErrorCode, ErrorKind, Result};

/// S3 numbers parts from 1 to 10,000.
pub const MAX_PARTS: u64 = 10_000;
/// No part but the last may be smaller.
pub const MIN_PART: u64 = 5 << 20;
/// No part may be larger.
const MAX_PART: u64 = 5 << 30;
/// The largest object: 10,000 parts of 5 GiB, 48.8 TiB ("50 TB"). Stores with a lower limit refuse
/// the first part beyond it.
pub const MAX_OBJECT: u64 = MAX_PARTS * MAX_PART;
/// Parts in flight that use a connection well: 80 MiB at 100 ms are 800 MiB a second.
const IN_FLIGHT: u64 = 16;

/// The cuts of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartPlan {
    /// Bytes of each part but the last.
    pub part_size: u64,
    /// Parts in memory: one that is filled, the others in flight.
    pub parts: u64,
}

impl PartPlan {
    /// Plans for an archive of at most `at_most` bytes, with `memory` bytes for parts. All parts
    /// have one size that does not depend on the data, so every run cuts at the same positions.
    pub fn new(at_most: u64, memory: u64) -> Result<Self> {
        if at_most > MAX_OBJECT {
            return Err(Error::new(
                ErrorKind::Limit,
                "the archive may become larger than an object can be (10,000 parts of 5 GiB)",
            )
            .at("bytes_at_most", at_most)
            .at("limit", MAX_OBJECT));
        }
        Self::of_size(part_size(at_most), memory)
    }

    /// Plans with a given part size. Stores other than S3 (`compatible`) may accept smaller ones
    /// than 5 MiB.
    pub fn with_parts_of(
        part_size: u64,
        at_most: u64,
        memory: u64,
        compatible: bool,
    ) -> Result<Self> {
        let wrong = |what: &'static str| {
            Error::usage(what).at("part_size", part_size).at("bytes_at_most", at_most)
        };
        let least = if compatible { 1 } else { MIN_PART };
        if !(least..=MAX_PART).contains(&part_size) {
            return Err(wrong("a part has 5 MiB to 5 GiB"));
        }
        if at_most > part_size.saturating_mul(MAX_PARTS) {
            return Err(wrong("10,000 parts of this size may not suffice for the archive"));
        }
        Self::of_size(part_size, memory)
    }

    /// Plans with the part size of an upload that was begun.
    pub fn of_size(part_size: u64, memory: u64) -> Result<Self> {
        let parts = memory / part_size;
        if parts < 2 {
            return Err(Error::new(
                ErrorKind::Limit,
                "the memory budget is too small for the parts of an archive of this size",
            )
            .code_as(ErrorCode::MemoryForParts)
            .at("part_size", part_size)
            .at("missing_bytes", 2 * part_size - memory));
        }
        Ok(Self { part_size, parts: parts.min(IN_FLIGHT + 1) })
    }

    /// The length to plan the part size for, so that the part numbers suffice for so many segments:
    /// each may end with a part that is not full, and has a number for its border.
    pub fn with_borders(at_most: u64, segments: usize) -> u64 {
        let borders = if segments > 1 { 2 * segments as u64 } else { 0 };
        (u128::from(at_most) * u128::from(MAX_PARTS)
            / u128::from(MAX_PARTS - borders.min(MAX_PARTS - 1)))
        .min(u64::MAX.into()) as u64
    }

    /// The number of the first part of each segment, from the upper bounds of their lengths. The
    /// number below it is reserved for the part across the border.
    pub fn numbers(&self, segments: &[u64]) -> Result<Vec<u32>> {
        let mut numbers = vec![1];
        let mut next = 1;
        for (index, longest) in segments.iter().enumerate() {
            next += longest.div_ceil(self.part_size) + 1;
            let limit = MAX_PARTS + 1 + u64::from(index + 1 == segments.len());
            if next > limit {
                return Err(Error::new(
                    ErrorKind::Limit,
                    "10,000 parts of this size may not suffice for a parallel upload",
                )
                .code_as(ErrorCode::PartsTooSmall)
                .at("part_size", self.part_size)
                .at("segments", segments.len()));
            }
            if index + 1 < segments.len() {
                numbers.push(next as u32);
            }
        }
        Ok(numbers)
    }

    /// The number of segments, at most `segments`, that `memory` suffices for, and the number of
    /// parts in flight: each segment has its first part and the one that is filled in memory, three
    /// segments have one in flight at least, and one more is needed while a border is joined.
    pub fn workers(&self, memory: u64, segments: usize) -> (usize, usize) {
        let buffers = memory / self.part_size;
        let workers = (buffers.saturating_sub(1) * 3 / 7).clamp(1, segments.max(1) as u64);
        let flights = buffers.saturating_sub(2 * workers + 1).clamp(1, IN_FLIGHT);
        (workers as usize, flights as usize)
    }

    /// The size of parts that is planned for an archive of at most `at_most` bytes.
    pub fn size_for(at_most: u64) -> u64 {
        part_size(at_most)
    }
}

/// The smallest part size for which 10,000 parts suffice, in whole MiB: several parts are in memory
/// for each segment, and less is lost when a connection breaks.
fn part_size(at_most: u64) -> u64 {
    at_most.div_ceil(MAX_PARTS).next_multiple_of(1 << 20).max(MIN_PART)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_parts_always_suffice() {
        const TIB: u64 = 1 << 40;
        for at_most in
            [1, MIN_PART, 78 << 30, (78 << 30) + 1, 625 << 30, 5 * TIB, 48 * TIB, MAX_OBJECT]
        {
            let plan = PartPlan::new(at_most, 1 << 40).expect("a plan");
            assert!(plan.part_size * MAX_PARTS >= at_most, "{at_most}");
            assert!((MIN_PART..=MAX_PART).contains(&plan.part_size), "{at_most}");
        }
        assert_eq!(
            PartPlan::new(MAX_OBJECT + 1, 1 << 40).expect_err("too large").kind(),
            ErrorKind::Limit
        );
    }

    #[test]
    fn a_given_size_has_to_suffice() {
        assert!(PartPlan::with_parts_of(1 << 10, 1 << 20, 1 << 20, true).is_ok());
        assert_eq!(
            PartPlan::with_parts_of(MIN_PART, 1 << 30, 128 << 20, false).expect("a plan").part_size,
            MIN_PART
        );
        for (size, at_most) in
            [(MIN_PART - 1, 1), (MAX_PART + 1, 1), (MIN_PART, MIN_PART * MAX_PARTS + 1)]
        {
            assert_eq!(
                PartPlan::with_parts_of(size, at_most, 1 << 40, false).expect_err("refused").kind(),
                ErrorKind::Usage
            );
        }
    }

    #[test]
    fn segments_have_numbers_of_their_own() {
        let plan = PartPlan::of_size(10, 100).expect("a plan");
        assert_eq!(plan.numbers(&[]).expect("numbers"), [1]);
        assert_eq!(plan.numbers(&[25]).expect("numbers"), [1]);
        // 1 to 3 and the border, 5 and the border, 7 and so on.
        assert_eq!(plan.numbers(&[25, 10, 1]).expect("numbers"), [1, 5, 7]);
        for (count, at_most) in [(2, 78u64 << 30), (64, 5 << 40), (64, 1 << 20), (1, 48 << 40)] {
            let each = at_most / count;
            let segments = vec![each; count as usize];
            let size = part_size(PartPlan::with_borders(at_most, segments.len()));
            let numbers = PartPlan::of_size(size, 2 * size)
                .expect("a plan")
                .numbers(&segments)
                .expect("enough");
            let parts = each.div_ceil(size) as u32;
            assert!(
                numbers.windows(2).all(|pair| pair[1] - pair[0] == parts + 1)
                    && numbers[numbers.len() - 1] + parts <= 10_001
            );
        }
        assert_eq!(plan.numbers(&[60_000, 60_000]).expect_err("too many").kind(), ErrorKind::Limit);
        assert_eq!(
            (plan.workers(60, 9), plan.workers(96, 9), plan.workers(20, 9)),
            ((2, 1), (3, 2), (1, 1))
        );
        // Memory that no segment needs is for parts in flight.
        assert_eq!(
            (plan.workers(160, 9), plan.workers(160, 4), plan.workers(160, 2)),
            ((6, 3), (4, 7), (2, 11))
        );
    }

    #[test]
    fn small_archives_have_small_parts_and_memory_bounds_their_number() {
        assert_eq!(
            PartPlan::new(1 << 30, 128 << 20).expect("a plan"),
            PartPlan { part_size: 5 << 20, parts: 17 }
        );
        assert_eq!(
            PartPlan::new(1 << 30, 32 << 20).expect("a plan"),
            PartPlan { part_size: 5 << 20, parts: 6 }
        );
        let error = PartPlan::new(5 << 40, 128 << 20).expect_err("525 MiB a part");
        assert_eq!((error.kind(), error.fact("missing_bytes").is_some()), (ErrorKind::Limit, true));
    }
}
