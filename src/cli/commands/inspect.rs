//! `amistore inspect`.

use super::super::args::InspectArgs;
use super::super::output::{Console, inspection, inspection_text};
use super::super::settings::{Place, Settings};
use crate::base::Result;
use crate::engine::Archive;
use crate::ops;
use crate::store::{CountingReader, FileReader, PipeReader};

pub(in super::super) fn run(args: InspectArgs, settings: &Settings, console: &Console) -> Result<()> {
    let plan = settings.plan(1)?;
    let observer = console.observer();
    let context = super::context(&plan, observer.as_ref(), settings, console);
    let (shown, report, bytes_read) = match Place::parse(&args.archive)? {
        Place::Stdio => {
            let report = ops::inspect_stream(PipeReader::stdin(settings.cancel.clone())?, context)?;
            let read = report.archive_len;
            ("standard input".to_owned(), report, read)
        }
        Place::Path(path) => {
            let reader = CountingReader::new(FileReader::open(&path)?);
            let report = ops::inspect(&Archive::open(&reader)?)?;
            (path.display().to_string(), report, reader.bytes_read())
        }
    };
    drop(observer);
    console.explain(|| format!("{bytes_read} bytes of the archive read"));
    console.result(|| inspection_text(&report, &shown), || inspection(&report, &shown, bytes_read))
}
