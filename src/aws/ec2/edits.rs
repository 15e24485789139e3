//! Options of a restore to EC2 that change the image.

use serde_json::Value;

use crate::base::{DeviceName, Error, ImageId, Result};
use crate::image::ImageDocument;

/// Options for the attributes of a restored image. By default all attributes are as recorded, and
/// the image gets no permissions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits {
    /// Another name.
    pub name: Option<String>,
    /// Another description; empty for none.
    pub description: Option<String>,
    /// More tags of the image and its snapshots; those with a recorded key replace that.
    pub tags: Vec<(String, String)>,
    /// More tags of the image alone.
    pub image_tags: Vec<(String, String)>,
    /// More tags of the snapshots alone.
    pub snapshot_tags: Vec<(String, String)>,
    /// No recorded tags.
    pub no_tags: bool,
    /// Tags of the image that name the stored image, and its Region.
    pub tag_source: bool,
    /// The root device; it has to have a volume.
    pub root_device: Option<DeviceName>,
    /// Changes of volumes.
    pub devices: Vec<DeviceEdit>,
    /// Another boot mode.
    pub boot_mode: Option<String>,
    /// `v2.0`: instances use IMDSv2.
    pub imds_support: Option<String>,
    /// Encrypt all snapshots, regardless of the account's default. Snapshots that were encrypted
    /// are encrypted without it, too.
    pub encrypted: bool,
    /// The ARN of the key to encrypt with.
    pub kms_key_arn: Option<String>,
    /// Leave the encryption of snapshots that were encrypted to the account's default.
    pub allow_unencrypted: bool,
    /// Give the recorded launch permissions.
    pub launch_permissions: bool,
    /// Deprecate at the recorded time.
    pub deprecation: bool,
    /// Protect against deregistration if that was recorded.
    pub deregistration_protection: bool,
    /// Make snapshots, and no image.
    pub snapshots_only: bool,
}

/// A change of one volume, or of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceEdit {
    /// The device; all that have a volume, if none is named.
    pub device: Option<DeviceName>,
    /// The changed attribute.
    pub change: DeviceChange,
}

/// An attribute of a volume that an option changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceChange {
    /// Such as `gp3`.
    VolumeType(String),
    /// I/O operations a second.
    Iops(u64),
    /// MiB a second.
    Throughput(u64),
    /// GiB.
    VolumeSize(u64),
    /// Whether EC2 deletes the volume with its instance.
    DeleteOnTermination(bool),
}

impl Edits {
    /// The options for snapshots, as text. A restore with other options for snapshots does not
    /// continue the snapshots of this one; the options for the registration may change.
    pub fn about_snapshots(&self) -> String {
        let encryption = (self.encrypted, &self.kms_key_arn, self.allow_unencrypted);
        format!("{:?}", (encryption, self.tags_of_snapshots(), self.no_tags))
    }

    /// The tags that the options give the image; of two with one key the last counts.
    pub(super) fn tags_of_image(&self, document: &ImageDocument) -> Vec<(String, String)> {
        let mut tags = if self.tag_source { source_tags(document) } else { Vec::new() };
        tags.extend_from_slice(&self.tags);
        tags.extend_from_slice(&self.image_tags);
        tags
    }

    /// The tags that the options give each snapshot.
    pub(super) fn tags_of_snapshots(&self) -> Vec<(String, String)> {
        [self.tags.as_slice(), &self.snapshot_tags].concat()
    }

    /// The change that `pick` selects for a device. A change that names the device precedes one for
    /// all devices; of two with one scope the last counts.
    pub(super) fn of<'a, T: 'a>(
        &'a self,
        device: &str,
        pick: impl Fn(&'a DeviceChange) -> Option<T> + Copy,
    ) -> Option<T> {
        let named =
            |edit: &&DeviceEdit| edit.device.as_ref().is_some_and(|name| name.as_str() == device);
        let own =
            self.devices.iter().filter(named).filter_map(|edit| pick(&edit.change)).next_back();
        own.or_else(|| {
            self.devices
                .iter()
                .filter(|edit| edit.device.is_none())
                .filter_map(|edit| pick(&edit.change))
                .next_back()
        })
    }

    /// Checks that every device that is named has a volume in the image.
    pub(super) fn check_devices<'a>(
        &self,
        known: impl Iterator<Item = &'a str> + Clone,
    ) -> Result<()> {
        for device in self.devices.iter().filter_map(|edit| edit.device.as_ref()) {
            if !known.clone().any(|name| name == device.as_str()) {
                let all = known.collect::<Vec<_>>().join(", ");
                return Err(Error::usage("the image has no volume at this device")
                    .at("device", device)
                    .at("devices", all));
            }
        }
        Ok(())
    }
}

/// Tags that name the stored image and its Region, as `SourceImageId` and `SourceImageRegion` do,
/// which only EC2 sets.
fn source_tags(document: &ImageDocument) -> Vec<(String, String)> {
    let source = document.value().get("Source");
    let region = source.and_then(|source| source.get("Region")).and_then(Value::as_str);
    let id = document.image_id().map(ImageId::as_str);
    let tags = [("amistore:source-image-id", id), ("amistore:source-image-region", region)];
    let known =
        tags.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())));
    known.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_of_a_device_precedes_one_for_all() {
        let edit = |device: Option<&str>, size| DeviceEdit {
            device: device.map(|name| DeviceName::parse(name).expect("a name")),
            change: DeviceChange::VolumeSize(size),
        };
        let edits = Edits {
            devices: vec![edit(Some("/dev/sdb"), 20), edit(None, 10), edit(None, 11)],
            ..Edits::default()
        };
        let size = |device| {
            edits.of(device, |change| {
                if let DeviceChange::VolumeSize(gib) = change { Some(*gib) } else { None }
            })
        };
        assert_eq!((size("/dev/sda1"), size("/dev/sdb")), (Some(11), Some(20)));
        assert!(edits.check_devices(["/dev/sda1", "/dev/sdb"].into_iter()).is_ok());
        assert_eq!(
            edits.check_devices(["/dev/sda1"].into_iter()).expect_err("unknown").fact("device"),
            Some("/dev/sdb")
        );
    }
}
