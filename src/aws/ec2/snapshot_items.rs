//! Tags of a restored snapshot, and the report on its attributes.

use serde_json::{Value, json};

use super::describe::{items, tags, text};
use super::edits::Edits;
use super::fidelity::FidelityItem;
use super::registration::restored_tags;
use crate::base::SnapshotId;
use crate::image::ImageDocument;

/// EC2 takes 256 characters in the value of a tag, StartSnapshot 255.
const LONGEST_TAG_OF_START: usize = 255;

/// The archived description of a snapshot; null if there is none.
pub(super) fn described<'a>(document: &'a ImageDocument, id: &SnapshotId) -> &'a Value {
    items(document.value(), "Snapshots")
        .iter()
        .find(|snapshot| text(snapshot, "SnapshotId") == Some(id.as_str()))
        .unwrap_or(&Value::Null)
}

/// The tags that the snapshot gets, and the report on its description and on its recorded tags.
pub(super) fn snapshot_tags(
    document: &ImageDocument,
    id: &SnapshotId,
    edits: &Edits,
) -> (Vec<(String, String)>, Vec<FidelityItem>) {
    let described = described(document, id);
    let description = text(described, "Description")
        .map(|text| FidelityItem::set(id.as_str(), "Description", &json!(text)));
    let (tags, items) =
        restored_tags(id.as_str(), &tags(described), &edits.tags_of_snapshots(), edits.no_tags);
    (tags, description.into_iter().chain(items).collect())
}

/// Whether StartSnapshot takes the value of a tag; longer values are set later.
pub(super) fn fits_start(value: &str) -> bool {
    value.chars().count() <= LONGEST_TAG_OF_START
}

/// Whether the snapshot was encrypted: by its description, or by that of a device; `None` if the
/// archive does not record it.
pub(super) fn was_encrypted(document: &ImageDocument, id: &SnapshotId) -> Option<bool> {
    let recorded = described(document, id).get("Encrypted").and_then(Value::as_bool);
    let image = document.value().get("Image").unwrap_or(&Value::Null);
    let of_devices = items(image, "BlockDeviceMappings")
        .iter()
        .filter_map(|mapping| mapping.get("Ebs"))
        .filter(|ebs| text(ebs, "SnapshotId") == Some(id.as_str()))
        .filter_map(|ebs| ebs.get("Encrypted").and_then(Value::as_bool));
    recorded.into_iter().chain(of_devices).max()
}

/// The report on the encryption of a restored snapshot, which is `encrypted`; `None` if the archive
/// does not record it.
pub(super) fn encryption_item(
    document: &ImageDocument,
    id: &SnapshotId,
    encrypted: bool,
) -> Option<FidelityItem> {
    let was = was_encrypted(document, id)?;
    let (subject, attribute, recorded) = (id.as_str(), "Encrypted", json!(was));
    Some(if was == encrypted {
        FidelityItem::set(subject, attribute, &recorded)
    } else {
        let why = "by an option, or by the account's default";
        FidelityItem::changed(subject, attribute, &recorded, json!(encrypted), why)
    })
}
