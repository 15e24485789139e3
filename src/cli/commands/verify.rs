//! `amistore verify`.

use std::path::PathBuf;

use clap::Args;

use super::super::options::{ArchiveUrl, AwsArgs, Settings, ThawArgs, parse_percent};
use super::super::output::{Console, verified, verified_text};
use super::super::remote::Remote;
use crate::base::{Error, Result};
use crate::engine::{Context, Depth, Selection};
use crate::image::ImageDirectory;
use crate::object::PipeReader;
use crate::ops;

/// Check an archive without writing anything
#[derive(Debug, Args)]
#[command(before_help = "\
Example:
  amistore verify ami-0123456789abcdef0.bin
  amistore verify --stored s3://bucket/ami-0123456789abcdef0.bin
  amistore verify --sample 5% ami-0123456789abcdef0.bin
  amistore verify --against image-dir/ ami-0123456789abcdef0.bin")]
pub(in super::super) struct VerifyArgs {
    /// A file, s3://BUCKET/KEY, or - for stdin
    #[arg(value_name = "ARCHIVE")]
    archive: PathBuf,
    /// Compare every stored byte with its digest, and inflate nothing: several times as fast
    #[arg(long, conflicts_with_all = ["sample", "against"])]
    stored: bool,
    /// Check a random part of the data (index and metadata always whole)
    #[arg(long, value_name = "N%")]
    sample: Option<String>,
    /// Compare with this image directory, too
    #[arg(long, value_name = "DIR", conflicts_with = "sample")]
    against: Option<PathBuf>,
    #[command(flatten)]
    thaw: ThawArgs,
    #[command(flatten)]
    aws: AwsArgs,
}

pub(super) fn run(args: &VerifyArgs, settings: &Settings, console: &Console) -> Result<()> {
    let url = ArchiveUrl::parse(&args.archive)?;
    let plan = settings.plan(url.incoming())?;
    console.explain_plan(&plan, settings);
    let observer = console.observer();
    let context = Context { plan: &plan, observer: observer.as_ref(), cancel: &settings.cancel };
    let selection = match &args.sample {
        Some(share) => {
            Selection::Sample { fraction: parse_percent(share)?, seed: fastrand::u64(..) }
        }
        None => Selection::All,
    };
    let depth = if args.stored { Depth::Stored } else { Depth::Blocks };
    let remote = Remote::new(settings, &observer);
    let outcome = match remote.open(&url, args.aws.requests()?, &args.thaw)? {
        None if args.sample.is_some() || args.against.is_some() => {
            return Err(Error::usage(
                "--sample and --against need random access: name a file or an object",
            ));
        }
        None => ops::verify_stream(PipeReader::stdin(settings.cancel.clone())?, depth, context)?,
        Some(reader) => match &args.against {
            Some(directory) => {
                ops::verify_against(reader, &ImageDirectory::open_as_is(directory)?, context)?
            }
            None => ops::verify(reader, selection, depth, context)?,
        },
    };
    drop((remote, observer));
    let archive = url.source();
    console.result(|| verified_text(&outcome, &archive), || verified(&outcome, &archive))?;
    outcome.error(&archive, url == ArchiveUrl::Stdio).map_or(Ok(()), Err)
}
