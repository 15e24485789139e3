//! Archives as files of a directory.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Creation, Listed, Located, ObjectReader, ObjectStore, ObjectWriter, Splice, Spliced};
use crate::base::{Error, ErrorCode, ErrorKind, Result, rfc3339};
use crate::localfs::{
    Durability, Opened, Overwrite, PartialFile, check_directory, copy_range, is_at, open_to_read,
    write_all,
};

/// A directory whose files are archives. Keys are file names.
#[derive(Clone, Debug)]
pub struct DirectoryStore {
    root: PathBuf,
    durability: Durability,
}

impl DirectoryStore {
    /// The directory `root`, which has to exist when an object is created or opened.
    pub fn new(root: impl Into<PathBuf>, durability: Durability) -> Self {
        Self { root: root.into(), durability }
    }

    fn path(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }
}

impl ObjectStore for DirectoryStore {
    fn open(&self, key: &str) -> Result<Arc<dyn ObjectReader>> {
        Ok(Arc::new(FileReader::open(&self.path(key))?))
    }

    fn check(&self) -> Result<()> {
        check_directory(&self.root)
    }

    fn create(&self, key: &str, creation: Creation) -> Result<Box<dyn ObjectWriter>> {
        FileStore::new(self.path(key), self.durability).create(key, creation)
    }

    fn splice(&self, key: &str, old: &dyn ObjectReader, splice: Splice<'_>) -> Result<Spliced> {
        FileStore::new(self.path(key), self.durability).splice(key, old, splice)
    }

    /// A file that cannot be looked up is an error, which is returned after the others were listed;
    /// a link that leads nowhere is left out.
    fn list(&self, prefix: &str, found: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
        let failed =
            |cause| Error::io("cannot list the directory", cause).at("path", self.root.display());
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.root).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            // Archive names are UTF-8.
            let Some(name) = name.to_str() else { continue };
            if name.starts_with(prefix) && name.ends_with(".bin") && !name.starts_with('.') {
                names.push(name.to_owned());
            }
        }
        names.sort();
        let mut unreadable = None;
        for key in names {
            let metadata = match std::fs::metadata(self.path(&key)) {
                Ok(metadata) => metadata,
                Err(cause) if is_dangling(&cause) => continue,
                Err(cause) => {
                    unreadable.get_or_insert_with(|| failed(cause).at("name", &key));
                    continue;
                }
            };
            if metadata.is_file() {
                let modified = rfc3339(metadata.modified().map_err(failed)?);
                found(Listed {
                    len: metadata.len(),
                    modified,
                    storage_class: None,
                    metadata: BTreeMap::new(),
                    key,
                })?;
            }
        }
        unreadable.map_or(Ok(()), Err)
    }
}

/// Whether a name leads to no file: it was removed, or it is a link to a name that does not exist.
fn is_dangling(cause: &std::io::Error) -> bool {
    cause.kind() == std::io::ErrorKind::NotFound
        || rustix::io::Errno::from_io_error(cause) == Some(rustix::io::Errno::LOOP)
}

/// Bytes that are copied between two looks at the cancellation.
const COPIED_AT_ONCE: u64 = 64 << 20;

/// One file as a store of one object, for names that are not UTF-8, too. Keys mean nothing.
#[derive(Clone, Debug)]
pub struct FileStore {
    path: PathBuf,
    durability: Durability,
}

impl FileStore {
    /// The file `path`, whose directory has to exist when it is created.
    pub fn new(path: impl Into<PathBuf>, durability: Durability) -> Self {
        Self { path: path.into(), durability }
    }
}

impl ObjectStore for FileStore {
    fn open(&self, _key: &str) -> Result<Arc<dyn ObjectReader>> {
        Ok(Arc::new(FileReader::open(&self.path)?))
    }

    fn check(&self) -> Result<()> {
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        check_directory(parent.unwrap_or(Path::new(".")))
    }

    fn create(&self, _key: &str, creation: Creation) -> Result<Box<dyn ObjectWriter>> {
        let partial = PartialFile::create(&self.path, creation.overwrite, self.durability)?;
        Ok(Box::new(FileWriter { partial, written: 0, begun: 0 }))
    }

    fn splice(&self, _key: &str, old: &dyn ObjectReader, splice: Splice<'_>) -> Result<Spliced> {
        let Some(file) = old.file() else {
            return Ok(Spliced::Whole("the archive is not read from a file"));
        };
        let failed =
            |cause| Error::io("cannot write the archive", cause).at("path", self.path.display());
        let Splice { head, body, tail, progress, .. } = splice;
        let partial = PartialFile::create(&self.path, Overwrite::Yes, self.durability)?;
        write_all(partial.file(), head).map_err(failed)?;
        progress(head.len() as u64)?;
        let mut at = body.start;
        while at < body.end {
            let len = COPIED_AT_ONCE.min(body.end - at);
            copy_range(file, at, len, partial.file()).map_err(failed)?;
            progress(len)?;
            at += len;
        }
        for piece in tail {
            write_all(partial.file(), &piece).map_err(failed)?;
            progress(piece.len() as u64)?;
        }
        if !is_at(file, &self.path).map_err(failed)? {
            return Err(Error::new(ErrorKind::Io, "the archive was replaced while it was read")
                .code_as(ErrorCode::ObjectReplaced)
                .at("path", self.path.display()));
        }
        partial.commit().map(|()| Spliced::Done)
    }

    /// The store does not know whether its file is an archive: it lists nothing.
    fn list(&self, _prefix: &str, _found: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
        Ok(())
    }
}

/// The store and the key of `file:///directory/key`, given without its scheme.
pub(super) fn open_path(path: &str) -> Result<Located> {
    match path.rsplit_once('/') {
        Some((directory, key)) if directory.is_empty() || directory.starts_with('/') => {
            let store = DirectoryStore::new(format!("{directory}/"), Durability::Synced);
            Ok((Arc::new(store), key.to_owned()))
        }
        _ => Err(Error::usage("the URL of a file has an absolute path, as file:///DIRECTORY/NAME")
            .at("path", path)),
    }
}

/// A file, read at any position with one descriptor.
#[derive(Debug)]
pub struct FileReader {
    name: String,
    file: File,
    len: u64,
}

impl FileReader {
    /// Opens a regular file.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let failed = |cause| Error::io("cannot open the archive", cause).at("path", &name);
        let found = match open_to_read(path).map_err(failed)? {
            Opened::Regular(file) => {
                let len = file.metadata().map_err(failed)?.len();
                return Ok(Self { name, file, len });
            }
            Opened::BlockDevice(_) => "a block device",
            Opened::Other(kind) => kind,
        };
        Err(Error::usage("an archive is a regular file, and this is none; a pipe is read from `-`")
            .at("path", &name)
            .at("found", found))
    }
}

impl ObjectReader for FileReader {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn file(&self) -> Option<&File> {
        Some(&self.file)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(buffer, offset).map_err(|cause| {
            Error::io("cannot read the archive", cause).at("path", &self.name).at("offset", offset)
        })
    }
}

/// Bytes whose way to disk begins together.
const SYNC_STEP: u64 = 8 << 20;

struct FileWriter {
    partial: PartialFile,
    /// Bytes so far.
    written: u64,
    /// Bytes whose way to disk has begun.
    begun: u64,
}

impl ObjectWriter for FileWriter {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        write_all(self.partial.file(), bytes).map_err(|cause| {
            Error::io("cannot write the archive", cause).at("path", self.partial.target().display())
        })?;
        self.written += bytes.len() as u64;
        if self.written - self.begun >= SYNC_STEP {
            self.partial.begin_sync(self.begun, self.written - self.begun);
            self.begun = self.written;
        }
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<()> {
        self.partial.commit()
    }
}
