//! What the EBS direct APIs allow an account, and what they cost.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;

use super::super::limits::RequestRate;
use crate::base::{BLOCK_BYTES, Error, ErrorCode};

/// GetSnapshotBlock or PutSnapshotBlock requests a second for one snapshot; cannot be raised. (EBS
/// user guide, "Amazon EBS resource quotas".)
const PER_SNAPSHOT: f64 = 1000.0;
/// The same for an account, and in the Regions that allow more.
const PER_ACCOUNT: f64 = 1000.0;
const PER_ACCOUNT_IN_LARGE_REGIONS: f64 = 5000.0;
const LARGE_REGIONS: [&str; 5] =
    ["us-east-1", "us-east-2", "us-west-2", "ap-southeast-1", "eu-west-1"];
/// ListSnapshotBlocks requests a second for an account.
const LISTS: f64 = 50.0;
/// How much of a quota is used: clocks and networks are not exact, and a throttled request costs
/// more than one that waited.
const USED: f64 = 0.99;
/// Blocks that one ListSnapshotBlocks request names at most.
pub(super) const PAGE_BLOCKS: u32 = 10_000;

/// What all transfers of one kind with one account share: its limits, and buffers that go round.
/// Clones share them.
#[derive(Clone, Debug)]
pub struct Quotas {
    /// Touching fresh memory costs more than filling it.
    pub(super) spare: SpareBlocks,
    account: RequestRate,
    lists: RequestRate,
    per_snapshot: f64,
}

impl Quotas {
    /// Those of a Region. `account` is what the account's quota allows, if it is not the usual one:
    /// requests a second.
    pub fn new(region: &str, account: Option<u32>) -> Self {
        let account = account_rate(region, account);
        Self {
            spare: SpareBlocks::default(),
            account: RequestRate::new(account * USED),
            lists: RequestRate::new(LISTS * USED),
            per_snapshot: PER_SNAPSHOT * USED,
        }
    }

    pub(super) fn of_snapshot(&self) -> SnapshotQuota {
        SnapshotQuota {
            account: self.account.clone(),
            lists: self.lists.clone(),
            snapshot: RequestRate::new(self.per_snapshot),
        }
    }
}

/// Blocks a second of an account: what it is told to be, or the usual of the Region.
fn account_rate(region: &str, told: Option<u32>) -> f64 {
    let usual =
        if LARGE_REGIONS.contains(&region) { PER_ACCOUNT_IN_LARGE_REGIONS } else { PER_ACCOUNT };
    told.map_or(usual, f64::from)
}

/// Buffers of a block that are not used at the moment.
pub(super) type SpareBlocks = Arc<Mutex<Vec<BytesMut>>>;

/// The limits on requests for one snapshot.
#[derive(Clone, Debug)]
pub(super) struct SnapshotQuota {
    account: RequestRate,
    lists: RequestRate,
    snapshot: RequestRate,
}

impl SnapshotQuota {
    /// When the next block may be asked for or sent.
    pub(super) fn block_turn(&self) -> tokio::time::Instant {
        self.snapshot.turn().max(self.account.turn())
    }

    pub(super) fn list_turn(&self) -> tokio::time::Instant {
        self.lists.turn()
    }

    pub(super) fn block_succeeded(&self) {
        self.snapshot.succeeded();
        self.account.succeeded();
    }

    /// Slows down after a throttled request: all requests of the account, or those of the snapshot.
    pub(super) fn block_throttled(&self, error: &Error) {
        if error.is(ErrorCode::AccountThrottled) {
            self.account.throttled();
        } else {
            self.snapshot.throttled();
        }
    }
}

/// Requests that a transfer needs, counted before it begins.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Requests {
    /// ListSnapshotBlocks.
    pub lists: u64,
    /// GetSnapshotBlock.
    pub gets: u64,
    /// PutSnapshotBlock.
    pub puts: u64,
    /// The most blocks of one snapshot.
    pub largest: u64,
}

impl Requests {
    /// Adds a snapshot of which `blocks` are read. It is listed twice, for the block map and for
    /// the block tokens.
    pub fn read(&mut self, blocks: u64) {
        self.lists += 2 * blocks.div_ceil(PAGE_BLOCKS.into()).max(1);
        self.gets += blocks;
        self.largest = self.largest.max(blocks);
    }

    /// Adds a snapshot that is made of `blocks`.
    pub fn write(&mut self, blocks: u64) {
        self.puts += blocks;
        self.largest = self.largest.max(blocks);
    }

    /// Bytes of blocks.
    pub fn bytes(&self) -> u64 {
        (self.gets + self.puts) * BLOCK_BYTES
    }

    /// No faster than that, by the quotas of snapshot and account. `in_turn`: one snapshot after
    /// the other.
    pub fn at_least(&self, region: &str, account: Option<u32>, in_turn: bool) -> Duration {
        let all = (self.gets + self.puts) as f64;
        let one = if in_turn { all } else { self.largest as f64 };
        Duration::from_secs_f64((all / account_rate(region, account)).max(one / PER_SNAPSHOT))
    }

    /// US dollars at the list prices of us-east-1 (EBS pricing, read 2026-11): $0.0006 per 1,000
    /// List, $0.003 per 1,000 Get, $0.006 per 1,000 Put requests. Other Regions cost more or less.
    pub fn price(&self) -> f64 {
        (self.lists as f64 * 0.0006 + self.gets as f64 * 0.003 + self.puts as f64 * 0.006) / 1000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_gib_cost_what_the_price_list_says() {
        let blocks = (100u64 << 30) / BLOCK_BYTES;
        let (mut read, mut write) = (Requests::default(), Requests::default());
        read.read(blocks);
        write.write(blocks);
        assert_eq!((read.gets, read.lists, write.puts), (204_800, 42, 204_800));
        assert!((read.price() - 0.614).abs() < 0.001 && (write.price() - 1.229).abs() < 0.001);
        assert_eq!(read.at_least("eu-central-1", None, false).as_secs(), 204);
        for _ in 0..3 {
            read.read(blocks);
        }
        assert_eq!(read.at_least("us-east-1", None, false).as_secs(), 204);
        assert_eq!(read.at_least("us-east-1", None, true).as_secs(), 819);
        assert_eq!(read.at_least("eu-central-1", None, false).as_secs(), 819);
        assert_eq!(read.at_least("us-east-1", Some(2000), false).as_secs(), 409);
    }
}
