//! What a new image gets only on request: launch permissions, a time of deprecation, protection
//! against deregistration.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::describe::{items, text};
use super::edits::Edits;
use super::fidelity::FidelityItem;
use super::{Ec2Connection, partition_of};
use crate::aws::ec2_query::Params;
use crate::base::{ImageId, Result, rfc3339};
use crate::image::ImageDocument;

const IMAGE: &str = "image";

/// Does what was asked for, and accounts for what was recorded.
pub(super) fn apply(
    ec2: &Ec2Connection,
    id: &ImageId,
    document: &ImageDocument,
    edits: &Edits,
) -> Result<Vec<FidelityItem>> {
    let mut account = Vec::new();
    let image = document.value().get("Image").unwrap_or(&Value::Null);
    let attributes = document.value().get("ImageAttributes").unwrap_or(&Value::Null);
    launch_permissions(ec2, id, attributes, edits, &mut account)?;
    deprecation(ec2, id, image, edits, &mut account)?;
    protection(ec2, id, image, edits, &mut account)?;
    Ok(account)
}

fn launch_permissions(
    ec2: &Ec2Connection,
    id: &ImageId,
    attributes: &Value,
    edits: &Edits,
    account: &mut Vec<FidelityItem>,
) -> Result<()> {
    let partition = partition_of(&ec2.region()).name;
    let mut wanted = Vec::new();
    for permission in items(attributes, "LaunchPermissions") {
        let attribute = "LaunchPermission";
        if !edits.launch_permissions {
            account.push(FidelityItem::left(
                IMAGE,
                attribute,
                permission,
                "--launch-permissions gives it",
            ));
            continue;
        }
        let arn = text(permission, "OrganizationArn")
            .or_else(|| text(permission, "OrganizationalUnitArn"));
        if arn.and_then(|arn| arn.split(':').nth(1)).is_some_and(|of| of != partition) {
            account.push(FidelityItem::impossible(
                IMAGE,
                attribute,
                permission,
                "organizations belong to one partition",
            ));
            continue;
        }
        let mut params = Params::new();
        for member in ["UserId", "Group", "OrganizationArn", "OrganizationalUnitArn"] {
            params = params.set_some(member, text(permission, member));
        }
        wanted.push(params);
        account.push(FidelityItem::set(IMAGE, attribute, permission));
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let params = Params::new().set("ImageId", id).structures("LaunchPermission.Add", wanted);
    ec2.call("cannot give the launch permissions", "ModifyImageAttribute", params)?;
    Ok(())
}

fn deprecation(
    ec2: &Ec2Connection,
    id: &ImageId,
    image: &Value,
    edits: &Edits,
    account: &mut Vec<FidelityItem>,
) -> Result<()> {
    let Some(time) = text(image, "DeprecationTime") else { return Ok(()) };
    let recorded = json!(time);
    if !edits.deprecation {
        account.push(FidelityItem::left(
            IMAGE,
            "DeprecationTime",
            &recorded,
            "--deprecation sets it",
        ));
        return Ok(());
    }
    // Both are in UTC, and the longer text begins with the shorter: they compare as times.
    if *time <= *rfc3339(SystemTime::now()) {
        account.push(FidelityItem::impossible(
            IMAGE,
            "DeprecationTime",
            &recorded,
            "EC2 takes no time that is past",
        ));
        return Ok(());
    }
    let params = Params::new().set("ImageId", id).set("DeprecateAt", time);
    ec2.call("cannot set the time of deprecation", "EnableImageDeprecation", params)?;
    account.push(FidelityItem::set(IMAGE, "DeprecationTime", &recorded));
    Ok(())
}

fn protection(
    ec2: &Ec2Connection,
    id: &ImageId,
    image: &Value,
    edits: &Edits,
    account: &mut Vec<FidelityItem>,
) -> Result<()> {
    let Some(recorded) = text(image, "DeregistrationProtection") else { return Ok(()) };
    let value = json!(recorded);
    if !recorded.starts_with("enabled") {
        // That is what a new image is by itself.
        account.push(FidelityItem::set(IMAGE, "DeregistrationProtection", &value));
        return Ok(());
    }
    if !edits.deregistration_protection {
        account.push(FidelityItem::left(
            IMAGE,
            "DeregistrationProtection",
            &value,
            "--deregistration-protection protects it",
        ));
        return Ok(());
    }
    // The other value is enabled-without-cooldown.
    let cooldown = recorded == "enabled-with-cooldown";
    let params = Params::new().set("ImageId", id).set("WithCooldown", cooldown);
    ec2.call(
        "cannot protect the image against deregistration",
        "EnableImageDeregistrationProtection",
        params,
    )?;
    account.push(FidelityItem::set(IMAGE, "DeregistrationProtection", &value));
    Ok(())
}
