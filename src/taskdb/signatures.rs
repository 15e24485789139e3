//! Signatures of requests that were used, for as long as they are valid: nobody makes such a
//! request again who only saw it, whichever server is asked.

use std::time::{Duration, SystemTime};

use rusqlite::params;

use super::TaskDb;
use super::schema::{millis, time};
use crate::base::Result;

/// So much longer than they are valid they are remembered: whoever was believed in the last moment
/// may have waited since then.
const KEPT: Duration = Duration::from_secs(600);

impl TaskDb {
    /// Notes that a signature is used, which is not valid any more at `until`. Returns when it was
    /// used before, if it was.
    pub fn use_signature(
        &self,
        signature: &[u8; 32],
        until: SystemTime,
    ) -> Result<Option<SystemTime>> {
        let now = SystemTime::now();
        self.write(|transaction| {
            transaction.execute("DELETE FROM signature WHERE until < ?1", [millis(now - KEPT)])?;
            let note = "INSERT INTO signature (signature, used, until) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
            if transaction.execute(note, params![signature, millis(now), millis(until)])? == 1 {
                return Ok(None);
            }
            transaction
                .query_row("SELECT used FROM signature WHERE signature = ?1", [signature], |row| row.get(0))
                .map(|used| Some(time(used)))
        })
    }

    /// Forgets that a signature was used.
    pub fn release_signature(&self, signature: &[u8; 32]) -> Result<()> {
        self.change("DELETE FROM signature WHERE signature = ?1", [signature])
    }
}
