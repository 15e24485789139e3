//! Independent pieces of work that run in parallel, each with threads of its own.

use std::sync::{Mutex, PoisonError};

use super::pipeline::{spawn, without_panic};
use crate::base::{Cancel, Error, Result};

/// Runs all of `works`, each on a thread, and returns their results in the same order. The first
/// error cancels `cancel`, which is a token of these works alone, and is returned when all have
/// ended.
pub fn run_parallel<T: Send>(
    cancel: &Cancel,
    works: Vec<impl FnOnce() -> Result<T> + Send>,
) -> Result<Vec<T>> {
    let first = Mutex::new(None);
    let failed = |error| {
        first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        cancel.cancel();
    };
    let returned = std::thread::scope(|scope| {
        let mut threads = Vec::with_capacity(works.len());
        for work in works {
            match spawn(scope, || without_panic(work).map_err(failed).ok()) {
                Ok(thread) => threads.push(thread),
                Err(error) => failed(error),
            }
        }
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_default())
            .collect::<Option<Vec<T>>>()
    });
    match first.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => returned
            .ok_or_else(|| Error::internal("a thread ended without a result: please report this")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ErrorKind;

    #[test]
    fn results_come_in_the_order_of_the_works() {
        let works = (0..5u64).map(|number| move || Ok(number * number)).collect();
        assert_eq!(run_parallel(&Cancel::new(), works).expect("runs"), [0, 1, 4, 9, 16]);
    }

    #[test]
    fn the_first_error_ends_all_and_a_panic_is_one() {
        for panics in [false, true] {
            let cancel = Cancel::new();
            let work = |number: u64| {
                let cancel = &cancel;
                move || {
                    if number == 2 {
                        assert!(!panics, "on purpose");
                        return Err(Error::corrupt("first"));
                    }
                    cancel.wait();
                    cancel.check()
                }
            };
            let error = run_parallel(&cancel, (0..4).map(work).collect()).expect_err("fails");
            assert_eq!(error.kind(), if panics { ErrorKind::Internal } else { ErrorKind::Corrupt });
        }
    }
}
