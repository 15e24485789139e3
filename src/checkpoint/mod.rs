//! What survives a killed process: one small file for each piece of unfinished work.
//!
//! A file holds what the work is, and what of it was done, in the order it was done. It is believed
//! as far as its records are whole; whoever continues the work compares it with what is really
//! there. It does not know stores or images.

mod directory;
mod log;
mod task;

use std::sync::{Arc, Mutex};

pub use directory::{StateDirectory, TaskEntry};
pub use task::{
    Earlier, PartRecord, Piece, SnapshotState, Task, TaskHeader, TaskKind, TaskRecord, TaskRecords,
    UploadState,
};

/// A task that several share.
pub type SharedTask = Arc<Mutex<Task>>;
