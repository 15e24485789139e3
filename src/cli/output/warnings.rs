//! Warnings of a run, collected for its result in JSON.

use std::sync::{Arc, Mutex, PoisonError};

use crate::base::{Event, Observer};

/// The warnings of this run so far, in their order. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    /// Each warning so far.
    pub(super) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An observer that collects warnings and passes every event to `inner`.
    pub(super) fn collected_from(&self, inner: Arc<dyn Observer>) -> Arc<dyn Observer> {
        Arc::new(Collecting { warnings: self.clone(), inner })
    }
}

struct Collecting {
    warnings: Warnings,
    inner: Arc<dyn Observer>,
}

impl Observer for Collecting {
    fn note(&self, event: &Event<'_>) {
        if let Event::Warning { message } = event {
            let mut all = self.warnings.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.push(message.clone());
        }
        self.inner.note(event);
    }
}
