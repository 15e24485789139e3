//! Used signatures of requests, for as long as they are valid: an attacker who saw a request cannot
//! repeat it, on any server that shares the database.

use std::time::{Duration, SystemTime};

use rusqlite::params;

use super::TaskDb;
use super::schema::{millis, time};
use crate::base::Result;

/// Added to the validity of a signature: a request that was verified at its end may still wait.
const MARGIN: Duration = Duration::from_secs(600);

impl TaskDb {
    /// Records the use of a signature that is valid until `until`. Returns the time of an earlier
    /// use.
    pub fn use_signature(
        &self,
        signature: &[u8; 32],
        until: SystemTime,
    ) -> Result<Option<SystemTime>> {
        let now = SystemTime::now();
        self.write(|transaction| {
            transaction
                .execute("DELETE FROM signature WHERE until < ?1", [millis(now - MARGIN)])?;
            let insert = "INSERT INTO signature (signature, used, until) VALUES (?1, ?2, ?3) \
                 ON CONFLICT DO NOTHING";
            if transaction.execute(insert, params![signature, millis(now), millis(until)])? == 1 {
                return Ok(None);
            }
            let select = "SELECT used FROM signature WHERE signature = ?1";
            transaction
                .query_row(select, [signature], |row| row.get(0))
                .map(|used| Some(time(used)))
        })
    }

    /// Forgets the use of a signature.
    pub fn release_signature(&self, signature: &[u8; 32]) -> Result<()> {
        self.change("DELETE FROM signature WHERE signature = ?1", [signature])
    }
}
