//! A limit on bytes a second, shared by all requests that send or receive.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Bytes a second. Clones share the limit.
#[derive(Clone, Debug)]
pub struct BandwidthLimit {
    bytes_per_second: u64,
    /// The time at which the next bytes may be sent or received.
    next: Arc<Mutex<Option<Instant>>>,
}

impl BandwidthLimit {
    /// At most `bytes_per_second`, which is more than 0, on average over about a second.
    pub fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), next: Arc::default() }
    }

    /// The time at which `bytes` may be sent or received. This call counts them.
    pub(in super::super) fn admit(&self, bytes: u64) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let start = next.map_or(now, |next| next.max(now));
        *next = Some(start + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64));
        start
    }

    /// Bytes of one piece: those of a tenth of a second, from 1 KiB to 256 KiB.
    pub(in super::super) fn piece(&self) -> usize {
        (self.bytes_per_second / 10).clamp(1 << 10, 256 << 10) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_the_bandwidth() {
        let limit = BandwidthLimit::new(1000);
        let other = limit.clone();
        let start = limit.admit(500);
        let second = other.admit(1000);
        let third = limit.admit(1);
        assert_eq!(second - start, Duration::from_millis(500));
        assert_eq!(third - start, Duration::from_millis(1500));
    }
}
