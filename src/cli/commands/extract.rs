//! `amistore extract`.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::args::{ExtractArgs, WriteArgs};
use super::super::output::{Console, extracted, extracted_text, metadata, metadata_text};
use super::super::remote::open_archive;
use super::super::settings::{Place, Settings, parse_range, refuse_same_file};
use crate::base::{Error, Result};
use crate::engine::Archive;
use crate::localfs::PartialFile;
use crate::object::{CountingReader, PipeWriter};
use crate::ops::{self, VolumeName};

pub(in super::super) fn run(
    args: ExtractArgs,
    settings: &Settings,
    console: &Console,
) -> Result<()> {
    let range = args.range.as_deref().map(parse_range).transpose()?;
    let place = Place::parse(&args.archive)?;
    let plan = settings.reading_plan(&place)?;
    let observer = console.observer();
    let context = super::context(&plan, observer.as_ref(), settings, console);
    let Some(reader) =
        open_archive(&place, (args.aws.access(), &args.aws.link), &args.thaw, settings, &observer)?
    else {
        return Err(Error::usage(
            "extract reads only what it needs, which a pipe does not allow: name a file, or use restore",
        ));
    };
    let reader = Arc::new(CountingReader::new(reader));
    let archive = Archive::open(reader.clone())?;
    let stdout = args.file.as_deref() == Some(Path::new("-"));
    if let (Some(file), Place::Path(path), false) = (&args.file, &place, stdout) {
        refuse_same_file(file, [path.as_path()])?;
    }
    let name = match (args.device, args.snapshot) {
        (Some(device), _) => VolumeName::Device(device),
        (None, Some(snapshot)) => VolumeName::Snapshot(snapshot),
        (None, None) => return image_json(&archive, args.file, &args.write, console),
    };
    let file = args.file.ok_or_else(|| Error::usage("-o FILE is wanted"))?;
    let shown = if stdout { "standard output".to_owned() } else { file.display().to_string() };
    let volume = name.find(&archive)?;
    if args.write.dry_run {
        if !stdout {
            super::refuse_existing(&file, &args.write)?;
        }
        let planned = ops::plan_extract(&volume, range)?;
        return console.result(
            || extracted_text(&planned, &shown, true, planned.stored),
            || extracted(&planned, &shown, true, planned.stored),
        );
    }
    let (overwrite, durability) = (args.write.overwrite(), args.write.durability());
    let report = match range {
        _ if stdout => {
            if std::io::stdout().is_terminal() {
                return Err(Error::usage(
                    "a volume is not written to a terminal: redirect stdout, or name a file",
                ));
            }
            console.give_up_stdout();
            let writer = PipeWriter::stdout(settings.cancel.clone())?.for_volume();
            ops::extract_to_stream(&volume, range, Box::new(writer), context)?
        }
        Some(range) => ops::extract_range(&volume, range, &file, overwrite, durability, context)?,
        None => ops::extract(&volume, &file, overwrite, durability, context)?,
    };
    drop(observer);
    let read = reader.bytes_read();
    console.result(
        || extracted_text(&report, &shown, false, read),
        || extracted(&report, &shown, false, read),
    )
}

/// Writes the metadata to a file, or to stdout.
fn image_json(
    archive: &Archive,
    file: Option<PathBuf>,
    write: &WriteArgs,
    console: &Console,
) -> Result<()> {
    let bytes = archive.document().bytes();
    let Some(file) = file.filter(|file| file.as_os_str() != "-") else {
        return console.write(bytes);
    };
    let shown = file.display().to_string();
    if write.dry_run {
        super::refuse_existing(&file, write)?;
    } else {
        let partial = PartialFile::create(&file, write.overwrite(), write.durability())?;
        let failed = |cause| Error::io("cannot write image.json", cause).at("path", &shown);
        partial.file().write_all(bytes).map_err(failed)?;
        partial.commit()?;
    }
    let (dry_run, len) = (write.dry_run, bytes.len());
    console.result(|| metadata_text(&shown, dry_run, len), || metadata(&shown, dry_run, len))
}
