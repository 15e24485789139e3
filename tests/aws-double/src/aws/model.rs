//! Images and snapshots: their attributes at AWS, and the internal state of the server.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::blocks::{BLOCK, Content};

/// Names and values, in the order in which they are shown.
pub type Tags = BTreeMap<String, String>;

/// Permissions of an image or a snapshot besides its owner's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Permissions {
    pub users: BTreeSet<String>,
    /// Everybody.
    pub all: bool,
    /// ARNs; snapshots have none.
    pub organizations: BTreeSet<String>,
    pub units: BTreeSet<String>,
}

/// The volume of a mapping.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ebs {
    pub snapshot_id: Option<String>,
    /// GiB.
    pub volume_size: Option<u64>,
    pub volume_type: Option<String>,
    pub iops: Option<u64>,
    pub throughput: Option<u64>,
    pub delete_on_termination: Option<bool>,
    pub encrypted: Option<bool>,
    pub kms_key_id: Option<String>,
    pub initialization_rate: Option<u64>,
    pub card_index: Option<u64>,
    pub outpost_arn: Option<String>,
    pub availability_zone: Option<String>,
    pub extra_xml: String,
}

/// One row of a block device mapping.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mapping {
    pub device: String,
    pub ebs: Option<Ebs>,
    /// `ephemeral0`.
    pub virtual_name: Option<String>,
    pub no_device: Option<String>,
    pub extra_xml: String,
}

impl Mapping {
    /// A gp3 volume of a snapshot, as large as that.
    pub fn of(device: &str, snapshot_id: &str) -> Self {
        let ebs = Ebs {
            snapshot_id: Some(snapshot_id.to_owned()),
            delete_on_termination: Some(true),
            ..Ebs::default()
        };
        Self { device: device.to_owned(), ebs: Some(ebs), ..Self::default() }
    }

    pub fn snapshot_id(&self) -> Option<&str> {
        self.ebs.as_ref()?.snapshot_id.as_deref()
    }
}

/// An image. Dates are as AWS prints them. Empty fields are filled in when the image is added, or
/// not shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Image {
    pub id: String,
    /// The account.
    pub owner: String,
    pub owner_alias: Option<String>,
    pub name: String,
    pub description: Option<String>,
    pub location: Option<String>,
    /// `available`, `pending`, `failed`, `disabled` or another state of AWS.
    pub state: String,
    /// Code and message.
    pub state_reason: Option<(String, String)>,
    pub creation_date: String,
    pub image_type: String,
    pub architecture: String,
    pub virtualization_type: String,
    pub hypervisor: String,
    pub root_device_name: Option<String>,
    pub root_device_type: String,
    pub mappings: Vec<Mapping>,
    pub platform: Option<String>,
    pub platform_details: Option<String>,
    pub usage_operation: Option<String>,
    /// Code and type.
    pub product_codes: Vec<(String, String)>,
    pub kernel_id: Option<String>,
    pub ramdisk_id: Option<String>,
    pub ena_support: Option<bool>,
    pub sriov_net_support: Option<String>,
    pub boot_mode: Option<String>,
    pub tpm_support: Option<String>,
    pub imds_support: Option<String>,
    pub uefi_data: Option<String>,
    pub tags: Tags,
    pub launch: Permissions,
    pub deprecation_time: Option<String>,
    /// None is `disabled`.
    pub deregistration_protection: Option<String>,
    pub last_launched: Option<String>,
    pub source_instance_id: Option<String>,
    pub source_image_id: Option<String>,
    pub source_image_region: Option<String>,
    pub image_allowed: Option<bool>,
    pub free_tier_eligible: Option<bool>,
    /// Raw XML of elements that only a newer AWS writes.
    pub extra_xml: String,
    /// Requests that are answered with "no such image".
    pub visible_after: u32,
    /// Descriptions that show it as pending.
    pub pending_for: u32,
    /// The reason of its failure after that, if it fails.
    pub fails_with: Option<String>,
    /// Made by CreateRestoreImageTask: its snapshots advance with it.
    pub restored: bool,
    /// Until when it stays protected from deregistration after the protection was disabled.
    pub protected_until: Option<SystemTime>,
}

impl Default for Image {
    fn default() -> Self {
        let none = String::new;
        Self {
            id: none(),
            owner: none(),
            owner_alias: None,
            name: none(),
            description: None,
            location: None,
            state: "available".to_owned(),
            state_reason: None,
            creation_date: none(),
            image_type: "machine".to_owned(),
            architecture: "x86_64".to_owned(),
            virtualization_type: "hvm".to_owned(),
            hypervisor: "xen".to_owned(),
            root_device_name: Some("/dev/xvda".to_owned()),
            root_device_type: "ebs".to_owned(),
            mappings: Vec::new(),
            platform: None,
            platform_details: Some("Linux/UNIX".to_owned()),
            usage_operation: Some("RunInstances".to_owned()),
            product_codes: Vec::new(),
            kernel_id: None,
            ramdisk_id: None,
            ena_support: Some(true),
            sriov_net_support: None,
            boot_mode: None,
            tpm_support: None,
            imds_support: None,
            uefi_data: None,
            tags: Tags::new(),
            launch: Permissions::default(),
            deprecation_time: None,
            deregistration_protection: None,
            last_launched: None,
            source_instance_id: None,
            source_image_id: None,
            source_image_region: None,
            image_allowed: None,
            free_tier_eligible: None,
            extra_xml: none(),
            visible_after: 0,
            pending_for: 0,
            fails_with: None,
            restored: false,
            protected_until: None,
        }
    }
}

impl Image {
    /// An image with one volume, at `/dev/xvda`.
    pub fn new(name: &str, root_snapshot: &str) -> Self {
        Self {
            name: name.to_owned(),
            mappings: vec![Mapping::of("/dev/xvda", root_snapshot)],
            ..Self::default()
        }
    }

    pub fn uses(&self, snapshot: &str) -> bool {
        self.mappings.iter().any(|mapping| mapping.snapshot_id() == Some(snapshot))
    }

    pub fn is_disabled(&self) -> bool {
        self.state == "disabled"
    }
}

/// A snapshot.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub id: String,
    pub owner: String,
    pub owner_alias: Option<String>,
    /// `pending`, `completed`, `error`, `recoverable`, `recovering`.
    pub state: String,
    pub state_message: Option<String>,
    /// In percent, of a snapshot that is pending.
    pub progress: u8,
    pub description: String,
    pub volume_id: String,
    /// GiB.
    pub volume_size: u64,
    pub start_time: SystemTime,
    pub completion_time: Option<SystemTime>,
    pub encrypted: bool,
    pub kms_key_id: Option<String>,
    pub parent: Option<String>,
    pub tags: Tags,
    /// `standard` or `archive`.
    pub tier: String,
    pub restore_expiry: Option<SystemTime>,
    pub permissions: Permissions,
    /// Code and type.
    pub product_codes: Vec<(String, String)>,
    pub blocks: BTreeMap<u32, Content>,
    /// Raw XML of elements that only a newer AWS writes.
    pub extra_xml: String,
    /// Indexes that were put since it was started.
    pub put: BTreeSet<u32>,
    /// Deadline: the snapshot fails unless it is completed before.
    pub deadline: Option<SystemTime>,
    /// Requests that are answered with "no such snapshot": descriptions, lists, writes.
    pub visible_after: VisibleAfter,
    /// Set by CompleteSnapshot: descriptions that still show it as pending.
    pub completing: Option<u32>,
    /// Lists that are refused although it is completed.
    pub not_listable: u32,
    /// Block tokens of other generations are invalid.
    pub generation: u32,
    /// Page tokens that were issued before this time are invalid.
    pub pages_since: SystemTime,
}

/// Requests of each kind until a new resource is visible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VisibleAfter {
    pub describes: u32,
    pub lists: u32,
    pub puts: u32,
}

impl Snapshot {
    /// A completed snapshot of `volume_size` GiB.
    pub fn new(volume_size: u64) -> Self {
        Self {
            id: String::new(),
            owner: String::new(),
            owner_alias: None,
            state: "completed".to_owned(),
            state_message: None,
            progress: 100,
            description: String::new(),
            volume_id: "vol-ffffffff".to_owned(),
            volume_size,
            start_time: SystemTime::now(),
            completion_time: None,
            encrypted: false,
            kms_key_id: None,
            parent: None,
            tags: Tags::new(),
            tier: "standard".to_owned(),
            restore_expiry: None,
            permissions: Permissions::default(),
            product_codes: Vec::new(),
            blocks: BTreeMap::new(),
            extra_xml: String::new(),
            put: BTreeSet::new(),
            deadline: None,
            visible_after: VisibleAfter::default(),
            completing: None,
            not_listable: 0,
            generation: 0,
            pages_since: SystemTime::UNIX_EPOCH,
        }
    }

    /// Adds blocks; all others are absent.
    pub fn with(mut self, blocks: impl IntoIterator<Item = (u32, Content)>) -> Self {
        self.blocks.extend(blocks);
        self
    }

    /// Blocks that fit into the volume.
    pub fn capacity(&self) -> u64 {
        self.volume_size << 30 >> BLOCK.trailing_zeros()
    }

    pub fn is_completed(&self) -> bool {
        self.state == "completed"
    }

    /// The content of a block: zeros if it is absent.
    pub fn block(&self, index: u32) -> Vec<u8> {
        self.blocks.get(&index).unwrap_or(&Content::Zero).to_vec(index)
    }

    /// SHA-256 of the written blocks, by index.
    pub fn digests(&self) -> BTreeMap<u32, [u8; 32]> {
        self.blocks.iter().map(|(index, content)| (*index, content.digest(*index))).collect()
    }
}

impl Snapshot {
    pub(super) fn complete(&mut self, now: SystemTime) {
        "completed".clone_into(&mut self.state);
        self.progress = 100;
        self.completion_time = Some(now);
        self.completing = None;
    }
}
