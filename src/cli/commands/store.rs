//! `amistore store`.

use std::path::{Path, PathBuf};

use super::super::args::StoreArgs;
use super::super::output::{Console, store_plan, store_plan_text, stored, stored_text};
use super::super::record::recorded;
use super::super::remote::{Remote, Side, WriteSide};
use super::super::settings::{Place, Settings, refuse_same_file, refuse_url};
use super::{in_bucket, via_aws};
use crate::aws::ec2::{Ec2Image, Ec2Source};
use crate::base::{Error, ErrorCode, ErrorKind, Observer, Result, TaskKind};
use crate::engine::PackOptions;
use crate::image::{IMAGE_JSON, ImageDirectory, ImageSource, PlainDisks};
use crate::ops::{EbsReads, PlannedStore, StoreOptions};
use crate::taskdb::NewTask;

pub(in super::super) fn run(args: StoreArgs, settings: &Settings, console: &Console) -> Result<()> {
    // An invalid level should be an error before a request is sent.
    crate::codec::zstd::Encoder::new(args.level)?;
    let observer = console.observer();
    let remote = Remote::new(settings, &observer);
    let archive = archive(&args)?;
    if args.ec2.via_aws {
        return via_aws::store(&args, &archive, &remote, console, &observer);
    }
    let source = Source::open(&args, &remote, observer.as_ref())?;
    let place = archive.of_archive(&source.image.document().archive_name());
    let shown = place.shown("standard output");
    refuse_same_file(Path::new(&shown), source.files.iter().map(PathBuf::as_path))?;
    let side = WriteSide {
        object: &args.object,
        write: &args.write,
        resume: &args.resume,
        sides: &args.sides,
        volumes_at_once: args.volumes_at_once,
    };
    let destination = remote.destination(&place, &side, source.shown.clone())?;
    let target = destination.task_target(&shown);
    let options = StoreOptions {
        pack: PackOptions { sparse: args.sparse, ..PackOptions::default() },
        level: args.level,
        overwrite: args.write.overwrite(),
        attributes: args.object.attributes()?,
    };
    let explain = |error| source.explain(error);
    let (image, ebs) = (source.image.as_ref(), source.ebs.as_ref());
    let planned = PlannedStore::new(image, ebs, destination, options, &settings.resources())?;
    if args.write.dry_run {
        let existing = planned.check(observer.as_ref(), &settings.cancel).map_err(explain)?;
        return console.result(
            || store_plan_text(planned.plan(), &shown, existing),
            || store_plan(planned.plan(), &shown, existing),
        );
    }
    console.explain(|| store_plan_text(planned.plan(), &shown, Default::default()));
    let task = NewTask {
        image_id: image.document().image_id().map(ToString::to_string),
        size: image.volumes().iter().map(|volume| volume.size().bytes()).sum(),
        ..in_bucket(&place, TaskKind::Store, source.shown.as_str(), target)
    };
    if place == Place::Stdio {
        console.give_up_stdout();
    }
    let report = recorded(console, args.resume.state.as_deref(), &task, &observer, |observer| {
        planned.run(observer, &settings.cancel).map_err(explain)
    })?;
    drop((planned, observer));
    console.result(|| stored_text(&report, &shown), || stored(&report, &shown))
}

/// The archive argument: the last of one or two.
fn archive(args: &StoreArgs) -> Result<Place> {
    match (args.image.disk.is_empty(), args.places.as_slice()) {
        (false, [archive]) | (true, [_, archive]) => Place::parse(archive),
        (false, _) => Err(Error::usage("with --disk there is no SOURCE: give only the ARCHIVE")),
        (true, _) => Err(Error::usage(
            "SOURCE and ARCHIVE are needed: amistore store ami-0123456789abcdef0 s3://bucket/, amistore store image-dir/ archives/, or --disk DEVICE=FILE for plain disks",
        )),
    }
}

/// The image to store.
struct Source {
    image: Box<dyn ImageSource>,
    /// Its name in messages.
    shown: String,
    /// Local files that must not be replaced.
    files: Vec<PathBuf>,
    /// EBS, if it is in EC2.
    ebs: Option<EbsReads>,
    /// Whether the image id is derived from the attributes of plain disks.
    has_derived_id: bool,
}

impl Source {
    /// Opens plain disks, an image or snapshots in EC2, or an image directory. A directory whose
    /// name has the form of an id is `./ami-...`.
    fn open(args: &StoreArgs, remote: &Remote, observer: &dyn Observer) -> Result<Self> {
        let has_derived_id = !args.image.disk.is_empty() && args.image.image_id.is_none();
        if let Some((image, disks)) = args.image.plain_image()? {
            let image = Box::new(PlainDisks::open(&image, &disks)?);
            let files: Vec<PathBuf> = disks.into_iter().map(|(_, path)| path).collect();
            let shown = files.first().map(|path| path.display().to_string()).unwrap_or_default();
            return Ok(Self { image, shown, files, ebs: None, has_derived_id });
        }
        let path = &args.places[0];
        let shown = path.display().to_string();
        refuse_url(&shown)?;
        if let Some(source) = Ec2Source::parse(&shown) {
            let compute = remote.compute(
                &args.sides.access(Side::Source),
                &args.sides.link,
                &args.ec2.ebs,
            )?;
            let image =
                Ec2Image::open(&compute.ec2, &compute.ebs, &compute.quotas, &source?, observer)?;
            let account_rate = args.ec2.ebs.ebs_account_rate;
            let ebs = Some(EbsReads { region: compute.ebs.region(), account_rate });
            let (image, files) = (Box::new(image), Vec::new());
            return Ok(Self { image, shown, files, ebs, has_derived_id });
        }
        let image = Box::new(ImageDirectory::open(path)?);
        let snapshots = image.document().snapshots().iter();
        let raws = snapshots.map(|snapshot| path.join(snapshot.id.file_name()));
        let files = raws.chain([path.join(IMAGE_JSON)]).collect();
        Ok(Self { image, shown, files, ebs: None, has_derived_id })
    }

    /// Two images with the same attributes have one derived id, and so one file name.
    fn explain(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::Exists || !self.has_derived_id {
            return error;
        }
        error
            .or_code(ErrorCode::DerivedImageIdTaken)
            .at("image_id", "derived from name, attributes and sizes, not from the disks' content")
    }
}
