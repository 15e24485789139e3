//! `amistore copy`.

use std::path::Path;
use std::sync::Arc;

use super::super::args::CopyArgs;
use super::super::output::{Console, copied, copied_text};
use super::super::record::recorded;
use super::super::remote::{Remote, Side};
use super::super::settings::{Place, Settings, archive_target, refuse_same_file};
use super::in_bucket;
use super::store::{refuse_existing, refuse_terminal};
use crate::aws::s3::S3Store;
use crate::base::{Error, ErrorKind, Event, Observer, Result, Stage, StageGuard, TaskKind};
use crate::engine::{Archive, Context};
use crate::localfs::Overwrite;
use crate::object::{Attributes, DirectoryStore, FileReader, ObjectReader, PipeReader, PipeWriter};
use crate::ops::{self, ArchiveTarget, Copied, ObjectTarget};
use crate::setup::{look_at_bucket, task_target};
use crate::taskdb::NewTask;

pub(in super::super) fn run(args: CopyArgs, settings: &Settings, console: &Console) -> Result<()> {
    let observer = console.observer();
    let from = Place::parse(&args.from)?;
    let remote = Remote::new(settings, &observer);
    let (source, reader): (Option<S3Store>, Arc<dyn ObjectReader>) = match &from {
        Place::Stdio => return from_stream(&args, &remote, &observer, settings, console),
        Place::Path(path) => (None, Arc::new(FileReader::open(path)?)),
        Place::S3(place) => {
            let link = args.sides.source_link();
            let (store, reader) =
                remote.open(place, args.sides.access(Side::Source), &link, &args.thaw)?;
            (Some(store), reader)
        }
    };
    let archive = Archive::open(reader.clone())?;
    let (plan, part_memory) = settings.resources().plan_with_parts(1, reader.len())?;
    let context = super::context(&plan, observer.as_ref(), settings, console);
    let name = object_name(&from, &archive);
    let mut attributes = reader.attributes();
    if attributes.metadata.is_empty() {
        attributes.metadata = ops::image_metadata(archive.document());
    }
    let to = Place::parse(&args.to)?.of_archive(&name);
    if let (Some(store), Place::S3(place), Place::S3(_)) = (&source, &from, &to) {
        attributes.tags = tags_of(store, &place.key, observer.as_ref())?;
    }
    attributes.tags.extend(args.object.attributes()?.tags);
    let (shown_from, shown) = (from.shown("standard input"), to.shown("standard output"));
    let overwrite = args.write.overwrite();
    let task = NewTask {
        image_id: archive.document().image_id().map(ToString::to_string),
        size: archive.root().manifest.volumes.iter().map(|volume| volume.size.bytes()).sum(),
        ..in_bucket(&to, TaskKind::Copy, shown_from.as_str(), shown.as_str())
    };
    let work = |observer: &dyn Observer| {
        let context = Context { observer, ..context };
        Ok(match &to {
            Place::Stdio => {
                if args.write.dry_run {
                    return Err(Error::usage(
                        "there is nothing to find out about a stream: --dry-run needs a file or an object",
                    ));
                }
                refuse_terminal()?;
                console.give_up_stdout();
                ops::copy(
                    &archive,
                    ArchiveTarget::Stream(Box::new(PipeWriter::stdout(settings.cancel.clone())?)),
                    context,
                )?
            }
            Place::Path(path) => {
                if let Place::Path(source) = &from {
                    refuse_same_file(path, [source.as_path()])?;
                }
                if args.write.dry_run {
                    refuse_existing(path, &args.write)?;
                    ops::plan_copy(&archive)
                } else {
                    let (directory, key) = archive_target(path, &name);
                    let store = DirectoryStore::new(directory, args.write.durability());
                    let at_most = reader.len();
                    let target = ObjectTarget {
                        store: &store,
                        key,
                        overwrite,
                        attributes,
                        at_most,
                        segments: Vec::new(),
                        resumption: None,
                    };
                    ops::copy(&archive, ArchiveTarget::Object(target), context)?
                }
            }
            Place::S3(place) => {
                let options = args.object.options(part_memory)?;
                let store = remote.store(
                    place,
                    args.sides.access(Side::Target),
                    &args.sides.link,
                    options,
                )?;
                if source
                    .as_ref()
                    .is_some_and(|source| source.connection().is_same_side(store.connection()))
                    && from == to
                {
                    return Err(
                        Error::usage("source and target are one object").at("object", place)
                    );
                }
                look_at_bucket(&store, &place.key, args.object.allow_public_bucket, observer)?;
                let server = source.as_ref().filter(|source| {
                    !args.no_server_copy && source.connection().is_same_side(store.connection())
                });
                match (server, &from) {
                    _ if args.write.dry_run => {
                        if !args.write.force && store.exists(&place.key)? {
                            return Err(Error::new(ErrorKind::Exists, "the object exists")
                                .at("object", place));
                        }
                        ops::plan_copy(&archive)
                    }
                    (Some(source), Place::S3(source_place)) => server_copy(
                        &archive,
                        (source, &source_place.key),
                        (&store, &place.key),
                        &attributes,
                        overwrite,
                        context,
                    )?,
                    _ => {
                        let resumption = Some(Box::new(
                            args.resume
                                .resumption(shown_from.clone(), task_target(&store, &shown))?,
                        ));
                        let (key, at_most) = (place.key.clone(), reader.len());
                        let target = ObjectTarget {
                            store: &store,
                            key,
                            overwrite,
                            attributes,
                            at_most,
                            segments: Vec::new(),
                            resumption,
                        };
                        ops::copy(&archive, ArchiveTarget::Object(target), context)?
                    }
                }
            }
        })
    };
    let report = if args.write.dry_run {
        work(observer.as_ref())?
    } else {
        recorded(console, args.resume.state.as_deref(), &task, &observer, work)?
    };
    drop(observer);
    let dry_run = args.write.dry_run;
    console.result(
        || copied_text(&report, &shown_from, &shown, dry_run),
        || copied(&report, &shown_from, &shown, dry_run),
    )
}

/// The service copies by itself; what it copied is then opened, and has to be the same archive.
fn server_copy(
    archive: &Archive,
    (source, source_key): (&S3Store, &str),
    (store, key): (&S3Store, &str),
    attributes: &Attributes,
    overwrite: Overwrite,
    context: Context<'_>,
) -> Result<Copied> {
    let open = || crate::object::ObjectStore::open(store, key);
    let is_same = |reader: Arc<dyn ObjectReader>| -> Result<bool> {
        Ok(reader.len() == archive.reader().len()
            && Archive::open(reader)?.footer().root == archive.footer().root)
    };
    let stage = StageGuard::begin(context.observer, Stage::Copy, Some(archive.reader().len()));
    match store.copy_from(key, (source, source_key, None), attributes, overwrite) {
        Err(error) if error.kind() == ErrorKind::Exists => {
            return if is_same(open()?).unwrap_or(false) {
                Ok(Copied { present: true, ..ops::plan_copy(archive) })
            } else {
                Err(error)
            };
        }
        Ok(copied) if !copied.checksum_compared => {
            let message =
                "the service copied the bytes and keeps no checksum that could be compared: `amistore verify` reads them".to_owned();
            context.observer.note(&Event::Warning { message });
        }
        copied => {
            copied?;
        }
    }
    if !is_same(open()?)? {
        return Err(Error::new(
            ErrorKind::Io,
            "the copy that the service made is not the archive that was to be copied",
        )
        .at("object", key));
    }
    stage.finish();
    Ok(ops::plan_copy(archive))
}

/// A stream is checked from front to back, and becomes visible when its end was seen.
fn from_stream(
    args: &CopyArgs,
    remote: &Remote,
    observer: &Arc<dyn Observer>,
    settings: &Settings,
    console: &Console,
) -> Result<()> {
    let (plan, part_memory) = settings.resources().plan_with_parts(1, 0)?;
    let context = super::context(&plan, observer.as_ref(), settings, console);
    if args.write.dry_run {
        return Err(Error::usage(
            "a stream cannot be looked at without reading it: --dry-run needs a file or an object",
        ));
    }
    let input = PipeReader::stdin(settings.cancel.clone())?;
    let attributes = args.object.attributes()?;
    let overwrite = args.write.overwrite();
    let named = |place: &str| {
        Error::usage("of a stream it is not known how it is called: name the file or object")
            .at("place", place)
    };
    let to = Place::parse(&args.to)?;
    let shown = to.shown("standard output");
    let task = in_bucket(&to, TaskKind::Copy, "standard input", shown.as_str());
    let work = |observer: &dyn Observer| {
        let context = Context { observer, ..context };
        Ok(match &to {
            Place::Stdio => {
                refuse_terminal()?;
                console.give_up_stdout();
                ops::copy_stream(
                    input,
                    Box::new(PipeWriter::stdout(settings.cancel.clone())?),
                    context,
                )?
            }
            Place::Path(path) => {
                if path.is_dir() || shown.ends_with('/') {
                    return Err(named(&shown));
                }
                let (directory, key) = archive_target(path, "");
                let store = DirectoryStore::new(directory, args.write.durability());
                let creation = crate::object::Creation { overwrite, ..Default::default() };
                ops::copy_stream(
                    input,
                    crate::object::ObjectStore::create(&store, &key, creation)?,
                    context,
                )?
            }
            Place::S3(place) => {
                if place.is_prefix() {
                    return Err(named(&shown));
                }
                let options = args.object.options(part_memory)?;
                let store = remote.store(
                    place,
                    args.sides.access(Side::Target),
                    &args.sides.link,
                    options,
                )?;
                look_at_bucket(&store, &place.key, args.object.allow_public_bucket, observer)?;
                // Nobody knows how long a stream is: parts as large as memory allows.
                let part = store.options().part_size.unwrap_or((part_memory / 3).max(8 << 20));
                let at_most = part.saturating_mul(crate::aws::s3::MAX_PARTS);
                let creation = crate::object::Creation {
                    overwrite,
                    at_most,
                    attributes,
                    ..Default::default()
                };
                ops::copy_stream(
                    input,
                    crate::object::ObjectStore::create(&store, &place.key, creation)?,
                    context,
                )?
            }
        })
    };
    let report = recorded(console, args.resume.state.as_deref(), &task, observer, work)?;
    console.result(
        || copied_text(&report, "standard input", &shown, false),
        || copied(&report, "standard input", &shown, false),
    )
}

/// The name below a prefix or directory: the one it has, else the one it should have.
fn object_name(from: &Place, archive: &Archive) -> String {
    let own = match from {
        Place::Stdio => None,
        Place::Path(path) => path.file_name().map(|name| name.to_string_lossy().into_owned()),
        Place::S3(place) => {
            Path::new(&place.key).file_name().map(|name| name.to_string_lossy().into_owned())
        }
    };
    own.unwrap_or_else(|| archive.document().archive_name())
}

/// Tags that may not be read are not a reason to copy nothing.
fn tags_of(
    store: &S3Store,
    key: &str,
    observer: &dyn Observer,
) -> Result<std::collections::BTreeMap<String, String>> {
    match store.tags(key) {
        // A store without tags.
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(Default::default()),
        Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::NotFound) => {
            observer.note(&Event::Warning {
                message: format!(
                    "the tags of the object cannot be read, and are not copied: {error}"
                ),
            });
            Ok(Default::default())
        }
        tags => tags,
    }
}
