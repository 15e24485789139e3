//! `amistore store`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::super::options::{
    ArchiveUrl, Ec2Args, ImageArgs, ObjectArgs, ResumeArgs, Settings, SidesArgs, WriteArgs,
    refuse_same_file,
};
use super::super::output::{Console, store_plan, store_plan_text, stored, stored_text};
use super::super::record::{recorded, task_of};
use super::super::remote::{Remote, TargetOptions};
use super::super::source::{Source, SourceOptions, refuse_swapped};
use super::via_aws::ViaAws;
use crate::base::{Error, Result, TaskKind};
use crate::engine::PackOptions;
use crate::image::Salvaged;
use crate::ops::{MetadataPolicy, PlannedStore, StoreOptions};
use crate::taskdb::NewTask;
use crate::volume::DiskFormats;

/// Pack an image into an archive
#[derive(Debug, Args)]
#[command(
    before_help = "\
Example:
  amistore store image-dir/ archives/
  amistore store --disk /dev/xvda=root.raw --disk /dev/sdb=data.raw --name \"web 2026-11\" archives/
  amistore store image-dir/ s3://bucket/prefix/ --storage-class STANDARD_IA
  amistore store ami-0123456789abcdef0 s3://bucket/ --source-profile com --target-profile archive",
    override_usage = "\
amistore store [OPTIONS] <SOURCE> <ARCHIVE>
       amistore store [OPTIONS] --disk <DEVICE=FILE>... --name <NAME> <ARCHIVE>"
)]
pub(in super::super) struct StoreArgs {
    // Not as documentation, where <ami-id> would be a tag of HTML.
    #[arg(
        value_name = "SOURCE ARCHIVE",
        required = true,
        num_args = 1..=2,
        help = "SOURCE: an image (ami-...) or snapshots (snap-..., more with commas) in EC2, or an \
                image directory (image.json and <snapshot-id>.raw files); left out with --disk. \
                ARCHIVE: a new file or s3://BUCKET/KEY, a directory or s3://BUCKET/PREFIX/ \
                (stands for <ami-id>.bin in it), or - for stdout"
    )]
    source_and_archive: Vec<PathBuf>,
    /// Compression level, 1 (fast) to 19 (small)
    #[arg(
        long,
        short,
        default_value_t = 1,
        value_name = "LEVEL",
        env = "AMISTORE_LEVEL",
        hide_env_values = true,
        allow_negative_numbers = true
    )]
    level: i32,
    /// Take blocks that read as zeros for never written; costs a second pass over the data
    #[arg(long)]
    sparse: bool,
    /// Take disk images as raw whatever they look like: without it, qcow2, VMDK, VHD and other
    /// formats, archives and compressed files are refused
    #[arg(long)]
    raw: bool,
    /// Store an image that was rescued from a damaged archive (salvage.json is beside it), with
    /// holes where blocks are missing
    #[arg(long)]
    allow_salvaged: bool,
    /// Limit of volumes that are read and sent to a bucket in parallel [default: as many as
    /// --memory has room for; 1 for files and pipes, for directory buckets, for stores other than
    /// S3, which may not take part numbers with gaps, and with a --checksum-algorithm other than
    /// MD5]
    #[arg(long, value_name = "N")]
    volumes_at_once: Option<usize>,
    /// If the archive exists with the same disks and other metadata: keep it, with a warning; fail;
    /// or update its metadata, without sending the disks again [default: keep; without the option a
    /// file that exists is an error]
    #[arg(
        long,
        value_name = "ACTION",
        value_enum,
        env = "AMISTORE_ON_METADATA_CHANGE",
        hide_env_values = true
    )]
    on_metadata_change: Option<MetadataAction>,
    #[command(flatten)]
    write: WriteArgs,
    #[command(flatten)]
    image: ImageArgs,
    #[command(flatten)]
    object: ObjectArgs,
    #[command(flatten)]
    resume: ResumeArgs,
    #[command(flatten)]
    ec2: Ec2Args,
    #[command(flatten)]
    sides: SidesArgs,
}

pub(super) fn run(args: &StoreArgs, settings: &Settings, console: &Console) -> Result<()> {
    // An invalid level should be an error before a request is sent.
    crate::codec::zstd::Encoder::new(args.level)?;
    let observer = console.observer();
    let remote = Remote::new(settings, &observer);
    let (source, archive) = args.source_and_archive()?;
    let (ec2, sides, dry_run) = (&args.ec2, &args.sides, args.write.dry_run);
    if ec2.via_aws {
        let state = &args.resume.state;
        let via_aws = ViaAws { ec2, sides, dry_run, state, remote, observer, console };
        return via_aws.store(source, &archive, &args.object, &args.image);
    }
    let options = SourceOptions {
        image: &args.image,
        formats: args.formats(),
        salvaged: args.salvaged(),
        ebs: &ec2.ebs,
        sides,
    };
    let source = Source::open(source, &options, &remote, observer.as_ref())?;
    let image = source.image();
    let archive = archive.of_archive(image.document().archive_name().as_ref())?;
    let (name, cancel) = (archive.target(), &settings.cancel);
    if let ArchiveUrl::Path(path) = &archive {
        refuse_same_file(path, source.files())?;
    }
    let destination = remote.destination(&archive, &args.target(), source.name().to_owned())?;
    let target = destination.task_target(&archive.recorded_target());
    let (options, resources) = (args.options()?, &settings.resources);
    let planned = PlannedStore::new(image, source.ebs(), destination, options, resources)?;
    let explain = |error| source.explain(error);
    if dry_run {
        let existing = planned.check(observer.as_ref(), cancel).map_err(explain)?;
        return console.result(
            || store_plan_text(planned.plan(), &name, &existing),
            || store_plan(planned.plan(), &name, &existing),
        );
    }
    console.explain(|| store_plan_text(planned.plan(), &name, &Default::default()));
    let task = NewTask {
        image_id: image.document().image_id().map(ToString::to_string),
        name: image.document().name().map(ToOwned::to_owned),
        size: image.volumes().iter().map(|volume| volume.size().bytes()).sum(),
        ..task_of(&archive, TaskKind::Store, source.name(), target)
    };
    if archive == ArchiveUrl::Stdio {
        console.give_up_stdout();
    }
    let report = recorded(console, &args.resume.state, &task, &observer, |observer| {
        planned.run(observer, cancel).map_err(explain)
    })?;
    drop((planned, remote, observer));
    console.result(|| stored_text(&report, &name), || stored(&report, &name))
}

/// The treatment of an archive with the same disks and other metadata.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum MetadataAction {
    Fail,
    Keep,
    Update,
}

impl MetadataAction {
    fn policy(self) -> MetadataPolicy {
        match self {
            Self::Fail => MetadataPolicy::Fail,
            Self::Keep => MetadataPolicy::Keep,
            Self::Update => MetadataPolicy::Update,
        }
    }
}

impl StoreArgs {
    /// The source, if it is not plain disks, and the archive: the last of one or two arguments.
    fn source_and_archive(&self) -> Result<(Option<&Path>, ArchiveUrl)> {
        match (self.image.disk.is_empty(), self.source_and_archive.as_slice()) {
            (false, [archive]) => Ok((None, ArchiveUrl::parse(archive)?)),
            (true, [source, archive]) => {
                refuse_swapped(source, archive)?;
                Ok((Some(source), ArchiveUrl::parse(archive)?))
            }
            (false, _) => {
                Err(Error::usage("with --disk there is no SOURCE: give only the ARCHIVE"))
            }
            (true, _) => Err(Error::usage(
                "SOURCE and ARCHIVE are needed: amistore store ami-0123456789abcdef0 \
                 s3://bucket/, amistore store image-dir/ archives/, or --disk DEVICE=FILE for \
                 plain disks",
            )),
        }
    }

    fn formats(&self) -> DiskFormats {
        if self.raw { DiskFormats::AsRaw } else { DiskFormats::RawOnly }
    }

    fn salvaged(&self) -> Salvaged {
        if self.allow_salvaged { Salvaged::Allowed } else { Salvaged::Refused }
    }

    fn target(&self) -> TargetOptions<'_> {
        let Self { object, write, resume, sides, volumes_at_once, .. } = self;
        TargetOptions { object, write, resume, sides, volumes_at_once: *volumes_at_once }
    }

    fn options(&self) -> Result<StoreOptions> {
        Ok(StoreOptions {
            pack: PackOptions { sparse: self.sparse, ..PackOptions::default() },
            level: self.level,
            overwrite: self.write.overwrite(),
            attributes: self.object.attributes()?,
            on_metadata_change: self.on_metadata_change.map(MetadataAction::policy),
        })
    }
}
