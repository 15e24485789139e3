//! What the command line and the server have in common: connections and memory made of settings,
//! and the use cases that need both.
//!
//! It does not know arguments, requests or output.

mod bucket;
mod memory;
mod reason;
mod record;
mod restore;
mod store;

pub use bucket::{look_at_bucket, task_target};
pub use memory::{Resources, StorePlanned};
pub use reason::{failure_reason, told};
pub use record::Recorder;
pub use restore::{restore_target, restore_to_ec2};
pub use store::{StoreJob, store_to_bucket};
