//! `image.json`: its bytes, which every copy keeps unchanged, and the few members that the program
//! reads.

use std::collections::{BTreeSet, HashSet};

use serde_json::Value;

use crate::base::{
    DeviceName, Error, ErrorCode, ImageId, Result, SnapshotId, VolumeSize, check_image_name,
    gib_rounded_up,
};

/// The longest document, in bytes.
const MAX_LEN: usize = 8 << 20;

/// A checked `image.json`.
#[derive(Clone, Debug)]
pub struct ImageDocument {
    bytes: Vec<u8>,
    value: Value,
    image_id: Option<ImageId>,
    name: Option<String>,
    mappings: Vec<Mapping>,
    snapshots: Vec<SnapshotEntry>,
}

/// A block device mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The device name.
    pub device: DeviceName,
    /// The snapshot behind it; `None` for ephemeral, empty and suppressed devices.
    pub snapshot: Option<SnapshotId>,
}

/// A snapshot: one volume of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotEntry {
    /// The snapshot.
    pub id: SnapshotId,
    /// Its size by the metadata, in GiB.
    pub volume_gib: Option<u64>,
    /// The devices that use it, in order.
    pub devices: Vec<DeviceName>,
}

impl ImageDocument {
    /// Reads and checks a document.
    pub fn parse(bytes: Vec<u8>) -> Result<Self> {
        let value = read(&bytes)?;
        let top = value.as_object().ok_or_else(|| wrong("it is not a JSON object"))?;
        match top.get("format") {
            None | Some(Value::Null) => {}
            Some(Value::String(format)) if format == "amibin" => {}
            Some(_) => return Err(wrong("its `format` is not \"amibin\"")),
        }
        match top.get("version") {
            None | Some(Value::Null) => {}
            Some(version) => match version.as_u64() {
                Some(1) => {}
                Some(version) => {
                    return Err(Error::unsupported("image.json is of another version")
                        .code_as(ErrorCode::NewerFormat)
                        .at("version", version)
                        .at("supported", 1));
                }
                None => return Err(wrong("its `version` is not a number")),
            },
        }
        let image = top.get("Image");
        let (image_id, name, mappings) = match image {
            None => (None, None, Vec::new()),
            Some(image) => {
                let given =
                    text(image, "ImageId")?.ok_or_else(|| wrong("`Image.ImageId` is missing"))?;
                let image_id = ImageId::parse(given).map_err(|cause| {
                    wrong("`Image.ImageId` is no image id").at("image_id", given).because(cause)
                })?;
                let name = text(image, "Name")?;
                if let Some(name) = name {
                    check_image_name(name)?;
                }
                (Some(image_id), name.map(str::to_owned), mappings(image)?)
            }
        };
        let mut snapshots: Vec<SnapshotEntry> = Vec::new();
        for mapping in &mappings {
            let Some(id) = &mapping.snapshot else { continue };
            match snapshots.iter_mut().find(|snapshot| &snapshot.id == id) {
                Some(snapshot) => snapshot.devices.push(mapping.device.clone()),
                None => add(
                    &mut snapshots,
                    SnapshotEntry {
                        id: id.clone(),
                        volume_gib: None,
                        devices: vec![mapping.device.clone()],
                    },
                )?,
            }
        }
        let listed = top.get("Snapshots");
        for (id, volume_gib) in listed.map(listed_snapshots).transpose()?.unwrap_or_default() {
            match snapshots.iter_mut().find(|snapshot| snapshot.id == id) {
                Some(snapshot) => snapshot.volume_gib = volume_gib,
                None => add(&mut snapshots, SnapshotEntry { id, volume_gib, devices: Vec::new() })?,
            }
        }
        let mut names = HashSet::new();
        if let Some(twice) = snapshots
            .iter()
            .find(|snapshot| !names.insert(snapshot.id.as_str().to_ascii_lowercase()))
        {
            return Err(wrong("two snapshots differ only in case").at("snapshot", &twice.id));
        }
        if image.is_none() && top.contains_key("Images") {
            return Err(wrong("it is the whole output of describe-images, and not one image")
                .code_as(ErrorCode::DescribeImagesOutput));
        }
        if image.is_none() && listed.is_none() {
            return Err(wrong("it has neither `Image` nor `Snapshots`"));
        }
        Ok(Self { bytes, value, image_id, name, mappings, snapshots })
    }

    /// Reads a document as [`parse`](Self::parse) does, but for its AMI name, which becomes `name`.
    /// All other bytes stay.
    pub fn parse_renamed(bytes: &[u8], name: &str) -> Result<Self> {
        check_image_name(name)?;
        read(bytes)?;
        let renamed = super::renamed::with_name(bytes, name)
            .ok_or_else(|| Error::usage("bare snapshots have no name: leave out --name"))?;
        Self::parse(renamed)
    }

    /// The bytes that were parsed.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The whole document.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The image id; absent in an archive of bare snapshots.
    pub fn image_id(&self) -> Option<&ImageId> {
        self.image_id.as_ref()
    }

    /// The AMI's name.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The block device mappings, in order.
    pub fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    /// The recorded root device, if no volume of the image is at it: its name, or an empty one if
    /// none is recorded. `None` for an image whose root device has a volume, and without an image.
    pub fn root_device_without_volume(&self) -> Option<&str> {
        let image = self.value.get("Image")?;
        let mut devices = self.mappings.iter().filter(|mapping| mapping.snapshot.is_some());
        let root = image.get("RootDeviceName").and_then(Value::as_str).unwrap_or_default();
        let has_volumes = devices.clone().next().is_some();
        let is_there = devices.any(|mapping| mapping.device.as_str() == root);
        (has_volumes && !is_there).then_some(root)
    }

    /// The snapshots, in the order of the archive's volumes.
    pub fn snapshots(&self) -> &[SnapshotEntry] {
        &self.snapshots
    }

    /// The name of an archive of this image: `<ami-id>.bin`, or `<snapshot-id>.bin` for bare
    /// snapshots.
    pub fn archive_name(&self) -> String {
        let id = self.image_id.as_ref().map(ImageId::as_str);
        let id = id.or_else(|| self.snapshots.first().map(|snapshot| snapshot.id.as_str()));
        format!("{}.bin", id.unwrap_or("image"))
    }

    /// Checks the size of a snapshot's data against the metadata.
    pub fn check_size(&self, id: &SnapshotId, size: VolumeSize) -> Result<()> {
        let expected = self
            .snapshots
            .iter()
            .find(|snapshot| &snapshot.id == id)
            .and_then(|snapshot| snapshot.volume_gib);
        match expected {
            Some(gib) if gib != gib_rounded_up(size.bytes()) => Err(Error::usage(
                "the size of the raw disk is not the one in image.json: the disk may be cut \
                     short, or belong to another snapshot",
            )
            .code_as(ErrorCode::VolumeSizeDiffers)
            .at("snapshot", id)
            .at("size", size.bytes())
            .at("volume_size_gib", gib)),
            _ => Ok(()),
        }
    }

    /// The snapshot behind a device name.
    pub fn snapshot_of(&self, device: &str) -> Result<&SnapshotId> {
        let known = || {
            self.mappings
                .iter()
                .map(|mapping| mapping.device.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        let mapping =
            self.mappings.iter().find(|mapping| mapping.device.as_str() == device).ok_or_else(
                || {
                    Error::new(crate::base::ErrorKind::NotFound, "the image has no such device")
                        .at("device", device)
                        .at("devices", known())
                },
            )?;
        mapping.snapshot.as_ref().ok_or_else(|| {
            Error::new(
                crate::base::ErrorKind::NotFound,
                "the device has no snapshot: it is ephemeral, empty or suppressed",
            )
            .at("device", device)
        })
    }
}

/// The JSON of a document, in UTF-8 and without members that stand twice.
fn read(bytes: &[u8]) -> Result<Value> {
    if bytes.len() > MAX_LEN {
        return Err(wrong("it is longer than 8 MiB"));
    }
    if let Some(encoding) = foreign_encoding(bytes) {
        return Err(wrong("it is not UTF-8 without byte order mark: save it as such")
            .at("encoding", encoding));
    }
    super::json::parse(bytes)
        .map_err(|cause| wrong("it is not JSON in the form of the format").because(cause))
}

/// The encoding of a text that is not plain UTF-8, by its first bytes: a document begins with two
/// ASCII characters.
fn foreign_encoding(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xEF, 0xBB, 0xBF, ..] => Some("UTF-8 with byte order mark"),
        [0xFF, 0xFE, 0, 0, ..] | [0, 0, 0xFE, 0xFF, ..] => Some("UTF-32"),
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => Some("UTF-16 with byte order mark"),
        [first, second, ..] if (*first == 0) != (*second == 0) => Some("UTF-16"),
        _ => None,
    }
}

fn wrong(what: &str) -> Error {
    Error::usage(format!("image.json cannot be used: {what}"))
}

/// Adds a snapshot within the limit. Each is compared with all before it, so the limit is checked
/// at each and not at the end: otherwise a long list would take quadratic time.
fn add(snapshots: &mut Vec<SnapshotEntry>, snapshot: SnapshotEntry) -> Result<()> {
    if snapshots.len() == crate::base::MAX_VOLUMES {
        return Err(Error::new(
            crate::base::ErrorKind::Limit,
            "an archive holds at most 256 snapshots",
        ));
    }
    snapshots.push(snapshot);
    Ok(())
}

/// A string member that may be missing or null.
fn text<'a>(object: &'a Value, member: &str) -> Result<Option<&'a str>> {
    match object.get(member) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(wrong(&format!("`{member}` is not a string"))),
    }
}

fn list<'a>(object: &'a Value, member: &str) -> Result<&'a [Value]> {
    match object.get(member) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(wrong(&format!("`{member}` is not an array"))),
    }
}

fn mappings(image: &Value) -> Result<Vec<Mapping>> {
    let mut seen = HashSet::new();
    let mut mappings = Vec::new();
    for item in list(image, "BlockDeviceMappings")? {
        let device = text(item, "DeviceName")?
            .ok_or_else(|| wrong("a block device mapping has no `DeviceName`"))?;
        let device = DeviceName::parse(device)?;
        if !seen.insert(device.clone()) {
            return Err(
                wrong("two block device mappings have one device name").at("device", &device)
            );
        }
        let snapshot = match item.get("Ebs") {
            None | Some(Value::Null) => None,
            Some(ebs) if ebs.is_object() => {
                text(ebs, "SnapshotId")?.map(SnapshotId::parse).transpose()?
            }
            Some(_) => {
                return Err(wrong("an `Ebs` is not a JSON object").at("device", &device));
            }
        };
        mappings.push(Mapping { device, snapshot });
    }
    Ok(mappings)
}

fn listed_snapshots(listed: &Value) -> Result<Vec<(SnapshotId, Option<u64>)>> {
    let items = listed.as_array().ok_or_else(|| wrong("`Snapshots` is not an array"))?;
    let mut seen = BTreeSet::new();
    let mut snapshots = Vec::with_capacity(items.len());
    for item in items {
        let id =
            text(item, "SnapshotId")?.ok_or_else(|| wrong("a snapshot has no `SnapshotId`"))?;
        let id = SnapshotId::parse(id)?;
        if !seen.insert(id.clone()) {
            return Err(wrong("two snapshots have one id").at("snapshot", &id));
        }
        let size = match item.get("VolumeSize") {
            None | Some(Value::Null) => None,
            Some(size) => Some(size.as_u64().ok_or_else(|| {
                wrong("a `VolumeSize` is not a whole number of GiB").at("snapshot", &id)
            })?),
        };
        snapshots.push((id, size));
    }
    Ok(snapshots)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<ImageDocument> {
        ImageDocument::parse(json.as_bytes().to_vec())
    }

    #[test]
    fn volumes_follow_the_mappings_and_then_the_list_of_snapshots() {
        let document = parse(
            r#"{"Image": {"ImageId": "ami-01234567", "Name": "abc", "New": {"Member": 1.50}, 
                "BlockDeviceMappings": [
                {"DeviceName": "/dev/xvdb", "Ebs": {"SnapshotId": "snap-b"}},
                {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": "snap-a"}},
                {"DeviceName": "/dev/xvdc", "Ebs": {"SnapshotId": "snap-b"}},
                {"DeviceName": "/dev/xvdd", "VirtualName": "ephemeral0"}]},
              "Snapshots": [{"SnapshotId": "snap-c"}, {"SnapshotId": "snap-a", "VolumeSize": 8}]}"#,
        )
        .expect("a good document");
        let volumes: Vec<_> = document
            .snapshots()
            .iter()
            .map(|s| (s.id.as_str(), s.volume_gib, s.devices.len()))
            .collect();
        assert_eq!(volumes, [("snap-b", None, 2), ("snap-a", Some(8), 1), ("snap-c", None, 0)]);
        assert_eq!(document.archive_name(), "ami-01234567.bin");
        assert_eq!(document.snapshot_of("/dev/xvdc").expect("known").as_str(), "snap-b");
        assert!(document.snapshot_of("/dev/xvdd").is_err());
        assert!(document.snapshot_of("/dev/sda1").is_err());
        let gib = |n: u64| VolumeSize::new(n << 30).expect("a size");
        let id = SnapshotId::parse("snap-a").expect("an id");
        assert!(document.check_size(&id, gib(8)).is_ok());
        assert!(document.check_size(&id, gib(7)).is_err());
    }

    #[test]
    fn more_snapshots_than_an_archive_holds_are_refused_at_the_first_one_too_many() {
        let listed = |count: usize| {
            let ids: Vec<_> =
                (0..count).map(|id| format!(r#"{{"SnapshotId":"{id:x}"}}"#)).collect();
            parse(&format!(r#"{{"Snapshots":[{}]}}"#, ids.join(",")))
        };
        let mapped = |count: usize| {
            let mappings: Vec<_> = (0..count)
                .map(|id| format!(r#"{{"DeviceName":"{id:x}","Ebs":{{"SnapshotId":"{id:x}"}}}}"#))
                .collect();
            parse(&format!(
                r#"{{"Image":{{"ImageId":"ami-01234567","BlockDeviceMappings":[{}]}}}}"#,
                mappings.join(",")
            ))
        };
        assert_eq!(listed(256).expect("just enough").snapshots().len(), 256);
        assert_eq!(mapped(256).expect("just enough").snapshots().len(), 256);
        assert_eq!(listed(15_000).expect_err("too many").kind(), crate::base::ErrorKind::Limit);
        assert_eq!(mapped(15_000).expect_err("too many").kind(), crate::base::ErrorKind::Limit);
    }

    #[test]
    fn documents_that_contradict_themselves_are_refused() {
        for (json, word) in [
            ("[]", "object"),
            ("{", "not JSON"),
            (r#"{"Snapshots": [{"SnapshotId": "a"}], "Snapshots": []}"#, "not JSON"),
            (r#"{"Image": null, "Snapshots": [{"SnapshotId": "a"}]}"#, "ImageId"),
            ("{}", "neither"),
            (r#"{"Images": [{}]}"#, "describe-images"),
            (r#"{"Image": {}}"#, "ImageId"),
            (r#"{"Image": {"ImageId": "ami-1"}}"#, "image id"),
            (r#"{"Image": {"ImageId": "ami-01234567", "Name": "a"}}"#, "AMI name"),
            (
                r#"{"Image": {"ImageId": "ami-01234567",
                    "BlockDeviceMappings": [{"DeviceName": "a"}, {"DeviceName": "a"}]}}"#,
                "one device name",
            ),
            (r#"{"Snapshots": [{"SnapshotId": "a"}, {"SnapshotId": "a"}]}"#, "one id"),
            (r#"{"Snapshots": [{"SnapshotId": "a"}, {"SnapshotId": "A"}]}"#, "only in case"),
            (r#"{"Snapshots": [{"SnapshotId": "../a"}]}"#, "snapshot id"),
            (r#"{"Snapshots": [{"SnapshotId": "a", "VolumeSize": -1}]}"#, "GiB"),
            (r#"{"format": "tar", "Snapshots": [{"SnapshotId": "a"}]}"#, "format"),
            (r#"{"version": "1", "Snapshots": [{"SnapshotId": "a"}]}"#, "not a number"),
            (r#"{"version": 1.0, "Snapshots": [{"SnapshotId": "a"}]}"#, "not a number"),
            (
                r#"{"Image": {"ImageId": "ami-01234567", "BlockDeviceMappings": {}}}"#,
                "not an array",
            ),
            (
                r#"{"Image": {"ImageId": "ami-01234567",
                    "BlockDeviceMappings": [{"DeviceName": "a", "Ebs": "snap-1"}]}}"#,
                "`Ebs` is not",
            ),
            (r#"{"Snapshots": [{"SnapshotId": "a", "VolumeSize": "8"}]}"#, "GiB"),
            (r#"{"Snapshots": [{"SnapshotId": "a", "VolumeSize": -0}]}"#, "GiB"),
        ] {
            let error = parse(json).expect_err(json);
            assert!(error.message().contains(word), "{json}: {error}");
        }
    }

    #[test]
    fn null_counts_as_absent_and_another_version_is_unsupported() {
        let null = r#"{"format": null, "version": null, "Snapshots": [{"SnapshotId": "a"}]}"#;
        parse(null).expect("a good document");
        let newer = parse(r#"{"version": 2, "Snapshots": 7}"#).expect_err("newer");
        assert_eq!(newer.kind(), crate::base::ErrorKind::Unsupported);
    }

    #[test]
    fn a_document_in_utf_16_or_with_a_byte_order_mark_is_called_that() {
        let json = r#"{"Snapshots": [{"SnapshotId": "a"}]}"#;
        let utf_16 = |mark: &str, to_bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
            format!("{mark}{json}").encode_utf16().flat_map(to_bytes).collect()
        };
        for (bytes, encoding) in [
            (format!("\u{feff}{json}").into_bytes(), "UTF-8 with byte order mark"),
            (utf_16("\u{feff}", u16::to_le_bytes), "UTF-16 with byte order mark"),
            (utf_16("\u{feff}", u16::to_be_bytes), "UTF-16 with byte order mark"),
            (utf_16("", u16::to_le_bytes), "UTF-16"),
            (utf_16("", u16::to_be_bytes), "UTF-16"),
        ] {
            let error = ImageDocument::parse(bytes).expect_err(encoding);
            assert!(error.message().contains("not UTF-8"), "{error}");
            assert_eq!(error.fact("encoding"), Some(encoding));
        }
    }
}
