//! What is asked to be different, or besides, when an image is restored to EC2.

use crate::base::{DeviceName, Error, Result};

/// Wishes for a restored image. By default everything is as it was recorded, and nothing is done
/// besides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits {
    /// Another name.
    pub name: Option<String>,
    /// Another description; empty for none.
    pub description: Option<String>,
    /// More tags of the image and its snapshots; those with a recorded key replace that.
    pub tags: Vec<(String, String)>,
    /// The same of the image alone.
    pub image_tags: Vec<(String, String)>,
    /// The same of the snapshots alone.
    pub snapshot_tags: Vec<(String, String)>,
    /// No recorded tags.
    pub no_tags: bool,
    /// Changes of volumes.
    pub devices: Vec<DeviceEdit>,
    /// Another boot mode.
    pub boot_mode: Option<String>,
    /// `v2.0`: instances use IMDSv2.
    pub imds_support: Option<String>,
    /// Encrypt the snapshots, whatever the account does by default.
    pub encrypted: bool,
    /// The ARN of the key to encrypt with.
    pub kms_key_arn: Option<String>,
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
    /// What changes.
    pub change: DeviceChange,
}

/// What can be different of a volume.
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
    /// Whether it goes with its instance.
    DeleteOnTermination(bool),
}

impl Edits {
    /// What they say about snapshots. Those that were begun cannot be continued with other wishes;
    /// how the image is registered may still change.
    pub fn about_snapshots(&self) -> String {
        format!("{:?}", (self.encrypted, &self.kms_key_arn, self.tags_of_snapshots(), self.no_tags))
    }

    /// Whether the snapshots are encrypted, whatever the account does by default.
    pub(super) fn is_encrypted(&self) -> bool {
        self.encrypted || self.kms_key_arn.is_some()
    }

    /// What is asked for as tags of the image; of two with one key the last counts.
    pub(super) fn tags_of_image(&self) -> Vec<(String, String)> {
        [self.tags.as_slice(), &self.image_tags].concat()
    }

    /// The same of each snapshot.
    pub(super) fn tags_of_snapshots(&self) -> Vec<(String, String)> {
        [self.tags.as_slice(), &self.snapshot_tags].concat()
    }

    /// What is asked for of a device. One that names it comes before one for all; of two alike the
    /// last counts.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_for_a_device_comes_before_one_for_all() {
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
