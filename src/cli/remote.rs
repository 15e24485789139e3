//! Connections to AWS, and readers and destinations of archives, by their options.

use std::sync::Arc;

use super::options::{
    ArchiveUrl, EbsArgs, ObjectArgs, Requests, ResumeArgs, Settings, SidesArgs, ThawArgs,
    WriteArgs, archive_target,
};
use crate::aws::ec2::Ec2Connection;
use crate::aws::s3::{ObjectOptions, S3Location, S3Store};
use crate::aws::{Compute, Session};
use crate::base::{Error, ErrorCode, Observer, Result};
use crate::object::{FileReader, ObjectReader, ObjectStore};
use crate::ops::{BucketDestination, Destination, located};

/// Opens connections to AWS, and archives.
pub(super) struct Remote(Session);

impl Remote {
    pub(super) fn new(settings: &Settings, observer: &Arc<dyn Observer>) -> Self {
        Self(Session::new(observer.clone(), settings.cancel.clone()))
    }

    /// Makes the connections of use cases that choose their own services.
    pub(super) fn session(&self) -> &Session {
        &self.0
    }

    /// EC2's control plane.
    pub(super) fn control(&self, requests: &Requests) -> Result<Ec2Connection> {
        self.0.ec2(&requests.access, &requests.settings)
    }

    /// EC2 and EBS.
    pub(super) fn compute(&self, requests: &Requests, ebs: &EbsArgs) -> Result<Compute> {
        self.0.compute(&requests.access, &requests.settings, ebs.account_rate()?)
    }

    /// The bucket of a location.
    pub(super) fn bucket(
        &self,
        location: &S3Location,
        requests: Requests,
        options: ObjectOptions,
    ) -> Result<S3Store> {
        self.0.bucket(&location.bucket, requests.access, &requests.settings, options)
    }

    /// Opens an archive in S3 by random access; with `thaw`, after it was thawed.
    pub(super) fn open_object(
        &self,
        location: &S3Location,
        requests: Requests,
        thaw: &ThawArgs,
    ) -> Result<(S3Store, Arc<dyn ObjectReader>)> {
        if location.is_prefix() {
            return Err(Error::usage("this names a bucket or a prefix, and not an archive in it")
                .code_as(ErrorCode::NotAnObjectUrl)
                .at("url", location));
        }
        let store = self.bucket(location, requests, ObjectOptions::default())?;
        if let Some(thaw) = thaw.thaw() {
            store.thaw(&location.key, thaw)?;
        }
        let reader = store.open(&location.key)?;
        Ok((store, reader))
    }

    /// Opens an archive by random access; `None` for standard input.
    pub(super) fn open(
        &self,
        archive: &ArchiveUrl,
        requests: Requests,
        thaw: &ThawArgs,
    ) -> Result<Option<Arc<dyn ObjectReader>>> {
        match archive {
            ArchiveUrl::Stdio => Ok(None),
            ArchiveUrl::Path(path) => Ok(Some(Arc::new(FileReader::open(path)?))),
            ArchiveUrl::Store(url) => {
                let (store, key) = located(url)?;
                store.open(&key).map(Some)
            }
            ArchiveUrl::S3(location) => {
                self.open_object(location, requests, thaw).map(|(_, reader)| Some(reader))
            }
        }
    }
}

/// Options of an archive that is written.
pub(super) struct TargetOptions<'a> {
    pub(super) object: &'a ObjectArgs,
    pub(super) write: &'a WriteArgs,
    pub(super) resume: &'a ResumeArgs,
    pub(super) sides: &'a SidesArgs,
    pub(super) volumes_at_once: Option<usize>,
}

impl Remote {
    /// The destination of an archive whose store or copy can be continued. `source` names its
    /// source in the task.
    pub(super) fn destination(
        &self,
        archive: &ArchiveUrl,
        options: &TargetOptions<'_>,
        source: String,
    ) -> Result<Destination> {
        let mut destination = self.destination_of_stream(archive, options)?;
        let target = destination.task_target(&archive.target());
        if let Destination::Bucket(bucket) = &mut destination {
            bucket.resumption = Some(options.resume.resumption(source, target)?);
        }
        Ok(destination)
    }

    /// The destination of an archive that comes from standard input, and cannot be read again.
    pub(super) fn destination_of_stream(
        &self,
        archive: &ArchiveUrl,
        options: &TargetOptions<'_>,
    ) -> Result<Destination> {
        Ok(match archive {
            ArchiveUrl::Stdio => Destination::Stdout,
            ArchiveUrl::Path(path) => {
                let path = archive_target(path, "".as_ref())?;
                Destination::File { path, durability: options.write.durability() }
            }
            ArchiveUrl::Store(url) => {
                let (store, key) = located(url)?;
                Destination::Object { store, key }
            }
            ArchiveUrl::S3(location) => {
                let object = options.object.options(options.volumes_at_once)?;
                let store = self.bucket(location, options.sides.target()?, object)?;
                Destination::Bucket(Box::new(BucketDestination {
                    allow_public: options.object.allow_public_bucket,
                    ..BucketDestination::new(store, &location.key)
                }))
            }
        })
    }
}
