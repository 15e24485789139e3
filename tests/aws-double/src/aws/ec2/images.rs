//! DescribeImages.

use super::super::clock;
use super::super::model::{Image, Mapping};
use super::super::world::World;
use super::filters::{filters, matches_all};
use super::{Error, Outcome, Request, Xml, can_see_image, checked_image_id};

pub fn describe(world: &mut World, request: &Request) -> Outcome<Xml> {
    let ids = request.list("ImageId");
    ids.iter().try_for_each(|id| checked_image_id(id))?;
    for id in &ids {
        super::image(world, id, request.account)?;
    }
    let (owners, users) = (request.list("Owner"), request.list("ExecutableBy"));
    let filters = filters(request)?;
    let deprecated = request.flag("IncludeDeprecated")? == Some(true);
    let disabled = request.flag("IncludeDisabled")? == Some(true);
    for name in ["MaxResults", "NextToken"] {
        request.text(name);
    }
    request.authorize(world)?;
    let now = clock::iso(world.now());
    advance_pending(world, |image| ids.is_empty() || ids.contains(&image.id));
    let account = request.account;
    let mut found = Vec::new();
    for image in world.images.values() {
        let own = image.owner == account;
        let past = image.deprecation_time.as_ref().is_some_and(|time| *time <= now);
        let listed = ids.is_empty() && image.visible_after == 0 && can_see_image(image, account)
            || ids.contains(&image.id);
        let hidden =
            past && !own && !deprecated && ids.is_empty() || image.is_disabled() && !disabled;
        let owner = |value: &String| {
            *value == image.owner
                || value == "self" && own
                || Some(value) == image.owner_alias.as_ref()
        };
        let user = |value: &String| match value.as_str() {
            "all" => image.launch.all,
            "self" => image.launch.users.contains(account),
            other => image.launch.users.contains(other),
        };
        let allowed = (owners.is_empty() || owners.iter().any(owner))
            && (users.is_empty() || users.iter().any(user));
        if listed
            && !hidden
            && allowed
            && matches_all(&filters, &image.tags, |name| filter_values(image, name))?
        {
            found.push((image.id.as_str(), image));
        }
    }
    let (page, token) = request.page(world, found, (1, 1000))?;
    let mut xml = Xml::default();
    xml.list("imagesSet", page, |xml, (_, image)| write(xml, image, account));
    xml.option("nextToken", token);
    Ok(xml)
}

impl Image {
    /// Counts one description of a pending image.
    fn advance(&mut self) {
        if self.pending_for > 0 {
            self.pending_for -= 1;
            return;
        }
        if let Some(reason) = self.fails_with.take() {
            "failed".clone_into(&mut self.state);
            self.state_reason = Some(("Server.InternalError".to_owned(), reason));
        } else {
            "available".clone_into(&mut self.state);
        }
    }
}

/// Each description advances pending images. Snapshots of restored images advance with their
/// images.
pub fn advance_pending(world: &mut World, at: impl Fn(&Image) -> bool) {
    let now = world.now();
    for image in world.images.values_mut().filter(|image| image.state == "pending" && at(image)) {
        image.advance();
        for id in image.mappings.iter().filter_map(Mapping::snapshot_id).filter(|_| image.restored)
        {
            let Some(snapshot) = world.snapshots.get_mut(id) else { continue };
            match image.state.as_str() {
                "available" => snapshot.complete(now),
                "failed" => "error".clone_into(&mut snapshot.state),
                _ => snapshot.progress = (snapshot.progress + 20).min(99),
            }
        }
    }
}

fn filter_values(image: &Image, name: &str) -> Option<Vec<String>> {
    let one = |text: &str| vec![text.to_owned()];
    let some = |text: &Option<String>| text.iter().cloned().collect();
    let volumes = || image.mappings.iter().filter_map(|mapping| mapping.ebs.as_ref());
    Some(match name {
        "architecture" => one(&image.architecture),
        "block-device-mapping.snapshot-id" => {
            image.mappings.iter().filter_map(Mapping::snapshot_id).map(str::to_owned).collect()
        }
        "block-device-mapping.device-name" => {
            image.mappings.iter().map(|mapping| mapping.device.clone()).collect()
        }
        "block-device-mapping.volume-type" => {
            volumes().filter_map(|ebs| ebs.volume_type.clone()).collect()
        }
        "block-device-mapping.volume-size" => {
            volumes().filter_map(|ebs| ebs.volume_size).map(|size| size.to_string()).collect()
        }
        "block-device-mapping.encrypted" => {
            volumes().map(|ebs| ebs.encrypted.unwrap_or(false).to_string()).collect()
        }
        "block-device-mapping.delete-on-termination" => {
            volumes().map(|ebs| ebs.delete_on_termination.unwrap_or(true).to_string()).collect()
        }
        "creation-date" => one(&image.creation_date),
        "description" => some(&image.description),
        "ena-support" => one(&image.ena_support.unwrap_or(false).to_string()),
        "free-tier-eligible" => one(&image.free_tier_eligible.unwrap_or(false).to_string()),
        "hypervisor" => one(&image.hypervisor),
        "image-allowed" => one(&image.image_allowed.unwrap_or(true).to_string()),
        "image-id" => one(&image.id),
        "image-type" => one(&image.image_type),
        "is-public" => one(&image.launch.all.to_string()),
        "kernel-id" => some(&image.kernel_id),
        "manifest-location" => some(&image.location),
        "name" => one(&image.name),
        "owner-alias" => some(&image.owner_alias),
        "owner-id" => one(&image.owner),
        "platform" => some(&image.platform),
        "product-code" => image.product_codes.iter().map(|(code, _)| code.clone()).collect(),
        "product-code.type" => image.product_codes.iter().map(|(_, kind)| kind.clone()).collect(),
        "ramdisk-id" => some(&image.ramdisk_id),
        "root-device-name" => some(&image.root_device_name),
        "root-device-type" => one(&image.root_device_type),
        "source-image-id" => some(&image.source_image_id),
        "source-image-region" => some(&image.source_image_region),
        "source-instance-id" => some(&image.source_instance_id),
        "sriov-net-support" => some(&image.sriov_net_support),
        "state" => one(&image.state),
        "state-reason-code" => image.state_reason.iter().map(|(code, _)| code.clone()).collect(),
        "state-reason-message" => {
            image.state_reason.iter().map(|(_, message)| message.clone()).collect()
        }
        "virtualization-type" => one(&image.virtualization_type),
        _ => return None,
    })
}

fn write(xml: &mut Xml, image: &Image, account: &str) {
    xml.text("imageId", &image.id);
    xml.option("imageLocation", image.location.as_ref());
    xml.text("imageState", &image.state);
    xml.text("imageOwnerId", &image.owner);
    xml.text("creationDate", &image.creation_date);
    xml.value("isPublic", image.launch.all);
    xml.product_codes(&image.product_codes);
    xml.text("architecture", &image.architecture);
    xml.text("imageType", &image.image_type);
    xml.option("kernelId", image.kernel_id.as_ref());
    xml.option("ramdiskId", image.ramdisk_id.as_ref());
    xml.option("platform", image.platform.as_ref());
    xml.option("platformDetails", image.platform_details.as_ref());
    xml.option("usageOperation", image.usage_operation.as_ref());
    xml.option("imageOwnerAlias", image.owner_alias.as_ref());
    xml.text("name", &image.name);
    xml.option("description", image.description.as_ref().filter(|text| !text.is_empty()));
    xml.text("rootDeviceType", &image.root_device_type);
    xml.option("rootDeviceName", image.root_device_name.as_ref());
    xml.list("blockDeviceMapping", &image.mappings, write_mapping);
    xml.text("virtualizationType", &image.virtualization_type);
    xml.tags(&image.tags);
    xml.text("hypervisor", &image.hypervisor);
    xml.option("enaSupport", image.ena_support);
    xml.option("sriovNetSupport", image.sriov_net_support.as_ref());
    xml.option("bootMode", image.boot_mode.as_ref());
    xml.option("tpmSupport", image.tpm_support.as_ref());
    xml.option("imdsSupport", image.imds_support.as_ref());
    xml.option("deprecationTime", image.deprecation_time.as_ref());
    xml.option("sourceInstanceId", image.source_instance_id.as_ref());
    xml.option("sourceImageId", image.source_image_id.as_ref());
    xml.option("sourceImageRegion", image.source_image_region.as_ref());
    xml.option("imageAllowed", image.image_allowed);
    xml.option("freeTierEligible", image.free_tier_eligible);
    // Shown to the owner only.
    if image.owner == account {
        xml.text(
            "deregistrationProtection",
            image.deregistration_protection.as_deref().unwrap_or("disabled"),
        );
        xml.option("lastLaunchedTime", image.last_launched.as_ref());
    }
    if let Some((code, message)) = &image.state_reason {
        xml.node("stateReason", |xml| {
            xml.text("code", code);
            xml.text("message", message);
        });
    }
    xml.raw(&image.extra_xml);
}

fn write_mapping(xml: &mut Xml, mapping: &Mapping) {
    xml.text("deviceName", &mapping.device);
    xml.option("virtualName", mapping.virtual_name.as_ref());
    xml.option("noDevice", mapping.no_device.as_ref());
    if let Some(ebs) = &mapping.ebs {
        xml.node("ebs", |xml| {
            xml.option("deleteOnTermination", ebs.delete_on_termination);
            xml.option("iops", ebs.iops);
            xml.option("snapshotId", ebs.snapshot_id.as_ref());
            xml.option("volumeSize", ebs.volume_size);
            xml.option("volumeType", ebs.volume_type.as_ref());
            xml.option("throughput", ebs.throughput);
            xml.option("encrypted", ebs.encrypted);
            xml.option("kmsKeyId", ebs.kms_key_id.as_ref());
            xml.option("outpostArn", ebs.outpost_arn.as_ref());
            xml.option("availabilityZone", ebs.availability_zone.as_ref());
            // The service model has no other name for this element.
            xml.option("VolumeInitializationRate", ebs.initialization_rate);
            xml.option("EbsCardIndex", ebs.card_index);
            xml.raw(&ebs.extra_xml);
        });
    }
    xml.raw(&mapping.extra_xml);
}

/// The error of an image that is not in the state an action needs.
pub fn unavailable(id: &str, state: &str) -> Error {
    Error::client(
        "InvalidAMIID.Unavailable",
        format!("The image ID '{id}' is {state} and not available"),
    )
}
