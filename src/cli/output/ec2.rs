//! Results about images in EC2, as text and as JSON.

use serde_json::{Value, json};

use crate::aws::ec2::{Ec2Restored, Fidelity, FidelityItem, RetirePlan};
use crate::base::{ImageId, SnapshotId};

pub(in super::super) fn aws_stored(id: &ImageId, archive: &str, dry_run: bool) -> Value {
    let key =
        archive.strip_prefix("s3://").and_then(|rest| rest.split_once('/')).map(|(_, key)| key);
    json!({"DryRun": dry_run, "Outcome": "stored", "ImageId": id.as_str(), "Archive": archive, "S3objectKey": key, "By": "AWS"})
}

pub(in super::super) fn aws_stored_text(id: &ImageId, archive: &str, dry_run: bool) -> String {
    let verb = if dry_run { "AWS would store" } else { "AWS stored" };
    format!("{verb} {id} as {archive}\n  in a format of its own: only AWS can restore it\n")
}

pub(in super::super) fn aws_restored(
    id: &ImageId,
    snapshots: &[SnapshotId],
    archive: &str,
) -> Value {
    let ids: Vec<&str> = snapshots.iter().map(SnapshotId::as_str).collect();
    json!({"Outcome": "restored", "Archive": archive, "Target": "ec2", "By": "AWS", "ImageId": id.as_str(), "SnapshotIds": ids})
}

pub(in super::super) fn aws_restored_text(
    id: &ImageId,
    snapshots: &[SnapshotId],
    archive: &str,
) -> String {
    let ids: String = snapshots.iter().map(|id| format!("  {id}\n")).collect();
    format!("AWS restored {archive} as {id}\n{ids}")
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

/// Adds what a restore made in EC2 to what it says of the archive.
pub(in super::super) fn restored_to_ec2(
    archive: Value,
    restored: &Ec2Restored,
    region: &str,
) -> Value {
    let mut all = archive;
    let snapshots: Vec<Value> = restored
        .snapshots
        .iter()
        .map(|snapshot| {
            json!({
                "ArchivedSnapshotId": snapshot.archived.as_str(),
                "SnapshotId": snapshot.snapshot_id.as_str(),
                "VolumeSize": snapshot.volume_gib,
                "Encrypted": snapshot.encrypted,
            })
        })
        .collect();
    if let Some(members) = all.as_object_mut() {
        let source = members
            .insert("ImageId".to_owned(), json!(restored.image_id.as_ref().map(ImageId::as_str)));
        members.insert("ArchivedImageId".to_owned(), source.unwrap_or_default());
        members.insert("Name".to_owned(), json!(restored.name));
        members.insert("Region".to_owned(), json!(region));
        members.insert("Snapshots".to_owned(), json!(snapshots));
        members.insert("Fidelity".to_owned(), restored.items.iter().map(item).collect());
    }
    all
}

pub(in super::super) fn restored_to_ec2_text(
    restored: &Ec2Restored,
    archive: &str,
    region: &str,
) -> String {
    let mut text = match &restored.image_id {
        Some(id) => format!("restored {archive} as {id} in {region}\n"),
        None => format!("restored the snapshots of {archive} in {region}\n"),
    };
    for snapshot in &restored.snapshots {
        let encrypted = if snapshot.encrypted { ", encrypted" } else { "" };
        text.push_str(&format!(
            "  {}  {} GiB, from {}{encrypted}\n",
            snapshot.snapshot_id, snapshot.volume_gib, snapshot.archived
        ));
    }
    text + &fidelity_text(&restored.items)
}

/// Every attribute that is not as it was, and how many are.
pub(super) fn fidelity_text(items: &[FidelityItem]) -> String {
    if items.is_empty() {
        return String::new();
    }
    let numbers = [Fidelity::Set, Fidelity::Changed, Fidelity::Left, Fidelity::Impossible]
        .map(|fidelity| format!("{} {}", count(items, fidelity), fidelity.name()));
    let mut text = format!("  attributes: {}\n", numbers.join(", "));
    for item in items.iter().filter(|item| item.fidelity != Fidelity::Set) {
        let now = item.now.as_ref().map(|now| format!(" -> {}", shown(now))).unwrap_or_default();
        let why = item.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        text.push_str(&format!(
            "    {:<10} {} {} {}{now}{why}\n",
            item.fidelity.name(),
            item.subject,
            item.attribute,
            shown(&item.recorded)
        ));
    }
    text
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
        .map(|snapshot| json!({"SnapshotId": snapshot.snapshot_id, "Deleted": snapshot.deleted, "UsedBy": snapshot.used_by}))
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

pub(in super::super) fn retired_text(plan: &RetirePlan, archive: &str, done: bool) -> String {
    let verb = match (plan.action.name(), done) {
        ("deprecate", true) => "deprecated",
        ("disable", true) => "disabled",
        (_, true) => "deregistered",
        (name, false) => return plan_text(plan, archive, &format!("would {name}")),
    };
    plan_text(plan, archive, verb)
}

fn plan_text(plan: &RetirePlan, archive: &str, verb: &str) -> String {
    let name = plan.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
    let mut text =
        format!("{verb} {}{name}, which {archive} holds, block by block\n", plan.image_id);
    for snapshot in &plan.snapshots {
        let what = match (snapshot.deleted, snapshot.used_by.is_empty()) {
            (true, _) => "deleted".to_owned(),
            (false, true) => "stays".to_owned(),
            (false, false) => format!("stays: {} uses it", snapshot.used_by.join(", ")),
        };
        text.push_str(&format!("  {}  {what}\n", snapshot.snapshot_id));
    }
    text
}
