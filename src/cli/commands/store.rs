//! `amistore store`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::args::{StoreArgs, WriteArgs};
use super::super::output::{
    Console, Quote, aws_stored, aws_stored_text, quote_text, store_plan, store_plan_text, stored,
    stored_text, with_quote,
};
use super::super::record::recorded;
use super::super::remote::{Remote, Side};
use super::super::settings::{Place, Settings, archive_target, refuse_same_file, refuse_url};
use super::in_bucket;
use crate::aws::ebs::Requests;
use crate::aws::ec2::{Ec2Image, Ec2Source, StoreTask, store_by_aws};
use crate::aws::s3::ObjectOptions;
use crate::base::{Error, ErrorCode, ErrorKind, Observer, Result, TaskKind};
use crate::engine::{Context, PackOptions};
use crate::image::{IMAGE_JSON, ImageDirectory, ImageSource, PlainDisks};
use crate::object::{Attributes, DirectoryStore, PipeWriter};
use crate::ops::{self, ArchiveTarget, ObjectTarget};
use crate::setup::{StoreJob, look_at_bucket, store_to_bucket, task_target};
use crate::taskdb::NewTask;

/// An image to be stored, wherever it is.
struct Source {
    image: Box<dyn ImageSource>,
    /// What to call it.
    shown: String,
    /// Local files that must not be replaced.
    files: Vec<PathBuf>,
    /// What reading it takes, and in which Region, if it is in EC2.
    requests: Option<(Requests, String)>,
}

pub(in super::super) fn run(args: StoreArgs, settings: &Settings, console: &Console) -> Result<()> {
    let derived_id = !args.image.disk.is_empty() && args.image.image_id.is_none();
    // A level that zstd does not know should not wait for the first block.
    crate::codec::zstd::Encoder::new(args.level)?;
    let observer = console.observer();
    let remote = Remote::new(settings, &observer);
    let archive = match (args.image.disk.is_empty(), args.places.as_slice()) {
        (false, [archive]) | (true, [_, archive]) => Place::parse(archive)?,
        (false, _) => {
            return Err(Error::usage("with --disk there is no SOURCE: give only the ARCHIVE"));
        }
        (true, _) => {
            return Err(Error::usage(
                "SOURCE and ARCHIVE are wanted: amistore store ami-0123456789abcdef0 s3://bucket/, amistore store image-dir/ archives/, or --disk DEVICE=FILE for plain disks",
            ));
        }
    };
    if args.ec2.via_aws {
        return via_aws(&args, &archive, &remote, console, &observer);
    }
    let Source { image, shown: from, files, requests } = source(&args, &remote, observer.as_ref())?;
    let settings = &settings.with(if requests.is_some() {
        settings.resources().beside_blocks(args.level)
    } else {
        settings.resources()
    });
    let plan = settings.plan(args.level)?;
    let options = PackOptions { sparse: args.sparse, ..PackOptions::default() };
    let name = image.document().archive_name();
    let place = archive.of_archive(&name);
    let shown = place.shown("standard output");
    refuse_same_file(Path::new(&shown), files.iter().map(PathBuf::as_path))?;
    // Two images that were described alike have one id, and so one file name.
    let explain = |error: Error| match error.kind() {
        ErrorKind::Exists if derived_id => error
            .or_code(ErrorCode::DerivedImageIdTaken)
            .at("image_id", "derived from name, attributes and sizes, not from the disks' content"),
        _ => error,
    };
    let (plan, bucket, at_most, segments) = match &place {
        Place::S3(place) => {
            let options = ObjectOptions {
                parallel_segments: args.volumes_at_once,
                ..args.object.options(0)?
            };
            let store =
                remote.store(place, args.sides.access(Side::Target), &args.sides.link, options)?;
            let planned = settings.resources().plan_store(
                image.as_ref(),
                store,
                args.level,
                &settings.cancel,
            )?;
            (planned.plan, Some(planned.store), planned.at_most, planned.segments)
        }
        Place::Path(_) | Place::Stdio => (plan, None, 0, Vec::new()),
    };
    let context = super::context(&plan, observer.as_ref(), settings, console);
    let quote = requests.map(|(requests, region)| {
        Quote::new(requests, &region, args.ec2.ebs.ebs_account_rate, segments.is_empty())
    });
    if args.write.dry_run {
        match (&bucket, &place) {
            (Some(store), Place::S3(place)) => {
                look_at_bucket(
                    store,
                    &place.key,
                    args.object.allow_public_bucket,
                    observer.as_ref(),
                )?;
                if !args.write.force && store.exists(&place.key)? {
                    return Err(explain(
                        Error::new(ErrorKind::Exists, "the object exists").at("object", place),
                    ));
                }
            }
            _ => refuse_existing(Path::new(&shown), &args.write).map_err(explain)?,
        }
        let planned = ops::plan_store(image.as_ref(), &options, context)?;
        let image_id = image.document().image_id().map(|id| id.as_str());
        return console.result(
            || {
                store_plan_text(&planned, &shown, image_id)
                    + &quote.as_ref().map(quote_text).unwrap_or_default()
            },
            || with_quote(store_plan(&planned, &shown, image_id), quote.as_ref()),
        );
    }
    let task = NewTask {
        image_id: image.document().image_id().map(ToString::to_string),
        size: image.volumes().iter().map(|volume| volume.size().bytes()).sum(),
        ..in_bucket(
            &place,
            TaskKind::Store,
            from.as_str(),
            bucket.as_ref().map_or_else(|| shown.clone(), |store| task_target(store, &shown)),
        )
    };
    let work = |observer: &dyn Observer| {
        let context = Context { observer, ..context };
        Ok(match place {
            Place::Stdio => {
                refuse_terminal()?;
                console.give_up_stdout();
                let writer = Box::new(PipeWriter::stdout(settings.cancel.clone())?);
                ops::store(image.as_ref(), ArchiveTarget::Stream(writer), &options, context)?
            }
            Place::Path(path) => {
                let (directory, key) = archive_target(&path, &name);
                let store = DirectoryStore::new(directory, args.write.durability());
                let (overwrite, attributes) = (args.write.overwrite(), Attributes::default());
                let target = ObjectTarget {
                    store: &store,
                    key,
                    overwrite,
                    attributes,
                    at_most,
                    segments,
                    resumption: None,
                };
                ops::store(image.as_ref(), ArchiveTarget::Object(target), &options, context)
                    .map_err(explain)?
            }
            Place::S3(place) => {
                let store = bucket
                    .ok_or_else(|| Error::internal("a bucket was named and there is none"))?;
                let job = StoreJob {
                    image: image.as_ref(),
                    options: &options,
                    store: &store,
                    key: place.key.clone(),
                    overwrite: args.write.overwrite(),
                    attributes: args.object.attributes()?,
                    at_most,
                    segments,
                    allow_public: args.object.allow_public_bucket,
                    resumption: args.resume.resumption(from, task_target(&store, &shown))?,
                };
                store_to_bucket(job, context).map_err(explain)?
            }
        })
    };
    let report = recorded(console, args.resume.state.as_deref(), &task, &observer, work)?;
    drop(observer);
    console.result(|| stored_text(&report, &shown), || stored(&report, &shown))
}

/// Opens what is to be stored: plain disks, an image or snapshots in EC2, or an image directory. A
/// directory that is called like an image is `./ami-...`.
fn source(args: &StoreArgs, remote: &Remote, observer: &dyn Observer) -> Result<Source> {
    if let Some((image, disks)) = args.image.plain_image()? {
        let image = PlainDisks::open(&image, &disks)?;
        let files: Vec<PathBuf> = disks.into_iter().map(|(_, path)| path).collect();
        let shown = files.first().map(|path| path.display().to_string()).unwrap_or_default();
        return Ok(Source { image: Box::new(image), shown, files, requests: None });
    }
    let path = &args.places[0];
    let shown = path.display().to_string();
    refuse_url(&shown)?;
    if let Some(source) = Ec2Source::parse(&shown) {
        let compute =
            remote.compute(&args.sides.access(Side::Source), &args.sides.link, &args.ec2.ebs)?;
        let image =
            Ec2Image::open(&compute.ec2, &compute.ebs, &compute.quotas, &source?, observer)?;
        let requests = Some((image.requests().clone(), compute.ebs.region()));
        return Ok(Source { image: Box::new(image), shown, files: Vec::new(), requests });
    }
    let image = ImageDirectory::open(path)?;
    let raws =
        image.document().snapshots().iter().map(|snapshot| path.join(snapshot.id.file_name()));
    let files = raws.chain([path.join(IMAGE_JSON)]).collect();
    Ok(Source { image: Box::new(image), shown, files, requests: None })
}

/// Has AWS store the image by itself.
fn via_aws(
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
    if args.write.dry_run {
        task.check(&compute.ec2)?;
        let shown = format!("s3://{}/{}{}.bin", task.bucket, task.prefix, task.image_id);
        return console.result(
            || aws_stored_text(&task.image_id, &shown, true),
            || aws_stored(&task.image_id, &shown, true),
        );
    }
    let key = store_by_aws(&compute.ec2, &task, observer.as_ref())?;
    let shown = format!("s3://{}/{key}", task.bucket);
    console.result(
        || aws_stored_text(&task.image_id, &shown, false),
        || aws_stored(&task.image_id, &shown, false),
    )
}

/// What the real run would refuse, a dry run refuses as well.
pub(super) fn refuse_existing(path: &Path, write: &WriteArgs) -> Result<()> {
    if !write.force && path.exists() {
        return Err(Error::new(ErrorKind::Exists, "the file exists").at("path", path.display()));
    }
    Ok(())
}

pub(super) fn refuse_terminal() -> Result<()> {
    if std::io::IsTerminal::is_terminal(&std::io::stdout()) {
        return Err(Error::usage(
            "an archive is not written to a terminal: redirect stdout, or name a file",
        ));
    }
    Ok(())
}
