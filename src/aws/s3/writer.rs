//! The writer of an object in a bucket.
//!
//! The object is cut into parts of one size (`segment`). An object shorter than a part is put in
//! one request.
//!
//! A resumable upload outlives this process: its id, and each part before it is sent, are reported
//! to its journal. A later run skips the bytes of parts that `reused` confirms. An upload that is
//! not resumable is aborted unless it is committed.
//!
//! In a parallel upload each segment has a range of part numbers, planned from the upper bound of
//! its length, so there are gaps between the numbers: services accept them with MD5 as the only
//! checksum (S3, `CompletedPart`). At the border of two segments the remainder of the first is
//! sent together with the first part of the second, under the number that is reserved for the
//! border; a segment shorter than a part is added to the remainder. So every part but the last has
//! at least the planned size, and the positions of the cuts depend on the bytes only.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use super::Checksum;
use super::absence::Protection;
use super::attributes::{encode_metadata, encode_tags};
use super::bucket::S3Store;
use super::condition::same_etag;
use super::part_plan::PartPlan;
use super::reused::{ContinuedUpload, ReusedParts, StoredPart, is_unlisted};
use super::segment::{Chunk, S3Segment, Sender, Shared, SpareParts};
use super::upload::{
    Identity, ListedPart, SentPart, Upload, Written, identify, lacks_checksum, put_object,
};
use crate::base::{Error, ErrorCode, ErrorKind, Event, Result};
use crate::localfs::Overwrite;
use crate::object::{ByteRanges, Creation, ObjectWriter, ParallelWriter, PartPiece, SegmentWriter};

/// See the module.
pub(super) struct S3Writer {
    shared: Arc<Shared>,
    overwrite: Overwrite,
    /// The ETag of the object that may be replaced, if only this one may.
    replaces: Option<String>,
    /// The segment that is appended to; `None` while segments are uploaded in parallel.
    end: Option<S3Segment>,
    /// The lengths of the joined segments.
    joined: Vec<u64>,
    /// The parts of the joined segments.
    sent: BTreeMap<u32, StoredPart>,
    /// The number of segments that memory suffices for.
    workers: usize,
    committed: bool,
}

impl S3Writer {
    /// Begins the object, or continues the upload of an earlier run.
    pub(super) fn create(store: &S3Store, key: &str, creation: Creation) -> Result<Self> {
        let Creation { overwrite, replaces, at_most, segments, attributes, resume, repeatable } =
            creation;
        let (store, attributes) = match &replaces {
            Some(etag) => {
                store.connection.wait(store.protection_of_version(key, etag))?;
                store.inheriting(key, attributes)?
            }
            None => {
                store.connection.wait(store.protection(key, overwrite))?;
                (store.clone(), attributes)
            }
        };
        let store = &store;
        // Attributes that cannot be sent should be known before anything is read.
        encode_metadata(&attributes.metadata)?;
        let tags = encode_tags(&attributes.tags);
        let continued = match &resume {
            Some(resume) => ContinuedUpload::find(store, key, tags.as_deref(), &resume.prior)?,
            None => None,
        };
        let memory = store.options.part_memory;
        let plan = match (&continued, store.options.part_size) {
            (Some(ContinuedUpload { begun, .. }), _) => {
                PartPlan::of_size(begun.part_size, memory.max(2 * begun.part_size))
            }
            (None, Some(size)) => PartPlan::with_parts_of(
                size,
                at_most,
                memory,
                store.connection.endpoint().is_custom(),
            ),
            (None, None) => PartPlan::new(PartPlan::with_borders(at_most, segments.len()), memory),
        }?;
        let numbers = match &continued {
            Some(ContinuedUpload { begun, .. }) if !begun.segments.is_empty() => {
                begun.segments.clone()
            }
            Some(_) => vec![1],
            None => plan.numbers(&segments)?,
        };
        if numbers.len() != segments.len().max(1) {
            return Err(Error::internal("an upload is continued that was divided otherwise")
                .at("segments", segments.len()));
        }
        let divided = numbers.len() > 1;
        let mut store = store.clone();
        if divided && *store.options.checksum.get_or_insert(Checksum::Md5) != Checksum::Md5 {
            return Err(Error::usage(
                "services refuse gaps between part numbers with other checksums than MD5",
            )
            .at("checksum_algorithm", store.checksum().name()));
        }
        let parallel = store.options.parallel_segments.unwrap_or(usize::MAX).min(numbers.len());
        let (workers, flights) =
            if divided { plan.workers(memory, parallel) } else { (1, plan.parts as usize - 1) };
        let (upload, parts) = match continued {
            Some(continued) => (Some(continued.upload), continued.parts),
            None => (None, BTreeMap::new()),
        };
        let shared = Arc::new(Shared {
            store,
            key: key.to_owned(),
            metadata: Mutex::new(attributes.metadata),
            tags,
            journal: resume.map(|resume| resume.journal),
            plan,
            reused: ReusedParts::new(parts, numbers.len(), repeatable),
            numbers,
            upload: Mutex::new(upload),
            flights: Arc::new(Semaphore::new(flights)),
            spare: SpareParts::default(),
            finished: Mutex::default(),
        });
        let end = Some(S3Segment::new(&shared, 0));
        Ok(Self {
            shared,
            overwrite,
            replaces,
            end,
            joined: Vec::new(),
            sent: BTreeMap::new(),
            workers,
            committed: false,
        })
    }

    fn store(&self) -> &S3Store {
        &self.shared.store
    }

    fn key(&self) -> &str {
        &self.shared.key
    }

    fn end(&mut self) -> Result<&mut S3Segment> {
        self.end
            .as_mut()
            .ok_or_else(|| Error::internal("something is appended while segments are written"))
    }

    /// Takes over the remainders of the finished segments, and sends the parts at their borders.
    fn join_finished(&mut self) -> Result<()> {
        let shared = self.shared.clone();
        let part_size = shared.plan.part_size;
        let mut finished =
            std::mem::take(&mut *shared.finished.lock().unwrap_or_else(PoisonError::into_inner));
        finished.sort_by_key(|segment| segment.index);
        let (mut carry, mut sender) = self
            .end
            .take()
            .map_or_else(|| (Chunk::default(), Sender::default()), S3Segment::into_parts);
        let mut end = (0, 0, 1);
        for segment in finished {
            if segment.index != self.joined.len() {
                return Err(Error::internal("segments are joined that do not follow each other")
                    .at("segment", segment.index));
            }
            let is_long = segment.len >= part_size;
            let head_is_there = is_long && segment.index > 0 && segment.head.is_none();
            if head_is_there && carry.len() > 0 {
                return Err(Error::internal("one side of a border is up, and the other is not")
                    .at("segment", segment.index));
            }
            let (joins, rest) = if is_long {
                (segment.head.unwrap_or_default(), segment.tail)
            } else {
                (segment.tail, Chunk::default())
            };
            carry.append(joins);
            // The first segment has no border in front: its remainder waits, like that of a
            // segment that is shorter than a part.
            if segment.index > 0 && carry.len() > 0 && (is_long || carry.len() >= part_size) {
                sender.send(
                    &shared,
                    shared.numbers[segment.index] - 1,
                    std::mem::take(&mut carry),
                )?;
            }
            carry.append(rest);
            self.sent.extend(segment.sent);
            self.joined.push(segment.len);
            end = (segment.index, segment.len, segment.next);
        }
        self.end = Some(S3Segment::behind(&shared, end, carry, sender));
        Ok(())
    }

    /// Bytes of the whole object.
    fn len(&self) -> u64 {
        self.lens().iter().sum()
    }

    /// The lengths of all segments.
    fn lens(&self) -> Vec<u64> {
        let mut lens = self.joined.clone();
        if let Some(end) = &self.end {
            lens.truncate(end.index());
            lens.push(end.offset());
        }
        lens
    }

    /// All parts, ascending. Fails unless they contain every byte of every segment once, in order.
    fn parts(&self) -> Result<Vec<(u32, SentPart)>> {
        let wrong = |number: u32| {
            Error::internal("the parts of an upload do not make up the archive").at("part", number)
        };
        let mut sent = self.sent.clone();
        sent.extend(self.end.iter().flat_map(|end| end.sent().clone()));
        let lens = self.lens();
        let mut at = PartPiece { segment: 0, offset: 0, len: 0 };
        let mut parts = Vec::with_capacity(sent.len());
        for (count, (number, stored)) in sent.into_iter().enumerate() {
            for piece in &stored.pieces {
                let ended = lens.get(usize::from(at.segment)) == Some(&at.offset);
                if ended && (piece.segment, piece.offset) == (at.segment + 1, 0) {
                    at = PartPiece { segment: piece.segment, ..PartPiece::default() };
                }
                if (piece.segment, piece.offset) != (at.segment, at.offset) {
                    return Err(wrong(number));
                }
                at.offset += piece.len;
            }
            let whole = stored.pieces.iter().map(|piece| piece.len).sum::<u64>() == stored.part.len;
            if !whole || (!self.shared.is_divided() && number as usize != count + 1) {
                return Err(wrong(number));
            }
            parts.push((number, stored.part));
        }
        if usize::from(at.segment) + 1 != lens.len() || lens.last() != Some(&at.offset) {
            return Err(wrong(parts.last().map_or(0, |(number, _)| *number)).at("bytes", at.offset));
        }
        Ok(parts)
    }

    /// Compares the parts that the service lists with those that were sent.
    fn check_listed(
        &self,
        upload: &Upload,
        listed: Result<BTreeMap<u32, ListedPart>>,
        parts: &[(u32, SentPart)],
    ) -> Result<()> {
        let listed = match listed {
            // The completion carries the checksum of the whole object.
            Err(error) if is_unlisted(&error) => {
                self.tell_unlisted(&error);
                return Ok(());
            }
            listed => listed?,
        };
        let same = |(number, part): &&(u32, SentPart)| {
            listed.get(number).is_some_and(|listed| {
                let agrees =
                    listed.checksum.as_ref().is_none_or(|checksum| *checksum == part.checksum);
                listed.len == part.len && same_etag(&listed.etag, &part.etag) && agrees
            })
        };
        match parts.iter().find(|part| !same(part)) {
            // Parts behind the last, of an earlier run with a longer archive, are not named in the
            // completion and vanish with it.
            None => Ok(()),
            Some((number, _)) => {
                Err(Error::new(ErrorKind::Io, "the store has another part than was sent")
                    .at("part", number))
            }
        }
        .map_err(|error| self.store().located(self.key())(error).at("upload_id", &upload.id))
    }

    fn commit_upload(&mut self) -> Result<()> {
        self.end()?.flush()?;
        let upload = self.shared.upload()?;
        let numbered = self.parts()?;
        let (listed, protection) = self.store().connection.wait(async {
            let protection = self.store().protection(self.key(), self.overwrite);
            Ok(tokio::join!(upload.parts(), protection))
        })?;
        self.check_listed(&upload, listed, &numbered)?;
        let parts: Vec<SentPart> = numbered.iter().map(|(_, part)| part.clone()).collect();
        let whole = upload.checksum_of(&parts)?;
        let protection = protection?;
        let completed = self.store().connection.wait(
            self.store().write_protected(protection, async |condition| {
                upload.complete(&numbered, Some(&whole), &condition).await
            }),
        );
        let written = match completed {
            Ok(written) => written,
            Err(error) => return self.explain_completion(&upload, error, &whole, &parts),
        };
        self.committed = true;
        self.check_finished(&written, upload.checksum, &whole, &parts)
    }

    /// The outcome of a completion that failed: success if the object is the one that was sent.
    fn explain_completion(
        &mut self,
        upload: &Upload,
        error: Error,
        whole: &str,
        parts: &[SentPart],
    ) -> Result<()> {
        let (len, shared) = (self.len(), self.shared.clone());
        let head = || shared.store.connection.wait(shared.store.head(&shared.key));
        // The request may have succeeded and its answer been lost.
        let could_be_ours = error.is(ErrorCode::InvalidPart)
            || matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::Exists | ErrorKind::Io | ErrorKind::Limit
            );
        let same = |head| identify(&head, upload.checksum, len, whole, parts) == Identity::Same;
        if could_be_ours && head().is_ok_and(same) {
            self.committed = true;
            return Ok(());
        }
        if error.is(ErrorCode::InvalidPart) {
            // The store lists the parts and refuses them: some stores do so after a completion
            // that was cut off. This upload stays refused, so the next run begins another.
            self.store().connection.wait(upload.abort_anyway())?;
        }
        if is_conflict(&error) {
            // This upload can never be completed, so no run should continue it.
            self.store().connection.wait(upload.abort_anyway())?;
            if head().is_ok() {
                return Err(Error::new(
                    ErrorKind::Exists,
                    "another client created the object meanwhile",
                )
                .because(error));
            }
        }
        Err(error)
    }

    fn protection(&self) -> Result<Protection> {
        let store = self.store();
        match &self.replaces {
            Some(etag) => store.connection.wait(store.protection_of_version(self.key(), etag)),
            None => store.connection.wait(store.protection(self.key(), self.overwrite)),
        }
    }

    /// Compares the finished object with the bytes that were sent, as far as the store returns its
    /// length and checksums, and removes one that differs.
    fn check_finished(
        &self,
        written: &Written,
        checksum: Checksum,
        whole: &str,
        parts: &[SentPart],
    ) -> Result<()> {
        let (store, key) = (self.store(), self.key());
        let Some(head) = store.connection.wait(store.look_at_finished(key))? else {
            self.warn_unchecked("these credentials may neither read nor list the object");
            return Ok(());
        };
        match identify(&head, checksum, self.len(), whole, parts) {
            Identity::Same => Ok(()),
            Identity::Unknown => {
                self.warn_unchecked(
                    "the store keeps no checksum of the object, and only its length was compared",
                );
                Ok(())
            }
            Identity::Other => {
                let other = Error::new(
                    ErrorKind::Io,
                    "the finished object is not what was sent: do not rely on it",
                )
                .code_as(ErrorCode::FinishedObjectDiffers);
                let other = store.located(key)(other)
                    .at("bytes", head.len.unwrap_or(0))
                    .at("sent", self.len())
                    .at("checksum_sent", whole)
                    .at("cannot_continue", true);
                let removing = store.remove_finished(key, Some(written), other);
                Err(store.connection.runtime().block_on(removing))
            }
        }
    }

    /// Tells that the list of parts was not compared. A policy can be changed; a store without
    /// lists stays without.
    fn tell_unlisted(&self, error: &Error) {
        let message = format!(
            "the uploaded parts cannot be listed, and are checked by the checksum of the whole \
             object alone: {error}"
        );
        let is_denied = error.kind() == ErrorKind::Denied;
        let event = if is_denied { Event::Warning { message } } else { Event::Note { message } };
        self.store().connection.options().observer.note(&event);
    }

    fn warn_unchecked(&self, why: &str) {
        let message =
            format!("the finished object was not checked: {why}. `amistore verify` reads it back");
        self.store().connection.options().observer.note(&Event::Warning { message });
    }

    fn commit_small(&mut self) -> Result<()> {
        let data = self.end()?.take_buffer().freeze();
        let (store, key, len) = (self.store(), self.key(), self.len());
        let metadata =
            encode_metadata(&self.shared.metadata.lock().unwrap_or_else(PoisonError::into_inner))?;
        let protection = self.protection()?;
        let put = |checksum| {
            let put = store.write_protected(protection.clone(), async |condition| {
                let (data, tags) = (data.clone(), self.shared.tags.clone());
                put_object(store, key, data, &metadata, tags, &condition, checksum).await
            });
            (checksum, store.connection.wait(put))
        };
        let (mut checksum, mut outcome) = put(store.checksum());
        if outcome.as_ref().is_err_and(is_conflict) {
            (checksum, outcome) = put(checksum);
        }
        if checksum != Checksum::Md5 && outcome.as_ref().is_err_and(lacks_checksum) {
            (checksum, outcome) = put(Checksum::Md5);
        }
        let whole = checksum.of(&data);
        match outcome {
            Ok(written) => self.check_finished(&written, checksum, &whole, &[]),
            // The condition fails for the object of an earlier attempt whose answer was lost.
            Err(error) => {
                let ours = |head| identify(&head, checksum, len, &whole, &[]) == Identity::Same;
                let head = || store.connection.wait(store.head(key));
                if error.was_repeated() && head().is_ok_and(ours) { Ok(()) } else { Err(error) }
            }
        }
    }

    /// Whether no upload was begun: the whole object is in memory.
    fn is_small(&self) -> bool {
        let begun = self.shared.upload.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        !begun && self.sent.is_empty() && self.end.as_ref().is_none_or(|end| end.sent().is_empty())
    }
}

impl ObjectWriter for S3Writer {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.end()?.append(bytes)
    }

    fn stored(&self) -> Arc<ByteRanges> {
        self.end.as_ref().map(S3Segment::stored).unwrap_or_default()
    }

    fn skip(&mut self, len: u64) -> Result<()> {
        self.end()?.skip(len)
    }

    fn parallel(&mut self) -> Option<&mut dyn ParallelWriter> {
        if self.shared.is_divided() { Some(self) } else { None }
    }

    fn identify(&mut self, digests: &BTreeMap<String, String>) {
        let mut metadata = self.shared.metadata.lock().unwrap_or_else(PoisonError::into_inner);
        metadata.extend(digests.clone());
    }

    fn commit(mut self: Box<Self>) -> Result<()> {
        if self.is_small() {
            self.commit_small()?;
        } else {
            self.commit_upload()?;
        }
        self.committed = true;
        Ok(())
    }
}

impl ParallelWriter for S3Writer {
    fn workers(&self) -> usize {
        self.workers
    }

    fn begin(&mut self, index: usize) -> Result<Box<dyn SegmentWriter>> {
        if index == 0
            && let Some(first) = self.end.take()
        {
            return Ok(Box::new(first));
        }
        Ok(Box::new(S3Segment::new(&self.shared, index)))
    }

    fn join(&mut self) -> Result<()> {
        self.join_finished()
    }
}

impl Drop for S3Writer {
    /// Ends all requests, and aborts an upload that is neither committed nor resumable.
    fn drop(&mut self) {
        let upload = self.shared.upload.lock().unwrap_or_else(PoisonError::into_inner).take();
        let abandoned = upload.filter(|_| !self.committed && self.shared.journal.is_none());
        let end = &mut self.end;
        let observer = self.shared.store.connection.options().observer.clone();
        self.shared.store.connection.runtime().block_on(async {
            if let Some(end) = end {
                end.shutdown().await;
            }
            if let Some(upload) = abandoned
                && let Err(error) = upload.abort_anyway().await
            {
                let message = format!(
                    "an upload could not be aborted, and its parts are billed until it is: \
                     aws s3api abort-multipart-upload --bucket {} --key {} --upload-id {} \
                     ({error})",
                    upload.store.bucket, upload.key, upload.id
                );
                observer.note(&Event::Warning { message });
            }
        });
    }
}

/// Whether another write of the same key was in progress.
fn is_conflict(error: &Error) -> bool {
    error.is(ErrorCode::ConditionalRequestConflict)
}
