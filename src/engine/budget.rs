//! A budget of bytes, and leases on it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::base::{Cancel, Error, ErrorKind, Result};
use crate::format::FrameLog;
use crate::format::layout::MAX_SEEK_FRAMES;

/// How long a waiting feeder may miss a cancellation.
const PATIENCE: Duration = Duration::from_millis(50);

/// Bytes that may be in flight. Clones share them.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    total: u64,
    used: Mutex<u64>,
    /// The part of `used` that was reserved: it does not come back while the feeder waits.
    reserved: AtomicU64,
    freed: Condvar,
}

impl Budget {
    /// A budget of `total` bytes.
    pub fn new(total: u64) -> Self {
        Self(Arc::new(Inner {
            total,
            used: Mutex::new(0),
            reserved: AtomicU64::new(0),
            freed: Condvar::new(),
        }))
    }

    /// Waits until `bytes` are free and takes them. Only one thread of an operation may call this,
    /// in the order in which what it takes is given back. More than the whole budget is cut to it.
    pub fn lease(&self, bytes: u64, cancel: &Cancel) -> Result<Lease> {
        let bytes = bytes.min(self.0.total);
        let mut used = self.0.used.lock().unwrap_or_else(PoisonError::into_inner);
        while self.0.total - *used < bytes {
            cancel.check()?;
            used =
                self.0.freed.wait_timeout(used, PATIENCE).unwrap_or_else(PoisonError::into_inner).0;
        }
        *used += bytes;
        Ok(Lease { budget: self.clone(), bytes, reserved: 0 })
    }

    /// Takes `bytes` for something that stays for long, if that leaves `floor` for what comes and
    /// goes. Otherwise it is an error of kind `Limit`: the feeder would wait for itself.
    pub fn reserve(&self, bytes: u64, floor: u64, cancel: &Cancel) -> Result<Lease> {
        let reserved = self.0.reserved.load(Ordering::SeqCst);
        let wanted = reserved.saturating_add(bytes).saturating_add(floor);
        if wanted > self.0.total {
            return Err(Error::new(
                ErrorKind::Limit,
                "the memory budget is too small for the block maps and indexes of this image",
            )
            .at("missing_bytes", wanted - self.0.total));
        }
        let mut lease = self.lease(bytes, cancel)?;
        lease.reserved = bytes;
        self.0.reserved.fetch_add(bytes, Ordering::SeqCst);
        Ok(lease)
    }

    /// Bytes that are leased now.
    pub fn in_use(&self) -> u64 {
        *self.0.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part of a [`Budget`]; dropping it gives it back.
#[derive(Debug)]
pub struct Lease {
    budget: Budget,
    bytes: u64,
    reserved: u64,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget.0.reserved.fetch_sub(self.reserved, Ordering::SeqCst);
        *self.budget.0.used.lock().unwrap_or_else(PoisonError::into_inner) -= self.bytes;
        self.budget.0.freed.notify_one();
    }
}

/// What the seek table takes while it grows: reserved volume by volume, until it is so long that
/// there will be none.
#[derive(Debug, Default)]
pub(super) struct SeekTableLease {
    leases: Vec<Lease>,
    bytes: u64,
}

impl SeekTableLease {
    /// Makes room for `cells` more.
    pub(super) fn grow(
        &mut self,
        cells: u64,
        budget: &Budget,
        floor: u64,
        cancel: &Cancel,
    ) -> Result<()> {
        let most = MAX_SEEK_FRAMES / 2 * FrameLog::CELL_MEMORY;
        let bytes = (self.bytes + cells * FrameLog::CELL_MEMORY).min(most);
        self.leases.push(budget.reserve(bytes - self.bytes, floor, cancel)?);
        self.bytes = bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_waits_until_there_is_room() {
        let (budget, cancel) = (Budget::new(10), Cancel::new());
        let first = budget.lease(8, &cancel).expect("room");
        std::thread::scope(|scope| {
            let second = scope.spawn(|| budget.lease(5, &cancel).map(|_lease| budget.in_use()));
            drop(first);
            assert_eq!(second.join().expect("no panic").expect("room"), 5);
        });
        assert_eq!(budget.in_use(), 0);
        assert_eq!(budget.lease(100, &cancel).expect("cut to the budget").bytes, 10);
    }

    #[test]
    fn what_can_never_be_had_is_a_limit() {
        let (budget, cancel) = (Budget::new(10), Cancel::new());
        assert_eq!(budget.reserve(8, 3, &cancel).expect_err("too much").kind(), ErrorKind::Limit);
        let kept = budget.reserve(7, 3, &cancel).expect("room");
        assert_eq!((kept.bytes, budget.in_use()), (7, 7));
        // What is reserved never comes back by itself, so another one must not wait for it.
        assert_eq!(
            budget.reserve(1, 3, &cancel).expect_err("too much together").fact("missing_bytes"),
            Some("1")
        );
        drop(kept);
        assert!(budget.reserve(7, 3, &cancel).is_ok());
    }

    #[test]
    fn a_waiting_lease_can_be_cancelled() {
        let (budget, cancel) = (Budget::new(1), Cancel::new());
        let _held = budget.lease(1, &cancel).expect("room");
        cancel.cancel();
        assert!(budget.lease(1, &cancel).is_err());
    }
}
