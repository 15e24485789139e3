//! Totals of progress: where the bytes of all volumes are known before the work begins, each stage
//! begins with them, instead of growing volume by volume.

use crate::base::{BLOCK_BYTES, Event, Observer, Stage};
use crate::engine::Archive;

/// An observer whose stages of work begin with a total of volume bytes.
pub(super) struct WholeTotal<'a> {
    inner: &'a dyn Observer,
    total: u64,
}

impl<'a> WholeTotal<'a> {
    /// Events go to `inner`.
    pub(super) fn new(inner: &'a dyn Observer, total: u64) -> Self {
        Self { inner, total }
    }

    /// An observer with this part of the total.
    #[must_use]
    pub(super) fn part(self, share: f64) -> Self {
        Self { total: (self.total as f64 * share) as u64, ..self }
    }

    /// The total of all volumes of an archive. It is larger than the work by less than a block for
    /// each volume whose last block is short.
    pub(super) fn of_archive(inner: &'a dyn Observer, archive: &Archive) -> Self {
        let volumes = archive.root().manifest.volumes.iter();
        let bytes = volumes.map(|volume| (volume.blocks * BLOCK_BYTES).min(volume.size.bytes()));
        Self::new(inner, bytes.sum())
    }
}

impl Observer for WholeTotal<'_> {
    fn note(&self, event: &Event<'_>) {
        let is_work =
            |stage| matches!(stage, Stage::Store | Stage::Restore | Stage::Verify | Stage::Copy);
        match event {
            Event::Started { stage, total: None } if is_work(*stage) => {
                self.inner.note(&Event::Started { stage: *stage, total: Some(self.total) });
            }
            Event::Grew { .. } => {}
            event => self.inner.note(event),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Totals(Mutex<Vec<Option<u64>>>);

    impl Observer for Totals {
        fn note(&self, event: &Event<'_>) {
            let total = match event {
                Event::Started { total, .. } => *total,
                Event::Grew { bytes } => Some(*bytes),
                _ => return,
            };
            self.0.lock().expect("no panic").push(total);
        }
    }

    #[test]
    fn a_stage_of_work_begins_with_the_total_and_does_not_grow() {
        let totals = Totals::default();
        let whole = WholeTotal::new(&totals, 7);
        for event in [
            Event::Started { stage: Stage::Store, total: None },
            Event::Grew { bytes: 3 },
            Event::Started { stage: Stage::Sync, total: None },
            Event::Started { stage: Stage::Copy, total: Some(5) },
        ] {
            whole.note(&event);
        }
        assert_eq!(totals.0.into_inner().expect("no panic"), [Some(7), None, Some(5)]);
    }
}
