//! Archives in S3, and in stores that speak its protocol.
//!
//! A large archive is sent as a resumable multipart upload, and is read by ranges of the version
//! that was opened. The module does not know the content of objects.

mod absence;
mod attributes;
mod bucket;
mod checksum;
mod condition;
mod finished;
mod listing;
mod location;
mod open_uploads;
mod part_plan;
mod preflight;
mod reader;
mod recorded;
mod relay;
mod reused;
mod segment;
mod service;
mod splice;
mod store;
mod thaw;
mod upload;
mod whole;
mod writer;

pub use attributes::{decode_metadata, encode_metadata};
pub use bucket::{ObjectOptions, S3Store};
pub use checksum::{Checksum, RunningChecksum};
pub use location::S3Location;
pub use open_uploads::OpenUpload;
pub use part_plan::{MAX_OBJECT, MAX_PARTS, MIN_PART, PartPlan};
pub use preflight::Preflight;
pub use relay::ServerCopy;
pub use service::{S3, S3Connection};
pub use thaw::{Thaw, ThawTier};
pub use whole::ObjectChecksum;
