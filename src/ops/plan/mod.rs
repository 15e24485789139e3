//! Plans of stores, restores and copies: blocks, parts, memory, requests, prices and the least
//! time, decided by pure functions before anything is written.
//!
//! A plan is made once. `--dry-run` and `--verbose` print it, and the object that has it carries it
//! out, so that a dry run refuses what the run refuses.

mod calls;
mod copy;
mod cost;
mod destination;
#[cfg(feature = "aws")]
mod foreign_copy;
mod restore;
mod store;
mod stream;
mod upload;

pub use calls::{Calls, Service};
pub use copy::{CopyOptions, CopyPlan, PlannedCopy};
pub use cost::{AwsUse, Dollars, EbsUse, S3Reads, S3Use, Transfer};
#[cfg(feature = "aws")]
pub use destination::BucketDestination;
pub(super) use destination::refuse_existing;
pub use destination::{Destination, Existing};
#[cfg(feature = "aws")]
pub use foreign_copy::{CopiedObject, ForeignCopyPlan, PlannedForeignCopy};
#[cfg(feature = "aws")]
pub use restore::ec2_task_target;
pub use restore::{PlannedRestore, RestoreDestination, RestorePlan};
#[cfg(feature = "aws")]
pub use store::smallest_store;
pub use store::{
    EbsReads, PlannedStore, PlannedVolume, PlannedVolumes, StoreOptions, StorePlan, plan_volumes,
};
pub use stream::{PlannedStreamCopy, PlannedStreamRestore, StreamPlan, StreamUpload};
pub use upload::{UploadFacts, UploadPlan};
