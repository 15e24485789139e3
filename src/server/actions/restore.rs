//! CreateRestoreImageTask.

use super::super::{Refusal, RestoreRequest, Service};
use super::arguments::{Arguments, shown};
use super::{TagRules, bucket, object_key, tags};
use crate::aws::ec2_query::Xml;
use crate::base::check_image_name;

/// Limits of the tags of EC2's resources.
const TAGS: TagRules = TagRules { most: 50, key: 128, value: 256 };

pub(super) fn answer(
    arguments: Arguments,
    dry_run: bool,
    service: &dyn Service,
) -> Result<Xml, Refusal> {
    let reserved = service.create_restore(&request(arguments)?, dry_run)?;
    if dry_run { Err(Refusal::dry_run()) } else { Ok(Xml::new().text("imageId", reserved)) }
}

/// The request of the parameters.
pub(super) fn request(mut arguments: Arguments) -> Result<RestoreRequest, Refusal> {
    let bucket_name = arguments.require("Bucket")?;
    let key = arguments.require("ObjectKey")?;
    let name = arguments.take("Name");
    let (mut image_tags, mut snapshot_tags) = (None, None);
    for mut item in arguments.items("TagSpecification")? {
        let kind = item.require("ResourceType")?;
        let item_tags = tags(item.items("Tag")?, &TAGS)?;
        item.finish()?;
        let tags = match kind.as_str() {
            "image" => &mut image_tags,
            "snapshot" => &mut snapshot_tags,
            other => {
                let message = format!(
                    "'{}' is not a valid taggable resource type for this operation: \
                     image and snapshot are",
                    shown(other)
                );
                return Err(Refusal::value(message));
            }
        };
        if tags.replace(item_tags).is_some() {
            return Err(Refusal::value(format!(
                "TagSpecification names the resource type '{kind}' more than once"
            )));
        }
    }
    arguments.finish()?;
    bucket(&bucket_name)?;
    object_key(&key)?;
    if let Some(name) = &name {
        check_image_name(name).map_err(|error| Refusal::from(&error))?;
    }
    let (image_tags, snapshot_tags) =
        (image_tags.unwrap_or_default(), snapshot_tags.unwrap_or_default());
    Ok(RestoreRequest { bucket: bucket_name, object_key: key, name, image_tags, snapshot_tags })
}
