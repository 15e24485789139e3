//! The threads that requests run on.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::base::{Cancel, Error, Result};

/// Requests wait far more than they compute: TLS is their one load, and two threads carry more of
/// it than two cores can compress.
const THREADS: usize = 2;

/// A small runtime for requests. Clones share it; the last one ends it. It must not be used from
/// within another runtime.
#[derive(Clone)]
pub struct Runtime(Arc<tokio::runtime::Runtime>);

impl Runtime {
    /// Starts the threads.
    pub fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("amistore-net")
            .enable_all()
            .build();
        Ok(Self(Arc::new(
            runtime.map_err(|cause| Error::io("cannot start the threads for requests", cause))?,
        )))
    }

    /// Runs `work` to its end.
    pub(super) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.0.block_on(work)
    }

    /// Runs `work` to its end, or until `longer` after `cancel` is cancelled; then it is dropped.
    pub(super) fn wait<T>(
        &self,
        cancel: &Cancel,
        longer: Duration,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.0.block_on(async {
            tokio::select! {
                biased;
                result = work => result,
                () = cancelled(cancel, longer) => Err(Error::interrupted()),
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

/// Completes `longer` after `cancel` is cancelled.
pub(super) async fn cancelled(cancel: &Cancel, longer: Duration) {
    cancel.cancelled().await;
    if !longer.is_zero() {
        tokio::time::sleep(longer).await;
    }
}
