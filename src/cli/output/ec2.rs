//! Results about images in EC2, as text and as JSON.

use serde_json::{Value, json};

use super::json::{Head, restored, result};
use super::safe_text::SafeText;
use super::text::{named, restored_text};
use crate::aws::ec2::{Ec2Restored, Fidelity, FidelityItem, RetirePlan};
use crate::aws::s3::S3Location;
use crate::base::{Error, ImageId, Result, SnapshotId};
use crate::ops::{PlannedRetire, RestoreDestination, Restored, RestoredByAws};

/// The result of a store by AWS, whose objects have no digests.
pub(in super::super) fn aws_stored(id: &ImageId, archive: &S3Location, dry_run: bool) -> Value {
    let outcome = if dry_run { "planned" } else { "stored" };
    let (url, image_id) = (archive.to_string(), Some(id.as_str()));
    result(
        &Head { archive: &url, image_id, outcome, dry_run, footer: None },
        json!({"S3objectKey": archive.key, "By": "AWS"}),
    )
}

pub(in super::super) fn aws_stored_text(
    id: &ImageId,
    archive: &S3Location,
    dry_run: bool,
) -> SafeText {
    let verb = if dry_run { "AWS would store" } else { "AWS stored" };
    let mut text = SafeText::from(format!("{verb} {id} as {archive}"));
    text.line("  in a format of its own: only AWS can restore it");
    text
}

pub(in super::super) fn aws_restore_plan(archive: &str) -> Value {
    by_aws(archive, None)
}

/// The result of a restore by AWS. The stored image is named in the object, which only AWS reads.
fn by_aws(archive: &str, restored: Option<&RestoredByAws>) -> Value {
    let dry_run = restored.is_none();
    let outcome = if dry_run { "planned" } else { "restored" };
    let snapshots = restored
        .map(|restored| restored.snapshots.iter().map(SnapshotId::as_str).collect::<Vec<_>>());
    result(
        &Head { archive, image_id: None, outcome, dry_run, footer: None },
        json!({
            "RestoredImageId": restored.map(|restored| restored.image_id.as_str()),
            "Target": "ec2",
            "By": "AWS",
            "SnapshotIds": snapshots,
        }),
    )
}

pub(in super::super) fn aws_restore_plan_text(archive: &str) -> SafeText {
    format!("AWS would restore {archive}").into()
}

pub(in super::super) fn aws_restored(restored: &RestoredByAws, archive: &str) -> Value {
    by_aws(archive, Some(restored))
}

pub(in super::super) fn aws_restored_text(restored: &RestoredByAws, archive: &str) -> SafeText {
    let mut text = SafeText::from(format!("AWS restored {archive} as {}", restored.image_id));
    for id in &restored.snapshots {
        text.line(format_args!("  {id}"));
    }
    text
}

pub(super) fn item(item: &FidelityItem) -> Value {
    json!({
        "Subject": item.subject,
        "Attribute": item.attribute,
        "Recorded": item.recorded,
        "Now": item.now,
        "Result": item.fidelity.name(),
        "Reason": item.reason,
    })
}

fn count(items: &[FidelityItem], fidelity: Fidelity) -> usize {
    items.iter().filter(|item| item.fidelity == fidelity).count()
}

/// A restore that has ended, as it is printed.
pub(in super::super) struct Restoration {
    report: Restored,
    archive: String,
    target: String,
    /// The image in EC2, and its Region.
    ec2: Option<(Ec2Restored, String)>,
}

impl Restoration {
    pub(in super::super) fn new(
        report: Restored,
        destination: RestoreDestination,
        archive: String,
        target: String,
    ) -> Result<Self> {
        let ec2 = match destination {
            RestoreDestination::Directory(_) => None,
            RestoreDestination::Ec2 { ec2, .. } => {
                let restored = ec2.restored();
                let restored = restored
                    .ok_or_else(|| Error::internal("a restore ended without an image in EC2"))?;
                Some((restored, ec2.options().ec2.region()))
            }
        };
        Ok(Self { report, archive, target, ec2 })
    }
}

pub(in super::super) fn restoration(restoration: &Restoration) -> Value {
    let Restoration { report, archive, target, .. } = restoration;
    let mut all = restored(report, archive, target, false);
    let Some((made, region)) = &restoration.ec2 else { return all };
    let snapshots: Vec<Value> = made
        .snapshots
        .iter()
        .map(|snapshot| {
            json!({
                "ArchivedSnapshotId": snapshot.archived.as_str(),
                "SnapshotId": snapshot.snapshot_id.as_str(),
                "VolumeSize": snapshot.volume_gib,
                "Encrypted": snapshot.encrypted,
                "KmsKeyId": snapshot.kms_key_id,
            })
        })
        .collect();
    if let Some(members) = all.as_object_mut() {
        let id = json!(made.image_id.as_ref().map(ImageId::as_str));
        members.insert("RestoredImageId".to_owned(), id);
        members.insert("Name".to_owned(), json!(made.name));
        members.insert("Region".to_owned(), json!(region));
        members.insert("Snapshots".to_owned(), json!(snapshots));
        members.insert("Fidelity".to_owned(), made.items.iter().map(item).collect());
    }
    all
}

pub(in super::super) fn restoration_text(restoration: &Restoration) -> SafeText {
    let Restoration { report, archive, target, ec2 } = restoration;
    let Some((made, region)) = ec2 else { return restored_text(report, target, false) };
    let mut text = SafeText::from(match &made.image_id {
        Some(id) => format!("restored {archive} as {id} in {region}"),
        None => format!("restored the snapshots of {archive} in {region}"),
    });
    for snapshot in &made.snapshots {
        let encrypted = if snapshot.encrypted { ", encrypted" } else { "" };
        text.line(format_args!(
            "  {}  {} GiB, from {}{encrypted}",
            snapshot.snapshot_id, snapshot.volume_gib, snapshot.archived
        ));
    }
    add_fidelity(&mut text, &made.items);
    text
}

/// Each attribute that differs from the recorded one, and the number of each result.
pub(super) fn add_fidelity(text: &mut SafeText, items: &[FidelityItem]) {
    if items.is_empty() {
        return;
    }
    let numbers = [Fidelity::Set, Fidelity::Changed, Fidelity::Left, Fidelity::Impossible]
        .map(|fidelity| format!("{} {}", count(items, fidelity), fidelity.name()));
    text.line(format_args!("  attributes: {}", numbers.join(", ")));
    for item in items.iter().filter(|item| item.fidelity != Fidelity::Set) {
        let now = item.now.as_ref().map(|now| format!(" -> {}", shown(now))).unwrap_or_default();
        let why = item.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        text.line(format_args!(
            "    {:<10} {} {} {}{now}{why}",
            item.fidelity.name(),
            item.subject,
            item.attribute,
            shown(&item.recorded)
        ));
    }
}

/// A value in a line, cut where it is long.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => "nothing".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text.chars().count() <= 60 {
        text
    } else {
        text.chars().take(57).chain("...".chars()).collect()
    }
}

/// A retirement; `planned` has the comparison with the archive.
pub(in super::super) fn retired(
    planned: &PlannedRetire<'_>,
    plan: &RetirePlan,
    archive: &str,
    dry_run: bool,
) -> Value {
    let snapshots: Vec<Value> = plan
        .snapshots
        .iter()
        .map(|snapshot| {
            json!({
                "SnapshotId": snapshot.snapshot_id,
                "Deleted": snapshot.deleted,
                "UsedBy": snapshot.used_by,
            })
        })
        .collect();
    let outcome = if dry_run { "planned" } else { past_participle(plan.action.name()) };
    let (image_id, footer) = (Some(plan.image_id.as_str()), planned.footer());
    result(
        &Head { archive, image_id, outcome, dry_run, footer },
        json!({
            "Action": plan.action.name(),
            "Name": plan.name,
            "MetadataChanged": planned.metadata_changed(),
            "Snapshots": snapshots,
        }),
    )
}

fn past_participle(action: &str) -> &'static str {
    match action {
        "deprecate" => "deprecated",
        "disable" => "disabled",
        _ => "deregistered",
    }
}

pub(in super::super) fn retired_text(
    plan: &RetirePlan,
    metadata_changed: Option<&[String]>,
    archive: &str,
    done: bool,
) -> SafeText {
    let action = plan.action.name();
    if done {
        plan_text(plan, metadata_changed, archive, past_participle(action))
    } else {
        plan_text(plan, metadata_changed, archive, &format!("would {action}"))
    }
}

fn plan_text(
    plan: &RetirePlan,
    metadata_changed: Option<&[String]>,
    archive: &str,
    verb: &str,
) -> SafeText {
    let name = plan.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
    let id = &plan.image_id;
    let mut text =
        SafeText::from(format!("{verb} {id}{name}, which {archive} holds, block by block"));
    if let Some(changed) = metadata_changed {
        text.line(format_args!("  the metadata differs{}", named(changed)));
    }
    for snapshot in &plan.snapshots {
        let what = match (snapshot.deleted, snapshot.used_by.is_empty()) {
            (true, _) => "deleted".to_owned(),
            (false, true) => "stays".to_owned(),
            (false, false) => format!("stays: {} uses it", snapshot.used_by.join(", ")),
        };
        text.line(format_args!("  {}  {what}", snapshot.snapshot_id));
    }
    text
}
