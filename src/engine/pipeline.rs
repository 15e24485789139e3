//! The pipeline of every operation: one feeder, some workers, and a collector that gets the pieces
//! in the feeder's order.
//!
//! ```text
//! feeder --job, lease--> workers --piece, lease--> collector, in order
//!        `-------------------piece-------------------^
//! ```
//!
//! The feeder leases memory for each job; the lease travels with the job and its piece, and the
//! collector drops it. So the feeder alone waits for memory, in order, and the oldest piece always
//! has what it needs. A piece that needs no work is forwarded in order with the others.
//!
//! All threads end before [`Pipeline::run`] returns. If anything fails, feeding stops, jobs under
//! way are dropped, and the error that comes first in the feeder's order is returned: so a damaged
//! archive gives the same error whatever the number of threads.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::memory::IN_FLIGHT_FLOOR;
use super::{Budget, Context, Lease};
use crate::base::{Cancel, Error, Result};

/// Jobs that wait for a worker: remote archives are fetched for them in the meantime. Their memory
/// is bounded by their leases.
const AHEAD: usize = 64;

/// Threads and memory of an operation that handles volume data.
pub(super) struct Pipeline<'a> {
    context: Context<'a>,
    budget: Budget,
}

impl<'a> Pipeline<'a> {
    /// A pipeline with the threads and the memory of the context's plan.
    pub(super) fn new(context: Context<'a>) -> Self {
        Self::sharing(context, &Budget::new(context.plan.in_flight))
    }

    /// A pipeline with the threads of the context's plan, and memory that it shares with others.
    pub(super) fn sharing(context: Context<'a>, budget: &Budget) -> Self {
        Self { context, budget: budget.clone() }
    }

    /// Runs `feed` on one thread, the workers of `make_worker` on as many as are planned, and
    /// `collect` on the caller's.
    pub(super) fn run<J, P, W>(
        &self,
        feed: impl FnOnce(&mut Feed<'_, J, P>) -> Result<()> + Send,
        make_worker: impl Fn() -> Result<W> + Sync,
        mut collect: impl FnMut(P, Lease) -> Result<()>,
    ) -> Result<()>
    where
        J: Send,
        P: Send,
        W: FnMut(J) -> Result<P>,
    {
        let (cancel, threads) = (self.context.cancel, self.context.plan.threads.max(1));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (steps, queue) = sync_channel(threads + AHEAD);
            let (pieces, finished) = channel();
            // The workers' alone: with the last of them the feeder's end of the queue closes.
            let queue = Arc::new(Mutex::new(queue));
            for _ in 0..threads {
                let (queue, pieces, stop, make_worker) =
                    (queue.clone(), pieces.clone(), &stop, &make_worker);
                spawn(scope, move || worker(&queue, &pieces, stop, make_worker))?;
            }
            drop(queue);
            let feeder =
                Feed { context: self.context, budget: &self.budget, steps, stop: &stop, next: 0 };
            spawn(scope, move || feeder.run(feed, &pieces))?;
            collect_in_order(&finished, &stop, cancel, &mut collect)
        })
    }
}

/// Starts a thread. A system that has no thread left is an error, and no panic.
pub(super) fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<std::thread::ScopedJoinHandle<'scope, T>> {
    std::thread::Builder::new()
        .spawn_scoped(scope, work)
        .map_err(|cause| Error::io("cannot start a thread", cause))
}

/// A panic is a defect of ours; it must not leave the other threads waiting for a piece that never
/// comes.
pub(super) fn without_panic<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(Error::internal("a thread of amistore panicked: please report this"))
    })
}

/// A step of the feeder.
enum Step<J, P> {
    Work(J, Lease),
    Forward(P, Lease),
}

/// A piece with its number, or an error in its place; without a number, an error that ends
/// everything.
type Numbered<P> = (Option<u64>, Result<(P, Lease)>);

/// The feeder's end of a pipeline.
pub(super) struct Feed<'a, J, P> {
    context: Context<'a>,
    budget: &'a Budget,
    steps: SyncSender<(u64, Step<J, P>)>,
    stop: &'a AtomicBool,
    next: u64,
}

impl<J, P> Feed<'_, J, P> {
    /// Waits until `bytes` are free and takes them, for the next job.
    pub(super) fn lease(&self, bytes: u64) -> Result<Lease> {
        self.budget.lease(bytes, self.context.cancel)
    }

    /// Takes `bytes` for block maps and indexes, which stay while jobs come and go.
    pub(super) fn reserve(&self, bytes: u64) -> Result<Lease> {
        self.budget.reserve(bytes, IN_FLIGHT_FLOOR, self.context.cancel)
    }

    /// The memory of the pipeline.
    pub(super) fn budget(&self) -> &Budget {
        self.budget
    }

    /// Hands a job to the workers; `lease` goes with it. An error means that the operation ends and
    /// the feeder should return.
    pub(super) fn work(&mut self, job: J, lease: Lease) -> Result<()> {
        self.send(Step::Work(job, lease))
    }

    /// Hands a piece to the collector, in its place behind the jobs and pieces before it.
    pub(super) fn forward(&mut self, piece: P) -> Result<()> {
        self.send(Step::Forward(piece, Lease::none()))
    }

    /// Like [`forward`](Self::forward), for a piece that takes memory.
    pub(super) fn forward_leased(&mut self, piece: P, lease: Lease) -> Result<()> {
        self.send(Step::Forward(piece, lease))
    }

    fn send(&mut self, step: Step<J, P>) -> Result<()> {
        self.context.cancel.check()?;
        // The workers are gone only when the operation ends.
        if self.stop.load(Ordering::Relaxed) || self.steps.send((self.next, step)).is_err() {
            return Err(Error::interrupted());
        }
        self.next += 1;
        Ok(())
    }

    fn run(mut self, feed: impl FnOnce(&mut Self) -> Result<()>, pieces: &Sender<Numbered<P>>) {
        if let Err(error) = without_panic(|| feed(&mut self))
            && !self.stop.load(Ordering::Relaxed)
        {
            // The collector is gone only when the operation has ended.
            let _ = pieces.send((Some(self.next), Err(error)));
        }
    }
}

fn worker<J, P, W: FnMut(J) -> Result<P>>(
    queue: &Mutex<Receiver<(u64, Step<J, P>)>>,
    pieces: &Sender<Numbered<P>>,
    stop: &AtomicBool,
    make_worker: &impl Fn() -> Result<W>,
) {
    let mut work = match without_panic(make_worker) {
        Ok(work) => work,
        Err(error) => {
            let _ = pieces.send((None, Err(error)));
            return;
        }
    };
    loop {
        let step = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((number, step)) = step else { return };
        // After an error steps are only taken, so that the feeder never waits for room.
        if stop.load(Ordering::Relaxed) {
            continue;
        }
        let piece = match step {
            Step::Work(job, lease) => without_panic(|| work(job)).map(|piece| (piece, lease)),
            Step::Forward(piece, lease) => Ok((piece, lease)),
        };
        if pieces.send((Some(number), piece)).is_err() {
            return;
        }
    }
}

fn collect_in_order<P>(
    finished: &Receiver<Numbered<P>>,
    stop: &AtomicBool,
    cancel: &Cancel,
    collect: &mut impl FnMut(P, Lease) -> Result<()>,
) -> Result<()> {
    let mut early = BTreeMap::new();
    let mut next = 0;
    let mut outcome = Ok(());
    while let Ok((number, piece)) = finished.recv() {
        if outcome.is_err() {
            continue;
        }
        match number {
            Some(number) => drop(early.insert(number, piece)),
            None => outcome = piece.map(|_| ()),
        }
        while outcome.is_ok()
            && let Some(piece) = early.remove(&next)
        {
            next += 1;
            outcome = cancel.check().and(piece).and_then(|(piece, lease)| collect(piece, lease));
        }
        if outcome.is_err() {
            stop.store(true, Ordering::Relaxed);
            // Gives back the leases, which the feeder may be waiting for.
            early.clear();
        }
    }
    outcome.and(cancel.check())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ErrorKind, NullObserver};
    use crate::engine::Plan;

    /// Runs a pipeline of numbers with a budget of `memory` bytes, and returns the bytes that are
    /// leased afterwards as well.
    fn run<W: FnMut(u64) -> Result<u64>>(
        (threads, memory): (usize, u64),
        cancel: &Cancel,
        feed: impl FnOnce(&mut Feed<'_, u64, u64>) -> Result<()> + Send,
        make_worker: impl Fn() -> Result<W> + Sync,
        mut collect: impl FnMut(u64) -> Result<()>,
    ) -> (Result<()>, u64) {
        let plan = Plan { threads, in_flight: memory, level: 1, reserve: 0 };
        let pipeline = Pipeline::new(Context { plan: &plan, observer: &NullObserver, cancel });
        let outcome = pipeline.run(feed, make_worker, |number, _lease| collect(number));
        (outcome, pipeline.budget.in_use())
    }

    /// Feeds `numbers`, each with a lease of one byte; every third is forwarded.
    fn feed_all(numbers: u64, feed: &mut Feed<'_, u64, u64>) -> Result<()> {
        (0..numbers).try_for_each(|number| {
            if number % 3 == 2 {
                feed.forward(number)
            } else {
                let lease = feed.lease(1)?;
                feed.work(number, lease)
            }
        })
    }

    /// Work that takes longer for some numbers than for others.
    fn work(number: u64) {
        (0..(number * 7919) % 5000).for_each(|n| {
            std::hint::black_box(n);
        });
    }

    #[test]
    fn pieces_come_in_order_however_long_each_takes() {
        let mut seen = Vec::new();
        let collect = |number| {
            seen.push(number);
            Ok(())
        };
        let worker = || {
            Ok(|number| {
                work(number);
                Ok(number)
            })
        };
        let (outcome, leased) =
            run((4, 8), &Cancel::new(), |feed| feed_all(200, feed), worker, collect);
        outcome.expect("runs");
        assert_eq!((seen, leased), ((0..200).collect::<Vec<_>>(), 0));
    }

    #[test]
    fn the_first_error_in_order_is_returned_and_every_lease_given_back() {
        for threads in [1, 3, 16] {
            for failing in ["feed", "work", "collect"] {
                let fail = |at: &str, number: u64| {
                    if at == failing && number >= 50 {
                        Err(Error::corrupt(format!("{at} {number}")))
                    } else {
                        Ok(())
                    }
                };
                let feed = |feed: &mut Feed<'_, u64, u64>| {
                    (0..1000).try_for_each(|number| {
                        fail("feed", number)?;
                        let lease = feed.lease(1)?;
                        feed.work(number, lease)
                    })
                };
                let worker = || {
                    Ok(|number| {
                        work(number);
                        fail("work", number).map(|()| number)
                    })
                };
                let (outcome, leased) = run((threads, 4), &Cancel::new(), feed, worker, |number| {
                    fail("collect", number)
                });
                let error = outcome.expect_err("fails");
                assert_eq!(error.message(), format!("{failing} 50"), "{threads} threads");
                assert_eq!(leased, 0);
            }
        }
    }

    #[test]
    fn a_slow_first_piece_does_not_dead_lock_a_small_budget() {
        let gate = std::sync::Barrier::new(2);
        let worker = || {
            Ok(|number| {
                if number <= 1 {
                    gate.wait();
                }
                Ok(number)
            })
        };
        let (outcome, _) =
            run((2, 2), &Cancel::new(), |feed| feed_all(20, feed), worker, |_| Ok(()));
        outcome.expect("runs");
    }

    #[test]
    fn a_worker_that_cannot_be_made_fails_the_operation() {
        let worker = || -> Result<fn(u64) -> Result<u64>> { Err(Error::usage("no worker")) };
        let (outcome, leased) =
            run((2, 4), &Cancel::new(), |feed| feed_all(10, feed), worker, |_| Ok(()));
        assert_eq!((outcome.expect_err("fails").kind(), leased), (ErrorKind::Usage, 0));
    }

    #[test]
    fn a_panic_is_an_internal_error_and_ends_everything() {
        for at in ["feed", "work"] {
            let panic_at = |role: &str, number: u64| {
                assert!(role != at || number != 20, "{role} panics on purpose");
            };
            let feed = |feed: &mut Feed<'_, u64, u64>| {
                (0..1000).try_for_each(|number| {
                    panic_at("feed", number);
                    let lease = feed.lease(1)?;
                    feed.work(number, lease)
                })
            };
            let worker = || {
                Ok(|number| {
                    panic_at("work", number);
                    Ok(number)
                })
            };
            let (outcome, leased) = run((2, 4), &Cancel::new(), feed, worker, |_| Ok(()));
            assert_eq!((outcome.expect_err("fails").kind(), leased), (ErrorKind::Internal, 0));
        }
    }

    #[test]
    fn cancelling_ends_it() {
        let cancel = Cancel::new();
        let collect = |number| {
            if number == 100 {
                cancel.cancel();
            }
            Ok(())
        };
        let (outcome, leased) =
            run((2, 4), &cancel, |feed| feed_all(u64::MAX, feed), || Ok(Ok), collect);
        assert_eq!((outcome.expect_err("cancelled").kind(), leased), (ErrorKind::Interrupted, 0));
    }
}
