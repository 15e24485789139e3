//! A copy of an object that is no archive, such as one that AWS stored: byte for byte, with its
//! metadata and tags. Nothing inside it can be checked, so its bytes are compared with the checksum
//! that its store keeps.

use std::sync::Arc;

use super::CopyOptions;
use super::cost::AwsUse;
use super::destination::{BucketDestination, Comparison, Destination, Existing};
use super::upload::{UploadFacts, UploadPlan};
use crate::aws::s3::{ObjectChecksum, RunningChecksum, S3Store};
use crate::base::{Cancel, Error, ErrorCode, ErrorKind, Event, Observer, Result, Stage, TaskKind};
use crate::engine::{Context, Incoming, MemorySplit, MemoryUses, Resources};
use crate::localfs::Overwrite;
use crate::object::{Attributes, Creation, ObjectReader, ObjectStore, ObjectWriter};
use crate::ops::resume::{CELL_RECORD, Work, abort_uploads, is_existing};
use crate::ops::server_copy::{tags_to_copy, with_record};
use crate::ops::target::{ArchiveTarget, ObjectTarget};

/// Bytes that are read at a time.
const PIECE: u64 = 4 << 20;
/// Pieces that are fetched before they are read.
const AHEAD: u64 = 4;

/// Result of a copy of an object that is no archive.
#[derive(Clone, Debug)]
pub struct CopiedObject {
    /// Bytes of the object.
    pub len: u64,
    /// The kind of data that it looks like.
    pub looks_like: &'static str,
    /// The checksum of its store that the copy was compared with; `None` if the store keeps none
    /// over the whole object.
    pub checksum: Option<&'static str>,
    /// Whether the object existed, with the same checksum.
    pub present: bool,
}

/// The plan of a copy of an object that is no archive.
#[derive(Clone, Debug)]
pub struct ForeignCopyPlan {
    /// The object.
    pub object: CopiedObject,
    /// The division of the memory budget.
    pub memory: MemorySplit,
    /// The upload, if the object goes to a bucket, and not by the service itself.
    pub upload: Option<UploadPlan>,
    /// Whether the service copies the object by itself.
    pub by_service: bool,
    /// Requests to AWS.
    pub aws: AwsUse,
}

/// A copy of an object that is no archive, with its plan.
pub struct PlannedForeignCopy<'a> {
    reader: Arc<dyn ObjectReader>,
    source: Option<(&'a S3Store, &'a str)>,
    /// The checksum that the store of the source keeps.
    checksum: Option<ObjectChecksum>,
    destination: Destination,
    overwrite: Overwrite,
    attributes: Attributes,
    plan: ForeignCopyPlan,
}

impl<'a> PlannedForeignCopy<'a> {
    /// Plans the copy of the object behind `reader`, which is `source` if it is in a bucket.
    /// `refusal` is the error of opening it as an archive. Copying an object to itself is an error.
    pub fn new(
        reader: Arc<dyn ObjectReader>,
        source: Option<(&'a S3Store, &'a str)>,
        refusal: &Error,
        destination: Destination,
        options: CopyOptions,
        resources: &Resources,
        observer: &dyn Observer,
    ) -> Result<Self> {
        let CopyOptions { overwrite, tags, by_service, .. } = options;
        let len = reader.len();
        let mut attributes = reader.attributes();
        if let (Some((store, key)), Destination::Bucket(_)) = (source, &destination) {
            attributes.tags = tags_to_copy(store, key, observer)?;
        }
        attributes.tags.extend(tags);
        let checksum = source.map(|(store, key)| store.whole_checksum(key)).transpose()?.flatten();
        let uses = MemoryUses {
            level: 1,
            incoming: if source.is_some() { Incoming::Archive } else { Incoming::Local },
            ..MemoryUses::default()
        };
        let facts = destination.upload_facts(overwrite)?;
        let mut aws = AwsUse::default();
        let (mut upload, memory) = match &facts {
            Some(facts) => {
                let (upload, memory) = UploadPlan::new(facts, (len, Vec::new()), resources, uses)?;
                (Some(upload), memory)
            }
            None => (None, resources.split(&uses)?),
        };
        let by_service = match (source, &destination) {
            (Some(source), Destination::Bucket(bucket)) => {
                is_one_service(source, bucket, by_service)?
            }
            _ => false,
        };
        if let Some(facts) = &facts {
            match upload.as_ref().filter(|_| !by_service) {
                Some(upload) => upload.add_calls(facts, &mut aws.calls),
                None => facts.add_copy_calls(len, &mut aws.calls),
            }
            aws.add_s3(facts, len);
        }
        if by_service {
            upload = None;
        } else {
            let region = facts.as_ref().and_then(UploadFacts::aws_region);
            aws.add_archive_reads(reader.service(), (1 + len.div_ceil(PIECE), len), region);
        }
        if source.is_some() {
            aws.add_source_requests("HeadObject", 1);
        }
        let object = CopiedObject {
            len,
            looks_like: looks_like(refusal),
            checksum: checksum.as_ref().map(ObjectChecksum::name),
            present: false,
        };
        let plan = ForeignCopyPlan { object, memory, upload, by_service, aws };
        let destination = destination.with_part_memory(memory.parts);
        Ok(Self { reader, source, checksum, destination, overwrite, attributes, plan })
    }

    /// The plan.
    pub fn plan(&self) -> &ForeignCopyPlan {
        &self.plan
    }

    /// Checks what can be checked without writing, as [`run`](Self::run) would.
    pub fn check(&self, observer: &dyn Observer) -> Result<Existing> {
        let work = self.work();
        // The upload of a copy by the service is not continued.
        let attributes = (!self.plan.by_service).then_some(&self.attributes);
        let compare =
            |_: &dyn ObjectStore, _: &str, exists: Error| self.same(exists).map(|_| Existing::Same);
        let compare = Comparison { compare: &compare, files: false };
        self.destination.check(self.overwrite, observer, Some((&work, attributes)), &compare)
    }

    /// Carries the plan out. The copy is visible when this returns, and not before.
    pub fn run(&self, observer: &dyn Observer, cancel: &Cancel) -> Result<CopiedObject> {
        let context = Context { plan: &self.plan.memory.plan, observer, cancel };
        observer.note(&Event::Warning {
            message: format!(
                "{} is no archive of amistore, and is copied byte for byte: amistore cannot look \
                 inside, and compares it with the checksum of its store",
                self.reader.name()
            ),
        });
        self.destination.check_writable(observer)?;
        let stage = context.stage(Stage::Copy);
        let len = self.plan.object.len;
        context.grew(len);
        let present = match (&self.source, &self.destination) {
            (Some(source), Destination::Bucket(bucket)) if self.plan.by_service => {
                self.by_service(*source, bucket, context)?
            }
            _ => {
                let creation = (self.overwrite, self.attributes.clone(), len, Vec::new());
                self.destination.open(creation, cancel, |target| match target {
                    ArchiveTarget::Stream(writer) => self.carry(writer, context).map(|()| false),
                    ArchiveTarget::Object(target) => self.to_object(target, context),
                })?
            }
        };
        stage.finish();
        if self.checksum.is_none() && !present {
            let message = "the store of the object keeps no checksum over the whole of it: the \
                 copy has the bytes that were received"
                .to_owned();
            observer.note(&Event::Warning { message });
        }
        Ok(CopiedObject { present, ..self.plan.object.clone() })
    }

    fn by_service(
        &self,
        (source, source_key): (&S3Store, &str),
        bucket: &BucketDestination,
        context: Context<'_>,
    ) -> Result<bool> {
        let version = (source, source_key, self.checksum.as_ref().and_then(ObjectChecksum::etag));
        let (attributes, overwrite) = (&self.attributes, self.overwrite);
        let recorded = (bucket.resumption.as_ref(), &self.work());
        let copied = with_record(&bucket.store, recorded, context, |resume| {
            bucket.store.copy_from(&bucket.key, version, attributes, overwrite, resume)
        });
        match copied {
            Err(error) if error.kind() == ErrorKind::Exists => self.same(error),
            Err(error) => Err(error),
            Ok(_) => {
                context.advanced(self.plan.object.len, self.plan.object.len);
                let copy = bucket.store.whole_checksum(&bucket.key)?;
                if self.checksum.as_ref().is_some_and(|ours| differs(ours, copy.as_ref())) {
                    return Err(Error::new(
                        ErrorKind::Io,
                        "the copy that the service made has another checksum than the object",
                    )
                    .code_as(ErrorCode::FinishedObjectDiffers)
                    .at("object", &bucket.key));
                }
                Ok(false)
            }
        }
    }

    fn to_object(&self, target: ObjectTarget<'_>, context: Context<'_>) -> Result<bool> {
        let ObjectTarget { store, key, overwrite, attributes, at_most, resumption, .. } = target;
        // Parts that an earlier run sent are known by their checksums alone.
        let mut creation = Creation { overwrite, at_most, attributes, ..Creation::default() };
        let run = |creation: Creation| match store
            .create(&key, creation)
            .and_then(|writer| self.carry(writer, context))
        {
            Err(error) if is_existing(&error) => self.same(error),
            outcome => outcome.map(|()| false),
        };
        let Some(resumption) = resumption else { return run(creation) };
        let task = resumption.begin(&self.work(), context.observer, |prior| {
            abort_uploads(store, prior.records()?)
        })?;
        creation.resume = Some(task.upload()?);
        let outcome = run(creation);
        if let Ok(true) = outcome {
            // Another client created the object; an upload of an earlier run would stay.
            task.abort_uploads(store)?;
        }
        task.end(outcome, &resumption, |_| Ok(()))
    }

    /// Copies all bytes, and commits them if they have the checksum of the source.
    fn carry(&self, mut writer: Box<dyn ObjectWriter>, context: Context<'_>) -> Result<()> {
        let (reader, len) = (&self.reader, self.plan.object.len);
        let mut running = self.checksum.as_ref().map(ObjectChecksum::begin);
        let fetch = |offset: u64| {
            if offset < len {
                reader.prefetch(offset, PIECE.min(len - offset));
            }
        };
        (0..AHEAD).for_each(|piece| fetch(piece * PIECE));
        let mut buffer = Vec::new();
        for offset in (0..len).step_by(PIECE as usize) {
            context.cancel.check()?;
            buffer.resize(PIECE.min(len - offset) as usize, 0);
            reader.read_at(offset, &mut buffer)?;
            fetch(offset + AHEAD * PIECE);
            if let Some(running) = &mut running {
                running.update(&buffer);
            }
            writer.append(&buffer)?;
            context.advanced(buffer.len() as u64, buffer.len() as u64);
        }
        if let (Some(stored), Some(running)) = (&self.checksum, running) {
            self.compare(stored, running)?;
        }
        context.cancel.check()?;
        writer.commit()
    }

    fn compare(&self, stored: &ObjectChecksum, running: RunningChecksum) -> Result<()> {
        let read = running.finish();
        if read == stored.value() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Io,
            "the bytes that were read do not have the checksum that the store keeps of the object: \
             nothing was written; the object was replaced meanwhile, or its bytes were changed on \
             the way",
        )
        .code_as(ErrorCode::ChecksumMismatch)
        .at("object", self.reader.name())
        .at("checksum", stored.name())
        .at("stored", stored.value())
        .at("read", read))
    }

    /// Whether the existing object has the length and the checksum of the source; the error that
    /// says that it exists, if they differ or cannot be compared.
    fn same(&self, exists: Error) -> Result<bool> {
        let (Destination::Bucket(bucket), Some(ours)) = (&self.destination, &self.checksum) else {
            return Err(exists);
        };
        match bucket.store.whole_checksum(&bucket.key) {
            Ok(Some(theirs)) if !differs(ours, Some(&theirs)) && ours.is_comparable(&theirs) => {
                Ok(true)
            }
            Ok(_) => {
                let exists = exists.code_as(ErrorCode::OtherObjectExists);
                Err(exists.at("content", "another object, or one without the same checksum"))
            }
            Err(_) => Err(exists.at("content", "not readable with these credentials")),
        }
    }

    fn work(&self) -> Work {
        let checksum = self.checksum.as_ref().map(ObjectChecksum::value).unwrap_or_default();
        let len = self.plan.object.len;
        let mut fingerprint =
            vec![self.reader.name().to_owned(), len.to_string(), checksum.to_owned()];
        if self.plan.by_service {
            fingerprint.push("by the service".to_owned());
        }
        Work {
            kind: TaskKind::Copy,
            image_id: None,
            expected: len,
            fingerprint,
            settings: Vec::new(),
            cell_record: CELL_RECORD,
        }
    }
}

/// Whether the service copies by itself: both are objects of one service, and it is permitted.
fn is_one_service(
    (store, key): (&S3Store, &str),
    bucket: &BucketDestination,
    is_permitted: bool,
) -> Result<bool> {
    if !store.connection().is_same_side(bucket.store.connection()) {
        return Ok(false);
    }
    if store.bucket() == bucket.store.bucket() && key == bucket.key {
        return Err(Error::usage("source and target are one object")
            .at("object", format!("s3://{}/{key}", store.bucket())));
    }
    Ok(is_permitted)
}

/// Whether two objects are known to differ.
fn differs(ours: &ObjectChecksum, theirs: Option<&ObjectChecksum>) -> bool {
    theirs.is_some_and(|theirs| {
        ours.object_len() != theirs.object_len()
            || (ours.is_comparable(theirs) && ours.value() != theirs.value())
    })
}

/// The kind of data, by the error of opening it as an archive.
fn looks_like(refusal: &Error) -> &'static str {
    match refusal.code() {
        Some(ErrorCode::AwsImageObject) => {
            "unknown data, which is what objects made by AWS's CreateStoreImageTask look like"
        }
        Some(ErrorCode::DiskImage) => "a disk image",
        _ => "data of another kind",
    }
}
