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

/// The report on the encryption of a restored snapshot, which is `encrypted`; `None` if the archive
/// does not record it.
pub(super) fn encryption_item(
    document: &ImageDocument,
    id: &SnapshotId,
    encrypted: bool,
) -> Option<FidelityItem> {
    let recorded = described(document, id).get("Encrypted").filter(|value| value.is_boolean())?;
    let (subject, attribute) = (id.as_str(), "Encrypted");
    Some(if *recorded == json!(encrypted) {
        FidelityItem::set(subject, attribute, recorded)
    } else {
        let why = "by an option, or by the account's default";
        FidelityItem::changed(subject, attribute, recorded, json!(encrypted), why)
    })
}
