//! An archive on its way into a bucket.
//!
//! It is cut into parts of one size (`stretch`). An archive shorter than a part is put in one
//! request.
//!
//! With a task the upload outlives this process: which upload it is, and each part before it is
//! sent, are noted. Continued, it believes a part only if the service lists it with the length and
//! checksum that were noted; bytes that fall into such parts are passed over. Without a task an
//! upload that is not committed is aborted.
//!
//! Stretches that are written side by side have ranges of part numbers, planned from the longest
//! that each can become, so there are gaps between the numbers: services take that as long as no
//! checksum but MD5 was agreed on (S3, `CompletedPart`). Where one stretch ends and the next
//! begins, what is left over of the first goes up together with the first part of the second, under
//! the number that is kept free for it; a stretch shorter than a part joins what is left over. So
//! no part but the last is shorter than was planned, and where parts are cut depends on nothing but
//! the bytes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::Checksum;
use super::attributes::{encode_metadata, encode_tags};
use super::part_plan::PartPlan;
use super::store::{Head, S3Store};
use super::stretch::{Chunk, Kept, Placed, S3Stretch, Sender, Shared, asked};
use super::upload::{Identity, ListedPart, SentPart, Upload, identify, md5_of_etag, put_object};
use crate::base::{Error, ErrorKind, Event, Result};
use crate::checkpoint::{PartRecord, Piece, SharedTask, TaskRecord, UploadState};
use crate::localfs::Overwrite;
use crate::object::{Creation, Held, ObjectWriter, SideBySide, Stretch};

/// See the module.
pub(super) struct S3Writer {
    shared: Arc<Shared>,
    overwrite: Overwrite,
    /// Where what comes next is appended; not while the first stretches are written.
    end: Option<S3Stretch>,
    /// The lengths of the stretches that were joined, and their parts.
    joined: Vec<u64>,
    sent: BTreeMap<u32, Placed>,
    /// How many stretches there is memory for.
    lanes: usize,
    committed: bool,
}

impl S3Writer {
    /// Begins the object, or continues it if `creation` has a task that says so.
    pub(super) fn create(store: &S3Store, key: &str, creation: Creation) -> Result<Self> {
        let Creation { overwrite, at_most, stretches, attributes, task, repeatable } = creation;
        if overwrite == Overwrite::No {
            store.link.wait(store.refuse_existing(key))?;
        }
        // What cannot be sent should be known before anything is read.
        encode_metadata(&attributes.metadata)?;
        let tags = encode_tags(&attributes.tags);
        let earlier = EarlierUpload::find(store, key, tags.as_deref(), task.as_ref())?;
        let memory = store.options.part_memory;
        let plan = match (&earlier, store.options.part_size) {
            (Some(earlier), _) => {
                PartPlan::of_size(earlier.state.part_size, memory.max(2 * earlier.state.part_size))
            }
            (None, Some(size)) => {
                PartPlan::with_parts_of(size, at_most, memory, store.link.endpoint().is_custom())
            }
            (None, None) => PartPlan::new(PartPlan::with_borders(at_most, stretches.len()), memory),
        }?;
        let numbers = match &earlier {
            Some(earlier) if !earlier.state.stretches.is_empty() => earlier.state.stretches.clone(),
            Some(_) => vec![1],
            None => plan.numbers(&stretches)?,
        };
        if numbers.len() != stretches.len().max(1) {
            return Err(Error::internal("an upload is continued that was divided otherwise")
                .at("stretches", stretches.len()));
        }
        let divided = numbers.len() > 1;
        let mut store = store.clone();
        if divided && *store.options.checksum.get_or_insert(Checksum::Md5) != Checksum::Md5 {
            return Err(Error::usage(
                "services refuse gaps between part numbers with other checksums than MD5",
            )
            .at("checksum_algorithm", store.options.checksum().name()));
        }
        let (lanes, flights) =
            if divided { plan.lanes(memory) } else { (1, plan.parts as usize - 1) };
        let lanes = lanes.min(store.options.stretches_at_once.unwrap_or(lanes)).max(1);
        let (upload, parts) = match earlier {
            Some(earlier) => (Some(earlier.upload), earlier.parts),
            None => (None, BTreeMap::new()),
        };
        let shared = Arc::new(Shared {
            store,
            key: key.to_owned(),
            metadata: Mutex::new(attributes.metadata),
            tags,
            task,
            plan,
            kept: Kept::new(parts, numbers.len(), repeatable),
            numbers,
            upload: Mutex::new(upload),
            flights: Arc::new(Semaphore::new(flights)),
            finished: Mutex::default(),
        });
        let end = Some(S3Stretch::new(&shared, 0));
        Ok(Self {
            shared,
            overwrite,
            end,
            joined: Vec::new(),
            sent: BTreeMap::new(),
            lanes,
            committed: false,
        })
    }

    fn store(&self) -> &S3Store {
        &self.shared.store
    }

    fn key(&self) -> &str {
        &self.shared.key
    }

    fn end(&mut self) -> Result<&mut S3Stretch> {
        self.end
            .as_mut()
            .ok_or_else(|| Error::internal("something is appended while stretches are written"))
    }

    /// Takes over what is left at the ends of stretches that were finished, which follow what was
    /// joined before, and sends what belongs together.
    fn join_finished(&mut self) -> Result<()> {
        let shared = self.shared.clone();
        let part_size = shared.plan.part_size;
        let mut finished =
            std::mem::take(&mut *shared.finished.lock().unwrap_or_else(PoisonError::into_inner));
        finished.sort_by_key(|stretch| stretch.index);
        let (mut carry, mut sender) = self
            .end
            .take()
            .map_or_else(|| (Chunk::default(), Sender::default()), S3Stretch::into_parts);
        let mut end = (0, 0, 1);
        for stretch in finished {
            if stretch.index != self.joined.len() {
                return Err(Error::internal("stretches are joined that do not follow each other")
                    .at("stretch", stretch.index));
            }
            let is_long = stretch.len >= part_size;
            let head_is_there = is_long && stretch.index > 0 && stretch.head.is_none();
            if head_is_there && carry.len() > 0 {
                return Err(Error::internal("one side of a border is up, and the other is not")
                    .at("stretch", stretch.index));
            }
            let (joins, rest) = if is_long {
                (stretch.head.unwrap_or_default(), stretch.tail)
            } else {
                (stretch.tail, Chunk::default())
            };
            carry.append(joins);
            // The first has nothing in front of it: what is left of it waits, like that of a
            // stretch that is too short for a part.
            if stretch.index > 0 && carry.len() > 0 && (is_long || carry.len() >= part_size) {
                sender.send(
                    &shared,
                    shared.numbers[stretch.index] - 1,
                    std::mem::take(&mut carry),
                )?;
            }
            carry.append(rest);
            self.sent.extend(stretch.sent);
            self.joined.push(stretch.len);
            end = (stretch.index, stretch.len, stretch.next);
        }
        self.end = Some(S3Stretch::behind(&shared, end, carry, sender));
        Ok(())
    }

    /// Bytes of the whole object.
    fn len(&self) -> u64 {
        self.lens().iter().sum()
    }

    /// The lengths of all stretches.
    fn lens(&self) -> Vec<u64> {
        let mut lens = self.joined.clone();
        if let Some(end) = &self.end {
            lens.truncate(end.index());
            lens.push(end.offset());
        }
        lens
    }

    /// All parts in order, if they make up the object: every byte of every stretch once, and in its
    /// place.
    fn parts(&self) -> Result<Vec<(u32, SentPart)>> {
        let wrong = |number: u32| {
            Error::internal("the parts of an upload do not make up the archive").at("part", number)
        };
        let mut sent = self.sent.clone();
        sent.extend(self.end.iter().flat_map(|end| end.sent().clone()));
        let lens = self.lens();
        let mut at = Piece { stretch: 0, offset: 0, len: 0 };
        let mut parts = Vec::with_capacity(sent.len());
        for (count, (number, placed)) in sent.into_iter().enumerate() {
            for piece in &placed.pieces {
                let ended = lens.get(usize::from(at.stretch)) == Some(&at.offset);
                if ended && (piece.stretch, piece.offset) == (at.stretch + 1, 0) {
                    at = Piece { stretch: piece.stretch, ..Piece::default() };
                }
                if (piece.stretch, piece.offset) != (at.stretch, at.offset) {
                    return Err(wrong(number));
                }
                at.offset += piece.len;
            }
            let whole = placed.pieces.iter().map(|piece| piece.len).sum::<u64>() == placed.part.len;
            if !whole || (!self.shared.is_divided() && number as usize != count + 1) {
                return Err(wrong(number));
            }
            parts.push((number, placed.part));
        }
        if usize::from(at.stretch) + 1 != lens.len() || lens.last() != Some(&at.offset) {
            return Err(wrong(parts.last().map_or(0, |(number, _)| *number)).at("bytes", at.offset));
        }
        Ok(parts)
    }

    /// Compares what the service lists with what was sent.
    fn check_listed(&self, upload: &Upload, parts: &[(u32, SentPart)]) -> Result<()> {
        let listed = match self.store().link.wait(upload.parts()) {
            // The checksum that goes with the completion says the same.
            Err(error) if is_unlisted(&error) => return Ok(()),
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
            // Parts beyond the last, of an earlier run with more to say, are not named in the
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
        self.check_listed(&upload, &numbered)?;
        let parts: Vec<SentPart> = numbered.iter().map(|(_, part)| part.clone()).collect();
        let whole = upload.checksum_of(&parts)?;
        if self.overwrite == Overwrite::No {
            // Some stores do not know the condition that goes with the completion, and say nothing.
            self.store().link.wait(self.store().refuse_existing(self.key()))?;
        }
        let completed = self.complete(&upload, &numbered, &whole);
        let (len, shared) = (self.len(), self.shared.clone());
        let head = || shared.store.link.wait(shared.store.head(&shared.key));
        if let Err(error) = completed {
            // The answer may have been lost, and not the request.
            let could_be_ours = matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::Exists | ErrorKind::Io | ErrorKind::Limit
            );
            let same =
                |head| identify(&head, upload.checksum, len, &whole, &parts) == Identity::Same;
            if could_be_ours && head().is_ok_and(same) {
                self.committed = true;
                return Ok(());
            }
            if error.fact("code") == Some("InvalidPart") {
                // It lists the parts and does not take them: some stores are so after an attempt
                // that was cut off. With this upload that would not change, so the next run begins
                // another.
                self.store().link.wait(upload.abort_anyway())?;
            }
            if is_conflict(&error) {
                // Such an upload can never be completed, and must not be continued.
                self.store().link.wait(upload.abort_anyway())?;
                if head().is_ok() {
                    return Err(Error::new(
                        ErrorKind::Exists,
                        "the object was made by somebody else meanwhile",
                    )
                    .because(error));
                }
            }
            if self.shared.is_divided() && error.fact("code") == Some("InvalidPartOrder") {
                return Err(error.at(
                    "gaps_in_part_numbers",
                    "refused by this store: use --restart --volumes-at-once 1",
                ));
            }
            return Err(error);
        }
        self.committed = true;
        self.check_finished(head(), upload.checksum, &whole, &parts)
    }

    /// Success, if the finished object is what was sent, as far as the store lets us see.
    fn check_finished(
        &self,
        head: Result<Head>,
        checksum: Checksum,
        whole: &str,
        parts: &[SentPart],
    ) -> Result<()> {
        let head = match head {
            Err(error) if error.kind() == ErrorKind::Denied => {
                self.warn_unchecked("these credentials may not read the object");
                return Ok(());
            }
            head => head?,
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
                );
                Err(self.store().located(self.key())(other)
                    .at("bytes", head.len)
                    .at("sent", self.len())
                    .at("checksum_sent", whole)
                    .at("cannot_continue", true))
            }
        }
    }

    fn warn_unchecked(&self, why: &str) {
        let message =
            format!("the finished object was not checked: {why}. `amistore verify` reads it back");
        self.store().link.options().observer.note(&Event::Warning { message });
    }

    fn complete(&self, upload: &Upload, parts: &[(u32, SentPart)], whole: &str) -> Result<()> {
        match self.store().link.wait(upload.complete(parts, whole, self.overwrite)) {
            // A store that knows no conditions; nobody was there a moment ago.
            Err(error)
                if error.kind() == ErrorKind::Unsupported && self.overwrite == Overwrite::No =>
            {
                self.store().link.wait(upload.complete(parts, whole, Overwrite::Yes))
            }
            completed => completed,
        }
    }

    fn commit_small(&mut self) -> Result<()> {
        let data = self.end()?.take_buffer().freeze();
        let (store, key, len) = (self.store(), self.key(), self.len());
        let metadata =
            encode_metadata(&self.shared.metadata.lock().unwrap_or_else(PoisonError::into_inner))?;
        let put = |checksum, overwrite| {
            let data: Bytes = data.clone();
            let put = put_object(
                store,
                key,
                data,
                &metadata,
                self.shared.tags.clone(),
                overwrite,
                checksum,
            );
            (checksum, store.link.wait(put))
        };
        if self.overwrite == Overwrite::No {
            // Some stores do not know the condition, and say nothing.
            store.link.wait(store.refuse_existing(key))?;
        }
        let (mut checksum, mut outcome) = put(store.options.checksum(), self.overwrite);
        if outcome.as_ref().is_err_and(is_conflict) {
            (checksum, outcome) = put(checksum, self.overwrite);
        }
        // The store lacks the checksum, or the condition.
        for overwrite in [self.overwrite, Overwrite::Yes] {
            if outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::Unsupported) {
                (checksum, outcome) = put(Checksum::Md5, overwrite);
            }
        }
        let whole = checksum.of(&data);
        let head = || store.link.wait(store.head(key));
        if let Err(error) = outcome {
            // The condition fails for an object that a lost answer left there.
            let ours = |head| identify(&head, checksum, len, &whole, &[]) == Identity::Same;
            return if error.fact("attempts").is_some() && head().is_ok_and(ours) {
                Ok(())
            } else {
                Err(error)
            };
        }
        self.check_finished(head(), checksum, &whole, &[])
    }

    /// Whether nothing is up, and no upload was begun: all of it waits in memory.
    fn is_small(&self) -> bool {
        let begun = self.shared.upload.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        !begun && self.sent.is_empty() && self.end.as_ref().is_none_or(|end| end.sent().is_empty())
    }
}

impl ObjectWriter for S3Writer {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.end()?.append(bytes)
    }

    fn held(&self) -> Arc<Held> {
        self.end.as_ref().map(S3Stretch::held).unwrap_or_default()
    }

    fn pass(&mut self, len: u64) -> Result<()> {
        self.end()?.pass(len)
    }

    fn side_by_side(&mut self) -> Option<&mut dyn SideBySide> {
        if self.shared.is_divided() { Some(self) } else { None }
    }

    fn identify(&mut self, content_sha256: &str) {
        let mut metadata = self.shared.metadata.lock().unwrap_or_else(PoisonError::into_inner);
        metadata.insert("amistore-content-sha256".to_owned(), content_sha256.to_owned());
    }

    fn commit(mut self: Box<Self>) -> Result<()> {
        if self.is_small() {
            self.commit_small()?
        } else {
            self.commit_upload()?
        }
        self.committed = true;
        if let Some(task) = &self.shared.task {
            task.lock().unwrap_or_else(PoisonError::into_inner).finish()?;
        }
        Ok(())
    }
}

impl SideBySide for S3Writer {
    fn lanes(&self) -> usize {
        self.lanes
    }

    fn begin(&mut self, index: usize) -> Result<Box<dyn Stretch>> {
        if index == 0
            && let Some(first) = self.end.take()
        {
            return Ok(Box::new(first));
        }
        Ok(Box::new(S3Stretch::new(&self.shared, index)))
    }

    fn join(&mut self) -> Result<()> {
        self.join_finished()
    }
}

impl Drop for S3Writer {
    /// Nothing is on its way when this returns. Without a task nothing is left, either.
    fn drop(&mut self) {
        let upload = self.shared.upload.lock().unwrap_or_else(PoisonError::into_inner).take();
        let abandoned = upload.filter(|_| !self.committed && self.shared.task.is_none());
        let end = &mut self.end;
        let observer = self.shared.store.link.options().observer.clone();
        self.shared.store.link.runtime().block_on(async {
            if let Some(end) = end {
                end.shutdown().await;
            }
            if let Some(upload) = abandoned
                && let Err(error) = upload.abort_anyway().await
            {
                let message = format!(
                    "an upload could not be aborted, and what was sent is billed until it is: aws s3api abort-multipart-upload --bucket {} --key {} --upload-id {} ({error})",
                    upload.store.bucket, upload.key, upload.id
                );
                observer.note(&Event::Warning { message });
            }
        });
    }
}

/// The upload of an earlier run, and what of it is there.
struct EarlierUpload {
    state: UploadState,
    upload: Upload,
    parts: BTreeMap<u32, Placed>,
}

impl EarlierUpload {
    /// Looks for what an earlier run of the task left.
    fn find(
        store: &S3Store,
        key: &str,
        tags: Option<&str>,
        task: Option<&SharedTask>,
    ) -> Result<Option<Self>> {
        let Some(task) = task else { return Ok(None) };
        let task = task.lock().unwrap_or_else(PoisonError::into_inner);
        if !task.is_resumed() {
            return Ok(None);
        }
        let observer = &store.link.options().observer;
        let Some(NotedUpload { state, parts: noted }) = NotedUpload::read(task.earlier()?)? else {
            // It may have been killed between beginning an upload and noting it.
            return store
                .link
                .wait(store.abort_unnamed(key, &task.header().started, None))
                .map(|()| None);
        };
        if state.bucket != store.bucket || state.key != key {
            return Ok(None);
        }
        let asked = asked(store, tags);
        if state.options != asked {
            return Err(Error::usage(
                "the upload that was interrupted was begun with another class, encryption or tags",
            )
            .at("begun_with", &state.options)
            .at("asked_for", asked)
            .at("cannot_continue", true));
        }
        let checksum = Checksum::parse(&state.checksum)?;
        let upload = Upload {
            store: store.clone(),
            key: key.to_owned(),
            id: state.upload_id.clone(),
            checksum,
        };
        let listed = match store.link.wait(upload.parts()) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let message = "the upload that was interrupted is gone: it begins anew".to_owned();
                observer.note(&Event::Warning { message });
                return Ok(None);
            }
            Err(error) if is_unlisted(&error) => {
                let message =
                    format!("the parts that are up cannot be listed, and are sent again: {error}");
                observer.note(&Event::Warning { message });
                Default::default()
            }
            listed => listed?,
        };
        let mut parts = BTreeMap::new();
        for (number, part) in &noted {
            if let Some(listed) = listed.get(number)
                && let Some(sent) = believed(part, listed, checksum)
            {
                let plain = Piece {
                    stretch: 0,
                    offset: u64::from(*number - 1) * state.part_size,
                    len: part.len,
                };
                let pieces =
                    if state.stretches.is_empty() { vec![plain] } else { part.pieces.clone() };
                parts.insert(*number, Placed { part: sent, pieces });
            }
        }
        let message = format!("{} of {} parts are up already", parts.len(), noted.len());
        observer.note(&Event::Note { message });
        Ok(Some(Self { state, upload, parts }))
    }
}

/// What a task noted of its upload.
struct NotedUpload {
    state: UploadState,
    parts: BTreeMap<u32, PartRecord>,
}

impl NotedUpload {
    fn read(records: impl Iterator<Item = Result<TaskRecord>>) -> Result<Option<Self>> {
        let mut found: Option<Self> = None;
        for record in records {
            match (record?, &mut found) {
                // A later upload replaces an earlier one that was gone.
                (TaskRecord::Upload(state), _) => {
                    found = Some(Self { state, parts: BTreeMap::new() })
                }
                (TaskRecord::Part(part), Some(found)) => {
                    found.parts.insert(part.number, part);
                }
                _ => {}
            }
        }
        Ok(found)
    }
}

/// The store answered, and said nothing of parts: it has no such list, not one as S3 has it, or
/// these credentials may not see it.
fn is_unlisted(error: &Error) -> bool {
    error.fact("status") == Some("200")
        || matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Denied)
}

/// Some stores quote ETags in one answer and not in another.
fn same_etag(one: &str, other: &str) -> bool {
    one.trim_matches('"') == other.trim_matches('"')
}

/// Another write of the key was under way.
fn is_conflict(error: &Error) -> bool {
    error.fact("code") == Some("ConditionalRequestConflict")
}

/// A part that was noted and is listed, if both say the same: the checksum, or, from a service that
/// lists none, the ETag that it answered with.
fn believed(noted: &PartRecord, listed: &ListedPart, checksum: Checksum) -> Option<SentPart> {
    let agrees = match (&listed.checksum, checksum) {
        (Some(listed), _) => *listed == noted.checksum,
        (None, Checksum::Md5)
            if md5_of_etag(&listed.etag).is_some_and(|md5| md5 == noted.checksum) =>
        {
            true
        }
        (None, _) => noted
            .etag
            .as_deref()
            .is_some_and(|etag| !etag.is_empty() && same_etag(etag, &listed.etag)),
    };
    (agrees && listed.len == noted.len).then(|| SentPart {
        len: noted.len,
        checksum: noted.checksum.clone(),
        etag: listed.etag.clone(),
    })
}
