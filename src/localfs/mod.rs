//! Local files, as far as the standard library does not go: files that appear whole or not at all,
//! and where the holes are.
//!
//! It does not know blocks, volumes or archives.

mod atomic_file;
mod fiemap;
mod holes;

pub use atomic_file::{Durability, Overwrite, PartialFile, rename_new, sync_directory};
pub use holes::written_ranges;
