//! From arguments to places in AWS, and to readers of archives wherever they are.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Duration;

use super::args::{AddressingForm, AwsArgs, EbsArgs, LinkArgs, ObjectArgs, ResumeArgs, SidesArgs, ThawArgs, TierForm};
use super::settings::{Place, Settings, pair, parse_size, state_directory};
use crate::aws::ebs::{EbsLink, Quotas};
use crate::aws::ec2::Ec2Link;
use crate::aws::s3::{Checksum, ObjectOptions, S3Link, S3Location, S3Store, Thaw, ThawTier};
use crate::aws::{Access, Addressing, Credentials, LinkOptions, Pace, RetryPolicy, Runtime};
use crate::base::{Error, Event, Observer, Result};
use crate::ops::Resumption;
use crate::store::{Attributes, FileReader, ObjectReader};

/// Which side of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    Target,
}

/// What it takes to reach AWS.
pub(super) struct Remote<'a> {
    settings: &'a Settings,
    observer: Arc<dyn Observer>,
    runtime: OnceCell<Runtime>,
}

impl<'a> Remote<'a> {
    pub(super) fn new(settings: &'a Settings, observer: &Arc<dyn Observer>) -> Self {
        Self { settings, observer: observer.clone(), runtime: OnceCell::new() }
    }

    /// The threads of requests: started when there is one to make.
    fn runtime(&self) -> Result<&Runtime> {
        if self.runtime.get().is_none() {
            // Whoever was first is right.
            let _ = self.runtime.set(Runtime::new()?);
        }
        self.runtime.get().ok_or_else(|| Error::internal("threads were started and are gone"))
    }

    /// How requests are made.
    fn link_options(&self, link: &LinkArgs) -> Result<LinkOptions> {
        // As other AWS tools do: what is no number there says nothing.
        let variable = || std::env::var("AWS_MAX_ATTEMPTS").ok().and_then(|value| value.trim().parse().ok());
        let attempts = link.max_attempts.or_else(variable).unwrap_or(RetryPolicy::default().max_attempts);
        let pace = link.limit_rate.as_deref().map(parse_size).transpose()?;
        if attempts == 0 || pace == Some(0) {
            return Err(Error::usage("--max-attempts and --limit-rate have to be more than 0"));
        }
        Ok(LinkOptions {
            retry: RetryPolicy { max_attempts: attempts, ..RetryPolicy::default() },
            silence: Duration::from_secs(link.read_timeout.unwrap_or(60).max(1)),
            pace: pace.map(Pace::new),
            observer: self.observer.clone(),
            cancel: self.settings.cancel.clone(),
        })
    }

    /// EC2's control plane with these credentials.
    pub(super) fn control(&self, access: &Access, link: &LinkArgs) -> Result<Ec2Link> {
        Ec2Link::open(self.runtime()?, access.clone(), self.link_options(link)?)
    }

    /// EC2 and EBS with these credentials.
    pub(super) fn compute(&self, access: &Access, link: &LinkArgs, args: &EbsArgs) -> Result<Compute> {
        let ec2 = self.control(access, link)?;
        let ebs = EbsLink::open(self.runtime()?, access.clone(), self.link_options(link)?)?;
        if args.ebs_account_rate == Some(0) {
            return Err(Error::usage("--ebs-account-rate has to be more than 0"));
        }
        let quotas = Quotas::new(&ebs.region(), args.ebs_account_rate);
        Ok(Compute { ec2, ebs, quotas })
    }

    /// The bucket of a place.
    pub(super) fn store(&self, place: &S3Location, access: Access, link: &LinkArgs, options: ObjectOptions) -> Result<S3Store> {
        let link_options = self.link_options(link)?;
        let options =
            ObjectOptions { expected_bucket_owner: link.expected_bucket_owner.clone(), request_payer: link.request_payer, ..options };
        let link = S3Link::open(self.runtime()?, access, link_options)?;
        Ok(S3Store::new(link, place.bucket.clone(), options))
    }

    /// Opens an archive by random access; one in an archive tier is thawed first, if that was asked for.
    pub(super) fn open(
        &self,
        place: &S3Location,
        access: Access,
        link: &LinkArgs,
        thaw: &ThawArgs,
    ) -> Result<(S3Store, Box<dyn ObjectReader>)> {
        if place.is_prefix() {
            return Err(Error::usage("this names a bucket or a prefix, and not an archive in it").at("place", place));
        }
        let store = self.store(place, access, link, ObjectOptions::default())?;
        if let Some(thaw) = thaw.wanted() {
            store.thaw(&place.key, thaw)?;
        }
        let reader = crate::store::ObjectStore::open(&store, &place.key)?;
        Ok((store, reader))
    }
}

/// Opens an archive by random access: a file, or an object. Standard input is none.
pub(super) fn open_archive(
    place: &Place,
    (access, link): (Access, &LinkArgs),
    thaw: &ThawArgs,
    settings: &Settings,
    observer: &Arc<dyn Observer>,
) -> Result<Option<Box<dyn ObjectReader>>> {
    match place {
        Place::Stdio => Ok(None),
        Place::Path(path) => Ok(Some(Box::new(FileReader::open(path)?))),
        Place::S3(place) => Ok(Some(Remote::new(settings, observer).open(place, access, link, thaw)?.1)),
    }
}

/// EC2 on one side: where images are described and registered, where blocks are read and written, and how fast.
pub(super) struct Compute {
    pub(super) ec2: Ec2Link,
    pub(super) ebs: EbsLink,
    pub(super) quotas: Quotas,
}

/// Looks at a bucket that will be written to, and refuses one that everybody may read.
pub(super) fn preflight(store: &S3Store, key: &str, object: &ObjectArgs, observer: &dyn Observer) -> Result<()> {
    let found = store.preflight(key)?;
    let note = |message: String| observer.note(&Event::Note { message });
    note(format!("bucket {} in {}", store.bucket(), found.region.as_deref().unwrap_or("a Region that it does not say")));
    if let Some(why) = found.public {
        if !object.allow_public_bucket {
            let refused = Error::new(crate::base::ErrorKind::Denied, "the bucket is public: everybody could read the disks of this image");
            return Err(refused.at("bucket", store.bucket()).at("because", why));
        }
        observer.note(&Event::Warning { message: format!("the bucket is public: {why}") });
    }
    if found.versioned {
        note("the bucket keeps old versions: replaced archives stay, and are billed".to_owned());
    }
    if found.object_lock {
        note("the bucket has object lock: an archive may not be deletable for a time".to_owned());
    }
    if !found.unanswered.is_empty() {
        note(format!("not known of the bucket, because these may not be asked: {}", found.unanswered.join(", ")));
    }
    Ok(())
}

impl LinkArgs {
    fn complete(&self, access: Access) -> Access {
        Access {
            addressing: match self.addressing_style {
                None | Some(AddressingForm::Auto) => Addressing::Auto,
                Some(AddressingForm::Path) => Addressing::Path,
                Some(AddressingForm::Virtual) => Addressing::Virtual,
            },
            credentials: if self.no_sign_request { Credentials::Anonymous } else { Credentials::Chain },
            connect_timeout: self.connect_timeout.map(|seconds| Duration::from_secs(seconds.max(1))),
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
        LinkArgs { expected_bucket_owner: self.source_expected_bucket_owner.clone(), ..self.link.clone() }
    }

    /// The same where there is one bucket: whichever flag names its owner.
    pub(super) fn archive_link(&self) -> LinkArgs {
        let owner = self.source_expected_bucket_owner.clone().or_else(|| self.link.expected_bucket_owner.clone());
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
            checksum: self.checksum_algorithm.as_deref().map_or(Ok(Checksum::default()), Checksum::parse)?,
            part_memory,
            part_size: self.part_size.as_deref().map(parse_size).transpose()?,
            ..ObjectOptions::default()
        })
    }

    pub(super) fn attributes(&self) -> Result<Attributes> {
        let tags = self.s3_object_tag.iter().map(|tag| pair(tag, "--s3-object-tag", "KEY=VALUE")).collect::<Result<_>>()?;
        Ok(Attributes { tags, ..Attributes::default() })
    }
}

impl ResumeArgs {
    /// How work to `target` is remembered, and continued by the command line of this process.
    pub(super) fn resumption(&self, source: String, target: String) -> Result<Resumption> {
        let arguments = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
        let command = std::iter::once("amistore".to_owned()).chain(arguments.filter(|arg| arg != "--restart"));
        Ok(Resumption {
            directory: state_directory(self.state.as_deref())?,
            command: command.collect(),
            working_directory: std::env::current_dir().map(|path| path.display().to_string()).unwrap_or_default(),
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
