//! The use cases, one file each, without arguments and output.
//!
//! It does not know the command line.

#[cfg(feature = "aws")]
mod clean;
mod copy;
mod extract;
mod inspect;
#[cfg(feature = "server")]
mod list_tasks;
mod plan;
mod records;
mod restore;
mod resume;
#[cfg(feature = "aws")]
mod server_copy;
mod store;
mod target;
mod tasks;
mod verify;

#[cfg(feature = "aws")]
pub use clean::{CleanAccess, CleanOptions, Cleaned, Leftover, clean};
pub use copy::{Copied, copy, copy_stream};
pub use extract::{
    Extracted, VolumeName, VolumeRange, extract, extract_range, extract_to_stream, plan_extract,
};
pub use inspect::{Inspection, MapCell, VolumeInspection, inspect, inspect_stream};
#[cfg(feature = "server")]
pub use list_tasks::{ListedTask, list_tasks};
pub use plan::{
    AwsUse, Calls, CopyPlan, Destination, EbsReads, EbsUse, Existing, PlannedCopy, PlannedRestore,
    PlannedStore, PlannedVolume, PlannedVolumes, RestorePlan, S3Use, Service, StoreOptions,
    StorePlan, UploadFacts, UploadPlan, attributes_to_copy, copy_from_stream, plan_volumes,
};
#[cfg(feature = "aws")]
pub use plan::{BucketDestination, ec2_task_target, smallest_store};
pub use restore::{Restored, RestoredVolume, restore, restore_resumable, restore_stream};
pub use resume::{Resumption, shell_line};
#[cfg(feature = "aws")]
pub use server_copy::tags_to_copy;
pub use store::{StoreOutcome, Stored, image_metadata, store};
pub use target::{ArchiveTarget, ObjectTarget};
pub use tasks::{TaskProgress, describe_tasks};
pub use verify::{Verified, verify, verify_against, verify_stream};
