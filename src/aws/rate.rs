//! A limit on requests a second, where the service has one: kept before it is met, and lowered
//! where the service says less.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Turns that were not used may be used later, but no more than come in this time.
const BURST: Duration = Duration::from_millis(100);
/// After a step down no other follows for so long: requests that were under way together are
/// throttled together.
const SETTLE: Duration = Duration::from_secs(1);

/// Requests a second. Clones share the limit.
#[derive(Clone, Debug)]
pub(super) struct Rate(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// What the quota says.
    most: f64,
    /// What the service lets through at the moment.
    current: f64,
    /// When the next turn comes.
    next: Option<Instant>,
    stepped_down: Option<Instant>,
}

impl Rate {
    /// At most `per_second`, which is more than 0.
    pub(super) fn new(per_second: f64) -> Self {
        let most = per_second.max(1.0);
        Self(Arc::new(Mutex::new(State { most, current: most, next: None, stepped_down: None })))
    }

    /// When the next request may be made. It counts from now on.
    pub(super) fn turn(&self) -> Instant {
        let mut state = self.lock();
        let now = Instant::now();
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let at = state.next.map_or(now, |next| next.max(earliest));
        state.next = Some(at + Duration::from_secs_f64(1.0 / state.current));
        at.max(now)
    }

    /// A request went through: within some five seconds without throttling the rate is back at the
    /// quota.
    pub(super) fn succeeded(&self) {
        let mut state = self.lock();
        if state.current < state.most {
            state.current = (state.current + state.most / (5.0 * state.current)).min(state.most);
        }
    }

    /// The service asked for less.
    pub(super) fn throttled(&self) {
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
    async fn turns_come_at_the_rate_whoever_takes_them() {
        let rate = Rate::new(100.0);
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
    async fn what_was_not_used_is_made_up_for_a_tenth_of_a_second() {
        let rate = Rate::new(100.0);
        rate.turn();
        tokio::time::sleep(Duration::from_secs(5)).await;
        let now = Instant::now();
        let at_once = (0..100).take_while(|_| rate.turn() == now).count();
        assert!((10..=11).contains(&at_once), "{at_once}");
    }

    #[tokio::test(start_paused = true)]
    async fn throttling_lowers_the_rate_and_success_restores_it() {
        let rate = Rate::new(1000.0);
        rate.throttled();
        rate.throttled();
        assert_eq!(rate.lock().current, 700.0);
        (0..6000).for_each(|_| rate.succeeded());
        assert_eq!(rate.lock().current, 1000.0);
    }
}
