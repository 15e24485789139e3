//! `amistore extract`.

use std::io::Write;
use std::sync::Arc;

use super::super::args::ExtractArgs;
use super::super::output::{Console, extracted, extracted_text, metadata, metadata_text};
use super::super::remote::open_archive;
use super::super::settings::{Place, Settings, refuse_same_file};
use crate::base::{Error, Result};
use crate::engine::Archive;
use crate::localfs::PartialFile;
use crate::object::CountingReader;
use crate::ops::{self, Wanted};

pub(in super::super) fn run(
    args: ExtractArgs,
    settings: &Settings,
    console: &Console,
) -> Result<()> {
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
    if let (Some(file), Place::Path(path)) = (&args.file, &place) {
        refuse_same_file(file, [path.as_path()])?;
    }
    let (overwrite, durability) = (args.write.overwrite(), args.write.durability());
    let wanted = match (args.device, args.snapshot) {
        (Some(device), _) => Wanted::Device(device),
        (None, Some(snapshot)) => Wanted::Snapshot(snapshot),
        (None, None) => {
            let bytes = archive.document().bytes();
            let Some(file) = args.file.filter(|file| file.as_os_str() != "-") else {
                return console.write(bytes);
            };
            let shown = file.display().to_string();
            if args.write.dry_run {
                super::store::refuse_existing(&file, &args.write)?;
            } else {
                let partial = PartialFile::create(&file, overwrite, durability)?;
                partial.file().write_all(bytes).map_err(|cause| {
                    Error::io("cannot write image.json", cause).at("path", &shown)
                })?;
                partial.commit()?;
            }
            let (dry_run, len) = (args.write.dry_run, bytes.len());
            return console
                .result(|| metadata_text(&shown, dry_run, len), || metadata(&shown, dry_run, len));
        }
    };
    let file = args.file.ok_or_else(|| Error::usage("-o FILE is wanted"))?;
    if file.as_os_str() == "-" {
        return Err(Error::usage(
            "a volume is written by positions, in parallel: name a file or a block device",
        ));
    }
    let shown = file.display().to_string();
    if args.write.dry_run {
        super::store::refuse_existing(&file, &args.write)?;
        let planned = ops::plan_extract(&archive, &wanted)?;
        return console.result(
            || extracted_text(&planned, &shown, true, planned.stored),
            || extracted(&planned, &shown, true, planned.stored),
        );
    }
    let report = ops::extract(&archive, &wanted, &file, overwrite, durability, context)?;
    drop(observer);
    let read = reader.bytes_read();
    console.result(
        || extracted_text(&report, &shown, false, read),
        || extracted(&report, &shown, false, read),
    )
}
