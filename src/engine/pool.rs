//! Buffers that are used again, because touching fresh memory costs as much as compressing into it.

use std::sync::{Mutex, PoisonError};

/// Buffers that no job uses at the moment. Each grows to the longest piece at most, which its lease
/// covers. The content of a buffer that is taken has no meaning.
#[derive(Default)]
pub(super) struct BufferPool(Mutex<Vec<Vec<u8>>>);

impl BufferPool {
    pub(super) fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    pub(super) fn put(&self, buffer: Vec<u8>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}
