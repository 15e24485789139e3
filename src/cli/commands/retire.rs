//! `amistore retire`.

use std::io::{BufRead, IsTerminal, Write};
use std::time::{Duration, SystemTime};

use super::super::args::{RetireArgs, ThawArgs};
use super::super::output::{Console, retired, retired_text};
use super::super::remote::{Remote, Side, open_archive};
use super::super::settings::{Place, Settings};
use crate::aws::ec2::{Ec2Image, Ec2Source, RetireAction, plan_retire, retire};
use crate::base::{Error, ErrorCode, ErrorKind, ImageId, Result, rfc3339};
use crate::ops;

/// EC2 takes no time that is past, and a comparison takes its time.
const SOON: Duration = Duration::from_secs(300);

pub(in super::super) fn run(
    args: RetireArgs,
    settings: &Settings,
    console: &Console,
) -> Result<()> {
    let id = ImageId::parse(&args.image)?;
    let action = match (&args.deprecate, args.disable) {
        (Some(time), _) if time == "now" => RetireAction::Deprecate(String::new()),
        (Some(time), _) => RetireAction::Deprecate(time.clone()),
        (None, true) => RetireAction::Disable,
        (None, false) => RetireAction::Deregister { with_snapshots: args.delete_snapshots },
    };
    let place = Place::parse(&args.archive)?.of_archive(&format!("{id}.bin"));
    let shown = place.shown("standard input");
    let asks = !args.yes && !args.dry_run;
    if asks && !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        return Err(Error::usage(
            "nobody can be asked here: give --yes, or --dry-run to see what would be done",
        ));
    }
    let observer = console.observer();
    let compute = Remote::new(settings, &observer).compute(
        &args.sides.access(Side::Source),
        &args.sides.link,
        &args.ebs,
    )?;
    // What EC2 would refuse should not wait for hours of comparison.
    plan_retire(&compute.ec2, &id, action.clone())?;
    let archive = open_archive(
        &place,
        (args.sides.access(Side::Target), &args.sides.link),
        &ThawArgs::default(),
        settings,
        &observer,
    )?;
    let reader = archive
        .ok_or_else(|| Error::usage("a stream can be read once only: name a file or an object"))?;
    let image = Ec2Image::open(
        &compute.ec2,
        &compute.ebs,
        &compute.quotas,
        &Ec2Source::Image(id.clone()),
        observer.as_ref(),
    )?;
    // As with a store: connections hold as much as the blocks that they bring.
    let plan = settings.comparing_plan(&place)?;
    let context = super::context(&plan, observer.as_ref(), settings, console);
    let verified = ops::verify_against(reader, &image, context)?;
    if !verified.is_ok() {
        let mut refused = Error::new(
            ErrorKind::Corrupt,
            "the archive is not what the image is: nothing was done to the image",
        )
        .code_as(ErrorCode::ArchiveDiffersFromImage)
        .at("image_id", &id);
        if let Some(finding) = verified.findings.into_iter().next() {
            // Causes are shown by their messages alone, and where it is should be shown.
            refused = finding
                .context()
                .iter()
                .fold(refused, |refused, (key, value)| refused.at(key, value))
                .because(finding);
        }
        return Err(refused.at("archive", shown));
    }
    let action = match action {
        RetireAction::Deprecate(time) if time.is_empty() => {
            RetireAction::Deprecate(rfc3339(SystemTime::now() + SOON))
        }
        action => action,
    };
    let planned = plan_retire(&compute.ec2, &id, action)?;
    drop(observer);
    if args.dry_run {
        return console
            .result(|| retired_text(&planned, &shown, false), || retired(&planned, &shown, true));
    }
    if asks {
        ask(&retired_text(&planned, &shown, false))?;
    } else {
        console.say(&retired_text(&planned, &shown, false));
    }
    let done = retire(&compute.ec2, &planned)?;
    console.result(|| retired_text(&done, &shown, true), || retired(&done, &shown, false))
}

/// Shows what would be done, and asks.
fn ask(plan: &str) -> Result<()> {
    let failed = |cause| Error::io("cannot ask", cause);
    let mut stderr = std::io::stderr().lock();
    write!(stderr, "{plan}Go on? [y/N] ").and_then(|()| stderr.flush()).map_err(failed)?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(Error::interrupted()) }
}
