//! A flag that asks a whole operation to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Error, Result};

/// Shared by everybody who works on one operation. Once set it stays set.
///
/// It does not interrupt a system call: whoever may wait long asks often.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    flag: Arc<AtomicBool>,
    /// Whoever asked one of them asked us.
    parents: Vec<Arc<AtomicBool>>,
}

impl Cancel {
    /// A flag that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// A flag for a part of the work: set with this one, or alone.
    #[must_use]
    pub fn part(&self) -> Self {
        Self {
            flag: Arc::default(),
            parents: self.parents.iter().chain([&self.flag]).cloned().collect(),
        }
    }

    /// Asks everybody to stop.
    pub fn cancel(&self) {
        self.flag.store(true, Ordering::SeqCst);
    }

    /// Whether somebody asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.parents.iter().chain([&self.flag]).any(|flag| flag.load(Ordering::SeqCst))
    }

    /// An [`Interrupted`](super::ErrorKind::Interrupted) error if somebody asked to stop.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::interrupted()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_part_stops_with_the_whole_and_not_the_other_way_round() {
        let whole = Cancel::new();
        let part = whole.part();
        let (one, other) = (part.part(), whole.part());
        part.cancel();
        assert_eq!(
            [&whole, &part, &one, &other].map(Cancel::is_cancelled),
            [false, true, true, false]
        );
        whole.cancel();
        assert!(other.is_cancelled() && whole.part().is_cancelled());
    }
}
