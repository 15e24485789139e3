//! `amistore verify`.

use super::super::args::VerifyArgs;
use super::super::output::{Console, verified, verified_text};
use super::super::remote::open_archive;
use super::super::settings::{Place, Settings, parse_percent};
use crate::base::{Error, ErrorCode, Result};
use crate::engine::Selection;
use crate::image::ImageDirectory;
use crate::object::PipeReader;
use crate::ops;

pub(in super::super) fn run(
    args: VerifyArgs,
    settings: &Settings,
    console: &Console,
) -> Result<()> {
    let place = Place::parse(&args.archive)?;
    let plan = settings.reading_plan(&place)?;
    let observer = console.observer();
    let context = super::context(&plan, observer.as_ref(), settings, console);
    let selection = match &args.sample {
        Some(share) => {
            Selection::Sample { fraction: parse_percent(share)?, seed: fastrand::u64(..) }
        }
        None => Selection::All,
    };
    let shown = place.shown("standard input");
    let outcome = match open_archive(
        &place,
        (args.aws.access(), &args.aws.link),
        &args.thaw,
        settings,
        &observer,
    )? {
        None if args.sample.is_some() || args.against.is_some() => {
            return Err(Error::usage(
                "--sample and --against need random access: name a file or an object",
            ));
        }
        None => ops::verify_stream(PipeReader::stdin(settings.cancel.clone())?, context)?,
        Some(reader) => match &args.against {
            Some(directory) => {
                ops::verify_against(reader, &ImageDirectory::open(directory)?, context)?
            }
            None => ops::verify(reader, selection, context)?,
        },
    };
    drop(observer);
    console.result(|| verified_text(&outcome, &shown), || verified(&outcome, &shown))?;
    if outcome.is_ok() {
        return Ok(());
    }
    let findings = outcome.findings.len() as u64 + outcome.more_findings;
    let (code, message) = match (&outcome.footer, args.archive.as_os_str() == "-") {
        _ if outcome.differs => (ErrorCode::SourceDiffers, "archive and source differ"),
        (None, false) => (
            ErrorCode::IndexUnreadable,
            "the archive failed verification: its index cannot be read",
        ),
        _ => (ErrorCode::VolumeDamaged, "the archive failed verification"),
    };
    Err(Error::corrupt(message).code_as(code).at("archive", shown).at("findings", findings))
}
