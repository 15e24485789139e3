//! `amistore inspect`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::super::options::{ArchiveUrl, AwsArgs, Settings, ThawArgs};
use super::super::output::{Console, inspection, inspection_text};
use super::super::remote::Remote;
use crate::base::Result;
use crate::engine::{Archive, Context};
use crate::object::{CountingReader, PipeReader};
use crate::ops;

/// Show the content of an archive; reads only its head and index
#[derive(Debug, Args)]
#[command(before_help = "\
Example:
  amistore inspect ami-0123456789abcdef0.bin
  amistore inspect --output json ami.bin | jq .Volumes")]
pub(in super::super) struct InspectArgs {
    /// A file, s3://BUCKET/KEY, or - for stdin (which is read and checked to its end)
    #[arg(value_name = "ARCHIVE")]
    archive: PathBuf,
    #[command(flatten)]
    thaw: ThawArgs,
    #[command(flatten)]
    aws: AwsArgs,
}

pub(super) fn run(args: &InspectArgs, settings: &Settings, console: &Console) -> Result<()> {
    let url = ArchiveUrl::parse(&args.archive)?;
    let plan = settings.plan(url.incoming())?;
    console.explain_plan(&plan, settings);
    let observer = console.observer();
    let remote = Remote::new(settings, &observer);
    let (report, bytes_read) = match remote.open(&url, args.aws.requests()?, &args.thaw)? {
        None => {
            let input = PipeReader::stdin(settings.cancel.clone())?;
            let (observer, cancel) = (observer.as_ref(), &settings.cancel);
            let report = ops::inspect_stream(input, Context { plan: &plan, observer, cancel })?;
            let read = report.archive_len;
            (report, read)
        }
        Some(reader) => {
            let reader = Arc::new(CountingReader::new(reader));
            let report = ops::inspect(&Archive::open(reader.clone())?)?;
            (report, reader.bytes_read())
        }
    };
    drop((remote, observer));
    console.explain(|| format!("{bytes_read} bytes of the archive read"));
    let archive = url.source();
    console
        .result(|| inspection_text(&report, &archive), || inspection(&report, &archive, bytes_read))
}
