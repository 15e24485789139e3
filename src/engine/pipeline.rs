//! One feeder, some workers, results in the feeder's order.
//!
//! All threads end before [`run_ordered`] returns. If anything fails, feeding stops, what is under
//! way is dropped, and the error that comes first in the feeder's order is returned: so a damaged
//! archive gives the same error whatever the number of threads. It does not bound what is in
//! flight: the feeder does, by the leases it puts into its jobs.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};

use crate::base::{Cancel, Error, Result};

/// Jobs that wait for a worker: remote archives are fetched for them in the meantime. What they may
/// hold is bounded by their leases.
const AHEAD: usize = 64;

/// Hands jobs to the workers; an error means that the operation ends and the feeder should return.
pub type Emit<'a, J> = dyn FnMut(J) -> Result<()> + 'a;

/// Runs `feed` on one thread, `make_worker`'s workers on `threads`, and `collect` on the caller's.
pub fn run_ordered<J, R, W>(
    threads: usize,
    cancel: &Cancel,
    feed: impl FnOnce(&mut Emit<'_, J>) -> Result<()> + Send,
    make_worker: impl Fn() -> Result<W> + Sync,
    mut collect: impl FnMut(R) -> Result<()>,
) -> Result<()>
where
    J: Send,
    R: Send,
    W: FnMut(J) -> Result<R>,
{
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (jobs, queue) = sync_channel(threads + AHEAD);
        let queue = Mutex::new(queue);
        let (results, finished) = channel();
        {
            let (stop, results) = (&stop, results.clone());
            scope.spawn(move || feeder(feed, &jobs, &results, stop, cancel));
        }
        // The workers borrow the queue; it has to outlive the scope's closure, so it is moved into
        // the first place they share.
        let queue = std::sync::Arc::new(queue);
        for _ in 0..threads.max(1) {
            let (queue, results, stop, make_worker) =
                (queue.clone(), results.clone(), &stop, &make_worker);
            scope.spawn(move || worker(&queue, &results, stop, make_worker));
        }
        drop((queue, results));
        collect_in_order(&finished, &stop, cancel, &mut collect)
    })
}

/// A result with its number; without one it is an error that ends everything.
type Numbered<T> = (Option<u64>, Result<T>);

/// A panic is a defect of ours; it must not leave the other threads waiting for a piece that never
/// comes.
pub(super) fn without_panic<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(Error::internal("a thread of amistore panicked: please report this"))
    })
}

fn feeder<J, R>(
    feed: impl FnOnce(&mut Emit<'_, J>) -> Result<()>,
    jobs: &SyncSender<(u64, J)>,
    results: &Sender<Numbered<R>>,
    stop: &AtomicBool,
    cancel: &Cancel,
) {
    let mut next = 0;
    let mut emit = |job| {
        cancel.check()?;
        // The workers are gone only when the operation ends.
        if stop.load(Ordering::Relaxed) || jobs.send((next, job)).is_err() {
            return Err(Error::interrupted());
        }
        next += 1;
        Ok(())
    };
    let fed = without_panic(|| feed(&mut emit));
    if let Err(error) = fed
        && !stop.load(Ordering::Relaxed)
    {
        let _ = results.send((Some(next), Err(error)));
    }
}

fn worker<J, R, W: FnMut(J) -> Result<R>>(
    queue: &Mutex<Receiver<(u64, J)>>,
    results: &Sender<Numbered<R>>,
    stop: &AtomicBool,
    make_worker: &impl Fn() -> Result<W>,
) {
    let mut work = match make_worker() {
        Ok(work) => work,
        Err(error) => {
            let _ = results.send((None, Err(error)));
            return;
        }
    };
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((number, job)) = job else { return };
        // After an error jobs are only taken, so that the feeder never waits for room.
        if stop.load(Ordering::Relaxed) {
            continue;
        }
        if results.send((Some(number), without_panic(|| work(job)))).is_err() {
            return;
        }
    }
}

fn collect_in_order<R>(
    finished: &Receiver<Numbered<R>>,
    stop: &AtomicBool,
    cancel: &Cancel,
    collect: &mut impl FnMut(R) -> Result<()>,
) -> Result<()> {
    let mut early = BTreeMap::new();
    let mut next = 0;
    let mut outcome = Ok(());
    while let Ok((number, result)) = finished.recv() {
        if outcome.is_err() {
            continue;
        }
        match (number, result) {
            (Some(number), result) => {
                early.insert(number, result);
            }
            (None, result) => {
                outcome = result.map(|_| ());
                stop.store(true, Ordering::Relaxed);
                early.clear();
                continue;
            }
        }
        while let Some(result) = early.remove(&next) {
            next += 1;
            outcome = cancel.check().and(result).and_then(&mut *collect);
            if outcome.is_err() {
                stop.store(true, Ordering::Relaxed);
                // Gives back the leases, which the feeder may be waiting for.
                early.clear();
                break;
            }
        }
    }
    outcome.and(cancel.check())
}

#[cfg(test)]
mod tests {
    use super::super::Budget;
    use super::*;
    use crate::base::ErrorKind;

    #[test]
    fn results_come_in_order_whatever_takes_longest() {
        let mut seen = Vec::new();
        run_ordered(
            4,
            &Cancel::new(),
            |emit| (0..200u64).try_for_each(emit),
            || {
                Ok(|number: u64| {
                    (0..(number * 7919) % 5000).for_each(|n| {
                        std::hint::black_box(n);
                    });
                    Ok(number)
                })
            },
            |number| {
                seen.push(number);
                Ok(())
            },
        )
        .expect("runs");
        assert_eq!(seen, (0..200).collect::<Vec<_>>());
    }

    #[test]
    fn the_first_error_in_order_is_returned_and_every_lease_given_back() {
        for failing in ["feed", "work", "collect"] {
            let (budget, cancel) = (Budget::new(4), Cancel::new());
            let fail = |at: &str, number: u64| {
                if at == failing && number >= 50 {
                    Err(Error::corrupt(format!("{at} {number}")))
                } else {
                    Ok(())
                }
            };
            let error = run_ordered(
                3,
                &cancel,
                |emit| {
                    (0..1000u64).try_for_each(|number| {
                        fail("feed", number)
                            .and_then(|()| emit((number, budget.lease(1, &cancel)?)))
                    })
                },
                || Ok(|(number, lease)| fail("work", number).map(|()| (number, lease))),
                |(number, _lease)| fail("collect", number),
            )
            .expect_err("fails");
            assert_eq!(error.message(), format!("{failing} 50"));
            assert_eq!(budget.in_use(), 0);
        }
    }

    #[test]
    fn a_slow_first_piece_does_not_dead_lock_a_small_budget() {
        let (budget, cancel) = (Budget::new(2), Cancel::new());
        let gate = std::sync::Barrier::new(2);
        run_ordered(
            2,
            &cancel,
            |emit| (0..20u64).try_for_each(|number| emit((number, budget.lease(1, &cancel)?))),
            || {
                Ok(|(number, lease): (u64, super::super::Lease)| {
                    if number <= 1 {
                        gate.wait();
                    }
                    Ok((number, lease))
                })
            },
            |_| Ok(()),
        )
        .expect("runs");
    }

    #[test]
    fn a_worker_that_cannot_be_made_fails_the_operation() {
        let error = run_ordered(
            2,
            &Cancel::new(),
            |emit| (0..10).try_for_each(emit),
            || -> Result<fn(i32) -> Result<i32>> { Err(Error::usage("no worker")) },
            |_| Ok(()),
        )
        .expect_err("fails");
        assert_eq!(error.kind(), ErrorKind::Usage);
    }

    #[test]
    fn a_panic_is_an_internal_error_and_ends_everything() {
        for at in ["feed", "work"] {
            let (budget, cancel) = (Budget::new(4), Cancel::new());
            let panic_at = |place: &str, number: u64| {
                assert!(place != at || number != 20, "{place} panics on purpose")
            };
            let error = run_ordered(
                2,
                &cancel,
                |emit| {
                    (0..1000u64).try_for_each(|number| {
                        panic_at("feed", number);
                        emit((number, budget.lease(1, &cancel)?))
                    })
                },
                || {
                    Ok(|(number, lease)| {
                        panic_at("work", number);
                        Ok((number, lease))
                    })
                },
                |_| Ok(()),
            )
            .expect_err("fails");
            assert_eq!(error.kind(), ErrorKind::Internal);
            assert_eq!(budget.in_use(), 0);
        }
    }

    #[test]
    fn cancelling_ends_it() {
        let cancel = Cancel::new();
        let error = run_ordered(
            2,
            &cancel,
            |emit| (0..u64::MAX).try_for_each(emit),
            || Ok(Ok),
            |number: u64| {
                if number == 100 {
                    cancel.cancel();
                }
                Ok(())
            },
        )
        .expect_err("cancelled");
        assert_eq!(error.kind(), ErrorKind::Interrupted);
    }
}
