//! Something that is being fetched in the background, until somebody wants it or nobody does any
//! more.

use std::future::Future;

use tokio::task::JoinHandle;

use super::Runtime;
use crate::base::{Error, Result};

/// A fetch under way, or done. Dropped, it is given up.
pub(super) struct Fetch<T>(JoinHandle<Result<T>>);

impl<T> Drop for Fetch<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T: Send + 'static> Fetch<T> {
    /// Begins.
    pub(super) fn begin(
        runtime: &Runtime,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Self {
        Self(runtime.spawn(work))
    }

    /// Waits for the end.
    pub(super) async fn outcome(mut self) -> Result<T> {
        (&mut self.0)
            .await
            .unwrap_or_else(|_| Err(Error::internal("a fetch was given up that was still wanted")))
    }

    /// Gives up all of them, and waits until none of them runs: no fetch outlives whoever began it.
    pub(super) fn give_up(runtime: &Runtime, fetches: impl IntoIterator<Item = Self>) {
        let fetches: Vec<Self> = fetches.into_iter().collect();
        fetches.iter().for_each(|fetch| fetch.0.abort());
        runtime.block_on(async {
            for mut fetch in fetches {
                // Given up, or finished: either is an end.
                let _ = (&mut fetch.0).await;
            }
        });
    }
}
