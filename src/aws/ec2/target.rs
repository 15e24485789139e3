//! An image that is being restored: its snapshots, begun or taken up, written, completed.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::super::ebs::{EbsSink, NewSnapshot, SendBuffers, start_snapshot};
use super::describe::{self, items, tag_params, tags, text, would};
use super::fidelity::FidelityItem;
use super::finish::{complete, finish, register, wait_for_snapshots};
use super::place::{
    Ec2Options, Ec2Place, Ec2Restored, RestoredSnapshot, delete_or_name, delete_snapshot,
    planned_snapshot,
};
use super::registration::wanted_tags;
use crate::aws::ec2_query::Params;
use crate::base::{
    BLOCK_BYTES, Error, ErrorKind, Event, Result, SnapshotId, VolumeSize, hex, random_id,
};
use crate::checkpoint::{SharedTask, SnapshotState, TaskRecord};
use crate::codec::sha256;
use crate::image::ImageDocument;
use crate::image::ImageTarget;
use crate::volume::BlockSink;

/// EC2 takes 256 characters in the value of a tag, StartSnapshot 255.
const LONGEST_TAG_OF_START: usize = 255;
/// Volumes that are written side by side at most.
const LANES: usize = 8;

/// An image that is being restored.
pub(super) struct Ec2Target {
    place: Ec2Place,
    document: ImageDocument,
    task: Option<SharedTask>,
    nonce: String,
    /// All volumes share them.
    buffers: SendBuffers,
    volumes: Vec<Volume>,
    items: Vec<FidelityItem>,
    committed: bool,
}

struct Volume {
    archived: SnapshotId,
    snapshot_id: SnapshotId,
    /// Tags that can only be set afterwards.
    late_tags: Vec<(String, String)>,
    /// Whether an earlier run began it, and may have completed it in its last moment.
    continued: bool,
    /// `None` if an earlier run completed it.
    sink: Option<Arc<EbsSink>>,
}

/// Takes what an earlier run wrote to a snapshot that is complete.
struct Complete;

impl BlockSink for Complete {
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

impl Ec2Target {
    pub(super) fn new(
        place: Ec2Place,
        document: &ImageDocument,
        task: Option<&SharedTask>,
    ) -> Result<Self> {
        Ok(Self {
            task: task.cloned(),
            nonce: nonce(task)?,
            buffers: SendBuffers::new(place.options.memory),
            volumes: Vec::new(),
            items: Vec::new(),
            committed: false,
            document: document.clone(),
            place,
        })
    }

    fn options(&self) -> &Ec2Options {
        &self.place.options
    }

    /// What the archive says of a snapshot.
    fn described(&self, id: &SnapshotId) -> &Value {
        let all = items(self.document.value(), "Snapshots");
        all.iter()
            .find(|snapshot| text(snapshot, "SnapshotId") == Some(id.as_str()))
            .unwrap_or(&Value::Null)
    }

    /// What becomes of the snapshot that an earlier run began for this volume: its id and whether
    /// it is complete; `None` if it is of no use any more.
    fn earlier(&self, noted: &SnapshotState) -> Result<Option<(SnapshotId, bool)>> {
        let id = SnapshotId::parse(&noted.snapshot_id)?;
        // One that was begun a moment ago may not be known everywhere.
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
        let edits = self.place.options.edits.clone();
        let described = self.described(id);
        let (tags, items) =
            wanted_tags(id.as_str(), &tags(described), &edits.tags_of_snapshots(), edits.no_tags);
        let description = text(described, "Description").map(ToOwned::to_owned);
        if let Some(description) = &description {
            self.items.push(FidelityItem::set(id.as_str(), "Description", &json!(description)));
        }
        self.items.extend(items);
        let (tags, late_tags) =
            tags.into_iter().partition(|(_, value)| value.chars().count() <= LONGEST_TAG_OF_START);
        let from = self.document.image_id().map_or_else(
            || format!("Restored by amistore from {id}"),
            |image| format!("Restored by amistore from {id} of {image}"),
        );
        let token = sha256::digest(format!("{} {volume} {attempt}", self.nonce).as_bytes());
        let new = NewSnapshot {
            volume_gib: NewSnapshot::gib_of(size)?,
            client_token: hex(&token),
            description: Some(description.unwrap_or(from)),
            tags,
            encrypted: edits.encrypted || edits.kms_key_arn.is_some(),
            kms_key_arn: edits.kms_key_arn,
            continuable: self.task.is_some(),
        };
        Ok((new, late_tags))
    }

    fn note(&self, snapshot: SnapshotState) -> Result<()> {
        if let Some(task) = &self.task {
            let mut task = task.lock().unwrap_or_else(PoisonError::into_inner);
            task.note(&TaskRecord::Snapshot(snapshot.clone()))?;
            // Without the note it would be nobody's, and cost money.
            task.sync()?;
        }
        self.place.lock().noted.insert(snapshot.volume, snapshot);
        Ok(())
    }

    /// Asks EC2 whether it would register the image, before blocks are sent: that it is not allowed
    /// should not be found out after hours. What else it says may have to do with the snapshots,
    /// which are not complete.
    fn try_to_register(&self) -> Result<()> {
        let of = |id: &SnapshotId| {
            let (_, gib) = planned_snapshot(&self.document, id)?;
            Some((
                self.volumes.iter().find(|volume| &volume.archived == id)?.snapshot_id.to_string(),
                gib,
            ))
        };
        let Some(registration) = self.place.registration(&self.document, &of)? else {
            return Ok(());
        };
        let params = registration.params.set("DryRun", true);
        match would(self.options().ec2.call(
            "the image would not be registered",
            "RegisterImage",
            params,
        )) {
            Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::Interrupted) => {
                Err(error)
            }
            // Of course they are; later they are not.
            Err(error) if error.causes().iter().any(|cause| cause.contains("pending")) => Ok(()),
            Err(error) if error.kind() == ErrorKind::Usage => {
                let message = format!(
                    "EC2 may refuse the image when its snapshots are there: {}",
                    error.causes().join(": ")
                );
                self.options().observer.note(&Event::Warning { message });
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Whether snapshots are encrypted as they were.
    fn encryption_items(&self, snapshots: &[RestoredSnapshot]) -> Vec<FidelityItem> {
        let mut items = Vec::new();
        for snapshot in snapshots {
            let Some(recorded) = self
                .described(&snapshot.archived)
                .get("Encrypted")
                .filter(|value| value.is_boolean())
            else {
                continue;
            };
            let subject = snapshot.archived.as_str();
            if *recorded == json!(snapshot.encrypted) {
                items.push(FidelityItem::set(subject, "Encrypted", recorded));
                continue;
            }
            if !snapshot.encrypted {
                let message = format!(
                    "{subject} was encrypted, and {} is not: --encrypted or --kms-key-id encrypts it",
                    snapshot.snapshot_id
                );
                self.options().observer.note(&Event::Warning { message });
            }
            let why = "as asked for, or as the account does by default";
            items.push(FidelityItem::changed(
                subject,
                "Encrypted",
                recorded,
                json!(snapshot.encrypted),
                why,
            ));
        }
        items
    }

    /// Completes all snapshots and waits until they can be used.
    fn complete(&mut self) -> Result<Vec<RestoredSnapshot>> {
        let options = self.place.options.clone();
        for volume in &mut self.volumes {
            let Some(sink) = volume.sink.take() else { continue };
            let sink = Arc::into_inner(sink).ok_or_else(|| {
                Error::internal("a volume is committed while it is still written")
            })?;
            complete(&options, &volume.snapshot_id, &sink.total(), volume.continued)?;
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

impl ImageTarget for Ec2Target {
    fn create_volume(&mut self, id: &SnapshotId, size: VolumeSize) -> Result<Arc<dyn BlockSink>> {
        let options = self.options().clone();
        let volume = self.volumes.len() as u16;
        let noted = self.place.lock().noted.get(&volume).cloned();
        let earlier = noted.as_ref().map(|noted| self.earlier(noted)).transpose()?.flatten();
        let attempt = noted.as_ref().map_or(0, |noted| noted.attempt + 1);
        let (new, late_tags) = self.new_snapshot(id, size, attempt)?;
        let continued = earlier.is_some();
        let (snapshot_id, complete) = match earlier {
            Some(earlier) => earlier,
            None => {
                if let Some(noted) = &noted {
                    let message = format!(
                        "{} is gone or failed: the volume is sent again in full",
                        noted.snapshot_id
                    );
                    options.observer.note(&Event::Warning { message });
                    // One that failed is still there, and nobody will ask for it again.
                    delete_or_name(&options.ec2, &noted.snapshot_id, options.observer.as_ref());
                }
                let started =
                    start_snapshot(&options.ebs, &new).map_err(|error| error.at("snapshot", id))?;
                self.note(SnapshotState {
                    volume,
                    snapshot_id: started.snapshot_id.to_string(),
                    attempt,
                    ebs_endpoint: options.ebs.endpoint().to_string(),
                    ec2_endpoint: options.ec2.endpoint().to_string(),
                    region: options.ec2.region(),
                    profile: options.ec2.profile(),
                })?;
                if started.block_size != BLOCK_BYTES {
                    // Not AWS. Nobody can continue it.
                    delete_snapshot(&options.ec2, started.snapshot_id.as_str())?;
                    return Err(Error::unsupported("EBS wants blocks of another size")
                        .at("block_size", started.block_size));
                }
                (started.snapshot_id, false)
            }
        };
        options.observer.note(&Event::Note { message: format!("{id} becomes {snapshot_id}") });
        let sink = (!complete).then(|| {
            Arc::new(EbsSink::new(
                &options.ebs,
                snapshot_id.clone(),
                &options.quotas,
                &self.buffers,
            ))
        });
        self.volumes.push(Volume {
            archived: id.clone(),
            snapshot_id,
            late_tags,
            continued,
            sink: sink.clone(),
        });
        if self.volumes.len() == self.document.snapshots().len() {
            self.try_to_register()?;
        }
        Ok(match sink {
            Some(sink) => sink,
            None => Arc::new(Complete),
        })
    }

    fn lanes(&self) -> usize {
        LANES
    }

    fn commit(mut self: Box<Self>, document: &ImageDocument) -> Result<()> {
        let snapshots = self.complete()?;
        let options = self.options().clone();
        let mut items = std::mem::take(&mut self.items);
        items.extend(self.encryption_items(&snapshots));
        let registration =
            self.place.registration(document, &|id| RestoredSnapshot::find(&snapshots, id))?;
        let restored = match registration {
            None => Ec2Restored { image_id: None, name: None, snapshots, items },
            Some(registration) => {
                let id = register(&options, &registration)?;
                // From here on the image is there, and its snapshots stay.
                self.committed = true;
                finish(&options, document, id, registration, items, snapshots)?
            }
        };
        self.committed = true;
        self.place.finished(restored)
    }
}

impl Drop for Ec2Target {
    /// Snapshots that nobody can continue are deleted; those that cannot be are named.
    fn drop(&mut self) {
        if self.committed || self.task.is_some() {
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

/// The part of client tokens that differs between restores. A task has one for its whole life, so
/// that a repeated start finds the same snapshot.
fn nonce(task: Option<&SharedTask>) -> Result<String> {
    Ok(match task {
        Some(task) => {
            let task = task.lock().unwrap_or_else(PoisonError::into_inner);
            let header = task.header();
            format!(
                "{} {} {} {} {}",
                header.fingerprint, header.settings, header.started, header.nonce, header.target
            )
        }
        None => format!("{:032x}", random_id()?),
    })
}
