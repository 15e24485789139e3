//! The use cases, one file each: what the program does, without how it is asked or what it prints.
//!
//! It does not know the command line.

mod extract;
mod inspect;
mod restore;
mod store;
mod verify;

pub use extract::{Extracted, Wanted, extract, plan_extract};
pub use inspect::{Inspection, MapCell, VolumeInspection, inspect, inspect_stream};
pub use restore::{Restored, RestoredVolume, plan_restore, restore, restore_stream};
pub use store::{PlannedVolume, StorePlan, StoreTarget, Stored, plan_store, store};
pub use verify::{Verified, verify, verify_against, verify_stream};
