//! AWS's own store and restore tasks: CreateStoreImageTask and CreateRestoreImageTask, polled until
//! the task ends.
//!
//! The poll interval is within EC2's request limits (DescribeStoreImageTasks: a burst of 50, then
//! one in two seconds; EC2 developer guide).

use std::time::Duration;

use serde_json::{Value, json};

use super::Ec2Connection;
use super::describe::{self, items, tag_params, text, would};
use crate::aws::ec2_query::Params;
use crate::base::{
    Error, ErrorCode, ErrorKind, Event, ImageId, Observer, Result, SnapshotId, Stage, StageGuard,
};

/// The parameters of CreateStoreImageTask.
#[derive(Clone, Debug)]
pub struct StoreTask {
    /// The image.
    pub image_id: ImageId,
    /// The bucket, without a path.
    pub bucket: String,
    /// The prefix of the object's key; empty, or with `/` at its end.
    pub prefix: String,
    /// Tags of the object.
    pub tags: Vec<(String, String)>,
    /// The poll interval.
    pub poll: Duration,
}

/// The parameters of CreateRestoreImageTask.
#[derive(Clone, Debug)]
pub struct RestoreTask {
    /// The bucket.
    pub bucket: String,
    /// The object.
    pub key: String,
    /// The image's name; the recorded one if absent.
    pub name: Option<String>,
    /// Tags of image and snapshots.
    pub tags: Vec<(String, String)>,
    /// The poll interval.
    pub poll: Duration,
}

impl StoreTask {
    fn params(&self) -> Params {
        let bucket = match self.prefix.trim_end_matches('/') {
            "" => self.bucket.clone(),
            prefix => format!("{}/{prefix}", self.bucket),
        };
        Params::new()
            .set("ImageId", &self.image_id)
            .set("Bucket", bucket)
            .structures("S3ObjectTag", tag_params(&self.tags))
    }

    /// Sends the request with `DryRun`.
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

    /// Sends the request with `DryRun`.
    pub fn check(&self, ec2: &Ec2Connection) -> Result<()> {
        would(ec2.call(
            "AWS would not restore the object",
            "CreateRestoreImageTask",
            self.params().set("DryRun", true),
        ))
    }
}

/// Number of polls for which EC2 may not list a new task: EC2 is eventually consistent.
const NOT_THERE_YET: u32 = 30;

/// Lets AWS store an image, and waits for the end of the task. Returns the object's key.
pub fn store_by_aws(
    ec2: &Ec2Connection,
    task: &StoreTask,
    observer: &dyn Observer,
) -> Result<String> {
    let image = describe::image(ec2, &task.image_id)?;
    let total = volume_bytes(&image);
    let located = |error: Error| error.at("image_id", &task.image_id).at("bucket", &task.bucket);
    // EC2 may list an earlier task of the image for a while, whose end is not that of this one.
    let started = |found: &Value| text(found, "TaskStartTime").map(ToOwned::to_owned);
    let before = list_store_tasks(ec2, &task.image_id)
        .map_err(located)?
        .iter()
        .filter_map(started)
        .collect::<Vec<_>>();
    let answer =
        match ec2.call("AWS does not store the image", "CreateStoreImageTask", task.params()) {
            // An earlier attempt began the task, and its answer was lost.
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
        // EC2 lists the newest task of an image, which may be another client's.
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
                    "EC2 does not list the task, because a later one of the same image hides it: \
                     it succeeded if the object exists",
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

/// Lets AWS restore an object that it stored, and waits until the image is available. After an
/// interruption AWS continues the task.
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
            // An earlier attempt began the task, and its answer was lost; this refusal names the
            // image.
            let holder = error.name_holder().map(|holder| holder.image_id.clone());
            json!({"ImageId": holder.ok_or(error)?})
        }
        answer => answer.map_err(located)?,
    };
    let missing = || located(Error::new(ErrorKind::Io, "the answer of EC2 has no image id"));
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

/// The progress of a task: percentages as bytes of volumes, which never decrease.
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
