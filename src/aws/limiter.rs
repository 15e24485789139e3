//! How many requests may be under way: twice as many each round until the service asks for less, then half as many, and from there one more each round.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// After a step down no other follows for so long: requests that were under way together are throttled together.
const SETTLE: Duration = Duration::from_secs(1);

/// An adaptive limit. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Limiter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug)]
struct State {
    limit: f64,
    max: f64,
    in_use: usize,
    stepped_down: Option<Instant>,
}

impl Limiter {
    /// Begins with `start` requests at once and goes up to `max`.
    pub(super) fn new(start: usize, max: usize) -> Self {
        let state = State { limit: start.min(max) as f64, max: max as f64, in_use: 0, stepped_down: None };
        Self(Arc::new(Inner { state: Mutex::new(state), freed: Notify::new() }))
    }

    /// Waits for a place.
    pub(super) async fn acquire(&self) -> Permit {
        loop {
            let freed = self.0.freed.notified();
            {
                let mut state = self.lock();
                if (state.in_use as f64) < state.limit.floor().max(1.0) {
                    state.in_use += 1;
                    return Permit(self.clone());
                }
            }
            freed.await;
        }
    }

    /// A request succeeded: a place more for each until the first throttling, then one for each round of successes.
    pub(super) fn succeeded(&self) {
        let mut state = self.lock();
        let before = state.limit.floor();
        let step = if state.stepped_down.is_none() { 1.0 } else { 1.0 / state.limit };
        state.limit = (state.limit + step).min(state.max);
        if state.limit.floor() > before {
            self.0.freed.notify_one();
        }
    }

    /// The service asked for less.
    pub(super) fn throttled(&self) {
        let mut state = self.lock();
        let now = Instant::now();
        if state.stepped_down.is_none_or(|at| now - at >= SETTLE) {
            state.limit = (state.limit / 2.0).max(1.0);
            state.stepped_down = Some(now);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among the requests under way.
#[derive(Debug)]
pub(super) struct Permit(Limiter);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.lock().in_use -= 1;
        self.0.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn throttling_halves_the_limit_once_and_success_raises_it() {
        let limiter = Limiter::new(8, 10);
        limiter.throttled();
        limiter.throttled();
        assert_eq!(limiter.lock().limit, 4.0);
        tokio::time::sleep(SETTLE).await;
        limiter.throttled();
        assert_eq!(limiter.lock().limit, 2.0);
        (0..1000).for_each(|_| limiter.succeeded());
        assert_eq!(limiter.lock().limit, 10.0);
    }

    #[tokio::test(start_paused = true)]
    async fn places_are_given_back_and_nobody_waits_for_ever() {
        let limiter = Limiter::new(2, 2);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let limiter = limiter.clone();
            tasks.spawn(async move {
                let _permit = limiter.acquire().await;
                assert!(limiter.lock().in_use <= 2);
                tokio::time::sleep(Duration::from_millis(1)).await;
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.expect("no panic");
        }
        assert_eq!(limiter.lock().in_use, 0);
    }
}
