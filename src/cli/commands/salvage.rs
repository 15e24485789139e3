//! `--salvage` of `restore` and `extract`.

use std::path::Path;
use std::sync::Arc;

use super::super::options::{ArchiveUrl, Requests, Settings, ThawArgs, WriteArgs};
use super::super::output::{Console, SalvageTarget, salvaged, salvaged_text};
use super::super::remote::Remote;
use crate::base::{Observer, Result};
use crate::engine::{Context, Salvage, SalvageInput, SalvagedObject, SalvagedPipe};
use crate::image::DirectoryDestination;
use crate::object::PipeReader;
use crate::ops::{self, VolumeName};

/// An archive, and the options of its rescue.
pub(super) struct Rescue<'a> {
    pub(super) url: &'a ArchiveUrl,
    pub(super) requests: Requests,
    pub(super) thaw: &'a ThawArgs,
    pub(super) write: &'a WriteArgs,
    pub(super) settings: &'a Settings,
    pub(super) console: &'a Console,
}

impl Rescue<'_> {
    /// Rescues all volumes to a directory.
    pub(super) fn all_to(self, directory: &Path) -> Result<()> {
        let (overwrite, durability) = (self.write.overwrite(), self.write.durability());
        let destination =
            DirectoryDestination { path: directory.to_owned(), overwrite, durability };
        let target = SalvageTarget { path: directory, is_volume: false };
        if self.write.dry_run {
            destination.check()?;
        }
        self.run(&target, &|input, mark, context| {
            ops::salvage_to_directory(input, &destination, mark, context)
        })
    }

    /// Rescues one volume to a file.
    pub(super) fn one_to(self, name: &VolumeName, file: &Path) -> Result<()> {
        let output = (file, self.write.overwrite(), self.write.durability());
        let target = SalvageTarget { path: file, is_volume: true };
        if self.write.dry_run {
            ops::check_output(file, self.write.overwrite())?;
        }
        self.run(&target, &|input, mark, context| {
            ops::salvage_volume(input, name, output, mark, context)
        })
    }

    /// Prints the result, and ends with an error if anything is damaged.
    fn run(self, target: &SalvageTarget<'_>, rescue: &Work<'_>) -> Result<()> {
        let Self { url, requests, thaw, write, settings, console } = self;
        let plan = settings.plan(url.incoming())?;
        console.explain_plan(&plan, settings);
        let observer: Arc<dyn Observer> = console.observer();
        let context =
            Context { plan: &plan, observer: observer.as_ref(), cancel: &settings.cancel };
        let remote = Remote::new(settings, &observer);
        let mut input: Box<dyn SalvageInput> = match remote.open(url, requests, thaw)? {
            Some(reader) => {
                let cancel = settings.cancel.clone();
                Box::new(SalvagedObject::new(reader, url.s3().is_some(), cancel))
            }
            None => {
                let pipe = PipeReader::stdin(settings.cancel.clone())?;
                Box::new(SalvagedPipe::new(pipe, settings.cancel.clone()))
            }
        };
        let archive = url.source();
        let json = |found: &Salvage| salvaged(found, &archive, target, write.dry_run);
        let mark = |found: &Salvage| format!("{:#}\n", json(found)).into_bytes();
        let found = if write.dry_run {
            ops::survey(input.as_mut(), context)?
        } else {
            rescue(input.as_mut(), &mark, context)?
        };
        drop((input, remote, observer));
        console
            .result(|| salvaged_text(&found, &archive, target, write.dry_run), || json(&found))?;
        let is_sound =
            target.is_volume && !write.dry_run && found.volumes.iter().all(ops::is_sound);
        found.error(&archive).filter(|_| !is_sound).map_or(Ok(()), Err)
    }
}

/// Rescues the archive of an input; the second argument makes `salvage.json`.
type Work<'a> = dyn Fn(&mut dyn SalvageInput, &ops::Mark<'_>, Context<'_>) -> Result<Salvage> + 'a;
