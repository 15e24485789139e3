//! A limit on concurrent requests: slow start while throughput grows by 15 %, then one more each
//! round; a throttle halves the limit, at most once a second, unless throttling does not depend on
//! the rate of requests.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::throttling::{Finding, Throttling};

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
    /// Notified when throttling turns out not to depend on the rate.
    random: Notify,
}

#[derive(Debug)]
struct State {
    limit: usize,
    max: usize,
    in_use: usize,
    stepped_down: Option<Instant>,
    throttling: Throttling,
    /// The limit before throttling began.
    unthrottled: Option<usize>,
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
            throttling: Throttling::default(),
            unthrottled: None,
            round: Round::NEW,
            before: None,
            rounds: 0,
        };
        let (freed, random) = (Notify::new(), Notify::new());
        Self(Arc::new(Inner { state: Mutex::new(state), freed, random }))
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
        let (before, now) = (state.limit, Instant::now());
        self.answered(&mut state, now, true);
        state.round.successes += 1;
        if state.round.successes >= state.limit {
            state.end_round(now);
        }
        for _ in before..state.limit {
            self.0.freed.notify_one();
        }
    }

    /// The service throttled a request.
    pub(in super::super) fn throttled(&self) {
        let mut state = self.lock();
        let (before, now) = (state.limit, Instant::now());
        self.answered(&mut state, now, false);
        let settled = state.stepped_down.is_none_or(|at| now - at >= SETTLE);
        if settled && state.throttling.steps_down() {
            let limit = state.limit;
            state.unthrottled.get_or_insert(limit);
            state.limit = (limit / 2).max(1);
            state.stepped_down = Some(now);
            (state.before, state.round) = (None, Round::NEW);
        }
        for _ in before..state.limit {
            self.0.freed.notify_one();
        }
    }

    /// Whether the service throttles, and not because of the rate of requests: a refused request
    /// may be repeated soon.
    pub(in super::super) fn is_throttled_at_random(&self) -> bool {
        self.lock().throttling.is_random()
    }

    /// Waits until throttling turns out not to depend on the rate of requests.
    pub(in super::super) async fn throttled_at_random(&self) {
        let random = self.0.random.notified();
        if !self.is_throttled_at_random() {
            random.await;
        }
    }

    /// Counts an answer. Throttling that does not depend on the rate gives back the limit that it
    /// took.
    fn answered(&self, state: &mut State, now: Instant, accepted: bool) {
        match state.throttling.answered(now, accepted) {
            Finding::None => {}
            Finding::Calm => state.unthrottled = None,
            Finding::Random => {
                state.limit = state.unthrottled.take().unwrap_or(0).max(state.limit);
                self.0.random.notify_waiters();
            }
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
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::super::{Pauses, RetryPolicy};
    use super::*;
    use crate::base::Retry;

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

    /// A service that answers in 10 ms and refuses some requests.
    enum Refusals {
        /// This share, at random.
        Random(f64),
        /// Requests above so many a second, with a burst of a second's.
        Above(f64),
    }

    struct Served {
        took: Duration,
        sent: u32,
        refused: u32,
    }

    /// Sends `count` requests, each until it is accepted, with the pauses of a connection, and
    /// `ahead` of them at a time, as a feeder does. Unless it `tells` the kinds of throttling
    /// apart, all of it counts as one that depends on the rate.
    async fn serve(refusals: Refusals, count: usize, ahead: usize, tells: bool) -> Served {
        let (limit, retry) = (ConcurrencyLimit::new(16, 16), RetryPolicy::default());
        let begun = Instant::now();
        let service = Arc::new(Mutex::new((refusals, fastrand::Rng::with_seed(7), 0.0, begun)));
        let (sent, refused) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let mut tasks = std::collections::VecDeque::new();
        for number in 0..count {
            if number >= ahead {
                let oldest: tokio::task::JoinHandle<()> = tasks.pop_front().expect("a task");
                oldest.await.expect("no panic");
            }
            let (limit, service) = (limit.clone(), service.clone());
            let (sent, refused) = (sent.clone(), refused.clone());
            tasks.push_back(tokio::spawn(async move {
                let mut pauses = Pauses::default();
                loop {
                    let permit = limit.acquire().await;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    sent.fetch_add(1, Ordering::Relaxed);
                    let accepted = {
                        let mut service = service.lock().expect("no panic");
                        let (refusals, random, tokens, last) = &mut *service;
                        match refusals {
                            Refusals::Random(share) => random.f64() >= *share,
                            Refusals::Above(rate) => {
                                let now = Instant::now();
                                let more = (now - *last).as_secs_f64() * *rate;
                                *tokens = (*tokens + more).min(*rate);
                                *last = now;
                                let accepted = *tokens >= 1.0;
                                *tokens -= f64::from(u8::from(accepted));
                                accepted
                            }
                        }
                    };
                    drop(permit);
                    if !tells {
                        limit.lock().throttling = Throttling::default();
                    }
                    if accepted {
                        return limit.succeeded();
                    }
                    refused.fetch_add(1, Ordering::Relaxed);
                    limit.throttled();
                    let is_random = limit.is_throttled_at_random();
                    let pause = pauses.next(&retry, Retry::Throttle, is_random, fastrand::f64());
                    let pause = pause.expect("attempts are left");
                    pauses.sleep(pause, &retry, &limit).await;
                }
            }));
        }
        for task in tasks {
            task.await.expect("no panic");
        }
        let took = begun.elapsed();
        Served {
            took,
            sent: sent.load(Ordering::Relaxed),
            refused: refused.load(Ordering::Relaxed),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_at_random_are_repeated_soon_and_keep_the_concurrency() {
        for (count, ahead) in [(160, 64), (5000, 128)] {
            fastrand::seed(7);
            let plain = serve(Refusals::Random(0.0), count, ahead, true).await;
            let served = serve(Refusals::Random(0.3), count, ahead, true).await;
            // The finding takes some seconds, whatever the work is.
            let most = 3 * plain.took + Duration::from_secs(8);
            assert!(served.took <= most, "{count}: {:?}, {:?}", served.took, plain.took);
            assert!(f64::from(served.sent) < 1.6 * count as f64, "{}", served.sent);
            let before = serve(Refusals::Random(0.3), count, ahead, false).await;
            assert!(before.took > 5 * served.took, "{:?}", before.took);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_on_the_rate_is_never_hammered() {
        for rate in [5.0, 20.0, 100.0, 300.0, 1000.0] {
            // A finding is a matter of chance, so of several runs the sums are compared.
            let (mut before, mut telling) = ((0, Duration::ZERO), (0, Duration::ZERO));
            for seed in 0..5 {
                for (tells, sums) in [(false, &mut before), (true, &mut telling)] {
                    fastrand::seed(seed);
                    let served = serve(Refusals::Above(rate), 2000, 128, tells).await;
                    sums.0 += served.refused;
                    sums.1 += served.took;
                }
            }
            let most = 1.25 * f64::from(before.0) + 5.0 * 150.0;
            assert!(f64::from(telling.0) < most, "{rate}: {telling:?}, {before:?}");
            assert!(telling.1 < before.1.mul_f64(1.25), "{rate}: {telling:?}, {before:?}");
        }
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
