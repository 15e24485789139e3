//! The use cases, one file each, without arguments and output.
//!
//! It does not know the command line.

mod copy;
mod extract;
mod inspect;
mod records;
mod restore;
mod resume;
mod store;
mod target;
mod tasks;
mod verify;

pub use copy::{Copied, copy, copy_stream, plan_copy};
pub use extract::{
    Extracted, VolumeName, VolumeRange, extract, extract_range, extract_to_stream, plan_extract,
};
pub use inspect::{Inspection, MapCell, VolumeInspection, inspect, inspect_stream};
pub use restore::{
    Restored, RestoredVolume, plan_restore, restore, restore_resumable, restore_stream,
};
pub use resume::{Resumption, shell_line};
pub use store::{
    PlannedVolume, StoreOutcome, StorePlan, Stored, image_metadata, plan_store, store,
};
pub use target::{ArchiveTarget, ObjectTarget};
pub use tasks::{TaskProgress, describe_tasks};
pub use verify::{Verified, verify, verify_against, verify_stream};
