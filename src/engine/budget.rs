//! A budget of bytes, and leases on it.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::base::{Cancel, Error, ErrorKind, Result};

/// How long a waiting feeder may miss a cancellation.
const PATIENCE: Duration = Duration::from_millis(50);

/// Bytes that may be in flight. Clones share them.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    total: u64,
    used: Mutex<u64>,
    freed: Condvar,
}

impl Budget {
    /// A budget of `total` bytes.
    pub fn new(total: u64) -> Self {
        Self(Arc::new(Inner { total, used: Mutex::new(0), freed: Condvar::new() }))
    }

    /// Waits until `bytes` are free and takes them. Only one thread of an operation may call this, in the order in which what it takes is given back. More than the whole budget is cut to it.
    pub fn lease(&self, bytes: u64, cancel: &Cancel) -> Result<Lease> {
        let bytes = bytes.min(self.0.total);
        let mut used = self.0.used.lock().unwrap_or_else(PoisonError::into_inner);
        while self.0.total - *used < bytes {
            cancel.check()?;
            used = self.0.freed.wait_timeout(used, PATIENCE).unwrap_or_else(PoisonError::into_inner).0;
        }
        *used += bytes;
        Ok(Lease { budget: self.clone(), bytes })
    }

    /// Takes `bytes` for as long as the lease lives, if that leaves `floor` for everybody else; otherwise it is an error of kind `Limit`, because waiting would not help.
    pub fn reserve(&self, bytes: u64, floor: u64, cancel: &Cancel) -> Result<Lease> {
        if bytes.saturating_add(floor) > self.0.total {
            return Err(Error::new(ErrorKind::Limit, "the memory budget is too small for the block map of this volume")
                .at("memory", self.0.total)
                .at("needed", bytes + floor));
        }
        self.lease(bytes, cancel)
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
}

impl Drop for Lease {
    fn drop(&mut self) {
        *self.budget.0.used.lock().unwrap_or_else(PoisonError::into_inner) -= self.bytes;
        self.budget.0.freed.notify_one();
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
    }

    #[test]
    fn a_waiting_lease_can_be_cancelled() {
        let (budget, cancel) = (Budget::new(1), Cancel::new());
        let _held = budget.lease(1, &cancel).expect("room");
        cancel.cancel();
        assert!(budget.lease(1, &cancel).is_err());
    }
}
