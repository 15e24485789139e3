//! The three actions: parse parameters, call the service, and write the result as XML.
//!
//! Parameters are checked as strictly as by EC2, so that a script that works here works there. This
//! layer knows neither HTTP nor signatures.

mod arguments;
mod restore;
mod store;
mod tasks;

use super::image_ids::ImageIds;
use super::{Refusal, Service};
use crate::aws::ec2_query::{Params, VERSION, Xml};
use arguments::{Arguments, shown};

/// An action of this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    CreateStore,
    StoreTasks,
    CreateRestore,
}

impl Action {
    pub(super) fn parse(name: &str) -> Option<Self> {
        match name {
            "CreateStoreImageTask" => Some(Self::CreateStore),
            "DescribeStoreImageTasks" => Some(Self::StoreTasks),
            "CreateRestoreImageTask" => Some(Self::CreateRestore),
            _ => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::CreateStore => "CreateStoreImageTask",
            Self::StoreTasks => "DescribeStoreImageTasks",
            Self::CreateRestore => "CreateRestoreImageTask",
        }
    }

    /// Whether EC2 performs the action instead: the restore of an object that only EC2 can restore.
    /// A dry run does not look at objects. Blocks like the service.
    pub(super) fn is_for_ec2(
        self,
        params: &Params,
        service: &dyn Service,
    ) -> Result<bool, Refusal> {
        if self != Self::CreateRestore {
            return Ok(false);
        }
        let mut arguments = Arguments::new(params)?;
        version(params)?;
        let dry_run = arguments.flag("DryRun")?;
        let request = restore::request(arguments)?;
        if dry_run { Ok(false) } else { service.is_foreign(&request) }
    }

    /// Performs the action. Blocks like the service.
    pub(super) fn answer(self, params: &Params, service: &dyn Service) -> Result<Xml, Refusal> {
        let mut arguments = Arguments::new(params)?;
        version(params)?;
        let dry_run = arguments.flag("DryRun")?;
        match self {
            Self::CreateStore => store::answer(arguments, dry_run, service),
            Self::StoreTasks => tasks::answer(arguments, dry_run, service),
            Self::CreateRestore => restore::answer(arguments, dry_run, service),
        }
    }
}

fn version(params: &Params) -> Result<(), Refusal> {
    match params.get("Version") {
        None | Some("") => Err(Refusal::client(
            "MissingParameter",
            "The request must contain the parameter Version",
        )),
        Some(VERSION) => Ok(()),
        Some(other) => {
            let message = format!(
                "The requested version ({}) of service AmazonEC2 does not exist. \
                 Expecting {VERSION}",
                shown(other)
            );
            Err(Refusal::client("NoSuchVersion", message))
        }
    }
}

/// EC2's id of an image that the request names by that id or by a reserved one.
fn image_id(text: &str, image_ids: &mut ImageIds<'_>) -> Result<crate::base::ImageId, Refusal> {
    let id = super::image_ids::parse(text).ok_or_else(|| {
        Refusal::client(
            "InvalidAMIID.Malformed",
            format!("Invalid id: \"{}\" (expecting \"ami-...\")", shown(text)),
        )
    })?;
    image_ids.real(&id)
}

/// Limits of tags: their number, and the lengths of keys and values in UTF-16 units.
struct TagRules {
    most: usize,
    key: usize,
    value: usize,
}

/// Reads `Tag.N.Key` and `Tag.N.Value`. Keys are unique; a missing value is empty.
fn tags(items: Vec<Arguments>, rules: &TagRules) -> Result<Vec<(String, String)>, Refusal> {
    if items.len() > rules.most {
        return Err(Refusal::client(
            "TagLimitExceeded",
            format!("At most {} tags are allowed", rules.most),
        ));
    }
    let mut tags: Vec<(String, String)> = Vec::new();
    for mut item in items {
        let key = item.require("Key")?;
        let value = item.take("Value").unwrap_or_default();
        item.finish()?;
        // AWS counts in UTF-16 units.
        for (what, text, most) in [("key", &key, rules.key), ("value", &value, rules.value)] {
            if text.encode_utf16().count() > most {
                return Err(Refusal::value(format!(
                    "The tag {what} '{}' is longer than {most} characters",
                    shown(text)
                )));
            }
            if text.chars().any(|char| char.is_control() && char != '\t') {
                return Err(Refusal::value(format!(
                    "The tag {what} '{}' has a control character",
                    shown(text)
                )));
            }
        }
        if key.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("aws:")) {
            return Err(Refusal::value(format!(
                "The tag key '{}' begins with aws:, which is reserved",
                shown(&key)
            )));
        }
        if tags.iter().any(|(known, _)| *known == key) {
            return Err(Refusal::value(format!(
                "The tag key '{}' is given more than once",
                shown(&key)
            )));
        }
        tags.push((key, value));
    }
    Ok(tags)
}

/// Checks the name of a bucket: letters, digits, `.`, `_` and `-`. S3-compatible stores allow more
/// than S3.
fn bucket(name: &str) -> Result<(), Refusal> {
    let allowed = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if allowed
        && (3..=255).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
    {
        return Ok(());
    }
    Err(Refusal::value(format!("'{}' is not the name of a bucket", shown(name))))
}

/// The longest key of an object, in bytes.
const MAX_KEY_BYTES: usize = 1024;

fn object_key(key: &str) -> Result<(), Refusal> {
    if key.len() > MAX_KEY_BYTES || key.chars().any(char::is_control) {
        return Err(Refusal::value(format!(
            "'{}' is not a key: at most {MAX_KEY_BYTES} bytes, and no control characters",
            shown(key)
        )));
    }
    Ok(())
}
