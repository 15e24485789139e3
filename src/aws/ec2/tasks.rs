//! AWS's own store and restore tasks, begun and followed to their end.
//!
//! They are polled within what EC2 allows (DescribeStoreImageTasks: 50 at once, then one in two
//! seconds; EC2 developer guide), and for as long as they take.

use std::time::Duration;

use serde_json::{Value, json};

use super::Ec2Connection;
use super::describe::{self, items, tag_params, text, would};
use crate::aws::ec2_query::Params;
use crate::base::{
    Error, ErrorCode, ErrorKind, Event, ImageId, Observer, Result, SnapshotId, Stage, StageGuard,
};

/// A store that AWS does.
#[derive(Clone, Debug)]
pub struct StoreTask {
    /// The image.
    pub image_id: ImageId,
    /// The bucket, without a path.
    pub bucket: String,
    /// Before the object's name; empty, or with `/` at its end.
    pub prefix: String,
    /// Tags of the object.
    pub tags: Vec<(String, String)>,
    /// Between two looks.
    pub poll: Duration,
}

/// A restore that AWS does.
#[derive(Clone, Debug)]
pub struct RestoreTask {
    /// The bucket.
    pub bucket: String,
    /// The object.
    pub key: String,
    /// The image's name; the recorded one if that is not said.
    pub name: Option<String>,
    /// Tags of image and snapshots.
    pub tags: Vec<(String, String)>,
    /// Between two looks.
    pub poll: Duration,
}

impl StoreTask {
    fn params(&self) -> Params {
        let place = match self.prefix.trim_end_matches('/') {
            "" => self.bucket.clone(),
            prefix => format!("{}/{prefix}", self.bucket),
        };
        Params::new()
            .set("ImageId", &self.image_id)
            .set("Bucket", place)
            .structures("S3ObjectTag", tag_params(&self.tags))
    }

    /// Asks AWS whether it would do it. Nothing is done.
    pub fn check(&self, ec2: &Ec2Connection) -> Result<()> {
        describe::image(ec2, &self.image_id)?;
        would(ec2.call(
            "AWS would not store the image",
            "CreateStoreImageTask",
            self.params().set("DryRun", true),
        ))
    }
}

impl RestoreTask {
    fn params(&self) -> Params {
        let kinds = ["image", "snapshot"].into_iter().filter(|_| !self.tags.is_empty());
        let specifications = kinds.map(|kind| {
            Params::new().set("ResourceType", kind).structures("Tag", tag_params(&self.tags))
        });
        Params::new()
            .set("Bucket", &self.bucket)
            .set("ObjectKey", &self.key)
            .set_some("Name", self.name.as_ref())
            .structures("TagSpecification", specifications)
    }

    /// Asks AWS whether it would do it. Nothing is done.
    pub fn check(&self, ec2: &Ec2Connection) -> Result<()> {
        would(ec2.call(
            "AWS would not restore the object",
            "CreateRestoreImageTask",
            self.params().set("DryRun", true),
        ))
    }
}

/// Looks that may find no task after it was begun: not every part of EC2 knows it at once.
const NOT_THERE_YET: u32 = 30;

/// Has AWS store an image, and waits for the end. Returns the object's key.
pub fn store_by_aws(
    ec2: &Ec2Connection,
    task: &StoreTask,
    observer: &dyn Observer,
) -> Result<String> {
    let image = describe::image(ec2, &task.image_id)?;
    let total = volume_bytes(&image);
    let located = |error: Error| error.at("image_id", &task.image_id).at("bucket", &task.bucket);
    // A task of before may still be what is listed for a while, and how that ended says nothing of
    // this one.
    let started = |found: &Value| text(found, "TaskStartTime").map(ToOwned::to_owned);
    let before = list_store_tasks(ec2, &task.image_id)
        .map_err(located)?
        .iter()
        .filter_map(started)
        .collect::<Vec<_>>();
    let answer =
        match ec2.call("AWS does not store the image", "CreateStoreImageTask", task.params()) {
            // The answer to an attempt before got lost, and what it began is under way.
            Err(error) if error.was_repeated() && error.is(ErrorCode::StoreTaskInProgress) => {
                Value::Null
            }
            answer => answer.map_err(located)?,
        };
    let key = text(&answer, "ObjectKey")
        .map_or_else(|| format!("{}{}.bin", task.prefix, task.image_id), ToOwned::to_owned);
    let mut progress = Progress::new(observer, Stage::Store, total);
    let mut missing = 0;
    loop {
        let listed = list_store_tasks(ec2, &task.image_id).map_err(located)?;
        // Of an image EC2 lists the newest task, which may be one to another bucket by somebody
        // else.
        let ours = listed
            .iter()
            .filter(|found| started(found).is_none_or(|time| !before.contains(&time)))
            .find(|found| {
                text(found, "Bucket")
                    .is_none_or(|bucket| bucket.split('/').next() == Some(task.bucket.as_str()))
                    && ["S3objectKey", "S3ObjectKey"]
                        .iter()
                        .find_map(|name| text(found, name))
                        .is_none_or(|found| found == key)
            });
        match ours {
            None if missing < NOT_THERE_YET => missing += 1,
            None => {
                let lost = Error::new(
                    ErrorKind::NotFound,
                    "EC2 does not list the task: a later one of the same image hides it, and whether the object is there tells how it ended",
                );
                return Err(located(lost).at("object_key", key));
            }
            Some(found) => {
                missing = 0;
                progress.at_percent(
                    found.get("ProgressPercentage").and_then(Value::as_u64).unwrap_or(0),
                );
                match text(found, "StoreTaskState") {
                    Some("Completed") => break,
                    Some("Failed") => {
                        let reason = text(found, "StoreTaskFailureReason")
                            .unwrap_or("no reason is given")
                            .to_owned();
                        return Err(located(
                            Error::new(ErrorKind::Io, "AWS could not store the image")
                                .at("reason", reason),
                        ));
                    }
                    _ => {}
                }
            }
        }
        ec2.pause(task.poll)?;
    }
    progress.finish();
    Ok(key)
}

fn list_store_tasks(ec2: &Ec2Connection, id: &ImageId) -> Result<Vec<Value>> {
    let answer = ec2.call(
        "cannot follow the task",
        "DescribeStoreImageTasks",
        Params::new().list("ImageId", [id]),
    )?;
    Ok(items(&answer, "StoreImageTaskResults").to_vec())
}

/// Has AWS restore an object that it made, and waits until the image can be used. An interruption
/// leaves it to AWS, which goes on.
pub fn restore_by_aws(
    ec2: &Ec2Connection,
    task: &RestoreTask,
    observer: &dyn Observer,
) -> Result<(ImageId, Vec<SnapshotId>)> {
    let located = |error: Error| error.at("object", format!("s3://{}/{}", task.bucket, task.key));
    let answer = match ec2.call(
        "AWS does not restore the object",
        "CreateRestoreImageTask",
        task.params(),
    ) {
        Err(error) if error.was_repeated() && error.is(ErrorCode::ImageNameTaken) => {
            // The answer to an attempt before got lost; this one says which image has the name.
            let named = error.causes().iter().find_map(|cause| {
                cause
                    .split_whitespace()
                    .find(|word| word.starts_with("ami-"))
                    .map(ToOwned::to_owned)
            });
            json!({"ImageId": named.ok_or(error)?})
        }
        answer => answer.map_err(located)?,
    };
    let missing =
        || located(Error::new(ErrorKind::Io, "EC2 does not say what the new image is called"));
    let id = ImageId::parse(text(&answer, "ImageId").ok_or_else(missing)?)?;
    observer.note(&Event::Note { message: format!("AWS makes {id}") });
    let mut progress = Progress::new(observer, Stage::Restore, 0);
    loop {
        let image = describe::new_image(ec2, &id)?;
        let ids =
            describe::snapshots_of(&image).map(SnapshotId::parse).collect::<Result<Vec<_>>>()?;
        match text(&image, "State").unwrap_or("pending") {
            "available" => {
                progress.finish();
                return Ok((id, ids));
            }
            "pending" => {}
            state => {
                let reason = image
                    .get("StateReason")
                    .and_then(|reason| text(reason, "Message"))
                    .unwrap_or("no reason is given");
                let failed = Error::new(ErrorKind::Io, "AWS could not restore the image")
                    .at("image_id", &id);
                return Err(located(failed.at("state", state).at("reason", reason)));
            }
        }
        progress.set_total(volume_bytes(&image));
        if !ids.is_empty() {
            let described = describe::snapshots(ec2, &ids)?;
            let percent = |snapshot: &Value| {
                text(snapshot, "Progress")
                    .and_then(|text| text.trim_end_matches('%').parse::<u64>().ok())
            };
            let percents: Vec<u64> = described
                .iter()
                .map(|snapshot| snapshot.as_ref().and_then(percent).unwrap_or(0))
                .collect();
            progress.at_percent(percents.iter().sum::<u64>() / percents.len().max(1) as u64);
        }
        ec2.pause(task.poll)?;
    }
}

fn volume_bytes(image: &Value) -> u64 {
    let gib = |mapping: &Value| mapping.get("Ebs")?.get("VolumeSize")?.as_u64();
    items(image, "BlockDeviceMappings").iter().filter_map(gib).sum::<u64>() << 30
}

/// Percentages as bytes of volumes, which never go back.
struct Progress<'a> {
    observer: &'a dyn Observer,
    stage: StageGuard<'a>,
    total: u64,
    done: u64,
}

impl<'a> Progress<'a> {
    fn new(observer: &'a dyn Observer, stage: Stage, total: u64) -> Self {
        let stage = StageGuard::begin(observer, stage, None);
        let mut progress = Self { observer, stage, total: 0, done: 0 };
        progress.set_total(total);
        progress
    }

    fn set_total(&mut self, total: u64) {
        if self.total == 0 && total > 0 {
            self.total = total;
            self.observer.note(&Event::Grew { bytes: total });
        }
    }

    fn at_percent(&mut self, percent: u64) {
        let done = (u128::from(self.total) * u128::from(percent.min(100)) / 100) as u64;
        if done > self.done {
            self.observer.note(&Event::Advanced { bytes: done - self.done, stored: 0 });
            self.done = done;
        }
    }

    fn finish(mut self) {
        self.at_percent(100);
        self.stage.finish();
    }
}
