//! Results and errors as JSON. These members are an interface: scripts rely on them.

use serde_json::{Map, Value, json};

use super::super::hints::hint;
use crate::aws::s3::S3Location;
use crate::base::{BLOCK_BYTES, Error, ErrorCode, Result, TaskKind, hex, rfc3339};
use crate::engine::Depth;
use crate::format::{Footer, VolumeEntry};
use crate::object::Listed;
use crate::ops::{
    Copied, CopyProof, Extracted, Inspection, Leftover, ListedTask, Restored, StoreOutcome, Stored,
    TaskProgress, Verified, shell_line,
};
use crate::taskdb::TaskRow;

pub(in super::super) fn error(error: &Error) -> Value {
    json!({
        "kind": error.kind().name(),
        "code": error.code().map(ErrorCode::name),
        "message": error.message(),
        "context": context(error),
        "causes": error.causes(),
        "hint": hint(error),
        "exit_code": error.kind().exit_code(),
    })
}

/// Facts by name; numbers as numbers.
fn context(error: &Error) -> Value {
    let value =
        |text: &str| text.parse::<u64>().map_or_else(|_| json!(text), |number| json!(number));
    Value::Object(
        error
            .context()
            .iter()
            .map(|(key, text)| ((*key).to_owned(), value(text)))
            .collect::<Map<_, _>>(),
    )
}

fn digests(footer: &Footer) -> [(&'static str, Value); 2] {
    [("RootSha256", json!(hex(&footer.root))), ("ContentSha256", json!(hex(&footer.content_root)))]
}

fn object<const N: usize>(
    members: impl IntoIterator<Item = (&'static str, Value)>,
    more: [(&'static str, Value); N],
) -> Value {
    Value::Object(
        members.into_iter().chain(more).map(|(key, value)| (key.to_owned(), value)).collect(),
    )
}

fn volume(entry: &VolumeEntry, stored: u64) -> Map<String, Value> {
    let bytes = |blocks: u64| (blocks * BLOCK_BYTES).min(entry.size.bytes());
    let members = json!({
        "SnapshotId": entry.name.as_str(),
        "VolumeBytes": entry.size.bytes(),
        "AllocatedBytes": bytes(entry.blocks - entry.fill),
        "ZeroBytes": bytes(entry.zero - entry.fill),
        "StoredBytes": stored,
        "Ratio": ratio(bytes(entry.blocks - entry.fill), stored),
        "ContentSha256": hex(&entry.content),
    });
    match members {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// Allocated to stored, with two decimals; null if nothing is stored.
fn ratio(allocated: u64, stored: u64) -> Value {
    if stored == 0 {
        Value::Null
    } else {
        json!((allocated as f64 / stored as f64 * 100.0).round() / 100.0)
    }
}

pub(in super::super) fn stored(stored: &Stored, archive: &str) -> Value {
    let (footer, archive_len, outcome, volumes) = match &stored.outcome {
        StoreOutcome::Made(pack) => {
            let volumes: Vec<Value> = pack
                .volumes
                .iter()
                .map(|report| Value::Object(volume(&report.entry, report.stored)))
                .collect();
            (&pack.footer, pack.archive_len, "stored", json!(volumes))
        }
        StoreOutcome::Present { archive_len, footer } => {
            (footer, *archive_len, "present", Value::Null)
        }
    };
    object(
        digests(footer),
        [
            ("Outcome", json!(outcome)),
            ("ImageId", json!(stored.image_id)),
            ("Archive", json!(archive)),
            ("S3objectKey", json!(key_of(archive))),
            ("ArchiveBytes", json!(archive_len)),
            ("Volumes", volumes),
        ],
    )
}

/// The key of an S3 URL, under the name that AWS's own store gives it; null for a file.
pub(super) fn key_of(archive: &str) -> Option<String> {
    S3Location::parse(archive).and_then(Result::ok).map(|location| location.key)
}

pub(in super::super) fn copied(copied: &Copied, from: &str, to: &str, dry_run: bool) -> Value {
    object(
        digests(&copied.footer),
        [
            ("DryRun", json!(dry_run)),
            ("Outcome", json!(if copied.present { "present" } else { "copied" })),
            ("ImageId", json!(copied.image_id)),
            ("Source", json!(from)),
            ("Archive", json!(to)),
            ("S3objectKey", json!(key_of(to))),
            ("ArchiveBytes", json!(copied.archive_len)),
            ("Checked", json!(checked_by(copied.proof))),
        ],
    )
}

/// The extent of a check, in one word.
fn checked(depth: Depth) -> &'static str {
    match depth {
        Depth::Stored => "stored",
        Depth::Blocks => "blocks",
    }
}

fn checked_by(proof: CopyProof) -> &'static str {
    match proof {
        CopyProof::Digests(depth) => checked(depth),
        CopyProof::Service => "service",
        CopyProof::Root => "root",
    }
}

pub(in super::super) fn listed(found: &Listed) -> Value {
    let metadata = |name: &str| found.metadata.get(name);
    json!({
        "S3objectKey": found.key,
        "ArchiveBytes": found.len,
        "LastModified": found.modified,
        "StorageClass": found.storage_class,
        "AmiName": metadata("ami-name"),
        "AmiDescription": metadata("ami-description"),
        "AmiOwnerAccount": metadata("ami-owner-account"),
        "AmiRegistrationDate": metadata("ami-registration-date"),
        "AmiStoreDate": metadata("ami-store-date"),
        "ContentSha256": metadata("amistore-content-sha256"),
        "Metadata": found.metadata,
    })
}

/// Shaped like the answer of DescribeStoreImageTasks; restores and copies stand beside the stores.
pub(in super::super) fn tasks(found: &[ListedTask]) -> Value {
    let one = |entry: &ListedTask| {
        let mut members = match entry {
            ListedTask::Unfinished(task, _) => unfinished(task),
            ListedTask::Recorded(row) => recorded(row),
        };
        let row = entry.row();
        members["StoreTaskState"] = json!(entry.state());
        if entry.state() != "Failed" {
            members["StoreTaskFailureReason"] = Value::Null;
        }
        if let Some(row) = row {
            members["ProgressPercentage"] = json!(row.percent);
        }
        members["WaitsFor"] = json!(row.and_then(TaskRow::waits_for));
        members["Origin"] = json!(row.map_or("command", |row| row.task.origin.name()));
        members["TaskEndTime"] = json!(row.and_then(|row| row.ended).map(rfc3339));
        members["ReservedImageId"] = json!(row.and_then(|row| row.task.reserved_id.as_ref()));
        members["RestoredImageId"] = json!(row.and_then(|row| row.restored_id.as_ref()));
        members
    };
    let of = |kind: TaskKind| {
        found.iter().filter(|entry| entry.kind() == kind).map(one).collect::<Vec<_>>()
    };
    json!({
        "StoreImageTaskResults": of(TaskKind::Store),
        "RestoreImageTaskResults": of(TaskKind::Restore),
        "CopyTaskResults": of(TaskKind::Copy),
    })
}

fn unfinished(task: &TaskProgress) -> Value {
    let header = &task.entry.header;
    let object = S3Location::parse(header.target.split(" at ").next().unwrap_or_default())
        .and_then(Result::ok);
    let reason = task.reason.as_deref().unwrap_or("the process ended without a word");
    let snapshots: Vec<&String> =
        task.snapshots.iter().map(|snapshot| &snapshot.snapshot_id).collect();
    let uploads: Vec<&String> = task.uploads.iter().map(|upload| &upload.upload_id).collect();
    json!({
        "AmiId": header.image_id,
        "TaskStartTime": header.started,
        "Bucket": object.as_ref().map(|object| &object.bucket),
        "S3objectKey": object.as_ref().map(|object| &object.key),
        "ProgressPercentage": task.percent,
        "StoreTaskFailureReason": reason,
        "Kind": header.kind.name(),
        "Source": header.source,
        "Target": header.target,
        "SnapshotIds": snapshots,
        "UploadIds": uploads,
        "ResumeCommand": shell_line(&header.command),
        "ResumeDirectory": header.directory,
        "StateFile": task.entry.path.display().to_string(),
    })
}

/// A task without a task file: there is nothing to continue.
fn recorded(row: &TaskRow) -> Value {
    json!({
        "AmiId": row.task.image_id,
        "TaskStartTime": rfc3339(row.started),
        "Bucket": row.task.bucket,
        "S3objectKey": row.task.object_key,
        "ProgressPercentage": row.percent,
        "StoreTaskFailureReason": row.reason,
        "Kind": row.task.kind.name(),
        "Source": row.task.source,
        "Target": row.task.target,
        "SnapshotIds": [],
        "UploadIds": [],
        "ResumeCommand": null,
        "ResumeDirectory": null,
        "StateFile": null,
    })
}

pub(in super::super) fn cleaned(found: &[Leftover]) -> Value {
    let one = |leftover: &Leftover| {
        json!({
            "What": leftover.what,
            "Place": leftover.location,
            "UploadId": leftover.upload_id,
            "Begun": leftover.begun,
            "Remembered": leftover.ours,
            "Removed": leftover.removed,
        })
    };
    json!({"Leftovers": found.iter().map(one).collect::<Vec<_>>()})
}

pub(super) fn restored(restored: &Restored, target: &str, dry_run: bool) -> Value {
    let volumes: Vec<Value> = restored
        .volumes
        .iter()
        .map(|volume| {
            json!({
                "SnapshotId": volume.id.as_str(),
                "File": volume.id.file_name(),
                "VolumeBytes": volume.size.bytes(),
                "AllocatedBytes": (volume.blocks * BLOCK_BYTES).min(volume.size.bytes()),
            })
        })
        .collect();
    object(
        digests(&restored.footer),
        [
            ("DryRun", json!(dry_run)),
            ("ImageId", json!(restored.image_id)),
            ("Target", json!(target)),
            ("ArchiveBytes", json!(restored.archive_len)),
            ("Volumes", json!(volumes)),
        ],
    )
}

pub(in super::super) fn verified(verified: &Verified, archive: &str) -> Value {
    let outcome = match verified.is_ok() {
        true => "ok",
        false if verified.differs => "different",
        false => "corrupt",
    };
    let findings: Vec<Value> = verified
        .findings
        .iter()
        .map(|finding| {
            json!({
                "message": finding.message(),
                "context": context(finding),
                "causes": finding.causes(),
            })
        })
        .collect();
    object(
        verified.footer.iter().flat_map(digests),
        [
            ("Outcome", json!(outcome)),
            ("Sampled", json!(verified.sampled)),
            ("Checked", json!(checked(verified.depth))),
            ("ImageId", json!(verified.image_id)),
            ("Archive", json!(archive)),
            ("ArchiveBytes", json!(verified.archive_len)),
            ("BlocksChecked", json!(verified.blocks)),
            ("CellsChecked", json!(verified.cells)),
            ("Findings", json!(findings)),
            ("FindingsNotListed", json!(verified.more_findings)),
        ],
    )
}

pub(in super::super) fn extracted(
    extracted: &Extracted,
    file: &str,
    dry_run: bool,
    bytes_read: u64,
) -> Value {
    let mut report = json!({
        "DryRun": dry_run,
        "SnapshotId": extracted.id.as_str(),
        "File": file,
        "VolumeBytes": extracted.size.bytes(),
        "AllocatedBytes": extracted.allocated,
        "StoredBytes": extracted.stored,
        "BytesRead": bytes_read,
    });
    if let Some(range) = extracted.range {
        report["Offset"] = json!(range.offset);
        report["Length"] = json!(range.len);
    }
    report
}

pub(in super::super) fn metadata(file: &str, dry_run: bool, len: usize) -> Value {
    json!({"DryRun": dry_run, "File": file, "Bytes": len})
}

pub(in super::super) fn inspection(
    inspection: &Inspection,
    archive: &str,
    bytes_read: u64,
) -> Value {
    let document = &inspection.document;
    let volumes: Vec<Value> = inspection
        .volumes
        .iter()
        .map(|inspected| {
            let mut members = volume(&inspected.entry, inspected.stored);
            let devices = document
                .snapshots()
                .iter()
                .find(|snapshot| snapshot.id == inspected.entry.name)
                .map(|snapshot| &snapshot.devices);
            let devices: Vec<&str> =
                devices.into_iter().flatten().map(|device| device.as_str()).collect();
            members.insert("DeviceNames".to_owned(), json!(devices));
            let share = |value: f32| (f64::from(value) * 1000.0).round() / 1000.0;
            let map: Vec<Value> = inspected
                .map
                .iter()
                .map(|cell| json!([share(cell.data), share(cell.zero)]))
                .collect();
            members.insert("Map".to_owned(), json!(map));
            Value::Object(members)
        })
        .collect();
    let codec = &inspection.codec;
    let codec = json!({"Name": codec.name, "Level": codec.level, "Library": codec.lib});
    object(
        digests(&inspection.footer),
        [
            ("Archive", json!(archive)),
            ("ArchiveBytes", json!(inspection.archive_len)),
            ("BytesRead", json!(bytes_read)),
            ("Format", json!(crate::format::layout::FORMAT_NAME)),
            ("FormatVersion", json!(crate::format::layout::FORMAT_VERSION)),
            ("Writer", json!(inspection.writer)),
            ("Codec", codec),
            ("Image", document.value().get("Image").cloned().unwrap_or(Value::Null)),
            ("Snapshots", document.value().get("Snapshots").cloned().unwrap_or(Value::Null)),
            ("Volumes", json!(volumes)),
        ],
    )
}
