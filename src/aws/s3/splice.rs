//! Replaces an object by one that shares most of its bytes: the shared range is copied by the
//! service, and only new bytes, and the old ones that fill up the first part, are sent.
//!
//! Every copy and the completion are bound to the ETag of the old object. An interrupted splice is
//! continued: parts that the service copied are not copied again; those that are sent, are.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::Checksum;
use super::absence::is_refusal;
use super::attributes::{encode_metadata, encode_tags};
use super::bucket::S3Store;
use super::condition::same_etag;
use super::part_plan::{MAX_PARTS, MIN_PART};
use super::relay::{copy_part, copy_source};
use super::reused::{SPLICE, is_unlisted};
use super::upload::{Identity, ListedPart, SentPart, Upload, identify, is_unreadable};
use crate::base::{Error, ErrorCode, ErrorKind, Event, Result};
use crate::object::{
    Attributes, ObjectReader, PriorUpload, ResumableUpload, Splice, Spliced, UploadBegun,
};

/// Bytes of a part that is copied.
const COPIED: u64 = 256 << 20;
/// Bytes of a part of the tail.
const SENT: usize = 16 << 20;
/// The reason for which an object is sent as a whole: each of two parts has at least 5 MiB.
const TOO_SHORT: &str = "the archive is shorter than two parts of 5 MiB";
const NO_PART_COPIES: &str = "the store does not copy parts of objects";

/// The parts of the new object.
struct Parts {
    /// The range of the old object behind the new head that is sent with it.
    first: Range<u64>,
    /// The ranges of the old object that are copied, in order.
    copied: Vec<Range<u64>>,
}

impl Parts {
    /// Plans the parts; `None` if too little could be copied. `size` is the size of parts that the
    /// options name.
    fn new(head: u64, body: &Range<u64>, size: Option<u64>) -> Option<Self> {
        let from = body.start + MIN_PART.saturating_sub(head);
        let len = body.end.checked_sub(from).filter(|len| *len >= MIN_PART)?;
        let piece = size.unwrap_or(COPIED).max(MIN_PART).max(len.div_ceil(MAX_PARTS / 2));
        let count = len.div_ceil(piece).min(len / MIN_PART);
        let cut =
            |index: u64| from + (u128::from(len) * u128::from(index) / u128::from(count)) as u64;
        let copied = (0..count).map(|index| cut(index)..cut(index + 1)).collect();
        Some(Self { first: body.start..from, copied })
    }

    /// The number of the first part of the tail.
    fn tail(&self) -> u32 {
        self.copied.len() as u32 + 2
    }
}

/// See [`ObjectStore::splice`](crate::object::ObjectStore::splice).
pub(super) fn splice(
    store: &S3Store,
    key: &str,
    old: &dyn ObjectReader,
    splice: Splice<'_>,
) -> Result<Spliced> {
    let Some(etag) = old.version() else {
        return Ok(Spliced::Whole("the store does not name the version of the object"));
    };
    let head_len = splice.head.len() as u64;
    let parts = Parts::new(head_len, &splice.body, store.options.part_size);
    let Some(parts) = parts.filter(|_| old.len() >= 2 * MIN_PART) else {
        return Ok(Spliced::Whole(TOO_SHORT));
    };
    store.connection.wait(store.protection_of_version(key, &etag))?;
    let (store, attributes) = store.inheriting(key, splice.attributes.clone())?;
    let mut first = splice.head.to_vec();
    first.extend(read_twice(old, parts.first.clone())?);
    let splicing = Splicing { store: &store, key, etag: &etag };
    let (upload, listed) =
        splicing.upload(&attributes, &splice.identity, splice.resume.as_ref())?;
    let is_resumable = splice.resume.is_some();
    let outcome = splicing.run(&upload, (first, &parts, &listed), splice);
    let is_over = match &outcome {
        Ok(Spliced::Done) => false,
        Ok(Spliced::Whole(_)) => true,
        // No run could complete it.
        Err(error) => !is_resumable || error.is(ErrorCode::ObjectReplaced),
    };
    if is_over && let Err(left) = store.connection.runtime().block_on(upload.abort_anyway()) {
        let message = format!("an upload could not be aborted: {} ({left})", upload.id);
        store.connection.options().observer.note(&Event::Warning { message });
    }
    outcome
}

/// Bytes of the old object that no digest covers as a whole are read twice, because a bit may flip
/// on the network.
fn read_twice(old: &dyn ObjectReader, range: Range<u64>) -> Result<Vec<u8>> {
    let read = || -> Result<Vec<u8>> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        old.read_at(range.start, &mut bytes)?;
        Ok(bytes)
    };
    let bytes = read()?;
    old.drop_cache();
    if read()? == bytes {
        return Ok(bytes);
    }
    Err(Error::new(ErrorKind::Io, "two reads of one range of the object gave different bytes")
        .at("object", old.name())
        .at("offset", range.start))
}

struct Splicing<'a> {
    store: &'a S3Store,
    key: &'a str,
    etag: &'a str,
}

impl Splicing<'_> {
    /// The upload of an earlier run, with its parts, or a new one.
    fn upload(
        &self,
        attributes: &Attributes,
        identity: &str,
        resume: Option<&ResumableUpload>,
    ) -> Result<(Upload, BTreeMap<u32, ListedPart>)> {
        let Self { store, key, etag } = *self;
        let connection = &store.connection;
        let tags = encode_tags(&attributes.tags);
        let options =
            format!("{SPLICE}{etag} {identity} {}", store.upload_options(tags.as_deref()));
        match resume.map(|resume| &resume.prior) {
            Some(PriorUpload::Recorded { upload, .. })
                if (&upload.options, upload.bucket.as_str(), upload.key.as_str())
                    == (&options, store.bucket.as_str(), key) =>
            {
                let checksum = Checksum::parse(&upload.checksum)?;
                let (id, key) = (upload.upload_id.clone(), key.to_owned());
                let upload = Upload { store: store.clone(), key, id, checksum };
                match connection.wait(upload.parts()) {
                    Ok(listed) => return Ok((upload, listed)),
                    Err(error) if is_unlisted(&error) => return Ok((upload, BTreeMap::new())),
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            Some(PriorUpload::Recorded { upload, .. }) => {
                let there = S3Store { bucket: upload.bucket.clone(), ..store.clone() };
                there.abort_upload(&upload.key, &upload.upload_id)?;
            }
            Some(PriorUpload::Unrecorded { started }) => {
                connection.wait(Upload::abort_unrecorded(store, key, started, None))?;
            }
            Some(PriorUpload::None) | None => {}
        }
        let metadata = encode_metadata(&attributes.metadata)?;
        if let Some(resume) = resume {
            store.intend(key, resume.journal.as_ref())?;
        }
        let begun = Upload::begin(store, key, &metadata, tags);
        let upload = connection.until_answered().wait(begun)?;
        if let Some(resume) = resume {
            let record = upload.record(MIN_PART, None, Vec::new());
            resume.journal.upload_begun(&UploadBegun { options, ..record })?;
        }
        Ok((upload, BTreeMap::new()))
    }

    /// Copies and sends all parts, and completes the object.
    fn run(
        &self,
        upload: &Upload,
        (first, parts, listed): (Vec<u8>, &Parts, &BTreeMap<u32, ListedPart>),
        splice: Splice<'_>,
    ) -> Result<Spliced> {
        let connection = &self.store.connection;
        // Not cancelled from outside: each request observes the cancellation.
        let copied = connection.runtime().block_on(self.copy_all(upload, parts, listed));
        let mut numbered = match copied {
            // An archive in a store without part copies is no special case of a failure.
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                return Ok(Spliced::Whole(NO_PART_COPIES));
            }
            copied => copied?,
        };
        let mut send = |number: u32, bytes: Vec<u8>| -> Result<()> {
            let len = bytes.len() as u64;
            let bytes = Bytes::from(bytes);
            let checksum = upload.checksum.of(&bytes);
            numbered.insert(number, connection.wait(upload.put(number, bytes, checksum))?);
            (splice.progress)(len)
        };
        send(1, first)?;
        let (mut number, mut waiting) = (parts.tail(), Vec::new());
        for piece in splice.tail {
            if waiting.len() >= SENT {
                send(number, std::mem::take(&mut waiting))?;
                number += 1;
            }
            waiting.extend(piece);
        }
        send(number, waiting)?;
        let numbered: Vec<(u32, SentPart)> = numbered.into_iter().collect();
        self.check_listed(upload, &numbered)?;
        self.complete(upload, &numbered).map(|()| Spliced::Done)
    }

    /// Has the service copy the parts that it does not have. A listed part of this upload was
    /// copied by the same plan.
    async fn copy_all(
        &self,
        upload: &Upload,
        parts: &Parts,
        listed: &BTreeMap<u32, ListedPart>,
    ) -> Result<BTreeMap<u32, SentPart>> {
        let source = copy_source(&self.store.bucket, self.key);
        let mut numbered = BTreeMap::new();
        let mut tasks = JoinSet::new();
        for (number, range) in (2..).zip(&parts.copied) {
            let len = range.end - range.start;
            if let Some(part) = listed.get(&number).filter(|part| part.len == len) {
                let checksum = part.checksum.clone().unwrap_or_default();
                numbered.insert(number, SentPart { len, checksum, etag: part.etag.clone() });
                continue;
            }
            let (upload, source, range) = (upload.clone(), source.clone(), range.clone());
            let (etag, owner) = (Some(self.etag.to_owned()), self.store.options.owner());
            tasks.spawn(async move {
                let copied = copy_part(&upload, number, (&source, etag, owner), range).await;
                copied.map(|copied| (number, copied))
            });
        }
        while let Some(done) = tasks.join_next().await {
            let copied = done
                .map_err(|_| Error::internal("the task of a copy ended by itself"))
                .and_then(|copied| copied);
            match copied {
                Ok((number, part)) => {
                    numbered.insert(number, part);
                }
                Err(error) => {
                    // A part that arrives after an abort would stay.
                    tasks.shutdown().await;
                    return Err(self.explain(error));
                }
            }
        }
        Ok(numbered)
    }

    /// Names the cause of a refused condition.
    fn explain(&self, error: Error) -> Error {
        match error.code() {
            Some(ErrorCode::PreconditionFailed | ErrorCode::ConditionalRequestConflict) => {
                self.store.replaced(self.key).because(error)
            }
            _ => error,
        }
    }

    /// Compares the parts that the service lists with those that were copied and sent.
    fn check_listed(&self, upload: &Upload, numbered: &[(u32, SentPart)]) -> Result<()> {
        let listed = match self.store.connection.wait(upload.parts()) {
            Err(error) if is_unlisted(&error) => return Ok(()),
            listed => listed?,
        };
        let differs = |(number, part): &&(u32, SentPart)| {
            let same =
                |listed: &ListedPart| listed.len == part.len && same_etag(&listed.etag, &part.etag);
            !listed.get(number).is_some_and(same)
        };
        match numbered.iter().find(differs) {
            None => Ok(()),
            Some((number, _)) => {
                let other = "the store has another part than was copied or sent";
                let error = Error::new(ErrorKind::Io, other).at("part", number);
                Err(self.store.located(self.key)(error).at("upload_id", &upload.id))
            }
        }
    }

    /// Completes the object in the place of the old one. The caller compares it with what it is
    /// to be.
    fn complete(&self, upload: &Upload, numbered: &[(u32, SentPart)]) -> Result<()> {
        let Self { store, key, etag } = *self;
        let sent: Vec<SentPart> = numbered.iter().map(|(_, part)| part.clone()).collect();
        let is_known = sent.iter().all(|part| !part.checksum.is_empty());
        let whole = if is_known { Some(upload.checksum_of(&sent)?) } else { None };
        let protection = store.connection.wait(store.protection_of_version(key, etag))?;
        let completed =
            store.connection.wait(store.write_protected(protection, async |condition| {
                upload.complete(numbered, whole.as_deref(), &condition).await
            }));
        let Err(error) = completed else { return Ok(()) };
        // The request may have succeeded and its answer been lost.
        let could_be_ours = is_unreadable(&error)
            || matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::Exists | ErrorKind::Io | ErrorKind::Limit
            );
        let len: u64 = sent.iter().map(|part| part.len).sum();
        if could_be_ours
            && let Ok(head) = store.connection.wait(store.head(key))
            && head.etag.as_deref().is_some_and(|found| !same_etag(found, etag))
            && (identify(&head, Checksum::Md5, len, "", &sent) == Identity::Same
                || whole.as_deref().is_some_and(|whole| {
                    identify(&head, upload.checksum, len, whole, &sent) == Identity::Same
                }))
        {
            return Ok(());
        }
        Err(self.explain(error))
    }
}

impl S3Store {
    /// This bucket, and the attributes of an object that replaces `key`: with its storage class,
    /// its KMS key and its tags, unless options and attributes have their own. Tags that may not be
    /// read are a warning.
    pub(super) fn inheriting(
        &self,
        key: &str,
        attributes: Attributes,
    ) -> Result<(Self, Attributes)> {
        let mut store = self.clone();
        match self.connection.wait(self.head(key)) {
            Ok(head) => {
                let options = &mut store.options;
                options.storage_class = options.storage_class.take().or(head.storage_class);
                if let (None, Some((kind, kms_key))) = (&options.sse, head.kms) {
                    (options.sse, options.sse_kms_key_id) = (Some(kind), kms_key);
                }
            }
            Err(error) if is_refusal(&error) => {
                let message = format!(
                    "storage class and key of the object cannot be read, and are those of the \
                     bucket: {error}"
                );
                self.connection.options().observer.note(&Event::Warning { message });
            }
            Err(error) => return Err(error),
        }
        let mut tags = match self.tags(key) {
            Ok(tags) => tags,
            // A store without tags.
            Err(error) if error.kind() == ErrorKind::Unsupported => BTreeMap::new(),
            Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::NotFound) => {
                let message =
                    format!("the tags of the object cannot be read, and are lost: {error}");
                self.connection.options().observer.note(&Event::Warning { message });
                BTreeMap::new()
            }
            Err(error) => return Err(error),
        };
        tags.extend(attributes.tags);
        Ok((store, Attributes { tags, ..attributes }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn parts_tile_the_body_and_none_is_too_small() {
        for (head, len, size) in [
            (100, 10 * MIB, None),
            (100, 10 * MIB + 1, Some(5 * MIB)),
            (100, 33 * MIB, Some(5 * MIB)),
            (6 * MIB, 12 * MIB, Some(7 * MIB)),
            (3000, 3 << 40, None),
        ] {
            let body = 77..77 + len;
            let parts = Parts::new(head, &body, size).expect("long enough");
            assert!(head + parts.first.end - parts.first.start >= MIN_PART);
            let mut at = parts.first.end;
            for range in &parts.copied {
                assert_eq!(range.start, at);
                assert!((MIN_PART..=5 << 30).contains(&(range.end - range.start)));
                at = range.end;
            }
            assert_eq!((parts.first.start, at), (77, body.end));
            assert!(u64::from(parts.tail()) < MAX_PARTS);
        }
        assert!(Parts::new(100, &(77..9 * MIB), None).is_none());
    }
}
