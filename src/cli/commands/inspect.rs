//! `amistore inspect`.

use std::sync::Arc;

use super::super::args::InspectArgs;
use super::super::output::{Console, inspection, inspection_text};
use super::super::remote::open_archive;
use super::super::settings::{Place, Settings};
use crate::base::Result;
use crate::engine::Archive;
use crate::object::{CountingReader, PipeReader};
use crate::ops;

pub(in super::super) fn run(
    args: InspectArgs,
    settings: &Settings,
    console: &Console,
) -> Result<()> {
    let place = Place::parse(&args.archive)?;
    let plan = settings.reading_plan(&place)?;
    let observer = console.observer();
    let context = super::context(&plan, observer.as_ref(), settings, console);
    let shown = place.shown("standard input");
    let (report, bytes_read) = match open_archive(
        &place,
        (args.aws.access(), &args.aws.link),
        &args.thaw,
        settings,
        &observer,
    )? {
        None => {
            let report = ops::inspect_stream(PipeReader::stdin(settings.cancel.clone())?, context)?;
            let read = report.archive_len;
            (report, read)
        }
        Some(reader) => {
            let reader = Arc::new(CountingReader::new(reader));
            let report = ops::inspect(&Archive::open(reader.clone())?)?;
            (report, reader.bytes_read())
        }
    };
    drop(observer);
    console.explain(|| format!("{bytes_read} bytes of the archive read"));
    console.result(|| inspection_text(&report, &shown), || inspection(&report, &shown, bytes_read))
}
