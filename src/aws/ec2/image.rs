//! An image in EC2, or bare snapshots, as a source.
//!
//! The reasons that prevent a store are looked for before the first block is read. One error names
//! all of them, each with its remedy.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::super::ebs::{EbsConnection, EbsSource, Quotas};
use super::super::in_parallel::{both, each};
use super::super::needs_other_credentials;
use super::describe::{self, Attribute, items, text};
use super::{Ec2Connection, partition_of};
use crate::base::{
    Error, ErrorCode, ErrorKind, Event, ImageId, Observer, Result, SnapshotId, check_image_name,
};
use crate::image::{ImageDocument, ImageMatch, ImageSource, changed_members};
use crate::volume::BlockSource;

/// The source of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ec2Source {
    /// An image.
    Image(ImageId),
    /// Snapshots that need not belong to an image.
    Snapshots(Vec<SnapshotId>),
}

impl Ec2Source {
    /// `ami-…`, `snap-…`, or several snapshots with commas between them; `None` for other text.
    pub fn parse(text: &str) -> Option<Result<Self>> {
        if text.starts_with("ami-") {
            return Some(ImageId::parse(text).map(Self::Image));
        }
        if !text.starts_with("snap-") {
            return None;
        }
        let is_id = |id: &str| {
            let digits = id.strip_prefix("snap-").unwrap_or_default();
            matches!(digits.len(), 8 | 17)
                && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let parse = |id: &str| {
            let wrong = || {
                Error::usage(
                    "not a snapshot id: a snapshot id is `snap-` and 8 or 17 lower-case hex digits",
                )
                .at("snapshot_id", id)
            };
            if is_id(id) { SnapshotId::parse(id) } else { Err(wrong()) }
        };
        Some(text.split(',').map(parse).collect::<Result<Vec<_>>>().map(Self::Snapshots))
    }
}

/// An image in EC2, opened.
pub struct Ec2Image {
    document: ImageDocument,
    volumes: Vec<Arc<dyn BlockSource>>,
    /// The name in the document, if it is not that of the image.
    new_name: Option<String>,
}

/// Properties of an image that can be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExaminedImage {
    /// The name.
    pub name: Option<String>,
    /// Bytes of the volumes.
    pub bytes: u64,
}

impl Ec2Image {
    /// Describes the source, and reads one block of each snapshot to check the permissions. `name`
    /// takes the place of the AMI name.
    pub fn open(
        ec2: &Ec2Connection,
        ebs: &EbsConnection,
        quotas: &Quotas,
        source: &Ec2Source,
        name: Option<&str>,
        observer: &dyn Observer,
    ) -> Result<Self> {
        let region = ec2.region();
        let mut top = Map::new();
        let image = match source {
            Ec2Source::Snapshots(_) if name.is_some() => {
                return Err(Error::usage("bare snapshots have no name: leave out --name"));
            }
            Ec2Source::Snapshots(_) => None,
            Ec2Source::Image(id) => {
                let mut image = describe::image(ec2, id)?;
                if let (Some(name), Some(members)) = (name, image.as_object_mut()) {
                    members.insert("Name".to_owned(), json!(name));
                }
                check_image(&image).map_err(|error| error.at("image_id", id))?;
                Some(image)
            }
        };
        let ids = match source {
            Ec2Source::Snapshots(ids) => ids.clone(),
            Ec2Source::Image(id) => snapshot_ids(image.as_ref().unwrap_or(&Value::Null))
                .map_err(|error| error.at("image_id", id))?,
        };
        let open = |id: &SnapshotId| {
            let source = EbsSource::open(ebs, id, quotas)?;
            source.try_block()?;
            Ok(source)
        };
        // No request needs the answer of another; a snapshot is listed, and then read.
        let image_attributes_of = || match source {
            Ec2Source::Image(id) => each(&IMAGE_ATTRIBUTES, |name| {
                let id = ("ImageId", id.as_str());
                describe::attribute(ec2, "DescribeImageAttribute", id, name)
            }),
            Ec2Source::Snapshots(_) => Ok(Vec::new()),
        };
        let permissions = || {
            each(&ids, |id| {
                let id = ("SnapshotId", id.as_str());
                let name = "createVolumePermission";
                describe::attribute(ec2, "DescribeSnapshotAttribute", id, name)
            })
        };
        let ((attributes, permissions), (described, opened)) = both(
            || both(image_attributes_of, permissions),
            || both(|| describe::snapshots(ec2, &ids), || each(&ids, open)),
        )
        .and_then(|(attributes, snapshots)| Ok((attributes?, snapshots?)))?;
        if let Some(image) = &image {
            warn_of_image(image, observer);
            top.insert("ImageAttributes".to_owned(), image_attributes(attributes?, observer)?);
        }
        let described = described?;
        let opened = for_all(ec2, &ids, &described, opened?)?;
        top.insert("SnapshotAttributes".to_owned(), snapshot_attributes(permissions?, observer)?);
        top.insert("Snapshots".to_owned(), described.into_iter().flatten().collect());
        if let Some(image) = image {
            top.insert("Image".to_owned(), image);
        }
        top.insert(
            "Source".to_owned(),
            json!({"Partition": partition_of(&region).name, "Region": region}),
        );
        top.insert("format".to_owned(), json!("amibin"));
        top.insert("version".to_owned(), json!(1));
        // serde_json's maps are sorted by name, as the format demands.
        let mut bytes = serde_json::to_vec_pretty(&top)
            .map_err(|cause| Error::internal("cannot write image.json").because(cause))?;
        bytes.push(b'\n');
        let document = ImageDocument::parse(bytes)?;
        let mut volumes: Vec<Arc<dyn BlockSource>> = Vec::new();
        for (id, source) in ids.into_iter().zip(opened) {
            document
                .check_size(&id, source.size())
                .map_err(|error| error.at("snapshot_id", &id))?;
            volumes.push(Arc::new(source));
        }
        Ok(Self { document, volumes, new_name: name.map(ToOwned::to_owned) })
    }

    /// Checks with a few requests that an image can be stored: it exists, is available, and its
    /// snapshots may be listed.
    pub fn examine(
        ec2: &Ec2Connection,
        ebs: &EbsConnection,
        quotas: &Quotas,
        id: &ImageId,
    ) -> Result<ExaminedImage> {
        let image = describe::image(ec2, id)?;
        let located = |error: Error| error.at("image_id", id);
        check_image(&image).map_err(located)?;
        let ids = snapshot_ids(&image).map_err(located)?;
        let (described, sizes) = both(
            || describe::snapshots(ec2, &ids),
            || each(&ids, |id| EbsSource::size_of(ebs, id, quotas)),
        )?;
        let sizes = for_all(ec2, &ids, &described?, sizes?)?;
        Ok(ExaminedImage {
            name: image.get("Name").and_then(Value::as_str).map(ToOwned::to_owned),
            bytes: sizes.into_iter().map(|size| size.bytes()).sum(),
        })
    }
}

impl ImageSource for Ec2Image {
    fn document(&self) -> &ImageDocument {
        &self.document
    }

    fn volumes(&self) -> &[Arc<dyn BlockSource>] {
        &self.volumes
    }

    /// The content of image and snapshots never changes; attributes such as the time of the last
    /// launch do.
    fn fingerprint(&self) -> String {
        let image = unchanging(&self.document).to_string();
        match &self.new_name {
            None => image,
            Some(name) => image + name,
        }
    }

    fn compare(&self, archived: &ImageDocument) -> ImageMatch {
        if unchanging(archived) != unchanging(&self.document) {
            return ImageMatch::Different;
        }
        let changed = changed_members(archived, &self.document, lasts);
        let changed = Some(changed).filter(|changed| !changed.is_empty());
        ImageMatch::Same { changed, disks_are_fixed: true }
    }
}

/// Members that change while the content of the image does not: its use, its permissions and its
/// deprecation.
const CHANGING: [&str; 9] = [
    "LastLaunchedTime",
    "State",
    "StateReason",
    "Public",
    "ImageAllowed",
    "FreeTierEligible",
    "DeprecationTime",
    "DeregistrationProtection",
    "LaunchPermissions",
];
/// Members of a snapshot that change while its content does not.
const CHANGING_OF_SNAPSHOTS: [&str; 4] = ["State", "Progress", "StorageTier", "RestoreExpiryTime"];

/// Whether a member of the metadata is compared.
fn lasts(owner: &str, name: &str) -> bool {
    match owner {
        "" => false,
        "Image" | "ImageAttributes" => !CHANGING.contains(&name),
        _ => !CHANGING_OF_SNAPSHOTS.contains(&name),
    }
}

/// The attributes of an image that never change.
fn unchanging(document: &ImageDocument) -> Value {
    let image = document.value().get("Image").unwrap_or(&Value::Null);
    let ids: Vec<&str> = document.snapshots().iter().map(|snapshot| snapshot.id.as_str()).collect();
    json!([
        document.image_id().map(ImageId::as_str),
        text(image, "CreationDate"),
        text(image, "OwnerId"),
        ids
    ])
}

/// The snapshots of an image, each once, in the order of its devices.
fn snapshot_ids(image: &Value) -> Result<Vec<SnapshotId>> {
    let mut ids: Vec<SnapshotId> = Vec::new();
    for id in describe::snapshots_of(image) {
        let id = SnapshotId::parse(id)?;
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    if ids.is_empty() {
        return Err(Error::unsupported("the image has no snapshot: there is nothing to store"));
    }
    Ok(ids)
}

/// Refuses images that cannot be stored, regardless of their snapshots.
fn check_image(image: &Value) -> Result<()> {
    if let Some(name) = text(image, "Name") {
        check_image_name(name)?;
    }
    let reason = || {
        image
            .get("StateReason")
            .and_then(|reason| text(reason, "Message"))
            .unwrap_or("no reason is given")
            .to_owned()
    };
    match text(image, "State").unwrap_or("available") {
        "available" | "disabled" => {}
        "pending" => {
            return Err(Error::new(
                ErrorKind::Io,
                "the image is still being made: wait until it is available",
            )
            .code_as(ErrorCode::ImageNotAvailable)
            .at("state", "pending"));
        }
        state => {
            return Err(Error::unsupported("the image is not whole")
                .code_as(ErrorCode::ImageNotAvailable)
                .at("state", state)
                .at("reason", reason()));
        }
    }
    if text(image, "RootDeviceType") == Some("instance-store") {
        return Err(Error::unsupported(
            "the image is backed by instance store: it has no EBS snapshots, and neither EC2 nor \
             amistore can store it",
        )
        .code_as(ErrorCode::ImageIsInstanceStore));
    }
    if text(image, "VirtualizationType") == Some("paravirtual") {
        return Err(Error::unsupported(
            "the image is paravirtual: EC2 registers no such images any more, so it could not be \
             restored",
        )
        .code_as(ErrorCode::ImageIsParavirtual)
        .at("instead", "store its snapshots alone: amistore store snap-... ARCHIVE"));
    }
    Ok(())
}

/// Warns of attributes that a restore cannot set, while the user can still act on it.
fn warn_of_image(image: &Value, observer: &dyn Observer) {
    let warn = |message: String| observer.note(&Event::Warning { message });
    if let Some(platform) =
        text(image, "PlatformDetails").filter(|platform| *platform != "Linux/UNIX")
    {
        warn(format!(
            "the image is billed as {platform:?}: no image that is registered anew can be, only \
             one that AWS copies or restores (--via-aws)"
        ));
    }
    if !items(image, "ProductCodes").is_empty() {
        let codes = "the image has product codes, as those of AWS Marketplace: they cannot be set \
                     on a restored image, and its licence may forbid one";
        warn(codes.to_owned());
    }
}

/// The attributes that only DescribeImageAttribute returns.
const IMAGE_ATTRIBUTES: [&str; 2] = ["launchPermission", "uefiData"];

/// The attributes of an image from the answers to requests for [`IMAGE_ATTRIBUTES`].
fn image_attributes(answers: Vec<Result<Attribute>>, observer: &dyn Observer) -> Result<Value> {
    let mut attributes = Map::new();
    let (mut of_owner, mut denied) = (Vec::new(), Vec::new());
    for (name, answer) in IMAGE_ATTRIBUTES.into_iter().zip(answers) {
        match answer? {
            Attribute::OfOwner => of_owner.push(name),
            Attribute::Denied => denied.push(name),
            Attribute::Read(answer) => {
                let members = answer
                    .as_object()
                    .into_iter()
                    .flatten()
                    .filter(|(member, value)| *member != "ImageId" && !is_nothing(value));
                attributes.extend(members.map(|(member, value)| (member.clone(), value.clone())));
            }
        }
    }
    if !of_owner.is_empty() {
        let message = format!(
            "only the owner of the image may read {}: the archive does not contain it",
            of_owner.join(" and ")
        );
        observer.note(&Event::Warning { message });
    }
    if !denied.is_empty() {
        let names = denied.join(" and ");
        let message = format!(
            "{names} of the image is not in the archive: ec2:DescribeImageAttribute is not allowed \
             to these credentials"
        );
        observer.note(&Event::Warning { message });
    }
    // A reader of the archive should not take a missing attribute for an empty one.
    of_owner.extend(denied);
    if !of_owner.is_empty() {
        attributes.insert("NotRecorded".to_owned(), json!(of_owner));
    }
    Ok(Value::Object(attributes))
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.values().all(is_nothing),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The permissions of the snapshots; those of other accounts' snapshots cannot be read.
fn snapshot_attributes(answers: Vec<Result<Attribute>>, observer: &dyn Observer) -> Result<Value> {
    let (mut all, mut denied) = (Vec::new(), false);
    for answer in answers {
        match answer? {
            Attribute::Read(answer) => all
                .extend((!items(&answer, "CreateVolumePermissions").is_empty()).then_some(answer)),
            Attribute::OfOwner => {}
            Attribute::Denied => denied = true,
        }
    }
    if denied {
        let message = "the permissions of the snapshots are not in the archive: \
                       ec2:DescribeSnapshotAttribute is not allowed to these credentials";
        observer.note(&Event::Warning { message: message.to_owned() });
    }
    Ok(Value::Array(all))
}

/// The snapshots that were opened; one error names all that cannot be read.
fn for_all<T>(
    ec2: &Ec2Connection,
    ids: &[SnapshotId],
    described: &[Option<Value>],
    opened: Vec<Result<T>>,
) -> Result<Vec<T>> {
    let mut sources = Vec::new();
    let mut problems: Vec<(&SnapshotId, Error)> = Vec::new();
    for ((id, described), opened) in ids.iter().zip(described).zip(opened) {
        match check_snapshot(described.as_ref()).and(opened) {
            Ok(source) => sources.push(source),
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::Internal) => {
                return Err(error);
            }
            Err(error) => {
                let error = explain(ec2, id, described.as_ref(), error);
                problems.push((id, error.at_once("snapshot_id", id)));
            }
        }
    }
    let mut problems = problems.into_iter();
    let Some((_, first)) = problems.next() else { return Ok(sources) };
    // One is enough to refuse; all are named, so that they can be mended together.
    Err(problems.fold(first, |first, (id, other)| first.at("also", format!("{id}: {other}"))))
}

/// Checks by its description that a snapshot can be read.
fn check_snapshot(described: Option<&Value>) -> Result<()> {
    let Some(snapshot) = described else {
        return Err(Error::new(
            ErrorKind::NotFound,
            "the snapshot does not exist any more, or is not shared with this account",
        )
        .code_as(ErrorCode::SnapshotNotShared));
    };
    if text(snapshot, "StorageTier") == Some("archive") {
        let error = Error::new(
            ErrorKind::Io,
            "the snapshot is in the archive tier, where it cannot be read: restore it to the \
             standard tier first, which takes up to 72 hours",
        );
        return Err(error.code_as(ErrorCode::SnapshotArchived).at("storage_tier", "archive"));
    }
    match text(snapshot, "State").unwrap_or("completed") {
        "completed" => Ok(()),
        "pending" => {
            let progress = text(snapshot, "Progress").unwrap_or("unknown");
            Err(Error::new(
                ErrorKind::Io,
                "the snapshot is still being made: wait until it is completed",
            )
            .code_as(ErrorCode::SnapshotPending)
            .at("progress", progress))
        }
        "recoverable" => {
            Err(Error::new(ErrorKind::Io, "the snapshot is in the recycle bin: take it out first"))
        }
        state => Err(Error::unsupported("the snapshot is not whole").at("state", state)),
    }
}

/// Adds the reason for which a snapshot cannot be read, if it is more precise than the refusal.
fn explain(ec2: &Ec2Connection, id: &SnapshotId, described: Option<&Value>, error: Error) -> Error {
    if needs_other_credentials(&error) {
        return error;
    }
    // An answer that cannot be read, or a service that fails, says nothing about permissions.
    let service_refused = error.answer().is_some_and(|answer| (400..500).contains(&answer.status));
    let is_encrypted =
        described.and_then(|snapshot| snapshot.get("Encrypted")).and_then(Value::as_bool)
            == Some(true);
    let key = || {
        described.and_then(|snapshot| text(snapshot, "KmsKeyId")).unwrap_or("its key").to_owned()
    };
    if error.kind() == ErrorKind::Denied && is_encrypted && error.is(ErrorCode::KmsKeyDenied) {
        return Error::new(
            ErrorKind::Denied,
            "the snapshot is encrypted, and its key may not be used: kms:Decrypt and \
             kms:DescribeKey are needed",
        )
        .code_as(ErrorCode::KmsKeyDenied)
        .at("kms_key_id", key())
        .because(error);
    }
    if service_refused
        && error.kind() != ErrorKind::Limit
        && describe::is_public(ec2, id).unwrap_or(false)
    {
        let message = "the snapshot is public, and the direct APIs read no public snapshots: have \
                       it shared with this account by number, or copy it into this account first";
        return Error::new(ErrorKind::Denied, message)
            .code_as(ErrorCode::SnapshotIsPublic)
            .because(error);
    }
    if service_refused
        && matches!(error.kind(), ErrorKind::Denied | ErrorKind::NotFound)
        && described.is_some()
    {
        let message = "the blocks of the snapshot may not be read: ebs:ListSnapshotBlocks and \
                       ebs:GetSnapshotBlock are needed, and it has to be this account's or shared \
                       with it by number";
        return Error::new(ErrorKind::Denied, message)
            .code_as(ErrorCode::UnauthorizedOperation)
            .because(error);
    }
    error
}

#[cfg(test)]
mod tests;
