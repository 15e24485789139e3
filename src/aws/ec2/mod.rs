//! Images in EC2: described and read, registered and retired.
//!
//! [`Ec2Client`] is a small client of EC2's Query protocol, the control plane; [`super::ebs`]
//! transfers the blocks of volumes. The module does not know archives.

mod client;
mod describe;
mod destination;
mod edits;
mod encryption;
mod fidelity;
mod finish;
mod forward;
mod image;
mod larger_volume;
mod permissions;
mod registration;
mod restore;
mod retire;
mod service;
mod snapshot_items;
mod tasks;
mod writer;

use super::partition_of;
pub(super) use client::REQUEST_ID;
pub use client::{Ec2Client, Ec2Error, RawAnswer};
pub use destination::{
    Ec2Destination, Ec2Options, Ec2Restored, OnFinished, OnSnapshot, RestoredSnapshot,
    delete_snapshot,
};
pub use edits::{DeviceChange, DeviceEdit, Edits};
pub use encryption::EncryptionPlan;
pub use fidelity::{Fidelity, FidelityItem};
pub use forward::{Forwarded, ForwardedBody};
pub use image::{Ec2Image, Ec2Source, ExaminedImage};
pub use retire::{RetireAction, RetirePlan, RetiredSnapshot, plan_retire, retire};
pub use service::{Ec2, Ec2Connection};
pub use tasks::{RestoreTask, StoreTask, restore_by_aws, store_by_aws};
