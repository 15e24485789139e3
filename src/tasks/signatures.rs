//! Signatures of requests that were used, for as long as they are valid: nobody makes such a request again who only saw it, whichever server is asked.

use std::time::{Duration, SystemTime};

use rusqlite::params;

use super::Ledger;
use super::schema::millis;
use crate::base::Result;

/// So much longer than they are valid they are remembered: whoever was believed in the last moment may have waited since then.
const KEPT: Duration = Duration::from_secs(600);

impl Ledger {
    /// Notes that a signature was used, which is not valid any more at `until`. Returns whether it is the first use.
    pub fn use_signature(&self, signature: &[u8; 32], until: SystemTime) -> Result<bool> {
        self.write(|transaction| {
            transaction.execute("DELETE FROM signature WHERE until < ?1", [millis(SystemTime::now() - KEPT)])?;
            let note = "INSERT INTO signature (signature, until) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
            Ok(transaction.execute(note, params![signature, millis(until)])? == 1)
        })
    }

    /// Forgets that a signature was used.
    pub fn release_signature(&self, signature: &[u8; 32]) -> Result<()> {
        self.change("DELETE FROM signature WHERE signature = ?1", [signature])
    }
}
