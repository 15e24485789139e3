//! Results about images in EC2, as text and as JSON.

use serde_json::{Value, json};

use super::json::restored;
use super::safe_text::SafeText;
use super::text::restored_text;
use crate::aws::ec2::{Ec2Restored, Fidelity, FidelityItem, RetirePlan};
use crate::aws::s3::S3Location;
use crate::base::{Error, ImageId, Result, SnapshotId};
use crate::ops::{RestoreDestination, Restored, RestoredByAws};

pub(in super::super) fn aws_stored(id: &ImageId, archive: &S3Location, dry_run: bool) -> Value {
    json!({
        "DryRun": dry_run,
        "Outcome": "stored",
        "ImageId": id.as_str(),
        "Archive": archive.to_string(),
        "S3objectKey": archive.key,
        "By": "AWS",
    })
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
    json!({"DryRun": true, "Archive": archive, "Target": "ec2", "By": "AWS"})
}

pub(in super::super) fn aws_restore_plan_text(archive: &str) -> SafeText {
    format!("AWS would restore {archive}").into()
}

pub(in super::super) fn aws_restored(restored: &RestoredByAws, archive: &str) -> Value {
    let snapshots: Vec<&str> = restored.snapshots.iter().map(SnapshotId::as_str).collect();
    json!({
        "Outcome": "restored",
        "Archive": archive,
        "Target": "ec2",
        "By": "AWS",
        "ImageId": restored.image_id.as_str(),
        "SnapshotIds": snapshots,
    })
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
    let mut all = restored(&restoration.report, &restoration.target, false);
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
        let source = members
            .insert("ImageId".to_owned(), json!(made.image_id.as_ref().map(ImageId::as_str)));
        members.insert("ArchivedImageId".to_owned(), source.unwrap_or_default());
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

pub(in super::super) fn retired(plan: &RetirePlan, archive: &str, dry_run: bool) -> Value {
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
    json!({
        "DryRun": dry_run,
        "Action": plan.action.name(),
        "ImageId": plan.image_id.as_str(),
        "Name": plan.name,
        "Archive": archive,
        "Snapshots": snapshots,
    })
}

pub(in super::super) fn retired_text(plan: &RetirePlan, archive: &str, done: bool) -> SafeText {
    let verb = match (plan.action.name(), done) {
        ("deprecate", true) => "deprecated",
        ("disable", true) => "disabled",
        (_, true) => "deregistered",
        (name, false) => return plan_text(plan, archive, &format!("would {name}")),
    };
    plan_text(plan, archive, verb)
}

fn plan_text(plan: &RetirePlan, archive: &str, verb: &str) -> SafeText {
    let name = plan.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
    let id = &plan.image_id;
    let mut text =
        SafeText::from(format!("{verb} {id}{name}, which {archive} holds, block by block"));
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
