//! `amistore extract`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::super::options::{
    ArchiveUrl, AwsArgs, Settings, ThawArgs, WriteArgs, parse_range, refuse_same_file,
};
use super::super::output::{Console, extracted, extracted_text, metadata, metadata_text};
use super::super::remote::Remote;
use super::salvage::Rescue;
use crate::base::{Error, Result};
use crate::engine::{Archive, ArchiveVolume, Context};
use crate::object::{CountingReader, PipeWriter};
use crate::ops::{self, Extracted, VolumeName, VolumeRange};

/// Take one volume, a range of it, or the metadata out of an archive
#[derive(Debug, Args)]
#[command(
    before_help = "\
Example:
  amistore extract ami.bin --device /dev/sdb -o data.raw
  amistore extract s3://bucket/ami.bin --device /dev/xvda --range 1MiB+64KiB -o - | xxd
  amistore extract ami.bin --image-json",
    group = clap::ArgGroup::new("what").required(true).args(["device", "snapshot", "image_json"])
)]
pub(in super::super) struct ExtractArgs {
    /// A file, or s3://BUCKET/KEY
    #[arg(value_name = "ARCHIVE")]
    archive: PathBuf,
    /// The volume behind this device name
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// The volume of this snapshot
    #[arg(long, value_name = "ID")]
    snapshot: Option<String>,
    /// The metadata, image.json
    #[arg(long)]
    image_json: bool,
    /// Only LENGTH bytes from OFFSET, each in bytes or with KiB, MiB, GiB: reads no more of the
    /// archive than they need
    #[arg(long, value_name = "OFFSET+LENGTH", conflicts_with = "image_json")]
    range: Option<String>,
    /// The output: a file, - for stdout or, with --force, a block device (not with --range);
    /// image.json goes to stdout without it
    #[arg(short = 'o', long = "to", value_name = "FILE", required_unless_present = "image_json")]
    file: Option<PathBuf>,
    /// Rescue from a damaged archive every block of the volume that proves itself:
    /// FILE.salvage.json lists what is missing, and the exit code is 5. Reads all of the archive,
    /// which may be - for stdin
    #[arg(long, conflicts_with_all = ["range", "image_json"])]
    salvage: bool,
    #[command(flatten)]
    write: WriteArgs,
    #[command(flatten)]
    thaw: ThawArgs,
    #[command(flatten)]
    aws: AwsArgs,
}

pub(super) fn run(args: &ExtractArgs, settings: &Settings, console: &Console) -> Result<()> {
    let range = args.range.as_deref().map(parse_range).transpose()?;
    let url = ArchiveUrl::parse(&args.archive)?;
    if args.salvage {
        return args.salvage(&url, settings, console);
    }
    let plan = settings.plan(url.incoming())?;
    console.explain_plan(&plan, settings);
    let observer = console.observer();
    let context = Context { plan: &plan, observer: observer.as_ref(), cancel: &settings.cancel };
    let opened = Remote::new(settings, &observer).open(&url, args.aws.requests()?, &args.thaw)?;
    let reader = Arc::new(CountingReader::new(opened.ok_or_else(|| {
        Error::usage(
            "extract reads only what it needs, which a pipe does not allow: name a file, or use \
             restore",
        )
    })?));
    let archive = Archive::open(reader.clone())?;
    if let (Some(file), ArchiveUrl::Path(path)) = (args.output_file(), &url) {
        refuse_same_file(file, [path.as_path()])?;
    }
    let source = url.source();
    let Some(name) = args.volume() else {
        return image_json(args, (&archive, &source), console);
    };
    let volume = name.find(&archive)?;
    let report = args.extract(&volume, range, context, console)?;
    drop(observer);
    let dry_run = args.write.dry_run;
    let read = if dry_run { report.stored } else { reader.bytes_read() };
    let file = args.output_file().map(|file| file.display().to_string());
    let file = file.unwrap_or_else(|| "standard output".to_owned());
    console.result(
        || extracted_text(&report, &file, dry_run, read),
        || extracted(&report, (&archive, &source), &file, dry_run, read),
    )
}

impl ExtractArgs {
    /// The volume; `None` for the metadata.
    fn volume(&self) -> Option<VolumeName> {
        let device = self.device.clone().map(VolumeName::Device);
        device.or_else(|| self.snapshot.clone().map(VolumeName::Snapshot))
    }

    /// Rescues the volume to a file.
    fn salvage(&self, url: &ArchiveUrl, settings: &Settings, console: &Console) -> Result<()> {
        let Some((name, file)) = self.volume().zip(self.output_file()) else {
            return Err(Error::usage(
                "a rescue needs a file, because blocks that do not prove themselves in the end are \
                 taken back: name one with -o",
            ));
        };
        if let ArchiveUrl::Path(path) = url {
            refuse_same_file(file, [path.as_path()])?;
        }
        let (requests, thaw, write) = (self.aws.requests()?, &self.thaw, &self.write);
        Rescue { url, requests, thaw, write, settings, console }.one_to(&name, file)
    }

    /// The file that is written; `None` for standard output.
    fn output_file(&self) -> Option<&Path> {
        self.file.as_deref().filter(|file| file.as_os_str() != "-")
    }

    /// Extracts a volume, or plans that.
    fn extract(
        &self,
        volume: &ArchiveVolume,
        range: Option<VolumeRange>,
        context: Context<'_>,
        console: &Console,
    ) -> Result<Extracted> {
        let (overwrite, durability) = (self.write.overwrite(), self.write.durability());
        let Some(file) = self.output_file() else {
            if self.write.dry_run {
                return ops::plan_extract(volume, range);
            }
            if std::io::stdout().is_terminal() {
                return Err(Error::usage(
                    "a volume is not written to a terminal: redirect stdout, or name a file",
                ));
            }
            console.give_up_stdout();
            let writer = PipeWriter::stdout(context.cancel.clone())?.for_volume();
            return ops::extract_to_stream(volume, range, Box::new(writer), context);
        };
        if self.write.dry_run {
            ops::check_output(file, overwrite)?;
            return ops::plan_extract(volume, range);
        }
        match range {
            Some(range) => ops::extract_range(volume, range, file, overwrite, durability, context),
            None => ops::extract(volume, file, overwrite, durability, context),
        }
    }
}

/// Writes the metadata to a file, or to stdout.
fn image_json(
    args: &ExtractArgs,
    (archive, url): (&Archive, &str),
    console: &Console,
) -> Result<()> {
    let bytes = archive.document().bytes();
    let Some(file) = args.output_file() else { return console.write(bytes) };
    let write = &args.write;
    if write.dry_run {
        ops::check_output(file, write.overwrite())?;
    } else {
        ops::extract_document(archive, file, write.overwrite(), write.durability())?;
    }
    let (name, dry_run, len) = (file.display().to_string(), write.dry_run, bytes.len());
    console
        .result(|| metadata_text(&name, dry_run, len), || metadata((archive, url), &name, dry_run))
}
