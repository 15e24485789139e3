//! Tells throttling that depends on the rate of requests from throttling that does not.
//!
//! A service at its limit accepts a larger share of fewer requests. A service that refuses at
//! random, or one of whose hosts refuses, accepts one share of them at any rate: there, fewer
//! requests and longer pauses gain nothing. The two are told apart by shares at two rates, which
//! the steps down after a throttle bring about. Time is a parameter: no clock, no waits.

use std::time::Duration;

use tokio::time::Instant;

/// The least time of a period. A longer silence between two answers counts as this long, so that
/// idle time does not look like a lower rate.
const PERIOD: Duration = Duration::from_secs(1);
/// The fewest answers of a period: a share of 20 answers varies by a tenth.
const LEAST_ANSWERS: u32 = 20;
/// The fewest refusals of a period that a share is computed from.
const LEAST_REFUSED: u32 = 4;
/// The rate of a period over that of the busiest one, for a comparison of their shares. At a limit
/// the share would grow by the inverse of this, 1.43.
const SLOWER: f64 = 0.7;
/// A share below this part of the busiest period's is no longer that of one service at random.
const FELL: f64 = 0.6;
/// A service that accepts less than this share is spared, whatever the reason is.
const LEAST_SHARE: f64 = 0.5;
/// Answers after which a period may show early that throttling depends on the rate after all: a
/// wrong finding must not cost many requests. [`FELL`] is three standard deviations of their share.
const EARLY_ANSWERS: u32 = 40;
/// The time for which throttling counts as random before it is tested again.
const TRUST: Duration = Duration::from_secs(10);
/// The time after a wrong finding for which there is no other: chance that deceives once does so
/// again, and each time costs refused requests.
const DOUBT: Duration = Duration::from_secs(60);

/// Observes the answers of a service.
#[derive(Debug, Default)]
pub(super) struct Throttling {
    period: Period,
    /// The busiest period since throttling began.
    busiest: Option<Sample>,
    state: State,
    /// The end of the time in which throttling is not found to be random.
    doubted: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Throttling depends on the rate, as far as known.
    #[default]
    ByRate,
    /// It does not, and is tested again after this time.
    Random(Instant),
    /// It did not: a step down shows whether that is still so.
    Testing,
}

/// A finding about the throttling of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// Nothing new.
    None,
    /// A period without a throttle has ended.
    Calm,
    /// Throttling does not depend on the rate.
    Random,
}

#[derive(Debug, Default)]
struct Period {
    last: Option<Instant>,
    time: Duration,
    accepted: u32,
    refused: u32,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Requests a second.
    rate: f64,
    /// Accepted requests of all.
    share: f64,
}

impl Throttling {
    /// Counts an answer.
    pub(super) fn answered(&mut self, now: Instant, accepted: bool) -> Finding {
        let ended = self.period.add(now, accepted);
        let share = self.busiest.map_or(0.0, |busiest| busiest.share);
        if self.is_random() && self.period.is_below(FELL * share) {
            *self = Self {
                period: Period { last: Some(now), ..Period::default() },
                doubted: Some(now + DOUBT),
                ..Self::default()
            };
            return Finding::None;
        }
        let Some((sample, refused)) = ended else { return Finding::None };
        if refused == 0 {
            (self.busiest, self.state) = (None, State::ByRate);
            return Finding::Calm;
        }
        let Some(busiest) = self.busiest else {
            self.busiest = Some(sample);
            return Finding::None;
        };
        let fell = sample.share < busiest.share * FELL;
        if let State::Random(until) = self.state {
            if fell {
                (self.busiest, self.state) = (Some(sample), State::ByRate);
                self.doubted = Some(now + DOUBT);
            } else {
                if sample.rate > busiest.rate {
                    self.busiest = Some(sample);
                }
                if now >= until {
                    self.state = State::Testing;
                }
            }
            return Finding::None;
        }
        if sample.rate > busiest.rate * SLOWER {
            if sample.rate > busiest.rate {
                self.busiest = Some(sample);
            }
            return Finding::None;
        }
        // A limit would accept as many requests a second as before.
        let at_a_limit = (busiest.share * busiest.rate / sample.rate).min(1.0);
        let is_same = sample.share < f64::midpoint(busiest.share, at_a_limit);
        let is_doubted = self.doubted.is_some_and(|until| now < until);
        let is_random = is_same && sample.share >= LEAST_SHARE && refused >= LEAST_REFUSED;
        if !fell && is_random && !is_doubted {
            self.state = State::Random(now + TRUST);
            return Finding::Random;
        }
        self.state = State::ByRate;
        if fell {
            // A burst that the service allowed, or chance.
            let share = f64::midpoint(busiest.share, sample.share);
            self.busiest = Some(Sample { share, ..busiest });
        }
        Finding::None
    }

    /// Whether a refused request may be repeated soon.
    pub(super) fn is_random(&self) -> bool {
        self.state != State::ByRate
    }

    /// Whether a throttle lowers the number of concurrent requests.
    pub(super) fn steps_down(&self) -> bool {
        !matches!(self.state, State::Random(_))
    }
}

impl Period {
    /// Whether its answers so far show a share below `share`.
    fn is_below(&self, share: f64) -> bool {
        let answers = self.accepted + self.refused;
        answers >= EARLY_ANSWERS && f64::from(self.accepted) < share * f64::from(answers)
    }

    /// Counts an answer. Returns the sample of the period that it ends, and how many of its
    /// requests were refused.
    fn add(&mut self, now: Instant, accepted: bool) -> Option<(Sample, u32)> {
        let since = self.last.replace(now).map_or(Duration::ZERO, |last| now - last);
        self.time += since.min(PERIOD);
        *(if accepted { &mut self.accepted } else { &mut self.refused }) += 1;
        let answers = self.accepted + self.refused;
        if self.time < PERIOD || answers < LEAST_ANSWERS {
            return None;
        }
        let rate = f64::from(answers) / self.time.as_secs_f64();
        let sample = Sample { rate, share: f64::from(self.accepted) / f64::from(answers) };
        let refused = self.refused;
        *self = Self { last: Some(now), ..Self::default() };
        Some((sample, refused))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers for `seconds` at `rate`, of which every `refused`th is refused. Returns the
    /// findings.
    fn answers(
        it: &mut Throttling,
        from: Instant,
        seconds: u32,
        rate: u32,
        refused: u32,
    ) -> Vec<Finding> {
        (0..seconds * rate)
            .map(|at| {
                let now = from + Duration::from_secs_f64(f64::from(at) / f64::from(rate));
                it.answered(now, at % refused != 0)
            })
            .filter(|finding| *finding != Finding::None)
            .collect()
    }

    #[test]
    fn one_share_at_two_rates_is_random_and_a_larger_share_at_a_lower_rate_is_a_limit() {
        let (mut it, start) = (Throttling::default(), Instant::now());
        let later = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(answers(&mut it, start, 2, 200, 3), []);
        assert_eq!(answers(&mut it, later(2), 3, 60, 3)[..1], [Finding::Random]);
        assert!(it.is_random() && !it.steps_down());
        let (mut it, start) = (Throttling::default(), Instant::now());
        answers(&mut it, start, 2, 200, 2);
        assert_eq!(answers(&mut it, later(2), 3, 100, 10), []);
        assert!(!it.is_random() && it.steps_down());
    }

    #[test]
    fn a_finding_is_tested_again_and_ends_early_if_it_is_wrong() {
        let (mut it, start) = (Throttling::default(), Instant::now());
        let later = |seconds| start + Duration::from_secs(seconds);
        answers(&mut it, start, 2, 200, 3);
        answers(&mut it, later(2), 2, 60, 3);
        answers(&mut it, later(4), 12, 200, 3);
        assert!(it.is_random() && it.steps_down(), "it is tested");
        let refused = (0..200).take_while(|at| {
            it.answered(later(16) + Duration::from_micros(*at), false);
            it.is_random()
        });
        assert!(refused.count() < 150);
        let findings = answers(&mut it, later(17), 3, 100, 1000);
        assert_eq!(findings.first(), Some(&Finding::Calm));
    }
}
