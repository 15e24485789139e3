//! Pauses between the attempts of a request: a pure schedule.

use std::time::Duration;

use crate::base::Retry;

/// Number of attempts, and the pauses between them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Attempts of one request, the first included: at least 1.
    pub max_attempts: u32,
    /// The pause after the first attempt; it doubles with each attempt.
    pub base: Duration,
    /// The longest pause.
    pub cap: Duration,
}

impl Default for RetryPolicy {
    /// Ten attempts: over about one minute for transient errors, about two for throttles. A longer
    /// outage ends the run, which can be resumed.
    fn default() -> Self {
        Self { max_attempts: 10, base: Duration::from_millis(200), cap: Duration::from_secs(20) }
    }
}

impl RetryPolicy {
    /// The pause after attempt `attempt` (counted from 1) failed with this class; `None` after the
    /// last attempt. `random` is from 0 to 1 and decides half of the pause, so that requests that
    /// failed together are not repeated together.
    pub fn delay(&self, retry: Retry, attempt: u32, random: f64) -> Option<Duration> {
        if attempt >= self.max_attempts {
            return None;
        }
        let base = match retry {
            Retry::No => return None,
            Retry::Stale | Retry::Transient => self.base,
            // Ten times: a service that throttles should not get the request again soon.
            Retry::Throttle => self.base * 10,
        };
        let full = base.saturating_mul(1 << (attempt - 1).min(16)).min(self.cap);
        Some(full.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_cap_and_end() {
        let policy = RetryPolicy {
            max_attempts: 6,
            base: Duration::from_millis(100),
            cap: Duration::from_secs(1),
        };
        let pauses: Vec<_> = (1..=6)
            .map(|attempt| {
                policy.delay(Retry::Transient, attempt, 1.0).map(|pause| pause.as_millis())
            })
            .collect();
        assert_eq!(pauses, [Some(100), Some(200), Some(400), Some(800), Some(1000), None]);
        assert_eq!(policy.delay(Retry::Throttle, 1, 0.0), Some(Duration::from_millis(500)));
        assert_eq!(policy.delay(Retry::No, 1, 1.0), None);
    }
}
