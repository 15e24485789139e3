//! Changes of registered images, and the EBS settings of an account.

use std::time::Duration;

use super::super::clock::{self, iso};
use super::super::model::{Image, Mapping, Permissions};
use super::super::world::World;
use super::{Error, Outcome, Request, Xml, own_image, success};

const DAY: Duration = Duration::from_secs(86_400);
const TEN_YEARS: Duration = Duration::from_secs(3653 * 86_400);
const TWO_YEARS: Duration = Duration::from_secs(731 * 86_400);

pub fn deregister(world: &mut World, request: &Request) -> Outcome<Xml> {
    let id = request.required("ImageId")?;
    let delete = request.flag("DeleteAssociatedSnapshots")? == Some(true);
    let image = own_image(world, id, request.account)?.clone();
    request.authorize(world)?;
    let protected = image
        .deregistration_protection
        .as_ref()
        .is_some_and(|protection| protection.starts_with("enabled"));
    if protected || image.protected_until.is_some_and(|until| until > world.now()) {
        return Err(Error::client(
            "OperationNotPermitted",
            format!("The image {id} is protected from deregistration."),
        ));
    }
    world.images.remove(id);
    world.deregistered.insert(id.to_owned());
    let mut xml = success();
    if delete {
        xml.list(
            "deleteSnapshotResultSet",
            image.mappings.iter().filter_map(Mapping::snapshot_id),
            |xml, snapshot| {
                xml.text("snapshotId", snapshot);
                xml.text("returnCode", delete_snapshot(world, request.account, snapshot));
            },
        );
    }
    Ok(xml)
}

/// Deletes a snapshot of a deregistered image, unless another image uses it.
fn delete_snapshot(world: &mut World, account: &str, id: &str) -> &'static str {
    if world.images.values().any(|image| image.uses(id)) {
        return "skipped";
    }
    match world.snapshots.get(id) {
        None => "client-error",
        Some(snapshot) if snapshot.owner != account => "missing-permissions",
        Some(_) => {
            world.snapshots.remove(id);
            "success"
        }
    }
}

/// The caller's own image, after all checks.
fn image_to_change<'a>(world: &'a mut World, request: &Request) -> Outcome<&'a mut Image> {
    let id = request.required("ImageId")?;
    own_image(world, id, request.account)?;
    request.authorize(world)?;
    own_image(world, id, request.account)
}

pub fn enable_deprecation(world: &mut World, request: &Request) -> Outcome<Xml> {
    let text = request.required("DeprecateAt")?;
    let wrong = |message: &str| Error::invalid(format!("{message}: {text}"));
    let requested = clock::parse(text).ok_or_else(|| wrong("The date is not one"))?;
    let now = world.now();
    let image = image_to_change(world, request)?;
    if requested <= now {
        return Err(wrong("The date is in the past"));
    }
    let (from, most) = match (image.launch.all, clock::parse(&image.creation_date)) {
        (true, Some(created)) => (created, TWO_YEARS),
        _ => (now, TEN_YEARS),
    };
    if requested > from + most {
        return Err(wrong("The date is too far in the future"));
    }
    // To the nearest minute.
    let rounded = iso(requested + Duration::from_secs(30));
    image.deprecation_time = Some(format!("{}:00.000Z", &rounded[..16]));
    Ok(success())
}

pub fn disable_deprecation(world: &mut World, request: &Request) -> Outcome<Xml> {
    image_to_change(world, request)?.deprecation_time = None;
    Ok(success())
}

fn answered(what: &str) -> Xml {
    let mut xml = Xml::default();
    xml.text("return", what);
    xml
}

pub fn protect(world: &mut World, request: &Request) -> Outcome<Xml> {
    let cooldown = request.flag("WithCooldown")? == Some(true);
    let image = image_to_change(world, request)?;
    let protection = if cooldown { "enabled-with-cooldown" } else { "enabled-without-cooldown" };
    image.deregistration_protection = Some(protection.to_owned());
    image.protected_until = None;
    // The documentation says `true`; the example of the command line says this.
    Ok(answered(protection))
}

pub fn unprotect(world: &mut World, request: &Request) -> Outcome<Xml> {
    let now = world.now();
    let image = image_to_change(world, request)?;
    if image.deregistration_protection.as_deref() == Some("enabled-with-cooldown") {
        image.protected_until = Some(now + DAY);
    }
    image.deregistration_protection = None;
    Ok(answered("disabled"))
}

pub fn disable(world: &mut World, request: &Request) -> Outcome<Xml> {
    let image = image_to_change(world, request)?;
    if image.state != "available" && !image.is_disabled() {
        return Err(super::images::unavailable(&image.id, &image.state));
    }
    "disabled".clone_into(&mut image.state);
    image.launch = Permissions::default();
    Ok(success())
}

pub fn enable(world: &mut World, request: &Request) -> Outcome<Xml> {
    let image = image_to_change(world, request)?;
    if image.state != "available" && !image.is_disabled() {
        return Err(super::images::unavailable(&image.id, &image.state));
    }
    "available".clone_into(&mut image.state);
    Ok(success())
}

pub fn encryption_by_default(world: &mut World, request: &Request) -> Outcome<Xml> {
    request.authorize(world)?;
    let encrypts = world.account_settings(request.account).encrypts;
    let mut xml = Xml::default();
    xml.value("ebsEncryptionByDefault", encrypts);
    xml.text("sseType", if encrypts { "sse-kms" } else { "none" });
    Ok(xml)
}

pub fn default_kms_key(world: &mut World, request: &Request) -> Outcome<Xml> {
    request.authorize(world)?;
    let chosen = world.account_settings(request.account).default_kms_key;
    let mut xml = Xml::default();
    xml.text("kmsKeyId", chosen.as_deref().unwrap_or("alias/aws/ebs"));
    Ok(xml)
}
