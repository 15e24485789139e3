//! A budget of bytes, and leases on it.

use crate::base::{Cancel, Error, ErrorCode, ErrorKind, Monitor, Result};

/// Bytes that may be in flight. Clones share them.
#[derive(Clone, Debug)]
pub struct Budget {
    total: u64,
    used: Monitor<Used>,
}

#[derive(Debug, Default)]
struct Used {
    leased: u64,
    /// The part of `leased` that was reserved: it does not come back while the feeder waits.
    reserved: u64,
}

impl Budget {
    /// A budget of `total` bytes.
    pub fn new(total: u64) -> Self {
        Self { total, used: Monitor::default() }
    }

    /// Waits until `bytes` are free and takes them. Only one thread of a pipeline may call this, in
    /// the order in which leases are given back: then the oldest piece of each pipeline has its
    /// memory, and pipelines that share a budget never wait for each other. More than the whole
    /// budget is cut to it.
    pub fn lease(&self, bytes: u64, cancel: &Cancel) -> Result<Lease> {
        let bytes = bytes.min(self.total);
        self.used.wait(cancel, |used| {
            (self.total - used.leased >= bytes).then(|| used.leased += bytes)
        })?;
        Ok(Lease(Some(Leased { budget: self.clone(), bytes, reserved: 0 })))
    }

    /// Takes `bytes` for a long time, if `floor` bytes are left for leases that come and go.
    /// Otherwise it is an error of kind `Limit`: the feeder would wait for itself.
    pub fn reserve(&self, bytes: u64, floor: u64, cancel: &Cancel) -> Result<Lease> {
        let needed = self.used.lock().reserved.saturating_add(bytes).saturating_add(floor);
        if needed > self.total {
            return Err(Error::new(
                ErrorKind::Limit,
                "the memory budget is too small for the block maps and indexes of this image",
            )
            .code_as(ErrorCode::MemoryForIndexes)
            .at("missing_bytes", needed - self.total));
        }
        let mut lease = self.lease(bytes, cancel)?;
        if let Some(leased) = &mut lease.0 {
            leased.reserved = bytes;
            self.used.lock().reserved += bytes;
        }
        Ok(lease)
    }

    /// Bytes that are leased now.
    #[cfg(feature = "internals")]
    pub fn in_use(&self) -> u64 {
        self.used.lock().leased
    }
}

/// A part of a [`Budget`]; dropping it gives it back.
#[derive(Debug, Default)]
pub struct Lease(Option<Leased>);

#[derive(Debug)]
struct Leased {
    budget: Budget,
    bytes: u64,
    reserved: u64,
}

impl Lease {
    /// A lease of no bytes, of no budget.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds `other`, which is of the same budget: both are given back together.
    pub fn merge(&mut self, mut other: Self) {
        match (&mut self.0, &mut other.0) {
            (Some(leased), Some(other)) => {
                leased.bytes += std::mem::take(&mut other.bytes);
                leased.reserved += std::mem::take(&mut other.reserved);
            }
            (None, _) => self.0 = other.0.take(),
            (Some(_), None) => {}
        }
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        {
            let mut used = self.budget.used.lock();
            used.leased -= self.bytes;
            used.reserved -= self.reserved;
        }
        // Feeders of several pipelines may wait, each for another number of bytes.
        self.budget.used.notify_all();
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
        let all = budget.lease(100, &cancel).expect("cut to the budget");
        assert_eq!((all.0.as_ref().map(|leased| leased.bytes), budget.in_use()), (Some(10), 10));
    }

    #[test]
    fn merged_leases_are_given_back_together() {
        let (budget, cancel) = (Budget::new(10), Cancel::new());
        let mut lease = Lease::none();
        for bytes in [3, 4] {
            lease.merge(budget.lease(bytes, &cancel).expect("room"));
        }
        lease.merge(Lease::none());
        assert_eq!(budget.in_use(), 7);
        drop(lease);
        assert_eq!(budget.in_use(), 0);
    }

    #[test]
    fn a_reservation_that_leaves_too_little_is_a_limit() {
        let (budget, cancel) = (Budget::new(10), Cancel::new());
        assert_eq!(budget.reserve(8, 3, &cancel).expect_err("too much").kind(), ErrorKind::Limit);
        let reserved = budget.reserve(7, 3, &cancel).expect("room");
        assert_eq!(budget.in_use(), 7);
        // A reservation never comes back by itself, so another one must not wait for it.
        assert_eq!(
            budget.reserve(1, 3, &cancel).expect_err("too much together").fact("missing_bytes"),
            Some("1")
        );
        drop(reserved);
        assert!(budget.reserve(7, 3, &cancel).is_ok());
    }

    #[test]
    fn cancelling_wakes_a_waiting_lease() {
        let (budget, cancel) = (Budget::new(1), Cancel::new());
        let _lease = budget.lease(1, &cancel).expect("room");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| budget.lease(1, &cancel));
            cancel.cancel();
            let error = waiting.join().expect("no panic").expect_err("is cancelled");
            assert_eq!(error.kind(), ErrorKind::Interrupted);
        });
        assert_eq!(budget.in_use(), 1);
    }
}
