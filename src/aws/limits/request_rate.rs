//! A limit on requests a second, for services with a quota: requests wait for their turn, and a
//! throttle lowers the rate.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Unused turns can be used later, at most those of this time.
const BURST: Duration = Duration::from_millis(100);
/// The least time between two steps down: requests that were sent together are throttled together.
const SETTLE: Duration = Duration::from_secs(1);

/// Requests a second. Clones share the limit.
#[derive(Clone, Debug)]
pub(in super::super) struct RequestRate(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// The quota, in requests a second.
    quota: f64,
    /// The rate that the service accepts at the moment.
    current: f64,
    /// The time of the next turn.
    next: Option<Instant>,
    stepped_down: Option<Instant>,
}

impl RequestRate {
    /// At most `per_second`, which is more than 0.
    pub(in super::super) fn new(per_second: f64) -> Self {
        let quota = per_second.max(1.0);
        Self(Arc::new(Mutex::new(State { quota, current: quota, next: None, stepped_down: None })))
    }

    /// The time at which the next request may be sent. This call takes the turn.
    pub(in super::super) fn turn(&self) -> Instant {
        let mut state = self.lock();
        let now = Instant::now();
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let at = state.next.map_or(now, |next| next.max(earliest));
        state.next = Some(at + Duration::from_secs_f64(1.0 / state.current));
        at.max(now)
    }

    /// A request succeeded: after about five seconds without a throttle the rate is back at the
    /// quota.
    pub(in super::super) fn succeeded(&self) {
        let mut state = self.lock();
        if state.current < state.quota {
            state.current = (state.current + state.quota / (5.0 * state.current)).min(state.quota);
        }
    }

    /// The service throttled a request: 30 % less.
    pub(in super::super) fn throttled(&self) {
        let mut state = self.lock();
        let now = Instant::now();
        if state.stepped_down.is_none_or(|at| now - at >= SETTLE) {
            state.current = (state.current * 0.7).max(1.0);
            state.stepped_down = Some(now);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn clones_take_turns_at_one_rate() {
        let rate = RequestRate::new(100.0);
        let start = Instant::now();
        let turns: Vec<Instant> = (0..300).map(|_| rate.clone().turn()).collect();
        assert_eq!(
            (turns[0] - start, turns[1] - start),
            (Duration::ZERO, Duration::from_millis(10))
        );
        assert!(
            (turns[299] - start).abs_diff(Duration::from_millis(2990)) < Duration::from_millis(1)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn unused_turns_of_a_tenth_of_a_second_are_made_up() {
        let rate = RequestRate::new(100.0);
        rate.turn();
        tokio::time::sleep(Duration::from_secs(5)).await;
        let now = Instant::now();
        let at_once = (0..100).take_while(|_| rate.turn() == now).count();
        assert!((10..=11).contains(&at_once), "{at_once}");
    }

    #[tokio::test(start_paused = true)]
    async fn throttling_lowers_the_rate_and_success_restores_it() {
        let rate = RequestRate::new(1000.0);
        rate.throttled();
        rate.throttled();
        assert_eq!(rate.lock().current, 700.0);
        (0..6000).for_each(|_| rate.succeeded());
        assert_eq!(rate.lock().current, 1000.0);
    }
}
