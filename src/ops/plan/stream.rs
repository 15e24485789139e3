//! Plans of a copy and a restore from a stream, whose length and content are not known before they
//! are read.

use std::io::Read;

use super::destination::{Comparison, Destination};
use super::restore::RestoreDestination;
use super::upload::UploadFacts;
use crate::base::{Cancel, Error, Observer, Result};
use crate::engine::{Context, Depth, MemorySplit, MemoryUses, Resources};
use crate::localfs::Overwrite;
use crate::object::{Attributes, Creation, ObjectStore};
use crate::ops::copy::{Copied, copy_stream};
use crate::ops::restore::{Restored, restore_stream};

/// The plan of work whose input is a stream.
#[derive(Clone, Copy, Debug)]
pub struct StreamPlan {
    /// The division of the memory budget.
    pub memory: MemorySplit,
    /// The upload, if the stream goes to a bucket.
    pub upload: Option<StreamUpload>,
}

/// The upload of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamUpload {
    /// Bytes of each part but the last: as large as memory permits, because the number of parts is
    /// limited.
    pub part_size: u64,
    /// The longest object that such parts make, in bytes.
    pub longest: u64,
}

/// A copy from a stream with its plan.
pub struct PlannedStreamCopy {
    destination: Destination,
    overwrite: Overwrite,
    attributes: Attributes,
    depth: Depth,
    plan: StreamPlan,
}

impl PlannedStreamCopy {
    /// Plans the copy, which checks cells as far as `depth` says.
    pub fn new(
        destination: Destination,
        (overwrite, attributes): (Overwrite, Attributes),
        depth: Depth,
        resources: &Resources,
    ) -> Result<Self> {
        let facts = destination.upload_facts(overwrite)?;
        let uses = MemoryUses { level: 1, ..MemoryUses::default() };
        let (memory, upload) = match &facts {
            Some(facts) => plan_upload(facts, uses, resources)?,
            None => {
                let memory = resources.split(&uses)?;
                (MemorySplit { plan: memory.plan.for_files(), ..memory }, None)
            }
        };
        let attributes = if facts.is_some() { attributes } else { Attributes::default() };
        let destination = destination.with_part_memory(memory.parts);
        let plan = StreamPlan { memory, upload };
        Ok(Self { destination, overwrite, attributes, depth, plan })
    }

    /// The plan.
    pub fn plan(&self) -> &StreamPlan {
        &self.plan
    }

    /// Checks what can be checked without the stream. An existing object is an error, as in
    /// [`run`](Self::run): a stream cannot be compared with it and then be written.
    pub fn check(&self, observer: &dyn Observer) -> Result<()> {
        let differs = |_: &dyn ObjectStore, _: &str, exists: Error| Err(exists);
        let compare = Comparison { compare: &differs, files: false };
        self.destination.check(self.overwrite, observer, None, &compare).map(drop)
    }

    /// Copies `input`. The copy is visible when this returns.
    pub fn run(
        self,
        input: impl Read + Send,
        observer: &dyn Observer,
        cancel: &Cancel,
    ) -> Result<Copied> {
        self.destination.check_writable(observer)?;
        let context = Context { plan: &self.plan.memory.plan, observer, cancel };
        let creation = Creation {
            overwrite: self.overwrite,
            at_most: self.plan.upload.map_or(0, |upload| upload.longest),
            attributes: self.attributes,
            ..Creation::default()
        };
        self.destination
            .create(creation, cancel, |writer| copy_stream(input, writer, self.depth, context))
    }
}

/// Plans parts as large as memory permits.
fn plan_upload(
    facts: &UploadFacts,
    uses: MemoryUses,
    resources: &Resources,
) -> Result<(MemorySplit, Option<StreamUpload>)> {
    #[cfg(feature = "aws")]
    {
        use crate::aws::s3::{MAX_PARTS, PartPlan};
        let least = facts.part_size.unwrap_or_else(|| PartPlan::size_for(0));
        let memory = resources.split(&MemoryUses { parts: Some(2 * least), ..uses })?;
        let part_size = facts.part_size.unwrap_or((memory.parts / 3).max(least));
        let longest = part_size.saturating_mul(MAX_PARTS);
        Ok((memory, Some(StreamUpload { part_size, longest })))
    }
    #[cfg(not(feature = "aws"))]
    {
        let _ = facts;
        Ok((resources.split(&uses)?, None))
    }
}

/// A restore from a stream with its plan.
pub struct PlannedStreamRestore<'a> {
    destination: &'a RestoreDestination,
    plan: StreamPlan,
}

impl<'a> PlannedStreamRestore<'a> {
    /// Plans the restore.
    pub fn new(destination: &'a RestoreDestination, resources: &Resources) -> Result<Self> {
        let uses = MemoryUses { blocks: destination.is_ebs(), ..MemoryUses::default() };
        let plan = StreamPlan { memory: resources.split(&uses)?, upload: None };
        Ok(Self { destination, plan })
    }

    /// The plan.
    pub fn plan(&self) -> &StreamPlan {
        &self.plan
    }

    /// Checks what can be checked without the stream: not the name and the attributes of an image.
    pub fn check(&self) -> Result<()> {
        self.destination.check()
    }

    /// Restores `input`. A stream cannot be read again: after an error nothing of it stays.
    pub fn run(
        &self,
        input: impl Read + Send,
        observer: &dyn Observer,
        cancel: &Cancel,
    ) -> Result<Restored> {
        let context = Context { plan: &self.plan.memory.plan, observer, cancel };
        self.destination.with_memory(self.plan.memory.blocks, |destination| {
            restore_stream(input, |document| destination.begin(document, None), context)
        })
    }
}
