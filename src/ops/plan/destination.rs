//! Destinations of archives: standard output, a file, an object in a bucket.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::upload::UploadFacts;
#[cfg(feature = "aws")]
use crate::aws::s3::S3Store;
use crate::base::{Cancel, Error, ErrorKind, Observer, Result};
use crate::localfs::{Durability, Overwrite, exists};
use crate::object::{Attributes, Creation, FileStore, ObjectStore, ObjectWriter, PipeWriter};
#[cfg(feature = "aws")]
use crate::ops::Resumption;
use crate::ops::resume::Work;
#[cfg(feature = "aws")]
use crate::ops::resume::prior_upload;
use crate::ops::target::{ArchiveTarget, ObjectTarget};
#[cfg(feature = "aws")]
use crate::ops::trial::check_writable;

/// The destination of an archive.
pub enum Destination {
    /// Standard output.
    Stdout,
    /// A file.
    File {
        /// Its path; the directory has to exist.
        path: PathBuf,
        /// Whether the file is on disk when the work ends.
        durability: Durability,
    },
    /// An object of a store without uploads that are resumed.
    Object {
        /// The store.
        store: Arc<dyn ObjectStore>,
        /// The key.
        key: String,
    },
    /// An object in a bucket.
    #[cfg(feature = "aws")]
    Bucket(Box<BucketDestination>),
}

/// An object in a bucket that is written.
#[cfg(feature = "aws")]
pub struct BucketDestination {
    /// The bucket.
    pub store: S3Store,
    /// The key.
    pub key: String,
    /// Whether the bucket may be public.
    pub allow_public: bool,
    /// Whether the caller has called [`check_writable`](crate::ops::check_writable) a moment ago.
    pub is_checked: bool,
    /// How interrupted work is resumed; `None` for streams, which cannot be read again.
    pub resumption: Option<Resumption>,
}

#[cfg(feature = "aws")]
impl BucketDestination {
    /// The object `key` of a bucket that is not public; the work is not resumed.
    pub fn new(store: S3Store, key: impl Into<String>) -> Self {
        Self { store, key: key.into(), allow_public: false, is_checked: false, resumption: None }
    }
}

/// An archive at its destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// The destination is free, or its archive will be replaced.
    #[default]
    None,
    /// The destination holds the archive that would be written.
    Same,
    /// The destination holds the disks of the archive that would be written, with other metadata.
    OtherMetadata {
        /// The names of the members that differ; empty if only the form of the JSON does.
        changed: Vec<String>,
        /// Whether the archive there would get the metadata; otherwise it stays as it is.
        updates: bool,
    },
}

/// Compares existing archives with the one that would be written.
pub(super) struct Comparison<'a> {
    /// Compares an object; the error is given, and returned if they differ.
    pub(super) compare: &'a dyn Fn(&dyn ObjectStore, &str, Error) -> Result<Existing>,
    /// Whether files, and objects of stores without resumed uploads, are compared as well. If not,
    /// each that exists is an error.
    pub(super) files: bool,
}

impl Comparison<'_> {
    fn of_file(&self, store: &dyn ObjectStore, key: &str, exists: Error) -> Result<Existing> {
        if self.files { (self.compare)(store, key, exists) } else { Err(exists) }
    }
}

impl Destination {
    /// Checks that precede every write: standard output is no terminal, the directory of a file
    /// exists, a bucket may be written to and is not public. The trial upload is recorded.
    pub(super) fn check_writable(&self, observer: &dyn Observer) -> Result<()> {
        self.look_writable(true, observer)
    }

    fn look_writable(&self, records: bool, observer: &dyn Observer) -> Result<()> {
        #[cfg(not(feature = "aws"))]
        let _ = (observer, records);
        match self {
            Self::Stdout if std::io::stdout().is_terminal() => Err(Error::usage(
                "an archive is not written to a terminal: redirect stdout, or name a file",
            )),
            Self::Stdout => Ok(()),
            Self::Object { store, .. } => store.check(),
            Self::File { path, durability } => FileStore::new(path, *durability).check(),
            #[cfg(feature = "aws")]
            Self::Bucket(bucket) if bucket.is_checked => Ok(()),
            #[cfg(feature = "aws")]
            Self::Bucket(bucket) => {
                let BucketDestination { store, key, allow_public, resumption, .. } =
                    bucket.as_ref();
                // A dry run changes nothing in the state directory.
                let resumption = resumption.as_ref().filter(|_| records);
                check_writable(store, key, *allow_public, resumption, observer)
            }
        }
    }

    /// Checks the same, interrupted work that would be `continued`, with these attributes unless
    /// its upload is aborted, and an existing archive.
    pub(super) fn check(
        &self,
        overwrite: Overwrite,
        observer: &dyn Observer,
        continued: Option<(&Work, Option<&Attributes>)>,
        compare: &Comparison<'_>,
    ) -> Result<Existing> {
        self.look_writable(false, observer)?;
        #[cfg(feature = "aws")]
        if let (Self::Bucket(bucket), Some((work, attributes))) = (self, continued)
            && let Some(resumption) = &bucket.resumption
        {
            let prior = resumption.check(work)?;
            let existing = self.check_existing(overwrite, compare)?;
            if let (Existing::None, Some(prior), Some(attributes)) = (&existing, prior, attributes)
            {
                let tags = &attributes.tags;
                bucket.store.check_continued(&bucket.key, tags, &prior_upload(&prior)?)?;
            }
            return Ok(existing);
        }
        #[cfg(not(feature = "aws"))]
        let _ = continued;
        self.check_existing(overwrite, compare)
    }

    fn check_existing(&self, overwrite: Overwrite, compare: &Comparison<'_>) -> Result<Existing> {
        #[cfg(not(feature = "aws"))]
        let _ = compare;
        if overwrite == Overwrite::Yes {
            return Ok(Existing::None);
        }
        match self {
            Self::Stdout => Ok(Existing::None),
            Self::File { path, durability } => match refuse_existing(path) {
                Err(exists) if exists.kind() == ErrorKind::Exists => {
                    let store = FileStore::new(path, *durability);
                    compare.of_file(&store, &path.display().to_string(), exists)
                }
                free => free.map(|()| Existing::None),
            },
            Self::Object { store, key } => match store.open(key) {
                Ok(_) => {
                    let exists = Error::new(ErrorKind::Exists, "the object exists");
                    compare.of_file(store.as_ref(), key, exists.at("object", key))
                }
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(Existing::None),
                Err(error) => Err(error),
            },
            #[cfg(feature = "aws")]
            Self::Bucket(bucket) => {
                let BucketDestination { store, key, .. } = bucket.as_ref();
                match store.check_absent(key) {
                    Ok(()) => Ok(Existing::None),
                    Err(exists) if exists.kind() == ErrorKind::Exists => {
                        (compare.compare)(store, key, exists)
                    }
                    Err(error) => Err(error),
                }
            }
        }
    }

    /// This destination with `bytes` bytes of memory for parts of an upload.
    pub(super) fn with_part_memory(self, bytes: u64) -> Self {
        #[cfg(feature = "aws")]
        if let Self::Bucket(mut bucket) = self {
            let options = bucket.store.options().clone();
            let options = crate::aws::s3::ObjectOptions { part_memory: bytes, ..options };
            bucket.store = bucket.store.with_options(options);
            return Self::Bucket(bucket);
        }
        let _ = bytes;
        self
    }

    /// The facts that an upload is planned with; `None` for other destinations.
    pub(super) fn upload_facts(&self, overwrite: Overwrite) -> Result<Option<UploadFacts>> {
        #[cfg(feature = "aws")]
        if let Self::Bucket(bucket) = self {
            return UploadFacts::new(&bucket.store, overwrite).map(Some);
        }
        let _ = overwrite;
        Ok(None)
    }

    /// Calls `write` with the target.
    pub(super) fn open<T>(
        &self,
        (overwrite, attributes, at_most, segments): (Overwrite, Attributes, u64, Vec<u64>),
        cancel: &Cancel,
        write: impl FnOnce(ArchiveTarget<'_>) -> Result<T>,
    ) -> Result<T> {
        match self {
            Self::Stdout => {
                write(ArchiveTarget::Stream(Box::new(PipeWriter::stdout(cancel.clone())?)))
            }
            Self::File { path, durability } => {
                let store: Arc<dyn ObjectStore> = Arc::new(FileStore::new(path, *durability));
                let (key, attributes) = (path.display().to_string(), Attributes::default());
                Self::Object { store, key }.open(
                    (overwrite, attributes, at_most, segments),
                    cancel,
                    write,
                )
            }
            Self::Object { store, key } => write(ArchiveTarget::Object(ObjectTarget {
                store: store.as_ref(),
                key: key.clone(),
                overwrite,
                attributes,
                at_most,
                segments: Vec::new(),
                resumption: None,
                on_metadata_change: None,
            })),
            #[cfg(feature = "aws")]
            Self::Bucket(bucket) => {
                let resumption = bucket.resumption.clone().map(Box::new);
                write(ArchiveTarget::Object(ObjectTarget {
                    store: &bucket.store,
                    key: bucket.key.clone(),
                    overwrite,
                    attributes,
                    at_most,
                    segments,
                    resumption,
                    on_metadata_change: None,
                }))
            }
        }
    }

    /// Calls `write` with a writer of a new object.
    pub(super) fn create<T>(
        &self,
        creation: Creation,
        cancel: &Cancel,
        write: impl FnOnce(Box<dyn ObjectWriter>) -> Result<T>,
    ) -> Result<T> {
        match self {
            Self::Stdout => write(Box::new(PipeWriter::stdout(cancel.clone())?)),
            Self::File { path, durability } => {
                write(FileStore::new(path, *durability).create("", creation)?)
            }
            Self::Object { store, key } => write(store.create(key, creation)?),
            #[cfg(feature = "aws")]
            Self::Bucket(bucket) => write(bucket.store.create(&bucket.key, creation)?),
        }
    }

    /// The target that the task is known by: `shown`, and the endpoint of its service, because two
    /// services may have buckets of one name.
    pub fn task_target(&self, shown: &str) -> String {
        #[cfg(feature = "aws")]
        if let Self::Bucket(bucket) = self {
            return bucket.store.task_target(shown);
        }
        shown.to_owned()
    }
}

/// Refuses to replace an existing file.
pub(in crate::ops) fn refuse_existing(path: &Path) -> Result<()> {
    if exists(path)? {
        return Err(Error::new(ErrorKind::Exists, "the file exists").at("path", path.display()));
    }
    Ok(())
}
