//! CreateStoreImageTask, DescribeStoreImageTasks and CreateRestoreImageTask.

use std::sync::Arc;
use std::time::Duration;

use super::super::clock::iso;
use super::super::model::{Image, Mapping, Tags};
use super::super::tasks::{Buckets, StoreTask, has_volumes, read};
use super::super::world::World;
use super::filters::{filters, matches_all};
use super::register::checked_name;
use super::{Error, Outcome, Request, Xml, checked_image_id, image, tag_specifications, tags_of};

/// How long a task is listed.
const LISTED_FOR: Duration = Duration::from_secs(31 * 86_400);
const LARGEST_GB: u64 = 5000;

fn refused(message: impl Into<String>) -> Error {
    Error::client("InvalidRequest", message)
}

/// The buckets, if `bucket` exists and is in this Region.
fn buckets(world: &World, bucket: &str) -> Outcome<Arc<dyn Buckets>> {
    let buckets = world.buckets.clone().ok_or_else(|| refused("There are no buckets."))?;
    match buckets.region(bucket) {
        None => Err(refused(format!("The bucket {bucket} does not exist."))),
        Some(region) if region != world.region => {
            Err(refused(format!("The bucket {bucket} is in the Region {region}.")))
        }
        Some(_) => Ok(buckets),
    }
}

/// Whether the account owns the image and its snapshots or is named in their permissions; public
/// access does not suffice.
fn may_store(world: &World, image: &Image, account: &str) -> bool {
    let of_snapshot = |id: &str| {
        let snapshot = world.snapshots.get(id);
        snapshot.is_some_and(|snapshot| {
            snapshot.owner == account || snapshot.permissions.users.contains(account)
        })
    };
    let of_image = image.owner == account || image.launch.users.contains(account);
    of_image && image.mappings.iter().filter_map(Mapping::snapshot_id).all(of_snapshot)
}

pub fn store(world: &mut World, request: &Request) -> Outcome<Xml> {
    let (id, destination) = (request.required("ImageId")?, request.required("Bucket")?);
    let tags = tags_of(request, "S3ObjectTag")?;
    let found = image(world, id, request.account)?.clone();
    request.authorize(world)?;
    if found.state != "available" {
        return Err(super::images::unavailable(id, &found.state));
    }
    if !may_store(world, &found, request.account) {
        return Err(Error::not_authorized(&format!("images: [{id}]")));
    }
    if found.virtualization_type != "hvm" || !has_volumes(&found) {
        return Err(Error::client(
            "UnsupportedOperation",
            "Only images that are backed by EBS can be stored, and only hvm.",
        ));
    }
    if found.size_gb() > LARGEST_GB {
        return Err(refused(format!("The image is larger than {LARGEST_GB} GB.")));
    }
    let running = |task: &&StoreTask| task.state == "InProgress";
    if world.tasks.iter().filter(running).any(|task| task.image == id) {
        let message = "A CreateStoreImageTask is already in progress for the AMI. You can't run \
                       multiple concurrent store image \
                       requests for the same AMI.";
        return Err(refused(message));
    }
    let in_progress: u64 = world
        .tasks
        .iter()
        .filter(running)
        .filter(|task| task.account == request.account)
        .map(|task| task.size_gb)
        .sum();
    if in_progress + found.size_gb() > world.settings.store_quota_gb {
        return Err(Error::client(
            "ResourceLimitExceeded",
            format!("{in_progress} GB are being stored already."),
        ));
    }
    let (bucket, path) = destination.split_once('/').unwrap_or((destination, ""));
    let path = path.trim_matches('/');
    let key = if path.is_empty() { format!("{id}.bin") } else { format!("{path}/{id}.bin") };
    if buckets(world, bucket)?.get(bucket, &key).map_err(refused)?.is_some() {
        return Err(refused(
            "The AMI already exists in the bucket. You can't create multiple copies of an AMI in \
             the same S3 bucket.",
        ));
    }
    world.tasks.push(StoreTask {
        image: id.to_owned(),
        account: request.account.to_owned(),
        bucket: bucket.to_owned(),
        key: key.clone(),
        tags,
        started: world.now(),
        progress: 0,
        state: "InProgress".to_owned(),
        reason: None,
        size_gb: found.size_gb(),
        polls: 0,
    });
    let mut xml = Xml::default();
    xml.text("objectKey", &key);
    Ok(xml)
}

pub fn describe(world: &mut World, request: &Request) -> Outcome<Xml> {
    let ids = request.list("ImageId");
    ids.iter().try_for_each(|id| checked_image_id(id))?;
    if ids.len() > 20 {
        return Err(Error::invalid("There are more than 20 image ids."));
    }
    if !ids.is_empty() && request.text("MaxResults").is_some() {
        return Err(Error::combination(
            "The parameter imageIds cannot be used with the parameter maxResults",
        ));
    }
    let filters = filters(request)?;
    for name in ["MaxResults", "NextToken"] {
        request.text(name);
    }
    request.authorize(world)?;
    // The newest first, and with ids only the newest of each image.
    let mut shown: Vec<usize> = Vec::new();
    for number in (0..world.tasks.len()).rev() {
        let task = &world.tasks[number];
        let values = |name: &str| match name {
            "task-state" => Some(vec![task.state.clone()]),
            "bucket" => Some(vec![task.bucket.clone()]),
            _ => None,
        };
        let matches = if ids.is_empty() {
            matches_all(&filters, &Tags::new(), values)?
        } else {
            ids.contains(&task.image)
                && shown.iter().all(|other| world.tasks[*other].image != task.image)
        };
        if matches && task.account == request.account && task.started + LISTED_FOR > world.now() {
            shown.push(number);
        }
    }
    let entries: Vec<(String, usize)> = shown
        .iter()
        .map(|number| (format!("{:010}", u32::MAX as usize - number), *number))
        .collect();
    let (page, token) = request.page(
        world,
        entries.iter().map(|(key, number)| (key.as_str(), *number)).collect(),
        (1, 200),
    )?;
    page.iter().for_each(|(_, number)| world.advance_store(*number));
    let mut xml = Xml::default();
    xml.list("storeImageTaskResultSet", page, |xml, (_, number)| {
        let task = &world.tasks[number];
        xml.text("amiId", &task.image);
        xml.text("taskStartTime", &iso(task.started));
        xml.text("bucket", &task.bucket);
        xml.text("s3objectKey", &task.key);
        xml.value("progressPercentage", task.progress);
        xml.text("storeTaskState", &task.state);
        xml.option("storeTaskFailureReason", task.reason.as_ref());
    });
    xml.option("nextToken", token);
    Ok(xml)
}

pub fn restore(world: &mut World, request: &Request) -> Outcome<Xml> {
    let (bucket, key) = (request.required("Bucket")?, request.required("ObjectKey")?);
    let new_name = request.owned("Name");
    let tags = tag_specifications(request, &["image", "snapshot"])?;
    if let Some(name) = &new_name {
        checked_name(world, request.account, name)?;
    }
    request.authorize(world)?;
    let object = buckets(world, bucket)?.get(bucket, key).map_err(refused)?;
    let object = object
        .ok_or_else(|| refused(format!("There is no object {key} in the bucket {bucket}.")))?;
    let (stored, fails_with) = match read(&object) {
        Some(stored) => (stored, None),
        None if world.settings.restore_fails_late && new_name.is_some() => {
            let nothing = super::super::tasks::Stored {
                image: Image::default(),
                snapshots: Default::default(),
            };
            (nothing, Some("The object is not an image that was stored.".to_owned()))
        }
        None => return Err(refused("The object is not an image that was stored.")),
    };
    let name = new_name.unwrap_or_else(|| stored.image.name.clone());
    checked_name(world, request.account, &name)?;
    let in_progress: u64 = world
        .images
        .values()
        .filter(|image| image.restored && image.state == "pending")
        .map(Image::size_gb)
        .sum();
    if in_progress + stored.image.size_gb() > world.settings.restore_quota_gb {
        return Err(Error::client(
            "ResourceLimitExceeded",
            format!("{in_progress} GB are being restored already."),
        ));
    }
    let id = stored.restore(world, request.account, &name, &tags, fails_with);
    let mut xml = Xml::default();
    xml.text("imageId", &id);
    Ok(xml)
}
