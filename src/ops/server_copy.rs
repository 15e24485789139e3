//! Copies an archive within one service of S3, without its bytes passing through here.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::copy::{Copied, CopyProof, plan_copy};
use crate::aws::s3::S3Store;
use crate::base::{Error, ErrorCode, ErrorKind, Event, Observer, Result, Stage, StageGuard};
use crate::engine::{Archive, Context};
use crate::localfs::Overwrite;
use crate::object::{Attributes, ObjectReader, ObjectStore};

/// Has the service copy the object, and opens the copy, which has to be the same archive.
pub(super) fn server_copy(
    archive: &Archive,
    (source, source_key): (&S3Store, &str),
    (store, key): (&S3Store, &str),
    (attributes, overwrite): (&Attributes, Overwrite),
    context: Context<'_>,
) -> Result<Copied> {
    let is_same = |reader: Arc<dyn ObjectReader>| -> Result<bool> {
        Ok(reader.len() == archive.reader().len()
            && Archive::open(reader)?.footer().root == archive.footer().root)
    };
    let total = Some(archive.reader().len());
    let stage = StageGuard::begin(context.observer, Stage::Copy, total);
    match store.copy_from(key, (source, source_key, None), attributes, overwrite) {
        Err(error) if error.kind() == ErrorKind::Exists => {
            return if store.open(key).and_then(is_same).unwrap_or(false) {
                Ok(plan_copy(archive, CopyProof::Service).present())
            } else {
                Err(error)
            };
        }
        Ok(copied) if !copied.checksum_compared => {
            let message =
                "the service copied the bytes and keeps no checksum that could be compared: \
                 `amistore verify` reads them"
                    .to_owned();
            context.observer.note(&Event::Warning { message });
        }
        copied => {
            copied?;
        }
    }
    if !is_same(store.open(key)?)? {
        return Err(Error::new(
            ErrorKind::Io,
            "the copy that the service made is not the archive that was to be copied",
        )
        .code_as(ErrorCode::FinishedObjectDiffers)
        .at("object", key)
        .at("kept", "the object stays, and has to be deleted"));
    }
    stage.finish();
    Ok(plan_copy(archive, CopyProof::Service))
}

/// The tags of an object that is copied. Tags that may not be read are a warning, and none are
/// copied.
pub(super) fn tags_to_copy(
    store: &S3Store,
    key: &str,
    observer: &dyn Observer,
) -> Result<BTreeMap<String, String>> {
    match store.tags(key) {
        // A store without tags.
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(BTreeMap::new()),
        Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::NotFound) => {
            let message =
                format!("the tags of the object cannot be read, and are not copied: {error}");
            observer.note(&Event::Warning { message });
            Ok(BTreeMap::new())
        }
        tags => tags,
    }
}
