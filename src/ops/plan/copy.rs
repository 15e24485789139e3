//! The plan of a copy, and a copy that is planned.

use super::cost::AwsUse;
use super::destination::{Destination, Existing};
use super::upload::UploadPlan;
#[cfg(feature = "aws")]
use crate::aws::s3::S3Store;
use crate::base::{Cancel, Error, Observer, Result};
use crate::engine::{Archive, Context, Incoming, MemorySplit, MemoryUses, Resources};
use crate::localfs::Overwrite;
use crate::object::{Attributes, Creation};
use crate::ops::copy::{Copied, copy, copy_stream, plan_copy, same_archive};

/// The plan of a copy.
#[derive(Clone, Debug)]
pub struct CopyPlan {
    /// Length and digests of the archive.
    pub archive: Copied,
    /// The division of the memory budget.
    pub memory: MemorySplit,
    /// The upload, if the archive goes to a bucket, and not by the service itself.
    pub upload: Option<UploadPlan>,
    /// Whether the service copies the object by itself.
    pub by_service: bool,
    /// Requests to AWS, without those that read the archive.
    pub aws: AwsUse,
}

/// A copy with its plan.
pub struct PlannedCopy<'a> {
    archive: &'a Archive,
    destination: Destination,
    overwrite: Overwrite,
    attributes: Attributes,
    /// The object that the service copies by itself.
    #[cfg(feature = "aws")]
    source: Option<(S3Store, String)>,
    plan: CopyPlan,
}

impl<'a> PlannedCopy<'a> {
    /// Plans the copy of `archive`. `is_remote`: it is read over a network.
    pub fn new(
        archive: &'a Archive,
        destination: Destination,
        (overwrite, attributes): (Overwrite, Attributes),
        resources: &Resources,
        is_remote: bool,
    ) -> Result<Self> {
        let uses = MemoryUses {
            level: 1,
            incoming: if is_remote { Incoming::Archive } else { Incoming::Local },
            ..MemoryUses::default()
        };
        let facts = destination.upload_facts(overwrite)?;
        let (upload, memory, aws) = match &facts {
            #[cfg(feature = "aws")]
            Some(facts) => {
                let len = archive.reader().len();
                let mut aws = AwsUse::default();
                let (upload, memory) = UploadPlan::new(facts, (len, Vec::new()), resources, uses)?;
                upload.add_calls(facts, &mut aws.calls);
                aws.add_s3(facts, len);
                (Some(upload), memory, aws)
            }
            _ => (None::<UploadPlan>, resources.split(&uses)?, AwsUse::default()),
        };
        let plan = CopyPlan { archive: plan_copy(archive), memory, upload, by_service: false, aws };
        let destination = destination.with_part_memory(memory.parts);
        Ok(Self {
            archive,
            destination,
            overwrite,
            attributes,
            #[cfg(feature = "aws")]
            source: None,
            plan,
        })
    }

    /// The plan.
    pub fn plan(&self) -> &CopyPlan {
        &self.plan
    }

    /// Checks what can be checked without writing. Fails as [`run`](Self::run) would.
    pub fn check(&self, observer: &dyn Observer) -> Result<Existing> {
        let len = self.archive.reader().len();
        let compare = |store: &dyn crate::object::ObjectStore, key: &str, exists: Error| {
            same_archive(store, key, self.archive.footer(), len, exists).map(drop)
        };
        self.destination.check(self.overwrite, observer, &compare)
    }

    /// Carries the plan out. The copy is visible when this returns, and not before.
    pub fn run(&self, observer: &dyn Observer, cancel: &Cancel) -> Result<Copied> {
        let context = Context { plan: &self.plan.memory.plan, observer, cancel };
        self.destination.check_writable(observer)?;
        #[cfg(feature = "aws")]
        if let (Some(source), Destination::Bucket(bucket)) = (&self.source, &self.destination) {
            return crate::ops::server_copy::server_copy(
                self.archive,
                (&source.0, &source.1),
                (&bucket.store, &bucket.key),
                (&self.attributes, self.overwrite),
                context,
            );
        }
        let at_most = self.archive.reader().len();
        let (overwrite, attributes) = (self.overwrite, self.attributes.clone());
        self.destination.open((overwrite, attributes, at_most, Vec::new()), cancel, |target| {
            copy(self.archive, target, context)
        })
    }
}

#[cfg(feature = "aws")]
impl PlannedCopy<'_> {
    /// Names the object that is copied. With `by_service` the service copies it by itself, if it is
    /// the one of the destination: no byte comes here. Copying an object to itself is an error.
    pub fn with_source(mut self, store: &S3Store, key: &str, by_service: bool) -> Result<Self> {
        let Destination::Bucket(bucket) = &self.destination else { return Ok(self) };
        if !store.connection().is_same_side(bucket.store.connection()) {
            return Ok(self);
        }
        if store.bucket() == bucket.store.bucket() && key == bucket.key {
            return Err(Error::usage("source and target are one object")
                .at("object", format!("s3://{}/{key}", store.bucket())));
        }
        if by_service {
            let facts = self.destination.upload_facts(self.overwrite)?.unwrap_or_default();
            let (len, mut aws) = (self.archive.reader().len(), AwsUse::default());
            facts.add_copy_calls(len, &mut aws.calls);
            aws.add_s3(&facts, len);
            self.plan.aws = aws;
            self.source = Some((store.clone(), key.to_owned()));
            (self.plan.by_service, self.plan.upload) = (true, None);
        }
        Ok(self)
    }
}

/// The attributes of a copy: metadata and tags of the object, which are made of the image's
/// metadata if it has none. `tags` replace those of the object.
pub fn attributes_to_copy(
    archive: &Archive,
    tags: Option<std::collections::BTreeMap<String, String>>,
) -> Attributes {
    let mut attributes = archive.reader().attributes();
    if attributes.metadata.is_empty() {
        attributes.metadata = crate::ops::image_metadata(archive.document());
    }
    if let Some(tags) = tags {
        attributes.tags = tags;
    }
    attributes
}

/// Copies a stream, whose length is not known: parts are as large as memory allows. The copy is
/// visible when this returns.
pub fn copy_from_stream(
    input: impl std::io::Read + Send,
    destination: Destination,
    (overwrite, attributes): (Overwrite, Attributes),
    resources: &Resources,
    observer: &dyn Observer,
    cancel: &Cancel,
) -> Result<Copied> {
    let facts = destination.upload_facts(overwrite)?;
    let (memory, at_most) = match &facts {
        #[cfg(feature = "aws")]
        Some(facts) => {
            use crate::aws::s3::{MAX_PARTS, PartPlan};
            let least = facts.part_size.unwrap_or_else(|| PartPlan::size_for(0));
            let uses = MemoryUses { level: 1, parts: Some(2 * least), ..MemoryUses::default() };
            let memory = resources.split(&uses)?;
            let part = facts.part_size.unwrap_or((memory.parts / 3).max(least));
            (memory, part.saturating_mul(MAX_PARTS))
        }
        _ => (resources.split(&MemoryUses { level: 1, ..MemoryUses::default() })?, 0),
    };
    let destination = destination.with_part_memory(memory.parts);
    destination.check_writable(observer)?;
    let context = Context { plan: &memory.plan, observer, cancel };
    let attributes = if facts.is_some() { attributes } else { Attributes::default() };
    let creation = Creation { overwrite, at_most, attributes, ..Creation::default() };
    destination.create(creation, cancel, |writer| copy_stream(input, writer, context))
}
