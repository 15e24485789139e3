//! An archive on its way into a bucket.
//!
//! It is cut into parts of one size. Up to a number of them are on their way while the next is filled; more are not taken from whoever appends. An archive shorter than a part is put in one request.
//!
//! With a task the upload outlives this process: which upload it is, and each part before it is sent, are noted. Continued, it believes a part only if the service lists it with the length and checksum that were noted; bytes that fall into such parts are passed over. Without a task an upload that is not committed is aborted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::task::JoinSet;

use super::Checksum;
use super::attributes::{encode_metadata, encode_tags};
use super::part_plan::{MAX_PARTS, PartPlan};
use super::store::{Head, S3Store};
use super::upload::{Identity, ListedPart, SentPart, Upload, identify, md5_of_etag, put_object};
use crate::base::{Error, ErrorKind, Event, Result};
use crate::disk::Overwrite;
use crate::state::{PartRecord, SharedTask, TaskRecord, UploadState};
use crate::store::{Creation, Held, ObjectWriter};

/// See the module.
pub(super) struct S3Writer {
    store: S3Store,
    key: String,
    overwrite: Overwrite,
    metadata: BTreeMap<String, String>,
    tags: Option<String>,
    task: Option<SharedTask>,
    repeatable: bool,
    plan: PartPlan,
    upload: Option<Upload>,
    /// Parts that the service has, from an earlier run.
    kept: BTreeMap<u32, SentPart>,
    held: Arc<Held>,
    /// Bytes so far, held ones included.
    offset: u64,
    buffer: BytesMut,
    /// Parts by number, those of `kept` included, once they are reached or confirmed.
    sent: BTreeMap<u32, SentPart>,
    on_their_way: JoinSet<Result<(u32, SentPart, Option<BytesMut>)>>,
    /// Buffers that go round: touching fresh memory costs more than filling it.
    spare: VecDeque<BytesMut>,
    committed: bool,
}

impl S3Writer {
    /// Begins the object, or continues it if `creation` has a task that says so.
    pub(super) fn create(store: &S3Store, key: &str, creation: Creation) -> Result<Self> {
        let Creation { overwrite, at_most, attributes, task, repeatable } = creation;
        if overwrite == Overwrite::No {
            store.link.wait(store.refuse_existing(key))?;
        }
        let memory = store.options.part_memory;
        let plan = match store.options.part_size {
            Some(size) => PartPlan::with_parts_of(size, at_most, memory, !store.link.endpoint().is_empty()),
            None => PartPlan::new(at_most, memory),
        }?;
        let mut writer = Self {
            store: store.clone(),
            key: key.to_owned(),
            overwrite,
            metadata: attributes.metadata,
            tags: encode_tags(&attributes.tags),
            task,
            repeatable,
            plan,
            upload: None,
            kept: BTreeMap::new(),
            held: Arc::default(),
            offset: 0,
            buffer: BytesMut::new(),
            sent: BTreeMap::new(),
            on_their_way: JoinSet::new(),
            spare: VecDeque::new(),
            committed: false,
        };
        // What cannot be sent should be known before anything is read.
        encode_metadata(&writer.metadata)?;
        writer.resume()?;
        Ok(writer)
    }

    /// Looks for what an earlier run of the task left.
    fn resume(&mut self) -> Result<()> {
        let Some(task) = self.task.clone() else { return Ok(()) };
        let task = task.lock().unwrap_or_else(PoisonError::into_inner);
        if !task.is_resumed() {
            return Ok(());
        }
        let Some(earlier) = EarlierUpload::read(task.earlier()?)? else {
            // It may have been killed between beginning an upload and noting it.
            return self.store.link.wait(self.store.abort_unnamed(&self.key, &task.header().started, None));
        };
        if earlier.state.bucket != self.store.bucket || earlier.state.key != self.key {
            return Ok(());
        }
        if earlier.state.options != self.asked() {
            return Err(Error::usage("the upload that was interrupted was begun with another class, encryption or tags")
                .at("begun_with", &earlier.state.options)
                .at("asked_for", self.asked())
                .at("cannot_continue", true));
        }
        let checksum = Checksum::parse(&earlier.state.checksum)?;
        let upload = Upload { store: self.store.clone(), key: self.key.clone(), id: earlier.state.upload_id.clone(), checksum };
        let listed = match self.store.link.wait(upload.parts()) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let message = "the upload that was interrupted is gone: it begins anew".to_owned();
                self.store.link.options().observer.note(&Event::Warning { message });
                return Ok(());
            }
            Err(error) if is_unlisted(&error) => {
                let message = format!("the parts that are up cannot be listed, and are sent again: {error}");
                self.store.link.options().observer.note(&Event::Warning { message });
                Default::default()
            }
            listed => listed?,
        };
        self.plan = PartPlan::of_size(earlier.state.part_size, self.store.options.part_memory.max(2 * earlier.state.part_size))?;
        let mut held = Held::default();
        for (number, part) in &earlier.parts {
            if let Some(listed) = listed.get(number)
                && let Some(sent) = believed(part, listed, checksum)
            {
                if self.repeatable {
                    held.push(u64::from(*number - 1) * self.plan.part_size, part.len);
                }
                self.kept.insert(*number, sent);
            }
        }
        let message = format!("{} of {} parts are up already", self.kept.len(), earlier.parts.len());
        self.store.link.options().observer.note(&Event::Note { message });
        self.held = Arc::new(held);
        self.upload = Some(upload);
        Ok(())
    }

    /// What was asked for with the object, which is decided when its upload begins.
    fn asked(&self) -> String {
        let options = &self.store.options;
        let parts = [&options.storage_class, &options.sse, &options.sse_kms_key_id, &self.tags];
        parts.map(|part| part.as_deref().unwrap_or("-")).join(" ")
    }

    fn number(&self) -> u32 {
        (self.offset / self.plan.part_size) as u32 + 1
    }

    /// The upload, begun and noted now if it was not before.
    fn upload(&mut self) -> Result<Upload> {
        if let Some(upload) = &self.upload {
            return Ok(upload.clone());
        }
        let metadata = encode_metadata(&self.metadata)?;
        let upload = self.store.link.wait(Upload::begin(&self.store, &self.key, &metadata, self.tags.clone()))?;
        self.upload = Some(upload.clone());
        let state = UploadState {
            endpoint: self.store.link.endpoint(),
            region: self.store.link.region(),
            bucket: self.store.bucket.clone(),
            key: self.key.clone(),
            upload_id: upload.id.clone(),
            part_size: self.plan.part_size,
            checksum: upload.checksum.name().to_owned(),
            options: self.asked(),
            profile: self.store.link.profile(),
        };
        self.note(&TaskRecord::Upload(state), true)?;
        Ok(upload)
    }

    fn note(&self, record: &TaskRecord, sync: bool) -> Result<()> {
        let Some(task) = &self.task else { return Ok(()) };
        let mut task = task.lock().unwrap_or_else(PoisonError::into_inner);
        task.note(record)?;
        if sync { task.sync() } else { task.flush() }
    }

    /// Sends the part that was filled.
    fn send(&mut self) -> Result<()> {
        let number = (self.offset - self.buffer.len() as u64) / self.plan.part_size + 1;
        if number > MAX_PARTS {
            return Err(
                Error::new(ErrorKind::Limit, "the archive is longer than 10,000 parts of this size").at("part_size", self.plan.part_size)
            );
        }
        let number = number as u32;
        let upload = self.upload()?;
        let data = std::mem::take(&mut self.buffer).freeze();
        let checksum = upload.checksum.of(&data);
        if let Some(kept) = self.kept.get(&number)
            && (kept.len, kept.checksum.as_str()) == (data.len() as u64, checksum.as_str())
        {
            self.sent.insert(number, kept.clone());
            self.spare.extend(data.try_into_mut());
            return Ok(());
        }
        let part = PartRecord { number, len: data.len() as u64, checksum: checksum.clone(), etag: None };
        // Flushed, not synced: without this record the part is only sent again.
        self.note(&TaskRecord::Part(part), false)?;
        while self.on_their_way.len() as u64 + 1 >= self.plan.parts {
            self.confirm_one()?;
        }
        self.confirm_finished()?;
        let work = async move {
            let sent = upload.put(number, data.clone(), checksum).await?;
            Ok((number, sent, data.try_into_mut().ok()))
        };
        self.on_their_way.spawn_on(work, self.store.link.runtime().handle());
        Ok(())
    }

    /// Waits for one of the parts on their way; false if there is none.
    fn confirm_one(&mut self) -> Result<bool> {
        let on_their_way = &mut self.on_their_way;
        let finished = self.store.link.wait(async {
            match on_their_way.join_next().await {
                None => Ok(None),
                Some(Ok(result)) => result.map(Some),
                Some(Err(_)) => Err(Error::internal("the task of an upload ended by itself")),
            }
        })?;
        let Some((number, sent, buffer)) = finished else { return Ok(false) };
        self.confirmed(number, sent, buffer)?;
        Ok(true)
    }

    fn confirmed(&mut self, number: u32, sent: SentPart, buffer: Option<BytesMut>) -> Result<()> {
        let part = PartRecord { number, len: sent.len, checksum: sent.checksum.clone(), etag: Some(sent.etag.clone()) };
        self.note(&TaskRecord::Part(part), false)?;
        self.sent.insert(number, sent);
        self.spare.extend(buffer);
        Ok(())
    }

    /// Takes what is finished by now: a part that failed should end the work soon.
    fn confirm_finished(&mut self) -> Result<()> {
        while let Some(finished) = self.on_their_way.try_join_next() {
            let (number, sent, buffer) = finished.map_err(|_| Error::internal("the task of an upload ended by itself"))??;
            self.confirmed(number, sent, buffer)?;
        }
        Ok(())
    }

    /// All parts in order, checked for gaps.
    fn parts(&self) -> Result<Vec<SentPart>> {
        let whole = self.sent.keys().copied().eq(1..=self.sent.len() as u32);
        let len: u64 = self.sent.values().map(|part| part.len).sum();
        if !whole || len != self.offset {
            return Err(Error::internal("the parts of an upload do not make up the archive").at("bytes", len).at("expected", self.offset));
        }
        Ok(self.sent.values().cloned().collect())
    }

    /// Compares what the service lists with what was sent.
    fn check_listed(&self, upload: &Upload, parts: &[SentPart]) -> Result<()> {
        let listed = match self.store.link.wait(upload.parts()) {
            // The checksum that goes with the completion says the same.
            Err(error) if is_unlisted(&error) => return Ok(()),
            listed => listed?,
        };
        let same = |(number, part): (u32, &SentPart)| {
            listed.get(&number).is_some_and(|listed| {
                let agrees = listed.checksum.as_ref().is_none_or(|checksum| *checksum == part.checksum);
                listed.len == part.len && same_etag(&listed.etag, &part.etag) && agrees
            })
        };
        match (1..).zip(parts).find(|pair| !same(*pair)) {
            // Parts beyond the last, of an earlier run with more to say, are not named in the completion and vanish with it.
            None => Ok(()),
            Some((number, _)) => Err(Error::new(ErrorKind::Io, "the store has another part than was sent").at("part", number)),
        }
        .map_err(|error| self.store.located(&self.key)(error).at("upload_id", &upload.id))
    }

    fn commit_upload(&mut self) -> Result<()> {
        if !self.buffer.is_empty() {
            self.send()?;
        }
        while self.confirm_one()? {}
        let upload = self.upload()?;
        let parts = self.parts()?;
        self.check_listed(&upload, &parts)?;
        let whole = upload.checksum_of(&parts)?;
        if self.overwrite == Overwrite::No {
            // Some stores do not know the condition that goes with the completion, and say nothing.
            self.store.link.wait(self.store.refuse_existing(&self.key))?;
        }
        let completed = self.complete(&upload, &parts);
        let head = || self.store.link.wait(self.store.head(&self.key));
        if let Err(error) = completed {
            // The answer may have been lost, and not the request.
            let could_be_ours = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Exists | ErrorKind::Io | ErrorKind::Limit);
            let same = |head| identify(&head, upload.checksum, self.offset, &whole, &parts) == Identity::Same;
            if could_be_ours && head().is_ok_and(same) {
                self.committed = true;
                return Ok(());
            }
            if error.fact("code") == Some("InvalidPart") {
                // It lists the parts and does not take them: some stores are so after an attempt that was cut off. With this upload that would not change, so the next run begins another.
                self.store.link.wait(upload.abort_anyway())?;
            }
            if is_conflict(&error) {
                // Such an upload can never be completed, and must not be continued.
                self.store.link.wait(upload.abort_anyway())?;
                if head().is_ok() {
                    return Err(Error::new(ErrorKind::Exists, "the object was made by somebody else meanwhile").because(error));
                }
            }
            return Err(error);
        }
        self.committed = true;
        self.check_finished(head(), upload.checksum, &whole, &parts)
    }

    /// Success, if the finished object is what was sent, as far as the store lets us see.
    fn check_finished(&self, head: Result<Head>, checksum: Checksum, whole: &str, parts: &[SentPart]) -> Result<()> {
        let head = match head {
            Err(error) if error.kind() == ErrorKind::Denied => {
                self.warn_unchecked("these credentials may not read the object");
                return Ok(());
            }
            head => head?,
        };
        match identify(&head, checksum, self.offset, whole, parts) {
            Identity::Same => Ok(()),
            Identity::Unknown => {
                self.warn_unchecked("the store keeps no checksum of the object, and only its length was compared");
                Ok(())
            }
            Identity::Other => {
                let other = Error::new(ErrorKind::Io, "the finished object is not what was sent: do not rely on it");
                Err(self.store.located(&self.key)(other)
                    .at("bytes", head.len)
                    .at("sent", self.offset)
                    .at("checksum_sent", whole)
                    .at("cannot_continue", true))
            }
        }
    }

    fn warn_unchecked(&self, why: &str) {
        let message = format!("the finished object was not checked: {why}. `amistore verify` reads it back");
        self.store.link.options().observer.note(&Event::Warning { message });
    }

    fn complete(&self, upload: &Upload, parts: &[SentPart]) -> Result<()> {
        match self.store.link.wait(upload.complete(parts, self.overwrite)) {
            // A store that knows no conditions; nobody was there a moment ago.
            Err(error) if error.kind() == ErrorKind::Unsupported && self.overwrite == Overwrite::No => {
                self.store.link.wait(upload.complete(parts, Overwrite::Yes))
            }
            completed => completed,
        }
    }

    fn commit_small(&mut self) -> Result<()> {
        let metadata = encode_metadata(&self.metadata)?;
        let data = std::mem::take(&mut self.buffer).freeze();
        let put = |checksum, overwrite| {
            let data: Bytes = data.clone();
            let put = put_object(&self.store, &self.key, data, &metadata, self.tags.clone(), overwrite, checksum);
            (checksum, self.store.link.wait(put))
        };
        if self.overwrite == Overwrite::No {
            // Some stores do not know the condition, and say nothing.
            self.store.link.wait(self.store.refuse_existing(&self.key))?;
        }
        let (mut checksum, mut outcome) = put(self.store.options.checksum, self.overwrite);
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
        let head = || self.store.link.wait(self.store.head(&self.key));
        if let Err(error) = outcome {
            // The condition fails for an object that a lost answer left there.
            let ours = |head| identify(&head, checksum, self.offset, &whole, &[]) == Identity::Same;
            return if error.fact("attempts").is_some() && head().is_ok_and(ours) { Ok(()) } else { Err(error) };
        }
        self.check_finished(head(), checksum, &whole, &[])
    }
}

impl ObjectWriter for S3Writer {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let number = self.number();
            let left = self.plan.part_size - self.offset % self.plan.part_size;
            let len = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let (now, after) = rest.split_at(len);
            rest = after;
            match self.kept.get(&number).filter(|_| self.held.contains(self.offset, len as u64)) {
                Some(kept) => {
                    self.sent.insert(number, kept.clone());
                    self.offset += len as u64;
                }
                None => {
                    if self.buffer.capacity() == 0 {
                        let room = usize::try_from(self.plan.part_size).unwrap_or(usize::MAX);
                        self.buffer = self.spare.pop_front().unwrap_or_else(|| BytesMut::with_capacity(room));
                        self.buffer.clear();
                    }
                    self.buffer.extend_from_slice(now);
                    self.offset += len as u64;
                    if self.buffer.len() as u64 == self.plan.part_size {
                        self.send()?;
                    }
                }
            }
        }
        Ok(())
    }

    fn held(&self) -> Arc<Held> {
        self.held.clone()
    }

    fn pass(&mut self, len: u64) -> Result<()> {
        if !self.held.contains(self.offset, len) {
            return Err(Error::internal("bytes are passed over that the store does not have").at("offset", self.offset));
        }
        let end = self.offset + len;
        while self.offset < end {
            let number = self.number();
            if let Some(kept) = self.kept.get(&number) {
                self.sent.insert(number, kept.clone());
            }
            self.offset = end.min(u64::from(number) * self.plan.part_size);
        }
        Ok(())
    }

    fn identify(&mut self, content_sha256: &str) {
        self.metadata.insert("amistore-content-sha256".to_owned(), content_sha256.to_owned());
    }

    fn commit(mut self: Box<Self>) -> Result<()> {
        if self.upload.is_none() && self.sent.is_empty() {
            self.commit_small()?
        } else {
            self.commit_upload()?
        }
        self.committed = true;
        if let Some(task) = &self.task {
            task.lock().unwrap_or_else(PoisonError::into_inner).finish()?;
        }
        Ok(())
    }
}

impl Drop for S3Writer {
    /// Nothing is on its way when this returns. Without a task nothing is left, either.
    fn drop(&mut self) {
        let abandoned = self.upload.take().filter(|_| !self.committed && self.task.is_none());
        let on_their_way = &mut self.on_their_way;
        let observer = self.store.link.options().observer.clone();
        self.store.link.runtime().block_on(async {
            on_their_way.shutdown().await;
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

/// What a task noted of its upload.
struct EarlierUpload {
    state: UploadState,
    parts: BTreeMap<u32, PartRecord>,
}

impl EarlierUpload {
    fn read(records: impl Iterator<Item = Result<TaskRecord>>) -> Result<Option<Self>> {
        let mut found: Option<Self> = None;
        for record in records {
            match (record?, &mut found) {
                // A later upload replaces an earlier one that was gone.
                (TaskRecord::Upload(state), _) => found = Some(Self { state, parts: BTreeMap::new() }),
                (TaskRecord::Part(part), Some(found)) => {
                    found.parts.insert(part.number, part);
                }
                _ => {}
            }
        }
        Ok(found)
    }
}

/// The store answered, and said nothing of parts: it has no such list, not one as S3 has it, or these credentials may not see it.
fn is_unlisted(error: &Error) -> bool {
    error.fact("status") == Some("200") || matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Denied)
}

/// Some stores quote ETags in one answer and not in another.
fn same_etag(one: &str, other: &str) -> bool {
    one.trim_matches('"') == other.trim_matches('"')
}

/// Another write of the key was under way.
fn is_conflict(error: &Error) -> bool {
    error.fact("code") == Some("ConditionalRequestConflict")
}

/// A part that was noted and is listed, if both say the same: the checksum, or, from a service that lists none, the ETag that it answered with.
fn believed(noted: &PartRecord, listed: &ListedPart, checksum: Checksum) -> Option<SentPart> {
    let agrees = match (&listed.checksum, checksum) {
        (Some(listed), _) => *listed == noted.checksum,
        (None, Checksum::Md5) => md5_of_etag(&listed.etag).is_some_and(|md5| md5 == noted.checksum),
        (None, _) => noted.etag.as_deref().is_some_and(|etag| !etag.is_empty() && same_etag(etag, &listed.etag)),
    };
    (agrees && listed.len == noted.len).then(|| SentPart { len: noted.len, checksum: noted.checksum.clone(), etag: listed.etag.clone() })
}
