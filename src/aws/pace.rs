//! A limit on bytes a second, shared by everybody who sends or receives.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Bytes a second. Clones share the limit.
#[derive(Clone, Debug)]
pub struct Pace {
    bytes_per_second: u64,
    /// When the bytes that were let through have taken their time.
    next: Arc<Mutex<Option<Instant>>>,
}

impl Pace {
    /// At most `bytes_per_second`, which is more than 0, on average over about a second.
    pub fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), next: Arc::default() }
    }

    /// When `bytes` may pass. They count from now on.
    pub(super) fn admit(&self, bytes: u64) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let start = next.map_or(now, |next| next.max(now));
        *next = Some(start + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64));
        start
    }

    /// How many bytes should pass at once: a tenth of a second's worth, within what sockets like.
    pub(super) fn piece(&self) -> usize {
        (self.bytes_per_second / 10).clamp(1 << 10, 256 << 10) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_their_time_whoever_sends_them() {
        let pace = Pace::new(1000);
        let other = pace.clone();
        let start = pace.admit(500);
        let second = other.admit(1000);
        let third = pace.admit(1);
        assert_eq!(second - start, Duration::from_millis(500));
        assert_eq!(third - start, Duration::from_millis(1500));
    }
}
