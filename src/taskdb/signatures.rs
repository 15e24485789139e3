//! Used signatures of requests, for as long as they are valid: an attacker who saw a request cannot
//! repeat it, on any server that shares the database.
//!
//! The wall clock decides whether a signature is valid, and can be wrong for a moment. While it is
//! ahead, signatures look expired that are valid again later; while it is behind, signatures look
//! valid that are forgotten. So a used signature is forgotten, but not the end of its validity. The
//! database records the ends as ranges of time, and a signature that ends in a range is refused.

use std::time::{Duration, SystemTime};

use rusqlite::{OptionalExtension, Transaction, params};

use super::TaskDb;
use super::schema::{millis, time};
use crate::base::Result;

/// Added to the validity of a signature: a request that was verified at its end may still wait.
const MARGIN: Duration = Duration::from_secs(600);

/// Ends of validity that are at most this far apart, in milliseconds, are in one range.
const GAP: i64 = 3_600_000;

/// The most ranges. Of more, the two earliest become one.
const MAX_RANGES: i64 = 64;

/// The result of the use of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureUse {
    /// It is used for the first time, and recorded.
    First,
    /// It was used at this time.
    Repeated(SystemTime),
    /// It may have been used: signatures that end at its time are forgotten, because the wall clock
    /// was ahead.
    Forgotten,
}

impl TaskDb {
    /// Records the use of a signature that is valid until `until`.
    pub fn use_signature(&self, signature: &[u8; 32], until: SystemTime) -> Result<SignatureUse> {
        let (now, until) = (self.now(), millis(until));
        let expired = now.saturating_sub(i64::try_from(MARGIN.as_millis()).unwrap_or(i64::MAX));
        self.write(|transaction| {
            forget(transaction, expired)?;
            let used = "SELECT used FROM signature WHERE signature = ?1";
            let used: Option<i64> =
                transaction.query_row(used, [signature], |row| row.get(0)).optional()?;
            if let Some(used) = used {
                return Ok(SignatureUse::Repeated(time(used)));
            }
            let forgotten =
                "SELECT EXISTS (SELECT 1 FROM forgotten WHERE ?1 BETWEEN first AND last)";
            if transaction.query_row(forgotten, [until], |row| row.get(0))? {
                return Ok(SignatureUse::Forgotten);
            }
            let insert = "INSERT INTO signature (signature, used, until) VALUES (?1, ?2, ?3)";
            transaction.execute(insert, params![signature, now, until])?;
            Ok(SignatureUse::First)
        })
    }

    /// Forgets the use of a signature whose request had no effect.
    pub fn release_signature(&self, signature: &[u8; 32]) -> Result<()> {
        self.change("DELETE FROM signature WHERE signature = ?1", [signature])
    }
}

/// Forgets the signatures that ended before `expired`, and records these ends.
fn forget(transaction: &Transaction<'_>, expired: i64) -> rusqlite::Result<()> {
    let ends: Vec<i64> = transaction
        .prepare("SELECT until FROM signature WHERE until < ?1 ORDER BY until")?
        .query_map([expired], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    if ends.is_empty() {
        return Ok(());
    }
    for range in ends.chunk_by(|earlier, later| later.saturating_sub(*earlier) <= GAP) {
        if let (Some(first), Some(last)) = (range.first(), range.last()) {
            record(transaction, *first, *last)?;
        }
    }
    let earliest = "SELECT first, last FROM forgotten ORDER BY first LIMIT 2";
    while transaction.query_row("SELECT COUNT(*) FROM forgotten", [], |row| row.get::<_, i64>(0))?
        > MAX_RANGES
    {
        let earliest: Vec<(i64, i64)> = transaction
            .prepare(earliest)?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        if let [(first, _), (second, last)] = earliest.as_slice() {
            transaction.execute("DELETE FROM forgotten WHERE first = ?1", [second])?;
            let extend = "UPDATE forgotten SET last = ?2 WHERE first = ?1";
            transaction.execute(extend, [first, last])?;
        }
    }
    transaction.execute("DELETE FROM signature WHERE until < ?1", [expired]).map(drop)
}

/// Records a range, as one with all ranges near it.
fn record(transaction: &Transaction<'_>, first: i64, last: i64) -> rusqlite::Result<()> {
    let near = params![first.saturating_sub(GAP), last.saturating_add(GAP)];
    let (earlier, later): (Option<i64>, Option<i64>) = transaction.query_row(
        "SELECT MIN(first), MAX(last) FROM forgotten WHERE last >= ?1 AND first <= ?2",
        near,
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    transaction.execute("DELETE FROM forgotten WHERE last >= ?1 AND first <= ?2", near)?;
    let first = earlier.map_or(first, |earlier| earlier.min(first));
    let last = later.map_or(last, |later| later.max(last));
    transaction
        .execute("INSERT INTO forgotten (first, last) VALUES (?1, ?2)", [first, last])
        .map(drop)
}
