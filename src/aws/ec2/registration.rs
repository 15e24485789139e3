//! The parameters of RegisterImage, and the report on attributes: a pure function of the image
//! document and of the edits.
//!
//! The attributes that RegisterImage sets are those of "RegisterImage" in the EC2 API reference
//! (2016-11-15, read 2026-11).

use serde_json::{Map, Value, json};

use super::describe::{items, tag_params, tags, text};
use super::edits::{DeviceChange, Edits};
use super::fidelity::{Fidelity, FidelityItem};
use crate::aws::ec2_query::Params;
use crate::base::{DeviceName, Error, Result, SnapshotId, check_image_name};
use crate::image::ImageDocument;

/// The subject of attributes of the image itself.
const IMAGE: &str = "image";
const REQUESTED: &str = "asked for";

/// The parameters of RegisterImage, and the report on the recorded attributes.
pub(super) struct Registration {
    pub(super) name: String,
    pub(super) params: Params,
    pub(super) items: Vec<FidelityItem>,
}

/// Members of an image that can be given to RegisterImage as they are.
const COPIED: [&str; 4] = ["EnaSupport", "SriovNetSupport", "RootDeviceName", "VirtualizationType"];
/// Members that [`plan`] converts.
const HANDLED: [&str; 10] = [
    "Name",
    "Description",
    "Architecture",
    "BootMode",
    "TpmSupport",
    "ImdsSupport",
    "BlockDeviceMappings",
    "Tags",
    "DeprecationTime",
    "DeregistrationProtection",
];

/// The reason for which a member of an image cannot be set.
fn why_not(member: &str) -> &'static str {
    match member {
        "ImageId" | "CreationDate" | "ImageLocation" => "EC2 gives every image its own",
        "OwnerId" | "ImageOwnerAlias" => "the image belongs to the account that registers it",
        "SourceImageId" | "SourceImageRegion" | "SourceInstanceId" => {
            "EC2 keeps the origin only of images that it makes itself; --tag-source tags it"
        }
        "LastLaunchedTime" => "the new image was not launched yet",
        "Public" => "a new image is private; --launch-permissions gives the recorded permissions",
        "ProductCodes" => "only AWS Marketplace sets product codes",
        "Platform" | "PlatformDetails" | "UsageOperation" => {
            "EC2 takes billing from the snapshot, and snapshots made of blocks have none: an image \
             that is billed otherwise has to be restored by AWS (--via-aws)"
        }
        "KernelId" | "RamdiskId" => "kernels and RAM disks belong to one Region",
        "State" | "StateReason" => "a new image is available",
        "ImageType" | "Hypervisor" | "RootDeviceType" => "follows from how the image is registered",
        "FreeTierEligible"
        | "ImageAllowed"
        | "ImageWatermarks"
        | "ScanResults"
        | "PublicSsmParameterName"
        | "InstanceTypeSpecification" => "EC2 decides on it",
        _ => "this version does not know how to set it; the archive keeps it",
    }
}

/// Whether a new image has this value by default.
fn is_by_itself(member: &str, value: &Value) -> bool {
    match member {
        "PlatformDetails" => *value == json!("Linux/UNIX"),
        "UsageOperation" => *value == json!("RunInstances"),
        "Hypervisor" => *value == json!("xen"),
        "ImageType" => *value == json!("machine"),
        "RootDeviceType" => *value == json!("ebs"),
        "State" => *value == json!("available"),
        "Public" => *value == json!(false),
        _ => false,
    }
}

/// Plans the registration. `snapshot_of` gives EC2's id of an archived snapshot, and its size in
/// GiB.
pub(super) fn plan(
    document: &ImageDocument,
    edits: &Edits,
    snapshot_of: &dyn Fn(&SnapshotId) -> Option<(String, u64)>,
) -> Result<Registration> {
    let image = document.value().get("Image").ok_or_else(|| {
        Error::usage(
            "the archive holds bare snapshots, and no image that could be registered: restore them \
             with --snapshots-only",
        )
    })?;
    let mut plan = Planner { edits, params: Params::new(), items: Vec::new() };
    let name = plan.name(image)?;
    plan.description(image);
    plan.architecture(image)?;
    plan.boot(image);
    plan.uefi_data(document.value().get("ImageAttributes").unwrap_or(&Value::Null));
    for member in COPIED {
        if member == "RootDeviceName" {
            plan.root_device(image)?;
            continue;
        }
        match image.get(member).filter(|value| !value.is_null()) {
            Some(value) => plan.set(IMAGE, member, value),
            // EC2 would take it for paravirtual.
            None if member == "VirtualizationType" => {
                plan.params = std::mem::take(&mut plan.params).set(member, "hvm");
            }
            None => {}
        }
    }
    plan.mappings(document, image, snapshot_of)?;
    plan.tags(document, image);
    let others = image.as_object().into_iter().flatten().filter(|(member, value)| {
        !COPIED.contains(&member.as_str())
            && !HANDLED.contains(&member.as_str())
            && !value.is_null()
            && **value != json!("")
            && **value != json!([])
    });
    for (member, value) in others {
        plan.items.push(if is_by_itself(member, value) {
            FidelityItem::set(IMAGE, member, value)
        } else {
            FidelityItem::impossible(IMAGE, member, value, why_not(member))
        });
    }
    Ok(Registration { name, params: plan.params, items: plan.items })
}

struct Planner<'a> {
    edits: &'a Edits,
    params: Params,
    items: Vec<FidelityItem>,
}

impl Planner<'_> {
    fn param(&mut self, name: &str, value: &Value) {
        let value = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        self.params = std::mem::take(&mut self.params).set(name, value);
    }

    /// Sets an attribute as recorded.
    fn set(&mut self, subject: &str, attribute: &str, recorded: &Value) {
        self.param(attribute, recorded);
        self.items.push(FidelityItem::set(subject, attribute, recorded));
    }

    /// Sets an attribute as an option says, or else as recorded.
    fn set_or(&mut self, attribute: &str, recorded: Option<&Value>, requested: Option<&str>) {
        let recorded = recorded.filter(|value| !value.is_null());
        match (recorded, requested) {
            (Some(recorded), None) => self.set(IMAGE, attribute, recorded),
            (recorded, Some(requested)) => {
                let requested = json!(requested);
                if !requested.as_str().is_some_and(str::is_empty) {
                    self.param(attribute, &requested);
                }
                let recorded = recorded.unwrap_or(&Value::Null);
                let item = if *recorded == requested {
                    FidelityItem::set(IMAGE, attribute, recorded)
                } else {
                    FidelityItem::changed(IMAGE, attribute, recorded, requested, REQUESTED)
                };
                self.items.push(item);
            }
            (None, None) => {}
        }
    }

    fn name(&mut self, image: &Value) -> Result<String> {
        let name = self.edits.name.as_deref().or_else(|| text(image, "Name"));
        let name = name
            .ok_or_else(|| {
                Error::usage("the archive does not record a name of the image: give --name")
            })?
            .to_owned();
        check_image_name(&name)?;
        self.set_or("Name", image.get("Name"), self.edits.name.as_deref());
        Ok(name)
    }

    /// Sets the root device, which has to be one with a volume: EC2 refuses another, and only after
    /// all blocks are written.
    fn root_device(&mut self, image: &Value) -> Result<()> {
        let mappings = items(image, "BlockDeviceMappings").iter();
        let devices: Vec<&str> = mappings
            .filter(|mapping| mapping.get("Ebs").is_some())
            .filter_map(|mapping| text(mapping, "DeviceName"))
            .collect();
        let chosen = self.edits.root_device.as_ref().map(DeviceName::as_str);
        let root = chosen.or_else(|| text(image, "RootDeviceName"));
        if !devices.is_empty() && root.is_none_or(|root| !devices.contains(&root)) {
            return Err(Error::usage(
                "no volume of the image is at its root device: name one with --root-device",
            )
            .at("root_device", root.unwrap_or("not recorded"))
            .at("devices", devices.join(", ")));
        }
        self.set_or("RootDeviceName", image.get("RootDeviceName"), chosen);
        Ok(())
    }

    fn description(&mut self, image: &Value) {
        let recorded = image.get("Description").filter(|value| **value != json!(""));
        self.set_or("Description", recorded, self.edits.description.as_deref());
    }

    fn architecture(&mut self, image: &Value) -> Result<()> {
        // Without it EC2 would take the image for i386.
        let architecture = image.get("Architecture").filter(|value| !value.is_null());
        let missing = || {
            Error::usage(
                "the archive does not record the architecture of the image, and EC2 would take it \
                 for i386",
            )
        };
        self.set(IMAGE, "Architecture", architecture.ok_or_else(missing)?);
        Ok(())
    }

    fn boot(&mut self, image: &Value) {
        self.set_or("BootMode", image.get("BootMode"), self.edits.boot_mode.as_deref());
        self.set_or("ImdsSupport", image.get("ImdsSupport"), self.edits.imds_support.as_deref());
        let boot_mode = self.edits.boot_mode.as_deref().or_else(|| text(image, "BootMode"));
        let Some(tpm) = image.get("TpmSupport").filter(|value| !value.is_null()) else { return };
        if boot_mode == Some("uefi") {
            self.set(IMAGE, "TpmSupport", tpm);
        } else {
            let why = "RegisterImage sets it only together with the boot mode uefi: --boot-mode \
                       uefi, if the image boots so";
            self.items.push(FidelityItem::impossible(IMAGE, "TpmSupport", tpm, why));
        }
    }

    fn uefi_data(&mut self, attributes: &Value) {
        let recorded = attributes.get("UefiData").map(|data| data.get("Value").unwrap_or(data));
        if let Some(recorded) =
            recorded.filter(|value| value.as_str().is_some_and(|text| !text.is_empty()))
        {
            self.set(IMAGE, "UefiData", recorded);
        }
    }

    fn tags(&mut self, document: &ImageDocument, image: &Value) {
        let more = self.edits.tags_of_image(document);
        let tags = self.restored_tags(IMAGE, &tags(image), &more);
        if !tags.is_empty() {
            let specification =
                Params::new().set("ResourceType", "image").structures("Tag", tag_params(&tags));
            self.params =
                std::mem::take(&mut self.params).structures("TagSpecification", [specification]);
        }
    }

    /// The tags of the image or of a snapshot; reports on the recorded ones.
    fn restored_tags(
        &mut self,
        subject: &str,
        recorded: &[(String, String)],
        more: &[(String, String)],
    ) -> Vec<(String, String)> {
        let (tags, items) = restored_tags(subject, recorded, more, self.edits.no_tags);
        self.items.extend(items);
        tags
    }

    fn mappings(
        &mut self,
        document: &ImageDocument,
        image: &Value,
        snapshot_of: &dyn Fn(&SnapshotId) -> Option<(String, u64)>,
    ) -> Result<()> {
        let with_volume = items(image, "BlockDeviceMappings")
            .iter()
            .filter(|mapping| mapping.get("Ebs").is_some());
        self.edits.check_devices(with_volume.filter_map(|mapping| text(mapping, "DeviceName")))?;
        let mut all = Vec::new();
        for (mapping, known) in items(image, "BlockDeviceMappings").iter().zip(document.mappings())
        {
            let device = known.device.as_str();
            let mut params = Params::new().set("DeviceName", device);
            for (member, value) in mapping.as_object().into_iter().flatten() {
                match member.as_str() {
                    "DeviceName" => {}
                    "VirtualName" => {
                        params = params.set("VirtualName", value.as_str().unwrap_or_default());
                        self.items.push(FidelityItem::set(device, member, value));
                    }
                    "NoDevice" => {
                        params = params.set("NoDevice", value.as_str().unwrap_or_default());
                        self.items.push(FidelityItem::set(device, member, value));
                    }
                    "Ebs" => {
                        let snapshot = known.snapshot.as_ref();
                        let now = snapshot.map(|id| {
                            snapshot_of(id).ok_or_else(|| {
                                Error::internal("a snapshot of the image was not restored")
                            })
                        });
                        params =
                            params.structure("Ebs", self.volume(device, value, now.transpose()?)?);
                    }
                    _ => self.items.push(FidelityItem::impossible(
                        device,
                        member,
                        value,
                        why_not(member),
                    )),
                }
            }
            all.push(params);
        }
        self.params = std::mem::take(&mut self.params).structures("BlockDeviceMapping", all);
        Ok(())
    }

    /// The parameters of one EBS volume.
    fn volume(
        &mut self,
        device: &str,
        ebs: &Value,
        snapshot: Option<(String, u64)>,
    ) -> Result<Params> {
        let empty = Map::new();
        let recorded = ebs.as_object().unwrap_or(&empty);
        let edits = self.edits;
        let mut params = Params::new();
        if let Some((id, _)) = &snapshot {
            params = params.set("SnapshotId", id);
        }
        let kind_requested = edits.of(device, |change| {
            if let DeviceChange::VolumeType(kind) = change { Some(kind.as_str()) } else { None }
        });
        let kind = kind_requested.or_else(|| text(ebs, "VolumeType")).unwrap_or("gp2");
        let number = |pick: fn(&DeviceChange) -> Option<u64>| {
            edits.of(device, pick).map(|value| json!(value))
        };
        let size_requested =
            number(
                |change| if let DeviceChange::VolumeSize(gib) = change { Some(*gib) } else { None },
            );
        let iops_requested =
            number(|change| if let DeviceChange::Iops(iops) = change { Some(*iops) } else { None });
        let throughput_requested =
            number(
                |change| {
                    if let DeviceChange::Throughput(rate) = change { Some(*rate) } else { None }
                },
            );
        let stays = |change: &DeviceChange| {
            if let DeviceChange::DeleteOnTermination(deleted) = change {
                Some(*deleted)
            } else {
                None
            }
        };
        let deletes_requested = edits.of(device, stays).map(|value| json!(value));
        // A volume is never smaller than its snapshot.
        let least = snapshot.as_ref().map_or(0, |(_, gib)| *gib);
        let size = size_requested
            .as_ref()
            .or_else(|| recorded.get("VolumeSize"))
            .and_then(Value::as_u64)
            .unwrap_or(least);
        if size < least && size_requested.is_some() {
            let small =
                Error::usage("a volume cannot be smaller than its snapshot").at("device", device);
            return Err(small.at("volume_size_gib", size).at("snapshot_gib", least));
        }
        let needs_iops = matches!(kind, "io1" | "io2");
        let has_iops = matches!(kind, "gp3" | "io1" | "io2");
        // Recorded Iops and Throughput belong to the recorded type: each type has its own limits.
        let keeps_speed =
            kind_requested.is_none_or(|requested| Some(requested) == text(ebs, "VolumeType"));
        let speed = |member: &str| recorded.get(member).cloned().filter(|_| keeps_speed);
        if needs_iops && iops_requested.is_none() && speed("Iops").is_none() {
            return Err(Error::usage("volumes of this type need a number of IOPS: give --iops")
                .at("device", device)
                .at("volume_type", kind));
        }
        let mut settings: Vec<(&str, Option<Value>, Option<&'static str>)> = vec![
            (
                "VolumeSize",
                (size.max(least) > 0).then(|| json!(size.max(least))),
                Some("a volume is not smaller than its snapshot"),
            ),
            (
                "VolumeType",
                kind_requested
                    .map(|kind| json!(kind))
                    .or_else(|| recorded.get("VolumeType").cloned()),
                None,
            ),
            ("Iops", iops_requested.or_else(|| speed("Iops")).filter(|_| has_iops), None),
            (
                "Throughput",
                throughput_requested.or_else(|| speed("Throughput")).filter(|_| kind == "gp3"),
                None,
            ),
            (
                "DeleteOnTermination",
                deletes_requested.or_else(|| recorded.get("DeleteOnTermination").cloned()),
                None,
            ),
        ];
        for member in ["VolumeInitializationRate", "EbsCardIndex"] {
            settings.push((member, recorded.get(member).cloned(), None));
        }
        // A volume has the encryption of its snapshot, and RegisterImage refuses the parameter.
        if snapshot.is_none() {
            settings.push(("Encrypted", recorded.get("Encrypted").cloned(), None));
        }
        for (member, value, why) in &settings {
            if let Some(value) = value {
                params = params.set(
                    *member,
                    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned),
                );
            }
            match (recorded.get(*member).filter(|value| !value.is_null()), value) {
                (Some(recorded), Some(value)) if recorded == value => {
                    self.items.push(FidelityItem::set(device, member, recorded));
                }
                (Some(recorded), Some(value)) => {
                    let why = why.filter(|_| size_requested.is_none()).unwrap_or(REQUESTED);
                    self.items.push(FidelityItem::changed(
                        device,
                        member,
                        recorded,
                        value.clone(),
                        why,
                    ));
                }
                (Some(recorded), None) => {
                    self.items.push(FidelityItem::impossible(
                        device,
                        member,
                        recorded,
                        "belongs to another volume type, or follows from the size",
                    ));
                }
                (None, Some(value)) if kind_requested.is_some() || *member != "VolumeSize" => {
                    self.items.push(FidelityItem::changed(
                        device,
                        member,
                        &Value::Null,
                        value.clone(),
                        REQUESTED,
                    ));
                }
                (None, _) => {}
            }
        }
        for (member, value) in recorded.iter().filter(|(member, value)| {
            !value.is_null() && settings.iter().all(|(known, ..)| known != member)
        }) {
            let why = match member.as_str() {
                "SnapshotId" => "EC2 gives every snapshot its own",
                "Encrypted" => "follows from its snapshot",
                "KmsKeyId" => "keys belong to one Region; --kms-key-id names another",
                "OutpostArn" | "AvailabilityZone" | "AvailabilityZoneId" => {
                    "Availability Zones and Outposts belong to one Region"
                }
                _ => "this version does not know how to set it; the archive keeps it",
            };
            self.items.push(FidelityItem::impossible(device, member, value, why));
        }
        Ok(params)
    }
}

/// The tags of the image or of a snapshot: the recorded ones, unless `none`, and `more`, which
/// replace recorded ones with the same key. Returns the report on the recorded ones, too.
pub(super) fn restored_tags(
    subject: &str,
    recorded: &[(String, String)],
    more: &[(String, String)],
    none: bool,
) -> (Vec<(String, String)>, Vec<FidelityItem>) {
    let mut restored: Vec<(String, String)> = Vec::new();
    let mut items = Vec::new();
    for (key, value) in recorded {
        let (attribute, recorded) = (format!("Tag {key}"), json!(value));
        let requested = more.iter().rev().find(|(requested, _)| requested == key);
        if key.starts_with("aws:") {
            items.push(FidelityItem::impossible(
                subject,
                &attribute,
                &recorded,
                "only AWS sets tags whose keys begin with aws:",
            ));
        } else if let Some((_, requested)) = requested {
            items.push(FidelityItem::changed(
                subject,
                &attribute,
                &recorded,
                json!(requested),
                REQUESTED,
            ));
        } else if none {
            items.push(FidelityItem::left(subject, &attribute, &recorded, "--no-tags"));
        } else {
            items.push(FidelityItem::set(subject, &attribute, &recorded));
            restored.push((key.clone(), value.clone()));
        }
    }
    for (key, value) in more {
        match restored.iter_mut().find(|(known, _)| known == key) {
            Some(known) => known.1.clone_from(value),
            None => restored.push((key.clone(), value.clone())),
        }
    }
    (restored, items)
}

/// Compares the report with EC2's description of the new image. `attributes` is the answer of
/// DescribeImageAttribute, if there is one.
pub(super) fn observe(items: &mut [FidelityItem], described: &Value, attributes: Option<&Value>) {
    let new_tags = tags(described);
    let mappings = self::items(described, "BlockDeviceMappings");
    for item in items {
        let found = if item.subject == IMAGE {
            match item.attribute.strip_prefix("Tag ") {
                Some(key) => {
                    new_tags.iter().find(|(known, _)| known == key).map(|(_, value)| json!(value))
                }
                // Not in the description of an image.
                None if item.attribute == "LaunchPermission" => continue,
                None if item.attribute == "UefiData" => {
                    let Some(attributes) = attributes else { continue };
                    attributes.get("UefiData").map(|data| data.get("Value").unwrap_or(data).clone())
                }
                None => described.get(&item.attribute).cloned(),
            }
        } else {
            let Some(mapping) = mappings
                .iter()
                .find(|mapping| text(mapping, "DeviceName") == Some(item.subject.as_str()))
            else {
                continue;
            };
            mapping
                .get(&item.attribute)
                .or_else(|| mapping.get("Ebs")?.get(&item.attribute))
                .cloned()
        };
        let found = found.unwrap_or(Value::Null);
        if item.fidelity == Fidelity::Impossible && found == item.recorded {
            *item = FidelityItem::set(&item.subject, &item.attribute, &item.recorded);
        }
        // EC2 leaves out empty values.
        let is_empty = |value: &Value| value.is_null() || *value == json!("");
        if !(is_empty(&found) && is_empty(item.now.as_ref().unwrap_or(&item.recorded))) {
            item.observe(&found);
        }
    }
}

#[cfg(test)]
mod tests;
