//! `amistore restore`.

use std::sync::Arc;

use serde_json::json;

use super::super::args::{EditArgs, RestoreArgs};
use super::super::output::{
    Console, Quote, aws_restored, aws_restored_text, restore_plan, restore_plan_text, restored,
    restored_text, restored_to_ec2, restored_to_ec2_text,
};
use super::super::record::recorded;
use super::super::remote::{Remote, Side, open_archive};
use super::super::settings::{Place, Settings, refuse_url};
use super::in_bucket;
use crate::aws::ebs::Requests;
use crate::aws::ec2::{Ec2Destination, Ec2Options, RestoreTask, restore_by_aws};
use crate::base::{Error, Observer, Result, TaskKind};
use crate::engine::{Archive, Context};
use crate::image::{DirectoryDestination, ImageDestination};
use crate::object::PipeReader;
use crate::ops;
use crate::setup::{restore_target, restore_to_ec2};
use crate::taskdb::NewTask;

pub(in super::super) fn run(
    args: RestoreArgs,
    settings: &Settings,
    console: &Console,
) -> Result<()> {
    let place = Place::parse(&args.archive)?;
    refuse_url(&args.target.to_string_lossy())?;
    let observer = console.observer();
    // A directory of this name is ./ec2.
    if args.target.as_os_str() == "ec2" {
        return to_ec2(&args, &place, settings, console, observer);
    }
    if args.ec2.via_aws {
        return Err(Error::usage(
            "AWS restores to EC2 only: amistore restore --via-aws s3://bucket/ami-0123456789abcdef0.bin ec2",
        ));
    }
    if args.edits != EditArgs::default() {
        return Err(Error::usage(
            "--name, --encrypted and the other changes of the new image are for the target ec2: a directory gets what the archive holds",
        ));
    }
    to_directory(&args, &place, settings, console, observer)
}

fn to_directory(
    args: &RestoreArgs,
    place: &Place,
    settings: &Settings,
    console: &Console,
    observer: Arc<dyn Observer>,
) -> Result<()> {
    let plan = settings.reading_plan(place)?;
    let context = super::context(&plan, observer.as_ref(), settings, console);
    let shown = args.target.display().to_string();
    let target = DirectoryDestination {
        path: args.target.clone(),
        overwrite: args.write.overwrite(),
        durability: args.write.durability(),
    };
    let access = (args.sides.access(Side::Source), &args.sides.archive_link());
    let absolute = std::path::absolute(&args.target)
        .unwrap_or_else(|_| args.target.clone())
        .display()
        .to_string();
    let state = args.resume.state.as_deref();
    let report = match open_archive(place, access, &args.thaw, settings, &observer)? {
        None if args.write.dry_run => return Err(cannot_look()),
        None => {
            let input = PipeReader::stdin(settings.cancel.clone())?;
            let task = in_bucket(place, TaskKind::Restore, "standard input", absolute.as_str());
            recorded(console, state, &task, &observer, |observer| {
                ops::restore_stream(
                    input,
                    |document| target.begin(document, None),
                    Context { observer, ..context },
                )
            })?
        }
        Some(reader) => {
            let archive = Archive::open(reader)?;
            if args.write.dry_run {
                super::store::refuse_existing(
                    &args.target.join(crate::image::IMAGE_JSON),
                    &args.write,
                )?;
                let planned = ops::plan_restore(&archive);
                return console.result(
                    || restored_text(&planned, &shown, true),
                    || restored(&planned, &shown, true),
                );
            }
            let task = NewTask { target: absolute.clone(), ..task_of(place, &archive) };
            recorded(console, state, &task, &observer, |observer| {
                let context = Context { observer, ..context };
                match place {
                    // What came over a network should not have to come twice.
                    Place::S3(source) => {
                        let resumption =
                            args.resume.resumption(source.to_string(), absolute.clone())?;
                        ops::restore_resumable(&archive, &target, &[], &resumption, context)
                    }
                    Place::Path(_) | Place::Stdio => {
                        ops::restore(&archive, target.begin(archive.document(), None)?, context)
                    }
                }
            })?
        }
    };
    drop(observer);
    console.result(|| restored_text(&report, &shown, false), || restored(&report, &shown, false))
}

/// What is known of a restore before it begins, but for its target.
fn task_of(place: &Place, archive: &Archive) -> NewTask {
    NewTask {
        image_id: archive.document().image_id().map(ToString::to_string),
        name: archive.document().name().map(ToOwned::to_owned),
        size: archive.root().manifest.volumes.iter().map(|volume| volume.size.bytes()).sum(),
        ..in_bucket(place, TaskKind::Restore, place.shown("standard input"), "")
    }
}

fn cannot_look() -> Error {
    Error::usage(
        "a stream cannot be looked at without reading it: --dry-run needs a file or an object",
    )
}

fn to_ec2(
    args: &RestoreArgs,
    place: &Place,
    settings: &Settings,
    console: &Console,
    observer: Arc<dyn Observer>,
) -> Result<()> {
    if args.write.force {
        return Err(Error::usage(
            "an image in EC2 is never replaced: give the new one another --name",
        ));
    }
    let edits = args.edits.edits()?;
    let compute = Remote::new(settings, &observer).compute(
        &args.sides.access(Side::Target),
        &args.sides.link,
        &args.ec2.ebs,
    )?;
    let region = compute.ec2.region();
    let state = args.resume.state.as_deref();
    if args.ec2.via_aws {
        let Place::S3(object) = place else {
            return Err(Error::usage(
                "AWS restores objects in buckets: amistore restore --via-aws s3://bucket/ami-0123456789abcdef0.bin ec2",
            ));
        };
        args.edits.refuse_for_aws()?;
        let (bucket, key) = (object.bucket.clone(), object.key.clone());
        let task =
            RestoreTask { bucket, key, name: edits.name, tags: edits.tags, poll: args.ec2.poll() };
        if args.write.dry_run {
            task.check(&compute.ec2)?;
            let shown = object.to_string();
            return console.result(
                || format!("AWS would restore {shown}\n"),
                || json!({"DryRun": true, "Archive": shown, "Target": "ec2", "By": "AWS"}),
            );
        }
        let (id, snapshots) = restore_by_aws(&compute.ec2, &task, observer.as_ref())?;
        let shown = object.to_string();
        return console.result(
            || aws_restored_text(&id, &snapshots, &shown),
            || aws_restored(&id, &snapshots, &shown),
        );
    }
    let (plan, memory) = settings.resources().plan_with_blocks(matches!(place, Place::S3(_)))?;
    let context = super::context(&plan, observer.as_ref(), settings, console);
    let fingerprint = edits.about_snapshots();
    let shown = place.shown("standard input");
    let options = Ec2Options {
        ec2: compute.ec2,
        ebs: compute.ebs,
        quotas: compute.quotas,
        memory,
        edits,
        observer: observer.clone(),
    };
    let target = Ec2Destination::new(options.clone());
    let access = (args.sides.access(Side::Source), &args.sides.archive_link());
    let report = match open_archive(place, access, &args.thaw, settings, &observer)? {
        None if args.write.dry_run => return Err(cannot_look()),
        // Nobody can read a stream again, so what it leaves is of no use.
        None => {
            let input = PipeReader::stdin(settings.cancel.clone())?;
            let task = in_bucket(place, TaskKind::Restore, shown.as_str(), format!("ec2 {region}"));
            recorded(console, state, &task, &observer, |observer| {
                ops::restore_stream(
                    input,
                    |document| target.begin(document, None),
                    Context { observer, ..context },
                )
            })?
        }
        Some(reader) => {
            let archive = Archive::open(reader)?;
            if args.write.dry_run {
                target.check(archive.document())?;
                let mut requests = Requests::default();
                archive
                    .root()
                    .manifest
                    .volumes
                    .iter()
                    .for_each(|volume| requests.write(volume.blocks - volume.fill));
                let quote = Quote::new(requests, &region, args.ec2.ebs.ebs_account_rate, false);
                let (planned, items) =
                    (ops::plan_restore(&archive), target.planned_items(archive.document())?);
                return console.result(
                    || restored_text(&planned, "ec2", true) + &restore_plan_text(&items, &quote),
                    || restore_plan(restored(&planned, "ec2", true), &items, &quote),
                );
            }
            let resumption =
                args.resume.resumption(shown.clone(), restore_target(&options, &archive))?;
            let task = NewTask { target: resumption.target.clone(), ..task_of(place, &archive) };
            recorded(console, state, &task, &observer, |observer| {
                restore_to_ec2(
                    &archive,
                    &target,
                    &fingerprint,
                    &resumption,
                    Context { observer, ..context },
                )
            })?
            .0
        }
    };
    let made =
        target.restored().ok_or_else(|| Error::internal("a restore ended and made nothing"))?;
    drop((observer, options, target));
    console.result(
        || restored_to_ec2_text(&made, &shown, &region),
        || restored_to_ec2(restored(&report, "ec2", false), &made, &region),
    )
}
