//! Tags of images and snapshots.

use super::super::auth::hex;
use super::super::model::Tags;
use super::super::world::World;
use super::filters::{filters, hold};
use super::{Error, Outcome, Request, Xml, tags_of, yes};

const MAX_TAGS: usize = 50;

/// Refuses resources that the account cannot tag.
fn check_resources(world: &mut World, request: &Request, ids: &[String]) -> Outcome<()> {
    for id in ids {
        let owner = match id.split('-').next() {
            Some("ami") => super::image(world, id, request.account)?.owner.clone(),
            Some("snap") => super::snapshot(world, id, request.account)?.owner.clone(),
            _ => return Err(Error::client("InvalidID", format!("The ID '{id}' is not valid"))),
        };
        // Others may tag for themselves what is shared with them; nobody here needs that.
        if owner != request.account {
            return Err(Error::not_yours(id));
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
    Ok(yes())
}

pub fn delete(world: &mut World, request: &Request) -> Outcome<Xml> {
    let ids = resources(request)?;
    let mut wanted = Vec::new();
    for member in request.members("Tag") {
        wanted.push((
            request.required(&format!("{member}.Key"))?,
            request.text(&format!("{member}.Value")),
        ));
    }
    if wanted.iter().any(|(key, _)| key.starts_with("aws:")) {
        return Err(Error::invalid("Tag keys starting with 'aws:' are reserved for internal use"));
    }
    check_resources(world, request, &ids)?;
    request.authorize(world)?;
    // A value that is said has to be the one that is there.
    let meant = |key: &str, value: &str| {
        let all = wanted.is_empty() && !key.starts_with("aws:");
        all || wanted
            .iter()
            .any(|(other, said)| *other == key && said.is_none_or(|said| said == value))
    };
    for id in &ids {
        tags_of_resource(world, id).retain(|key, value| !meant(key, value));
    }
    Ok(yes())
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
        if hold(&filters, &tag, values)? {
            // Hexadecimal, because keys may have any letter in them, and in the same order.
            found.push((hex(format!("{id} {key}").as_bytes()), (id, kind, key, value)));
        }
    }
    let entries = found.iter().map(|(place, entry)| (place.as_str(), *entry)).collect();
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
