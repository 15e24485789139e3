//! Progress of a restore that outlives the process which began it.
//!
//! A destination reports each resource that it creates to the [`RestoreJournal`], and finds those
//! of earlier runs in the [`RestoreRecord`].

use std::sync::Arc;

use crate::base::Result;

/// Receives the progress of a restore.
pub trait RestoreJournal: Send + Sync {
    /// A snapshot was begun. On return the record survives a power failure, because no block is
    /// written before: a snapshot without a record would cost money and never be found again.
    fn snapshot_begun(&self, snapshot: &SnapshotBegun) -> Result<()>;
}

/// Makes a restore resumable.
#[derive(Clone)]
pub struct ResumableRestore {
    /// Receives the progress of this run.
    pub journal: Arc<dyn RestoreJournal>,
    /// The record of the restore, with the progress of earlier runs.
    pub record: RestoreRecord,
}

/// The record of a restore: the same in every run that continues it, except for the snapshots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestoreRecord {
    /// Part of the names of partial files: 16 hexadecimal digits that depend on the archive only.
    pub tag: String,
    /// A text that no other restore has; client tokens derive from it.
    pub identity: String,
    /// Snapshots that earlier runs began, oldest first.
    pub snapshots: Vec<SnapshotBegun>,
}

/// A snapshot in EC2 that was begun. Cells of its volume that were recorded before are not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotBegun {
    /// Index of the volume in the archive.
    pub volume: u16,
    /// EC2's id of the snapshot.
    pub snapshot_id: String,
    /// Number of the attempt at this volume, from 0.
    pub attempt: u32,
    /// URL of EBS; empty for the default endpoint.
    pub ebs_endpoint: String,
    /// URL of EC2; empty for the default endpoint.
    pub ec2_endpoint: String,
    /// The Region.
    pub region: String,
    /// The profile that the credentials came from, if one was named.
    pub profile: Option<String>,
}
