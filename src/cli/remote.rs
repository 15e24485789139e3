//! From arguments to places in AWS, and to readers of archives wherever they are.

use std::sync::Arc;
use std::time::Duration;

use super::args::{
    AddressingForm, AwsArgs, EbsArgs, LinkArgs, ObjectArgs, ResumeArgs, SidesArgs, ThawArgs,
    TierForm, WriteArgs,
};
use super::settings::{
    Place, Settings, archive_target, located, pair, parse_size, state_directory,
};
use crate::aws::ec2::Ec2Connection;
use crate::aws::s3::{Checksum, ObjectOptions, S3Location, S3Store, Thaw, ThawTier};
use crate::aws::{Access, Addressing, Compute, Credentials, RequestSettings, RetryPolicy, Session};
use crate::base::{Error, ErrorCode, Observer, Result};
use crate::object::{Attributes, FileReader, ObjectReader};
use crate::ops::{BucketDestination, Destination, Resumption};

/// Which side of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    Target,
}

/// What it takes to reach AWS.
pub(super) struct Remote(Session);

impl Remote {
    pub(super) fn new(settings: &Settings, observer: &Arc<dyn Observer>) -> Self {
        Self(Session::new(observer.clone(), settings.cancel.clone()))
    }

    /// Makes the connections of use cases that choose their own services.
    pub(super) fn session(&self) -> &Session {
        &self.0
    }

    /// EC2's control plane with these credentials.
    pub(super) fn control(&self, access: &Access, link: &LinkArgs) -> Result<Ec2Connection> {
        self.0.ec2(access, &link.settings()?)
    }

    /// EC2 and EBS with these credentials.
    pub(super) fn compute(
        &self,
        access: &Access,
        link: &LinkArgs,
        args: &EbsArgs,
    ) -> Result<Compute> {
        if args.ebs_account_rate == Some(0) {
            return Err(Error::usage("--ebs-account-rate has to be more than 0"));
        }
        self.0.compute(access, &link.settings()?, args.ebs_account_rate)
    }

    /// The bucket of a place.
    pub(super) fn store(
        &self,
        place: &S3Location,
        access: Access,
        link: &LinkArgs,
        options: ObjectOptions,
    ) -> Result<S3Store> {
        self.0.bucket(&place.bucket, access, &link.settings()?, options)
    }

    /// Opens an archive by random access; one in an archive tier is thawed first, if that was asked
    /// for.
    pub(super) fn open(
        &self,
        place: &S3Location,
        access: Access,
        link: &LinkArgs,
        thaw: &ThawArgs,
    ) -> Result<(S3Store, Arc<dyn ObjectReader>)> {
        if place.is_prefix() {
            return Err(Error::usage("this names a bucket or a prefix, and not an archive in it")
                .code_as(ErrorCode::NotAnObjectUrl)
                .at("place", place));
        }
        let store = self.store(place, access, link, ObjectOptions::default())?;
        if let Some(thaw) = thaw.wanted() {
            store.thaw(&place.key, thaw)?;
        }
        let reader = crate::object::ObjectStore::open(&store, &place.key)?;
        Ok((store, reader))
    }
}

/// Arguments of the side that an archive is written to.
pub(super) struct WriteSide<'a> {
    pub(super) object: &'a ObjectArgs,
    pub(super) write: &'a WriteArgs,
    pub(super) resume: &'a ResumeArgs,
    pub(super) sides: &'a SidesArgs,
    pub(super) volumes_at_once: Option<usize>,
}

impl Remote {
    /// The destination of an archive that can be resumed. `source` names the source in the task.
    pub(super) fn destination(
        &self,
        place: &Place,
        side: &WriteSide<'_>,
        source: String,
    ) -> Result<Destination> {
        let mut destination = self.destination_of_stream(place, side)?;
        let target = destination.task_target(&place.shown("standard output"));
        if let Destination::Bucket(bucket) = &mut destination {
            bucket.resumption = Some(side.resume.resumption(source, target)?);
        }
        Ok(destination)
    }

    /// The destination of an archive that comes from standard input, and cannot be read again.
    pub(super) fn destination_of_stream(
        &self,
        place: &Place,
        side: &WriteSide<'_>,
    ) -> Result<Destination> {
        Ok(match place {
            Place::Stdio => Destination::Stdout,
            Place::Path(path) => {
                let (directory, name) = archive_target(path, "");
                Destination::File { directory, name, durability: side.write.durability() }
            }
            Place::Url(url) => {
                let (store, key) = located(url)?;
                Destination::Object { store, key }
            }
            Place::S3(place) => {
                let options = ObjectOptions {
                    parallel_segments: side.volumes_at_once,
                    ..side.object.options(0)?
                };
                let access = side.sides.access(Side::Target);
                let store = self.store(place, access, &side.sides.link, options)?;
                Destination::Bucket(Box::new(BucketDestination {
                    store,
                    key: place.key.clone(),
                    allow_public: side.object.allow_public_bucket,
                    is_checked: false,
                    resumption: None,
                }))
            }
        })
    }
}

/// Opens an archive by random access: a file, or an object. Standard input is none.
pub(super) fn open_archive(
    place: &Place,
    (access, link): (Access, &LinkArgs),
    thaw: &ThawArgs,
    settings: &Settings,
    observer: &Arc<dyn Observer>,
) -> Result<Option<Arc<dyn ObjectReader>>> {
    match place {
        Place::Stdio => Ok(None),
        Place::Path(path) => Ok(Some(Arc::new(FileReader::open(path)?))),
        Place::Url(url) => {
            let (store, key) = located(url)?;
            store.open(&key).map(Some)
        }
        Place::S3(place) => {
            Ok(Some(Remote::new(settings, observer).open(place, access, link, thaw)?.1))
        }
    }
}

impl LinkArgs {
    /// How requests are made.
    pub(super) fn settings(&self) -> Result<RequestSettings> {
        // As other AWS tools do: what is no number there says nothing.
        let variable =
            || std::env::var("AWS_MAX_ATTEMPTS").ok().and_then(|value| value.trim().parse().ok());
        let max_attempts =
            self.max_attempts.or_else(variable).unwrap_or(RetryPolicy::default().max_attempts);
        let limit_rate = self.limit_rate.as_deref().map(parse_size).transpose()?;
        if max_attempts == 0 || limit_rate == Some(0) {
            return Err(Error::usage("--max-attempts and --limit-rate have to be more than 0"));
        }
        Ok(RequestSettings {
            retry: RetryPolicy { max_attempts, ..RetryPolicy::default() },
            idle_timeout: Duration::from_secs(self.read_timeout.unwrap_or(60).max(1)),
            limit_rate,
            expected_bucket_owner: self.expected_bucket_owner.clone(),
            request_payer: self.request_payer,
        })
    }

    fn complete(&self, access: Access) -> Access {
        Access {
            addressing: match self.addressing_style {
                None | Some(AddressingForm::Auto) => Addressing::Auto,
                Some(AddressingForm::Path) => Addressing::Path,
                Some(AddressingForm::Virtual) => Addressing::Virtual,
            },
            credentials: if self.no_sign_request {
                Credentials::Anonymous
            } else {
                Credentials::Chain
            },
            connect_timeout: self
                .connect_timeout
                .map(|seconds| Duration::from_secs(seconds.max(1))),
            ..access
        }
    }
}

impl AwsArgs {
    pub(super) fn access(&self) -> Access {
        self.link.complete(Access {
            profile: self.profile.clone(),
            region: self.region.clone(),
            endpoint_url: self.endpoint_url.clone(),
            ..Access::default()
        })
    }
}

impl SidesArgs {
    /// What is the same for all requests of the source.
    pub(super) fn source_link(&self) -> LinkArgs {
        LinkArgs {
            expected_bucket_owner: self.source_expected_bucket_owner.clone(),
            ..self.link.clone()
        }
    }

    /// The same where there is one bucket: whichever flag names its owner.
    pub(super) fn archive_link(&self) -> LinkArgs {
        let owner = self
            .source_expected_bucket_owner
            .clone()
            .or_else(|| self.link.expected_bucket_owner.clone());
        LinkArgs { expected_bucket_owner: owner, ..self.link.clone() }
    }

    pub(super) fn access(&self, side: Side) -> Access {
        let (profile, region, endpoint_url) = match side {
            Side::Source => (&self.source_profile, &self.source_region, &self.source_endpoint_url),
            Side::Target => (&self.target_profile, &self.target_region, &self.target_endpoint_url),
        };
        self.link.complete(Access {
            profile_region_first: profile.is_some(),
            profile: profile.clone().or_else(|| self.profile.clone()),
            region: region.clone().or_else(|| self.region.clone().filter(|_| profile.is_none())),
            endpoint_url: endpoint_url.clone().or_else(|| self.endpoint_url.clone()),
            ..Access::default()
        })
    }
}

impl ObjectArgs {
    pub(super) fn options(&self, part_memory: u64) -> Result<ObjectOptions> {
        Ok(ObjectOptions {
            storage_class: self.storage_class.clone(),
            sse: self.sse.clone(),
            sse_kms_key_id: self.sse_kms_key_id.clone(),
            checksum: self.checksum_algorithm.as_deref().map(Checksum::parse).transpose()?,
            part_memory,
            part_size: self.part_size.as_deref().map(parse_size).transpose()?,
            ..ObjectOptions::default()
        })
    }

    pub(super) fn attributes(&self) -> Result<Attributes> {
        let tags = self
            .s3_object_tag
            .iter()
            .map(|tag| pair(tag, "--s3-object-tag", "KEY=VALUE"))
            .collect::<Result<_>>()?;
        Ok(Attributes { tags, ..Attributes::default() })
    }
}

/// The command line of this process, as it is given again.
pub(super) fn command_line() -> Vec<String> {
    let arguments = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
    std::iter::once("amistore".to_owned())
        .chain(arguments.filter(|arg| arg != "--restart"))
        .collect()
}

impl ResumeArgs {
    /// How work to `target` is remembered, and continued by the command line of this process.
    pub(super) fn resumption(&self, source: String, target: String) -> Result<Resumption> {
        Ok(Resumption {
            directory: state_directory(self.state.as_deref())?,
            command: command_line(),
            working_directory: std::env::current_dir()
                .map(|path| path.display().to_string())
                .unwrap_or_default(),
            source,
            target,
            restart: self.restart,
        })
    }
}

impl ThawArgs {
    fn wanted(&self) -> Option<Thaw> {
        let tier = match self.thaw? {
            TierForm::Expedited => ThawTier::Expedited,
            TierForm::Standard => ThawTier::Standard,
            TierForm::Bulk => ThawTier::Bulk,
        };
        let poll = Duration::from_secs(self.thaw_poll.unwrap_or(60).max(1));
        Some(Thaw { tier, days: self.thaw_days.unwrap_or(7).max(1), wait: self.wait, poll })
    }
}
