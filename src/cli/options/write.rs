//! Options of commands that write.

use clap::Args;

use crate::localfs::{Durability, Overwrite};

/// Options of a command that writes.
#[derive(Debug, Args)]
pub(in super::super) struct WriteArgs {
    /// Replace an existing target
    #[arg(long, short)]
    pub(in super::super) force: bool,
    /// Print the plan, and write nothing; for a bucket an upload is begun and aborted, which checks
    /// the permissions
    #[arg(long)]
    pub(in super::super) dry_run: bool,
    /// Report success before the data is on disk: faster, not safe against power failure
    #[arg(long)]
    no_sync: bool,
}

impl WriteArgs {
    /// Whether an existing target is replaced.
    pub(in super::super) fn overwrite(&self) -> Overwrite {
        if self.force { Overwrite::Yes } else { Overwrite::No }
    }

    /// Whether success means that the data is on disk.
    pub(in super::super) fn durability(&self) -> Durability {
        if self.no_sync { Durability::Cached } else { Durability::Synced }
    }
}
