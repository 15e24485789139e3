//! The threads that requests run on.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::base::{Cancel, Error, Result};

/// Requests wait far more than they compute: their one load is TLS, and two threads encrypt more
/// than two cores compress.
const THREADS: usize = 2;

/// The threads of requests. Clones share them; the last clone ends them. Must not be used from
/// within another tokio runtime.
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

/// Completes `drain_timeout` after `cancel` is set.
pub(super) async fn cancelled(cancel: &Cancel, drain_timeout: Duration) {
    cancel.cancelled().await;
    if !drain_timeout.is_zero() {
        tokio::time::sleep(drain_timeout).await;
    }
}
