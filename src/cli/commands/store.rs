//! `amistore store`.

use std::path::{Path, PathBuf};

use super::super::args::{StoreArgs, WriteArgs};
use super::super::output::{Console, store_plan, store_plan_text, stored, stored_text};
use super::super::remote::{Remote, preflight};
use super::super::settings::{Place, Settings, archive_target, refuse_same_file, refuse_url};
use crate::aws::s3::S3Store;
use crate::base::{Error, ErrorKind, ImageId, NullObserver, Result};
use crate::catalog::{IMAGE_JSON, ImageDirectory, ImageSource, PlainDisks};
use crate::engine::{Context, PackOptions};
use crate::ops::{self, ArchiveTarget, ObjectTarget};
use crate::store::{Attributes, DirectoryStore, PipeWriter};

pub(in super::super) fn run(args: StoreArgs, settings: &Settings, console: &Console) -> Result<()> {
    let derived_id = !args.image.disk.is_empty() && args.image.image_id.is_none();
    let (image, archive, sources): (Box<dyn ImageSource>, _, Vec<PathBuf>) = match (args.image.plain_image()?, args.places.as_slice()) {
        (Some((image, disks)), [archive]) => {
            let image = PlainDisks::open(&image, &disks)?;
            (Box::new(image), archive, disks.into_iter().map(|(_, path)| path).collect())
        }
        (Some(_), _) => return Err(Error::usage("with --disk there is no SOURCE: give only the ARCHIVE")),
        (None, [source, archive]) => {
            refuse_url(&source.to_string_lossy())?;
            refuse_image_id(source)?;
            let image = ImageDirectory::open(source)?;
            let raws = image.document().snapshots().iter().map(|snapshot| source.join(snapshot.id.file_name()));
            let sources = raws.chain([source.join(IMAGE_JSON)]).collect();
            (Box::new(image), archive, sources)
        }
        (None, _) => {
            return Err(Error::usage(
                "SOURCE and ARCHIVE are wanted: amistore store image-dir/ archives/, or --disk DEVICE=FILE for plain disks",
            ));
        }
    };
    let plan = settings.plan(args.level)?;
    let observer = console.observer();
    // A level that zstd does not know should not wait for the first block.
    crate::codec::zstd::Encoder::new(args.level)?;
    let options = PackOptions { sparse: args.sparse, ..PackOptions::default() };
    let name = image.document().archive_name();
    let place = Place::parse(archive)?.of_archive(&name);
    let shown = place.shown("standard output");
    refuse_same_file(Path::new(&shown), sources.iter().map(PathBuf::as_path))?;
    // Two images that were described alike have one id, and so one file name.
    let explain = |error: Error| match error.kind() {
        ErrorKind::Exists if derived_id => error.at("image_id", "derived from name, attributes and sizes, not from the disks' content"),
        _ => error,
    };
    let (plan, part_memory, at_most) = match &place {
        Place::S3(_) => {
            // Without looking for zeros: that would read everything, and only makes it shorter.
            let context = Context { plan: &plan, observer: &NullObserver, cancel: &settings.cancel };
            let longest = ops::plan_store(image.as_ref(), &PackOptions::default(), context)?.longest_archive;
            let (plan, part_memory) = settings.plan_with_parts(args.level, longest)?;
            (plan, part_memory, longest)
        }
        Place::Path(_) | Place::Stdio => (plan, 0, 0),
    };
    let context = super::context(&plan, observer.as_ref(), settings, console);
    let remote = match &place {
        Place::S3(place) => {
            let store =
                Remote::new(settings, &observer)?.store(place, args.aws.access(), &args.aws.link, args.object.options(part_memory)?)?;
            Some(store)
        }
        Place::Path(_) | Place::Stdio => None,
    };
    if args.write.dry_run {
        match (&remote, &place) {
            (Some(store), Place::S3(place)) => {
                preflight(store, &place.key, &args.object, observer.as_ref())?;
                if !args.write.force && store.exists(&place.key)? {
                    return Err(explain(Error::new(ErrorKind::Exists, "the object exists").at("object", place)));
                }
            }
            _ => refuse_existing(Path::new(&shown), &args.write).map_err(explain)?,
        }
        let planned = ops::plan_store(image.as_ref(), &options, context)?;
        let image_id = image.document().image_id().map(|id| id.as_str());
        return console.result(|| store_plan_text(&planned, &shown, image_id), || store_plan(&planned, &shown, image_id));
    }
    let report = match place {
        Place::Stdio => {
            refuse_terminal()?;
            console.give_up_stdout();
            let writer = Box::new(PipeWriter::stdout(settings.cancel.clone())?);
            ops::store(image.as_ref(), ArchiveTarget::Stream(writer), &options, context)?
        }
        Place::Path(path) => {
            let (directory, key) = archive_target(&path, &name);
            let store = DirectoryStore::new(directory, args.write.durability());
            let (overwrite, attributes) = (args.write.overwrite(), Attributes::default());
            let target = ObjectTarget { store: &store, key, overwrite, attributes, at_most, resumption: None };
            ops::store(image.as_ref(), ArchiveTarget::Object(target), &options, context).map_err(explain)?
        }
        Place::S3(place) => {
            let store = remote.ok_or_else(|| Error::internal("a bucket was named and there is none"))?;
            preflight(&store, &place.key, &args.object, observer.as_ref())?;
            let source = sources.first().map(|path| path.display().to_string()).unwrap_or_default();
            let target = ObjectTarget {
                store: &store,
                key: place.key.clone(),
                overwrite: args.write.overwrite(),
                attributes: args.object.attributes()?,
                at_most,
                resumption: Some(Box::new(args.resume.resumption(source, task_target(&store, &shown))?)),
            };
            ops::store(image.as_ref(), ArchiveTarget::Object(target), &options, context).map_err(explain)?
        }
    };
    drop(observer);
    console.result(|| stored_text(&report, &shown), || stored(&report, &shown))
}

/// What a task is known by: two services may have a bucket of one name.
pub(super) fn task_target(store: &S3Store, url: &str) -> String {
    let endpoint = store.link().endpoint();
    if endpoint.is_empty() { url.to_owned() } else { format!("{url} at {endpoint}") }
}

/// An image id is a place in EC2; a directory may still be called so.
fn refuse_image_id(source: &Path) -> Result<()> {
    match ImageId::parse(&source.to_string_lossy()) {
        Ok(id) if !source.exists() => {
            Err(Error::unsupported("this version stores images that are local: an image directory, or --disk").at("source", id))
        }
        _ => Ok(()),
    }
}

/// What the real run would refuse, a dry run refuses as well.
pub(super) fn refuse_existing(path: &Path, write: &WriteArgs) -> Result<()> {
    if !write.force && path.exists() {
        return Err(Error::new(ErrorKind::Exists, "the file exists").at("path", path.display()));
    }
    Ok(())
}

pub(super) fn refuse_terminal() -> Result<()> {
    if std::io::IsTerminal::is_terminal(&std::io::stdout()) {
        return Err(Error::usage("an archive is not written to a terminal: redirect stdout, or name a file"));
    }
    Ok(())
}
