//! How large parts are and how many are in memory: a pure function of what may come.

use crate::base::{Error, ErrorKind, Result};

/// S3 numbers parts from 1 to 10,000.
pub const MAX_PARTS: u64 = 10_000;
/// No part but the last may be smaller.
pub const MIN_PART: u64 = 5 << 20;
/// No part may be larger.
const MAX_PART: u64 = 5 << 30;
/// The largest object: 10,000 parts of 5 GiB, 48.8 TiB ("50 TB"). Stores with a lower limit refuse the first part beyond it.
pub const MAX_OBJECT: u64 = MAX_PARTS * MAX_PART;
/// Parts of small archives: small enough to lose little when a link breaks, large enough that a request hardly matters.
const USUAL_PART: u64 = 8 << 20;
/// Parts under way that use a link well.
const WANTED: u64 = 8;

/// How an archive is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartPlan {
    /// Bytes of each part but the last.
    pub part_size: u64,
    /// Parts in memory at once: one that is filled, the others on their way.
    pub parts: u64,
}

impl PartPlan {
    /// Cuts an archive of at most `at_most` bytes, with at most `memory` bytes of parts. All parts have one size, whatever is stored, so that an interrupted upload is continued where it was cut.
    pub fn new(at_most: u64, memory: u64) -> Result<Self> {
        if at_most > MAX_OBJECT {
            return Err(Error::new(ErrorKind::Limit, "the archive may become larger than an object can be (10,000 parts of 5 GiB)")
                .at("bytes_at_most", at_most)
                .at("limit", MAX_OBJECT));
        }
        Self::of_size(part_size(at_most), memory)
    }

    /// The least memory for parts of an archive of at most `at_most` bytes: one part that is filled, and one on its way.
    pub fn least_memory(at_most: u64) -> u64 {
        2 * part_size(at_most)
    }

    /// The same with parts of a size that was asked for. Stores other than S3 (`compatible`) may take smaller ones.
    pub fn with_parts_of(part_size: u64, at_most: u64, memory: u64, compatible: bool) -> Result<Self> {
        let wrong = |what: &'static str| Error::usage(what).at("part_size", part_size).at("bytes_at_most", at_most);
        let least = if compatible { 1 } else { MIN_PART };
        if !(least..=MAX_PART).contains(&part_size) {
            return Err(wrong("a part has 5 MiB to 5 GiB"));
        }
        if at_most > part_size.saturating_mul(MAX_PARTS) {
            return Err(wrong("10,000 parts of this size may not suffice for the archive"));
        }
        Self::of_size(part_size, memory)
    }

    /// The same for parts of a size that is given, because an upload was begun with it.
    pub fn of_size(part_size: u64, memory: u64) -> Result<Self> {
        let parts = memory / part_size;
        if parts < 2 {
            return Err(Error::new(ErrorKind::Limit, "the memory budget is too small for the parts of an archive of this size")
                .at("part_size", part_size)
                .at("missing_bytes", 2 * part_size - memory));
        }
        Ok(Self { part_size, parts: parts.min(WANTED + 1) })
    }

    /// Memory it takes.
    pub fn memory(&self) -> u64 {
        self.part_size * self.parts
    }
}

/// So large that 10,000 parts suffice, in whole MiB.
fn part_size(at_most: u64) -> u64 {
    at_most.div_ceil(MAX_PARTS).next_multiple_of(1 << 20).max(USUAL_PART)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_parts_always_suffice() {
        const TIB: u64 = 1 << 40;
        for at_most in [1, MIN_PART, 78 << 30, (78 << 30) + 1, 625 << 30, 5 * TIB, 48 * TIB, MAX_OBJECT] {
            let plan = PartPlan::new(at_most, 1 << 40).expect("a plan");
            assert!(plan.part_size * MAX_PARTS >= at_most, "{at_most}");
            assert!((MIN_PART..=MAX_PART).contains(&plan.part_size), "{at_most}");
        }
        assert_eq!(PartPlan::new(MAX_OBJECT + 1, 1 << 40).expect_err("too large").kind(), ErrorKind::Limit);
    }

    #[test]
    fn a_size_that_is_asked_for_has_to_suffice() {
        assert!(PartPlan::with_parts_of(1 << 10, 1 << 20, 1 << 20, true).is_ok());
        assert_eq!(PartPlan::with_parts_of(MIN_PART, 1 << 30, 128 << 20, false).expect("a plan").part_size, MIN_PART);
        for (size, at_most) in [(MIN_PART - 1, 1), (MAX_PART + 1, 1), (MIN_PART, MIN_PART * MAX_PARTS + 1)] {
            assert_eq!(PartPlan::with_parts_of(size, at_most, 1 << 40, false).expect_err("refused").kind(), ErrorKind::Usage);
        }
    }

    #[test]
    fn small_archives_have_small_parts_and_memory_bounds_their_number() {
        assert_eq!(PartPlan::new(1 << 30, 128 << 20).expect("a plan"), PartPlan { part_size: 8 << 20, parts: 9 });
        assert_eq!(PartPlan::new(1 << 30, 32 << 20).expect("a plan"), PartPlan { part_size: 8 << 20, parts: 4 });
        let error = PartPlan::new(5 << 40, 128 << 20).expect_err("525 MiB a part");
        assert_eq!((error.kind(), error.fact("missing_bytes").is_some()), (ErrorKind::Limit, true));
    }
}
