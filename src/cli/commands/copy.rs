//! `amistore copy`.

use std::path::Path;
use std::sync::Arc;

use super::super::args::CopyArgs;
use super::super::output::{Console, copied, copied_text, copy_plan, copy_plan_text};
use super::super::record::recorded;
use super::super::remote::{Remote, Side, WriteSide};
use super::super::settings::{Place, Settings, located, refuse_same_file};
use super::in_bucket;
use crate::aws::s3::S3Store;
use crate::base::{Error, Observer, Result, TaskKind};
use crate::engine::Archive;
use crate::object::{Attributes, FileReader, ObjectReader, PipeReader};
use crate::ops::{self, PlannedCopy};
use crate::taskdb::NewTask;

pub(in super::super) fn run(args: CopyArgs, settings: &Settings, console: &Console) -> Result<()> {
    let observer = console.observer();
    let from = Place::parse(&args.from)?;
    let remote = Remote::new(settings, &observer);
    let Some((source, reader)) = open(&args, &from, &remote)? else {
        return from_stream(&args, &remote, &observer, settings, console);
    };
    let archive = Archive::open(reader)?;
    let name = object_name(&from, &archive);
    let to = Place::parse(&args.to)?.of_archive(&name);
    check_places(&args, &from, &to)?;
    let (shown_from, shown) = (from.shown("standard input"), to.shown("standard output"));
    let destination = remote.destination(&to, &side(&args), shown_from.clone())?;
    let source = source.as_ref().zip(from.key()).filter(|_| to.key().is_some());
    let tags = source.map(|(store, key)| ops::tags_to_copy(store, key, observer.as_ref()));
    let mut attributes = ops::attributes_to_copy(&archive, tags.transpose()?);
    attributes.tags.extend(args.object.attributes()?.tags);
    let options = (args.write.overwrite(), attributes);
    let is_remote = from.key().is_some();
    let resources = settings.resources();
    let mut planned = PlannedCopy::new(&archive, destination, options, &resources, is_remote)?;
    if let Some((store, key)) = source {
        planned = planned.with_source(store, key, !args.no_server_copy)?;
    }
    if args.write.dry_run {
        let existing = planned.check(observer.as_ref())?;
        return console.result(
            || copy_plan_text(planned.plan(), &shown_from, &shown, existing),
            || copy_plan(planned.plan(), &shown_from, &shown, existing),
        );
    }
    console.explain(|| copy_plan_text(planned.plan(), &shown_from, &shown, Default::default()));
    let volumes = &archive.root().manifest.volumes;
    let task = NewTask {
        image_id: archive.document().image_id().map(ToString::to_string),
        size: volumes.iter().map(|volume| volume.size.bytes()).sum(),
        ..in_bucket(&to, TaskKind::Copy, shown_from.as_str(), shown.as_str())
    };
    if to == Place::Stdio {
        console.give_up_stdout();
    }
    let report = recorded(console, args.resume.state.as_deref(), &task, &observer, |observer| {
        planned.run(observer, &settings.cancel)
    })?;
    drop((planned, observer));
    console.result(
        || copied_text(&report, &shown_from, &shown, false),
        || copied(&report, &shown_from, &shown, false),
    )
}

/// An archive, and its bucket if it is in one.
type Opened = (Option<S3Store>, Arc<dyn ObjectReader>);

/// Opens the archive; `None` for standard input.
fn open(args: &CopyArgs, from: &Place, remote: &Remote) -> Result<Option<Opened>> {
    match from {
        Place::Stdio => Ok(None),
        Place::Path(path) => Ok(Some((None, Arc::new(FileReader::open(path)?)))),
        Place::Url(url) => {
            let (store, key) = located(url)?;
            Ok(Some((None, store.open(&key)?)))
        }
        Place::S3(place) => {
            let (access, link) = (args.sides.access(Side::Source), args.sides.source_link());
            let (store, reader) = remote.open(place, access, &link, &args.thaw)?;
            Ok(Some((Some(store), reader)))
        }
    }
}

fn check_places(args: &CopyArgs, from: &Place, to: &Place) -> Result<()> {
    match (from, to) {
        (Place::Path(source), Place::Path(target)) => refuse_same_file(target, [source.as_path()]),
        (_, Place::Stdio) if args.write.dry_run => Err(Error::usage(
            "there is nothing to find out about a stream: --dry-run needs a file or an object",
        )),
        _ => Ok(()),
    }
}

fn side(args: &CopyArgs) -> WriteSide<'_> {
    let CopyArgs { object, write, resume, sides, .. } = args;
    WriteSide { object, write, resume, sides, volumes_at_once: None }
}

/// Copies from standard input.
fn from_stream(
    args: &CopyArgs,
    remote: &Remote,
    observer: &Arc<dyn Observer>,
    settings: &Settings,
    console: &Console,
) -> Result<()> {
    if args.write.dry_run {
        return Err(Error::usage(
            "a stream cannot be looked at without reading it: --dry-run needs a file or an object",
        ));
    }
    let to = Place::parse(&args.to)?;
    let shown = to.shown("standard output");
    let has_name = match &to {
        Place::Stdio => true,
        Place::Path(path) => !path.is_dir() && !shown.ends_with('/'),
        Place::S3(place) => !place.is_prefix(),
        Place::Url(url) => !url.ends_with('/'),
    };
    if !has_name {
        return Err(
            Error::usage("a stream has no name: name the file or object").at("place", &shown)
        );
    }
    let task = in_bucket(&to, TaskKind::Copy, "standard input", shown.as_str());
    let destination = remote.destination_of_stream(&to, &side(args))?;
    let attributes = Attributes { tags: args.object.attributes()?.tags, ..Attributes::default() };
    if to == Place::Stdio {
        console.give_up_stdout();
    }
    let state = args.resume.state.as_deref();
    let report = recorded(console, state, &task, observer, |observer| {
        let input = PipeReader::stdin(settings.cancel.clone())?;
        let options = (args.write.overwrite(), attributes);
        let resources = settings.resources();
        ops::copy_from_stream(input, destination, options, &resources, observer, &settings.cancel)
    })?;
    console.result(
        || copied_text(&report, "standard input", &shown, false),
        || copied(&report, "standard input", &shown, false),
    )
}

/// The name below a prefix or directory: that of the file or object.
fn object_name(from: &Place, archive: &Archive) -> String {
    let own = match from {
        Place::Stdio => None,
        Place::Path(path) => path.file_name(),
        Place::S3(place) => Path::new(&place.key).file_name(),
        Place::Url(url) => Path::new(url).file_name(),
    };
    own.map_or_else(
        || archive.document().archive_name(),
        |name| name.to_string_lossy().into_owned(),
    )
}
