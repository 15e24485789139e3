//! The plan of a copy, and a copy that is planned.

use std::collections::BTreeMap;

use super::cost::AwsUse;
use super::destination::{Comparison, Destination, Existing};
use super::restore::incoming;
use super::upload::{UploadFacts, UploadPlan};
#[cfg(feature = "aws")]
use crate::aws::s3::S3Store;
use crate::base::{Cancel, Error, Observer, Result};
use crate::engine::{
    Archive, Context, Depth, Incoming, MemorySplit, MemoryUses, Resources, digest_metadata,
};
use crate::localfs::Overwrite;
use crate::object::Attributes;
use crate::ops::copy::{Copied, CopyProof, copy, plan_copy, same_archive, work};
#[cfg(feature = "aws")]
use crate::ops::server_copy::tags_to_copy;
use crate::ops::totals::WholeTotal;

/// Options of a copy.
#[derive(Clone, Debug, Default)]
pub struct CopyOptions {
    /// Whether an existing archive is replaced.
    pub overwrite: Overwrite,
    /// Tags of the copy, beside those of the source.
    pub tags: BTreeMap<String, String>,
    /// Whether the service copies within itself: no byte passes through this process. Not with
    /// `verify_blocks`.
    pub by_service: bool,
    /// Whether frames are inflated and blocks checked, beside the digests of the stored bytes.
    pub verify_blocks: bool,
}

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
    /// Requests to AWS. Those that read the archive are an upper bound.
    pub aws: AwsUse,
}

/// A copy with its plan.
pub struct PlannedCopy<'a> {
    archive: &'a Archive,
    destination: Destination,
    overwrite: Overwrite,
    attributes: Attributes,
    depth: Depth,
    /// The object that the service copies by itself.
    #[cfg(feature = "aws")]
    source: Option<(S3Store, String)>,
    plan: CopyPlan,
}

impl<'a> PlannedCopy<'a> {
    /// Plans the copy of `archive`.
    pub fn new(
        archive: &'a Archive,
        destination: Destination,
        options: CopyOptions,
        resources: &Resources,
    ) -> Result<Self> {
        let CopyOptions { overwrite, tags, verify_blocks, .. } = options;
        let depth = if verify_blocks { Depth::Blocks } else { Depth::Stored };
        let mut attributes = attributes_to_copy(archive);
        attributes.tags.extend(tags);
        let uses = MemoryUses { level: 1, incoming: incoming(archive), ..MemoryUses::default() };
        let facts = destination.upload_facts(overwrite)?;
        let (upload, mut memory, aws) = match &facts {
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
        let mut aws = aws;
        if facts.is_none() && uses.incoming == Incoming::Local {
            memory.plan = memory.plan.for_files();
        }
        let reads = archive.reads_to_open() + archive.reads_to_copy();
        add_reads(&mut aws, archive, reads, facts.as_ref());
        let copied = plan_copy(archive, CopyProof::Digests(depth));
        let plan = CopyPlan { archive: copied, memory, upload, by_service: false, aws };
        let destination = destination.with_part_memory(memory.parts);
        Ok(Self {
            archive,
            destination,
            overwrite,
            attributes,
            depth,
            #[cfg(feature = "aws")]
            source: None,
            plan,
        })
    }

    /// The plan.
    pub fn plan(&self) -> &CopyPlan {
        &self.plan
    }

    /// Checks what can be checked without writing, and interrupted work that would be continued.
    /// Fails as [`run`](Self::run) would.
    pub fn check(&self, observer: &dyn Observer) -> Result<Existing> {
        let len = self.archive.reader().len();
        let compare = |store: &dyn crate::object::ObjectStore, key: &str, exists: Error| {
            same_archive(store, key, self.archive.footer(), len, exists).map(|_| Existing::Same)
        };
        let compare = Comparison { compare: &compare, files: false };
        let work = work(self.archive, self.plan.by_service);
        // The upload of a copy by the service is not continued.
        let attributes = (!self.plan.by_service).then_some(&self.attributes);
        self.destination.check(self.overwrite, observer, Some((&work, attributes)), &compare)
    }

    /// Carries the plan out. The copy is visible when this returns, and not before.
    pub fn run(&self, observer: &dyn Observer, cancel: &Cancel) -> Result<Copied> {
        let whole = WholeTotal::of_archive(observer, self.archive);
        let context = Context { plan: &self.plan.memory.plan, observer: &whole, cancel };
        self.destination.check_writable(observer)?;
        #[cfg(feature = "aws")]
        if let (Some(source), Destination::Bucket(bucket)) = (&self.source, &self.destination) {
            return crate::ops::server_copy::server_copy(
                self.archive,
                (&source.0, &source.1),
                (&bucket.store, &bucket.key),
                (&self.attributes, self.overwrite),
                bucket.resumption.as_ref(),
                context,
            );
        }
        let at_most = self.archive.reader().len();
        let (overwrite, attributes) = (self.overwrite, self.attributes.clone());
        self.destination.open((overwrite, attributes, at_most, Vec::new()), cancel, |target| {
            copy(self.archive, target, self.depth, context)
        })
    }
}

#[cfg(feature = "aws")]
impl<'a> PlannedCopy<'a> {
    /// Plans the copy of `archive`, the object `key` of the bucket `store`. To another bucket its
    /// tags are copied, too; within one service the service copies by itself if `options` permit.
    /// Copying an object to itself is an error.
    pub fn of_object(
        archive: &'a Archive,
        (store, key): (&S3Store, &str),
        destination: Destination,
        options: CopyOptions,
        resources: &Resources,
        observer: &dyn Observer,
    ) -> Result<Self> {
        if !matches!(destination, Destination::Bucket(_)) {
            return Self::new(archive, destination, options, resources);
        }
        let mut tags = tags_to_copy(store, key, observer)?;
        tags.extend(options.tags);
        let by_service = options.by_service && !options.verify_blocks;
        let options = CopyOptions { tags, ..options };
        let mut planned = Self::new(archive, destination, options, resources)?
            .with_source(store, key, by_service)?;
        planned.plan.aws.add_source_requests("GetObjectTagging", 1);
        Ok(planned)
    }

    fn with_source(mut self, store: &S3Store, key: &str, by_service: bool) -> Result<Self> {
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
            // The object, and its copy.
            let reads = 2 * self.archive.reads_to_open();
            add_reads(&mut aws, self.archive, reads, Some(&facts));
            self.plan.aws = aws;
            self.source = Some((store.clone(), key.to_owned()));
            (self.plan.by_service, self.plan.upload) = (true, None);
            self.plan.archive.proof = CopyProof::Service;
        }
        Ok(self)
    }
}

/// Adds the requests that read the archive, if it is read from a service.
fn add_reads(aws: &mut AwsUse, archive: &Archive, requests: u64, target: Option<&UploadFacts>) {
    #[cfg(feature = "aws")]
    let region = target.and_then(UploadFacts::aws_region);
    #[cfg(not(feature = "aws"))]
    let region = target.map(|facts| facts.region.as_str());
    let reader = archive.reader();
    aws.add_archive_reads(reader.service(), (requests, reader.len()), region);
}

/// The attributes of a copy: metadata and tags of the object, as far as its store returned them;
/// the metadata of the image if it has none.
fn attributes_to_copy(archive: &Archive) -> Attributes {
    let mut attributes = archive.reader().attributes();
    if attributes.metadata.is_empty() {
        attributes.metadata = crate::ops::image_metadata(archive.document());
    }
    attributes.metadata.extend(digest_metadata(archive.footer()));
    attributes
}
