//! Local files beyond the standard library: files that appear whole or not at all, locks, look-ups
//! and opens that do not wait, the holes of sparse files, and writes in pieces that stay in the
//! cache.
//!
//! It does not know blocks, volumes or archives.

mod atomic_file;
mod directory;
mod fiemap;
mod holes;
#[cfg(feature = "aws")]
mod left_partial;
mod locked_file;
mod look;
mod room;
mod write;

pub use atomic_file::{Durability, Overwrite, PartialFile, rename_new, sync_directory};
pub use directory::check_directory;
pub use holes::{punch_hole, written_ranges};
#[cfg(feature = "aws")]
pub use left_partial::LeftPartial;
pub use locked_file::{LockAttempt, LockedFile, is_at, is_locked};
pub use look::{
    Opened, exists, is_directory, make_private_directory, open_device_to_write, open_to_read,
};
#[cfg(feature = "aws")]
pub use look::{check_open, read_short};
pub use room::free_bytes;
pub use write::{begin_sync, copy_range, write_all, write_all_at};
