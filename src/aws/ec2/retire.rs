//! Takes an image out of service: deprecates, disables or deregisters it. The caller has verified
//! the archive of the image.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Ec2Connection;
use super::describe::{self, items, text, would};
use super::destination::delete_snapshot;
use crate::aws::ec2_query::Params;
use crate::base::{Error, ErrorCode, ErrorKind, ImageId, Result};

/// The operation on the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RetireAction {
    /// EnableImageDeprecation: from this time on (RFC 3339) the image is hidden from other
    /// accounts. It can still be launched.
    Deprecate(String),
    /// DisableImage: the image cannot be launched, and loses its launch permissions. It can be
    /// enabled again.
    Disable,
    /// DeregisterImage.
    Deregister {
        /// Delete its snapshots, except those that other images use.
        with_snapshots: bool,
    },
}

impl RetireAction {
    /// The stable name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Deprecate(_) => "deprecate",
            Self::Disable => "disable",
            Self::Deregister { .. } => "deregister",
        }
    }
}

/// A planned operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetirePlan {
    /// The image.
    pub image_id: ImageId,
    /// Its name.
    pub name: Option<String>,
    /// The operation.
    pub action: RetireAction,
    /// The snapshots of the image.
    pub snapshots: Vec<RetiredSnapshot>,
}

/// A snapshot of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetiredSnapshot {
    /// The snapshot.
    pub snapshot_id: String,
    /// Other images that use it; a snapshot that is used stays.
    pub used_by: Vec<String>,
    /// True if the snapshot is, or was, deleted.
    pub deleted: bool,
}

/// Plans the operation. Refuses an image that EC2 would refuse: a protected one, or one of another
/// account.
pub fn plan_retire(ec2: &Ec2Connection, id: &ImageId, action: RetireAction) -> Result<RetirePlan> {
    let image = describe::image(ec2, id)?;
    let deregisters = matches!(action, RetireAction::Deregister { .. });
    if deregisters
        && text(&image, "DeregistrationProtection")
            .is_some_and(|protection| protection.starts_with("enabled"))
    {
        return Err(Error::new(ErrorKind::Denied, "the image is protected against deregistration")
            .code_as(ErrorCode::DeregistrationProtected)
            .at("image_id", id));
    }
    if deregisters && tags_of_backup(&image) {
        return Err(Error::new(
            ErrorKind::Denied,
            "the image belongs to AWS Backup, which alone may delete it",
        )
        .at("image_id", id));
    }
    let mut ids: Vec<String> = Vec::new();
    for snapshot in describe::snapshots_of(&image) {
        if !ids.iter().any(|known| known == snapshot) {
            ids.push(snapshot.to_owned());
        }
    }
    let deletes = action == RetireAction::Deregister { with_snapshots: true };
    let mut snapshots = Vec::new();
    for snapshot_id in ids {
        let used_by = if deletes { users(ec2, &snapshot_id, id)? } else { Vec::new() };
        snapshots.push(RetiredSnapshot {
            deleted: deletes && used_by.is_empty(),
            snapshot_id,
            used_by,
        });
    }
    // A refusal should come before hours of comparison, and not after half of the requests.
    let image_params = Params::new().set("ImageId", id).set("DryRun", true);
    let refused = |error: Error| error.at("image_id", id);
    match &action {
        RetireAction::Deprecate(time) if time.is_empty() => {}
        RetireAction::Deprecate(time) => {
            let params = image_params.set("DeprecateAt", time);
            would(ec2.call("the image would not be deprecated", "EnableImageDeprecation", params))
                .map_err(refused)?;
        }
        RetireAction::Disable => {
            would(ec2.call("the image would not be disabled", "DisableImage", image_params))
                .map_err(refused)?;
        }
        RetireAction::Deregister { .. } => {
            would(ec2.call("the image would not be deregistered", "DeregisterImage", image_params))
                .map_err(refused)?;
        }
    }
    for snapshot in snapshots.iter().filter(|snapshot: &&RetiredSnapshot| snapshot.deleted) {
        let params = Params::new().set("SnapshotId", &snapshot.snapshot_id).set("DryRun", true);
        match would(ec2.call("the snapshot would not be deleted", "DeleteSnapshot", params)) {
            // The image uses its snapshots as long as it exists.
            Err(error) if error.is(ErrorCode::SnapshotInUse) => {}
            answer => answer.map_err(|error| error.at("snapshot_id", &snapshot.snapshot_id))?,
        }
    }
    Ok(RetirePlan {
        image_id: id.clone(),
        name: text(&image, "Name").map(ToOwned::to_owned),
        action,
        snapshots,
    })
}

/// Carries the plan out. A snapshot that another image uses meanwhile stays.
pub fn retire(ec2: &Ec2Connection, plan: &RetirePlan) -> Result<RetirePlan> {
    let id = &plan.image_id;
    let params = Params::new().set("ImageId", id);
    let located = |error: Error| error.at("image_id", id);
    let mut done = plan.clone();
    match &plan.action {
        RetireAction::Deprecate(time) => {
            ec2.call(
                "cannot deprecate the image",
                "EnableImageDeprecation",
                params.set("DeprecateAt", time),
            )
            .map_err(located)?;
        }
        RetireAction::Disable => {
            ec2.call("cannot disable the image", "DisableImage", params).map_err(located)?;
        }
        RetireAction::Deregister { .. } => {
            match ec2.call("cannot deregister the image", "DeregisterImage", params) {
                // An earlier attempt succeeded, and its answer was lost.
                Err(error) if describe::is_unknown(&error) && error.was_repeated() => {}
                answer => drop(answer.map_err(located)?),
            }
            let mut left = Vec::new();
            for snapshot in done.snapshots.iter_mut().filter(|snapshot| snapshot.deleted) {
                // EC2 refuses to delete a snapshot that another image uses meanwhile.
                match delete_snapshot(ec2, &snapshot.snapshot_id) {
                    Ok(deleted) => snapshot.deleted = deleted,
                    Err(error) => left.push((snapshot.snapshot_id.clone(), error)),
                }
            }
            let names = left.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>().join(", ");
            if let Some((_, error)) = left.into_iter().next() {
                return Err(located(error).at("deregistered", id).at("snapshots_left", names));
            }
        }
    }
    Ok(done)
}

/// The other images of the account that use a snapshot.
fn users(ec2: &Ec2Connection, snapshot: &str, but: &ImageId) -> Result<Vec<String>> {
    let mut found = BTreeSet::new();
    let filter =
        Params::new().set("Name", "block-device-mapping.snapshot-id").list("Value", [snapshot]);
    let params = Params::new()
        .list("Owner", ["self"])
        .structures("Filter", [filter])
        .set("IncludeDisabled", true)
        .set("IncludeDeprecated", true);
    describe::pages(
        ec2,
        "cannot look for other images of a snapshot",
        "DescribeImages",
        params,
        |answer| {
            let ids = items(answer, "Images")
                .iter()
                .filter_map(|image| text(image, "ImageId"))
                .filter(|id| *id != but.as_str());
            found.extend(ids.map(ToOwned::to_owned));
            true
        },
    )?;
    Ok(found.into_iter().collect())
}

fn tags_of_backup(image: &Value) -> bool {
    describe::tags(image).iter().any(|(key, _)| key.starts_with("aws:backup:"))
}
