//! The difference between the metadata of two images.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::ImageDocument;

/// The top-level members of a document whose members are compared one by one.
const OWNERS: [&str; 2] = ["Image", "ImageAttributes"];

/// The names of the members that differ, sorted: `Image.Tags`, `snap-....Description`, or the name
/// of a top-level member. Lists whose items have a key or a device name have no order. `counts`
/// decides whether a member is compared, by its name and its owner: `Image`, `ImageAttributes`, a
/// snapshot id, or an empty text for a top-level member.
pub fn changed_members(
    archived: &ImageDocument,
    here: &ImageDocument,
    counts: impl Fn(&str, &str) -> bool,
) -> Vec<String> {
    let (archived, here) = (members(archived, &counts), members(here, &counts));
    let names: BTreeSet<&String> = archived.keys().chain(here.keys()).collect();
    let changed = names.into_iter().filter(|name| archived.get(*name) != here.get(*name));
    changed.cloned().collect()
}

fn members(
    document: &ImageDocument,
    counts: &impl Fn(&str, &str) -> bool,
) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    let mut add_all = |owner: &str, value: &Value| {
        let own = value.as_object().into_iter().flatten();
        for (name, value) in own.filter(|(name, _)| counts(owner, name)) {
            found.insert(format!("{owner}.{name}"), in_order(value));
        }
    };
    let top = document.value().as_object();
    for (name, value) in top.into_iter().flatten() {
        if OWNERS.contains(&name.as_str()) {
            add_all(name, value);
        } else if name == "Snapshots" {
            for snapshot in value.as_array().into_iter().flatten() {
                add_all(text(snapshot, "SnapshotId").unwrap_or_default(), snapshot);
            }
        }
    }
    let is_plain = |name: &str| name != "Snapshots" && !OWNERS.contains(&name);
    for (name, value) in top.into_iter().flatten() {
        if is_plain(name) && counts("", name) {
            found.insert(name.clone(), in_order(value));
        }
    }
    found
}

/// The value, with its items sorted by key or device name.
fn in_order(value: &Value) -> Value {
    let mut value = value.clone();
    if let Some(items) = value.as_array_mut() {
        items.sort_by_key(|item| {
            text(item, "Key").or_else(|| text(item, "DeviceName")).map(ToOwned::to_owned)
        });
    }
    value
}

fn text<'a>(value: &'a Value, member: &str) -> Option<&'a str> {
    value.get(member).and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_that_differ_are_named_and_the_order_of_tags_is_none() {
        let document = |tags: &str, state: &str, more: &str| {
            let text = format!(
                r#"{{"Image": {{"ImageId": "ami-01234567", "Tags": {tags}}}, "Top": 1,
                    "Snapshots": [{{"SnapshotId": "snap-a", "State": "{state}"}}]{more}}}"#
            );
            ImageDocument::parse(text.into_bytes()).expect("a document")
        };
        let (one, two) = (r#"{"Key":"a","Value":"1"}"#, r#"{"Key":"b","Value":"2"}"#);
        let here = document(&format!("[{one},{two}]"), "completed", "");
        let all = |_: &str, _: &str| true;
        let again = document(&format!("[{two},{one}]"), "completed", "");
        assert_eq!(changed_members(&again, &here, all), [""; 0]);
        let other = document(&format!("[{one}]"), "pending", r#", "New": 2"#);
        assert_eq!(changed_members(&other, &here, all), ["Image.Tags", "New", "snap-a.State"]);
        let lasting = |owner: &str, name: &str| !owner.is_empty() && name != "State";
        assert_eq!(changed_members(&other, &here, lasting), ["Image.Tags"]);
    }
}
