//! Results and errors as JSON. These members are an interface: scripts rely on them.

use serde_json::{Map, Value, json};

use super::super::hints::hint;
use crate::aws::s3::S3Location;
use crate::base::{BLOCK_BYTES, Error, ErrorCode, Result, hex};
use crate::engine::{Archive, Depth};
use crate::format::{Footer, VolumeEntry};
use crate::ops::{
    Copied, CopyProof, Extracted, Inspection, Leftover, Restored, StoreOutcome, Stored, Verified,
};

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

/// The members of every result.
pub(super) struct Head<'a> {
    /// The archive that is written or read.
    pub(super) archive: &'a str,
    /// The id of the image that was stored.
    pub(super) image_id: Option<&'a str>,
    /// The past participle of the verb, `present`, or `planned`.
    pub(super) outcome: &'static str,
    pub(super) dry_run: bool,
    /// The digests of the archive, as far as they are known.
    pub(super) footer: Option<&'a Footer>,
}

/// A result: `more` with the members that every result of an archive has.
pub(super) fn result(head: &Head<'_>, more: Value) -> Value {
    let mut members = more;
    members["Archive"] = json!(head.archive);
    members["ImageId"] = json!(head.image_id);
    members["Outcome"] = json!(head.outcome);
    members["DryRun"] = json!(head.dry_run);
    members["RootSha256"] = json!(head.footer.map(|footer| hex(&footer.root)));
    members["ContentSha256"] = json!(head.footer.map(|footer| hex(&footer.content_root)));
    members
}

/// The result of an archive that was opened.
fn result_of(archive: &Archive, head: (&str, &'static str, bool), more: Value) -> Value {
    let (url, outcome, dry_run) = head;
    let image_id = archive.document().image_id().map(|id| id.as_str());
    let footer = Some(archive.footer());
    result(&Head { archive: url, image_id, outcome, dry_run, footer }, more)
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
        StoreOutcome::MetadataChanged { archive_len, footer, .. } => {
            (footer, *archive_len, "metadata_changed", Value::Null)
        }
        StoreOutcome::MetadataUpdated { archive_len, footer, .. } => {
            (footer, *archive_len, "metadata_updated", Value::Null)
        }
    };
    let (changed, sent_whole) = match &stored.outcome {
        StoreOutcome::MetadataChanged { changed, .. } => (Some(changed), None),
        StoreOutcome::MetadataUpdated { changed, sent_whole, .. } => (Some(changed), *sent_whole),
        StoreOutcome::Made(_) | StoreOutcome::Present { .. } => (None, None),
    };
    let image_id = stored.image_id.as_deref();
    result(
        &Head { archive, image_id, outcome, dry_run: false, footer: Some(footer) },
        json!({
            "S3objectKey": key_of(archive),
            "ArchiveBytes": archive_len,
            "MetadataChanged": changed,
            "SentAsAWhole": sent_whole,
            "Volumes": volumes,
        }),
    )
}

/// The key of an S3 URL, under the name that AWS's own store gives it; null for a file.
pub(super) fn key_of(archive: &str) -> Option<String> {
    S3Location::parse(archive).and_then(Result::ok).map(|location| location.key)
}

pub(in super::super) fn copied(copied: &Copied, from: &str, to: &str, dry_run: bool) -> Value {
    let outcome = match (copied.present, dry_run) {
        (true, _) => "present",
        (false, true) => "planned",
        (false, false) => "copied",
    };
    let (image_id, footer) = (copied.image_id.as_deref(), Some(&copied.footer));
    result(
        &Head { archive: to, image_id, outcome, dry_run, footer },
        json!({
            "Source": from,
            "S3objectKey": key_of(to),
            "ArchiveBytes": copied.archive_len,
            "Checked": checked_by(copied.proof),
        }),
    )
}

/// The extent of a check, in one word.
pub(super) fn checked(depth: Depth) -> &'static str {
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

pub(in super::super) fn cleaned(found: &[Leftover], removes: bool) -> Value {
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
    json!({
        "Outcome": if removes { "cleaned" } else { "planned" },
        "DryRun": !removes,
        "Leftovers": found.iter().map(one).collect::<Vec<_>>(),
    })
}

pub(super) fn restored(restored: &Restored, archive: &str, target: &str, dry_run: bool) -> Value {
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
    let outcome = if dry_run { "planned" } else { "restored" };
    let (image_id, footer) = (restored.image_id.as_deref(), Some(&restored.footer));
    result(
        &Head { archive, image_id, outcome, dry_run, footer },
        json!({
            "RestoredImageId": null,
            "Target": target,
            "ArchiveBytes": restored.archive_len,
            "Volumes": volumes,
        }),
    )
}

pub(in super::super) fn verified(verified: &Verified, archive: &str) -> Value {
    let outcome = match verified.is_ok() {
        true => "ok",
        false if verified.has_other_root => "other_root",
        false if verified.differs_in_metadata_only() => "metadata_changed",
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
    let (image_id, footer) = (verified.image_id.as_deref(), verified.footer.as_ref());
    result(
        &Head { archive, image_id, outcome, dry_run: false, footer },
        json!({
            "Sampled": verified.sampled,
            "Checked": checked(verified.depth),
            "ArchiveBytes": verified.archive_len,
            "BlocksChecked": verified.blocks,
            "CellsChecked": verified.cells,
            "MetadataChanged": verified.metadata_changed,
            "Findings": findings,
            "FindingsNotListed": verified.more_findings,
        }),
    )
}

/// A volume, or a range of it, that was or would be extracted from `archive` at `url`.
pub(in super::super) fn extracted(
    extracted: &Extracted,
    (archive, url): (&Archive, &str),
    file: &str,
    dry_run: bool,
    bytes_read: u64,
) -> Value {
    let outcome = if dry_run { "planned" } else { "extracted" };
    let mut report = json!({
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
    result_of(archive, (url, outcome, dry_run), report)
}

pub(in super::super) fn metadata(
    (archive, url): (&Archive, &str),
    file: &str,
    dry_run: bool,
) -> Value {
    let outcome = if dry_run { "planned" } else { "extracted" };
    let len = archive.document().bytes().len();
    result_of(archive, (url, outcome, dry_run), json!({"File": file, "Bytes": len}))
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
    let image_id = document.image_id().map(|id| id.as_str());
    let footer = Some(&inspection.footer);
    result(
        &Head { archive, image_id, outcome: "inspected", dry_run: false, footer },
        json!({
            "ArchiveBytes": inspection.archive_len,
            "BytesRead": bytes_read,
            "Format": crate::format::layout::FORMAT_NAME,
            "FormatVersion": crate::format::layout::FORMAT_VERSION,
            "Writer": inspection.writer,
            "Codec": codec,
            "Image": document.value().get("Image").cloned().unwrap_or(Value::Null),
            "Snapshots": document.value().get("Snapshots").cloned().unwrap_or(Value::Null),
            "Volumes": volumes,
        }),
    )
}
