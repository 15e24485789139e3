//! Plans as text and as JSON: printed by `--dry-run`, and, as text, by `--verbose`.

use serde_json::{Map, Value, json};

use super::ec2::{add_fidelity, item};
use super::json::{Head, checked, copied, key_of, restored, result};
use super::safe_text::SafeText;
use super::text::{copied_text, name_of, named, restored_text};
use crate::aws::ec2::EncryptionPlan;
use crate::base::{BLOCK_BYTES, SnapshotId, human_bytes};
use crate::engine::{Depth, MemorySplit};
use crate::ops::{
    AwsUse, CopyPlan, Dollars, Existing, PlannedVolume, RestorePlan, S3Use, Service, StorePlan,
    StreamPlan, Transfer, UploadPlan,
};

pub(in super::super) fn store_plan_text(
    plan: &StorePlan,
    archive: &str,
    existing: &Existing,
) -> SafeText {
    let longest = human_bytes(plan.volumes.longest_archive);
    let name = name_of(plan.image_id.as_deref());
    let mut text = SafeText::from(format!("would store {name} as {archive} (at most {longest})"));
    for volume in &plan.volumes.volumes {
        let allocated = (volume.blocks * BLOCK_BYTES).min(volume.size.bytes());
        let (size, allocated) = (human_bytes(volume.size.bytes()), human_bytes(allocated));
        text.line(format_args!(
            "  {}  {size}, {allocated} to read, {} extents",
            volume.id, volume.extents
        ));
    }
    add_existing(&mut text, existing);
    add_use(&mut text, &plan.memory, plan.upload.as_ref(), &plan.aws);
    text
}

pub(in super::super) fn store_plan(plan: &StorePlan, archive: &str, existing: &Existing) -> Value {
    let volume = |volume: &PlannedVolume| {
        json!({
            "SnapshotId": volume.id.as_str(),
            "VolumeBytes": volume.size.bytes(),
            "AllocatedBytes": (volume.blocks * BLOCK_BYTES).min(volume.size.bytes()),
            "Extents": volume.extents,
        })
    };
    let report = json!({
        "S3objectKey": key_of(archive),
        "ArchiveBytes": null,
        "ArchiveBytesAtMost": plan.volumes.longest_archive,
        "Volumes": plan.volumes.volumes.iter().map(volume).collect::<Vec<_>>(),
    });
    let report = result(&planned(archive, plan.image_id.as_deref()), report);
    with_plan(report, &plan.memory, plan.upload.as_ref(), &plan.aws, existing)
}

pub(in super::super) fn restore_plan_text(plan: &RestorePlan, target: &str) -> SafeText {
    let mut text = restored_text(&plan.archive, target, true);
    add_use(&mut text, &plan.memory, None, &plan.aws);
    add_encryption(&mut text, &plan.encryption);
    add_fidelity(&mut text, &plan.items);
    text
}

fn encryption(plan: &EncryptionPlan) -> Value {
    let names = |ids: &[SnapshotId]| ids.iter().map(|id| json!(id.as_str())).collect::<Value>();
    json!({
        "KmsKeyId": plan.kms_key_id,
        "Encrypted": names(&plan.encrypted),
        "EncryptedNoLonger": names(&plan.decrypted),
    })
}

/// The snapshots that become encrypted, and the key; and those that do not stay encrypted.
fn add_encryption(text: &mut SafeText, plan: &EncryptionPlan) {
    let names =
        |ids: &[SnapshotId]| ids.iter().map(SnapshotId::as_str).collect::<Vec<_>>().join(", ");
    if !plan.encrypted.is_empty() {
        let key = plan.kms_key_id.as_deref().unwrap_or("the account's default key");
        text.line(format_args!("  encrypted under {key}: {}", names(&plan.encrypted)));
        text.line("  KMS is asked for the key when the restore begins, and not by a dry run");
    }
    if !plan.decrypted.is_empty() {
        text.line(format_args!("  encrypted no longer: {}", names(&plan.decrypted)));
    }
}

/// The members of a plan whose archive is not known yet.
fn planned<'a>(archive: &'a str, image_id: Option<&'a str>) -> Head<'a> {
    Head { archive, image_id, outcome: "planned", dry_run: true, footer: None }
}

pub(in super::super) fn restore_plan(plan: &RestorePlan, archive: &str, target: &str) -> Value {
    let report = restored(&plan.archive, archive, target, true);
    let mut report = with_plan(report, &plan.memory, None, &plan.aws, &Existing::None);
    if let (Some(members), true) = (report.as_object_mut(), plan.aws.ebs.is_some()) {
        members.insert("Fidelity".to_owned(), plan.items.iter().map(item).collect());
        members.insert("Encryption".to_owned(), encryption(&plan.encryption));
    }
    report
}

pub(in super::super) fn copy_plan_text(
    plan: &CopyPlan,
    from: &str,
    to: &str,
    existing: &Existing,
) -> SafeText {
    let mut text = copied_text(&plan.archive, from, to, true);
    add_existing(&mut text, existing);
    if plan.by_service {
        text.line("  the service copies it by itself");
    }
    add_use(&mut text, &plan.memory, plan.upload.as_ref(), &plan.aws);
    text
}

pub(in super::super) fn copy_plan(
    plan: &CopyPlan,
    from: &str,
    to: &str,
    existing: &Existing,
) -> Value {
    let mut archive = plan.archive.clone();
    archive.present = *existing == Existing::Same;
    let report = copied(&archive, from, to, true);
    with_plan(report, &plan.memory, plan.upload.as_ref(), &plan.aws, existing)
}

pub(in super::super) fn stream_copy_plan_text(
    plan: &StreamPlan,
    source: &str,
    target: &str,
) -> SafeText {
    let mut text = SafeText::from(format!("would copy {source} to {target} ({UNKNOWN})"));
    add_stream(&mut text, plan);
    text
}

pub(in super::super) fn stream_copy_plan(
    plan: &StreamPlan,
    depth: Depth,
    source: &str,
    target: &str,
) -> Value {
    let report = json!({
        "Checked": checked(depth),
        "Source": source,
        "S3objectKey": key_of(target),
        "ArchiveBytes": null,
    });
    stream(result(&planned(target, None), report), plan)
}

pub(in super::super) fn stream_restore_plan_text(
    plan: &StreamPlan,
    source: &str,
    target: &str,
) -> SafeText {
    let mut text = SafeText::from(format!("would restore {source} to {target} ({UNKNOWN})"));
    add_stream(&mut text, plan);
    text
}

pub(in super::super) fn stream_restore_plan(
    plan: &StreamPlan,
    source: &str,
    target: &str,
) -> Value {
    let report = json!({
        "RestoredImageId": null,
        "Target": target,
        "ArchiveBytes": null,
        "Volumes": null,
    });
    stream(result(&planned(source, None), report), plan)
}

/// The check of the permissions to write to a bucket, which a dry run makes as well.
const PROBE: &str = "  check: an upload is begun and aborted, and no part of it is sent";

fn is_probed(aws: &AwsUse) -> bool {
    aws.calls.count(Service::S3, "AbortMultipartUpload") > 0
}

/// The size of a stream in a plan.
const UNKNOWN: &str = "size and content are known when it is read";

fn add_stream(text: &mut SafeText, plan: &StreamPlan) {
    text.line(memory_line(&plan.memory));
    if let Some(upload) = plan.upload {
        let (part, longest) = (human_bytes(upload.part_size), human_bytes(upload.longest));
        text.line(format_args!("  upload: parts of {part}, at most {longest}"));
        text.line(PROBE);
    }
}

fn stream(report: Value, plan: &StreamPlan) -> Value {
    let aws = AwsUse::default();
    let mut report = with_plan(report, &plan.memory, None, &aws, &Existing::None);
    if let (Some(upload), Some(members)) = (plan.upload, report.as_object_mut()) {
        let upload = json!({"PartBytes": upload.part_size, "ArchiveBytesAtMost": upload.longest});
        members.insert("Upload".to_owned(), upload);
        members.insert("UploadProbed".to_owned(), json!(true));
    }
    report
}

pub(super) fn add_existing(text: &mut SafeText, existing: &Existing) {
    match existing {
        Existing::None => {}
        Existing::Same => text.line("  the archive is there already, and holds the same"),
        Existing::OtherMetadata { changed, updates } => {
            let verb = if *updates { "is updated" } else { "stays as it is" };
            text.line(format_args!(
                "  the archive is there, with the same disks and other metadata{}: it {verb}",
                named(changed)
            ));
        }
    }
}

pub(super) fn add_use(
    text: &mut SafeText,
    memory: &MemorySplit,
    upload: Option<&UploadPlan>,
    aws: &AwsUse,
) {
    text.line(memory_line(memory));
    if let Some(upload) = upload {
        text.line(upload_line(upload));
    }
    if is_probed(aws) {
        text.line(PROBE);
    }
    add_aws(text, aws);
}

fn memory_line(memory: &MemorySplit) -> String {
    let shares = [
        (memory.maps, "block maps"),
        (memory.connections, "connections"),
        (memory.parts, "parts"),
        (memory.blocks, "blocks on their way"),
        (memory.plan.in_flight, "in flight"),
    ];
    let shares: String = shares
        .into_iter()
        .filter(|(bytes, _)| *bytes > 0)
        .map(|(bytes, what)| format!(", {} {what}", human_bytes(bytes)))
        .collect();
    format!("  memory {}: {} threads{shares}", human_bytes(memory.total), memory.plan.threads)
}

fn upload_line(upload: &UploadPlan) -> String {
    let parallel = match upload.segments.len() {
        0 => String::new(),
        volumes => format!(", {volumes} volumes in parallel as far as memory allows"),
    };
    let part = human_bytes(upload.part_size);
    format!("  upload: at most {} parts of {part}{parallel}", upload.parts)
}

/// The price lists of AWS, for what is not known here.
fn price_list(service: Service) -> &'static str {
    match service {
        Service::Ebs => "https://aws.amazon.com/ebs/pricing/",
        Service::Ec2 => "https://aws.amazon.com/ec2/pricing/",
        Service::S3 => "https://aws.amazon.com/s3/pricing/",
    }
}

/// The page of AWS with the prices of data that leaves a Region.
const TRANSFER_PRICES: &str = "https://aws.amazon.com/ec2/pricing/on-demand/#Data_Transfer";

/// A Region of AWS in a text; absent, it is an endpoint of another service.
fn region_of(region: Option<&str>) -> &str {
    region.unwrap_or("an endpoint that is not AWS's")
}

fn dollars(price: Option<Dollars>, region: Option<&str>, service: Service) -> String {
    match price {
        Some(price) => format!("about {price}"),
        None => {
            format!("no price known for {}; see {}", region_of(region), price_list(service))
        }
    }
}

/// The prices of requests and of a month of storage.
fn s3_dollars(s3: &S3Use) -> String {
    let region = s3.is_aws.then_some(s3.region.as_str());
    let requests = dollars(s3.dollars, region, Service::S3);
    match (s3.dollars, s3.dollars_a_month) {
        (None, _) => requests,
        (Some(_), Some(month)) => format!("{requests}, about {month} a month"),
        (Some(_), None) => {
            let list = price_list(Service::S3);
            format!("{requests}, no price of a month known for this storage class; see {list}")
        }
    }
}

fn add_aws(text: &mut SafeText, aws: &AwsUse) {
    for service in Service::ALL {
        let calls: Vec<String> =
            aws.calls.of(service).map(|(action, count)| format!("{action} {count}")).collect();
        if !calls.is_empty() {
            let (name, total) = (service.name(), aws.calls.total(service));
            text.line(format_args!("{name}: {total} requests ({})", calls.join(", ")));
        }
        match (service, &aws.ebs, &aws.s3) {
            (Service::Ebs, Some(ebs), _) => text.line(format_args!(
                "  {} in {}, at least {} s by the quotas, {}",
                human_bytes(ebs.bytes),
                ebs.region,
                ebs.at_least.as_secs_f64().ceil(),
                dollars(ebs.dollars, Some(&ebs.region), Service::Ebs),
            )),
            (Service::S3, _, Some(s3)) => text.line(format_args!(
                "  at most {} in {}, {}",
                human_bytes(s3.bytes),
                s3.region,
                s3_dollars(s3),
            )),
            _ => {}
        }
    }
    if let Some(reads) = &aws.s3_reads {
        let region = reads.region.as_deref();
        text.line(format_args!(
            "  the archive is read from {} with at most {} requests, {}",
            region_of(region),
            reads.requests,
            dollars(reads.dollars, region, Service::S3),
        ));
    }
    for transfer in &aws.transfers {
        let billed = if transfer.leaves {
            "leave the Region, which is billed"
        } else {
            "are billed if this program runs outside of the Region"
        };
        text.line(format_args!(
            "  data transfer: {} from {} in {} {billed}; see {TRANSFER_PRICES}",
            human_bytes(transfer.bytes),
            transfer.service.name(),
            transfer.region,
        ));
    }
}

/// Adds memory, upload and the use of AWS to a plan.
pub(super) fn with_plan(
    report: Value,
    memory: &MemorySplit,
    upload: Option<&UploadPlan>,
    aws: &AwsUse,
    existing: &Existing,
) -> Value {
    let mut report = report;
    let Some(members) = report.as_object_mut() else { return report };
    let mut add = |name: &str, value: Value| members.insert(name.to_owned(), value);
    add(
        "Memory",
        json!({
            "Bytes": memory.total,
            "Threads": memory.plan.threads,
            "BlockMaps": memory.maps,
            "Connections": memory.connections,
            "Parts": memory.parts,
            "Blocks": memory.blocks,
            "InFlight": memory.plan.in_flight,
        }),
    );
    match existing {
        Existing::None => {}
        Existing::Same => drop(add("Outcome", json!("present"))),
        Existing::OtherMetadata { changed, updates } => {
            let outcome = if *updates { "metadata_updated" } else { "metadata_changed" };
            add("Outcome", json!(outcome));
            add("MetadataChanged", json!(changed));
        }
    }
    if let Some(upload) = upload {
        let parallel = upload.segments.len();
        add(
            "Upload",
            json!({
                "PartBytes": upload.part_size,
                "PartsAtMost": upload.parts,
                "VolumesInParallel": parallel.max(1),
            }),
        );
    }
    if is_probed(aws) {
        add("UploadProbed", json!(true));
    }
    if aws.is_empty() {
        return report;
    }
    add("Calls", calls(aws));
    let price = |dollars: Option<Dollars>| dollars.map(Dollars::amount);
    if let Some(ebs) = &aws.ebs {
        let count = |action| aws.calls.count(Service::Ebs, action);
        add(
            "Ebs",
            json!({
                "Region": ebs.region,
                "Bytes": ebs.bytes,
                "ListSnapshotBlocks": count("ListSnapshotBlocks"),
                "GetSnapshotBlock": count("GetSnapshotBlock"),
                "PutSnapshotBlock": count("PutSnapshotBlock"),
                "SecondsAtLeast": (ebs.at_least.as_secs_f64() * 10.0).ceil() / 10.0,
                "UsDollars": price(ebs.dollars),
            }),
        );
    }
    if let Some(s3) = &aws.s3 {
        add(
            "S3",
            json!({
                "Region": s3.region,
                "BytesAtMost": s3.bytes,
                "UsDollars": price(s3.dollars),
                "UsDollarsAMonth": price(s3.dollars_a_month),
            }),
        );
    }
    if let Some(reads) = &aws.s3_reads {
        add(
            "S3Reads",
            json!({
                "Region": reads.region,
                "RequestsAtMost": reads.requests,
                "UsDollars": price(reads.dollars),
            }),
        );
    }
    if !aws.transfers.is_empty() {
        add("DataTransfers", aws.transfers.iter().map(transfer).collect());
    }
    report
}

fn transfer(transfer: &Transfer) -> Value {
    json!({
        "Service": transfer.service.name(),
        "Region": transfer.region,
        "Bytes": transfer.bytes,
        // Otherwise it depends on where this program runs.
        "LeavesRegion": transfer.leaves.then_some(true),
    })
}

/// Requests by service and action.
fn calls(aws: &AwsUse) -> Value {
    let of = |service: Service| {
        let actions = aws.calls.of(service);
        Value::Object(actions.map(|(action, count)| (action.to_owned(), json!(count))).collect())
    };
    Service::ALL
        .into_iter()
        .filter(|service| aws.calls.total(*service) > 0)
        .map(|service| (service.name().to_owned(), of(service)))
        .collect::<Map<_, _>>()
        .into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ops::{EbsUse, S3Reads};

    #[test]
    fn text_and_json_show_one_price_and_never_nothing_for_something() {
        let prices = [0.000_04, 0.614_42, 0.000_001, 117.760_01].map(Dollars::new);
        let region = || "us-east-1".to_owned();
        let mut aws = AwsUse {
            ebs: Some(EbsUse {
                region: region(),
                bytes: 1,
                at_least: Duration::from_secs(1),
                dollars: Some(prices[0]),
            }),
            s3: Some(S3Use {
                region: region(),
                is_aws: true,
                bytes: 1,
                dollars: Some(prices[1]),
                dollars_a_month: Some(prices[3]),
            }),
            s3_reads: Some(S3Reads {
                region: Some(region()),
                requests: 3,
                dollars: Some(prices[2]),
            }),
            ..AwsUse::default()
        };
        aws.calls.add(Service::S3, "GetObject", 3);
        let memory = crate::engine::Resources { threads: 1, memory: 64 << 20 }
            .split(&Default::default())
            .expect("memory");
        let json = with_plan(json!({}), &memory, None, &aws, &Existing::None);
        let mut text = SafeText::from("a plan".to_owned());
        add_aws(&mut text, &aws);
        let text = text.as_str().to_owned();
        for (member, price) in [
            (&json["Ebs"]["UsDollars"], "$0.0001"),
            (&json["S3"]["UsDollars"], "$0.6145"),
            (&json["S3Reads"]["UsDollars"], "$0.0001"),
            (&json["S3"]["UsDollarsAMonth"], "$117.7601"),
        ] {
            let shown: f64 = price[1..].parse().expect("a number");
            assert_eq!(member.as_f64(), Some(shown));
            assert!(text.contains(price), "{price} in {text}");
        }
        assert!(!text.contains("$0.0000"), "{text}");
    }
}
