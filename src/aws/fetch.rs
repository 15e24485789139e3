//! A request in the background, whose result is read later or not at all.

use std::future::Future;

use tokio::task::JoinHandle;

use super::Runtime;
use crate::base::{Error, Result};

/// A fetch that runs or has ended. Dropping it aborts it.
pub(super) struct Fetch<T>(JoinHandle<Result<T>>);

impl<T> Drop for Fetch<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T: Send + 'static> Fetch<T> {
    /// Starts `work` in the background.
    pub(super) fn begin(
        runtime: &Runtime,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Self {
        Self(runtime.spawn(work))
    }

    /// Waits for the result.
    pub(super) async fn outcome(mut self) -> Result<T> {
        (&mut self.0).await.unwrap_or_else(|_| {
            Err(Error::internal("a fetch was aborted before its result was read"))
        })
    }

    /// Aborts all of them and waits until none runs, so that no fetch outlives its reader.
    pub(super) fn abort_all(runtime: &Runtime, fetches: impl IntoIterator<Item = Self>) {
        let fetches: Vec<Self> = fetches.into_iter().collect();
        for fetch in &fetches {
            fetch.0.abort();
        }
        runtime.block_on(async {
            for mut fetch in fetches {
                // Aborted or finished.
                let _ = (&mut fetch.0).await;
            }
        });
    }
}
