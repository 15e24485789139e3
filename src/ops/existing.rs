//! An archive that exists where an image is to be stored: disks and metadata are compared apart.
//! The archive of an image whose metadata alone changed is kept, refused or updated.

use super::stored::StoreOutcome;
use super::update::{Update, update};
use crate::base::{Error, ErrorCode, ErrorKind, Event, Result, Stage};
use crate::engine::{Archive, Context, PackOptions, contents_of};
use crate::image::{ImageMatch, ImageSource};
use crate::object::{Attributes, ObjectStore, ResumableUpload};

/// The treatment of an archive that holds the disks of the image with other metadata.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MetadataPolicy {
    /// The archive stays as it is, with a warning.
    #[default]
    Keep,
    /// The store fails.
    Fail,
    /// The archive gets the metadata of the image; its disks are not sent again.
    Update,
}

/// An archive with the disks of an image.
pub(super) struct Comparison {
    pub(super) archive: Archive,
    /// The names of the members of the metadata that differ, empty if only the form of the JSON
    /// does; `None` if the metadata is equal.
    pub(super) changed: Option<Vec<String>>,
}

/// Compares the existing object with the image that would be stored. Returns the error `exists` if
/// their disks differ.
pub(super) fn compare(
    image: &dyn ImageSource,
    (store, key): (&dyn ObjectStore, &str),
    options: &PackOptions,
    exists: Error,
    context: Context<'_>,
) -> Result<Comparison> {
    let reader = match store.open(key) {
        // Credentials that may only write: the store has said that the object exists.
        Err(error) if error.kind() == ErrorKind::Denied => {
            return Err(exists.at("content", "not readable with these credentials"));
        }
        reader => reader?,
    };
    let other = |what: &str| exists.code_as(ErrorCode::OtherObjectExists).at("content", what);
    let archive = match Archive::open(reader) {
        Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported) => {
            return Err(other("no whole archive"));
        }
        archive => archive?,
    };
    match image.compare(archive.document()) {
        ImageMatch::Same { changed, disks_are_fixed: true } => Ok(Comparison { archive, changed }),
        ImageMatch::Same { changed, .. } if has_disks_of(&archive, image, options, context)? => {
            Ok(Comparison { archive, changed })
        }
        ImageMatch::Same { changed: None, .. } => Err(other("the same image with other data")),
        ImageMatch::Same { .. } | ImageMatch::Different => Err(other("another image")),
    }
}

/// Whether the archive has the disks of the image: sizes, and content digests. The content root is
/// of no use, because it covers `image.json`.
fn has_disks_of(
    archive: &Archive,
    image: &dyn ImageSource,
    options: &PackOptions,
    context: Context<'_>,
) -> Result<bool> {
    let volumes = &archive.root().manifest.volumes;
    let sizes = image.volumes().iter().map(|volume| volume.size());
    if !volumes.iter().map(|volume| volume.size).eq(sizes) {
        return Ok(false);
    }
    let stage = context.stage(Stage::Verify);
    let contents = contents_of(image, options, context)?;
    stage.finish();
    Ok(volumes.iter().map(|volume| volume.content).eq(contents))
}

/// An image that is stored where an object exists.
pub(super) struct Existing<'a> {
    pub(super) image: &'a dyn ImageSource,
    pub(super) store: &'a dyn ObjectStore,
    pub(super) key: &'a str,
    pub(super) options: &'a PackOptions,
    pub(super) policy: MetadataPolicy,
    /// Metadata and tags that the object would get.
    pub(super) attributes: Attributes,
    pub(super) context: Context<'a>,
}

impl Existing<'_> {
    /// The outcome of the store, whose error was `exists`. An update reports its upload to
    /// `resume`.
    pub(super) fn settle(
        self,
        exists: Error,
        resume: Option<ResumableUpload>,
    ) -> Result<StoreOutcome> {
        let Self { image, store, key, options, policy, attributes, context } = self;
        let refused = exists.duplicate();
        let Comparison { archive, changed } =
            compare(image, (store, key), options, exists, context)?;
        let (archive_len, footer) = (archive.reader().len(), archive.footer().clone());
        let Some(changed) = changed else {
            return Ok(StoreOutcome::Present { archive_len, footer });
        };
        match policy {
            MetadataPolicy::Fail => Err(metadata_differs(refused, &changed)),
            MetadataPolicy::Keep => {
                let message = format!(
                    "the archive has the disks of the image, and other metadata{}: it stays as it \
                     is, and --on-metadata-change=update sends the metadata",
                    named(&changed)
                );
                context.observer.note(&Event::Warning { message });
                Ok(StoreOutcome::MetadataChanged { archive_len, footer, changed })
            }
            MetadataPolicy::Update => {
                let document = image.document();
                let work = Update { archive: &archive, document, store, key, attributes, options };
                update(work, changed, resume, context)
            }
        }
    }
}

/// The error of an archive with the disks of the image and other metadata.
pub(super) fn metadata_differs(exists: Error, changed: &[String]) -> Error {
    let error = exists
        .code_as(ErrorCode::MetadataDiffers)
        .at("content", "the same disks with other metadata");
    if changed.is_empty() { error } else { error.at("members", changed.join(", ")) }
}

/// The names in parentheses; nothing if there are none.
fn named(changed: &[String]) -> String {
    if changed.is_empty() { String::new() } else { format!(" ({})", changed.join(", ")) }
}
