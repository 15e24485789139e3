//! `amistore restore`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::super::options::{
    ArchiveUrl, Ec2Args, EditArgs, ResumeArgs, Settings, SidesArgs, ThawArgs, WriteArgs,
};
use super::super::output::{
    Console, Restoration, restoration, restoration_text, restore_plan, restore_plan_text,
};
use super::super::record::{recorded, task_of};
use super::super::remote::Remote;
use super::super::source::swapped;
use super::restore_stream;
use super::salvage::Rescue;
use super::via_aws::ViaAws;
use crate::aws::ec2::{Ec2Destination, Ec2Options};
use crate::base::{Error, Observer, Result, TaskKind};
use crate::engine::Archive;
use crate::image::DirectoryDestination;
use crate::ops::{PlannedRestore, RestoreDestination, refuse_url};
use crate::taskdb::NewTask;

/// Restore an archive to EC2, as a new image, or to an image directory
#[derive(Debug, Args)]
#[command(before_help = "\
Example:
  amistore restore ami-0123456789abcdef0.bin restored/
  ssh host cat ami.bin | amistore restore - restored/
  amistore restore s3://bucket/ami-0123456789abcdef0.bin restored/
  amistore restore s3://bucket/ami-0123456789abcdef0.bin ec2 --source-profile com \
--target-profile gov --encrypted")]
pub(in super::super) struct RestoreArgs {
    /// A file, s3://BUCKET/KEY, or - for stdin
    #[arg(value_name = "ARCHIVE")]
    archive: PathBuf,
    // Not as documentation, where <snapshot-id> would be a tag of HTML.
    #[arg(
        value_name = "TARGET",
        help = "ec2 (a new image), or a directory, made if it does not exist: gets image.json and \
                sparse <snapshot-id>.raw files"
    )]
    target: PathBuf,
    /// Rescue from a damaged archive every volume and block that proves itself, to a directory:
    /// salvage.json in it lists what is missing, and the exit code is 5
    #[arg(long)]
    salvage: bool,
    #[command(flatten)]
    write: WriteArgs,
    #[command(flatten)]
    resume: ResumeArgs,
    #[command(flatten)]
    thaw: ThawArgs,
    #[command(flatten)]
    edits: EditArgs,
    #[command(flatten)]
    ec2: Ec2Args,
    #[command(flatten)]
    sides: SidesArgs,
}

pub(super) fn run(args: &RestoreArgs, settings: &Settings, console: &Console) -> Result<()> {
    args.check_target()?;
    let url = ArchiveUrl::parse(&args.archive)?;
    if args.salvage {
        let (requests, thaw, write) = (args.sides.only_bucket()?, &args.thaw, &args.write);
        let rescue = Rescue { url: &url, requests, thaw, write, settings, console };
        return rescue.all_to(&args.target);
    }
    let observer = console.observer();
    let remote = Remote::new(settings, &observer);
    let (ec2, sides, dry_run) = (&args.ec2, &args.sides, args.write.dry_run);
    if ec2.via_aws {
        let state = &args.resume.state;
        let via_aws = ViaAws { ec2, sides, dry_run, state, remote, observer, console };
        return via_aws.restore(&url, &args.edits);
    }
    let destination = args.destination(&remote, &observer)?;
    let opened = remote.open(&url, args.sides.only_bucket()?, &args.thaw)?;
    drop(remote);
    let (name, state) = (args.target.display().to_string(), &args.resume.state);
    let Some(reader) = opened else {
        let target = (name, dry_run);
        return restore_stream::run(destination, target, state, observer, settings, console);
    };
    let archive = Archive::open(reader)?;
    let target = destination.task_target(&archive);
    let resumption = destination
        .is_continued(&archive)
        .then(|| args.resume.resumption(url.source(), target.clone()))
        .transpose()?;
    let resources = &settings.resources;
    let planned = PlannedRestore::new(&archive, &destination, resumption, resources)?;
    if dry_run {
        planned.check()?;
        return console.result(
            || restore_plan_text(planned.plan(), &name),
            || restore_plan(planned.plan(), &url.source(), &name),
        );
    }
    console.explain(|| restore_plan_text(planned.plan(), &name));
    let volumes = &archive.root().manifest.volumes;
    let task = NewTask {
        image_id: archive.document().image_id().map(ToString::to_string),
        name: archive.document().name().map(ToOwned::to_owned),
        size: volumes.iter().map(|volume| volume.size.bytes()).sum(),
        ..task_of(&url, TaskKind::Restore, url.source(), target)
    };
    let report = recorded(console, state, &task, &observer, |observer| {
        planned.run(observer, &settings.cancel)
    })?;
    drop((planned, observer));
    let restored = Restoration::new(report, destination, url.source(), name)?;
    console.result(|| restoration_text(&restored), || restoration(&restored))
}

impl RestoreArgs {
    /// Whether the target is EC2. A directory of this name is `./ec2`.
    fn is_to_ec2(&self) -> bool {
        self.target.as_os_str() == "ec2"
    }

    fn destination(
        &self,
        remote: &Remote,
        observer: &Arc<dyn Observer>,
    ) -> Result<RestoreDestination> {
        if !self.is_to_ec2() {
            return Ok(RestoreDestination::Directory(DirectoryDestination {
                path: self.target.clone(),
                overwrite: self.write.overwrite(),
                durability: self.write.durability(),
            }));
        }
        let edits = self.edits.edits()?;
        let compute = remote.compute(&self.sides.target()?, &self.ec2.ebs)?;
        let options = Ec2Options::new(compute, edits, observer.clone());
        let account_rate = self.ec2.ebs.account_rate()?;
        Ok(RestoreDestination::Ec2 { ec2: Box::new(Ec2Destination::new(options)), account_rate })
    }

    /// Whether the arguments are an image and an archive, instead of an archive and a target.
    fn is_swapped(&self) -> bool {
        let (first, second) = (&self.archive, self.target.to_string_lossy());
        let is_target = first.is_dir() || (first.as_os_str() == "ec2" && !first.exists());
        let is_url = second.starts_with("s3://") || second.starts_with("file://");
        is_target && (is_url || self.target.is_file())
    }

    fn check_target(&self) -> Result<()> {
        if self.is_swapped() {
            return Err(swapped("restore", &self.archive, &self.target));
        }
        refuse_url(&self.target.to_string_lossy())?;
        let (to_ec2, changes) = (self.is_to_ec2(), self.edits != EditArgs::default());
        let refused = match (to_ec2, changes) {
            (true, _) if self.salvage => {
                "what is left of a damaged archive is no image yet: rescue it to a directory, look \
                 at its salvage.json, mend the disks, and restore what `amistore store \
                 --allow-salvaged` makes of it"
            }
            (true, _) if self.write.force => {
                "an image in EC2 is never replaced: give the new one another --name"
            }
            (false, _) if self.ec2.via_aws => {
                "AWS restores to EC2 only: amistore restore --via-aws \
                 s3://bucket/ami-0123456789abcdef0.bin ec2"
            }
            (false, true) => {
                "--name, --encrypted and the other changes of the new image are for the target \
                 ec2: a directory gets the content of the archive"
            }
            _ => return Ok(()),
        };
        Err(Error::usage(refused))
    }
}
