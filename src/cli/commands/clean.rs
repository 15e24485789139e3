//! `amistore clean`.

use std::time::SystemTime;

use super::super::args::CleanArgs;
use super::super::output::{Console, cleaned, cleaned_text};
use super::super::remote::Remote;
use super::super::settings::{Place, Settings, parse_age, state_directory};
use crate::base::{Error, Result};
use crate::ops::{self, CleanAccess, CleanOptions};

pub(in super::super) fn run(args: CleanArgs, settings: &Settings, console: &Console) -> Result<()> {
    let observer = console.observer();
    let remote = Remote::new(settings, &observer);
    let directory = state_directory(args.state.as_deref())?;
    let age = args.older_than.as_deref().map(parse_age).transpose()?;
    let uploads_below = match args.store.as_deref().map(Place::parse).transpose()? {
        None => None,
        Some(Place::S3(place)) => Some(place),
        Some(_) => {
            return Err(Error::usage(
                "uploads are looked for in buckets: s3://BUCKET or s3://BUCKET/PREFIX",
            ));
        }
    };
    let options = CleanOptions {
        began_before: age
            .map(|age| SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH)),
        uploads_below,
        abort: args.abort,
        others: args.others,
    };
    let access = CleanAccess {
        session: remote.session(),
        settings: args.aws.link.settings()?,
        access: args.aws.access(),
    };
    let found = ops::clean(&directory, &options, &access)?;
    drop(observer);
    let leftovers = &found.leftovers;
    console.result(|| cleaned_text(leftovers, args.abort), || cleaned(leftovers))?;
    found.failed.map_or(Ok(()), Err)
}
