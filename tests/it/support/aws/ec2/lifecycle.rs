//! What happens to images after they were registered.

use super::super::world::World;
use super::{Outcome, Request, Xml, own_image, yes};

pub fn deregister(world: &mut World, request: &Request) -> Outcome<Xml> {
    let id = request.required("ImageId")?;
    own_image(world, id, request.account)?;
    request.authorize(world)?;
    world.images.remove(id);
    world.deregistered.insert(id.to_owned());
    Ok(yes())
}
