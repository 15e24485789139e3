//! Requests that do not depend on each other, each on a thread of its own, for callers that wait.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, ScopedJoinHandle, scope};

use crate::base::{Error, Result};

/// Threads at most: more requests than that are not in flight to one service.
const THREADS: usize = 16;

/// Runs `one` and `other` in parallel. Fails only if no thread can be started.
pub(super) fn both<A: Send, B>(
    one: impl FnOnce() -> A + Send,
    other: impl FnOnce() -> B,
) -> Result<(A, B)> {
    scope(|scope| {
        let one = Builder::new().spawn_scoped(scope, one).map_err(no_thread)?;
        let other = other();
        Ok((join(one), other))
    })
}

/// Calls `work` with each item, several in parallel, and returns the results in the order of the
/// items. Fails only if no thread can be started.
pub(super) fn each<'i, I: Sync, T: Send>(
    items: &'i [I],
    work: impl Fn(&'i I) -> T + Sync,
) -> Result<Vec<T>> {
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(items.len())));
    let worker = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return };
            let result = work(item);
            results.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
        }
    };
    scope(|scope| {
        let others = (1..items.len().min(THREADS))
            .map(|_| Builder::new().spawn_scoped(scope, worker).map_err(no_thread))
            .collect::<Result<Vec<_>>>()?;
        worker();
        others.into_iter().for_each(join);
        Ok(())
    })?;
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(index, _)| *index);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

fn no_thread(cause: std::io::Error) -> Error {
    Error::io("cannot start a thread", cause)
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        for count in [0, 1, 5, 100] {
            let items: Vec<u64> = (0..count).collect();
            let squares = each(&items, |item| item * item).expect("threads");
            assert_eq!(squares, items.iter().map(|item| item * item).collect::<Vec<_>>());
        }
    }

    #[test]
    fn both_run_at_the_same_time() {
        let gate = std::sync::Barrier::new(2);
        let meet = |number| {
            gate.wait();
            number
        };
        assert_eq!(both(|| meet(1), || meet(2)).expect("a thread"), (1, 2));
        let gates = std::sync::Barrier::new(THREADS);
        let all = [(); THREADS];
        assert_eq!(each(&all, |()| gates.wait()).expect("threads").len(), THREADS);
    }
}
