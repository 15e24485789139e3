//! Checkpoints: one small file for each unfinished task, which survives a killed process.
//!
//! A task file has a header that identifies the task, and a journal of records in the order in
//! which they were written. A record is a kind and bytes; their meaning belongs to the use case
//! that writes them. Reading stops at the first record that is torn or damaged. The module does
//! not know stores, images or services.

mod directory;
mod file;
mod journal;

pub use directory::{StateDirectory, TaskEntry};
pub use file::{PriorTask, TaskFile, TaskHeader, TaskRecords};
pub use journal::Record;
