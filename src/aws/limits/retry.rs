//! Pauses between the attempts of a request: a pure schedule.

use std::time::Duration;

use super::ConcurrencyLimit;
use crate::base::Retry;

/// Attempts at an answer that is itself damaged. A damaged source gives it each time; the way to it
/// is protected by TLS, and damages few.
const DAMAGED_ATTEMPTS: u32 = 4;
/// Attempts at a request that is refused at random, as a multiple of those of others: of 33 million
/// blocks, of which 30 % are refused, none is refused 30 times.
const RANDOM_ATTEMPTS: u32 = 3;

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
            Retry::Damaged if attempt >= DAMAGED_ATTEMPTS => return None,
            Retry::Stale | Retry::Transient | Retry::Damaged => self.base,
            // Ten times: a service that throttles should not get the request again soon.
            Retry::Throttle => self.base * 10,
        };
        let full = base.saturating_mul(1 << (attempt - 1).min(16)).min(self.cap);
        Some(full.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0))
    }

    /// The pause after refusal `refusal` (counted from 1) of a service that refuses at random: an
    /// eighth of the first pause of others, and as much more each time.
    fn random_delay(&self, refusal: u32, random: f64) -> Option<Duration> {
        if refusal >= self.max_attempts.saturating_mul(RANDOM_ATTEMPTS) {
            return None;
        }
        let full = (self.base / 8).saturating_mul(refusal).min(self.cap);
        Some(full.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0))
    }
}

/// The pauses of one request.
#[derive(Debug, Default)]
pub(in super::super) struct Pauses {
    /// Failures that count as an attempt of the policy.
    failures: u32,
    /// Refusals at random.
    refusals: u32,
}

impl Pauses {
    /// The pause after a failed attempt of this class; `None` after the last one. `is_random` says
    /// whether the service throttles independent of the rate of requests.
    pub(in super::super) fn next(
        &mut self,
        policy: &RetryPolicy,
        retry: Retry,
        is_random: bool,
        random: f64,
    ) -> Option<Duration> {
        if retry == Retry::Throttle && is_random {
            self.refusals += 1;
            return policy.random_delay(self.refusals, random);
        }
        self.failures += 1;
        policy.delay(retry, self.failures, random)
    }

    /// Sleeps for `pause` after a throttle. A pause that throttling by the rate made ends when it
    /// turns out that the rate is not the reason.
    pub(in super::super) async fn sleep(
        &self,
        pause: Duration,
        policy: &RetryPolicy,
        limit: &ConcurrencyLimit,
    ) {
        if limit.is_throttled_at_random() {
            return tokio::time::sleep(pause).await;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // Not all of them at one moment.
            () = limit.throttled_at_random() => {
                tokio::time::sleep(policy.base.mul_f64(fastrand::f64())).await;
            }
        }
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
        let damaged: Vec<_> =
            (1..=4).map(|attempt| policy.delay(Retry::Damaged, attempt, 1.0).is_some()).collect();
        assert_eq!(damaged, [true, true, true, false]);
    }

    #[test]
    fn a_damaged_answer_is_given_up_within_seconds() {
        let policy = RetryPolicy::default();
        let pauses = (1..).map_while(|attempt| policy.delay(Retry::Damaged, attempt, 1.0));
        assert!(pauses.sum::<Duration>() < Duration::from_secs(2));
    }

    #[test]
    fn refusals_at_random_have_short_pauses_and_attempts_of_their_own() {
        let (policy, mut pauses) = (RetryPolicy::default(), Pauses::default());
        let mut next = |is_random| pauses.next(&policy, Retry::Throttle, is_random, 1.0);
        assert_eq!(next(true), Some(Duration::from_millis(25)));
        assert_eq!(next(true), Some(Duration::from_millis(50)));
        assert_eq!(next(false), Some(Duration::from_secs(2)), "its first refusal by the rate");
        let short = std::iter::from_fn(|| next(true)).collect::<Vec<_>>();
        assert_eq!(short.len(), 27);
        assert!(short.iter().sum::<Duration>() < Duration::from_secs(15));
    }
}
