//! Archives in S3, and in stores that speak its protocol.
//!
//! A large archive goes up as a multipart upload that can be continued; it is read by ranges, bound
//! to the version that was opened. It does not look into archives.

mod attributes;
mod checksum;
mod listing;
mod location;
mod part_plan;
mod preflight;
mod reader;
mod relay;
mod service;
mod store;
mod stretch;
mod thaw;
mod upload;
mod writer;

pub use attributes::{decode_metadata, encode_metadata};
pub use checksum::Checksum;
pub use listing::OpenUpload;
pub use location::S3Location;
pub use part_plan::{MAX_OBJECT, MAX_PARTS, MIN_PART, PartPlan};
pub use preflight::Preflight;
pub use relay::ServerCopy;
pub use service::{S3, S3Connection};
pub use store::{ObjectOptions, S3Store};
pub use thaw::{Thaw, ThawTier};
