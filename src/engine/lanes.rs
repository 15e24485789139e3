//! Pieces of work that go on side by side, each with threads of its own.

use std::sync::{Mutex, PoisonError};

use super::pipeline::without_panic;
use crate::base::{Cancel, Error, Result};

/// Runs all `lanes`, each on a thread, and gives what they return, in their order. The first error
/// ends all of them by `cancel`, which has to be one that only they heed, and is the one that is
/// returned. All have ended then.
pub fn run_lanes<T: Send>(
    cancel: &Cancel,
    lanes: Vec<impl FnOnce() -> Result<T> + Send>,
) -> Result<Vec<T>> {
    let first = Mutex::new(None);
    let returned = std::thread::scope(|scope| {
        let run = |lane| {
            let (first, cancel) = (&first, cancel);
            scope.spawn(move || {
                let failed = |error| {
                    first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    cancel.cancel();
                };
                without_panic(lane).map_err(failed).ok()
            })
        };
        let threads: Vec<_> = lanes.into_iter().map(run).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_default())
            .collect::<Option<Vec<T>>>()
    });
    match first.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => returned
            .ok_or_else(|| Error::internal("a thread ended without a word: please report this")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ErrorKind;

    #[test]
    fn what_lanes_return_comes_in_their_order() {
        let lanes = (0..5u64).map(|number| move || Ok(number * number)).collect();
        assert_eq!(run_lanes(&Cancel::new(), lanes).expect("runs"), [0, 1, 4, 9, 16]);
    }

    #[test]
    fn the_first_error_ends_all_and_a_panic_is_one() {
        for panics in [false, true] {
            let cancel = Cancel::new();
            let lane = |number: u64| {
                let cancel = &cancel;
                move || {
                    if number == 2 {
                        assert!(!panics, "on purpose");
                        return Err(Error::corrupt("first"));
                    }
                    while !cancel.is_cancelled() {
                        std::thread::yield_now();
                    }
                    cancel.check()
                }
            };
            let error = run_lanes(&cancel, (0..4).map(lane).collect()).expect_err("fails");
            assert_eq!(error.kind(), if panics { ErrorKind::Internal } else { ErrorKind::Corrupt });
        }
    }
}
