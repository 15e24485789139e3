//! The multipart upload of an archive: parts, and volumes that are uploaded in parallel.

/// The plan of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadPlan {
    /// Bytes of each part but the last. A shorter archive is sent in one request.
    pub part_size: u64,
    /// The largest number of parts.
    pub parts: u64,
    /// The largest length of each volume's segment in bytes, if volumes are uploaded in parallel;
    /// empty if they are uploaded one after the other.
    pub segments: Vec<u64>,
}

/// Facts about a bucket, and options of the upload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadFacts {
    /// The Region that requests go to.
    pub region: String,
    /// Bytes of a part; planned if absent.
    pub part_size: Option<u64>,
    /// Whether volumes are uploaded in parallel, if memory suffices.
    pub is_parallel: bool,
    /// Whether too little memory for that is an error.
    pub needs_parallel: bool,
    /// Whether the endpoint is a configured one: other services take smaller parts.
    pub is_compatible: bool,
    /// Whether the service is AWS's. Others may have to show by a probe object that they honour
    /// conditions of writes.
    pub is_aws: bool,
    /// Whether the object gets the storage class S3 Standard.
    pub is_standard: bool,
    /// Whether an existing object is replaced.
    pub replaces: bool,
}

#[cfg(feature = "aws")]
mod aws {
    use super::super::calls::{Calls, Service};
    use super::{UploadFacts, UploadPlan};
    use crate::aws::s3::{PartPlan, S3Store};
    use crate::base::{Error, ErrorCode, ErrorKind, Result};
    use crate::engine::{MemorySplit, MemoryUses, Resources};
    use crate::localfs::Overwrite;

    /// Parts that one ListParts request lists.
    const LISTED_PARTS: u64 = 1000;
    /// Bytes that the service copies with one request, as long as 10,000 requests suffice.
    const COPIED_PART: u64 = 256 << 20;

    impl UploadFacts {
        /// The Region, if the service is AWS's.
        pub(in super::super) fn aws_region(&self) -> Option<&str> {
            self.is_aws.then_some(self.region.as_str())
        }

        /// The facts about a bucket.
        pub fn new(store: &S3Store, overwrite: Overwrite) -> Result<Self> {
            let options = store.options();
            Ok(Self {
                region: store.connection().region(),
                part_size: options.part_size,
                is_parallel: store.wants_parallel()?,
                needs_parallel: options.parallel_segments.is_some(),
                is_compatible: store.connection().endpoint().is_custom(),
                is_aws: store.connection().endpoint().is_aws(),
                is_standard: options.storage_class.as_deref().is_none_or(|it| it == "STANDARD"),
                replaces: overwrite == Overwrite::Yes,
            })
        }
    }

    impl UploadFacts {
        /// Adds the S3 requests of the checks before a write.
        fn add_checks(&self, calls: &mut Calls) {
            for action in [
                "HeadBucket",
                "CreateMultipartUpload",
                "AbortMultipartUpload",
                "GetPublicAccessBlock",
                "GetBucketPolicyStatus",
                "GetBucketAcl",
                "GetBucketVersioning",
                "GetObjectLockConfiguration",
            ] {
                calls.add(Service::S3, action, 1);
            }
            // If HeadObject is refused, they tell whether the finished object is the one that was
            // sent.
            calls.add(Service::S3, "GetObject", 1);
            calls.add(Service::S3, "ListObjectsV2", 1);
            // If HeadObject is refused, a probe object is put twice, and both versions of it are
            // deleted.
            if !self.is_aws && !self.replaces {
                calls.add(Service::S3, "PutObject", 2);
                calls.add(Service::S3, "DeleteObject", 2);
            }
        }

        /// Adds the S3 requests of an object of `len` bytes that the service copies by itself.
        pub(in super::super) fn add_copy_calls(&self, len: u64, calls: &mut Calls) {
            self.add_checks(calls);
            // The source; the target before the upload, before its completion, and after it.
            calls.add(Service::S3, "HeadObject", if self.replaces { 2 } else { 4 });
            calls.add(Service::S3, "CreateMultipartUpload", 1);
            calls.add(Service::S3, "UploadPartCopy", len.div_ceil(COPIED_PART));
            calls.add(Service::S3, "CompleteMultipartUpload", 1);
        }
    }

    impl UploadPlan {
        /// Plans the upload of an archive of at most `longest` bytes, whose volumes have the
        /// segments `segments`, and divides the memory. Parallel uploads need memory for four
        /// parts, others for two.
        pub(in super::super) fn new(
            facts: &UploadFacts,
            (longest, segments): (u64, Vec<u64>),
            resources: &Resources,
            uses: MemoryUses,
        ) -> Result<(Self, MemorySplit)> {
            let with = |at_most: u64, segments: Vec<u64>, least_parts: u64| -> Result<_> {
                let part = facts.part_size.unwrap_or_else(|| PartPlan::size_for(at_most));
                let uses = MemoryUses { parts: Some(least_parts * part), ..uses };
                let split = resources.split(&uses)?;
                Ok((Self::of(facts, (longest, at_most), segments, split.parts)?, split, part))
            };
            if facts.is_parallel && segments.len() > 1 {
                let bounded = PartPlan::with_borders(longest, segments.len());
                let least_parts = if facts.needs_parallel { 4 } else { 2 };
                match with(bounded, segments, least_parts) {
                    Ok((plan, split, part)) if split.parts >= 4 * part => {
                        return Ok((plan, split));
                    }
                    Err(error) if facts.needs_parallel && error.kind() == ErrorKind::Limit => {
                        return Err(parallel_memory(&error));
                    }
                    Err(error) if facts.needs_parallel => return Err(error),
                    _ => {}
                }
            }
            with(longest, Vec::new(), 2).map(|(plan, split, _)| (plan, split))
        }

        fn of(
            facts: &UploadFacts,
            (longest, at_most): (u64, u64),
            segments: Vec<u64>,
            memory: u64,
        ) -> Result<Self> {
            let plan = match facts.part_size {
                Some(size) => PartPlan::with_parts_of(size, longest, memory, facts.is_compatible)?,
                None => PartPlan::new(at_most, memory)?,
            };
            plan.numbers(&segments)?;
            let part_size = plan.part_size;
            // Each border between two segments takes one part more.
            let parts = longest.div_ceil(part_size).max(1) + segments.len() as u64;
            Ok(Self { part_size, parts, segments })
        }

        /// Adds the S3 requests of the upload and of the checks before it.
        pub(in super::super) fn add_calls(&self, facts: &UploadFacts, calls: &mut Calls) {
            facts.add_checks(calls);
            let mut add = |action, count| calls.add(Service::S3, action, count);
            // Before the upload, before its completion, and after it.
            add("HeadObject", if facts.replaces { 1 } else { 3 });
            if self.parts == 1 {
                add("PutObject", 1);
            } else {
                add("CreateMultipartUpload", 1);
                add("UploadPart", self.parts);
                add("ListParts", self.parts.div_ceil(LISTED_PARTS));
                add("CompleteMultipartUpload", 1);
            }
        }
    }

    fn parallel_memory(error: &Error) -> Error {
        let refused = Error::new(
            ErrorKind::Limit,
            "the memory budget is too small to upload volumes in parallel",
        )
        .code_as(ErrorCode::MemoryForParts);
        error.context().iter().fold(refused, |refused, (key, value)| refused.at(key, value))
    }
}
