//! Descriptions of images and snapshots by EC2.

use std::time::Duration;

use serde_json::Value;

use super::Ec2Connection;
use crate::aws::ec2_query::Params;
use crate::base::{Error, ErrorCode, ErrorKind, ImageId, Result, SnapshotId};

/// Number of polls for which EC2 may not know a new resource (EC2 developer guide, "Eventual
/// consistency").
const UNKNOWN_FOR: u32 = 60;
/// Snapshots of one request. EC2 allows more, but refuses the whole request for one unknown id.
const SNAPSHOTS: usize = 200;

/// The items of a list in an answer.
pub(super) fn items<'a>(answer: &'a Value, member: &str) -> &'a [Value] {
    answer.get(member).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A text in an answer.
pub(super) fn text<'a>(value: &'a Value, member: &str) -> Option<&'a str> {
    value.get(member).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// The tags of an image or snapshot, as keys and values.
pub(super) fn tags(value: &Value) -> Vec<(String, String)> {
    let tag = |tag: &Value| {
        Some((
            text(tag, "Key")?.to_owned(),
            tag.get("Value").and_then(Value::as_str).unwrap_or_default().to_owned(),
        ))
    };
    items(value, "Tags").iter().filter_map(tag).collect()
}

/// Tags as parameters of a request.
pub(super) fn tag_params(tags: &[(String, String)]) -> Vec<Params> {
    tags.iter().map(|(key, value)| Params::new().set("Key", key).set("Value", value)).collect()
}

/// The snapshots of the devices of an image, in the order of the devices; the snapshot of several
/// devices occurs several times.
pub(super) fn snapshots_of(image: &Value) -> impl Iterator<Item = &str> {
    items(image, "BlockDeviceMappings")
        .iter()
        .filter_map(|mapping| text(mapping.get("Ebs")?, "SnapshotId"))
}

/// Describes an image, disabled and deprecated ones included.
pub(super) fn image(ec2: &Ec2Connection, id: &ImageId) -> Result<Value> {
    let params = Params::new()
        .list("ImageId", [id])
        .set("IncludeDisabled", true)
        .set("IncludeDeprecated", true);
    let answer = ec2
        .call("cannot describe the image", "DescribeImages", params)
        .map_err(|error| error.at("image_id", id))?;
    let missing = || {
        Error::new(
            ErrorKind::NotFound,
            "there is no such image in this Region, or it is not shared with this account",
        )
        .code_as(ErrorCode::ImageNotShared)
    };
    items(&answer, "Images").first().cloned().ok_or_else(|| missing().at("image_id", id))
}

/// Describes a new image, which EC2 may not know for a while.
pub(super) fn new_image(ec2: &Ec2Connection, id: &ImageId) -> Result<Value> {
    let mut left = UNKNOWN_FOR;
    loop {
        match image(ec2, id) {
            Err(error) if error.kind() == ErrorKind::NotFound && left > 0 => {
                left -= 1;
                ec2.pause(Duration::from_secs(1))?;
            }
            described => return described,
        }
    }
}

/// The image of this name that the account owns, if there is one.
pub(super) fn image_named(ec2: &Ec2Connection, name: &str) -> Result<Option<Value>> {
    let filter = Params::new().set("Name", "name").list("Value", [escape_filter(name)]);
    let params = Params::new()
        .list("Owner", ["self"])
        .structures("Filter", [filter])
        .set("IncludeDisabled", true)
        .set("IncludeDeprecated", true);
    find(
        ec2,
        "cannot look for an image of this name",
        ("DescribeImages", "Images"),
        params,
        |image| text(image, "Name") == Some(name),
    )
}

/// The first item of a list for which `is_it` holds.
fn find(
    ec2: &Ec2Connection,
    doing: &'static str,
    (action, member): (&'static str, &'static str),
    params: Params,
    is_it: impl Fn(&Value) -> bool,
) -> Result<Option<Value>> {
    let mut found = None;
    pages(ec2, doing, action, params, |answer| {
        found = items(answer, member).iter().find(|item| is_it(item)).cloned();
        found.is_none()
    })?;
    Ok(found)
}

/// Requests the pages of a list while `goes_on` returns true. Pages may be empty although others
/// follow.
pub(super) fn pages(
    ec2: &Ec2Connection,
    doing: &'static str,
    action: &'static str,
    params: Params,
    mut goes_on: impl FnMut(&Value) -> bool,
) -> Result<()> {
    let mut token: Option<String> = None;
    loop {
        let answer =
            ec2.call(doing, action, params.clone().set_some("NextToken", token.as_ref()))?;
        match text(&answer, "NextToken") {
            Some(next) if goes_on(&answer) => token = Some(next.to_owned()),
            Some(_) => return Ok(()),
            None => {
                goes_on(&answer);
                return Ok(());
            }
        }
    }
}

/// A value for a filter, in which `*`, `?` and `\` are wildcards, escaped.
fn escape_filter(value: &str) -> String {
    value
        .chars()
        .flat_map(|c| matches!(c, '*' | '?' | '\\').then_some('\\').into_iter().chain([c]))
        .collect()
}

/// Describes snapshots, in the order of `ids`. A snapshot that does not exist, or is not shared
/// with the account, is `None`.
pub(super) fn snapshots(ec2: &Ec2Connection, ids: &[SnapshotId]) -> Result<Vec<Option<Value>>> {
    let mut found = Vec::new();
    for some in ids.chunks(SNAPSHOTS) {
        match describe_snapshots(ec2, some) {
            Ok(described) => found.extend(described),
            // EC2 refuses the request for one unknown id: describe each by itself.
            Err(error) if is_unknown(&error) && some.len() > 1 => {
                for id in some {
                    match describe_snapshots(ec2, std::slice::from_ref(id)) {
                        Ok(described) => found.extend(described),
                        Err(error) if is_unknown(&error) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            Err(error) if is_unknown(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ids
        .iter()
        .map(|id| {
            found.iter().find(|snapshot| text(snapshot, "SnapshotId") == Some(id.as_str())).cloned()
        })
        .collect())
}

fn describe_snapshots(ec2: &Ec2Connection, ids: &[SnapshotId]) -> Result<Vec<Value>> {
    let params = Params::new().list("SnapshotId", ids);
    let mut found = Vec::new();
    pages(ec2, "cannot describe snapshots", "DescribeSnapshots", params, |answer| {
        found.extend_from_slice(items(answer, "Snapshots"));
        true
    })?;
    Ok(found)
}

/// Fails if these credentials may not describe snapshots.
pub(super) fn may_describe_snapshots(ec2: &Ec2Connection) -> Result<()> {
    let params = Params::new().list("Owner", ["self"]).set("MaxResults", 5);
    ec2.call("cannot describe snapshots", "DescribeSnapshots", params).map(drop)
}

/// The result of a dry run: EC2 answers with an error, whose code is that of success.
pub(super) fn would(answer: Result<Value>) -> Result<()> {
    match answer {
        Err(error) if error.is(ErrorCode::DryRunOperation) => Ok(()),
        answer => answer.map(drop),
    }
}

/// Whether a snapshot is public. The direct APIs do not read public snapshots.
pub(super) fn is_public(ec2: &Ec2Connection, id: &SnapshotId) -> Result<bool> {
    let filter = Params::new().set("Name", "snapshot-id").list("Value", [id]);
    let params = Params::new().list("RestorableBy", ["all"]).structures("Filter", [filter]);
    Ok(find(ec2, "cannot describe snapshots", ("DescribeSnapshots", "Snapshots"), params, |_| {
        true
    })?
    .is_some())
}

/// Whether the resource of a request does not exist, or is not shared with the account.
pub(super) fn is_unknown(error: &Error) -> bool {
    error.kind() == ErrorKind::NotFound
}

/// Requests an attribute of an image or snapshot that is not in its description.
pub(super) fn attribute(
    ec2: &Ec2Connection,
    action: &'static str,
    id: (&str, &str),
    attribute: &str,
) -> Result<Attribute> {
    let params = Params::new().set(id.0, id.1).set("Attribute", attribute);
    match ec2.call("cannot read an attribute", action, params) {
        Ok(answer) => Ok(Attribute::Read(answer)),
        Err(error) if error.is(ErrorCode::UnauthorizedOperation) => Ok(Attribute::Denied),
        // A compatible service may not know the action.
        Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::Unsupported) => {
            Ok(Attribute::OfOwner)
        }
        Err(error) => Err(error.at("attribute", attribute)),
    }
}

/// The result of a request for an attribute.
pub(super) enum Attribute {
    /// The answer.
    Read(Value),
    /// Only the owner may read it, or the service has no such action.
    OfOwner,
    /// The policy of the credentials denies the request.
    Denied,
}

impl Attribute {
    /// The answer, if there is one.
    pub(super) fn answer(self) -> Option<Value> {
        match self {
            Self::Read(answer) => Some(answer),
            Self::OfOwner | Self::Denied => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_in_a_name_are_escaped() {
        assert_eq!(escape_filter(r"a*b?c\d"), r"a\*b\?c\\d");
    }

    #[test]
    fn tags_may_be_empty() {
        let image = serde_json::json!({"Tags": [
            {"Key": "a", "Value": "ä"}, {"Key": "b", "Value": ""}, {"Key": "c"},
        ]});
        assert_eq!(
            tags(&image),
            [("a", "ä"), ("b", ""), ("c", "")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
        );
    }
}
