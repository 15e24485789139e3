//! EC2 as a place to restore to: snapshots are written first, and the image is registered last, when all of them can be used.
//!
//! With a task everything that is made is noted before it is used, so that an interrupted restore goes on with the same snapshots. Without one, a restore that fails deletes them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::super::ebs::{CompletedSnapshot, EbsLink, EbsSink, NewSnapshot, Quotas, SendBuffers, complete_snapshot, start_snapshot};
use super::describe::{self, tags, text};
use super::edits::Edits;
use super::fidelity::FidelityItem;
use super::registration::{self, Registration, wanted_tags};
use super::{Ec2Link, permissions};
use crate::base::{Error, ErrorKind, Event, ImageId, Observer, Result, SnapshotId, VolumeSize, hex};
use crate::block::BlockSink;
use crate::catalog::{ImagePlace, ImageTarget};
use crate::codec::sha256;
use crate::model::ImageDocument;
use crate::query::Params;
use crate::state::{Earlier, SharedTask, SnapshotState, TaskRecord};

/// Pauses between two looks at a snapshot or image that is being made: short at first, then far below what EC2 allows.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Looks at a snapshot that EBS does not complete, because it may have done so before: within a minute.
const LOOKS_FOR_COMPLETION: u32 = 8;
/// What was just registered may be unknown for so many seconds. (EC2 developer guide, "Eventual consistency".)
const UNKNOWN_FOR: u32 = 60;
/// EC2 takes 256 characters in the value of a tag, StartSnapshot 255.
const LONGEST_TAG_OF_START: usize = 255;
/// Volumes that are written side by side at most.
const LANES: usize = 8;

/// How images are restored to EC2.
#[derive(Clone)]
pub struct Ec2Options {
    /// The control plane.
    pub ec2: Ec2Link,
    /// The data plane, in the same Region.
    pub ebs: EbsLink,
    /// The account's limits.
    pub quotas: Quotas,
    /// Memory for blocks on their way, in bytes.
    pub memory: u64,
    /// What is to be different.
    pub edits: Edits,
    /// Hears of what is decided.
    pub observer: Arc<dyn Observer>,
}

/// EC2, in one Region of one account.
#[derive(Clone)]
pub struct Ec2Place {
    options: Ec2Options,
    outcome: Arc<Mutex<Outcome>>,
}

#[derive(Default)]
struct Outcome {
    /// Snapshots of the task, by volume: what an earlier run made, then what this one did.
    noted: HashMap<u16, SnapshotState>,
    restored: Option<Ec2Restored>,
}

/// What came of a restore.
#[derive(Clone, Debug)]
pub struct Ec2Restored {
    /// The new image; `None` if only snapshots were asked for.
    pub image_id: Option<ImageId>,
    /// Its name.
    pub name: Option<String>,
    /// The new snapshots, in the order of the archive's volumes.
    pub snapshots: Vec<RestoredSnapshot>,
    /// What became of each attribute.
    pub items: Vec<FidelityItem>,
}

/// A snapshot that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredSnapshot {
    /// What it is called in the archive.
    pub archived: SnapshotId,
    /// What it is called now.
    pub snapshot_id: SnapshotId,
    /// GiB.
    pub volume_gib: u32,
    /// Whether it is encrypted.
    pub encrypted: bool,
}

impl Ec2Place {
    /// A place to restore to. Nothing is asked yet.
    pub fn new(options: Ec2Options) -> Self {
        Self { options, outcome: Arc::default() }
    }

    /// What came of the restore, when it is over.
    pub fn restored(&self) -> Option<Ec2Restored> {
        self.lock().restored.clone()
    }

    /// Finds out what would keep the image from being registered, before anything is made.
    pub fn check(&self, document: &ImageDocument) -> Result<()> {
        let Some(registration) = self.registration(document, &|_| Some(("snap-00000000".to_owned(), 0)))? else { return Ok(()) };
        if let Some(image) = describe::image_named(&self.options.ec2, &registration.name)? {
            return Err(Error::new(ErrorKind::Exists, "the account has an image of this name in this Region")
                .at("name", &registration.name)
                .at("image_id", text(&image, "ImageId").unwrap_or_default())
                .at("region", self.options.ec2.region()));
        }
        Ok(())
    }

    /// What the image would be registered with; `None` if none is asked for.
    pub fn planned_items(&self, document: &ImageDocument) -> Result<Vec<FidelityItem>> {
        Ok(self
            .registration(document, &|_| Some(("snap-00000000".to_owned(), 0)))?
            .map(|registration| registration.items)
            .unwrap_or_default())
    }

    fn registration(
        &self,
        document: &ImageDocument,
        snapshot_of: &dyn Fn(&SnapshotId) -> Option<(String, u64)>,
    ) -> Result<Option<Registration>> {
        if self.options.edits.snapshots_only {
            return Ok(None);
        }
        registration::plan(document, &self.options.edits, snapshot_of).map(Some)
    }

    fn lock(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The image that an earlier run of the task registered, if it did.
    fn registered(&self, document: &ImageDocument) -> Result<Option<ImageId>> {
        let Some(registration) = self.registration(document, &|_| Some((String::new(), 0)))? else { return Ok(None) };
        let Some(image) = describe::image_named(&self.options.ec2, &registration.name)? else { return Ok(None) };
        let ours: Vec<String> = self.lock().noted.values().map(|noted| noted.snapshot_id.clone()).collect();
        let used: Vec<&str> =
            describe::items(&image, "BlockDeviceMappings").iter().filter_map(|mapping| text(mapping.get("Ebs")?, "SnapshotId")).collect();
        let is_ours = !used.is_empty() && used.iter().all(|id| ours.iter().any(|our| our == id));
        if is_ours { text(&image, "ImageId").map(ImageId::parse).transpose() } else { Ok(None) }
    }
}

impl ImagePlace for Ec2Place {
    fn begin(&self, document: &ImageDocument, task: Option<&SharedTask>) -> Result<Box<dyn ImageTarget>> {
        if let Some(task) = task {
            let task = task.lock().unwrap_or_else(PoisonError::into_inner);
            for record in task.earlier()? {
                if let TaskRecord::Snapshot(snapshot) = record? {
                    self.lock().noted.insert(snapshot.volume, snapshot);
                }
            }
        }
        self.check(document)?;
        let described = document.value().get("Snapshots").and_then(Value::as_array).cloned().unwrap_or_default();
        Ok(Box::new(Ec2Target {
            place: self.clone(),
            described,
            image_id: document.image_id().map(ToString::to_string),
            task: task.cloned(),
            nonce: nonce(task),
            buffers: SendBuffers::new(self.options.memory),
            volumes: Vec::new(),
            items: Vec::new(),
            committed: false,
        }))
    }

    fn is_there(&self, document: &ImageDocument) -> bool {
        let finish = || -> Result<bool> {
            let Some(id) = self.registered(document)? else { return Ok(false) };
            let mut noted: Vec<SnapshotState> = self.lock().noted.values().cloned().collect();
            noted.sort_by_key(|noted| noted.volume);
            let mut snapshots = Vec::new();
            for (entry, noted) in document.snapshots().iter().zip(noted) {
                let gib = entry.volume_gib.and_then(|gib| u32::try_from(gib).ok()).unwrap_or(0);
                let snapshot_id = SnapshotId::parse(&noted.snapshot_id)?;
                snapshots.push(RestoredSnapshot { archived: entry.id.clone(), snapshot_id, volume_gib: gib, encrypted: false });
            }
            let of = |id: &SnapshotId| {
                let found = snapshots.iter().find(|snapshot| &snapshot.archived == id)?;
                Some((found.snapshot_id.to_string(), u64::from(found.volume_gib)))
            };
            let Some(registration) = self.registration(document, &of)? else { return Ok(false) };
            let restored = finish(&self.options, document, id, registration, Vec::new(), snapshots)?;
            self.lock().restored = Some(restored);
            Ok(true)
        };
        // That the name is taken remains the error, but it is not what has to be mended.
        finish().unwrap_or_else(|error| {
            let message = format!("the image of the earlier run is there, and could not be finished: {error:?}");
            self.options.observer.note(&Event::Warning { message });
            false
        })
    }

    fn clean(&self, earlier: &Earlier) -> Result<()> {
        let mut snapshots = Vec::new();
        for record in earlier.records()? {
            if let TaskRecord::Snapshot(snapshot) = record? {
                snapshots.push(snapshot.snapshot_id);
            }
        }
        let deleted: Vec<(String, Result<bool>)> =
            snapshots.into_iter().map(|id| (id.clone(), delete_snapshot(&self.options.ec2.for_cleaning_up(), &id))).collect();
        let left: Vec<&str> = deleted.iter().filter(|(_, outcome)| outcome.is_err()).map(|(id, _)| id.as_str()).collect();
        if left.is_empty() {
            return Ok(());
        }
        let left = left.join(", ");
        let error = deleted.into_iter().find_map(|(_, outcome)| outcome.err());
        Err(error.unwrap_or_else(|| Error::internal("a deletion failed and did not")).at("snapshots", left))
    }
}

/// Deletes a snapshot. Returns whether it is gone: one that an image uses stays.
pub fn delete_snapshot(ec2: &Ec2Link, id: &str) -> Result<bool> {
    match ec2.call("cannot delete the snapshot", "DeleteSnapshot", Params::new().set("SnapshotId", id)) {
        Ok(_) => Ok(true),
        Err(error) if describe::is_unknown(&error) => Ok(true),
        Err(error) if error.fact("code") == Some("InvalidSnapshot.InUse") => Ok(false),
        Err(error) => Err(error.at("snapshot_id", id)),
    }
}

/// What makes client tokens of one restore differ from those of another: for a task always the same, so that a start that was repeated finds the same snapshot.
fn nonce(task: Option<&SharedTask>) -> String {
    match task {
        Some(task) => {
            let task = task.lock().unwrap_or_else(PoisonError::into_inner);
            let header = task.header();
            format!("{} {} {} {} {}", header.fingerprint, header.settings, header.started, header.nonce, header.target)
        }
        None => {
            use std::hash::{BuildHasher, Hasher};
            let random = || std::collections::hash_map::RandomState::new().build_hasher().finish();
            format!("{:x} {:x} {}", random(), random(), std::process::id())
        }
    }
}

/// An image that is being restored.
struct Ec2Target {
    place: Ec2Place,
    /// What the archive says of its snapshots.
    described: Vec<Value>,
    image_id: Option<String>,
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
    gib: u32,
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
    fn options(&self) -> &Ec2Options {
        &self.place.options
    }

    /// What becomes of the snapshot that an earlier run began for this volume: its id and whether it is complete; `None` if it is of no use any more.
    fn earlier(&self, noted: &SnapshotState) -> Result<Option<(SnapshotId, bool)>> {
        let id = SnapshotId::parse(&noted.snapshot_id)?;
        // One that was begun a moment ago may not be known everywhere.
        for attempt in 0..5 {
            let described = describe::snapshots(&self.options().ec2, std::slice::from_ref(&id))?.pop().flatten();
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

    fn new_snapshot(&mut self, id: &SnapshotId, size: VolumeSize, attempt: u32) -> Result<(NewSnapshot, Vec<(String, String)>)> {
        let volume = self.volumes.len();
        let edits = self.place.options.edits.clone();
        let empty = json!({});
        let described = self.described.iter().find(|snapshot| text(snapshot, "SnapshotId") == Some(id.as_str())).unwrap_or(&empty);
        let (tags, items) = wanted_tags(id.as_str(), &tags(described), &edits);
        let description = text(described, "Description").map(ToOwned::to_owned);
        if let Some(description) = &description {
            self.items.push(FidelityItem::set(id.as_str(), "Description", &json!(description)));
        }
        self.items.extend(items);
        let (tags, late_tags) = tags.into_iter().partition(|(_, value)| value.chars().count() <= LONGEST_TAG_OF_START);
        let from = self
            .image_id
            .as_deref()
            .map_or_else(|| format!("Restored by amistore from {id}"), |image| format!("Restored by amistore from {id} of {image}"));
        let token = sha256::digest(format!("{} {volume} {attempt}", self.nonce).as_bytes());
        let new = NewSnapshot {
            volume_gib: NewSnapshot::gib_of(size)?,
            client_token: hex(&token),
            description: Some(description.unwrap_or(from)),
            tags,
            encrypted: edits.encrypted || edits.kms_key_arn.is_some(),
            kms_key_arn: edits.kms_key_arn,
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

    /// Completes all snapshots and waits until they can be used.
    fn complete(&mut self) -> Result<Vec<RestoredSnapshot>> {
        let options = self.place.options.clone();
        for volume in &mut self.volumes {
            let Some(sink) = volume.sink.take() else { continue };
            let sink = Arc::into_inner(sink).ok_or_else(|| Error::internal("a volume is committed while it is still written"))?;
            complete(&options, &volume.snapshot_id, &sink.total(), volume.continued)?;
        }
        let mut snapshots = Vec::new();
        for volume in &self.volumes {
            let described = wait_for_snapshot(&options, &volume.snapshot_id)?;
            if !volume.late_tags.is_empty() {
                let tags = volume.late_tags.iter().map(|(key, value)| Params::new().set("Key", key).set("Value", value));
                let params = Params::new().list("ResourceId", [&volume.snapshot_id]).structures("Tag", tags);
                options.ec2.call("cannot tag the snapshot", "CreateTags", params)?;
            }
            let encrypted = described.get("Encrypted").and_then(Value::as_bool).unwrap_or(false);
            let (archived, snapshot_id) = (volume.archived.clone(), volume.snapshot_id.clone());
            snapshots.push(RestoredSnapshot { archived, snapshot_id, volume_gib: volume.gib, encrypted });
        }
        Ok(snapshots)
    }
}

impl ImageTarget for Ec2Target {
    fn create_volume(&mut self, id: &SnapshotId, size: VolumeSize) -> Result<Arc<dyn BlockSink>> {
        let options = self.options().clone();
        let volume = self.volumes.len() as u16;
        let gib = NewSnapshot::gib_of(size)?;
        let noted = self.place.lock().noted.get(&volume).cloned();
        let earlier = noted.as_ref().map(|noted| self.earlier(noted)).transpose()?.flatten();
        let attempt = noted.as_ref().map_or(0, |noted| noted.attempt + 1);
        let (new, late_tags) = self.new_snapshot(id, size, attempt)?;
        let continued = earlier.is_some();
        let (snapshot_id, complete) = match earlier {
            Some(earlier) => earlier,
            None => {
                if let Some(noted) = &noted {
                    let message = format!("{} is gone or failed: the volume is sent again in full", noted.snapshot_id);
                    options.observer.note(&Event::Warning { message });
                    // One that failed is still there, and nobody will ask for it again.
                    if let Err(error) = delete_snapshot(&options.ec2, &noted.snapshot_id) {
                        let message = format!("{} was left behind and has to be deleted: {error}", noted.snapshot_id);
                        options.observer.note(&Event::Warning { message });
                    }
                }
                let started = start_snapshot(&options.ebs, &new).map_err(|error| error.at("snapshot", id))?;
                self.note(SnapshotState {
                    volume,
                    snapshot_id: started.snapshot_id.to_string(),
                    attempt,
                    ebs_endpoint: options.ebs.endpoint(),
                    ec2_endpoint: options.ec2.endpoint(),
                    region: options.ec2.region(),
                    profile: options.ec2.profile(),
                })?;
                (started.snapshot_id, false)
            }
        };
        options.observer.note(&Event::Note { message: format!("{id} becomes {snapshot_id}") });
        let sink = (!complete).then(|| Arc::new(EbsSink::new(&options.ebs, snapshot_id.clone(), &options.quotas, &self.buffers)));
        self.volumes.push(Volume { archived: id.clone(), snapshot_id, gib, late_tags, continued, sink: sink.clone() });
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
        let of = |id: &SnapshotId| {
            let found = snapshots.iter().find(|snapshot| &snapshot.archived == id)?;
            Some((found.snapshot_id.to_string(), u64::from(found.volume_gib)))
        };
        let mut items = std::mem::take(&mut self.items);
        items.extend(encryption_items(&self.described, &snapshots, options.observer.as_ref()));
        let registration = self.place.registration(document, &of)?;
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
        self.place.lock().restored = Some(restored);
        Ok(())
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
            if let Err(error) = delete_snapshot(&ec2, volume.snapshot_id.as_str()) {
                let message = format!("{} was left behind and has to be deleted: {error}", volume.snapshot_id);
                options.observer.note(&Event::Warning { message });
            }
        }
    }
}

/// Whether snapshots are encrypted as they were.
fn encryption_items(described: &[Value], snapshots: &[RestoredSnapshot], observer: &dyn Observer) -> Vec<FidelityItem> {
    let mut items = Vec::new();
    for snapshot in snapshots {
        let recorded = described.iter().find(|item| text(item, "SnapshotId") == Some(snapshot.archived.as_str()));
        let Some(recorded) = recorded.and_then(|item| item.get("Encrypted")).filter(|value| value.is_boolean()) else { continue };
        let subject = snapshot.archived.as_str();
        if *recorded == json!(snapshot.encrypted) {
            items.push(FidelityItem::set(subject, "Encrypted", recorded));
            continue;
        }
        if !snapshot.encrypted {
            let message = format!("{subject} was encrypted, and {} is not: --encrypted or --kms-key-id encrypts it", snapshot.snapshot_id);
            observer.note(&Event::Warning { message });
        }
        let why = "as asked for, or as the account does by default";
        items.push(FidelityItem::changed(subject, "Encrypted", recorded, json!(snapshot.encrypted), why));
    }
    items
}

/// Completes a snapshot. If that was done before, by a request whose answer got lost or by an earlier run, EBS refuses to do it again; then EC2 knows of it, sooner or later.
fn complete(options: &Ec2Options, id: &SnapshotId, what: &CompletedSnapshot, continued: bool) -> Result<()> {
    let Err(error) = complete_snapshot(&options.ebs, id, what) else { return Ok(()) };
    if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::Denied) {
        return Err(error);
    }
    let mut looks = if continued || error.fact("attempts").is_some() { LOOKS_FOR_COMPLETION } else { 1 };
    let mut pause = FIRST_PAUSE;
    loop {
        let described = describe::snapshots(&options.ec2, std::slice::from_ref(id)).ok().and_then(|mut found| found.pop().flatten());
        match described.as_ref().and_then(|snapshot| text(snapshot, "State")) {
            Some("completed") => return Ok(()),
            Some("pending") | None if looks > 1 => looks -= 1,
            _ => return Err(error),
        }
        options.ec2.pause(pause)?;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Waits until a snapshot is completed.
fn wait_for_snapshot(options: &Ec2Options, id: &SnapshotId) -> Result<Value> {
    let mut pause = FIRST_PAUSE;
    let mut unknown = 0;
    loop {
        let described = describe::snapshots(&options.ec2, std::slice::from_ref(id))?.pop().flatten();
        match described.as_ref().map(|snapshot| text(snapshot, "State").unwrap_or_default()) {
            Some("completed") => return Ok(described.unwrap_or_default()),
            Some("error" | "recoverable" | "recovering") => {
                let message =
                    described.as_ref().and_then(|snapshot| text(snapshot, "StateMessage")).unwrap_or("no reason is given").to_owned();
                return Err(Error::new(ErrorKind::Io, "EC2 could not complete the snapshot").at("snapshot_id", id).at("reason", message));
            }
            Some(_) => {}
            // Completed is not yet known everywhere.
            None if unknown < 60 => unknown += 1,
            None => {
                return Err(Error::new(ErrorKind::NotFound, "the snapshot that was written does not exist any more").at("snapshot_id", id));
            }
        }
        options.ec2.pause(pause)?;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Registers the image. If a request was answered and the answer got lost, the image that is there now is ours.
fn register(options: &Ec2Options, registration: &Registration) -> Result<ImageId> {
    let answer = match options.ec2.call("cannot register the image", "RegisterImage", registration.params.clone()) {
        Err(error) if error.fact("code") == Some("InvalidAMIName.Duplicate") => {
            let Some(image) = namesake(options, &registration.name, error.fact("attempts").is_some())? else { return Err(error) };
            let wanted: Vec<&str> = registration
                .params
                .pairs()
                .iter()
                .filter(|(name, _)| name.ends_with(".Ebs.SnapshotId"))
                .map(|(_, value)| value.as_str())
                .collect();
            let found: Vec<&str> = describe::items(&image, "BlockDeviceMappings")
                .iter()
                .filter_map(|mapping| text(mapping.get("Ebs")?, "SnapshotId"))
                .collect();
            if wanted.is_empty() || wanted.iter().any(|id| !found.contains(id)) {
                return Err(error.at("name", &registration.name));
            }
            image
        }
        answer => answer?,
    };
    let missing = || Error::new(ErrorKind::Io, "EC2 does not say what the new image is called").at("name", &registration.name);
    ImageId::parse(text(&answer, "ImageId").ok_or_else(missing)?)
}

/// The image that has a name. If the request that was answered last was not the first, it may be the one that an earlier one made, and not be known everywhere yet.
fn namesake(options: &Ec2Options, name: &str, may_be_ours: bool) -> Result<Option<Value>> {
    let mut left = if may_be_ours { UNKNOWN_FOR } else { 0 };
    loop {
        match describe::image_named(&options.ec2, name)? {
            None if left > 0 => left -= 1,
            found => return Ok(found),
        }
        options.ec2.pause(Duration::from_secs(1))?;
    }
}

/// Waits until the image can be used, does what was asked for besides, and takes the account of all attributes.
fn finish(
    options: &Ec2Options,
    document: &ImageDocument,
    id: ImageId,
    registration: Registration,
    mut items: Vec<FidelityItem>,
    snapshots: Vec<RestoredSnapshot>,
) -> Result<Ec2Restored> {
    let registered = |error: Error| error.at("registered", &id);
    let mut pause = FIRST_PAUSE;
    loop {
        let described = describe::new_image(&options.ec2, &id).map_err(registered)?;
        match text(&described, "State").unwrap_or("available") {
            "available" => break,
            "pending" => {}
            state => {
                let reason = described.get("StateReason").and_then(|reason| text(reason, "Message")).unwrap_or("no reason is given");
                let failed = Error::new(ErrorKind::Io, "EC2 could not make the image that was registered");
                return Err(registered(failed.at("state", state).at("reason", reason)));
            }
        }
        options.ec2.pause(pause)?;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    let mut account = registration.items;
    account.extend(permissions::apply(&options.ec2, &id, document, &options.edits).map_err(registered)?);
    let described = describe::new_image(&options.ec2, &id).map_err(registered)?;
    let has_uefi_data = account.iter().any(|item| item.attribute == "UefiData");
    let attributes = match has_uefi_data {
        true => describe::attribute(&options.ec2, "DescribeImageAttribute", ("ImageId", id.as_str()), "uefiData").map_err(registered)?,
        false => None,
    };
    registration::observe(&mut account, &described, attributes.as_ref());
    account.append(&mut items);
    Ok(Ec2Restored { image_id: Some(id), name: Some(registration.name), snapshots, items: account })
}
