//! `amistore retire`.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;

use super::super::options::{ArchiveUrl, EbsArgs, Settings, SidesArgs, ThawArgs};
use super::super::output::{Console, retired, retired_text};
use super::super::remote::Remote;
use crate::aws::ec2::RetireAction;
use crate::base::{Error, ImageId, Result};
use crate::engine::{Context, Incoming};
use crate::ops::{PermittedRetire, shell_line};

/// Take an image in EC2 out of service, after its archive was compared with it
#[derive(Debug, Args)]
#[command(
    before_help = "\
Example:
  amistore retire ami-0123456789abcdef0 --archive s3://bucket/prefix/ --disable
  amistore retire ami-0123456789abcdef0 --archive s3://bucket/ --deregister \
--delete-snapshots --yes",
    group = clap::ArgGroup::new("action")
        .required(true)
        .args(["deprecate", "disable", "deregister"])
)]
pub(in super::super) struct RetireArgs {
    /// The image
    #[arg(value_name = "AMI")]
    image: String,
    // Not as documentation, where <ami-id> would be a tag of HTML.
    #[arg(
        long,
        value_name = "ARCHIVE",
        help = "Its archive: a file or s3://BUCKET/KEY; a directory or s3://BUCKET/PREFIX/ stands \
                for <ami-id>.bin in it"
    )]
    archive: PathBuf,
    /// Hide it from other accounts from this time on (RFC 3339), or five minutes after the
    /// comparison; it can still be launched
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "now")]
    deprecate: Option<String>,
    /// Forbid launches; its launch permissions are lost. It can be enabled again
    #[arg(long)]
    disable: bool,
    /// Delete it
    #[arg(long)]
    deregister: bool,
    /// Delete its snapshots, too, except those that other images use
    #[arg(long, requires = "deregister")]
    delete_snapshots: bool,
    /// Go on if the metadata of archive and image differ, and every block is equal
    #[arg(long)]
    allow_metadata_changes: bool,
    /// Skip the question before the change
    #[arg(long, short)]
    yes: bool,
    /// Compare, print the plan, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    ebs: EbsArgs,
    #[command(flatten)]
    sides: SidesArgs,
}

pub(super) fn run(args: &RetireArgs, settings: &Settings, console: &Console) -> Result<()> {
    let id = ImageId::parse(&args.image).map_err(|error| args.explain(error))?;
    let url = ArchiveUrl::parse(&args.archive)?.of_archive(format!("{id}.bin").as_ref())?;
    let asks = !args.yes && !args.dry_run;
    if asks && !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        return Err(Error::usage(
            "stdin is not a terminal: pass --yes, or --dry-run to see the plan",
        ));
    }
    let observer = console.observer();
    let remote = Remote::new(settings, &observer);
    let compute = remote.compute(&args.sides.source()?, &args.ebs)?;
    let permitted = PermittedRetire::new(&compute, id, args.action())?
        .allow_metadata_changes(args.allow_metadata_changes);
    let archive = remote
        .open(&url, args.sides.target()?, &ThawArgs::default())?
        .ok_or_else(|| Error::usage("a stream can be read once only: name a file or an object"))?;
    // As with a store: connections hold as much as the blocks that they bring.
    let is_remote = archive.service().is_some();
    let plan = settings.plan(if is_remote { Incoming::Both } else { Incoming::Blocks })?;
    console.explain_plan(&plan, settings);
    let context = Context { plan: &plan, observer: observer.as_ref(), cancel: &settings.cancel };
    let planned = permitted.compare(archive, context)?;
    drop((remote, observer));
    let archive = url.source();
    let changed = planned.metadata_changed();
    let text = retired_text(planned.plan(), changed, &archive, false);
    if args.dry_run {
        return console.result(|| text, || retired(&planned, planned.plan(), &archive, true));
    }
    if !asks {
        console.say(&text);
    } else if !console.ask(&text, "Go on? [y/N]")? {
        return Err(Error::interrupted());
    }
    let done = planned.run()?;
    console.result(
        || retired_text(&done, changed, &archive, true),
        || retired(&planned, &done, &archive, false),
    )
}

impl RetireArgs {
    /// An archive in the place of the image may be the other argument.
    fn explain(&self, error: Error) -> Error {
        let archive = self.archive.to_string_lossy();
        if ImageId::parse(&archive).is_err() {
            return error;
        }
        Error::usage(format!(
            "image and archive are in the wrong order: amistore retire {archive} --archive {}",
            shell_line(std::slice::from_ref(&self.image))
        ))
    }

    fn action(&self) -> RetireAction {
        match (&self.deprecate, self.disable) {
            (Some(time), _) if time == "now" => RetireAction::Deprecate(String::new()),
            (Some(time), _) => RetireAction::Deprecate(time.clone()),
            (None, true) => RetireAction::Disable,
            (None, false) => RetireAction::Deregister { with_snapshots: self.delete_snapshots },
        }
    }
}
