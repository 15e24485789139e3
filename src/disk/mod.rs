//! Local files, as far as the standard library does not go: files that appear whole or not at all, and where the holes are.
//!
//! It does not know blocks, volumes or archives.

mod fiemap;
mod holes;
mod partial;

pub use holes::written_ranges;
pub use partial::{Durability, Overwrite, PartialFile, rename_new, sync_directory};
