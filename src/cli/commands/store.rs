//! `amistore store`.

use std::path::Path;

use super::super::args::{StoreArgs, WriteArgs};
use super::super::output::{Console, store_plan, store_plan_text, stored, stored_text};
use super::super::settings::{Place, Settings, archive_target, refuse_url};
use crate::base::{Error, ErrorKind, ImageId, Result};
use crate::catalog::{ImageDirectory, ImageSource, PlainDisks};
use crate::engine::PackOptions;
use crate::ops::{self, StoreTarget};
use crate::store::{DirectoryStore, PipeWriter};

pub(in super::super) fn run(args: StoreArgs, settings: &Settings, console: &Console) -> Result<()> {
    let (image, archive): (Box<dyn ImageSource>, _) = match (args.image.plain_image()?, args.places.as_slice()) {
        (Some((image, disks)), [archive]) => (Box::new(PlainDisks::open(image, &disks)?), archive),
        (Some(_), _) => return Err(Error::usage("with --disk there is no SOURCE: give only the ARCHIVE")),
        (None, [source, archive]) => {
            refuse_url(&source.to_string_lossy())?;
            refuse_image_id(source)?;
            (Box::new(ImageDirectory::open(source)?), archive)
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
    if args.write.dry_run {
        refuse_existing(Path::new(&shown), &args.write)?;
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
            ops::store(image.as_ref(), StoreTarget::Object { store: &store, key, overwrite: args.write.overwrite() }, &options, context)?
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
