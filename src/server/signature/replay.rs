//! Signatures that were used, for as long as they are valid.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::SKEW_SECONDS;
use crate::server::Refusal;

/// Signatures that are remembered at most: 6 MiB. Half an hour at 50 changes a second.
const MAX_SIGNATURES: usize = 100_000;

/// Which signatures were used up, and until when they would be valid.
#[derive(Debug, Default)]
pub(super) struct Used(Mutex<HashMap<[u8; 32], i64>>);

impl Used {
    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Uses a signature up, or refuses it because somebody has.
    pub(super) fn claim(&self, signature: [u8; 32], signed: i64, now: i64) -> Result<(), Refusal> {
        let mut used = self.lock();
        if used.len() >= MAX_SIGNATURES {
            used.retain(|_, until| *until >= now);
            if used.len() >= MAX_SIGNATURES {
                return Err(Refusal::busy("too many requests were made lately to tell this one from a repetition: try again"));
            }
        }
        // One more second than it can be valid.
        let until = signed.saturating_add(SKEW_SECONDS + 1);
        match used.insert(signature, until) {
            None => Ok(()),
            Some(_) => Err(Refusal::new(401, "AuthFailure", "this signed request was made already: sign it again")),
        }
    }

    /// Lets a signature be used again: its request came to nothing.
    pub(super) fn release(&self, signature: &[u8; 32]) {
        self.lock().remove(signature);
    }
}
