//! EC2 as a destination of restores: snapshots are written first, and the image is registered
//! last, when all snapshots are completed.
//!
//! A resumable restore reports each snapshot to its journal before a block is written, so that an
//! interrupted restore continues with the same snapshots. Otherwise a restore that fails deletes
//! them. `restore` implements the port, `writer` creates the snapshots, `finish` the image.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::super::Compute;
use super::super::ebs::{EbsConnection, Quotas};
use super::Ec2Connection;
use super::describe::{self, text};
use super::edits::Edits;
use super::encryption::{EncryptionPlan, check_key};
use super::fidelity::{Fidelity, FidelityItem};
use super::permissions;
use super::registration::{self, Registration};
use super::snapshot_items::{encryption_item, fits_start, snapshot_tags};
use crate::aws::ec2_query::Params;
use crate::base::{
    Error, ErrorCode, ErrorKind, Event, ImageId, NameHolder, Observer, Result, SnapshotId,
};
use crate::image::{ImageDocument, SnapshotBegun};

/// Connections and options of a restore to EC2.
#[derive(Clone)]
pub struct Ec2Options {
    /// The control plane.
    pub ec2: Ec2Connection,
    /// The data plane, in the same Region.
    pub ebs: EbsConnection,
    /// The account's limits.
    pub quotas: Quotas,
    /// Memory for blocks that are being sent, in bytes.
    pub memory: u64,
    /// Changes to the image's attributes.
    pub edits: Edits,
    /// Receives notes and warnings.
    pub observer: Arc<dyn Observer>,
}

impl Ec2Options {
    /// Options with the connections of `compute`. The memory is set when the restore is planned.
    pub fn new(compute: Compute, edits: Edits, observer: Arc<dyn Observer>) -> Self {
        let Compute { ec2, ebs, quotas } = compute;
        Self { ec2, ebs, quotas, memory: 0, edits, observer }
    }
}

/// EC2, in one Region of one account.
#[derive(Clone)]
pub struct Ec2Destination {
    pub(super) options: Ec2Options,
    outcome: Arc<Mutex<Outcome>>,
    on_snapshot: Option<OnSnapshot>,
    on_finished: Option<OnFinished>,
}

/// Called with an archived snapshot, and the one that was begun for it.
pub type OnSnapshot = Arc<dyn Fn(&SnapshotId, &SnapshotId) -> Result<()> + Send + Sync>;

/// Called with the result of a restore.
pub type OnFinished = Arc<dyn Fn(&Ec2Restored) -> Result<()> + Send + Sync>;

#[derive(Default)]
pub(super) struct Outcome {
    /// The snapshot that was begun last for each volume, by earlier runs or by this one.
    pub(super) begun: HashMap<u16, SnapshotBegun>,
    pub(super) restored: Option<Ec2Restored>,
    /// Made once, because it has warnings.
    encryption: Option<EncryptionPlan>,
}

/// Result of a restore to EC2.
#[derive(Clone, Debug)]
pub struct Ec2Restored {
    /// The new image; `None` with [`Edits::snapshots_only`].
    pub image_id: Option<ImageId>,
    /// Its name.
    pub name: Option<String>,
    /// The new snapshots, in the order of the archive's volumes.
    pub snapshots: Vec<RestoredSnapshot>,
    /// The report on attributes.
    pub items: Vec<FidelityItem>,
}

/// A snapshot that was created for a volume of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredSnapshot {
    /// Its id in the archive.
    pub archived: SnapshotId,
    /// Its id in EC2.
    pub snapshot_id: SnapshotId,
    /// GiB.
    pub volume_gib: u32,
    /// True for an encrypted snapshot.
    pub encrypted: bool,
    /// The ARN of its key.
    pub kms_key_id: Option<String>,
}

impl RestoredSnapshot {
    /// EC2's id of an archived snapshot, and its size in GiB.
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
            kms_key_id: text(described, "KmsKeyId").map(ToOwned::to_owned),
        })
    }
}

impl Ec2Destination {
    /// A destination; no request is sent yet.
    pub fn new(options: Ec2Options) -> Self {
        Self { options, outcome: Arc::default(), on_snapshot: None, on_finished: None }
    }

    /// Calls `on_snapshot` for each snapshot that is begun or continued, before its first block is
    /// sent. An error of `on_snapshot` is an error of the restore.
    #[must_use]
    pub fn on_snapshot(self, on_snapshot: OnSnapshot) -> Self {
        Self { on_snapshot: Some(on_snapshot), ..self }
    }

    /// A snapshot is begun or continued.
    pub(super) fn has_snapshot(&self, archived: &SnapshotId, id: &SnapshotId) -> Result<()> {
        self.on_snapshot.as_ref().map_or(Ok(()), |on_snapshot| on_snapshot(archived, id))
    }

    /// Calls `on_finished` as soon as the image is finished, before the checkpoint of the restore
    /// is removed: a caller that stores the image's id has it after any crash. An error of
    /// `on_finished` is an error of the restore.
    #[must_use]
    pub fn on_finished(self, on_finished: OnFinished) -> Self {
        Self { on_finished: Some(on_finished), ..self }
    }

    /// The image is finished.
    pub(super) fn finished(&self, restored: Ec2Restored) -> Result<()> {
        if let Some(on_finished) = &self.on_finished {
            on_finished(&restored)?;
        }
        self.lock().restored = Some(restored);
        Ok(())
    }

    /// The connections and options.
    pub fn options(&self) -> &Ec2Options {
        &self.options
    }

    /// This destination with `bytes` bytes of memory for blocks in flight. The result is shared.
    #[must_use]
    pub fn with_memory(&self, bytes: u64) -> Self {
        let options = Ec2Options { memory: bytes, ..self.options.clone() };
        Self { options, ..self.clone() }
    }

    /// The result of the restore, once it has ended without an error.
    pub fn restored(&self) -> Option<Ec2Restored> {
        self.lock().restored.clone()
    }

    /// Checks that the image can be registered, before any resource is created: its attributes are
    /// valid, and its name is free.
    pub fn check(&self, document: &ImageDocument) -> Result<()> {
        check_key(&self.options.ec2, &self.options.edits)?;
        let Some(registration) =
            self.registration(document, &|id| planned_snapshot(document, id))?
        else {
            return Ok(());
        };
        self.check_name(&registration.name)
    }

    /// The planned parameters of RegisterImage, with the snapshots of the archive for the new
    /// ones; `None` with [`Edits::snapshots_only`]. Each device has `Ebs.Encrypted` as
    /// well.
    pub fn planned_image(&self, document: &ImageDocument) -> Result<Option<Params>> {
        let of =
            |id: &SnapshotId| planned_snapshot(document, id).map(|(_, gib)| (id.to_string(), gib));
        let Some(registration) = self.registration(document, &of)? else { return Ok(None) };
        let encryption = self.encryption(document)?;
        let encrypted: Vec<(String, bool)> = registration
            .params
            .pairs()
            .iter()
            .filter_map(|(name, id)| {
                let device = name.strip_suffix(".SnapshotId")?;
                let id = SnapshotId::parse(id).ok()?;
                Some((format!("{device}.Encrypted"), encryption.encrypts(&id)))
            })
            .collect();
        let params =
            encrypted.into_iter().fold(registration.params, |params, (name, is_encrypted)| {
                params.set(name, is_encrypted)
            });
        Ok(Some(params))
    }

    /// Checks that no image of the account has this name.
    pub fn check_name(&self, name: &str) -> Result<()> {
        if let Some(image) = describe::image_named(&self.options.ec2, name)? {
            return Err(Error::new(
                ErrorKind::Exists,
                "the account has an image of this name in this Region",
            )
            .code_as(ErrorCode::ImageNameTaken)
            .name_taken_by(NameHolder {
                name: Some(name.to_owned()),
                image_id: text(&image, "ImageId").unwrap_or_default().to_owned(),
            })
            .at("region", self.options.ec2.region()));
        }
        Ok(())
    }

    /// Checks that the credentials may describe snapshots, which the restore has to do at its end
    /// to learn when they are completed. Called before the first block is sent.
    pub fn check_access(&self) -> Result<()> {
        describe::may_describe_snapshots(&self.options.ec2)
    }

    /// The report on attributes as planned: the report of the run differs where EC2 does not set an
    /// attribute as requested.
    pub fn planned_items(&self, document: &ImageDocument) -> Result<Vec<FidelityItem>> {
        let (edits, mut items) = (&self.options.edits, Vec::new());
        if let Some(registration) =
            self.registration(document, &|id| planned_snapshot(document, id))?
        {
            items = registration.items;
            items.extend(permissions::plan(&self.options.ec2.region(), document, edits).items);
        }
        for snapshot in document.snapshots() {
            items.extend(snapshot_tags(document, &snapshot.id, edits).1);
        }
        let encryption = self.encryption(document)?;
        for mapping in document.mappings() {
            // The encryption of a device is that of its snapshot.
            let Some(encrypts) = mapping.snapshot.as_ref().map(|id| encryption.encrypts(id)) else {
                continue;
            };
            for item in items.iter_mut().filter(|item| {
                let is_open = item.fidelity == Fidelity::Impossible;
                let of_device = item.subject == mapping.device.as_str();
                let is_same = item.attribute == "Encrypted" && item.recorded == json!(encrypts);
                is_open && of_device && is_same
            }) {
                *item = FidelityItem::set(&item.subject, &item.attribute, &item.recorded);
            }
        }
        for snapshot in document.snapshots() {
            items.extend(encryption_item(
                document,
                &snapshot.id,
                encryption.encrypts(&snapshot.id),
            ));
        }
        Ok(items)
    }

    /// The encryption of the new snapshots. The first call asks EC2 for the account's defaults, and
    /// warns.
    pub fn encryption(&self, document: &ImageDocument) -> Result<EncryptionPlan> {
        if let Some(plan) = &self.lock().encryption {
            return Ok(plan.clone());
        }
        let Ec2Options { ec2, edits, observer, .. } = &self.options;
        let plan = EncryptionPlan::new(ec2, document, edits, observer.as_ref())?;
        self.lock().encryption = Some(plan.clone());
        Ok(plan)
    }

    /// Counts the requests to EC2 of a restore: at least one poll for snapshots and image.
    pub fn count_calls(&self, document: &ImageDocument, add: &mut dyn FnMut(&'static str, u64)) {
        let (edits, snapshots) = (&self.options.edits, document.snapshots().len() as u64);
        // Before the first block, and until all snapshots are completed.
        add("DescribeSnapshots", 2);
        // Before the plan is made.
        add("GetEbsEncryptionByDefault", 1);
        let plans_key = self.lock().encryption.as_ref().is_some_and(|it| !it.encrypted.is_empty());
        add("GetEbsDefaultKmsKeyId", u64::from(plans_key && edits.kms_key_arn.is_none()));
        let is_late = |id: &SnapshotId| {
            let (tags, _) = snapshot_tags(document, id, edits);
            tags.iter().any(|(_, value)| !fits_start(value))
        };
        let late = document.snapshots().iter().filter(|snapshot| is_late(&snapshot.id)).count();
        add("CreateTags", late as u64);
        if edits.snapshots_only || snapshots == 0 {
            return;
        }
        // The name; the state; all attributes at the end.
        add("DescribeImages", 3);
        // With DryRun, and again.
        add("RegisterImage", 2);
        let has_uefi = document.value().get("ImageAttributes").is_some_and(|attributes| {
            attributes.get("UefiData").is_some_and(|data| !data.is_null())
        });
        add("DescribeImageAttribute", u64::from(has_uefi));
        let permissions = permissions::plan(&self.options.ec2.region(), document, edits);
        permissions.actions().for_each(|action| add(action, 1));
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
}

/// A placeholder for a snapshot that does not exist yet, and the size that the archive records.
pub(super) fn planned_snapshot(document: &ImageDocument, id: &SnapshotId) -> Option<(String, u64)> {
    let gib = document
        .snapshots()
        .iter()
        .find(|snapshot| &snapshot.id == id)
        .and_then(|snapshot| snapshot.volume_gib);
    Some(("snap-00000000".to_owned(), gib.unwrap_or(0)))
}

/// Deletes a snapshot that cannot be continued; a failure is a warning that names it.
pub(super) fn delete_or_name(ec2: &Ec2Connection, id: &str, observer: &dyn Observer) {
    if let Err(error) = delete_snapshot(ec2, id) {
        observer.note(&Event::Warning {
            message: format!("{id} was left behind and has to be deleted: {error}"),
        });
    }
}

/// Deletes a snapshot. Returns false for a snapshot that an image uses: it stays.
pub fn delete_snapshot(ec2: &Ec2Connection, id: &str) -> Result<bool> {
    match ec2.call(
        "cannot delete the snapshot",
        "DeleteSnapshot",
        Params::new().set("SnapshotId", id),
    ) {
        Ok(_) => Ok(true),
        Err(error) if describe::is_unknown(&error) => Ok(true),
        Err(error) if error.is(ErrorCode::SnapshotInUse) => Ok(false),
        Err(error) => Err(error.at("snapshot_id", id)),
    }
}
