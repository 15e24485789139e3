//! EC2 as a place where images live: described and read, registered and retired.
//!
//! The control plane is spoken in EC2's Query protocol by a small client of our own
//! ([`Ec2Client`]); the data of volumes goes over [`super::ebs`]. It does not know archives.

mod client;
mod describe;
mod edits;
mod fidelity;
mod finish;
mod forward;
mod image;
mod permissions;
mod place;
mod registration;
mod retire;
mod service;
mod target;
mod tasks;

use super::partition_of;
pub(super) use client::REQUEST_ID;
pub use client::{Ec2Client, Ec2Error, RawAnswer};
pub use edits::{DeviceChange, DeviceEdit, Edits};
pub use fidelity::{Fidelity, FidelityItem};
pub use forward::{Forwarded, ForwardedBody};
pub use image::{Ec2Image, Ec2Source};
pub use place::{Ec2Options, Ec2Place, Ec2Restored, Made, RestoredSnapshot, delete_snapshot};
pub use retire::{RetireAction, RetirePlan, RetiredSnapshot, plan_retire, retire};
pub use service::{Ec2, Ec2Connection};

pub use tasks::{RestoreTask, StoreTask, restore_by_aws, store_by_aws};
