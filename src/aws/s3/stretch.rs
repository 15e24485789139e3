//! A stretch of an archive on its way up, and what all stretches of an upload share.
//!
//! Bytes are cut into parts of one size, and up to a number of parts are on their way while the
//! next is filled; more are not taken from whoever appends.
//!
//! An object that is written front to back has one stretch. One whose stretches are written side by
//! side has a range of part numbers for each, and what lies at the borders waits: the first part of
//! a stretch is kept until the stretch before it has ended, because what that leaves over is too
//! short for a part of its own. See `writer` for how borders are closed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::attributes::encode_metadata;
use super::part_plan::PartPlan;
use super::store::S3Store;
use super::upload::{SentPart, Upload};
use crate::base::{Error, ErrorKind, Result};
use crate::checkpoint::{PartRecord, Piece, SharedTask, TaskRecord, UploadState};
use crate::object::{self, Held};

/// What the stretches of an upload share.
pub(super) struct Shared {
    pub(super) store: S3Store,
    pub(super) key: String,
    pub(super) metadata: Mutex<BTreeMap<String, String>>,
    pub(super) tags: Option<String>,
    pub(super) task: Option<SharedTask>,
    pub(super) plan: PartPlan,
    /// The number of the first part of each stretch. Below each but the first there is one number
    /// for the border.
    pub(super) numbers: Vec<u32>,
    pub(super) upload: Mutex<Option<Upload>>,
    pub(super) kept: Kept,
    /// One permit for each part that may be on its way.
    pub(super) flights: Arc<Semaphore>,
    /// Stretches that were finished and wait to be joined.
    pub(super) finished: Mutex<Vec<Finished>>,
}

/// Parts that the service has from an earlier run.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) parts: BTreeMap<u32, Placed>,
    /// Of each stretch what lies in such parts: where it begins and ends, and the part.
    covered: Vec<Vec<(u64, u64, u32)>>,
    held: Vec<Arc<Held>>,
}

/// A part that the service has, and what it is made of.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) part: SentPart,
    pub(super) pieces: Vec<Piece>,
}

impl Kept {
    /// Parts for `stretches` stretches. What lies in them is passed over if it is known to come
    /// again as it was.
    pub(super) fn new(parts: BTreeMap<u32, Placed>, stretches: usize, passed_over: bool) -> Self {
        let mut covered = vec![Vec::new(); stretches];
        if passed_over {
            for (number, placed) in &parts {
                for piece in &placed.pieces {
                    if let Some(covered) = covered.get_mut(usize::from(piece.stretch)) {
                        covered.push((piece.offset, piece.offset + piece.len, *number));
                    }
                }
            }
        }
        let mut held = Vec::new();
        for covered in &mut covered {
            covered.sort_unstable();
            let mut ranges = Held::default();
            covered.iter().for_each(|(start, end, _)| ranges.push(*start, end - start));
            held.push(Arc::new(ranges));
        }
        Self { parts, covered, held }
    }

    /// The part in which this byte lies, and where that ends.
    fn covering(&self, stretch: usize, offset: u64) -> Option<(u64, u32)> {
        let covered = self.covered.get(stretch)?;
        let (_, end, number) =
            covered[..covered.partition_point(|(start, _, _)| *start <= offset)].last()?;
        (offset < *end).then_some((*end, *number))
    }
}

impl Shared {
    /// The upload, begun and noted now if it was not before.
    pub(super) fn upload(&self) -> Result<Upload> {
        let mut known = self.upload.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(upload) = &*known {
            return Ok(upload.clone());
        }
        let metadata =
            encode_metadata(&self.metadata.lock().unwrap_or_else(PoisonError::into_inner))?;
        let upload = self.store.link.until_answered().wait(Upload::begin(
            &self.store,
            &self.key,
            &metadata,
            self.tags.clone(),
        ))?;
        *known = Some(upload.clone());
        let state = UploadState {
            endpoint: self.store.link.endpoint().to_string(),
            region: self.store.link.region(),
            bucket: self.store.bucket.clone(),
            key: self.key.clone(),
            upload_id: upload.id.clone(),
            part_size: self.plan.part_size,
            checksum: upload.checksum.name().to_owned(),
            options: asked(&self.store, self.tags.as_deref()),
            profile: self.store.link.profile(),
            stretches: if self.is_divided() { self.numbers.clone() } else { Vec::new() },
        };
        self.note(&TaskRecord::Upload(state), true)?;
        Ok(upload)
    }

    pub(super) fn is_divided(&self) -> bool {
        self.numbers.len() > 1
    }

    /// The first number that is not for parts of this stretch.
    fn end_of(&self, stretch: usize) -> u32 {
        // One below the first part of the next is for the border.
        self.numbers.get(stretch + 1).map_or(super::MAX_PARTS as u32 + 1, |next| next - 1)
    }

    fn note(&self, record: &TaskRecord, sync: bool) -> Result<()> {
        let Some(task) = &self.task else { return Ok(()) };
        let mut task = task.lock().unwrap_or_else(PoisonError::into_inner);
        task.note(record)?;
        if sync { task.sync() } else { task.flush() }
    }
}

/// What was asked for with the object, which is decided when its upload begins.
pub(super) fn asked(store: &S3Store, tags: Option<&str>) -> String {
    let options = &store.options;
    let parts = [
        options.storage_class.as_deref(),
        options.sse.as_deref(),
        options.sse_kms_key_id.as_deref(),
        tags,
    ];
    parts.map(|part| part.unwrap_or("-")).join(" ")
}

/// Bytes that wait to become a part, or a piece of one.
#[derive(Default)]
pub(super) struct Chunk {
    pub(super) bytes: BytesMut,
    pub(super) pieces: Vec<Piece>,
}

impl Chunk {
    pub(super) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn push(&mut self, bytes: &[u8], stretch: usize, offset: u64) {
        self.bytes.extend_from_slice(bytes);
        self.extend_pieces(Piece { stretch: stretch as u16, offset, len: bytes.len() as u64 });
    }

    /// Puts `other` behind it.
    pub(super) fn append(&mut self, other: Self) {
        if self.bytes.is_empty() {
            self.bytes = other.bytes;
        } else {
            self.bytes.extend_from_slice(&other.bytes);
        }
        other.pieces.into_iter().for_each(|piece| self.extend_pieces(piece));
    }

    fn extend_pieces(&mut self, piece: Piece) {
        match self.pieces.last_mut() {
            Some(last)
                if last.stretch == piece.stretch && last.offset + last.len == piece.offset =>
            {
                last.len += piece.len
            }
            _ => self.pieces.push(piece),
        }
    }
}

/// Sends parts and hears what became of them.
#[derive(Default)]
pub(super) struct Sender {
    /// Parts by number, those of earlier runs included, once they are reached or confirmed.
    pub(super) sent: BTreeMap<u32, Placed>,
    on_their_way: JoinSet<Result<(u32, Placed, Option<BytesMut>)>>,
    /// Buffers that go round: touching fresh memory costs more than filling it. Not where stretches
    /// share the memory.
    spare: VecDeque<BytesMut>,
}

impl Sender {
    /// An empty buffer for a part.
    fn buffer(&mut self, shared: &Shared) -> BytesMut {
        let room = usize::try_from(shared.plan.part_size).unwrap_or(usize::MAX);
        let mut buffer = self.spare.pop_front().unwrap_or_else(|| BytesMut::with_capacity(room));
        buffer.clear();
        buffer
    }

    /// Sends `chunk` as part `number`, once there is room for another part on its way.
    pub(super) fn send(&mut self, shared: &Shared, number: u32, chunk: Chunk) -> Result<()> {
        let upload = shared.upload()?;
        let Chunk { bytes, pieces } = chunk;
        let data = bytes.freeze();
        let len = data.len() as u64;
        let checksum = upload.checksum.of(&data);
        if let Some(kept) = shared.kept.parts.get(&number)
            && (kept.part.len, kept.part.checksum.as_str()) == (len, checksum.as_str())
        {
            self.sent.insert(number, Placed { part: kept.part.clone(), pieces });
            self.recycle(shared, data.try_into_mut().ok());
            return Ok(());
        }
        // Flushed, not synced: without this record the part is only sent again.
        shared.note(
            &TaskRecord::Part(record(shared, number, len, &checksum, None, &pieces)),
            false,
        )?;
        let permit = self.permit(shared)?;
        self.confirm_finished(shared)?;
        let recycled = !shared.is_divided();
        let work = async move {
            let part = upload.put(number, data.clone(), checksum).await?;
            let buffer = if recycled { data.try_into_mut().ok() } else { None };
            drop(permit);
            Ok((number, Placed { part, pieces }, buffer))
        };
        self.on_their_way.spawn_on(work, shared.store.link.runtime().handle());
        Ok(())
    }

    /// Waits until one more part may be on its way.
    fn permit(&mut self, shared: &Shared) -> Result<OwnedSemaphorePermit> {
        loop {
            if let Ok(permit) = shared.flights.clone().try_acquire_owned() {
                return Ok(permit);
            }
            // One of ours that fails should end the work; if there is none, others have all the
            // room.
            if !self.confirm_one(shared)? {
                let flights = shared.flights.clone();
                return shared.store.link.wait(async {
                    flights
                        .acquire_owned()
                        .await
                        .map_err(|_| Error::internal("the permits of parts are gone"))
                });
            }
        }
    }

    /// Waits for one of the parts on their way; false if there is none.
    fn confirm_one(&mut self, shared: &Shared) -> Result<bool> {
        let on_their_way = &mut self.on_their_way;
        let finished = shared.store.link.wait(async {
            match on_their_way.join_next().await {
                None => Ok(None),
                Some(Ok(result)) => result.map(Some),
                Some(Err(_)) => Err(Error::internal("the task of an upload ended by itself")),
            }
        })?;
        let Some((number, placed, buffer)) = finished else { return Ok(false) };
        self.confirmed(shared, number, placed, buffer)?;
        Ok(true)
    }

    /// Waits for all of them.
    pub(super) fn confirm_all(&mut self, shared: &Shared) -> Result<()> {
        while self.confirm_one(shared)? {}
        Ok(())
    }

    fn confirmed(
        &mut self,
        shared: &Shared,
        number: u32,
        placed: Placed,
        buffer: Option<BytesMut>,
    ) -> Result<()> {
        let SentPart { len, checksum, etag } = &placed.part;
        shared.note(
            &TaskRecord::Part(record(
                shared,
                number,
                *len,
                checksum,
                Some(etag.clone()),
                &placed.pieces,
            )),
            false,
        )?;
        self.sent.insert(number, placed);
        self.recycle(shared, buffer);
        Ok(())
    }

    fn recycle(&mut self, shared: &Shared, buffer: Option<BytesMut>) {
        if !shared.is_divided() {
            self.spare.extend(buffer);
        }
    }

    /// Takes what is finished by now: a part that failed should end the work soon.
    fn confirm_finished(&mut self, shared: &Shared) -> Result<()> {
        while let Some(finished) = self.on_their_way.try_join_next() {
            let (number, placed, buffer) = finished
                .map_err(|_| Error::internal("the task of an upload ended by itself"))??;
            self.confirmed(shared, number, placed, buffer)?;
        }
        Ok(())
    }
}

/// What is noted of a part. Pieces that follow from the number are not.
fn record(
    shared: &Shared,
    number: u32,
    len: u64,
    checksum: &str,
    etag: Option<String>,
    pieces: &[Piece],
) -> PartRecord {
    let pieces = if shared.is_divided() { pieces.to_vec() } else { Vec::new() };
    PartRecord { number, len, checksum: checksum.to_owned(), etag, pieces }
}

/// See the module.
pub(super) struct S3Stretch {
    shared: Arc<Shared>,
    index: usize,
    /// Bytes so far, held ones included.
    offset: u64,
    buffer: Chunk,
    /// The first part, if it waits for the stretch before.
    head: Option<Chunk>,
    /// Whether there is no first part to wait with any more.
    is_behind_head: bool,
    /// The number of the next part.
    next: u32,
    sender: Sender,
}

/// A stretch all of whose bytes were appended, and what is left to do at its ends.
pub(super) struct Finished {
    pub(super) index: usize,
    pub(super) len: u64,
    /// The first part, unless it is there already, or there was not enough for one.
    pub(super) head: Option<Chunk>,
    /// What is behind the last whole part.
    pub(super) tail: Chunk,
    /// The number of the part after the last.
    pub(super) next: u32,
    pub(super) sent: BTreeMap<u32, Placed>,
}

impl S3Stretch {
    /// A stretch of which nothing is there yet. All but the first wait with their first part.
    pub(super) fn new(shared: &Arc<Shared>, index: usize) -> Self {
        Self {
            shared: shared.clone(),
            index,
            offset: 0,
            buffer: Chunk::default(),
            head: None,
            is_behind_head: index == 0,
            next: shared.numbers.get(index).copied().unwrap_or(1),
            sender: Sender::default(),
        }
    }

    /// Goes on behind a stretch that ended with `tail`; what `sender` has on its way stays there.
    pub(super) fn behind(
        shared: &Arc<Shared>,
        (index, offset, next): (usize, u64, u32),
        tail: Chunk,
        sender: Sender,
    ) -> Self {
        Self {
            shared: shared.clone(),
            index,
            offset,
            buffer: tail,
            head: None,
            is_behind_head: true,
            next,
            sender,
        }
    }

    pub(super) fn index(&self) -> usize {
        self.index
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn held(&self) -> Arc<Held> {
        self.shared.kept.held.get(self.index).cloned().unwrap_or_default()
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let part_size = self.shared.plan.part_size;
        let mut rest = bytes;
        while !rest.is_empty() {
            let left = match self.shared.kept.covering(self.index, self.offset) {
                Some((end, number)) => {
                    let len = (rest.len() as u64).min(end - self.offset);
                    self.reach(number, len)?;
                    len
                }
                None => {
                    let len = (rest.len() as u64).min(part_size - self.buffer.len());
                    if self.buffer.bytes.capacity() == 0 {
                        self.buffer.bytes = self.sender.buffer(&self.shared);
                    }
                    self.buffer.push(&rest[..len as usize], self.index, self.offset);
                    self.offset += len;
                    if self.buffer.len() == part_size {
                        self.cut()?;
                    }
                    len
                }
            };
            rest = &rest[left as usize..];
        }
        Ok(())
    }

    pub(super) fn pass(&mut self, len: u64) -> Result<()> {
        let end = self.offset + len;
        while self.offset < end {
            let Some((covered, number)) = self.shared.kept.covering(self.index, self.offset) else {
                return Err(Error::internal("bytes are passed over that the store does not have")
                    .at("offset", self.offset));
            };
            self.reach(number, end.min(covered) - self.offset)?;
        }
        Ok(())
    }

    /// The next `len` bytes lie in part `number`, which the service has.
    fn reach(&mut self, number: u32, len: u64) -> Result<()> {
        // Parts were cut where this run cuts them; otherwise bytes in front of one would be without
        // a place.
        if self.buffer.len() > 0 {
            return Err(Error::internal("a part that is up begins inside of another")
                .at("part", number)
                .at("offset", self.offset));
        }
        if let Some(kept) = self.shared.kept.parts.get(&number) {
            self.sender.sent.insert(number, kept.clone());
        }
        self.is_behind_head = true;
        self.next = self.next.max(number + 1);
        self.offset += len;
        Ok(())
    }

    /// The buffer is a whole part.
    fn cut(&mut self) -> Result<()> {
        let chunk = std::mem::take(&mut self.buffer);
        if !self.is_behind_head {
            self.is_behind_head = true;
            self.head = Some(chunk);
            return Ok(());
        }
        self.send(chunk)
    }

    fn send(&mut self, chunk: Chunk) -> Result<()> {
        let number = self.next;
        if number >= self.shared.end_of(self.index) {
            return Err(Error::new(
                ErrorKind::Limit,
                "the archive is longer than 10,000 parts of this size",
            )
            .at("part_size", self.shared.plan.part_size)
            .at("part", number));
        }
        self.next += 1;
        self.sender.send(&self.shared, number, chunk)
    }

    /// Sends what is left as the last part of the object, and waits for all.
    pub(super) fn flush(&mut self) -> Result<()> {
        if self.buffer.len() > 0 {
            let chunk = std::mem::take(&mut self.buffer);
            self.send(chunk)?;
        }
        self.sender.confirm_all(&self.shared)
    }

    /// What was appended and not cut yet.
    pub(super) fn take_buffer(&mut self) -> BytesMut {
        std::mem::take(&mut self.buffer).bytes
    }

    /// The parts that are there.
    pub(super) fn sent(&self) -> &BTreeMap<u32, Placed> {
        &self.sender.sent
    }

    pub(super) fn into_parts(mut self) -> (Chunk, Sender) {
        (std::mem::take(&mut self.buffer), std::mem::take(&mut self.sender))
    }

    /// Ends all that is on its way.
    pub(super) async fn shutdown(&mut self) {
        self.sender.on_their_way.shutdown().await;
    }
}

impl Drop for S3Stretch {
    /// Nothing is on its way when this returns.
    fn drop(&mut self) {
        if !self.sender.on_their_way.is_empty() {
            let shared = self.shared.clone();
            shared.store.link.runtime().block_on(self.shutdown());
        }
    }
}

impl object::Stretch for S3Stretch {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.append(bytes)
    }

    fn held(&self) -> Arc<Held> {
        self.held()
    }

    fn pass(&mut self, len: u64) -> Result<()> {
        self.pass(len)
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.sender.confirm_all(&self.shared)?;
        let finished = Finished {
            index: self.index,
            len: self.offset,
            head: self.head.take(),
            tail: std::mem::take(&mut self.buffer),
            next: self.next,
            sent: std::mem::take(&mut self.sender.sent),
        };
        self.shared.finished.lock().unwrap_or_else(PoisonError::into_inner).push(finished);
        Ok(())
    }
}
