//! A limit on concurrent requests: slow start while throughput grows by 15 %, then one more each
//! round; a throttle halves the limit, at most once a second.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// The least time between two steps down: requests that were sent together are throttled together.
const SETTLE: Duration = Duration::from_secs(1);
/// The throughput after a step up over that before it: less is not worth the connections and their
/// memory.
const GAIN: f64 = 1.15;
/// Rounds after which a step up is tried again: the network may have changed.
const PROBE: u32 = 20;

/// An adaptive limit on concurrent requests. Clones share it.
#[derive(Clone, Debug)]
pub(in super::super) struct ConcurrencyLimit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug)]
struct State {
    limit: usize,
    max: usize,
    in_use: usize,
    stepped_down: Option<Instant>,
    round: Round,
    /// The limit before the last step up and its throughput in requests a second, until the round
    /// after the step has ended.
    before: Option<(usize, f64)>,
    /// Rounds since the last step.
    rounds: u32,
}

/// A round ends after as many successes as the limit allows concurrently.
#[derive(Clone, Copy, Debug)]
struct Round {
    begun: Option<Instant>,
    successes: usize,
}

impl Round {
    const NEW: Self = Self { begun: None, successes: 0 };
}

impl ConcurrencyLimit {
    /// Starts with `start` concurrent requests and goes up to `max`.
    pub(in super::super) fn new(start: usize, max: usize) -> Self {
        let limit = start.clamp(1, max.max(1));
        let state = State {
            limit,
            max: max.max(1),
            in_use: 0,
            stepped_down: None,
            round: Round::NEW,
            before: None,
            rounds: 0,
        };
        Self(Arc::new(Inner { state: Mutex::new(state), freed: Notify::new() }))
    }

    /// Waits until another request may be sent.
    pub(in super::super) async fn acquire(&self) -> Permit {
        loop {
            let freed = self.0.freed.notified();
            {
                let mut state = self.lock();
                if state.in_use < state.limit {
                    state.in_use += 1;
                    let now = Instant::now();
                    state.round.begun.get_or_insert(now);
                    return Permit(self.clone());
                }
            }
            freed.await;
        }
    }

    /// A request succeeded.
    pub(in super::super) fn succeeded(&self) {
        let mut state = self.lock();
        state.round.successes += 1;
        if state.round.successes < state.limit {
            return;
        }
        let before = state.limit;
        state.end_round(Instant::now());
        for _ in before..state.limit {
            self.0.freed.notify_one();
        }
    }

    /// The service throttled a request.
    pub(in super::super) fn throttled(&self) {
        let mut state = self.lock();
        let now = Instant::now();
        if state.stepped_down.is_none_or(|at| now - at >= SETTLE) {
            state.limit = (state.limit / 2).max(1);
            state.stepped_down = Some(now);
            (state.before, state.round) = (None, Round::NEW);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn end_round(&mut self, now: Instant) {
        let time = self.round.begun.map_or(0.0, |begun| (now - begun).as_secs_f64()).max(1e-6);
        let rate = self.round.successes as f64 / time;
        self.round = Round { begun: Some(now), successes: 0 };
        if self.stepped_down.is_some() {
            self.limit = (self.limit + 1).min(self.max);
            return;
        }
        self.rounds += 1;
        match self.before.take() {
            // The last step up gained nothing.
            Some((limit, carried)) if rate < carried * GAIN => {
                (self.limit, self.rounds) = (limit, 0);
            }
            Some(_) => self.step_up(rate),
            // The first round measures the throughput that a step up is compared with.
            None if self.rounds == 1 || self.rounds >= PROBE => self.step_up(rate),
            None => {}
        }
    }

    fn step_up(&mut self, rate: f64) {
        self.rounds = 1;
        if self.limit < self.max {
            self.before = Some((self.limit, rate));
            self.limit = (self.limit * 2).min(self.max);
        }
    }
}

/// The permission to send one request; dropping it allows another.
#[derive(Debug)]
pub(in super::super) struct Permit(ConcurrencyLimit);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.lock().in_use -= 1;
        self.0.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends `count` requests as fast as the limit allows: each takes `latency`, and one finishes
    /// every `gap` at most. Returns the time until all have finished.
    async fn load(
        limit: &ConcurrencyLimit,
        count: usize,
        latency: Duration,
        gap: Duration,
    ) -> Duration {
        let begun = Instant::now();
        let line = Arc::new(tokio::sync::Mutex::new(()));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..count {
            let (limit, line) = (limit.clone(), line.clone());
            tasks.spawn(async move {
                let _permit = limit.acquire().await;
                tokio::time::sleep(latency).await;
                let turn = line.lock().await;
                tokio::time::sleep(gap).await;
                drop(turn);
                limit.succeeded();
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.expect("no panic");
        }
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_grows_while_throughput_grows() {
        let limit = ConcurrencyLimit::new(16, 512);
        // A hundred at once fill a line of 1,000 a second with 100 ms of latency.
        let took = load(&limit, 8000, Duration::from_millis(100), Duration::from_millis(1)).await;
        assert!((64..=256).contains(&limit.lock().limit), "{}", limit.lock().limit);
        assert!(took < Duration::from_millis(9500), "{took:?}");
        // A line whose throughput does not depend on the limit keeps the limit at its start.
        let limit = ConcurrencyLimit::new(16, 512);
        load(&limit, 2000, Duration::from_millis(1), Duration::from_millis(1)).await;
        assert!(limit.lock().limit <= 32, "{}", limit.lock().limit);
    }

    #[tokio::test(start_paused = true)]
    async fn throttling_halves_the_limit_once_and_success_raises_it() {
        let limit = ConcurrencyLimit::new(8, 10);
        limit.throttled();
        limit.throttled();
        assert_eq!(limit.lock().limit, 4);
        tokio::time::sleep(SETTLE).await;
        limit.throttled();
        assert_eq!(limit.lock().limit, 2);
        (0..1000).for_each(|_| limit.succeeded());
        assert_eq!(limit.lock().limit, 10);
    }

    #[tokio::test(start_paused = true)]
    async fn permits_are_given_back_and_every_request_gets_one() {
        let limit = ConcurrencyLimit::new(2, 2);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let limit = limit.clone();
            tasks.spawn(async move {
                let _permit = limit.acquire().await;
                assert!(limit.lock().in_use <= 2);
                tokio::time::sleep(Duration::from_millis(1)).await;
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.expect("no panic");
        }
        assert_eq!(limit.lock().in_use, 0);
    }
}
