//! Copies an archive within one service of S3, without its bytes passing through here.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::copy::{Copied, CopyProof, plan_copy, work};
use super::resume::{Resumption, RunningTask, Work, abort_uploads};
use crate::aws::s3::S3Store;
use crate::base::{Error, ErrorCode, ErrorKind, Event, Observer, Result, Stage, StageGuard};
use crate::engine::{Archive, Context};
use crate::localfs::Overwrite;
use crate::object::{Attributes, ObjectReader, ObjectStore, ResumableUpload};

/// Has the service copy the object, and opens the copy, which has to be the same archive. With
/// `resumption` the upload is recorded, so that one which a killed process left is aborted.
pub(super) fn server_copy(
    archive: &Archive,
    source: (&S3Store, &str),
    target: (&S3Store, &str),
    creation: (&Attributes, Overwrite),
    resumption: Option<&Resumption>,
    context: Context<'_>,
) -> Result<Copied> {
    with_record(target.0, (resumption, &work(archive, true)), context, |resume| {
        copy_and_compare(archive, source, target, creation, resume, context)
    })
}

/// Calls `copy`, a copy by the service, with the record of its upload. Without `resumption`, or
/// without a usable state directory, there is no record.
pub(in crate::ops) fn with_record<T>(
    store: &S3Store,
    (resumption, work): (Option<&Resumption>, &Work),
    context: Context<'_>,
    copy: impl FnOnce(Option<&ResumableUpload>) -> Result<T>,
) -> Result<T> {
    let begin = |resumption: &Resumption| {
        resumption.begin(work, context.observer, |prior| abort_uploads(store, prior.records()?))
    };
    let task = match resumption.map(begin).transpose() {
        // The copy itself keeps nothing here.
        Err(error) if error.is(ErrorCode::StateDirectoryUnusable) => {
            let message =
                format!("the upload of this copy is not recorded, in case it is killed: {error}");
            context.observer.note(&Event::Warning { message });
            None
        }
        task => task?,
    };
    let resume = task.as_ref().map(RunningTask::upload).transpose()?;
    let copied = copy(resume.as_ref());
    match (&copied, task) {
        (Ok(_), Some(task)) => task.remove()?,
        (Err(_), Some(task)) => {
            // Its file stays while there is an upload that it names. The first error is the one to
            // report.
            let _ = task.give_up(store);
        }
        (_, None) => {}
    }
    copied
}

fn copy_and_compare(
    archive: &Archive,
    (source, source_key): (&S3Store, &str),
    (store, key): (&S3Store, &str),
    (attributes, overwrite): (&Attributes, Overwrite),
    resume: Option<&ResumableUpload>,
    context: Context<'_>,
) -> Result<Copied> {
    let is_same = |reader: Arc<dyn ObjectReader>| -> Result<bool> {
        Ok(reader.len() == archive.reader().len()
            && Archive::open(reader)?.footer().root == archive.footer().root)
    };
    let total = Some(archive.reader().len());
    let stage = StageGuard::begin(context.observer, Stage::Copy, total);
    match store.copy_from(key, (source, source_key, None), attributes, overwrite, resume) {
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
