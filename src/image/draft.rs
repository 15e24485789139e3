//! `image.json` for disks that were never an AMI.

use serde_json::{Map, Value, json};

use super::ImageDocument;
use crate::base::{
    DeviceName, Error, ImageId, Result, VolumeSize, check_image_name, gib_rounded_up, hex,
};
use crate::codec::sha256;

/// The metadata of an image made from plain disks.
#[derive(Clone, Debug)]
pub struct ImageDraft {
    /// The AMI name.
    pub name: String,
    /// The id, if it is given.
    pub image_id: Option<ImageId>,
    /// The description.
    pub description: Option<String>,
    /// `x86_64`, `arm64`, `i386` or another architecture of EC2.
    pub architecture: String,
    /// `legacy-bios`, `uefi` or `uefi-preferred`.
    pub boot_mode: Option<String>,
    /// Tags, in order.
    pub tags: Vec<(String, String)>,
}

/// A plain disk.
#[derive(Clone, Debug)]
pub struct DiskDraft {
    /// Its device name in the image.
    pub device: DeviceName,
    /// Its size.
    pub size: VolumeSize,
}

impl ImageDraft {
    /// Builds the document of an image of these disks, the root device first. Missing ids derive
    /// from the draft, so that equal calls make equal archives: such an id names the description of
    /// the image; the content digest names its data.
    pub fn build(&self, disks: &[DiskDraft]) -> Result<ImageDocument> {
        check_image_name(&self.name)?;
        let mut devices = std::collections::HashSet::new();
        if let Some(twice) = disks.iter().find(|disk| !devices.insert(&disk.device)) {
            return Err(Error::usage("two disks have one device name").at("device", &twice.device));
        }
        let root = disks.first().ok_or_else(|| Error::usage("an image needs at least one disk"))?;
        let mut image = Map::new();
        let mut set = |member: &str, value: Value| {
            image.insert(member.to_owned(), value);
        };
        set("Name", json!(self.name));
        set("Architecture", json!(self.architecture));
        set("VirtualizationType", json!("hvm"));
        set("RootDeviceType", json!("ebs"));
        set("RootDeviceName", json!(root.device.as_str()));
        set("EnaSupport", json!(true));
        if let Some(description) = &self.description {
            set("Description", json!(description));
        }
        if let Some(boot_mode) = &self.boot_mode {
            set("BootMode", json!(boot_mode));
        }
        if !self.tags.is_empty() {
            set(
                "Tags",
                self.tags.iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect(),
            );
        }
        let described: Vec<Value> =
            disks.iter().map(|disk| json!([disk.device.as_str(), disk.size.bytes()])).collect();
        let seed = json!({"Image": image, "Disks": described}).to_string();
        let derived = |kind: &str, index: usize| {
            format!(
                "{kind}-{}",
                &hex(&sha256::digest(format!("{kind}\0{index}\0{seed}").as_bytes()))[..17]
            )
        };
        let image_id =
            self.image_id.as_ref().map_or_else(|| derived("ami", 0), |id| id.to_string());
        let mut mappings = Vec::new();
        let mut snapshots = Vec::new();
        for (index, disk) in disks.iter().enumerate() {
            let (id, gib) = (derived("snap", index), gib_rounded_up(disk.size.bytes()));
            let ebs = json!({"DeleteOnTermination": true, "SnapshotId": id, "VolumeSize": gib});
            mappings.push(json!({"DeviceName": disk.device.as_str(), "Ebs": ebs}));
            snapshots.push(json!({"SnapshotId": id, "VolumeSize": gib}));
        }
        image.insert("ImageId".to_owned(), json!(image_id));
        image.insert("BlockDeviceMappings".to_owned(), json!(mappings));
        let document =
            json!({"Image": image, "Snapshots": snapshots, "format": "amibin", "version": 1});
        // serde_json's maps are sorted by name as long as nothing in the build turns on its
        // `preserve_order`; a test holds that.
        let mut bytes = serde_json::to_vec_pretty(&document)
            .map_err(|cause| Error::internal("cannot write image.json").because(cause))?;
        bytes.push(b'\n');
        ImageDocument::parse(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft() -> ImageDraft {
        ImageDraft {
            name: "web server".into(),
            image_id: None,
            description: None,
            architecture: "arm64".into(),
            boot_mode: Some("uefi".into()),
            tags: vec![("Team".into(), "größe".into())],
        }
    }

    fn disks() -> Vec<DiskDraft> {
        let disk = |device, bytes| DiskDraft {
            device: DeviceName::parse(device).expect("a device"),
            size: VolumeSize::new(bytes).expect("a size"),
        };
        vec![disk("/dev/xvda", 8 << 30), disk("/dev/sdb", (1 << 30) + 512)]
    }

    #[test]
    fn the_same_draft_makes_the_same_bytes() {
        let first = draft().build(&disks()).expect("builds");
        assert_eq!(first.bytes(), draft().build(&disks()).expect("builds").bytes());
        let text = str::from_utf8(first.bytes()).expect("text");
        let start = r#"{
  "Image": {
    "Architecture": "arm64",
    "BlockDeviceMappings": ["#;
        assert!(text.starts_with(start), "{text}");
        assert_eq!(first.snapshots()[1].volume_gib, Some(2));
    }

    #[test]
    fn another_draft_has_another_id() {
        let id = |draft: &ImageDraft, disks: &[DiskDraft]| {
            draft.build(disks).expect("builds").image_id().cloned()
        };
        let usual = id(&draft(), &disks());
        let mut other = draft();
        other.name.push('2');
        assert_ne!(usual, id(&other, &disks()));
        let mut swapped = disks();
        swapped.swap(0, 1);
        assert_ne!(usual, id(&draft(), &swapped));
        let mut other = draft();
        other.image_id = ImageId::parse("ami-01234567").ok();
        assert_eq!(id(&other, &disks()), other.image_id);
    }

    #[test]
    fn two_disks_on_one_device_are_refused() {
        let mut twice = disks();
        twice[1].device = twice[0].device.clone();
        assert!(draft().build(&twice).expect_err("refused").message().contains("one device name"));
    }
}
