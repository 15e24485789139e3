//! Checks requests for tasks at once, and records accepted tasks.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::super::image_ids::renamed;
use super::super::{Refusal, RestoreRequest, StoreRequest};
use super::site::Site;
use super::{Shared, refusal};
use crate::aws::Compute;
use crate::aws::ec2::{Ec2Destination, Ec2Image, Ec2Options, Edits};
use crate::aws::s3::{S3Location, S3Store};
use crate::base::{
    Error, ErrorCode, ErrorKind, ImageId, Result, TaskKind, check_image_name, random_id,
};
use crate::engine::{Archive, is_other_object};
use crate::object::ObjectStore;
use crate::ops::{check_writable, ec2_task_target};
use crate::taskdb::{Conflict, NewTask, Origin, Rules};

/// The time for which the check of a bucket is valid: a task that waits for longer repeats it.
const CHECK_IS_VALID: Duration = Duration::from_secs(300);

/// The memory of a destination that is only checked.
const NOTHING_IS_SENT: u64 = 1 << 20;

/// The stored request of a store.
#[derive(Serialize, Deserialize)]
pub(super) struct StoreWork {
    pub(super) image_id: String,
    pub(super) bucket: String,
    pub(super) object_key: String,
    pub(super) tags: Vec<(String, String)>,
    /// The profile that performs it; `None` for the server's own credentials.
    #[serde(default)]
    pub(super) profile: Option<String>,
}

/// The stored request of a restore.
#[derive(Serialize, Deserialize)]
pub(super) struct RestoreWork {
    pub(super) bucket: String,
    pub(super) object_key: String,
    pub(super) name: Option<String>,
    pub(super) image_tags: Vec<(String, String)>,
    pub(super) snapshot_tags: Vec<(String, String)>,
    /// The profile that performs it; `None` for the server's own credentials.
    #[serde(default)]
    pub(super) profile: Option<String>,
    /// Tags of image and snapshots that the server gives all images.
    #[serde(default)]
    tags: Vec<(String, String)>,
    #[serde(default)]
    encrypted: bool,
    #[serde(default)]
    kms_key_arn: Option<String>,
    #[serde(default)]
    allow_unencrypted: bool,
    /// The planned registration, by which the image is described before EC2 has it.
    #[serde(default)]
    pub(super) image: Vec<(String, String)>,
}

impl RestoreWork {
    fn of(request: &RestoreRequest, site: &Site) -> Self {
        let edits = &site.settings.edits;
        Self {
            bucket: request.bucket.clone(),
            object_key: request.object_key.clone(),
            name: request.name.clone(),
            image_tags: request.image_tags.clone(),
            snapshot_tags: request.snapshot_tags.clone(),
            profile: site.settings.profile.clone(),
            tags: edits.tags.clone(),
            encrypted: edits.encrypted,
            kms_key_arn: edits.kms_key_arn.clone(),
            allow_unencrypted: edits.allow_unencrypted,
            image: Vec::new(),
        }
    }

    /// The changes to the image.
    pub(super) fn edits(&self) -> Edits {
        Edits {
            name: self.name.clone(),
            tags: self.tags.clone(),
            image_tags: self.image_tags.clone(),
            snapshot_tags: self.snapshot_tags.clone(),
            encrypted: self.encrypted,
            kms_key_arn: self.kms_key_arn.clone(),
            allow_unencrypted: self.allow_unencrypted,
            ..Edits::default()
        }
    }
}

impl Shared {
    pub(super) fn create_store(
        &self,
        site: &Site,
        request: &StoreRequest,
        dry_run: bool,
    ) -> Result<String, Refusal> {
        let (id, bucket) = (&request.image_id, &request.bucket);
        let scope = self.scope(site).map_err(|error| Refusal::from(&error))?;
        let object_key = format!("{}{id}.bin", request.prefix);
        let location = S3Location { bucket: bucket.clone(), key: object_key.clone() };
        let store = self.bucket(site, bucket);
        let work = StoreWork {
            image_id: id.to_string(),
            bucket: bucket.clone(),
            object_key: object_key.clone(),
            tags: request.tags.clone(),
            profile: site.settings.profile.clone(),
        };
        let mut task = NewTask {
            image_id: Some(id.to_string()),
            bucket: Some(bucket.clone()),
            object_key: Some(object_key.clone()),
            request: Some(json(&work)?),
            scope: Some(scope.to_owned()),
            ..NewTask::new(
                TaskKind::Store,
                Origin::Server,
                id.as_str(),
                store.task_target(&location.to_string()),
            )
        };
        let rules = self.rules(self.settings.limits.store_bytes);
        // Before the image is examined: a listing of a snapshot makes the block tokens of a store
        // that reads it invalid.
        self.check(&task, &rules)?;
        let Compute { ec2, ebs, quotas } = &site.compute;
        let image =
            Ec2Image::examine(ec2, ebs, quotas, id).map_err(|error| Refusal::from(&error))?;
        (task.name, task.size) = (image.name, image.bytes);
        // `enqueue` checks this again; here it comes before the trial upload.
        self.check(&task, &rules)?;
        let allow_public = self.settings.allow_public_bucket;
        let resumption = (!dry_run).then(|| self.resumption(&task));
        let observer = self.counters.as_ref();
        check_writable(&store, &object_key, allow_public, resumption.as_ref(), observer)
            .map_err(|error| Refusal::from(&error))?;
        // As with EC2, a dry run is about permissions, and not about objects in the bucket.
        if dry_run {
            return Ok(object_key);
        }
        site.record_check(bucket, &object_key);
        match store.exists(&object_key) {
            Ok(true) => return Err(refusal::already_stored()),
            Ok(false) => {}
            // Without the permission to list, S3 hides missing keys. The task finds out.
            Err(error) if error.kind() == ErrorKind::Denied => {}
            Err(error) => return Err(Refusal::from(&error)),
        }
        self.enqueue(&task, &rules)?;
        Ok(object_key)
    }

    pub(super) fn create_restore(
        &self,
        site: &Site,
        request: &RestoreRequest,
        dry_run: bool,
    ) -> Result<ImageId, Refusal> {
        if let Some(name) = &request.name {
            check_image_name(name).map_err(|error| Refusal::from(&error))?;
        }
        let scope = self.scope(site).map_err(|error| Refusal::from(&error))?;
        let store = self.bucket(site, &request.bucket);
        let mut work = RestoreWork::of(request, site);
        let options = Ec2Options {
            ec2: site.compute.ec2.clone(),
            ebs: site.compute.ebs.clone(),
            quotas: site.compute.quotas.clone(),
            memory: NOTHING_IS_SENT,
            edits: work.edits(),
            observer: self.counters.clone(),
        };
        let destination = Ec2Destination::new(options.clone());
        let reserved = reserve().map_err(|error| refusal::of_record(&error))?;
        let mut task = NewTask {
            bucket: Some(request.bucket.clone()),
            object_key: Some(request.object_key.clone()),
            name: request.name.clone(),
            reserved_id: Some(reserved.to_string()),
            scope: Some(scope.to_owned()),
            ..NewTask::new(
                TaskKind::Restore,
                Origin::Server,
                format!("s3://{}/{}", request.bucket, request.object_key),
                "ec2",
            )
        };
        let rules = self.rules(self.settings.limits.restore_bytes);
        if dry_run {
            may_restore(&store, &destination, request)
                .map_err(|error| self.of_error(site, &error))?;
            self.check(&task, &rules)?;
            return Ok(reserved);
        }
        let reader = store.open(&request.object_key).map_err(|error| Refusal::from(&error))?;
        let archive = Archive::open(reader).map_err(|error| refusal::of_archive(&error))?;
        let document = archive.document();
        let Some(name) = request.name.as_deref().or_else(|| document.name()).map(ToOwned::to_owned)
        else {
            return Err(Refusal::client(
                "MissingParameter",
                "The stored image has no name: the request must contain the parameter Name",
            ));
        };
        // The name of the archive, too: EC2 would refuse it only after all blocks are written.
        check_image_name(&name).map_err(|error| Refusal::from(&error))?;
        task.image_id = document.image_id().map(ToString::to_string);
        task.name = Some(name);
        // `enqueue` checks this again; here a name that is pending is found before EC2 has it.
        self.check(&task, &rules)?;
        destination.check(document).map_err(|error| self.of_error(site, &error))?;
        destination.check_access().map_err(|error| Refusal::from(&error))?;
        let planned = destination.planned_image(document).map_err(|error| Refusal::from(&error))?;
        work.image = planned.map(|params| params.pairs().to_vec()).unwrap_or_default();
        task.request = Some(json(&work)?);
        task.target = ec2_task_target(&options, &archive);
        task.size = archive.root().manifest.volumes.iter().map(|volume| volume.size.bytes()).sum();
        self.enqueue(&task, &rules)?;
        Ok(reserved)
    }

    pub(super) fn is_foreign(
        &self,
        site: &Site,
        request: &RestoreRequest,
    ) -> Result<bool, Refusal> {
        let scope = self.scope(site).map_err(|error| Refusal::from(&error))?;
        let reader = self
            .bucket(site, &request.bucket)
            .open(&request.object_key)
            .map_err(|error| Refusal::from(&error))?;
        match Archive::open(reader) {
            Err(error) if is_other_object(&error) => {}
            // Errors of an archive are those of its restore.
            _ => return Ok(false),
        }
        // EC2 does not know the names of images to come.
        let pending = site.with_scope(|of| self.task_db.restores(of));
        let pending = pending.map_err(|error| refusal::of_record(&error))?;
        let taken = pending.into_iter().find(|row| {
            row.task.name.is_some()
                && row.task.name == request.name
                && row.task.scope.as_deref() == Some(scope)
        });
        match taken {
            Some(row) => {
                let conflict = Conflict::Name(row.task.reserved_id.unwrap_or_default());
                Err(refusal::of_conflict(conflict, request.name.as_deref().unwrap_or_default()))
            }
            None => Ok(true),
        }
    }

    /// The refusal for an error. An image that was restored here is named by its reserved id.
    fn of_error(&self, site: &Site, error: &Error) -> Refusal {
        let refusal = Refusal::from(error);
        if !error.is(ErrorCode::ImageNameTaken) {
            return refusal;
        }
        let ids = match self.restored_ids(site) {
            Ok(ids) => ids,
            Err(unreadable) => return unreadable,
        };
        let message = ids
            .iter()
            .fold(refusal.message, |message, (real, reserved)| renamed(&message, real, reserved));
        Refusal { message, ..refusal }
    }

    /// The bucket of a request.
    fn bucket(&self, site: &Site, name: &str) -> S3Store {
        let options = self.settings.archive_requests.object_options(self.settings.objects.clone());
        S3Store::new(site.archive.clone(), name, options)
    }

    fn check(&self, task: &NewTask, rules: &Rules) -> Result<(), Refusal> {
        match self.task_db.check(task, rules).map_err(|error| refusal::of_record(&error))? {
            Some(conflict) => {
                Err(refusal::of_conflict(conflict, task.name.as_deref().unwrap_or_default()))
            }
            None => Ok(()),
        }
    }

    fn enqueue(&self, task: &NewTask, rules: &Rules) -> Result<(), Refusal> {
        let taken =
            self.task_db.enqueue(task, rules).map_err(|error| refusal::of_record(&error))?;
        taken.map_err(|conflict| {
            refusal::of_conflict(conflict, task.name.as_deref().unwrap_or_default())
        })?;
        self.wake_all();
        Ok(())
    }
}

impl Site {
    /// Records that the bucket of an object was checked, so that the task does not check it again.
    fn record_check(&self, bucket: &str, object_key: &str) {
        let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        checks.retain(|_, at| at.elapsed() < CHECK_IS_VALID);
        checks.insert((bucket.to_owned(), object_key.to_owned()), Instant::now());
    }

    /// Whether the bucket of an object was checked a short time ago, for one task.
    pub(super) fn was_checked(&self, bucket: &str, object_key: &str) -> bool {
        let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        let at = checks.remove(&(bucket.to_owned(), object_key.to_owned()));
        at.is_some_and(|at| at.elapsed() < CHECK_IS_VALID)
    }
}

/// Checks the permissions of a restore. As with EC2, a dry run is about permissions, and not about
/// the object: without an object S3 answers 404 to a caller with the permission to read and list.
fn may_restore(
    store: &S3Store,
    destination: &Ec2Destination,
    request: &RestoreRequest,
) -> Result<()> {
    store.exists(&request.object_key)?;
    destination.check_access()?;
    request.name.as_deref().map_or(Ok(()), |name| destination.check_name(name))
}

fn json(work: &impl Serialize) -> Result<String, Refusal> {
    serde_json::to_string(work).map_err(|cause| {
        refusal::of_record(&Error::internal("cannot write down the request").because(cause))
    })
}

/// An id of an image to come: 68 random bits, as in EC2's own ids.
fn reserve() -> Result<ImageId> {
    ImageId::parse(&format!("ami-{:017x}", random_id()? >> 60))
}
