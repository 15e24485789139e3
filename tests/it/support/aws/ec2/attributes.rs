//! Attributes, one at a time: DescribeImageAttribute and what is like it.

use super::super::model::Permissions;
use super::super::world::World;
use super::{Error, Outcome, Request, Xml, own_image};

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
            let protection = image.deregistration_protection.clone().unwrap_or_else(|| "disabled".to_owned());
            value("deregistrationProtection", Some(&protection));
        }
        "launchPermission" => write_permissions(&mut xml, "launchPermission", &image.launch),
        "productCodes" if image.product_codes.is_empty() => xml.raw("<productCodes/>"),
        "productCodes" => xml.product_codes(&image.product_codes),
        "blockDeviceMapping" => return Err(Error::new(403, "AuthFailure", "Unauthorized attempt to access restricted resource")),
        other => return Err(Error::invalid(format!("Value ({other}) for parameter attribute is invalid. Unknown attribute."))),
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
