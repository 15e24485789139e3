//! The threads that requests run on.

use std::future::Future;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::base::{Cancel, Error, Result, caught};

/// Requests wait far more than they compute: their one load is TLS, and two threads encrypt more
/// than two cores compress.
const THREADS: usize = 2;

/// The longest time for the start of a thread.
const START: Duration = Duration::from_secs(10);

/// The threads of requests. Clones share them; the last clone ends them. Must not be used from
/// within another tokio runtime.
#[derive(Clone)]
pub struct Runtime(Arc<tokio::runtime::Runtime>);

impl Runtime {
    /// Starts the threads.
    pub fn new() -> Result<Self> {
        let mut threads = tokio::runtime::Builder::new_multi_thread();
        threads.thread_name("amistore-net").enable_all();
        start_threads(&mut threads, THREADS, "cannot start the threads for requests")
            .map(|runtime| Self(Arc::new(runtime)))
    }

    /// Runs `work` to its end.
    pub(super) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.0.block_on(work)
    }

    /// Runs `work` to its end. When `cancel` is set, `work` has `drain_timeout` to end, and is then
    /// dropped.
    pub(super) fn wait<T>(
        &self,
        cancel: &Cancel,
        drain_timeout: Duration,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.0.block_on(async {
            tokio::select! {
                biased;
                result = work => result,
                () = cancelled(cancel, drain_timeout) => Err(Error::interrupted()),
            }
        })
    }

    /// Starts `work`.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.0.spawn(work)
    }

    pub(super) fn handle(&self) -> &tokio::runtime::Handle {
        self.0.handle()
    }
}

/// Starts a runtime with `count` threads. Tokio panics if the system has none left: that is an
/// error with this message.
pub(crate) fn start_threads(
    threads: &mut tokio::runtime::Builder,
    count: usize,
    message: &'static str,
) -> Result<tokio::runtime::Runtime> {
    // One more for look-ups of names.
    check_threads(count + 1)?;
    // Where the system refuses one of several threads, tokio waits for another one to be free, and
    // none of them ever is: tasks would wait for ever.
    let (started, running) = mpsc::channel();
    threads.on_thread_start(move || {
        // Of later threads nothing is counted.
        let _ = started.send(());
    });
    let none_left = || std::io::Error::from(rustix::io::Errno::AGAIN);
    let built = caught(|| threads.worker_threads(count).build());
    let runtime =
        built.unwrap_or_else(|| Err(none_left())).map_err(|cause| Error::io(message, cause))?;
    if (0..count).all(|_| running.recv_timeout(START).is_ok()) {
        return Ok(runtime);
    }
    runtime.shutdown_background();
    Err(Error::io(message, none_left()))
}

/// Checks that the system has `count` threads left.
fn check_threads(count: usize) -> Result<()> {
    let end = Cancel::new();
    let start = |_| {
        let end = end.clone();
        std::thread::Builder::new().spawn(move || end.wait())
    };
    let started: std::io::Result<Vec<_>> = (0..count).map(start).collect();
    end.cancel();
    for thread in started.map_err(|cause| Error::io("cannot start a thread", cause))? {
        // It waits and does nothing else.
        let _ = thread.join();
    }
    Ok(())
}

/// Completes `drain_timeout` after `cancel` is set.
pub(super) async fn cancelled(cancel: &Cancel, drain_timeout: Duration) {
    cancel.cancelled().await;
    if !drain_timeout.is_zero() {
        tokio::time::sleep(drain_timeout).await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::{ConcurrencyLimit, RequestRate};
    use super::*;
    use crate::base::ErrorKind;

    #[test]
    fn a_panic_for_want_of_threads_becomes_an_error() {
        let mut threads = tokio::runtime::Builder::new_multi_thread();
        // Tokio calls this before it starts a thread, in which it would panic.
        threads.thread_name_fn(|| panic!("no thread is left"));
        let error = start_threads(&mut threads, 1, "cannot start").expect_err("none is left");
        assert_eq!((error.kind(), error.message()), (ErrorKind::Io, "cannot start"));
    }

    #[test]
    fn cancelling_wakes_callers_that_wait_for_a_limit() {
        let runtime = Runtime::new().expect("a runtime");
        let cancel = Cancel::new();
        let requests = ConcurrencyLimit::new(1, 1);
        let _only_permit = runtime.block_on(requests.acquire());
        let turns = RequestRate::new(1.0);
        for _ in 0..3600 {
            turns.turn();
        }
        let in_an_hour = turns.turn();
        std::thread::scope(|scope| {
            let waits = [
                scope.spawn(|| {
                    runtime.wait(&cancel, Duration::ZERO, async {
                        requests.acquire().await;
                        Ok(())
                    })
                }),
                scope.spawn(|| {
                    runtime.wait(&cancel, Duration::ZERO, async {
                        tokio::time::sleep_until(in_an_hour).await;
                        Ok(())
                    })
                }),
            ];
            cancel.cancel();
            for wait in waits {
                let error = wait.join().expect("no panic").expect_err("is cancelled");
                assert_eq!(error.kind(), ErrorKind::Interrupted);
            }
        });
    }
}
