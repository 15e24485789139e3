//! Restores: the snapshots that they have begun, and the images that they made.

use rusqlite::params;

use super::database::IN_SCOPE;
use super::{Owner, ScopeFilter, TaskDb, TaskRow};
use crate::base::Result;

impl TaskDb {
    /// Records the snapshot that a restore has begun for one of the archive.
    pub fn note_snapshot(
        &self,
        id: i64,
        owner: &Owner,
        archived: &str,
        snapshot: &str,
    ) -> Result<()> {
        let insert = "INSERT OR REPLACE INTO begun_snapshot (task, archived, snapshot) \
             SELECT id, ?3, ?4 FROM task WHERE id = ?1 AND owner = ?2 AND state = 'running'";
        self.change(insert, params![id, owner.name(), archived, snapshot])
    }

    /// The snapshots that a restore has begun: of each the id in the archive, and EC2's.
    pub fn begun_snapshots(&self, id: i64) -> Result<Vec<(String, String)>> {
        let select = "SELECT archived, snapshot FROM begun_snapshot WHERE task = ?1";
        self.pairs(select, params![id])
    }

    /// The restores of a scope that are in progress.
    pub fn restores(&self, of: &ScopeFilter<'_>) -> Result<Vec<TaskRow>> {
        self.settle()?;
        let unfinished = format!(
            "{IN_SCOPE} AND reserved_id IS NOT NULL AND state IN ('queued', 'running') ORDER BY id"
        );
        self.select(&unfinished, params![of.patterns()])
    }

    /// The images of a scope that were restored: of each the id of EC2, and the reserved one.
    pub fn restored_images(&self, of: &ScopeFilter<'_>) -> Result<Vec<(String, String)>> {
        let select = format!(
            "SELECT restored_id, reserved_id FROM task \
             WHERE {IN_SCOPE} AND restored_id IS NOT NULL AND reserved_id IS NOT NULL \
             AND state != 'failed'"
        );
        self.pairs(&select, params![of.patterns()])
    }
}
