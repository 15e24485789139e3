//! An image directory: `image.json` and one sparse raw file for each snapshot, the layout that
//! stock tools unpack from an archive. It is both a source and a destination.

use std::fs;
use std::io::{ErrorKind as IoKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::mark::{SALVAGE_JSON, Salvaged, check_salvage_json};
use super::names::{DirectoryClaim, IMAGE_JSON};
use super::{ImageDestination, ImageSource, ImageWriter, RestoreRecord, ResumableRestore};
use crate::base::{Error, ErrorCode, ErrorKind, Result, SnapshotId, VolumeSize};
use crate::image::ImageDocument;
use crate::localfs::{
    Durability, Opened, Overwrite, PartialFile, exists, is_directory, open_to_read,
};
use crate::volume::{BlockSink, BlockSource, DiskFormats, RawFileSink, open_disk};

/// Longest `image.json` that is read, in bytes; above the limit of the document, so that its error
/// says why.
const READ_LIMIT: u64 = 9 << 20;
/// The tag of the partial `image.json` of a restore that is not continued: the partial file without
/// a tag is the record of its names.
const DOCUMENT: &str = "document";

/// An image directory as a source.
pub struct ImageDirectory {
    document: ImageDocument,
    volumes: Vec<Arc<dyn BlockSource>>,
}

impl ImageDirectory {
    /// Opens `path` and all raw files that its `image.json` names, as an image to be stored. `name`
    /// takes the place of its AMI name.
    pub fn open(
        path: &Path,
        name: Option<&str>,
        formats: DiskFormats,
        salvaged: Salvaged,
    ) -> Result<Self> {
        salvaged.check_directory(path)?;
        let json = path.join(IMAGE_JSON);
        let failed = |cause: std::io::Error| {
            let message = match cause.kind() {
                IoKind::NotFound if path.is_dir() => {
                    "this directory is no image directory: it has no image.json"
                }
                _ => "cannot read the image directory",
            };
            let error = Error::io(message, cause).at("path", json.display());
            match error.kind() {
                ErrorKind::NotFound => error.code_as(ErrorCode::NoImageDirectory),
                _ => error,
            }
        };
        let mut bytes = Vec::new();
        let file = match open_to_read(&json).map_err(failed)? {
            Opened::Regular(file) => file,
            Opened::BlockDevice(_) | Opened::Other(_) => {
                return Err(
                    Error::usage("image.json is no regular file").at("path", json.display())
                );
            }
        };
        file.take(READ_LIMIT).read_to_end(&mut bytes).map_err(failed)?;
        let document = match name {
            None => ImageDocument::parse(bytes),
            Some(name) => ImageDocument::parse_renamed(&bytes, name),
        }
        .map_err(|error| error.at("path", json.display()))?;
        let mut volumes: Vec<Arc<dyn BlockSource>> = Vec::new();
        for snapshot in document.snapshots() {
            let raw = path.join(snapshot.id.file_name());
            let source =
                open_disk(&raw, formats).map_err(|error| error.at("snapshot", &snapshot.id))?;
            document
                .check_size(&snapshot.id, source.size())
                .map_err(|error| error.at("path", raw.display()))?;
            volumes.push(source);
        }
        Ok(Self { document, volumes })
    }

    /// Opens `path` as an image to be compared: its volumes may hold anything.
    pub fn open_as_is(path: &Path) -> Result<Self> {
        Self::open(path, None, DiskFormats::AsRaw, Salvaged::Allowed)
    }
}

impl ImageSource for ImageDirectory {
    fn document(&self) -> &ImageDocument {
        &self.document
    }

    fn volumes(&self) -> &[Arc<dyn BlockSource>] {
        &self.volumes
    }
}

/// An image directory that is being written. Raw files grow under partial names; `image.json` gets
/// its name last, so a directory with an `image.json` is complete. Names that a killed process gave
/// before are taken back.
pub struct ImageDirectoryWriter {
    path: PathBuf,
    overwrite: Overwrite,
    durability: Durability,
    leftovers: Leftovers,
    volumes: Vec<Arc<RawFileSink>>,
    claim: DirectoryClaim,
    /// Declared last: the partial files go first, then the directory, if it is ours and empty.
    created: CreatedDirectory,
}

/// A directory, existing or not, that images are restored to.
#[derive(Clone, Debug)]
pub struct DirectoryDestination {
    /// The directory; its parent has to exist.
    pub path: PathBuf,
    /// Whether an image in it may be replaced.
    pub overwrite: Overwrite,
    /// Whether success means that the image is on disk.
    pub durability: Durability,
}

impl DirectoryDestination {
    /// Checks that a restore can begin, as [`ImageDestination::begin`] does. Nothing is made.
    pub fn check(&self) -> Result<()> {
        match fs::metadata(&self.path) {
            Ok(found) if found.is_dir() => check_image_json(&self.path, self.overwrite),
            Ok(_) => Err(not_a_directory(&self.path)),
            Err(cause) if cause.kind() == IoKind::NotFound => {
                let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
                match parent.map(fs::metadata) {
                    None | Some(Ok(_)) => Ok(()),
                    Some(Err(cause)) => Err(cannot_make(&self.path, cause)),
                }
            }
            Err(cause) => Err(cannot_make(&self.path, cause)),
        }
    }
}

impl ImageDestination for DirectoryDestination {
    fn begin(
        &self,
        _document: &ImageDocument,
        resume: Option<&ResumableRestore>,
    ) -> Result<Box<dyn ImageWriter>> {
        let leftovers =
            resume.map_or(Leftovers::Remove, |resume| Leftovers::Keep(resume.record.tag.clone()));
        Ok(Box::new(
            ImageDirectoryWriter::create(&self.path, self.overwrite, self.durability)?
                .leaving(leftovers),
        ))
    }

    fn is_complete(&self, document: &ImageDocument, _record: &RestoreRecord) -> bool {
        ImageDirectory::open_as_is(&self.path)
            .is_ok_and(|image| image.document().bytes() == document.bytes())
    }

    fn remove_partial(&self, record: &RestoreRecord) -> Result<()> {
        ImageDirectoryWriter::remove_partial(&self.path, &record.tag)
    }
}

/// Treatment of the partial volumes of a restore that ends with an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Leftovers {
    /// Partial volumes are removed.
    #[default]
    Remove,
    /// Partial volumes keep their partial names with this tag, and volumes found under such names
    /// are continued. The tag depends on the archive: blocks that are not written again have to be
    /// those of the same archive.
    Keep(String),
}

/// A directory that is removed again if it is still empty.
pub(super) struct CreatedDirectory(Option<PathBuf>);

impl CreatedDirectory {
    /// Keeps the directory. Returns its path, if it was made here.
    pub(super) fn keep(&mut self) -> Option<PathBuf> {
        self.0.take()
    }
}

/// Makes the directory `path`, unless it exists.
pub(super) fn make_directory(path: &Path) -> Result<CreatedDirectory> {
    let created = match fs::create_dir(path) {
        Ok(()) => Some(path.to_owned()),
        Err(cause) if cause.kind() == IoKind::AlreadyExists && is_directory(path)? => None,
        Err(cause) if cause.kind() == IoKind::AlreadyExists => {
            return Err(not_a_directory(path));
        }
        Err(cause) => return Err(cannot_make(path, cause)),
    };
    Ok(CreatedDirectory(created))
}

impl Drop for CreatedDirectory {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // Fails if something is in it, which is intended.
            let _ = fs::remove_dir(path);
        }
    }
}

fn cannot_make(path: &Path, cause: std::io::Error) -> Error {
    let error = Error::io("cannot make the image directory", cause).at("path", path.display());
    match error.kind() {
        ErrorKind::NotFound => error.code_as(ErrorCode::NoParentOfImageDirectory),
        _ => error,
    }
}

fn not_a_directory(path: &Path) -> Error {
    Error::new(ErrorKind::Exists, "the target exists and is not a directory")
        .code_as(ErrorCode::NotADirectory)
        .at("path", path.display())
}

/// Refuses to replace an image unless it may be overwritten.
pub(super) fn check_image_json(directory: &Path, overwrite: Overwrite) -> Result<()> {
    let json = directory.join(IMAGE_JSON);
    if overwrite == Overwrite::No && exists(&json)? {
        return Err(Error::new(ErrorKind::Exists, "the directory holds an image already")
            .at("path", json.display()));
    }
    check_salvage_json(directory, overwrite)
}

impl ImageDirectoryWriter {
    /// Begins to restore into `path`, which is made if it does not exist (its parent has to). An
    /// `image.json` in it is an error of kind `Exists` unless it may be overwritten.
    pub fn create(path: &Path, overwrite: Overwrite, durability: Durability) -> Result<Self> {
        let created = make_directory(path)?;
        if let Err(error) = check_image_json(path, overwrite) {
            // A process that was killed after it gave the last name left its record.
            if DirectoryClaim::is_in(path)? {
                let _ = DirectoryClaim::take(path, durability);
            }
            return Err(error);
        }
        let claim = DirectoryClaim::take(path, durability)?;
        let (path, leftovers) = (path.to_owned(), Leftovers::Remove);
        Ok(Self { path, overwrite, durability, leftovers, volumes: Vec::new(), claim, created })
    }

    /// Sets the treatment of unfinished volumes.
    #[must_use]
    pub fn leaving(mut self, leftovers: Leftovers) -> Self {
        self.leftovers = leftovers;
        self
    }

    /// Removes the partial files that an interrupted restore to `path` left under this tag.
    pub fn remove_partial(path: &Path, tag: &str) -> Result<()> {
        let failed = |cause| {
            Error::io("cannot remove what a restore left behind", cause).at("path", path.display())
        };
        let entries = match fs::read_dir(path) {
            Err(cause) if cause.kind() == IoKind::NotFound => return Ok(()),
            entries => entries.map_err(failed)?,
        };
        if DirectoryClaim::is_in(path)? {
            drop(DirectoryClaim::take(path, Durability::Cached)?);
        }
        let ending = format!(".{tag}.partial");
        for entry in entries {
            let entry = entry.map_err(failed)?;
            if entry.file_name().to_string_lossy().ends_with(&ending) {
                fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        // Fails if something else is in it, which is intended.
        let _ = fs::remove_dir(path);
        Ok(())
    }
}

impl ImageDirectoryWriter {
    /// Whether a restore that is not continued was killed in this directory and left files there.
    /// Not while a process writes the directory.
    pub fn has_leftovers(path: &Path) -> Result<bool> {
        Ok(DirectoryClaim::is_in(path)? && DirectoryClaim::is_free(path)?)
    }

    /// Removes the files that such a restore left: partial ones, and volumes that got their names
    /// without an `image.json`.
    pub fn remove_leftovers(path: &Path) -> Result<()> {
        let failed = |cause| {
            Error::io("cannot remove what a restore left behind", cause).at("path", path.display())
        };
        let claim = DirectoryClaim::take(path, Durability::Cached)?;
        for entry in fs::read_dir(path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let document = format!(".{IMAGE_JSON}.{DOCUMENT}.partial");
            if name.starts_with('.') && name.ends_with(".raw.partial") || *name == *document {
                fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        drop(claim);
        // Fails if something else is in it, which is intended.
        let _ = fs::remove_dir(path);
        Ok(())
    }
}

impl ImageWriter for ImageDirectoryWriter {
    fn create_volume(&mut self, id: &SnapshotId, size: VolumeSize) -> Result<Arc<dyn BlockSink>> {
        let path = self.path.join(id.file_name());
        let sink = match &self.leftovers {
            Leftovers::Remove => RawFileSink::create(&path, size, self.overwrite, self.durability),
            Leftovers::Keep(tag) => {
                RawFileSink::resume(&path, tag, size, self.overwrite, self.durability)
            }
        };
        let sink = Arc::new(sink?);
        self.volumes.push(sink.clone());
        Ok(sink)
    }

    fn commit(mut self: Box<Self>, document: &ImageDocument) -> Result<()> {
        let (overwrite, durability) = (self.overwrite, self.durability);
        let tag = match &self.leftovers {
            Leftovers::Remove => None,
            Leftovers::Keep(tag) => Some(tag.as_str()),
        };
        let path = self.path.join(IMAGE_JSON);
        let json =
            PartialFile::create_tagged(&path, tag.or(Some(DOCUMENT)), overwrite, durability)?;
        json.file().write_all(document.bytes()).map_err(|cause| {
            Error::io("cannot write image.json", cause).at("path", self.path.display())
        })?;
        json.sync()?;
        let into_sink = |sink| {
            Arc::into_inner(sink)
                .ok_or_else(|| Error::internal("a volume is committed while it is still written"))
        };
        let sinks = self.volumes.drain(..).map(into_sink).collect::<Result<Vec<_>>>()?;
        // The slow step comes before the first rename.
        sinks.iter().try_for_each(RawFileSink::sync)?;
        self.claim.record(tag, &sinks)?;
        if overwrite == Overwrite::Yes {
            // Metadata of the old image beside volumes of the new one would be an image that never
            // existed.
            remove_if_there(&path)?;
        }
        let named = sinks.into_iter().try_for_each(RawFileSink::rename);
        if let Err(error) = named.and_then(|()| json.rename()) {
            // Volumes without their image.json go again, unless they replaced others.
            if overwrite == Overwrite::No || tag.is_some() {
                // The error that brought us here is the one to report.
                let _ = self.claim.take_back();
            }
            return Err(error);
        }
        if overwrite == Overwrite::Yes {
            // The mark of the volumes that were replaced.
            remove_if_there(&self.path.join(SALVAGE_JSON))?;
        }
        // The image is complete. Only the sync of its names can still fail, which is no reason to
        // remove it.
        let created = self.created.keep();
        if durability == Durability::Synced {
            crate::localfs::sync_directory(&path)?;
            if let Some(created) = created {
                crate::localfs::sync_directory(&created)?;
            }
        }
        Ok(())
    }
}

pub(super) fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != IoKind::NotFound => {
            Err(Error::io("cannot remove the old file", cause).at("path", path.display()))
        }
        _ => Ok(()),
    }
}
