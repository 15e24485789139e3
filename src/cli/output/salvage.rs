//! Results of a rescue. The JSON is also the content of `salvage.json`.

use std::path::Path;

use serde_json::{Value, json};

use super::json::{Head, result};
use super::safe_text::SafeText;
use super::text::name_of;
use crate::base::human_bytes;
use crate::engine::{Damage, MissingRange, Salvage, SalvagedVolume};
use crate::ops::file_of;

/// Lines of a list in text; JSON has all.
const MOST_LINES: usize = 20;

/// The target of a rescue.
pub(in super::super) struct SalvageTarget<'a> {
    /// The directory, or the file of a volume.
    pub(in super::super) path: &'a Path,
    pub(in super::super) is_volume: bool,
}

impl SalvageTarget<'_> {
    /// The file of a volume; `None` if it has no block.
    fn file(&self, volume: &SalvagedVolume) -> Option<String> {
        let name = file_of(volume)?;
        Some(if self.is_volume { self.path.display().to_string() } else { name })
    }
}

pub(in super::super) fn salvaged(
    found: &Salvage,
    archive: &str,
    target: &SalvageTarget<'_>,
    dry_run: bool,
) -> Value {
    let range = |range: &MissingRange| {
        json!({
            "Offset": range.offset,
            "Length": range.len,
            "MissingBytes": range.missing,
            "Cause": range.cause,
        })
    };
    let volume = |volume: &SalvagedVolume| {
        json!({
            "SnapshotId": volume.name.as_ref().map(|name| name.as_str()),
            "VolumeIndex": volume.index,
            "File": target.file(volume),
            "VolumeBytes": volume.size.map(crate::base::VolumeSize::bytes),
            "RescuedBytes": volume.rescued,
            "MissingBytes": volume.missing.as_ref().map(|_| volume.missing_bytes()),
            "IsWhole": volume.is_whole(),
            "BlocksProvedBy": {
                "Root": volume.proved_by.root,
                "GroupIndex": volume.proved_by.index,
                "CellRecord": volume.proved_by.record,
                "FrameChecksum": volume.proved_by.checksum,
            },
            "Missing": volume
                .missing
                .as_ref()
                .map(|ranges| ranges.iter().map(range).collect::<Vec<_>>()),
        })
    };
    let damage = |damage: &Damage| json!({"ArchiveOffset": damage.offset, "Cause": damage.cause});
    let image_id = found.document.as_ref().and_then(|document| document.image_id());
    let more = json!({
        "Target": target.path.display().to_string(),
        "ArchiveBytes": found.archive_len,
        "IsWhole": found.is_whole(),
        "HasImageJson": found.document.is_some(),
        "Volumes": found.volumes.iter().map(volume).collect::<Vec<_>>(),
        "Damage": found.damage.iter().map(damage).collect::<Vec<_>>(),
        "DamageCount": found.damage_count,
    });
    let head = Head {
        archive,
        image_id: image_id.map(|id| id.as_str()),
        outcome: if dry_run { "planned" } else { "salvaged" },
        dry_run,
        footer: found.root.as_ref().map(|(_, footer)| footer),
    };
    result(&head, more)
}

pub(in super::super) fn salvaged_text(
    found: &Salvage,
    archive: &str,
    target: &SalvageTarget<'_>,
    dry_run: bool,
) -> SafeText {
    let mut text = SafeText::new();
    let image_id = found.document.as_ref().and_then(|document| document.image_id());
    let verb = if dry_run { "would rescue" } else { "rescued" };
    let name = match (&found.document, image_id) {
        (None, _) => "an image whose metadata is lost",
        (Some(_), id) => name_of(id.map(|id| id.as_str())),
    };
    text.line(format_args!("{verb} {name} from {archive} to {}", target.path.display()));
    for volume in &found.volumes {
        add_volume(&mut text, volume, target);
    }
    for damage in found.damage.iter().take(MOST_LINES) {
        text.line(format_args!("  damage at offset {}: {}", damage.offset, damage.cause));
    }
    let others = found.damage_count.saturating_sub(MOST_LINES as u64);
    if others > 0 {
        text.line(format_args!("  {others} more"));
    }
    text
}

fn add_volume(text: &mut SafeText, volume: &SalvagedVolume, target: &SalvageTarget<'_>) {
    let name = target.file(volume).unwrap_or_else(|| {
        let name = volume.name.as_ref().map_or("a volume without a name", |name| name.as_str());
        format!("{name}, of which nothing is left")
    });
    let size =
        volume.size.map_or_else(|| "size unknown".to_owned(), |size| human_bytes(size.bytes()));
    let rescued = human_bytes(volume.rescued);
    let missing = match &volume.missing {
        None => "the rest is not known".to_owned(),
        Some(ranges) if ranges.is_empty() => "whole".to_owned(),
        Some(ranges) => {
            let bytes = human_bytes(volume.missing_bytes());
            format!("{bytes} missing in {} ranges", ranges.len())
        }
    };
    text.line(format_args!("  {name}  {size}, {rescued} rescued, {missing}"));
    let ranges = volume.missing.iter().flatten();
    for range in ranges.clone().take(MOST_LINES) {
        let (end, bytes) = (range.offset + range.len, human_bytes(range.missing));
        text.line(format_args!(
            "    missing from {} to {end} ({bytes}): {}",
            range.offset, range.cause
        ));
    }
    let others = ranges.count().saturating_sub(MOST_LINES);
    if others > 0 {
        text.line(format_args!("    {others} more ranges, in JSON and salvage.json"));
    }
}
