//! The description of an image that is being restored, and the filters of DescribeImages that
//! select it.
//!
//! EC2 has no such image yet, so its attributes are those of the planned registration.

use std::collections::BTreeMap;

use super::times::milliseconds;
use super::{RestoreProgress, RestoredImage};
use crate::aws::ec2_query::{Params, Xml};
use crate::base::fits_pattern;

/// Attributes that all restored images have: parameter of DescribeImages, and value.
const ALWAYS: [(&str, &str); 6] = [
    ("ImageType", "machine"),
    ("Hypervisor", "xen"),
    ("RootDeviceType", "ebs"),
    ("PlatformDetails", "Linux/UNIX"),
    ("UsageOperation", "RunInstances"),
    ("IsPublic", "false"),
];
/// The prefix of the parameters of devices.
const DEVICES: &str = "BlockDeviceMapping.";

/// The conditions of a request to DescribeImages.
pub(super) struct Conditions {
    filters: Vec<Filter>,
    owners: Vec<String>,
    /// Whether only images with launch permissions are asked for, which a new one has not.
    is_by_permission: bool,
}

struct Filter {
    name: String,
    /// The prefix of the names of its values.
    start: String,
    values: Vec<String>,
}

impl Conditions {
    pub(super) fn of(params: &Params) -> Self {
        let values = |start: &str| -> Vec<String> {
            let listed = params.pairs().iter().filter(|(name, _)| name.starts_with(start));
            listed.map(|(_, value)| value.clone()).collect()
        };
        let names = params.pairs().iter().filter_map(|(name, value)| {
            Some((name.strip_prefix("Filter.")?.strip_suffix(".Name")?, value))
        });
        let filter = |(number, name): (&str, &String)| {
            let start = format!("Filter.{number}.Value.");
            Filter { name: name.clone(), values: values(&start), start }
        };
        Self {
            // EC2 allows 200 values of filters, so it refuses a request with more filters.
            filters: names.take(200).map(filter).collect(),
            owners: values("Owner."),
            is_by_permission: !values("ExecutableBy.").is_empty(),
        }
    }

    /// Tells whether a parameter is a value of the filter `image-id`.
    pub(super) fn is_image_id(&self, parameter: &str) -> bool {
        let mut ids = self.filters.iter().filter(|filter| filter.name == "image-id");
        ids.any(|filter| parameter.starts_with(&filter.start))
    }

    /// Tells whether the conditions select an image that EC2 does not have yet.
    pub(super) fn admit(&self, image: &RestoredImage) -> bool {
        let is_owned = |owner: &String| owner == "self" || Some(owner) == image.owner.as_ref();
        !self.is_by_permission
            && (self.owners.is_empty() || self.owners.iter().any(is_owned))
            && self.filters.iter().all(|filter| match values_of(image, &filter.name) {
                Some(values) => filter
                    .values
                    .iter()
                    .any(|pattern| values.iter().any(|value| fits_pattern(pattern, value))),
                // A record without attributes, of an earlier version.
                None => true,
            })
    }
}

/// The values that an image has for a filter; `None` if they are not recorded.
fn values_of(image: &RestoredImage, filter: &str) -> Option<Vec<String>> {
    let one = |text: &str| Some(vec![text.to_owned()]);
    match filter {
        "image-id" => return one(image.reserved.as_str()),
        "name" => return one(image.name.as_deref().unwrap_or_default()),
        "state" => return one(state(image)),
        "creation-date" => return one(&milliseconds(image.started)),
        "manifest-location" => return one(&image.location),
        "owner-id" if image.owner.is_some() => return Some(image.owner.iter().cloned().collect()),
        _ => {}
    }
    let name = parameter_of(filter);
    if let Some((_, value)) = ALWAYS.iter().find(|(known, _)| *known == name) {
        return one(value);
    }
    if image.attributes.pairs().is_empty() {
        return None;
    }
    let tags = || tags_of(&image.attributes);
    if filter == "tag-key" {
        return Some(tags().map(|(key, _)| key.to_owned()).collect());
    }
    if let Some(key) = filter.strip_prefix("tag:") {
        let values = tags().filter(|(known, _)| *known == key).map(|(_, value)| value.to_owned());
        return Some(values.collect());
    }
    if let Some(member) = filter.strip_prefix("block-device-mapping.") {
        let (own, of_volume) = (parameter_of(member), format!("Ebs.{}", parameter_of(member)));
        let devices = devices_of(image);
        let members = devices.values().flatten();
        let named = members.filter(|(name, _)| *name == own || *name == of_volume);
        return Some(named.map(|(_, value)| value.clone()).collect());
    }
    Some(image.attributes.get(&name).map(ToOwned::to_owned).into_iter().collect())
}

/// The parameter of a filter: `RootDeviceName` of `root-device-name`.
fn parameter_of(filter: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
    };
    filter.split('-').map(|part| -> String { word(part) }).collect()
}

/// The tags of the image in its registration.
fn tags_of(attributes: &Params) -> impl Iterator<Item = (&str, &str)> {
    let keys = attributes.pairs().iter().filter(|(name, _)| name.starts_with("TagSpecification."));
    keys.filter_map(|(name, key)| {
        let value = attributes.get(&format!("{}.Value", name.strip_suffix(".Key")?));
        Some((key.as_str(), value.unwrap_or_default()))
    })
}

/// The parameters of each device, with the ids of the snapshots that were begun. A volume has no id
/// before its snapshot is begun.
fn devices_of(image: &RestoredImage) -> BTreeMap<u32, Vec<(&str, String)>> {
    let mut devices: BTreeMap<u32, Vec<(&str, String)>> = BTreeMap::new();
    for (name, value) in image.attributes.pairs() {
        let member = name.strip_prefix(DEVICES).and_then(|rest| rest.split_once('.'));
        let Some((Ok(number), member)) = member.map(|(number, rest)| (number.parse(), rest)) else {
            continue;
        };
        let begun = |archived: &String| {
            let found = image.snapshots.iter().find(|(known, _)| known == archived);
            found.map(|(_, snapshot)| snapshot.clone())
        };
        let value = if member == "Ebs.SnapshotId" { begun(value) } else { Some(value.clone()) };
        devices.entry(number).or_default().extend(value.map(|value| (member, value)));
    }
    devices
}

fn state(image: &RestoredImage) -> &'static str {
    match image.progress {
        RestoreProgress::Pending => "pending",
        RestoreProgress::Available => "available",
        RestoreProgress::Failed => "failed",
    }
}

/// An item of DescribeImages for an image that EC2 does not have yet.
pub(super) fn described(image: &RestoredImage) -> Xml {
    let mut xml = Xml::new()
        .text("imageId", &image.reserved)
        .text("imageLocation", &image.location)
        .text("imageState", state(image))
        .text_some("imageOwnerId", image.owner.as_ref())
        .text("creationDate", milliseconds(image.started))
        .text_some("name", image.name.as_ref());
    for (name, value) in ALWAYS {
        xml = xml.text(&element_of(name), value);
    }
    let plain =
        image.attributes.pairs().iter().filter(|(name, _)| {
            !name.contains('.') && !matches!(name.as_str(), "Name" | "UefiData")
        });
    for (name, value) in plain {
        xml = xml.text(&element_of(name), value);
    }
    let devices = devices_of(image);
    let tags = tags_of(&image.attributes);
    xml = xml
        .list("blockDeviceMapping", devices.values().map(|members| device(members)))
        .list("tagSet", tags.map(|(key, value)| Xml::new().text("key", key).text("value", value)));
    if image.progress == RestoreProgress::Failed {
        let reason = image.reason.as_deref().unwrap_or("the restore failed");
        xml = xml.inside(
            "stateReason",
            &Xml::new().text("code", "Client.RestoreFailed").text("message", reason),
        );
    }
    xml
}

/// An item of the block device mapping.
fn device(members: &[(&str, String)]) -> Xml {
    let (mut xml, mut volume) = (Xml::new(), Xml::new());
    for (name, value) in members {
        match name.strip_prefix("Ebs.") {
            Some(name) => volume = volume.text(&element_of(name), value),
            None => xml = xml.text(&element_of(name), value),
        }
    }
    if volume.as_str().is_empty() { xml } else { xml.inside("ebs", &volume) }
}

/// The element of a parameter: `rootDeviceName` of `RootDeviceName`.
fn element_of(parameter: &str) -> String {
    let mut letters = parameter.chars();
    letters.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(letters).collect()
}
