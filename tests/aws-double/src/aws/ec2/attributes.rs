//! Attributes of images and snapshots, which are described and changed one at a time.

use std::collections::BTreeSet;

use super::super::model::{Permissions, Snapshot};
use super::super::world::World;
use super::{Error, Outcome, Request, Xml, own_image, success};

pub fn describe_image(world: &mut World, request: &Request) -> Outcome<Xml> {
    let (id, attribute) = (request.required("ImageId")?, request.required("Attribute")?);
    let image = own_image(world, id, request.account)?.clone();
    let mut xml = Xml::default();
    xml.text("imageId", id);
    let mut value = |name: &str, value: Option<&String>| match value {
        Some(value) => xml.node(name, |xml| xml.text("value", value)),
        None => xml.raw(&format!("<{name}/>")),
    };
    match attribute {
        "description" => value("description", image.description.as_ref()),
        "kernel" => value("kernel", image.kernel_id.as_ref()),
        "ramdisk" => value("ramdisk", image.ramdisk_id.as_ref()),
        "sriovNetSupport" => value("sriovNetSupport", image.sriov_net_support.as_ref()),
        "bootMode" => value("bootMode", image.boot_mode.as_ref()),
        "tpmSupport" => value("tpmSupport", image.tpm_support.as_ref()),
        "uefiData" => value("uefiData", image.uefi_data.as_ref()),
        "imdsSupport" => value("imdsSupport", image.imds_support.as_ref()),
        "lastLaunchedTime" => value("lastLaunchedTime", image.last_launched.as_ref()),
        "deregistrationProtection" => {
            let protection =
                image.deregistration_protection.clone().unwrap_or_else(|| "disabled".to_owned());
            value("deregistrationProtection", Some(&protection));
        }
        "launchPermission" => write_permissions(&mut xml, "launchPermission", &image.launch),
        "productCodes" if image.product_codes.is_empty() => xml.raw("<productCodes/>"),
        "productCodes" => xml.product_codes(&image.product_codes),
        "blockDeviceMapping" => {
            return Err(Error::new(
                403,
                "AuthFailure",
                "Unauthorized attempt to access restricted resource",
            ));
        }
        other => {
            return Err(Error::invalid(format!(
                "Value ({other}) for parameter attribute is invalid. Unknown attribute."
            )));
        }
    }
    request.authorize(world)?;
    Ok(xml)
}

/// Permissions, one entry for each.
pub fn write_permissions(xml: &mut Xml, name: &str, permissions: &Permissions) {
    let Permissions { users, all, organizations, units } = permissions;
    let group = all.then(|| ("group", "all".to_owned()));
    let users = users.iter().map(|user| ("userId", user.clone()));
    let organizations = organizations.iter().map(|arn| ("organizationArn", arn.clone()));
    let units = units.iter().map(|arn| ("organizationalUnitArn", arn.clone()));
    let entries = group.into_iter().chain(users).chain(organizations).chain(units);
    xml.list(name, entries, |xml, (name, value)| xml.text(name, &value));
}

pub fn describe_snapshot(world: &mut World, request: &Request) -> Outcome<Xml> {
    let (id, attribute) = (request.required("SnapshotId")?, request.required("Attribute")?);
    let snapshot = own_snapshot(world, id, request.account)?;
    let mut xml = Xml::default();
    xml.text("snapshotId", id);
    match attribute {
        "createVolumePermission" => {
            write_permissions(&mut xml, "createVolumePermission", &snapshot.permissions)
        }
        "productCodes" if snapshot.product_codes.is_empty() => xml.raw("<productCodes/>"),
        "productCodes" => xml.product_codes(&snapshot.product_codes),
        other => {
            return Err(Error::invalid(format!(
                "Value ({other}) for parameter attribute is invalid. Unknown attribute."
            )));
        }
    }
    request.authorize(world)?;
    Ok(xml)
}

fn own_snapshot<'a>(world: &'a mut World, id: &str, account: &str) -> Outcome<&'a mut Snapshot> {
    let snapshot = super::snapshot(world, id, account)?;
    if snapshot.owner == account {
        Ok(snapshot)
    } else {
        Err(Error::not_authorized(&format!("snapshot:{id}")))
    }
}

/// Permissions to add and to remove.
#[derive(Default)]
struct Change {
    add: Permissions,
    remove: Permissions,
}

/// Names of permissions in the two forms of a change request.
struct Names<'a> {
    /// `LaunchPermission`.
    structure: &'a str,
    /// `launchPermission`.
    attribute: &'a str,
    group: &'a str,
}

impl Change {
    /// Reads `LaunchPermission.Add.1.UserId` as well as `Attribute`, `OperationType` and
    /// `UserId.1`.
    fn of(world: &World, request: &Request, names: &Names) -> Outcome<Option<Self>> {
        let mut change = Self::default();
        let mut found = false;
        for (operation, permissions) in [("Add", &mut change.add), ("Remove", &mut change.remove)] {
            for member in request.members(&format!("{}.{operation}", names.structure)) {
                found = true;
                for kind in ["UserId", "Group", "OrganizationArn", "OrganizationalUnitArn"] {
                    if let Some(value) = request.text(&format!("{member}.{kind}")) {
                        grant(world, permissions, kind, value)?;
                    }
                }
            }
        }
        let operation = request.text("OperationType");
        if request.text("Attribute") == Some(names.attribute) {
            found = true;
            let permissions = match operation {
                Some("add") => &mut change.add,
                Some("remove") => &mut change.remove,
                _ => {
                    return Err(Error::client(
                        "MissingParameter",
                        "The request must contain the parameter operationType: add or remove",
                    ));
                }
            };
            let kinds = [
                ("UserId", "UserId"),
                (names.group, "Group"),
                ("OrganizationArn", "OrganizationArn"),
                ("OrganizationalUnitArn", "OrganizationalUnitArn"),
            ];
            for (list, kind) in kinds {
                request
                    .list(list)
                    .iter()
                    .try_for_each(|value| grant(world, permissions, kind, value))?;
            }
        }
        Ok(found.then_some(change))
    }

    fn apply(self, permissions: &mut Permissions) {
        let Self { add, remove } = self;
        let change =
            |here: &mut BTreeSet<String>, add: BTreeSet<String>, remove: &BTreeSet<String>| {
                here.extend(add);
                here.retain(|one| !remove.contains(one));
            };
        change(&mut permissions.users, add.users, &remove.users);
        change(&mut permissions.organizations, add.organizations, &remove.organizations);
        change(&mut permissions.units, add.units, &remove.units);
        permissions.all = (permissions.all || add.all) && !remove.all;
    }
}

/// Adds one permission, if it is valid.
fn grant(world: &World, permissions: &mut Permissions, kind: &str, value: &str) -> Outcome<()> {
    let is_account = value.len() == 12 && value.bytes().all(|digit| digit.is_ascii_digit());
    let is_arn = |of: &str| {
        value.starts_with(&format!("arn:{}:organizations::", world.partition)) && value.contains(of)
    };
    let valid = match kind {
        "UserId" => is_account && permissions.users.insert(value.to_owned()),
        "Group" => {
            permissions.all = true;
            value == "all"
        }
        "OrganizationArn" => {
            is_arn(":organization/o-") && permissions.organizations.insert(value.to_owned())
        }
        _ => is_arn(":ou/o-") && permissions.units.insert(value.to_owned()),
    };
    if valid {
        return Ok(());
    }
    let message = format!("Invalid attribute item value \"{value}\" for {kind} item type.");
    Err(Error::client("InvalidAMIAttributeItemValue", message))
}

pub fn modify_image(world: &mut World, request: &Request) -> Outcome<Xml> {
    let id = request.required("ImageId")?;
    let disabled = own_image(world, id, request.account)?.is_disabled();
    let names =
        Names { structure: "LaunchPermission", attribute: "launchPermission", group: "UserGroup" };
    let permissions = Change::of(world, request, &names)?;
    let value = request.owned("Value");
    let of_attribute =
        |name: &str| value.clone().filter(|_| request.text("Attribute") == Some(name));
    let description = request.owned("Description.Value").or_else(|| of_attribute("description"));
    let imds = request.owned("ImdsSupport.Value").or_else(|| of_attribute("imdsSupport"));
    let given = usize::from(permissions.is_some())
        + usize::from(description.is_some())
        + usize::from(imds.is_some());
    if given == 0 {
        return Err(Error::client("MissingParameter", "No attributes specified."));
    }
    if given > 1 {
        return Err(Error::combination("Fields for multiple attribute types specified."));
    }
    if description.as_ref().is_some_and(|text| text.chars().count() > 255) {
        return Err(Error::invalid("The description is longer than 255 characters."));
    }
    if imds.as_ref().is_some_and(|version| version != "v2.0") {
        return Err(Error::invalid("The only value of ImdsSupport is v2.0."));
    }
    if disabled && permissions.is_some() {
        return Err(super::images::unavailable(id, "disabled"));
    }
    request.authorize(world)?;
    let image = own_image(world, id, request.account)?;
    if let Some(change) = permissions {
        change.apply(&mut image.launch);
    }
    if description.is_some() {
        image.description = description;
    }
    if imds.is_some() {
        image.imds_support = imds;
    }
    Ok(success())
}

pub fn modify_snapshot(world: &mut World, request: &Request) -> Outcome<Xml> {
    let id = request.required("SnapshotId")?;
    let snapshot = own_snapshot(world, id, request.account)?.clone();
    let names = Names {
        structure: "CreateVolumePermission",
        attribute: "createVolumePermission",
        group: "UserGroup",
    };
    let change = Change::of(world, request, &names)?;
    let change =
        change.ok_or_else(|| Error::client("MissingParameter", "No attributes specified."))?;
    if snapshot.encrypted && change.add.all {
        return Err(Error::combination("Snapshots that are encrypted cannot be public."));
    }
    if snapshot.encrypted
        && !change.add.users.is_empty()
        && snapshot.kms_key_id == Some(world.managed_kms_key(request.account))
    {
        return Err(Error::combination(
            "Snapshots that are encrypted with the key that AWS manages cannot be shared.",
        ));
    }
    request.authorize(world)?;
    change.apply(&mut own_snapshot(world, id, request.account)?.permissions);
    Ok(success())
}
