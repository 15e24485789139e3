//! The use cases, one file each, without arguments and output.
//!
//! It does not know the command line.

#[cfg(feature = "aws")]
mod clean;
mod copy;
mod existing;
mod expected_root;
mod extract;
mod inspect;
mod list;
#[cfg(feature = "server")]
mod list_tasks;
#[cfg(feature = "aws")]
mod local_leftover;
mod open;
mod plan;
mod records;
mod restore;
mod resume;
#[cfg(feature = "aws")]
mod retire;
mod roots;
mod salvage;
#[cfg(feature = "aws")]
mod server_copy;
mod store;
mod stored;
mod target;
mod tasks;
mod totals;
#[cfg(feature = "aws")]
mod trial;
mod update;
mod verify;
#[cfg(feature = "aws")]
mod via_aws;

#[cfg(feature = "aws")]
pub use clean::{CleanAccess, CleanOptions, Cleaned, Leftover, clean};
pub use copy::{Copied, CopyProof, copy, copy_stream};
pub use existing::MetadataPolicy;
pub use expected_root::ExpectedRoot;
pub use extract::{
    Extracted, VolumeName, VolumeRange, check_output, extract, extract_document, extract_range,
    extract_to_stream, plan_extract,
};
pub use inspect::{Inspection, MapCell, VolumeInspection, inspect, inspect_stream};
pub use list::{ArchiveList, ListOptions, ListedObject, judged, list_directory};
#[cfg(feature = "server")]
pub use list_tasks::{ListedTask, TaskSelection, list_tasks};
#[cfg(feature = "aws")]
pub use open::open_ec2_image;
pub use open::{StoreUrl, located, refuse_url};
pub use plan::{
    AwsUse, Calls, CopyOptions, CopyPlan, Destination, Dollars, EbsReads, EbsUse, Existing,
    PlannedCopy, PlannedRestore, PlannedStore, PlannedStreamCopy, PlannedStreamRestore,
    PlannedVolume, PlannedVolumes, RestoreDestination, RestorePlan, S3Reads, S3Use, Service,
    StoreOptions, StorePlan, StreamPlan, StreamUpload, Transfer, UploadFacts, UploadPlan,
    plan_volumes,
};
#[cfg(feature = "aws")]
pub use plan::{
    BucketDestination, CopiedObject, ForeignCopyPlan, PlannedForeignCopy, ec2_task_target,
    smallest_store,
};
pub use restore::{Restored, RestoredVolume, restore, restore_resumable, restore_stream};
pub use resume::{Resumption, shell_line};
#[cfg(feature = "aws")]
pub use retire::{PermittedRetire, PlannedRetire};
pub use roots::roots_of;
pub use salvage::{Mark, file_of, is_sound, salvage_to_directory, salvage_volume, survey};
pub use store::{image_metadata, store};
pub use stored::{StoreOutcome, Stored};
pub use target::{ArchiveTarget, ObjectTarget};
pub use tasks::{TaskProgress, describe_tasks};
#[cfg(feature = "aws")]
pub use trial::check_writable;
pub use verify::{Verified, check_root, verify, verify_against, verify_stream};
#[cfg(feature = "aws")]
pub use via_aws::{RestoreByAws, RestoredByAws, StoreByAws};
