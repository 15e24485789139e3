//! CreateStoreImageTask.

use super::super::image_ids::ImageIds;
use super::super::{Refusal, Service, StoreRequest};
use super::arguments::Arguments;
use super::{TagRules, bucket, image_id, object_key, tags};
use crate::aws::ec2_query::Xml;

/// Limits of the tags of S3's objects.
const TAGS: TagRules = TagRules { most: 10, key: 128, value: 256 };

pub(super) fn answer(
    mut arguments: Arguments,
    dry_run: bool,
    service: &dyn Service,
) -> Result<Xml, Refusal> {
    let image = arguments.require("ImageId")?;
    let bucket_path = arguments.require("Bucket")?;
    let tags = tags(arguments.items("S3ObjectTag")?, &TAGS)?;
    arguments.finish()?;
    let image_id = image_id(&image, &mut ImageIds::new(service))?;
    let (name, path) = bucket_path.split_once('/').unwrap_or((&bucket_path, ""));
    bucket(name)?;
    let path = path.trim_end_matches('/');
    let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
    object_key(&format!("{prefix}{image_id}.bin"))?;
    let request = StoreRequest { image_id, bucket: name.to_owned(), prefix, tags };
    let key = service.create_store(&request, dry_run)?;
    if dry_run { Err(Refusal::dry_run()) } else { Ok(Xml::new().text("objectKey", key)) }
}
