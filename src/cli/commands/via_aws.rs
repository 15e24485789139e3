//! `--via-aws`: AWS stores or restores an image by itself, in a format of its own.

use std::sync::Arc;

use serde_json::json;

use super::super::args::{RestoreArgs, StoreArgs};
use super::super::output::{Console, aws_restored, aws_restored_text, aws_stored, aws_stored_text};
use super::super::remote::{Remote, Side};
use super::super::settings::Place;
use crate::aws::ec2::{Ec2Source, RestoreTask, StoreTask, restore_by_aws, store_by_aws};
use crate::base::{Error, Observer, Result};

/// Has AWS store an image of EC2 in a bucket.
pub(super) fn store(
    args: &StoreArgs,
    archive: &Place,
    remote: &Remote,
    console: &Console,
    observer: &Arc<dyn Observer>,
) -> Result<()> {
    let source = args.places.first().map(|path| path.display().to_string()).unwrap_or_default();
    let (Some(Ok(Ec2Source::Image(image_id))), Place::S3(place)) =
        (Ec2Source::parse(&source), archive)
    else {
        return Err(Error::usage(
            "AWS stores images of EC2 in buckets: amistore store --via-aws ami-0123456789abcdef0 s3://bucket/prefix/",
        ));
    };
    let (directory, name) = place
        .key
        .rsplit_once('/')
        .map_or(("", place.key.as_str()), |(directory, name)| (directory, name));
    if !name.is_empty() && name != format!("{image_id}.bin") {
        return Err(Error::usage(
            "AWS names the object itself: give a bucket, or a prefix with / at its end",
        )
        .at("key", &place.key));
    }
    let compute =
        remote.compute(&args.sides.access(Side::Source), &args.sides.link, &args.ec2.ebs)?;
    let task = StoreTask {
        image_id,
        bucket: place.bucket.clone(),
        prefix: if directory.is_empty() { String::new() } else { format!("{directory}/") },
        tags: args.object.attributes()?.tags.into_iter().collect(),
        poll: args.ec2.poll(),
    };
    let dry_run = args.write.dry_run;
    let key = if dry_run {
        task.check(&compute.ec2)?;
        format!("{}{}.bin", task.prefix, task.image_id)
    } else {
        store_by_aws(&compute.ec2, &task, observer.as_ref())?
    };
    let shown = format!("s3://{}/{key}", task.bucket);
    console.result(
        || aws_stored_text(&task.image_id, &shown, dry_run),
        || aws_stored(&task.image_id, &shown, dry_run),
    )
}

/// Has AWS restore an object that it stored.
pub(super) fn restore(
    args: &RestoreArgs,
    archive: &Place,
    remote: &Remote,
    console: &Console,
    observer: &Arc<dyn Observer>,
) -> Result<()> {
    let Place::S3(object) = archive else {
        return Err(Error::usage(
            "AWS restores objects in buckets: amistore restore --via-aws s3://bucket/ami-0123456789abcdef0.bin ec2",
        ));
    };
    args.edits.refuse_for_aws()?;
    let compute =
        remote.compute(&args.sides.access(Side::Target), &args.sides.link, &args.ec2.ebs)?;
    let edits = args.edits.edits()?;
    let task = RestoreTask {
        bucket: object.bucket.clone(),
        key: object.key.clone(),
        name: edits.name,
        tags: edits.tags,
        poll: args.ec2.poll(),
    };
    let shown = object.to_string();
    if args.write.dry_run {
        task.check(&compute.ec2)?;
        return console.result(
            || format!("AWS would restore {shown}\n"),
            || json!({"DryRun": true, "Archive": shown, "Target": "ec2", "By": "AWS"}),
        );
    }
    let (id, snapshots) = restore_by_aws(&compute.ec2, &task, observer.as_ref())?;
    console.result(
        || aws_restored_text(&id, &snapshots, &shown),
        || aws_restored(&id, &snapshots, &shown),
    )
}
