//! Attributes that a new image gets only on request: launch permissions, a time of deprecation,
//! protection against deregistration.

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

/// Requests after the registration, and the report on the attributes that they set.
#[derive(Default)]
pub(super) struct Permissions {
    calls: Vec<Call>,
    /// The report on recorded permissions, deprecation and protection.
    pub(super) items: Vec<FidelityItem>,
}

struct Call {
    doing: &'static str,
    action: &'static str,
    /// Without `ImageId`.
    params: Params,
}

impl Permissions {
    /// The actions that are requested.
    pub(super) fn actions(&self) -> impl Iterator<Item = &'static str> {
        self.calls.iter().map(|call| call.action)
    }

    fn call(&mut self, doing: &'static str, action: &'static str, params: Params) {
        self.calls.push(Call { doing, action, params });
    }
}

/// Plans the requests for the edits. A pure function, but for the clock.
pub(super) fn plan(region: &str, document: &ImageDocument, edits: &Edits) -> Permissions {
    let mut planned = Permissions::default();
    let image = document.value().get("Image").unwrap_or(&Value::Null);
    let attributes = document.value().get("ImageAttributes").unwrap_or(&Value::Null);
    launch_permissions(region, attributes, edits, &mut planned);
    deprecation(image, edits, &mut planned);
    protection(image, edits, &mut planned);
    planned
}

/// Sends the requests of the plan, and returns the report.
pub(super) fn apply(
    ec2: &Ec2Connection,
    id: &ImageId,
    document: &ImageDocument,
    edits: &Edits,
) -> Result<Vec<FidelityItem>> {
    let Permissions { calls, items } = plan(&ec2.region(), document, edits);
    for Call { doing, action, params } in calls {
        ec2.call(doing, action, params.set("ImageId", id))?;
    }
    Ok(items)
}

fn launch_permissions(region: &str, attributes: &Value, edits: &Edits, planned: &mut Permissions) {
    let partition = partition_of(region).name;
    let mut added = Vec::new();
    for permission in items(attributes, "LaunchPermissions") {
        let attribute = "LaunchPermission";
        if !edits.launch_permissions {
            planned.items.push(FidelityItem::left(
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
            planned.items.push(FidelityItem::impossible(
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
        added.push(params);
        planned.items.push(FidelityItem::set(IMAGE, attribute, permission));
    }
    if added.is_empty() {
        return;
    }
    let params = Params::new().structures("LaunchPermission.Add", added);
    planned.call("cannot give the launch permissions", "ModifyImageAttribute", params);
}

fn deprecation(image: &Value, edits: &Edits, planned: &mut Permissions) {
    let Some(time) = text(image, "DeprecationTime") else { return };
    let recorded = json!(time);
    if !edits.deprecation {
        planned.items.push(FidelityItem::left(
            IMAGE,
            "DeprecationTime",
            &recorded,
            "--deprecation sets it",
        ));
        return;
    }
    // Both are in UTC, and the longer text begins with the shorter: they compare as times.
    if *time <= *rfc3339(SystemTime::now()) {
        planned.items.push(FidelityItem::impossible(
            IMAGE,
            "DeprecationTime",
            &recorded,
            "EC2 takes no time in the past",
        ));
        return;
    }
    let params = Params::new().set("DeprecateAt", time);
    planned.call("cannot set the time of deprecation", "EnableImageDeprecation", params);
    planned.items.push(FidelityItem::set(IMAGE, "DeprecationTime", &recorded));
}

fn protection(image: &Value, edits: &Edits, planned: &mut Permissions) {
    let Some(recorded) = text(image, "DeregistrationProtection") else { return };
    let value = json!(recorded);
    if !recorded.starts_with("enabled") {
        // A new image is not protected.
        planned.items.push(FidelityItem::set(IMAGE, "DeregistrationProtection", &value));
        return;
    }
    if !edits.deregistration_protection {
        planned.items.push(FidelityItem::left(
            IMAGE,
            "DeregistrationProtection",
            &value,
            "--deregistration-protection protects it",
        ));
        return;
    }
    // The other value is enabled-without-cooldown.
    let cooldown = recorded == "enabled-with-cooldown";
    let params = Params::new().set("WithCooldown", cooldown);
    planned.call(
        "cannot protect the image against deregistration",
        "EnableImageDeregistrationProtection",
        params,
    );
    planned.items.push(FidelityItem::set(IMAGE, "DeregistrationProtection", &value));
}
