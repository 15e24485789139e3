//! RegisterImage, with the rules of AWS.

use super::super::clock::iso;
use super::super::model::{Ebs, Image, Mapping};
use super::super::world::World;
use super::{Error, Outcome, Request, Xml, checked_snapshot_id, tag_specifications};

const ARCHITECTURES: [&str; 5] = ["i386", "x86_64", "arm64", "x86_64_mac", "arm64_mac"];
const UEFI_DATA: usize = 64_000;

/// Limits of a volume type: size in GiB, IOPS and MiB/s. None: the type refuses the parameter.
struct Type {
    name: &'static str,
    sizes: (u64, u64),
    iops: Option<(u64, u64)>,
    needs_iops: bool,
    per_gib: u64,
    throughput: Option<(u64, u64)>,
}

const TYPES: [Type; 7] = [
    Type {
        name: "gp2",
        sizes: (1, 16_384),
        iops: None,
        needs_iops: false,
        per_gib: 0,
        throughput: None,
    },
    Type {
        name: "gp3",
        sizes: (1, 65_536),
        iops: Some((3000, 80_000)),
        needs_iops: false,
        per_gib: 500,
        throughput: Some((125, 2000)),
    },
    Type {
        name: "io1",
        sizes: (4, 16_384),
        iops: Some((100, 64_000)),
        needs_iops: true,
        per_gib: 50,
        throughput: None,
    },
    Type {
        name: "io2",
        sizes: (4, 65_536),
        iops: Some((100, 256_000)),
        needs_iops: true,
        per_gib: 1000,
        throughput: None,
    },
    Type {
        name: "st1",
        sizes: (125, 16_384),
        iops: None,
        needs_iops: false,
        per_gib: 0,
        throughput: None,
    },
    Type {
        name: "sc1",
        sizes: (125, 16_384),
        iops: None,
        needs_iops: false,
        per_gib: 0,
        throughput: None,
    },
    Type {
        name: "standard",
        sizes: (1, 1024),
        iops: None,
        needs_iops: false,
        per_gib: 0,
        throughput: None,
    },
];

/// Names are 3 to 128 letters, digits and some signs.
pub fn checked_name(world: &World, account: &str, name: &str) -> Outcome<()> {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "()[] ./-'@_".contains(letter);
    if !(3..=128).contains(&name.chars().count()) || !name.chars().all(allowed) {
        let message = "AMI names must be between 3 and 128 characters long, and may contain \
                       letters, numbers, '(', ')', '.', '-', '/' and '_'";
        return Err(Error::client("InvalidAMIName.Malformed", message));
    }
    if let Some(other) =
        world.images.values().find(|image| image.owner == account && image.name == name)
    {
        return Err(Error::client(
            "InvalidAMIName.Duplicate",
            format!("AMI name {name} is already in use by AMI {}", other.id),
        ));
    }
    Ok(())
}

/// One of the values that are allowed.
fn choice(request: &Request, name: &str, allowed: &[&str]) -> Outcome<Option<String>> {
    let value = request.owned(name);
    if let Some(wrong) = value.as_ref().filter(|value| !allowed.contains(&value.as_str())) {
        return Err(Error::invalid(format!("Invalid value '{wrong}' for {name}.")));
    }
    Ok(value)
}

pub fn register(world: &mut World, request: &Request) -> Outcome<Xml> {
    let name = request.required("Name")?.to_owned();
    let mut image = Image {
        description: request.owned("Description"),
        architecture: choice(request, "Architecture", &ARCHITECTURES)?
            .unwrap_or_else(|| "i386".to_owned()),
        virtualization_type: choice(request, "VirtualizationType", &["hvm", "paravirtual"])?
            .unwrap_or_else(|| "paravirtual".to_owned()),
        root_device_name: request.owned("RootDeviceName"),
        kernel_id: request.owned("KernelId"),
        ramdisk_id: request.owned("RamdiskId"),
        ena_support: request.flag("EnaSupport")?.filter(|supported| *supported),
        sriov_net_support: choice(request, "SriovNetSupport", &["simple"])?,
        boot_mode: choice(request, "BootMode", &["legacy-bios", "uefi", "uefi-preferred"])?,
        tpm_support: choice(request, "TpmSupport", &["v2.0"])?,
        imds_support: choice(request, "ImdsSupport", &["v2.0"])?,
        uefi_data: request.owned("UefiData"),
        owner: request.account.to_owned(),
        location: Some(format!("{}/{name}", request.account)),
        ..Image::default()
    };
    image.name = name;
    for member in request.members("BlockDeviceMapping") {
        image.mappings.push(mapping(request, &member)?);
    }
    if request.text("ImageLocation").is_some() {
        return Err(Error::client(
            "UnsupportedOperation",
            "Images with an instance store are not supported.",
        ));
    }
    if !request.list("BillingProduct").is_empty() {
        return Err(Error::new(
            403,
            "AuthFailure",
            "Your account is not authorized to specify billing product codes.",
        ));
    }
    image.tags = tag_specifications(request, &["image"])?.remove("image").unwrap_or_default();
    check_image(&image)?;
    if world.settings.rights_before_snapshots {
        request.check_rights(world)?;
    }
    let mappings = std::mem::take(&mut image.mappings);
    for mapping in mappings {
        image.mappings.push(with_defaults(world, request, mapping)?);
    }
    checked_name(world, request.account, &image.name)?;
    request.authorize(world)?;
    image.id = world.unique("ami");
    image.creation_date = format!("{}.000Z", &iso(world.now())[..19]);
    image.visible_after = world.settings.settle.describes;
    let mut xml = Xml::default();
    xml.text("imageId", &image.id);
    world.images.insert(image.id.clone(), image);
    Ok(xml)
}

fn mapping(request: &Request, member: &str) -> Outcome<Mapping> {
    let field = |name: &str| format!("{member}.{name}");
    let ebs = |name: &str| format!("{member}.Ebs.{name}");
    let volume = Ebs {
        snapshot_id: request.owned(&ebs("SnapshotId")),
        volume_size: request.number(&ebs("VolumeSize"))?,
        volume_type: request.owned(&ebs("VolumeType")),
        iops: request.number(&ebs("Iops"))?,
        throughput: request.number(&ebs("Throughput"))?,
        delete_on_termination: request.flag(&ebs("DeleteOnTermination"))?,
        encrypted: request.flag(&ebs("Encrypted"))?,
        kms_key_id: request.owned(&ebs("KmsKeyId")),
        initialization_rate: request.number(&ebs("VolumeInitializationRate"))?,
        card_index: request.number(&ebs("EbsCardIndex"))?,
        outpost_arn: request.owned(&ebs("OutpostArn")),
        availability_zone: request.owned(&ebs("AvailabilityZone")),
        extra_xml: String::new(),
    };
    Ok(Mapping {
        device: request.required(&field("DeviceName"))?.to_owned(),
        ebs: Some(volume).filter(|volume| *volume != Ebs::default()),
        virtual_name: request.owned(&field("VirtualName")),
        no_device: request.owned(&field("NoDevice")),
        extra_xml: String::new(),
    })
}

/// Refuses an image that is invalid by itself, without its snapshots.
fn check_image(image: &Image) -> Outcome<()> {
    if image.description.as_ref().is_some_and(|text| text.chars().count() > 255) {
        return Err(Error::invalid("The description is longer than 255 characters."));
    }
    let root = image.root_device_name.as_ref();
    let root = root.ok_or_else(|| {
        Error::client("MissingParameter", "The request must contain the parameter rootDeviceName")
    })?;
    let mut devices: Vec<&String> = image.mappings.iter().map(|mapping| &mapping.device).collect();
    devices.sort();
    if devices.windows(2).any(|two| two[0] == two[1]) {
        return Err(Error::client("InvalidBlockDeviceMapping", "A device name is there twice."));
    }
    let root = image.mappings.iter().find(|mapping| mapping.device == *root);
    if root.and_then(Mapping::snapshot_id).is_none() {
        return Err(Error::client(
            "InvalidBlockDeviceMapping",
            "A root device must have a snapshot.",
        ));
    }
    if image.virtualization_type == "paravirtual"
        && (image.ena_support.is_some()
            || image.sriov_net_support.is_some()
            || image.architecture == "arm64")
    {
        return Err(Error::combination(
            "Enhanced networking and arm64 need the virtualization type hvm.",
        ));
    }
    if image.virtualization_type == "paravirtual" && image.boot_mode.is_some() {
        return Err(Error::combination("A boot mode needs the virtualization type hvm."));
    }
    if image.architecture == "arm64"
        && image.boot_mode.as_deref().is_some_and(|mode| mode != "uefi")
    {
        return Err(Error::combination("Images of arm64 boot by uefi only."));
    }
    if image.tpm_support.is_some() && image.boot_mode.as_deref() != Some("uefi") {
        return Err(Error::combination("TpmSupport needs the boot mode uefi."));
    }
    if image.uefi_data.as_ref().is_some_and(|data| data.len() > UEFI_DATA) {
        return Err(Error::invalid("UefiData is longer than 64000 characters."));
    }
    Ok(())
}

/// The stored mapping: missing fields get the defaults of AWS.
fn with_defaults(world: &mut World, request: &Request, mut mapping: Mapping) -> Outcome<Mapping> {
    let given = usize::from(mapping.ebs.is_some())
        + usize::from(mapping.virtual_name.is_some())
        + usize::from(mapping.no_device.is_some());
    let device = mapping.device.clone();
    if given != 1 {
        return Err(Error::client(
            "InvalidBlockDeviceMapping",
            format!("{device} needs one of Ebs, VirtualName and NoDevice."),
        ));
    }
    let Some(ebs) = &mut mapping.ebs else { return Ok(mapping) };
    if ebs.snapshot_id.is_some() && (ebs.encrypted.is_some() || ebs.kms_key_id.is_some()) {
        let message = format!(
            "the parameter encrypted or kmsKeyId cannot be specified for {device}, which has a \
             snapshot"
        );
        return Err(Error::combination(message));
    }
    if let Some(id) = &ebs.snapshot_id {
        checked_snapshot_id(id)?;
        let snapshot = super::snapshot(world, id, request.account)?;
        if snapshot.owner != request.account {
            return Err(Error::not_authorized(&format!("snapshot:{id}")));
        }
        if !snapshot.is_completed() {
            let message =
                format!("Snapshot is in {} state. It has to be completed: {id}", snapshot.state);
            return Err(Error::client("IncorrectState", message));
        }
        if snapshot.tier == "archive" && snapshot.restore_expiry.is_none() {
            return Err(Error::client("IncorrectState", format!("The snapshot {id} is archived.")));
        }
        let size = *ebs.volume_size.get_or_insert(snapshot.volume_size);
        if size < snapshot.volume_size {
            let message = format!(
                "Volume of size {size}GB is smaller than snapshot '{id}', expect size >= {}GB",
                snapshot.volume_size
            );
            return Err(Error::client("InvalidBlockDeviceMapping", message));
        }
        ebs.encrypted = Some(snapshot.encrypted);
    }
    let size = ebs.volume_size.ok_or_else(|| {
        Error::client("MissingParameter", format!("{device} needs a snapshot or a size"))
    })?;
    check_volume(ebs, size)?;
    ebs.delete_on_termination.get_or_insert(ebs.snapshot_id.is_some());
    ebs.encrypted.get_or_insert(false);
    Ok(mapping)
}

fn check_volume(ebs: &mut Ebs, size: u64) -> Outcome<()> {
    let name = ebs.volume_type.get_or_insert_with(|| "gp2".to_owned()).clone();
    let found = TYPES.iter().find(|known| known.name == name);
    let known =
        found.ok_or_else(|| Error::invalid(format!("Invalid value '{name}' for volumeType.")))?;
    if !(known.sizes.0..=known.sizes.1).contains(&size) {
        return Err(Error::invalid(format!(
            "Volume of {size}GiB is not possible for volume type {name}."
        )));
    }
    let within = |what: &str, value: Option<u64>, range: Option<(u64, u64)>| match (value, range) {
        (Some(_), None) => Err(Error::combination(format!(
            "The parameter {what} is not supported for {name} volumes."
        ))),
        (Some(value), Some((low, high))) if !(low..=high).contains(&value) => Err(Error::invalid(
            format!("Volume {what} of {value} is not in the range of {low} to {high} for {name}."),
        )),
        _ => Ok(()),
    };
    within("iops", ebs.iops, known.iops)?;
    within("throughput", ebs.throughput, known.throughput)?;
    if known.needs_iops && ebs.iops.is_none() {
        return Err(Error::client(
            "MissingParameter",
            format!("The parameter iops must be specified for {name} volumes."),
        ));
    }
    // The minimum of a type does not depend on the size.
    let floor = known.iops.map_or(0, |(low, _)| low);
    if ebs.iops.is_some_and(|iops| iops > floor && iops > size * known.per_gib) {
        return Err(Error::invalid(format!(
            "Iops to volume size ratio is too high; maximum is {}",
            known.per_gib
        )));
    }
    if name == "gp3" {
        ebs.iops.get_or_insert(3000);
        let throughput = *ebs.throughput.get_or_insert(125);
        if throughput * 4 > ebs.iops.unwrap_or(3000) {
            return Err(Error::invalid("Throughput to iops ratio is too high; maximum is 0.25"));
        }
    }
    Ok(())
}
