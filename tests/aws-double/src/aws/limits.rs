//! Request rates: token buckets as AWS documents them.

use std::collections::BTreeMap;
use std::time::Instant;

/// A token bucket: its capacity and its tokens per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    pub burst: f64,
    pub per_second: f64,
}

impl Rate {
    /// A burst of one second.
    pub fn per_second(requests: f64) -> Self {
        Self { burst: requests.max(1.0), per_second: requests }
    }
}

/// The buckets in use, by name.
#[derive(Debug, Default)]
pub struct Buckets(BTreeMap<String, (f64, Instant)>);

impl Buckets {
    /// Takes a token; false if there is none.
    pub fn take(&mut self, name: &str, rate: Rate, now: Instant) -> bool {
        let (level, at) = self.0.entry(name.to_owned()).or_insert((rate.burst, now));
        let flowed = now.saturating_duration_since(*at).as_secs_f64() * rate.per_second;
        *level = (*level + flowed).min(rate.burst);
        *at = now;
        let enough = *level >= 1.0;
        if enough {
            *level -= 1.0;
        }
        enough
    }

    pub fn reset(&mut self) {
        self.0.clear();
    }
}

#[test]
fn token_buckets_empty_and_fill() {
    let (mut buckets, start) = (Buckets::default(), Instant::now());
    let rate = Rate { burst: 2.0, per_second: 10.0 };
    let at = |millis| start + std::time::Duration::from_millis(millis);
    let taken: Vec<bool> = [0, 0, 0, 50, 101, 10_000, 10_000, 10_000]
        .map(|time| buckets.take("a", rate, at(time)))
        .to_vec();
    assert_eq!(taken, [true, true, false, false, true, true, true, false]);
    assert!(buckets.take("b", rate, start));
}
