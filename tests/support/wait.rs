//! Waiting for conditions.

use std::time::{Duration, Instant};

/// Time limit of a wait.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// Waits until a condition holds.
#[track_caller]
pub fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let started = Instant::now();
    while !happened() {
        assert!(started.elapsed() < TIME_LIMIT, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
