//! Tags of images and snapshots.

use super::super::world::World;
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
        return Err(Error::client("MissingParameter", "The request must contain the parameter resourceIdSet"));
    }
    Ok(ids)
}

pub fn create(world: &mut World, request: &Request) -> Outcome<Xml> {
    let (ids, tags) = (resources(request)?, tags_of(request, "Tag")?);
    if tags.is_empty() {
        return Err(Error::client("MissingParameter", "The request must contain the parameter tagSet"));
    }
    check_resources(world, request, &ids)?;
    request.authorize(world)?;
    for id in &ids {
        let here = match world.images.get_mut(id) {
            Some(image) => &mut image.tags,
            None => &mut world.snapshots.get_mut(id).expect("checked").tags,
        };
        let new = tags.keys().filter(|key| !here.contains_key(*key)).count();
        if here.keys().filter(|key| !key.starts_with("aws:")).count() + new > MAX_TAGS {
            return Err(Error::client("TagLimitExceeded", "The maximum number of Tags for a resource has been reached."));
        }
        here.extend(tags.clone());
    }
    Ok(yes())
}
