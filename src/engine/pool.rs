//! Buffers that go round, because touching fresh memory costs as much as compressing into it.

use std::sync::{Mutex, PoisonError};

/// Each buffer grows to the longest piece at most, which is what a lease is for. What is in one
/// that is taken is of no meaning.
#[derive(Default)]
pub(super) struct Pool(Mutex<Vec<Vec<u8>>>);

impl Pool {
    pub(super) fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    pub(super) fn put(&self, buffer: Vec<u8>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}
