//! `amistore restore`.

use super::super::args::RestoreArgs;
use super::super::output::{Console, restored, restored_text};
use super::super::remote::open_archive;
use super::super::settings::{Place, Settings, refuse_url};
use crate::base::{Error, Result};
use crate::catalog::{DirectoryPlace, ImagePlace};
use crate::engine::Archive;
use crate::ops;
use crate::store::PipeReader;

pub(in super::super) fn run(args: RestoreArgs, settings: &Settings, console: &Console) -> Result<()> {
    let place = Place::parse(&args.archive)?;
    let plan = settings.reading_plan(&place)?;
    let observer = console.observer();
    let context = super::context(&plan, observer.as_ref(), settings, console);
    refuse_url(&args.target.to_string_lossy())?;
    if args.target.as_os_str() == "ec2" && !args.target.exists() {
        return Err(Error::unsupported("this version restores to directories only; for a directory of this name say ./ec2"));
    }
    let shown = args.target.display().to_string();
    let target = DirectoryPlace { path: args.target.clone(), overwrite: args.write.overwrite(), durability: args.write.durability() };
    let report = match open_archive(&place, (&args.aws, &args.thaw), settings, &observer)? {
        None if args.write.dry_run => {
            return Err(Error::usage("a stream cannot be looked at without reading it: --dry-run needs a file or an object"));
        }
        None => ops::restore_stream(PipeReader::stdin(settings.cancel.clone())?, |document| target.begin(document, None), context)?,
        Some(reader) => {
            let archive = Archive::open(reader.as_ref())?;
            if args.write.dry_run {
                super::store::refuse_existing(&args.target.join(crate::catalog::IMAGE_JSON), &args.write)?;
                let planned = ops::plan_restore(&archive);
                return console.result(|| restored_text(&planned, &shown, true), || restored(&planned, &shown, true));
            }
            match &place {
                // What came over a network should not have to come twice.
                Place::S3(source) => {
                    let absolute = std::path::absolute(&args.target).unwrap_or_else(|_| args.target.clone());
                    let resumption = args.resume.resumption(source.to_string(), absolute.display().to_string())?;
                    ops::restore_resumable(&archive, &target, &[], &resumption, context)?
                }
                Place::Path(_) | Place::Stdio => ops::restore(&archive, target.begin(archive.document(), None)?, context)?,
            }
        }
    };
    drop(observer);
    console.result(|| restored_text(&report, &shown, false), || restored(&report, &shown, false))
}
