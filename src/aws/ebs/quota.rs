//! Quotas of the EBS direct APIs, and the limits that keep requests below them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;

use super::super::limits::RequestRate;
use crate::base::{Error, ErrorCode};

/// GetSnapshotBlock or PutSnapshotBlock requests a second for one snapshot; cannot be raised. (EBS
/// user guide, "Amazon EBS resource quotas".)
const PER_SNAPSHOT: f64 = 1000.0;
/// Requests a second for an account, and in the Regions that allow more.
const PER_ACCOUNT: f64 = 1000.0;
const PER_ACCOUNT_IN_LARGE_REGIONS: f64 = 5000.0;
const LARGE_REGIONS: [&str; 5] =
    ["us-east-1", "us-east-2", "us-west-2", "ap-southeast-1", "eu-west-1"];
/// ListSnapshotBlocks requests a second for an account.
const LISTS: f64 = 50.0;
/// The share of a quota that is used: clocks and networks are not exact, and a throttled request
/// costs more than one that waited.
const USED: f64 = 0.99;
/// Blocks whose tokens are retained from the first listing (2 GiB): about half a MiB of tokens for
/// each snapshot of an image.
pub(super) const RETAINED_TOKENS: usize = 4096;
/// The largest `MaxResults` of ListSnapshotBlocks.
pub(super) const PAGE_BLOCKS: u32 = 10_000;

/// The limits of all transfers with one account, and recycled buffers. Clones share them.
#[derive(Clone, Debug)]
pub struct Quotas {
    /// Recycled buffers: fresh memory costs more page faults than the copy into it.
    pub(super) spare: SpareBlocks,
    account: RequestRate,
    lists: RequestRate,
    per_snapshot: f64,
}

impl Quotas {
    /// The quotas of a Region. `account` is the account's quota of requests a second, if it is not
    /// that of the Region.
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

/// Blocks a second of an account: the given quota, or that of the Region.
fn account_rate(region: &str, given: Option<u32>) -> f64 {
    let usual =
        if LARGE_REGIONS.contains(&region) { PER_ACCOUNT_IN_LARGE_REGIONS } else { PER_ACCOUNT };
    given.map_or(usual, f64::from)
}

/// Recycled buffers of one block each.
pub(super) type SpareBlocks = Arc<Mutex<Vec<BytesMut>>>;

/// The limits on requests for one snapshot.
#[derive(Clone, Debug)]
pub(super) struct SnapshotQuota {
    account: RequestRate,
    lists: RequestRate,
    snapshot: RequestRate,
}

impl SnapshotQuota {
    /// The time at which the next block may be requested or sent.
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

/// ListSnapshotBlocks requests for a snapshot of `blocks` blocks that is read: one of a small
/// snapshot, whose tokens are retained; every page twice of others.
pub fn list_calls(blocks: u64) -> u64 {
    if blocks <= RETAINED_TOKENS as u64 { 1 } else { 2 * blocks.div_ceil(PAGE_BLOCKS.into()) }
}

/// The least time, by the quotas, in which `blocks` blocks are read or written, at most `largest`
/// of one snapshot. `account` is the account's quota, if it is not that of the Region.
pub fn least_time(region: &str, account: Option<u32>, blocks: u64, largest: u64) -> Duration {
    let of_account = blocks as f64 / account_rate(region, account);
    Duration::from_secs_f64(of_account.max(largest as f64 / PER_SNAPSHOT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quotas_of_snapshot_and_account_decide_the_least_time() {
        let blocks = (100u64 << 30) / crate::base::BLOCK_BYTES;
        let seconds = |region, account, count: u64, in_turn: bool| {
            let largest = if in_turn { count * blocks } else { blocks };
            least_time(region, account, count * blocks, largest).as_secs()
        };
        assert_eq!(seconds("eu-central-1", None, 1, false), 204);
        assert_eq!(seconds("us-east-1", None, 4, false), 204);
        assert_eq!(seconds("us-east-1", None, 4, true), 819);
        assert_eq!(seconds("eu-central-1", None, 4, false), 819);
        assert_eq!(seconds("us-east-1", Some(2000), 4, false), 409);
        let counts = [0, 4096, 4097, 10_000, 10_001].map(list_calls);
        assert_eq!(counts, [1, 1, 2, 2, 4]);
    }
}
