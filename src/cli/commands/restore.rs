//! `amistore restore`.

use super::super::args::RestoreArgs;
use super::super::output::{Console, restored, restored_text};
use super::super::settings::{Place, Settings, refuse_url};
use crate::base::{Error, Result};
use crate::catalog::{ImageDirectoryTarget, ImageTarget};
use crate::engine::Archive;
use crate::ops;
use crate::store::{FileReader, PipeReader};

pub(in super::super) fn run(args: RestoreArgs, settings: &Settings, console: &Console) -> Result<()> {
    let plan = settings.plan(1)?;
    let observer = console.observer();
    let context = super::context(&plan, observer.as_ref(), settings, console);
    refuse_url(&args.target.to_string_lossy())?;
    if args.target.as_os_str() == "ec2" && !args.target.exists() {
        return Err(Error::unsupported("this version restores to directories only; for a directory of this name say ./ec2"));
    }
    let shown = args.target.display().to_string();
    let target = || -> Result<Box<dyn ImageTarget>> {
        Ok(Box::new(ImageDirectoryTarget::create(&args.target, args.write.overwrite(), args.write.durability())?))
    };
    let report = match Place::parse(&args.archive)? {
        Place::Stdio if args.write.dry_run => {
            return Err(Error::usage("a stream cannot be looked at without reading it: --dry-run needs a file"));
        }
        Place::Stdio => ops::restore_stream(PipeReader::stdin(settings.cancel.clone())?, |_| target(), context)?,
        Place::Path(path) => {
            let reader = FileReader::open(&path)?;
            let archive = Archive::open(&reader)?;
            if args.write.dry_run {
                super::store::refuse_existing(&args.target.join(crate::catalog::IMAGE_JSON), &args.write)?;
                let planned = ops::plan_restore(&archive);
                return console.result(|| restored_text(&planned, &shown, true), || restored(&planned, &shown, true));
            }
            ops::restore(&archive, target()?, context)?
        }
    };
    drop(observer);
    console.result(|| restored_text(&report, &shown, false), || restored(&report, &shown, false))
}
