//! The front door: a few types and one function for each use case, over the rooms below.
//!
//! It adds no behaviour of its own: options become resources, a store becomes a destination, and a
//! planned use case is carried out.

mod disks;
mod image;
mod operations;
mod options;
mod report;
mod store;

pub use disks::Disks;
pub use image::{Image, open_image};
#[cfg(feature = "aws")]
pub use operations::restore_to_ec2;
pub use operations::{copy, extract, restore, store, verify, verify_against};
pub use options::Options;
pub use report::StoreReport;
pub use store::{Store, open_store};
