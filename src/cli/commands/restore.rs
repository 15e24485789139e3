//! `amistore restore`.

use std::sync::Arc;

use super::super::args::{EditArgs, RestoreArgs};
use super::super::output::{
    Console, restore_plan, restore_plan_text, restored, restored_text, restored_to_ec2,
    restored_to_ec2_text,
};
use super::super::record::recorded;
use super::super::remote::{Remote, Side, open_archive};
use super::super::settings::{Place, Settings, refuse_url};
use super::{in_bucket, via_aws};
use crate::aws::ec2::{Ec2Destination, Ec2Options};
use crate::base::{Error, Observer, Result, TaskKind};
use crate::engine::{Archive, Context, MemoryUses};
use crate::image::{DirectoryDestination, ImageDestination};
use crate::object::PipeReader;
use crate::ops::{self, PlannedRestore, Restored};
use crate::taskdb::NewTask;

pub(in super::super) fn run(
    args: RestoreArgs,
    settings: &Settings,
    console: &Console,
) -> Result<()> {
    let place = Place::parse(&args.archive)?;
    args.check_target()?;
    let observer = console.observer();
    let remote = Remote::new(settings, &observer);
    if args.ec2.via_aws {
        return via_aws::restore(&args, &place, &remote, console, &observer);
    }
    let target = Target::new(&args, &remote, &observer)?;
    drop(remote);
    let access = (args.sides.access(Side::Source), &args.sides.archive_link());
    let state = args.resume.state.as_deref();
    let Some(reader) = open_archive(&place, access, &args.thaw, settings, &observer)? else {
        let task = in_bucket(&place, TaskKind::Restore, "standard input", target.of_stream(&args));
        let report = recorded(console, state, &task, &observer, |observer| {
            target.restore_stream(&args, settings, observer)
        })?;
        drop(observer);
        return target.print(&args, &place, &report, console);
    };
    let archive = Archive::open(reader)?;
    let planned = target.plan(&args, &place, &archive, settings)?;
    let shown = args.target.display().to_string();
    if args.write.dry_run {
        planned.check()?;
        return console.result(
            || restore_plan_text(planned.plan(), &shown),
            || restore_plan(planned.plan(), &shown),
        );
    }
    console.explain(|| restore_plan_text(planned.plan(), &shown));
    let volumes = &archive.root().manifest.volumes;
    let task = NewTask {
        image_id: archive.document().image_id().map(ToString::to_string),
        name: archive.document().name().map(ToOwned::to_owned),
        size: volumes.iter().map(|volume| volume.size.bytes()).sum(),
        ..in_bucket(
            &place,
            TaskKind::Restore,
            place.shown("standard input"),
            target.of(&args, &archive),
        )
    };
    let report = recorded(console, state, &task, &observer, |observer| {
        planned.run(observer, &settings.cancel)
    })?;
    drop((planned, observer));
    target.print(&args, &place, &report, console)
}

/// The destination of a restore.
enum Target {
    Directory(DirectoryDestination),
    Ec2(Box<Ec2Destination>),
}

impl Target {
    fn new(args: &RestoreArgs, remote: &Remote, observer: &Arc<dyn Observer>) -> Result<Self> {
        if !args.is_to_ec2() {
            return Ok(Self::Directory(DirectoryDestination {
                path: args.target.clone(),
                overwrite: args.write.overwrite(),
                durability: args.write.durability(),
            }));
        }
        let edits = args.edits.edits()?;
        let compute =
            remote.compute(&args.sides.access(Side::Target), &args.sides.link, &args.ec2.ebs)?;
        let options = Ec2Options {
            ec2: compute.ec2,
            ebs: compute.ebs,
            quotas: compute.quotas,
            memory: 0,
            edits,
            observer: observer.clone(),
        };
        Ok(Self::Ec2(Box::new(Ec2Destination::new(options))))
    }

    /// The target that the task is known by.
    fn of(&self, args: &RestoreArgs, archive: &Archive) -> String {
        match self {
            Self::Directory(_) => absolute(args),
            Self::Ec2(ec2) => ops::ec2_task_target(ec2.options(), archive),
        }
    }

    /// The same for a stream, whose archive is not known yet.
    fn of_stream(&self, args: &RestoreArgs) -> String {
        match self {
            Self::Directory(_) => absolute(args),
            Self::Ec2(ec2) => format!("ec2 {}", ec2.options().ec2.region()),
        }
    }

    fn plan<'a>(
        &self,
        args: &RestoreArgs,
        place: &Place,
        archive: &'a Archive,
        settings: &Settings,
    ) -> Result<PlannedRestore<'a>> {
        let (resources, is_remote) = (&settings.resources(), matches!(place, Place::S3(_)));
        let resumption =
            || args.resume.resumption(place.shown("standard input"), self.of(args, archive));
        match self {
            Self::Directory(directory) => {
                // An archive that is read over a network should not be read twice.
                let resumption = is_remote.then(resumption).transpose()?;
                let directory = directory.clone();
                PlannedRestore::to_directory(archive, directory, resumption, resources, is_remote)
            }
            Self::Ec2(ec2) => PlannedRestore::to_ec2(
                archive,
                ec2,
                Some(resumption()?),
                (resources, is_remote),
                args.ec2.ebs.ebs_account_rate,
            ),
        }
    }

    /// Restores from standard input. A stream cannot be read again: after an error nothing of it
    /// stays.
    fn restore_stream(
        &self,
        args: &RestoreArgs,
        settings: &Settings,
        observer: &dyn Observer,
    ) -> Result<Restored> {
        if args.write.dry_run {
            return Err(Error::usage(
                "a stream cannot be looked at without reading it: --dry-run needs a file or an object",
            ));
        }
        let uses = MemoryUses { blocks: args.is_to_ec2(), ..MemoryUses::default() };
        let memory = settings.resources().split(&uses)?;
        let input = PipeReader::stdin(settings.cancel.clone())?;
        let context = Context { plan: &memory.plan, observer, cancel: &settings.cancel };
        match self {
            Self::Directory(directory) => {
                ops::restore_stream(input, |document| directory.begin(document, None), context)
            }
            Self::Ec2(ec2) => {
                let ec2 = ec2.with_memory(memory.blocks);
                ops::restore_stream(input, |document| ec2.begin(document, None), context)
            }
        }
    }

    fn print(
        self,
        args: &RestoreArgs,
        place: &Place,
        report: &Restored,
        console: &Console,
    ) -> Result<()> {
        let shown = args.target.display().to_string();
        let Self::Ec2(ec2) = self else {
            return console.result(
                || restored_text(report, &shown, false),
                || restored(report, &shown, false),
            );
        };
        let made =
            ec2.restored().ok_or_else(|| Error::internal("a restore ended and made nothing"))?;
        let (archive, region) = (place.shown("standard input"), ec2.options().ec2.region());
        drop(ec2);
        console.result(
            || restored_to_ec2_text(&made, &archive, &region),
            || restored_to_ec2(restored(report, "ec2", false), &made, &region),
        )
    }
}

fn absolute(args: &RestoreArgs) -> String {
    std::path::absolute(&args.target).unwrap_or_else(|_| args.target.clone()).display().to_string()
}

impl RestoreArgs {
    /// Whether the target is EC2. A directory of this name is `./ec2`.
    fn is_to_ec2(&self) -> bool {
        self.target.as_os_str() == "ec2"
    }

    fn check_target(&self) -> Result<()> {
        refuse_url(&self.target.to_string_lossy())?;
        let (to_ec2, changes) = (self.is_to_ec2(), self.edits != EditArgs::default());
        let refused = match (to_ec2, changes) {
            (true, _) if self.write.force => {
                "an image in EC2 is never replaced: give the new one another --name"
            }
            (false, _) if self.ec2.via_aws => {
                "AWS restores to EC2 only: amistore restore --via-aws s3://bucket/ami-0123456789abcdef0.bin ec2"
            }
            (false, true) => {
                "--name, --encrypted and the other changes of the new image are for the target ec2: a directory gets what the archive holds"
            }
            _ => return Ok(()),
        };
        Err(Error::usage(refused))
    }
}
