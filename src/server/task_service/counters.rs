//! Counters of all tasks since the start of the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::{Event, Observer};

/// Counts events, and forwards warnings, notes, damage and retries to the log.
pub(super) struct Counters {
    inner: Arc<dyn Observer>,
    bytes: AtomicU64,
    transferred: AtomicU64,
    retries: AtomicU64,
    completed: AtomicU64,
    failed: AtomicU64,
}

/// The counters at one moment.
pub(super) struct CountersSnapshot {
    pub(super) bytes: u64,
    pub(super) transferred: u64,
    pub(super) retries: u64,
    pub(super) completed: u64,
    pub(super) failed: u64,
}

impl Counters {
    pub(super) fn new(inner: Arc<dyn Observer>) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            inner,
            bytes: zero(),
            transferred: zero(),
            retries: zero(),
            completed: zero(),
            failed: zero(),
        }
    }

    /// A task ended.
    pub(super) fn ended(&self, well: bool) {
        let counter = if well { &self.completed } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> CountersSnapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CountersSnapshot {
            bytes: read(&self.bytes),
            transferred: read(&self.transferred),
            retries: read(&self.retries),
            completed: read(&self.completed),
            failed: read(&self.failed),
        }
    }
}

impl Observer for Counters {
    fn note(&self, event: &Event<'_>) {
        match event {
            Event::Advanced { bytes, .. } => {
                self.bytes.fetch_add(*bytes, Ordering::Relaxed);
            }
            Event::Sent { bytes } | Event::Received { bytes } => {
                self.transferred.fetch_add(*bytes, Ordering::Relaxed);
            }
            Event::Retried { .. } => {
                self.retries.fetch_add(1, Ordering::Relaxed);
                self.inner.note(event);
            }
            Event::Warning { .. } | Event::Note { .. } | Event::Damage { .. } => {
                self.inner.note(event);
            }
            _ => {}
        }
    }
}
