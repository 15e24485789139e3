//! How many threads, and what memory is for what: decided before anything starts, by a pure
//! function.

use crate::base::{Error, ErrorCode, ErrorKind, Result};
use crate::format::layout::{DATA_FRAME_RAW, MAX_CELL};

/// 256 MiB: the budget unless another is asked for.
pub const DEFAULT_MEMORY: u64 = 256 << 20;

/// The program itself (measured: a pack of nothing peaks at 6 MiB), one window's index, and what
/// the allocator keeps. Block maps are not in it: they are leased when their size is known.
const BASE: u64 = 16 << 20;
/// What a worker holds: raw data of a slot and a frame, or a group of cells as read and one
/// inflated.
const WORKER: u64 = DATA_FRAME_RAW as u64 + MAX_CELL as u64;
/// In-flight pieces each worker should have: one in work, one ready for it, one on its way out.
const PIECES: u64 = 3;
/// What a block map has to leave of the bytes in flight.
pub(super) const IN_FLIGHT_FLOOR: u64 = 2 * MAX_CELL as u64;

/// Threads and memory of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Worker threads.
    pub threads: usize,
    /// Bytes of archive data that may be in flight.
    pub in_flight: u64,
    /// Compression level when packing.
    pub level: i32,
}

impl Plan {
    /// The least memory that can be worked with at this level.
    pub fn least_memory(level: i32) -> u64 {
        BASE + WORKER + codec_memory(level) + PIECES * MAX_CELL as u64
    }

    /// Divides `memory` bytes. `threads` are what is wanted; there will be fewer if memory does not
    /// suffice for them, and an error of kind `Limit` if it does not suffice for one.
    pub fn new(threads: usize, memory: u64, level: i32) -> Result<Self> {
        let worker = WORKER + codec_memory(level) + PIECES * MAX_CELL as u64;
        let affordable = memory.saturating_sub(BASE) / worker;
        if affordable == 0 {
            return Err(Error::new(
                ErrorKind::Limit,
                "the memory budget is too small to work with at this level",
            )
            .code_as(ErrorCode::MemoryForLevel)
            .at("memory", memory)
            .at("needed", BASE + worker)
            .at("level", level));
        }
        let threads = threads.clamp(1, affordable as usize);
        let in_flight = memory - BASE - threads as u64 * (WORKER + codec_memory(level));
        Ok(Self { threads, in_flight, level })
    }
}

impl Plan {
    /// How many of `wanted` such operations fit side by side into the memory, and the plan of each.
    pub fn divided(&self, wanted: usize) -> (usize, Self) {
        let share = |lanes: usize| {
            let threads = (self.threads / lanes).max(1);
            let more = (lanes * threads).saturating_sub(self.threads) as u64
                * (WORKER + codec_memory(self.level));
            let in_flight = self.in_flight.checked_sub(more)? / lanes as u64;
            let enough = in_flight >= PIECES * MAX_CELL as u64 * threads as u64;
            enough.then_some((lanes, Self { threads, in_flight, level: self.level }))
        };
        (2..=wanted).rev().find_map(share).unwrap_or((1, *self))
    }
}

/// Working memory of an encoder for 4 MiB of data: hash and chain tables of libzstd 1.5.7, rounded
/// up. Measured as the growth of peak RSS a thread over level 1: level 9 8 MiB, 12 40, 13 29, 15
/// 63, 16 30, 19 47.
fn codec_memory(level: i32) -> u64 {
    match level {
        ..=2 => 1 << 20,
        3..=5 => 4 << 20,
        6..=9 => 12 << 20,
        10..=12 => 44 << 20,
        _ => 68 << 20,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_side_by_side_stay_within_the_memory_of_one() {
        for (threads, memory) in [(2, 64u64 << 20), (2, 256 << 20), (16, 1 << 30)] {
            let whole = Plan::new(threads, memory, 1).expect("a plan");
            for wanted in [1, 2, 4, 64] {
                let (lanes, plan) = whole.divided(wanted);
                assert!((1..=wanted.max(1)).contains(&lanes) && plan.threads >= 1);
                let fixed = (lanes * plan.threads) as u64 * (WORKER + codec_memory(1));
                assert!(BASE + fixed + lanes as u64 * plan.in_flight <= memory, "{lanes} {plan:?}");
            }
        }
        assert_eq!(Plan::new(2, 256 << 20, 1).expect("a plan").divided(4).0, 4);
    }

    #[test]
    fn a_plan_stays_within_its_memory() {
        for memory in [48u64 << 20, 64 << 20, 256 << 20, 1 << 30] {
            for threads in [1, 2, 8, 200] {
                for level in [1, 3, 9] {
                    let Ok(plan) = Plan::new(threads, memory, level) else {
                        assert!(memory < 80 << 20);
                        continue;
                    };
                    assert!(plan.threads >= 1 && plan.threads <= threads);
                    let fixed = plan.threads as u64 * (WORKER + codec_memory(level));
                    assert!(BASE + fixed + plan.in_flight <= memory);
                    assert!(plan.in_flight >= plan.threads as u64 * PIECES * MAX_CELL as u64);
                }
            }
        }
    }

    #[test]
    fn too_little_memory_is_a_limit_and_says_how_much_is_needed() {
        let error = Plan::new(2, 16 << 20, 1).expect_err("too little");
        assert_eq!(error.kind(), ErrorKind::Limit);
        let needed: u64 = error.fact("needed").expect("a fact").parse().expect("a number");
        assert_eq!(Plan::new(2, needed, 1).expect("just enough").threads, 1);
    }
}
