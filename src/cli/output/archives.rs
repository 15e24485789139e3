//! The archives of a store as a table and as JSON.

use serde_json::{Value, json};

use super::safe_text::SafeText;
use super::table::{Align, Table};
use crate::base::human_bytes;
use crate::engine::CONTENT_METADATA;
use crate::ops::ListedObject;

/// Archives with their roots, and the URL of a key in their store.
pub(in super::super) fn listed(
    found: &[ListedObject],
    roots: &[Option<String>],
    url: &dyn Fn(&str) -> String,
) -> Value {
    let one = |(found, root): (&ListedObject, &Option<String>)| {
        let ListedObject { listed, is_archive, .. } = found;
        let metadata = |name: &str| listed.metadata.get(name);
        json!({
            "Archive": url(&listed.key),
            "S3objectKey": listed.key,
            "ArchiveBytes": listed.len,
            "IsArchive": is_archive,
            "LastModified": listed.modified,
            "StorageClass": listed.storage_class,
            "AmiName": metadata("ami-name"),
            "AmiDescription": metadata("ami-description"),
            "AmiOwnerAccount": metadata("ami-owner-account"),
            "AmiRegistrationDate": metadata("ami-registration-date"),
            "AmiStoreDate": metadata("ami-store-date"),
            "RootSha256": root,
            "ContentSha256": metadata(CONTENT_METADATA),
            "Metadata": listed.metadata,
        })
    };
    json!({
        "Outcome": "listed",
        "DryRun": false,
        "Archives": found.iter().zip(roots).map(one).collect::<Vec<_>>(),
    })
}

/// A table; nothing where there are no archives.
pub(in super::super) fn listed_text(found: &[ListedObject], roots: &[Option<String>]) -> SafeText {
    if found.is_empty() {
        return SafeText::new();
    }
    let mut table = Table::new([
        ("MODIFIED", Align::Left),
        ("SIZE", Align::Right),
        ("OWNER", Align::Left),
        ("CLASS", Align::Left),
        ("KEY", Align::Left),
        ("NAME", Align::Left),
        ("ROOT", Align::Left),
    ]);
    for (ListedObject { listed, is_archive, .. }, root) in found.iter().zip(roots) {
        let metadata = |name: &str| listed.metadata.get(name).map_or("-", String::as_str);
        table.row([
            listed.modified.clone(),
            human_bytes(listed.len),
            metadata("ami-owner-account").to_owned(),
            listed.storage_class.clone().unwrap_or_else(|| "-".to_owned()),
            listed.key.clone(),
            match is_archive {
                Some(false) => format!("{} [no archive of amistore]", metadata("ami-name")),
                _ => metadata("ami-name").to_owned(),
            },
            root.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    table.text()
}
