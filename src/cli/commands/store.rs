//! `amistore store`.

use std::path::{Path, PathBuf};

use super::super::args::{StoreArgs, WriteArgs};
use super::super::output::{Console, store_plan, store_plan_text, stored, stored_text};
use super::super::settings::{Place, Settings, archive_target, refuse_same_file, refuse_url};
use crate::base::{Error, ErrorKind, ImageId, Result};
use crate::catalog::{IMAGE_JSON, ImageDirectory, ImageSource, PlainDisks};
use crate::engine::PackOptions;
use crate::ops::{self, StoreTarget};
use crate::store::{DirectoryStore, PipeWriter};

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
    let context = super::context(&plan, observer.as_ref(), settings, console);
    // A level that zstd does not know should not wait for the first block.
    crate::codec::zstd::Encoder::new(args.level)?;
    let options = PackOptions { sparse: args.sparse, ..PackOptions::default() };
    let name = image.document().archive_name();
    let place = Place::parse(archive)?;
    let shown = match &place {
        Place::Stdio => "standard output".to_owned(),
        Place::Path(path) => {
            let (directory, key) = archive_target(path, &name);
            directory.join(key).display().to_string()
        }
    };
    refuse_same_file(Path::new(&shown), sources.iter().map(PathBuf::as_path))?;
    // Two images that were described alike have one id, and so one file name.
    let explain = |error: Error| match error.kind() {
        ErrorKind::Exists if derived_id => error.at("image_id", "derived from name, attributes and sizes, not from the disks' content"),
        _ => error,
    };
    if args.write.dry_run {
        refuse_existing(Path::new(&shown), &args.write).map_err(explain)?;
        let planned = ops::plan_store(image.as_ref(), &options, context)?;
        let image_id = image.document().image_id().map(|id| id.as_str());
        return console.result(|| store_plan_text(&planned, &shown, image_id), || store_plan(&planned, &shown, image_id));
    }
    let report = match place {
        Place::Stdio => {
            refuse_terminal()?;
            console.give_up_stdout();
            let writer = Box::new(PipeWriter::stdout(settings.cancel.clone())?);
            ops::store(image.as_ref(), StoreTarget::Stream(writer), &options, context)?
        }
        Place::Path(path) => {
            let (directory, key) = archive_target(&path, &name);
            let store = DirectoryStore::new(directory, args.write.durability());
            let target = StoreTarget::Object { store: &store, key, overwrite: args.write.overwrite() };
            ops::store(image.as_ref(), target, &options, context).map_err(explain)?
        }
    };
    drop(observer);
    console.result(|| stored_text(&report, &shown), || stored(&report, &shown))
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

fn refuse_terminal() -> Result<()> {
    if std::io::IsTerminal::is_terminal(&std::io::stdout()) {
        return Err(Error::usage("an archive is not written to a terminal: redirect stdout, or name a file"));
    }
    Ok(())
}
