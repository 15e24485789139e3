//! The memory budget: one pure function divides `--memory` among everything that takes memory while
//! an operation runs.
//!
//! | share | bytes |
//! |---|---|
//! | the program | 16 MiB |
//! | block maps that stay in memory | their size |
//! | EBS connections that bring blocks | an eighth of the rest: one holds 64 KiB beside its block |
//! | parts of an upload | three eighths of the rest, or two parts, if those are larger |
//! | blocks on their way to EBS | three eighths of the rest |
//! | connections that bring an archive | an eighth of the rest |
//! | threads: buffers and compression | 8 MiB and more each, by level |
//! | data in flight | what is left: blocks and cells being read, packed, unpacked, sent |
//!
//! Three eighths is the share of one transfer direction: a quarter leaves a fast network idle, and
//! half leaves too little in flight for two threads at the default of 256 MiB.

use crate::base::{Error, ErrorCode, ErrorKind, Result};
use crate::format::FrameLog;
use crate::format::layout::{DATA_FRAME_RAW, MAX_CELL, MAX_SEEK_FRAMES};

/// 256 MiB: the default of `--memory`.
pub const DEFAULT_MEMORY: u64 = 256 << 20;

/// The program itself (measured: a pack of nothing peaks at 6 MiB), one window's index, and memory
/// that the allocator does not return.
const BASE: u64 = 16 << 20;
/// The buffers of a thread: raw data of a slot and a frame, or a group of cells as read and one
/// inflated.
const WORKER: u64 = DATA_FRAME_RAW as u64 + MAX_CELL as u64;
/// Cells in flight for each thread: one in work, one ready for it, one on its way out.
const CELLS: u64 = 3;
/// Cells in flight for each thread where both ends are files: a longer queue hides no latency, and
/// each buffer more is memory that is touched for the first time.
const CELLS_OF_FILES: u64 = 8;
/// The least bytes in flight beside block maps and seek tables.
pub(super) const IN_FLIGHT_FLOOR: u64 = 2 * MAX_CELL as u64;
/// The step in which memory that is too little is raised until it suffices: people give MiB.
const STEP: u64 = 1 << 20;

/// Threads and memory of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    /// Threads that compute, at most.
    pub threads: usize,
    /// Bytes: `--memory`.
    pub memory: u64,
}

/// Connections that bring data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Incoming {
    /// None: files and pipes.
    #[default]
    Local,
    /// Ranges of an archive in a remote store.
    Archive,
    /// Blocks of EBS snapshots.
    Blocks,
    /// Both: an archive is compared with its snapshots.
    Both,
}

/// The uses of memory of an operation, beside its threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUses {
    /// Compression level; 0 for operations that do not compress.
    pub level: i32,
    /// Bytes of block maps that stay in memory during the whole operation.
    pub maps: u64,
    /// Bytes of the block map of one volume and of the seek table, taken from the data in flight.
    pub reserve: u64,
    /// Connections that bring data.
    pub incoming: Incoming,
    /// The least bytes for parts of an upload; `None` without an upload.
    pub parts: Option<u64>,
    /// Whether blocks are sent to EBS.
    pub blocks: bool,
}

/// A division of the memory budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySplit {
    /// Bytes of all shares together.
    pub total: u64,
    /// Threads and data in flight.
    pub plan: Plan,
    /// Bytes of block maps that stay in memory.
    pub maps: u64,
    /// Bytes that connections hold.
    pub connections: u64,
    /// Bytes of parts of an upload.
    pub parts: u64,
    /// Bytes of blocks on their way to EBS.
    pub blocks: u64,
}

/// Threads and data in flight of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Threads that compute.
    pub threads: usize,
    /// Bytes of data in flight.
    pub in_flight: u64,
    /// Compression level.
    pub level: i32,
    /// The part of `in_flight` that the block map of a volume and the seek table take.
    pub reserve: u64,
}

impl Resources {
    /// Divides the memory. An error of kind `Limit` if it is too little; its fact `needed` is the
    /// least `--memory` that is not, in whole MiB.
    pub fn split(&self, uses: &MemoryUses) -> Result<MemorySplit> {
        if let Some(split) = self.try_split(uses) {
            return Ok(split);
        }
        let without_upload = MemoryUses { parts: uses.parts.map(|_| 0), ..*uses };
        let without_maps = MemoryUses { maps: 0, reserve: 0, ..*uses };
        let error = if self.try_split(&without_upload).is_some() {
            Error::new(
                ErrorKind::Limit,
                "the memory budget is too small for the parts of an archive of this size",
            )
            .code_as(ErrorCode::MemoryForParts)
            .at("parts_bytes", uses.parts.unwrap_or_default())
        } else if self.try_split(&without_maps).is_some() {
            Error::new(
                ErrorKind::Limit,
                "the memory budget is too small for the block maps and indexes of this image",
            )
            .code_as(ErrorCode::MemoryForIndexes)
            .at("map_bytes", uses.maps + uses.reserve)
        } else {
            Error::new(
                ErrorKind::Limit,
                "the memory budget is too small to work with at this level",
            )
            .code_as(ErrorCode::MemoryForLevel)
            .at("level", uses.level)
        };
        Err(self.too_little(error, uses))
    }

    /// Adds to an error about these uses the memory that there is, and the memory that they need.
    pub fn too_little(&self, error: Error, uses: &MemoryUses) -> Error {
        let needed = Self::least(uses);
        error
            .at("memory", self.memory)
            .at("needed", needed)
            .at("missing_bytes", needed.saturating_sub(self.memory))
            .at("give", format!("--memory {}MiB", needed / STEP))
    }

    /// The least memory for these uses, in whole MiB.
    pub fn least(uses: &MemoryUses) -> u64 {
        let suffices =
            |steps: u64| Self { threads: 1, memory: steps * STEP }.try_split(uses).is_some();
        let (mut too_little, mut enough) = (0, 1);
        while !suffices(enough) && enough < 1 << 40 {
            (too_little, enough) = (enough, 2 * enough);
        }
        // More memory never makes a split fail, so that bisection finds the least.
        while enough - too_little > 1 {
            let middle = too_little.midpoint(enough);
            if suffices(middle) { enough = middle } else { too_little = middle }
        }
        enough * STEP
    }

    fn try_split(&self, uses: &MemoryUses) -> Option<MemorySplit> {
        let least = Plan::least(uses.level, uses.reserve);
        let mut left = self.memory.checked_sub(uses.maps)?;
        let mut take = |share: u64| {
            let taken = share.min(left.saturating_sub(least));
            left -= taken;
            taken
        };
        let of_memory = self.memory - uses.maps;
        let reads_ebs = matches!(uses.incoming, Incoming::Blocks | Incoming::Both);
        let from_ebs = if reads_ebs { take(of_memory / 8) } else { 0 };
        let of_rest = of_memory - from_ebs;
        let parts = uses.parts.map_or(0, |parts| take(three_eighths(of_rest).max(parts)));
        let blocks = if uses.blocks { take(three_eighths(of_rest)) } else { 0 };
        let from_store = match uses.incoming {
            Incoming::Archive | Incoming::Both if uses.blocks || uses.parts.is_none() => {
                take(of_rest / 8)
            }
            _ => 0,
        };
        if parts < uses.parts.unwrap_or(0) {
            return None;
        }
        let plan = Plan::within(self.threads, left, uses.level, uses.reserve)?;
        let connections = from_ebs + from_store;
        let (total, maps) = (self.memory, uses.maps);
        Some(MemorySplit { total, plan, maps, connections, parts, blocks })
    }
}

/// Memory of the seek table of an archive with so many cells: none if it would have too many
/// frames.
pub fn seek_table_memory(cells: u64) -> u64 {
    cells.min(MAX_SEEK_FRAMES / 2) * FrameLog::CELL_MEMORY
}

fn three_eighths(bytes: u64) -> u64 {
    bytes / 8 * 3
}

impl Plan {
    /// Divides `memory` bytes among at most `threads` threads. An error of kind `Limit`, with the
    /// bytes that are `needed`, if it is too little for one.
    pub fn new(threads: usize, memory: u64, level: i32) -> Result<Self> {
        Self::within(threads, memory, level, 0).ok_or_else(|| {
            Error::new(
                ErrorKind::Limit,
                "the memory budget is too small to work with at this level",
            )
            .code_as(ErrorCode::MemoryForLevel)
            .at("memory", memory)
            .at("needed", Self::least(level, 0))
            .at("level", level)
        })
    }

    /// As many of `threads` as fit into `memory` bytes; `None` if one does not.
    fn within(threads: usize, memory: u64, level: i32, reserve: u64) -> Option<Self> {
        let fits = |threads: u64| {
            let in_flight = memory.checked_sub(BASE + threads * (WORKER + codec_memory(level)))?;
            (in_flight >= least_in_flight(threads, reserve)).then_some(in_flight)
        };
        let most = (memory / (WORKER + codec_memory(level))).clamp(1, threads.max(1) as u64);
        let (threads, in_flight) =
            (1..=most).rev().find_map(|threads| Some((threads, fits(threads)?)))?;
        Some(Self { threads: threads as usize, in_flight, level, reserve })
    }

    /// The least memory for one thread.
    fn least(level: i32, reserve: u64) -> u64 {
        BASE + WORKER + codec_memory(level) + least_in_flight(1, reserve)
    }

    /// The plan for work between files, whatever the memory.
    #[must_use]
    pub fn for_files(&self) -> Self {
        let queue = self.threads as u64 * CELLS_OF_FILES * MAX_CELL as u64;
        Self { in_flight: self.in_flight.min(self.reserve + queue), ..*self }
    }

    /// How many of `count` such operations fit into the memory in parallel, and the plan of each.
    pub fn divided(&self, count: usize) -> (usize, Self) {
        let share = |workers: usize| {
            let threads = (self.threads / workers).max(1);
            let more = (workers * threads).saturating_sub(self.threads) as u64
                * (WORKER + codec_memory(self.level));
            let in_flight = self.in_flight.checked_sub(more)? / workers as u64;
            let enough = in_flight >= least_in_flight(threads as u64, self.reserve);
            enough.then_some((workers, Self { threads, in_flight, ..*self }))
        };
        (2..=count).rev().find_map(share).unwrap_or((1, *self))
    }
}

/// The least bytes in flight: cells for each thread, beside the block map and the seek table.
fn least_in_flight(threads: u64, reserve: u64) -> u64 {
    let floor = if reserve == 0 { 0 } else { reserve + IN_FLIGHT_FLOOR };
    (threads * CELLS * MAX_CELL as u64).max(floor)
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

    const MIB: u64 = 1 << 20;

    fn split(memory: u64, uses: &MemoryUses) -> Result<MemorySplit> {
        Resources { threads: 2, memory }.split(uses)
    }

    /// Uses of every kind of operation.
    fn all_uses() -> Vec<MemoryUses> {
        let mut all = Vec::new();
        for level in [1, 9, 19] {
            for (maps, reserve) in [(0, 0), (MIB, 4096), (64 * MIB, 40 * MIB)] {
                let all_incoming =
                    [Incoming::Local, Incoming::Archive, Incoming::Blocks, Incoming::Both];
                for incoming in all_incoming {
                    for parts in [None, Some(16 * MIB), Some(1050 * MIB)] {
                        for blocks in [false, true] {
                            all.push(MemoryUses { level, maps, reserve, incoming, parts, blocks });
                        }
                    }
                }
            }
        }
        all
    }

    #[test]
    fn the_memory_that_is_needed_suffices_and_a_mebibyte_less_does_not() {
        for uses in all_uses() {
            let error = split(MIB, &uses).expect_err("too little");
            assert_eq!(error.kind(), ErrorKind::Limit);
            let needed: u64 = error.fact("needed").expect("a fact").parse().expect("a number");
            assert!(split(needed, &uses).is_ok(), "{needed} {uses:?}");
            assert!(split(needed - MIB, &uses).is_err(), "{needed} {uses:?}");
        }
    }

    #[test]
    fn shares_add_up_to_the_memory_and_more_memory_never_fails() {
        for uses in all_uses() {
            let least = Resources::least(&uses);
            for memory in [least, least + MIB, least + 17 * MIB, 2 * least, 64 * least] {
                for threads in [1, 2, 8, 200] {
                    let found = Resources { threads, memory }.split(&uses).expect("a split");
                    let MemorySplit { plan, maps, connections, parts, blocks, .. } = found;
                    let fixed = plan.threads as u64 * (WORKER + codec_memory(uses.level));
                    let shares = maps + connections + parts + blocks + plan.in_flight;
                    assert_eq!(BASE + fixed + shares, memory, "{uses:?}");
                    assert!(plan.threads <= threads && parts >= uses.parts.unwrap_or(0));
                    assert!(plan.in_flight >= least_in_flight(plan.threads as u64, uses.reserve));
                }
            }
        }
    }

    #[test]
    fn work_between_files_takes_no_more_memory_than_its_queue() {
        let uses = MemoryUses { level: 1, reserve: 20 * MIB, ..Default::default() };
        let whole = split(1 << 30, &uses).expect("a split").plan;
        let files = whole.for_files();
        assert_eq!(files.in_flight, 20 * MIB + 2 * CELLS_OF_FILES * MAX_CELL as u64);
        assert_eq!(Plan { in_flight: whole.in_flight, ..files }, whole);
        let least = split(Resources::least(&uses), &uses).expect("a split").plan;
        assert_eq!(least.for_files(), least, "little memory stays as it is");
    }

    #[test]
    fn the_readme_says_how_much_memory_parts_take() {
        // Parts of 5 TiB are 525 MiB, and two of them are in memory; of 48.8 TiB 5 GiB.
        for (memory, part) in [(256, 8), (1100, 525), (10_343, 5120)] {
            let uses = MemoryUses { level: 1, parts: Some(2 * part * MIB), ..Default::default() };
            assert!(split(memory * MIB, &uses).is_ok(), "{memory}");
        }
        let uses = MemoryUses { level: 1, parts: Some(2 * 525 * MIB), ..Default::default() };
        let error = split(256 * MIB, &uses).expect_err("too little");
        assert!(error.message().contains("parts"), "{error}");
    }

    #[test]
    fn parallel_operations_stay_within_the_memory_of_one() {
        for (threads, memory) in [(2, 64 * MIB), (2, 256 * MIB), (16, 1 << 30)] {
            let whole = Plan::new(threads, memory, 1).expect("a plan");
            for count in [1, 2, 4, 64] {
                let (workers, plan) = whole.divided(count);
                assert!((1..=count.max(1)).contains(&workers) && plan.threads >= 1);
                let fixed = (workers * plan.threads) as u64 * (WORKER + codec_memory(1));
                assert!(
                    BASE + fixed + workers as u64 * plan.in_flight <= memory,
                    "{workers} {plan:?}"
                );
            }
        }
        assert_eq!(Plan::new(2, 256 * MIB, 1).expect("a plan").divided(4).0, 4);
        let large = Plan { reserve: 60 * MIB, ..Plan::new(2, 256 * MIB, 1).expect("a plan") };
        assert!(large.divided(4).0 < 4, "a block map of 60 MiB for each");
    }

    #[test]
    fn too_little_memory_for_one_thread_is_a_limit() {
        let error = Plan::new(2, 16 * MIB, 1).expect_err("too little");
        assert_eq!(error.kind(), ErrorKind::Limit);
        let needed: u64 = error.fact("needed").expect("a fact").parse().expect("a number");
        assert_eq!(Plan::new(2, needed, 1).expect("just enough").threads, 1);
    }
}
