//! The front door: a few types and one function for each use case, over the rooms below.
//!
//! It adds no behaviour of its own: options become resources, a store becomes a destination, and a
//! planned use case is carried out.

#[cfg(feature = "aws")]
mod clean;
mod disks;
mod image;
mod operations;
mod options;
pub mod plan;
mod report;
mod store;
mod tasks;

#[cfg(feature = "aws")]
pub use clean::Clean;
pub use disks::Disks;
pub use image::{Image, open_image};
#[cfg(feature = "aws")]
pub use operations::{clean, restore_to_ec2, retire};
pub use operations::{copy, extract, inspect, restore, store, verify, verify_against};
pub use options::Options;
pub use report::StoreReport;
pub use store::{Store, open_store};
pub use tasks::{Task, tasks};
