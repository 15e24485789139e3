//! An image that is being restored to EC2: its snapshots are begun or continued, written and
//! completed.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::super::ebs::{EbsSink, NewSnapshot, SendBuffers, start_snapshot};
use super::super::in_parallel::each;
use super::describe::{self, tag_params, text, would};
use super::destination::{
    Ec2Destination, Ec2Options, Ec2Restored, RestoredSnapshot, delete_or_name, delete_snapshot,
    planned_snapshot,
};
use super::encryption::{EncryptionPlan, is_requested};
use super::fidelity::FidelityItem;
use super::finish::{complete, finish, register, wait_for_snapshots};
use super::larger_volume::{LargerVolume, larger_device};
use super::snapshot_items::{described, encryption_item, fits_start, snapshot_tags};
use crate::aws::ec2_query::Params;
use crate::base::{
    BLOCK_BYTES, Error, ErrorCode, ErrorKind, Event, Result, Retry, SnapshotId, VolumeSize, hex,
    random_id,
};
use crate::codec::sha256;
use crate::image::{ImageDocument, ImageWriter, ResumableRestore, SnapshotBegun};
use crate::volume::{BlockSink, Delivered};

/// The largest number of volumes that are written in parallel.
const PARALLEL_VOLUMES: usize = 8;

/// An image that is being restored.
pub(super) struct Ec2Writer {
    destination: Ec2Destination,
    document: ImageDocument,
    encryption: EncryptionPlan,
    resume: Option<ResumableRestore>,
    /// Makes client tokens unique to this restore. A resumed restore has the same one, so that a
    /// repeated StartSnapshot finds the snapshot of the earlier run.
    token_prefix: String,
    /// Shared by all volumes.
    buffers: SendBuffers,
    volumes: Vec<Volume>,
    items: Vec<FidelityItem>,
    committed: bool,
}

struct Volume {
    archived: SnapshotId,
    snapshot_id: SnapshotId,
    /// Tags that are too long for StartSnapshot, and are set when the snapshot is completed.
    late_tags: Vec<(String, String)>,
    /// Whether an earlier run began it; that run may have completed it as its last step.
    continued: bool,
    /// `None` if an earlier run completed it.
    sink: Option<Arc<EbsSink>>,
}

/// The sink of an encrypted snapshot: it explains the refusals of KMS.
struct EncryptedSink {
    inner: Arc<dyn BlockSink>,
    plan: EncryptionPlan,
    snapshot_id: SnapshotId,
}

impl EncryptedSink {
    fn explain(&self, error: Error) -> Error {
        self.plan.explain(error).at_once("snapshot_id", &self.snapshot_id)
    }
}

impl BlockSink for EncryptedSink {
    fn write_data(&self, offset: u64, data: &[u8], digests: &[[u8; 32]]) -> Result<()> {
        self.inner.write_data(offset, data, digests).map_err(|error| self.explain(error))
    }

    fn write_zeros(&self, offset: u64, len: u64) -> Result<()> {
        self.inner.write_zeros(offset, len).map_err(|error| self.explain(error))
    }

    fn read_back(&self, offset: u64, buffer: &mut [u8]) -> Result<bool> {
        self.inner.read_back(offset, buffer)
    }

    fn confirm(&self, cell: &Delivered<'_>) -> Result<()> {
        self.inner.confirm(cell).map_err(|error| self.explain(error))
    }

    fn keeps_confirmed(&self) -> bool {
        self.inner.keeps_confirmed()
    }
}

/// The sink of a snapshot that an earlier run completed: it discards the blocks.
struct CompleteSink;

impl BlockSink for CompleteSink {
    fn write_data(&self, _offset: u64, _data: &[u8], _digests: &[[u8; 32]]) -> Result<()> {
        Ok(())
    }

    fn write_zeros(&self, _offset: u64, _len: u64) -> Result<()> {
        Ok(())
    }

    fn keeps_confirmed(&self) -> bool {
        true
    }
}

impl Ec2Writer {
    pub(super) fn new(
        destination: Ec2Destination,
        document: &ImageDocument,
        encryption: EncryptionPlan,
        resume: Option<&ResumableRestore>,
    ) -> Result<Self> {
        let token_prefix = match resume {
            Some(resume) => resume.record.identity.clone(),
            None => format!("{:032x}", random_id()?),
        };
        let writer = Self {
            resume: resume.cloned(),
            token_prefix,
            buffers: SendBuffers::new(destination.options.memory),
            volumes: Vec::new(),
            items: Vec::new(),
            committed: false,
            document: document.clone(),
            encryption,
            destination,
        };
        writer.try_key()?;
        Ok(writer)
    }

    /// Begins a trial snapshot under the key, and deletes it, where blocks would be sent before the
    /// first encrypted snapshot is begun: volumes of a stream follow each other, and a stream is
    /// never continued.
    fn try_key(&self) -> Result<()> {
        let Self { encryption, destination, .. } = self;
        let first = self.document.snapshots().first();
        let begins_with_key = first.is_none_or(|first| encryption.encrypts(&first.id));
        if self.resume.is_some() || encryption.encrypted.is_empty() || begins_with_key {
            return Ok(());
        }
        let Ec2Options { ec2, ebs, edits, observer, .. } = &destination.options;
        let trial = NewSnapshot {
            volume_gib: 1,
            client_token: hex(&sha256::digest(format!("{} trial", self.token_prefix).as_bytes())),
            description: Some("Trial of a KMS key by amistore, to be deleted".to_owned()),
            encrypted: true,
            kms_key_arn: edits.kms_key_arn.clone(),
            ..NewSnapshot::default()
        };
        let begun = start_snapshot(ebs, &trial).map_err(|error| encryption.explain(error))?;
        let ec2 = ec2.for_cleaning_up();
        delete_or_name(&ec2, begun.snapshot_id.as_str(), observer.as_ref());
        Ok(())
    }

    fn options(&self) -> &Ec2Options {
        &self.destination.options
    }

    /// Looks up the snapshot that an earlier run began: its id and whether it is completed; `None`
    /// if it cannot be used any more.
    fn look_up(&self, begun: &SnapshotBegun) -> Result<Option<(SnapshotId, bool)>> {
        let id = SnapshotId::parse(&begun.snapshot_id)?;
        // EC2 is eventually consistent: a new snapshot may be unknown for seconds.
        for attempt in 0..5 {
            let described = describe::snapshots(&self.options().ec2, std::slice::from_ref(&id))?
                .pop()
                .flatten();
            match described.as_ref().map(|snapshot| text(snapshot, "State").unwrap_or_default()) {
                Some("pending") => return Ok(Some((id, false))),
                Some("completed") => return Ok(Some((id, true))),
                Some(_) => return Ok(None),
                None if attempt < 4 => self.options().ec2.pause(Duration::from_secs(2))?,
                None => {}
            }
        }
        Ok(None)
    }

    fn new_snapshot(
        &mut self,
        id: &SnapshotId,
        size: VolumeSize,
        attempt: u32,
    ) -> Result<(NewSnapshot, Vec<(String, String)>)> {
        let volume = self.volumes.len();
        let edits = self.destination.options.edits.clone();
        let description = text(described(&self.document, id), "Description").map(ToOwned::to_owned);
        let (tags, items) = snapshot_tags(&self.document, id, &edits);
        self.items.extend(items);
        let (tags, late_tags) = tags.into_iter().partition(|(_, value)| fits_start(value));
        let from = self.document.image_id().map_or_else(
            || format!("Restored by amistore from {id}"),
            |image| format!("Restored by amistore from {id} of {image}"),
        );
        let token = sha256::digest(format!("{} {volume} {attempt}", self.token_prefix).as_bytes());
        let new = NewSnapshot {
            volume_gib: NewSnapshot::gib_of(size)?,
            client_token: hex(&token),
            description: Some(description.unwrap_or(from)),
            tags,
            encrypted: is_requested(&self.document, id, &edits),
            kms_key_arn: edits.kms_key_arn,
            continuable: self.resume.is_some(),
        };
        Ok((new, late_tags))
    }

    /// Explains why the new snapshot of `id` was not begun. A key that KMS refuses is known before
    /// the first block: snapshots that this run began are deleted then.
    fn explain_start(&self, id: &SnapshotId, error: Error) -> Error {
        let error = error.at("snapshot", id);
        if !self.encryption.encrypts(id) {
            return error;
        }
        let is_new = self.volumes.iter().all(|volume| !volume.continued);
        let error = self.encryption.explain(error).at_once("kms_key_id", self.encryption.key());
        if is_new && error.is(ErrorCode::KmsKeyDenied) { error.undoing() } else { error }
    }

    fn record(&self, snapshot: SnapshotBegun) -> Result<()> {
        if let Some(resume) = &self.resume {
            resume.journal.snapshot_begun(&snapshot)?;
        }
        self.destination.lock().begun.insert(snapshot.volume, snapshot);
        Ok(())
    }

    /// Sends RegisterImage with `DryRun`, before blocks are sent: a refusal should be known before
    /// hours of work. It ends the restore, except that the snapshots are pending, or not known to
    /// EC2 yet; snapshots that this run began are deleted then.
    fn try_to_register(&self) -> Result<()> {
        let of = |id: &SnapshotId| {
            let (_, gib) = planned_snapshot(&self.document, id)?;
            Some((
                self.volumes.iter().find(|volume| &volume.archived == id)?.snapshot_id.to_string(),
                gib,
            ))
        };
        let Some(registration) = self.destination.registration(&self.document, &of)? else {
            return Ok(());
        };
        let params = registration.params.set("DryRun", true);
        match would(self.options().ec2.call(
            "the image would not be registered",
            "RegisterImage",
            params,
        )) {
            Ok(()) => Ok(()),
            Err(error)
                if error.is(ErrorCode::SnapshotPending) || error.is(ErrorCode::NoSuchSnapshot) =>
            {
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Err(error),
            // No judgement: EC2 did not answer, failed, or its answer is damaged.
            Err(error) if error.retry() != Retry::No || !has_code(&error) => {
                let message =
                    format!("EC2 did not say whether it would register the image: {error:?}");
                self.options().observer.note(&Event::Warning { message });
                Ok(())
            }
            Err(error) => {
                let error = match error.kind() {
                    ErrorKind::Usage => error.code_as(ErrorCode::RegistrationRefused),
                    _ => error,
                };
                // Snapshots of an earlier run have blocks, and another option may mend the refusal.
                let is_new = self.volumes.iter().all(|volume| !volume.continued);
                Err(if is_new { error.undoing() } else { error })
            }
        }
    }

    /// The report on the encryption of each snapshot. A snapshot that was encrypted and is not any
    /// more is a warning, if the options allow it; an unencrypted snapshot where an encrypted one
    /// was requested is an error.
    fn encryption_items(&self, snapshots: &[RestoredSnapshot]) -> Result<Vec<FidelityItem>> {
        let mut items = Vec::new();
        for snapshot in snapshots {
            let edits = &self.options().edits;
            if !snapshot.encrypted && is_requested(&self.document, &snapshot.archived, edits) {
                return Err(Error::new(
                    ErrorKind::Io,
                    "EBS made a snapshot without encryption where an encrypted one was requested: \
                     no image is registered",
                )
                .at("snapshot_id", &snapshot.snapshot_id)
                .at("snapshot", &snapshot.archived));
            }
            let item = encryption_item(&self.document, &snapshot.archived, snapshot.encrypted);
            if item.as_ref().is_some_and(|item| item.now == Some(json!(false))) {
                let message = format!(
                    "{} was encrypted, and {} is not: --allow-unencrypted permits it",
                    snapshot.archived, snapshot.snapshot_id
                );
                self.options().observer.note(&Event::Warning { message });
            }
            items.extend(item);
        }
        Ok(items)
    }

    /// Completes all snapshots and waits until EC2 reports them as completed.
    fn complete(&mut self) -> Result<Vec<RestoredSnapshot>> {
        let options = self.destination.options.clone();
        let mut written = Vec::new();
        for volume in &mut self.volumes {
            let Some(sink) = volume.sink.take() else { continue };
            let sink = Arc::into_inner(sink).ok_or_else(|| {
                Error::internal("a volume is committed while it is still written")
            })?;
            let encrypts = self.encryption.encrypts(&volume.archived);
            written.push((volume.snapshot_id.clone(), sink.total(), volume.continued, encrypts));
        }
        let completed =
            each(&written, |(id, total, continued, _)| complete(&options, id, total, *continued))?;
        for ((id, _, _, encrypts), completed) in written.iter().zip(completed) {
            match completed {
                Err(error) if *encrypts => {
                    return Err(self.encryption.explain(error).at_once("snapshot_id", id));
                }
                completed => completed?,
            }
        }
        let ids: Vec<SnapshotId> =
            self.volumes.iter().map(|volume| volume.snapshot_id.clone()).collect();
        let mut snapshots = Vec::new();
        for (volume, described) in self.volumes.iter().zip(wait_for_snapshots(&options, &ids)?) {
            if !volume.late_tags.is_empty() {
                let params = Params::new()
                    .list("ResourceId", [&volume.snapshot_id])
                    .structures("Tag", tag_params(&volume.late_tags));
                options.ec2.call("cannot tag the snapshot", "CreateTags", params)?;
            }
            snapshots.push(RestoredSnapshot::of(volume.archived.clone(), &described)?);
        }
        Ok(snapshots)
    }
}

/// Whether EC2 refused with a code of its own: a damaged answer has the HTTP status in its place.
fn has_code(error: &Error) -> bool {
    let code = error.answer().and_then(|answer| answer.code.as_deref());
    code.is_some_and(|code| code.parse::<u16>().is_err())
}

impl ImageWriter for Ec2Writer {
    fn create_volume(&mut self, id: &SnapshotId, size: VolumeSize) -> Result<Arc<dyn BlockSink>> {
        let options = self.options().clone();
        let volume = self.volumes.len() as u16;
        let begun = self.destination.lock().begun.get(&volume).cloned();
        let earlier = begun.as_ref().map(|begun| self.look_up(begun)).transpose()?.flatten();
        let attempt = begun.as_ref().map_or(0, |begun| begun.attempt + 1);
        let (new, late_tags) = self.new_snapshot(id, size, attempt)?;
        let larger = larger_device(&self.document, &options.edits, (id, size, new.volume_gib));
        let continued = earlier.is_some();
        let (snapshot_id, complete) = match earlier {
            Some(earlier) => earlier,
            None => {
                if let Some(begun) = &begun {
                    let message = format!(
                        "{} is gone or failed: the volume is sent again in full",
                        begun.snapshot_id
                    );
                    options.observer.note(&Event::Warning { message });
                    // A failed snapshot still exists, and no later run will use it.
                    delete_or_name(&options.ec2, &begun.snapshot_id, options.observer.as_ref());
                }
                let started = start_snapshot(&options.ebs, &new)
                    .map_err(|error| self.explain_start(id, error))?;
                self.record(SnapshotBegun {
                    volume,
                    snapshot_id: started.snapshot_id.to_string(),
                    attempt,
                    ebs_endpoint: options.ebs.endpoint().to_string(),
                    ec2_endpoint: options.ec2.endpoint().to_string(),
                    region: options.ec2.region(),
                    profile: options.ec2.profile(),
                })?;
                if started.block_size != BLOCK_BYTES {
                    // Not AWS; no run could write this snapshot.
                    delete_snapshot(&options.ec2, started.snapshot_id.as_str())?;
                    return Err(Error::unsupported("EBS wants blocks of another size")
                        .at("block_size", started.block_size));
                }
                (started.snapshot_id, false)
            }
        };
        self.destination.has_snapshot(id, &snapshot_id)?;
        options.observer.note(&Event::Note { message: format!("{id} becomes {snapshot_id}") });
        let sink = (!complete).then(|| {
            Arc::new(EbsSink::new(
                &options.ebs,
                (snapshot_id.clone(), size),
                &options.quotas,
                &self.buffers,
            ))
        });
        self.volumes.push(Volume {
            archived: id.clone(),
            snapshot_id: snapshot_id.clone(),
            late_tags,
            continued,
            sink: sink.clone(),
        });
        if self.volumes.len() == self.document.snapshots().len() {
            self.try_to_register()?;
        }
        let Some(sink) = sink else { return Ok(Arc::new(CompleteSink)) };
        let inner: Arc<dyn BlockSink> = if self.encryption.encrypts(id) {
            let plan = self.encryption.clone();
            Arc::new(EncryptedSink { inner: sink, plan, snapshot_id: snapshot_id.clone() })
        } else {
            sink
        };
        Ok(match larger {
            Some(device) => {
                Arc::new(LargerVolume { inner, device, observer: options.observer.clone() })
            }
            None => inner,
        })
    }

    fn parallel_volumes(&self) -> usize {
        PARALLEL_VOLUMES
    }

    fn commit(mut self: Box<Self>, document: &ImageDocument) -> Result<()> {
        let snapshots = self.complete()?;
        let options = self.options().clone();
        let mut items = std::mem::take(&mut self.items);
        items.extend(self.encryption_items(&snapshots)?);
        let registration = self
            .destination
            .registration(document, &|id| RestoredSnapshot::find(&snapshots, id))?;
        let restored = match registration {
            None => Ec2Restored { image_id: None, name: None, snapshots, items },
            Some(registration) => {
                let id = register(&options, &registration)?;
                // From here on the image exists and uses the snapshots.
                self.committed = true;
                finish(&options, document, id, registration, items, snapshots)?
            }
        };
        self.committed = true;
        self.destination.finished(restored)
    }
}

impl Drop for Ec2Writer {
    /// Deletes the snapshots, unless the restore succeeded or can be resumed. A warning names each
    /// that could not be deleted.
    fn drop(&mut self) {
        if self.committed || self.resume.is_some() {
            return;
        }
        let options = self.options().clone();
        let ec2 = options.ec2.for_cleaning_up();
        for volume in std::mem::take(&mut self.volumes) {
            drop(volume.sink);
            delete_or_name(&ec2, volume.snapshot_id.as_str(), options.observer.as_ref());
        }
    }
}
