//! Results as text for people. Not an interface: scripts use JSON.

use super::safe_text::SafeText;
use crate::base::{BLOCK_BYTES, Error, hex, human_bytes};
use crate::engine::Depth;
use crate::format::{Footer, VolumeEntry};
use crate::image::ImageDocument;
use crate::ops::{
    Copied, CopyProof, Extracted, Inspection, Leftover, MapCell, Restored, StoreOutcome, Stored,
    Verified, VolumeInspection,
};

/// Cells of a map in one line.
const MAP_WIDTH: usize = 64;

fn add_digests(text: &mut SafeText, footer: &Footer) {
    text.line(format_args!("  root     {}", hex(&footer.root)));
    text.line(format_args!("  content  {}", hex(&footer.content_root)));
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

pub(in super::super) fn stored_text(stored: &Stored, archive: &str) -> SafeText {
    let name = name_of(stored.image_id.as_deref());
    let mut text = SafeText::new();
    match &stored.outcome {
        StoreOutcome::Made(pack) => {
            let len = human_bytes(pack.archive_len);
            text.line(format_args!("stored {name} as {archive} ({len})"));
            for report in &pack.volumes {
                text.line(format_args!("  {}", volume_line(&report.entry, report.stored)));
            }
            add_digests(&mut text, &pack.footer);
        }
        StoreOutcome::Present { archive_len, footer } => {
            let len = human_bytes(*archive_len);
            text.line(format_args!(
                "{archive} is there already, and holds the same {name} ({len})"
            ));
            text.line("  by its index; its data was not read: `amistore verify` does that");
            add_digests(&mut text, footer);
        }
        StoreOutcome::MetadataChanged { archive_len, footer, changed } => {
            let (len, named) = (human_bytes(*archive_len), named(changed));
            text.line(format_args!(
                "{archive} is there already, and holds the disks of {name} with other \
                 metadata{named} ({len})"
            ));
            add_digests(&mut text, footer);
        }
        StoreOutcome::MetadataUpdated { archive_len, footer, changed, sent_whole } => {
            let (len, named) = (human_bytes(*archive_len), named(changed));
            text.line(format_args!("updated the metadata{named} of {name} in {archive} ({len})"));
            match sent_whole {
                Some(reason) => text.line(format_args!("  sent as a whole: {reason}")),
                None => text.line("  the disks were not sent again"),
            }
            add_digests(&mut text, footer);
        }
    }
    text
}

pub(in super::super) fn copied_text(
    copied: &Copied,
    from: &str,
    to: &str,
    dry_run: bool,
) -> SafeText {
    let name = name_of(copied.image_id.as_deref());
    let len = human_bytes(copied.archive_len);
    let mut text = SafeText::from(match (dry_run, copied.present) {
        (true, _) => format!("would copy {name} from {from} to {to} ({len})"),
        (false, true) => format!("{to} is there already, and is the same archive ({len})"),
        (false, false) => format!("copied {name} from {from} to {to} ({len})"),
    });
    if !dry_run {
        text.line(format_args!("  {}", proof_line(copied.proof)));
    }
    add_digests(&mut text, &copied.footer);
    text
}

/// A sentence about the evidence for a copy.
fn proof_line(proof: CopyProof) -> &'static str {
    match proof {
        CopyProof::Digests(Depth::Stored) => {
            "every stored byte matched its digest; no block was inflated: `amistore verify` does \
             that"
        }
        CopyProof::Digests(Depth::Blocks) => "every stored byte and every block matched its digest",
        CopyProof::Service => {
            "the service copied it, and the root is the same; its data was not read: \
             `amistore verify` does that"
        }
        CopyProof::Root => "by its root; its data was not read: `amistore verify` does that",
    }
}

pub(in super::super) fn cleaned_text(found: &[Leftover], removes: bool) -> SafeText {
    if found.is_empty() {
        return "nothing was left behind".to_owned().into();
    }
    let one = |leftover: &Leftover| {
        let verb = if leftover.removed { "removed " } else { "" };
        let id = leftover.upload_id.as_ref().map(|id| format!(", upload {id}")).unwrap_or_default();
        let whose = if leftover.ours { "" } else { ", not remembered here" };
        format!(
            "{verb}{} {}, begun {}{id}{whose}",
            leftover.what, leftover.location, leftover.begun
        )
    };
    let mut text: SafeText = found.iter().map(one).collect();
    if !removes {
        text.line("nothing was removed: --abort does that");
    } else if found.iter().any(|leftover| !leftover.removed && !leftover.ours) {
        text.line("what is not remembered here was left alone: --others removes it as well");
    }
    text
}

/// The names of members in parentheses; nothing if there are none.
pub(super) fn named(members: &[String]) -> String {
    if members.is_empty() { String::new() } else { format!(" ({})", members.join(", ")) }
}

pub(super) fn name_of(image_id: Option<&str>) -> &str {
    image_id.unwrap_or("bare snapshots")
}

pub(super) fn restored_text(restored: &Restored, target: &str, dry_run: bool) -> SafeText {
    let verb = if dry_run { "would restore" } else { "restored" };
    let mut text = SafeText::new();
    text.line(format_args!("{verb} {} to {target}", name_of(restored.image_id.as_deref())));
    for volume in &restored.volumes {
        let allocated = human_bytes((volume.blocks * BLOCK_BYTES).min(volume.size.bytes()));
        let (file, size) = (volume.id.file_name(), human_bytes(volume.size.bytes()));
        text.line(format_args!("  {file}  {size}, {allocated} written"));
    }
    add_digests(&mut text, &restored.footer);
    text
}

pub(in super::super) fn verified_text(verified: &Verified, archive: &str) -> SafeText {
    if verified.is_ok() {
        let what = format!("{} blocks in {} cells", verified.blocks, verified.cells);
        let extent = match verified.depth {
            Depth::Blocks if verified.sampled => "checked, a sample",
            Depth::Blocks => "checked",
            Depth::Stored => "checked as they are stored, not inflated",
        };
        let mut text = SafeText::from(format!("ok {archive}: {what} {extent}"));
        if let Some(footer) = &verified.footer {
            add_digests(&mut text, footer);
        }
        return text;
    }
    let word = match (verified.has_other_root, verified.differs) {
        (true, _) => "other root",
        (false, true) => "different",
        (false, false) => "corrupt",
    };
    let mut text: SafeText =
        verified.findings.iter().map(|finding| finding_line(word, finding)).collect();
    if verified.more_findings > 0 {
        text.line(format_args!("{word}: and {} more", verified.more_findings));
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
    format!("{word}: {}{causes}{facts}", finding.message())
}

pub(in super::super) fn extracted_text(
    extracted: &Extracted,
    file: &str,
    dry_run: bool,
    bytes_read: u64,
) -> SafeText {
    let verb = if dry_run { "would extract" } else { "extracted" };
    let id = &extracted.id;
    let (range, len) = match extracted.range {
        Some(range) => (format!("{} bytes from offset {} of ", range.len, range.offset), range.len),
        None => (String::new(), extracted.size.bytes()),
    };
    let (size, allocated, read) =
        (human_bytes(len), human_bytes(extracted.allocated), human_bytes(bytes_read));
    format!("{verb} {range}{id} to {file}: {size}, {allocated} written, {read} of the archive read")
        .into()
}

pub(in super::super) fn metadata_text(file: &str, dry_run: bool, len: usize) -> SafeText {
    let verb = if dry_run { "would extract" } else { "extracted" };
    format!("{verb} image.json to {file}: {len} bytes").into()
}

pub(in super::super) fn inspection_text(inspection: &Inspection, archive: &str) -> SafeText {
    let document = &inspection.document;
    let mut text = SafeText::from(format!("{archive}  ({})", human_bytes(inspection.archive_len)));
    let codec = &inspection.codec;
    let format = crate::format::layout::FORMAT_VERSION;
    text.line(format_args!(
        "  format   amibin {format}, {} {} level {}, made by {}",
        codec.name, codec.lib, codec.level, inspection.writer
    ));
    add_digests(&mut text, &inspection.footer);
    if let Some(image_id) = document.image_id() {
        text.blank();
        text.line(format_args!("image {image_id}"));
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
                text.line(format_args!("  {member:<18}  {value}"));
            }
        }
        add_mappings(&mut text, document);
    }
    for volume in &inspection.volumes {
        text.blank();
        text.line(volume_line(&volume.entry, volume.stored));
        add_map(&mut text, volume);
    }
    text
}

fn add_mappings(text: &mut SafeText, document: &ImageDocument) {
    for mapping in document.mappings() {
        let what = mapping.snapshot.as_ref().map_or("no snapshot", |snapshot| snapshot.as_str());
        text.line(format_args!("  {:<18}  {what}", mapping.device.as_str()));
    }
}

fn add_map(text: &mut SafeText, volume: &VolumeInspection) {
    if volume.map.is_empty() {
        return;
    }
    for cells in volume.map.chunks(MAP_WIDTH) {
        text.line(format_args!("  |{}|", cells.iter().copied().map(shade).collect::<String>()));
    }
    let part = human_bytes(volume.entry.size.bytes() / volume.map.len() as u64);
    text.line(format_args!(
        "   each character {part}: # full of data, + half, - little, 0 zeros only, . nothing"
    ));
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
