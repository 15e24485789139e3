//! Results as text for people. Not an interface: scripts use JSON.

use crate::base::{BLOCK_BYTES, Error, TaskState, hex, human_bytes, rfc3339};
use crate::format::{Footer, VolumeEntry};
use crate::image::ImageDocument;
use crate::object::Listed;
use crate::ops::{
    Copied, Extracted, Inspection, Leftover, ListedTask, MapCell, Restored, StoreOutcome, Stored,
    TaskProgress, Verified, VolumeInspection, shell_line,
};
use crate::taskdb::{Origin, TaskRow};

/// Cells of a map in one line.
const MAP_WIDTH: usize = 64;

fn digests(footer: &Footer) -> String {
    format!("  root     {}\n  content  {}\n", hex(&footer.root), hex(&footer.content_root))
}

fn allocated(entry: &VolumeEntry) -> u64 {
    ((entry.blocks - entry.fill) * BLOCK_BYTES).min(entry.size.bytes())
}

fn volume_line(entry: &VolumeEntry, stored: u64) -> String {
    let allocated = allocated(entry);
    let ratio = if stored == 0 {
        String::new()
    } else {
        format!(" ({:.2}x)", allocated as f64 / stored as f64)
    };
    let zero = (entry.zero - entry.fill) * BLOCK_BYTES;
    let zero = if zero == 0 { String::new() } else { format!(", {} zero", human_bytes(zero)) };
    format!(
        "{}  {}, {} allocated{zero}, {} stored{ratio}",
        entry.name,
        human_bytes(entry.size.bytes()),
        human_bytes(allocated),
        human_bytes(stored)
    )
}

pub(in super::super) fn stored_text(stored: &Stored, archive: &str) -> String {
    let name = name_of(stored.image_id.as_deref());
    match &stored.outcome {
        StoreOutcome::Made(pack) => {
            let mut text =
                format!("stored {name} as {archive} ({})\n", human_bytes(pack.archive_len));
            for report in &pack.volumes {
                text.push_str(&format!("  {}\n", volume_line(&report.entry, report.stored)));
            }
            text + &digests(&pack.footer)
        }
        StoreOutcome::Present { archive_len, footer } => {
            let len = human_bytes(*archive_len);
            let unread = "  by its index; its data was not read: `amistore verify` does that\n";
            format!("{archive} is there already, and holds the same {name} ({len})\n{unread}")
                + &digests(footer)
        }
    }
}

pub(in super::super) fn copied_text(
    copied: &Copied,
    from: &str,
    to: &str,
    dry_run: bool,
) -> String {
    let name = name_of(copied.image_id.as_deref());
    let len = human_bytes(copied.archive_len);
    let line = match (dry_run, copied.present) {
        (true, _) => format!("would copy {name} from {from} to {to} ({len})\n"),
        (false, true) => format!("{to} is there already, and is the same archive ({len})\n"),
        (false, false) => format!("copied {name} from {from} to {to} ({len})\n"),
    };
    line + &digests(&copied.footer)
}

pub(in super::super) fn listed_text(found: &Listed) -> String {
    let metadata = |name: &str| found.metadata.get(name).map_or("-", |value| value.as_str());
    let class = found
        .storage_class
        .as_deref()
        .filter(|class| *class != "STANDARD")
        .map(|class| format!("  [{class}]"))
        .unwrap_or_default();
    let (name, owner) = (printable(metadata("ami-name")), printable(metadata("ami-owner-account")));
    format!(
        "{}  {:>9}  {:<12}  {}  {name}{class}\n",
        found.modified,
        human_bytes(found.len),
        owner,
        printable(&found.key)
    )
}

pub(in super::super) fn tasks_text(found: &[ListedTask]) -> String {
    if found.is_empty() {
        return "no tasks\n".to_owned();
    }
    let one = |entry: &ListedTask| match entry {
        ListedTask::Unfinished(task, row) => unfinished_text(task, row.as_ref()),
        ListedTask::Recorded(row) => recorded_text(row),
    };
    found.iter().map(one).collect()
}

fn unfinished_text(task: &TaskProgress, row: Option<&TaskRow>) -> String {
    let header = &task.entry.header;
    let waits = row.and_then(TaskRow::waits_for);
    let state = match waits {
        Some(waits) => format!("waits for {}", printable(waits)),
        None if task.state == TaskState::InProgress => "running".to_owned(),
        None => {
            let reason = task.reason.as_deref().unwrap_or("the process ended without a word");
            format!("interrupted: {}", printable(reason))
        }
    };
    let name = name_of(header.image_id.as_deref());
    // The server reports the percentage of the row.
    let percent = row.map_or(task.percent, |row| row.percent);
    let mut text = format!(
        "{} {name} to {}, begun {}, {percent} %, {state}\n",
        header.kind.name(),
        header.target,
        header.started
    );
    if waits.is_some() || task.state == TaskState::InProgress {
        return text;
    }
    if row.is_some_and(|row| row.task.origin == Origin::Server) {
        text.push_str("  continue with: the same request to the server\n");
    } else {
        text.push_str(&format!(
            "  continue with: cd {} && {}\n",
            shell_line(std::slice::from_ref(&header.directory)),
            shell_line(&header.command)
        ));
    }
    text
}

fn recorded_text(row: &TaskRow) -> String {
    let task = &row.task;
    let name = name_of(task.image_id.as_deref());
    let begun =
        format!("{} {name} to {}, begun {}", task.kind.name(), task.target, rfc3339(row.started));
    let made = row.restored_id.as_ref().map(|id| format!(" as {id}")).unwrap_or_default();
    match row.state {
        TaskState::Queued => {
            format!("{begun}, waits for {}\n", printable(row.waits_for().unwrap_or_default()))
        }
        TaskState::InProgress => format!("{begun}, {} %, running\n", row.percent),
        TaskState::Completed => {
            format!("{begun}, completed {}{made}\n", row.ended.map(rfc3339).unwrap_or_default())
        }
        TaskState::Failed => {
            format!(
                "{begun}, {} %, failed: {}\n",
                row.percent,
                printable(row.reason.as_deref().unwrap_or("no reason is given"))
            )
        }
    }
}

pub(in super::super) fn cleaned_text(found: &[Leftover], asked: bool) -> String {
    if found.is_empty() {
        return "nothing was left behind\n".to_owned();
    }
    let one = |leftover: &Leftover| {
        let verb = if leftover.removed { "removed " } else { "" };
        let id = leftover.upload_id.as_ref().map(|id| format!(", upload {id}")).unwrap_or_default();
        let whose = if leftover.ours { "" } else { ", not remembered here" };
        format!(
            "{verb}{} {}, begun {}{id}{whose}\n",
            leftover.what, leftover.location, leftover.begun
        )
    };
    let mut text: String = found.iter().map(one).collect();
    if !asked {
        text.push_str("nothing was removed: --abort does that\n");
    } else if found.iter().any(|leftover| !leftover.removed && !leftover.ours) {
        text.push_str("what is not remembered here was left alone: --others removes it as well\n");
    }
    text
}

pub(super) fn name_of(image_id: Option<&str>) -> &str {
    image_id.unwrap_or("bare snapshots")
}

pub(super) fn restored_text(restored: &Restored, target: &str, dry_run: bool) -> String {
    let verb = if dry_run { "would restore" } else { "restored" };
    let mut text = format!("{verb} {} to {target}\n", name_of(restored.image_id.as_deref()));
    for volume in &restored.volumes {
        let allocated = human_bytes((volume.blocks * BLOCK_BYTES).min(volume.size.bytes()));
        text.push_str(&format!(
            "  {}  {}, {allocated} written\n",
            volume.id.file_name(),
            human_bytes(volume.size.bytes())
        ));
    }
    text + &digests(&restored.footer)
}

pub(in super::super) fn verified_text(verified: &Verified, archive: &str) -> String {
    if verified.is_ok() {
        let what = format!("{} blocks in {} cells", verified.blocks, verified.cells);
        let sampled = if verified.sampled { ", a sample" } else { "" };
        return format!("ok {archive}: {what} checked{sampled}\n")
            + &verified.footer.as_ref().map(digests).unwrap_or_default();
    }
    let word = if verified.differs { "different" } else { "corrupt" };
    let mut text: String =
        verified.findings.iter().map(|finding| finding_line(word, finding)).collect();
    if verified.more_findings > 0 {
        text.push_str(&format!("{word}: and {} more\n", verified.more_findings));
    }
    text
}

fn finding_line(word: &str, finding: &Error) -> String {
    let facts: Vec<String> = finding
        .context()
        .iter()
        .filter(|(key, _)| *key != "archive")
        .map(|(key, value)| format!("{key} {value}"))
        .collect();
    let causes: String = finding.causes().iter().map(|cause| format!(": {cause}")).collect();
    let facts = if facts.is_empty() { String::new() } else { format!(" ({})", facts.join(", ")) };
    format!("{word}: {}{causes}{facts}\n", finding.message())
}

pub(in super::super) fn extracted_text(
    extracted: &Extracted,
    file: &str,
    dry_run: bool,
    bytes_read: u64,
) -> String {
    let verb = if dry_run { "would extract" } else { "extracted" };
    let id = &extracted.id;
    let (range, len) = match extracted.range {
        Some(range) => (format!("{} bytes from offset {} of ", range.len, range.offset), range.len),
        None => (String::new(), extracted.size.bytes()),
    };
    let (size, allocated, read) =
        (human_bytes(len), human_bytes(extracted.allocated), human_bytes(bytes_read));
    format!(
        "{verb} {range}{id} to {file}: {size}, {allocated} written, {read} of the archive read\n"
    )
}

pub(in super::super) fn metadata_text(file: &str, dry_run: bool, len: usize) -> String {
    let verb = if dry_run { "would extract" } else { "extracted" };
    format!("{verb} image.json to {file}: {len} bytes\n")
}

pub(in super::super) fn inspection_text(inspection: &Inspection, archive: &str) -> String {
    let document = &inspection.document;
    let mut text = format!("{archive}  ({})\n", human_bytes(inspection.archive_len));
    let codec = &inspection.codec;
    let format = crate::format::layout::FORMAT_VERSION;
    text.push_str(&format!(
        "  format   amibin {format}, {} {} level {}, made by {}\n",
        codec.name,
        codec.lib,
        codec.level,
        printable(&inspection.writer)
    ));
    text += &digests(&inspection.footer);
    if let Some(image_id) = document.image_id() {
        text.push_str(&format!("\nimage {image_id}\n"));
        let image = &document.value()["Image"];
        for member in [
            "Name",
            "Description",
            "Architecture",
            "BootMode",
            "VirtualizationType",
            "RootDeviceName",
            "CreationDate",
            "OwnerId",
        ] {
            if let Some(value) = image[member].as_str().filter(|value| !value.is_empty()) {
                text.push_str(&format!("  {member:<18}  {}\n", printable(value)));
            }
        }
        text += &mappings(document);
    }
    for volume in &inspection.volumes {
        text.push_str(&format!("\n{}\n", volume_line(&volume.entry, volume.stored)));
        text += &map(volume);
    }
    text
}

fn mappings(document: &ImageDocument) -> String {
    let line = |mapping: &crate::image::Mapping| {
        let what = mapping.snapshot.as_ref().map_or("no snapshot", |snapshot| snapshot.as_str());
        format!("  {:<18}  {what}\n", mapping.device.as_str())
    };
    document.mappings().iter().map(line).collect()
}

/// Text of an archive on a terminal: nothing that could move the cursor.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect()
}

fn map(volume: &VolumeInspection) -> String {
    let lines: Vec<String> = volume
        .map
        .chunks(MAP_WIDTH)
        .map(|cells| format!("  |{}|\n", cells.iter().copied().map(shade).collect::<String>()))
        .collect();
    if lines.is_empty() {
        return String::new();
    }
    let part = human_bytes(volume.entry.size.bytes() / volume.map.len() as u64);
    lines.concat()
        + &format!(
            "   each character {part}: # full of data, + half, - little, 0 zeros only, . nothing\n"
        )
}

/// ASCII, because the terminal's character set is not known.
fn shade(cell: MapCell) -> char {
    match cell.data {
        data if data > 0.66 => '#',
        data if data > 0.33 => '+',
        data if data > 0.0 => '-',
        _ if cell.zero > 0.0 => '0',
        _ => '.',
    }
}
