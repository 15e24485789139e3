//! Parts of an upload that an earlier run sent, and that this run does not send again.
//!
//! A recorded part is used only if the service lists it with the length and checksum that were
//! recorded.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Checksum;
use super::attributes::encode_tags;
use super::bucket::S3Store;
use super::condition::same_etag;
use super::upload::{ListedPart, SentPart, Upload, md5_of_etag};
use crate::base::{Error, ErrorCode, ErrorKind, Event, Result};
use crate::object::{ByteRanges, PartPiece, PriorUpload, UploadBegun, UploadPart};

/// Begins the options of an upload that copies parts of the object that it replaces.
pub(super) const SPLICE: &str = "splice of ";

/// A part that the service has, and the bytes of the object that it consists of.
#[derive(Clone, Debug)]
pub(super) struct StoredPart {
    pub(super) part: SentPart,
    pub(super) pieces: Vec<PartPiece>,
}

/// Parts of an earlier run, indexed by the bytes that they contain.
#[derive(Default)]
pub(super) struct ReusedParts {
    pub(super) parts: BTreeMap<u32, StoredPart>,
    /// For each segment, ascending: start and end of a run of bytes, and the number of its part.
    runs: Vec<Vec<(u64, u64, u32)>>,
    /// These runs without part numbers, merged.
    ranges: Vec<Arc<ByteRanges>>,
}

impl ReusedParts {
    /// Parts of an object with `segments` segments. Their bytes can be skipped only if this run is
    /// known to produce the same ones; otherwise a part is reused if its checksum matches.
    pub(super) fn new(parts: BTreeMap<u32, StoredPart>, segments: usize, repeatable: bool) -> Self {
        let mut runs = vec![Vec::new(); segments];
        if repeatable {
            for (number, stored) in &parts {
                for piece in &stored.pieces {
                    if let Some(runs) = runs.get_mut(usize::from(piece.segment)) {
                        runs.push((piece.offset, piece.offset + piece.len, *number));
                    }
                }
            }
        }
        let mut ranges = Vec::new();
        for runs in &mut runs {
            runs.sort_unstable();
            let mut merged = ByteRanges::default();
            for (start, end, _) in &*runs {
                merged.push(*start, end - start);
            }
            ranges.push(Arc::new(merged));
        }
        Self { parts, runs, ranges }
    }

    /// The byte ranges of a segment that can be skipped.
    pub(super) fn ranges(&self, segment: usize) -> Arc<ByteRanges> {
        self.ranges.get(segment).cloned().unwrap_or_default()
    }

    /// The end of the run that contains this byte, and the number of its part.
    pub(super) fn covering(&self, segment: usize, offset: u64) -> Option<(u64, u32)> {
        let runs = self.runs.get(segment)?;
        let (_, end, number) =
            runs[..runs.partition_point(|(start, _, _)| *start <= offset)].last()?;
        (offset < *end).then_some((*end, *number))
    }
}

/// The upload of an earlier run that this run continues.
pub(super) struct ContinuedUpload {
    pub(super) begun: UploadBegun,
    pub(super) upload: Upload,
    /// Parts by number that the service lists with the recorded length and checksum.
    pub(super) parts: BTreeMap<u32, StoredPart>,
}

impl ContinuedUpload {
    /// Looks for the upload of earlier runs; `None` if there is none, or it is gone.
    pub(super) fn find(
        store: &S3Store,
        key: &str,
        tags: Option<&str>,
        prior: &PriorUpload,
    ) -> Result<Option<Self>> {
        let (begun, recorded) = match prior {
            PriorUpload::None => return Ok(None),
            PriorUpload::Unrecorded { started } => {
                return store
                    .connection
                    .wait(Upload::abort_unrecorded(store, key, started, None))
                    .map(|()| None);
            }
            PriorUpload::Recorded { upload, parts } => (upload, parts),
        };
        if !is_of(begun, store, key) {
            return Ok(None);
        }
        if begun.options.starts_with(SPLICE) {
            // The object whose parts it copied is gone.
            store.abort_upload(&begun.key, &begun.upload_id)?;
            return Ok(None);
        }
        check_options(store, tags, begun)?;
        let checksum = Checksum::parse(&begun.checksum)?;
        let (id, key) = (begun.upload_id.clone(), key.to_owned());
        let upload = Upload { store: store.clone(), key, id, checksum };
        let observer = &store.connection.options().observer;
        let listed = match store.connection.wait(upload.parts()) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let message = "the upload that was interrupted is gone: it begins anew".to_owned();
                observer.note(&Event::Warning { message });
                return Ok(None);
            }
            Err(error) if is_unlisted(&error) => {
                let message =
                    format!("the uploaded parts cannot be listed, and are sent again: {error}");
                observer.note(&Event::Warning { message });
                BTreeMap::new()
            }
            listed => listed?,
        };
        let mut parts = BTreeMap::new();
        for (number, part) in recorded {
            if let Some(listed) = listed.get(number)
                && let Some(sent) = confirmed(part, listed, checksum)
            {
                let plain = PartPiece {
                    segment: 0,
                    offset: u64::from(*number - 1) * begun.part_size,
                    len: part.len,
                };
                let pieces =
                    if begun.segments.is_empty() { vec![plain] } else { part.pieces.clone() };
                parts.insert(*number, StoredPart { part: sent, pieces });
            }
        }
        let message = format!("{} of {} parts are uploaded already", parts.len(), recorded.len());
        observer.note(&Event::Note { message });
        Ok(Some(Self { begun: begun.as_ref().clone(), upload, parts }))
    }
}

impl S3Store {
    /// Fails if the upload of earlier runs could not be continued with the options of this store
    /// and these tags. Sends no request.
    pub fn check_continued(
        &self,
        key: &str,
        tags: &BTreeMap<String, String>,
        prior: &PriorUpload,
    ) -> Result<()> {
        match prior {
            PriorUpload::Recorded { upload, .. }
                if is_of(upload, self, key) && !upload.options.starts_with(SPLICE) =>
            {
                check_options(self, encode_tags(tags).as_deref(), upload)
            }
            _ => Ok(()),
        }
    }
}

/// Whether this is an upload of the object `key`.
fn is_of(begun: &UploadBegun, store: &S3Store, key: &str) -> bool {
    begun.bucket == store.bucket && begun.key == key
}

/// Fails unless the upload was begun with the options of `store` and these tags, which are fixed
/// when an upload begins.
fn check_options(store: &S3Store, tags: Option<&str>, begun: &UploadBegun) -> Result<()> {
    let options = store.upload_options(tags);
    if begun.options == options {
        return Ok(());
    }
    Err(Error::usage(
        "the upload that was interrupted was begun with another class, encryption or tags",
    )
    .code_as(ErrorCode::BegunWithOtherSettings)
    .at("begun_with", &begun.options)
    .at("asked_for", options)
    .at("cannot_continue", true))
}

/// Whether the service answered without a list of parts: it has no ListParts, an incompatible one,
/// or the credentials may not call it.
pub(super) fn is_unlisted(error: &Error) -> bool {
    error.answer().is_some_and(|answer| answer.status == 200)
        || matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Denied)
}

/// A recorded part, if the service lists it with the same length and checksum, or, from a service
/// that lists no checksums, with the ETag that confirmed it.
fn confirmed(recorded: &UploadPart, listed: &ListedPart, checksum: Checksum) -> Option<SentPart> {
    let agrees = match (&listed.checksum, checksum) {
        (Some(listed), _) => *listed == recorded.checksum,
        (None, Checksum::Md5)
            if md5_of_etag(&listed.etag).is_some_and(|md5| md5 == recorded.checksum) =>
        {
            true
        }
        (None, _) => recorded
            .etag
            .as_deref()
            .is_some_and(|etag| !etag.is_empty() && same_etag(etag, &listed.etag)),
    };
    (agrees && listed.len == recorded.len).then(|| SentPart {
        len: recorded.len,
        checksum: recorded.checksum.clone(),
        etag: listed.etag.clone(),
    })
}
