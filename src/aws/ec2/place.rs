//! EC2 as a place to restore to: snapshots are written first, and the image is registered last,
//! when all of them can be used.
//!
//! With a task everything that is made is noted before it is used, so that an interrupted restore
//! goes on with the same snapshots. Without one, a restore that fails deletes them. Snapshots are
//! made in `target`, the image in `finish`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::super::ebs::{EbsConnection, Quotas};
use super::Ec2Connection;
use super::describe::{self, text};
use super::edits::Edits;
use super::fidelity::FidelityItem;
use super::finish::finish;
use super::registration::{self, Registration};
use super::target::Ec2Target;
use crate::aws::ec2_query::Params;
use crate::base::{Error, ErrorKind, Event, ImageId, Observer, Result, SnapshotId};
use crate::checkpoint::{Earlier, SharedTask, SnapshotState, TaskRecord};
use crate::image::ImageDocument;
use crate::image::{ImagePlace, ImageTarget};

/// How images are restored to EC2.
#[derive(Clone)]
pub struct Ec2Options {
    /// The control plane.
    pub ec2: Ec2Connection,
    /// The data plane, in the same Region.
    pub ebs: EbsConnection,
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
    pub(super) options: Ec2Options,
    outcome: Arc<Mutex<Outcome>>,
    made: Option<Made>,
}

/// Hears of an image that was made.
pub type Made = Arc<dyn Fn(&Ec2Restored) -> Result<()> + Send + Sync>;

#[derive(Default)]
pub(super) struct Outcome {
    /// Snapshots of the task, by volume: what an earlier run made, then what this one did.
    pub(super) noted: HashMap<u16, SnapshotState>,
    pub(super) restored: Option<Ec2Restored>,
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

impl RestoredSnapshot {
    /// What a snapshot of the archive is called now, and its size in GiB.
    pub(super) fn find(all: &[Self], archived: &SnapshotId) -> Option<(String, u64)> {
        let found = all.iter().find(|snapshot| &snapshot.archived == archived)?;
        Some((found.snapshot_id.to_string(), u64::from(found.volume_gib)))
    }

    /// A snapshot as EC2 describes it.
    pub(super) fn of(archived: SnapshotId, described: &Value) -> Result<Self> {
        Ok(Self {
            archived,
            snapshot_id: SnapshotId::parse(text(described, "SnapshotId").unwrap_or_default())?,
            volume_gib: described
                .get("VolumeSize")
                .and_then(Value::as_u64)
                .and_then(|gib| u32::try_from(gib).ok())
                .unwrap_or(0),
            encrypted: described.get("Encrypted").and_then(Value::as_bool).unwrap_or(false),
        })
    }
}

impl Ec2Place {
    /// A place to restore to. Nothing is asked yet.
    pub fn new(options: Ec2Options) -> Self {
        Self { options, outcome: Arc::default(), made: None }
    }

    /// Has `made` hear of the image as soon as it is finished, before the task is forgotten:
    /// whoever remembers it then finds it after any crash. Its error is one of the restore.
    #[must_use]
    pub fn telling(self, made: Made) -> Self {
        Self { made: Some(made), ..self }
    }

    /// The image is finished.
    pub(super) fn finished(&self, restored: Ec2Restored) -> Result<()> {
        if let Some(made) = &self.made {
            made(&restored)?;
        }
        self.lock().restored = Some(restored);
        Ok(())
    }

    /// What came of the restore, when it is over.
    pub fn restored(&self) -> Option<Ec2Restored> {
        self.lock().restored.clone()
    }

    /// Finds out what would keep the image from being registered, before anything is made.
    pub fn check(&self, document: &ImageDocument) -> Result<()> {
        let Some(registration) =
            self.registration(document, &|id| planned_snapshot(document, id))?
        else {
            return Ok(());
        };
        if let Some(image) = describe::image_named(&self.options.ec2, &registration.name)? {
            return Err(Error::new(
                ErrorKind::Exists,
                "the account has an image of this name in this Region",
            )
            .at("name", &registration.name)
            .at("image_id", text(&image, "ImageId").unwrap_or_default())
            .at("region", self.options.ec2.region()));
        }
        Ok(())
    }

    /// Finds out whether these credentials may describe snapshots, without which nobody knows when
    /// they can be used. That should be known before all blocks are sent.
    pub fn check_access(&self) -> Result<()> {
        describe::may_describe_snapshots(&self.options.ec2)
    }

    /// What the image would be registered with; `None` if none is asked for.
    pub fn planned_items(&self, document: &ImageDocument) -> Result<Vec<FidelityItem>> {
        Ok(self
            .registration(document, &|id| planned_snapshot(document, id))?
            .map(|registration| registration.items)
            .unwrap_or_default())
    }

    pub(super) fn registration(
        &self,
        document: &ImageDocument,
        snapshot_of: &dyn Fn(&SnapshotId) -> Option<(String, u64)>,
    ) -> Result<Option<Registration>> {
        if self.options.edits.snapshots_only {
            return Ok(None);
        }
        registration::plan(document, &self.options.edits, snapshot_of).map(Some)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The image that an earlier run of the task registered, if it did.
    fn registered(&self, document: &ImageDocument) -> Result<Option<ImageId>> {
        let Some(registration) = self.registration(document, &|_| Some((String::new(), 0)))? else {
            return Ok(None);
        };
        let Some(image) = describe::image_named(&self.options.ec2, &registration.name)? else {
            return Ok(None);
        };
        let ours: Vec<String> =
            self.lock().noted.values().map(|noted| noted.snapshot_id.clone()).collect();
        let used: Vec<&str> = describe::snapshots_of(&image).collect();
        let is_ours = !used.is_empty() && used.iter().all(|id| ours.iter().any(|our| our == id));
        if is_ours { text(&image, "ImageId").map(ImageId::parse).transpose() } else { Ok(None) }
    }
}

impl ImagePlace for Ec2Place {
    fn begin(
        &self,
        document: &ImageDocument,
        task: Option<&SharedTask>,
    ) -> Result<Box<dyn ImageTarget>> {
        if let Some(task) = task {
            let task = task.lock().unwrap_or_else(PoisonError::into_inner);
            for record in task.earlier()? {
                if let TaskRecord::Snapshot(snapshot) = record? {
                    self.lock().noted.insert(snapshot.volume, snapshot);
                }
            }
        }
        self.check(document)?;
        self.check_access()?;
        Ok(Box::new(Ec2Target::new(self.clone(), document, task)?))
    }

    fn is_there(&self, document: &ImageDocument) -> bool {
        let finish = || -> Result<bool> {
            let Some(id) = self.registered(document)? else { return Ok(false) };
            let mut noted: Vec<SnapshotState> = self.lock().noted.values().cloned().collect();
            noted.sort_by_key(|noted| noted.volume);
            let ids = noted
                .iter()
                .map(|noted| SnapshotId::parse(&noted.snapshot_id))
                .collect::<Result<Vec<_>>>()?;
            let mut snapshots = Vec::new();
            for (entry, described) in
                document.snapshots().iter().zip(describe::snapshots(&self.options.ec2, &ids)?)
            {
                let Some(described) = described else { return Ok(false) };
                snapshots.push(RestoredSnapshot::of(entry.id.clone(), &described)?);
            }
            let Some(registration) =
                self.registration(document, &|id| RestoredSnapshot::find(&snapshots, id))?
            else {
                return Ok(false);
            };
            let restored =
                finish(&self.options, document, id, registration, Vec::new(), snapshots)?;
            self.finished(restored)?;
            Ok(true)
        };
        // That the name is taken remains the error, but it is not what has to be mended.
        finish().unwrap_or_else(|error| {
            let message = format!(
                "the image of the earlier run is there, and could not be finished: {error:?}"
            );
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
        let deleted: Vec<(String, Result<bool>)> = snapshots
            .into_iter()
            .map(|id| (id.clone(), delete_snapshot(&self.options.ec2.for_cleaning_up(), &id)))
            .collect();
        let left: Vec<&str> = deleted
            .iter()
            .filter(|(_, outcome)| outcome.is_err())
            .map(|(id, _)| id.as_str())
            .collect();
        if left.is_empty() {
            return Ok(());
        }
        let left = left.join(", ");
        let error = deleted.into_iter().find_map(|(_, outcome)| outcome.err());
        Err(error
            .unwrap_or_else(|| Error::internal("a deletion failed and did not"))
            .at("snapshots", left))
    }
}

/// A snapshot that is not there yet, and the size that it will have, as far as the archive says.
pub(super) fn planned_snapshot(document: &ImageDocument, id: &SnapshotId) -> Option<(String, u64)> {
    let gib = document
        .snapshots()
        .iter()
        .find(|snapshot| &snapshot.id == id)
        .and_then(|snapshot| snapshot.volume_gib);
    Some(("snap-00000000".to_owned(), gib.unwrap_or(0)))
}

/// Deletes a snapshot that nobody can continue, or names it.
pub(super) fn delete_or_name(ec2: &Ec2Connection, id: &str, observer: &dyn Observer) {
    if let Err(error) = delete_snapshot(ec2, id) {
        observer.note(&Event::Warning {
            message: format!("{id} was left behind and has to be deleted: {error}"),
        });
    }
}

/// Deletes a snapshot. Returns whether it is gone: one that an image uses stays.
pub fn delete_snapshot(ec2: &Ec2Connection, id: &str) -> Result<bool> {
    match ec2.call(
        "cannot delete the snapshot",
        "DeleteSnapshot",
        Params::new().set("SnapshotId", id),
    ) {
        Ok(_) => Ok(true),
        Err(error) if describe::is_unknown(&error) => Ok(true),
        Err(error) if error.fact("code") == Some("InvalidSnapshot.InUse") => Ok(false),
        Err(error) => Err(error.at("snapshot_id", id)),
    }
}
