//! The writer of one segment of an object, and the state that all segments of an upload share.
//!
//! Bytes are cut into parts of one size. A bounded number of parts is in flight while the next is
//! filled; `append` blocks while that number is reached.
//!
//! An object that is written front to back has one segment. In a parallel upload each segment has
//! a range of part numbers, and the parts at the borders are deferred: the first part of a segment
//! stays in memory until the segment before it has ended, because the remainder of that is too
//! short for a part of its own. `writer` joins the segments.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::attributes::encode_metadata;
use super::bucket::S3Store;
use super::part_plan::PartPlan;
use super::reused::{ReusedParts, StoredPart};
use super::upload::{SentPart, Upload};
use crate::base::{Error, ErrorCode, ErrorKind, Result};
use crate::object::{self, ByteRanges, PartPiece, UploadJournal, UploadPart};

/// State that the segments of an upload share.
pub(super) struct Shared {
    pub(super) store: S3Store,
    pub(super) key: String,
    pub(super) metadata: Mutex<BTreeMap<String, String>>,
    pub(super) tags: Option<String>,
    pub(super) journal: Option<Arc<dyn UploadJournal>>,
    pub(super) plan: PartPlan,
    /// The number of the first part of each segment. The number below it is reserved for the part
    /// across the border, except for the first segment.
    pub(super) numbers: Vec<u32>,
    pub(super) upload: Mutex<Option<Upload>>,
    /// Parts of an earlier run.
    pub(super) reused: ReusedParts,
    /// One permit for each part that may be in flight.
    pub(super) flights: Arc<Semaphore>,
    /// Recycled buffers of parts.
    pub(super) spare: SpareParts,
    /// Finished segments that are not joined yet.
    pub(super) finished: Mutex<Vec<Finished>>,
}

impl Shared {
    /// The upload. The first call begins it and reports it to the journal.
    pub(super) fn upload(&self) -> Result<Upload> {
        let mut known = self.upload.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(upload) = &*known {
            return Ok(upload.clone());
        }
        let metadata =
            encode_metadata(&self.metadata.lock().unwrap_or_else(PoisonError::into_inner))?;
        if let Some(journal) = &self.journal {
            self.store.intend(&self.key, journal.as_ref())?;
        }
        let upload = self.store.connection.until_answered().wait(Upload::begin(
            &self.store,
            &self.key,
            &metadata,
            self.tags.clone(),
        ))?;
        *known = Some(upload.clone());
        if let Some(journal) = &self.journal {
            let segments = if self.is_divided() { self.numbers.clone() } else { Vec::new() };
            let tags = self.tags.as_deref();
            journal.upload_begun(&upload.record(self.plan.part_size, tags, segments))?;
        }
        Ok(upload)
    }

    pub(super) fn is_divided(&self) -> bool {
        self.numbers.len() > 1
    }

    /// The end of the segment's range of part numbers.
    fn end_of(&self, segment: usize) -> u32 {
        // The number below the first part of the next segment is reserved for the border.
        self.numbers.get(segment + 1).map_or(super::MAX_PARTS as u32 + 1, |next| next - 1)
    }

    /// Records a part that will be sent, or, with its ETag, was confirmed.
    fn record_part(
        &self,
        number: u32,
        (len, checksum, etag): (u64, &str, Option<&str>),
        pieces: &[PartPiece],
    ) -> Result<()> {
        let Some(journal) = &self.journal else { return Ok(()) };
        journal.part_sent(&UploadPart {
            number,
            len,
            checksum: checksum.to_owned(),
            etag: etag.map(ToOwned::to_owned),
            // In a single segment they follow from the number.
            pieces: if self.is_divided() { pieces.to_vec() } else { Vec::new() },
        })
    }
}

/// Buffers of parts that were sent: fresh memory costs more page faults than the copy into it.
/// Clones share them.
#[derive(Clone, Default)]
pub(super) struct SpareParts(Arc<Mutex<Vec<BytesMut>>>);

impl SpareParts {
    /// An empty buffer for a part of so many bytes.
    fn take(&self, part_size: u64) -> BytesMut {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let room = usize::try_from(part_size).unwrap_or(usize::MAX);
        spare.unwrap_or_else(|| BytesMut::with_capacity(room))
    }

    /// Keeps the buffer of a part, unless it is shared, or has grown at a border.
    fn put(&self, data: Bytes, part_size: u64) {
        if let Ok(mut buffer) = data.try_into_mut()
            && buffer.capacity() as u64 <= part_size
        {
            buffer.clear();
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        }
    }
}

/// Buffered bytes of a part, or of a piece of one.
#[derive(Default)]
pub(super) struct Chunk {
    pub(super) bytes: BytesMut,
    pub(super) pieces: Vec<PartPiece>,
}

impl Chunk {
    pub(super) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn push(&mut self, bytes: &[u8], segment: usize, offset: u64) {
        self.bytes.extend_from_slice(bytes);
        self.extend_pieces(PartPiece { segment: segment as u16, offset, len: bytes.len() as u64 });
    }

    /// Appends `other`.
    pub(super) fn append(&mut self, other: Self) {
        if self.bytes.is_empty() {
            self.bytes = other.bytes;
        } else {
            self.bytes.extend_from_slice(&other.bytes);
        }
        other.pieces.into_iter().for_each(|piece| self.extend_pieces(piece));
    }

    fn extend_pieces(&mut self, piece: PartPiece) {
        match self.pieces.last_mut() {
            Some(last)
                if last.segment == piece.segment && last.offset + last.len == piece.offset =>
            {
                last.len += piece.len;
            }
            _ => self.pieces.push(piece),
        }
    }
}

/// Sends parts and collects their confirmations.
#[derive(Default)]
pub(super) struct Sender {
    /// Parts by number: confirmed ones, and those of earlier runs that this run has reached.
    pub(super) sent: BTreeMap<u32, StoredPart>,
    in_flight: JoinSet<Result<(u32, StoredPart)>>,
}

impl Sender {
    /// Sends `chunk` as part `number`, once another part may be in flight.
    pub(super) fn send(&mut self, shared: &Shared, number: u32, chunk: Chunk) -> Result<()> {
        let upload = shared.upload()?;
        let Chunk { bytes, pieces } = chunk;
        let data = bytes.freeze();
        let len = data.len() as u64;
        let checksum = upload.checksum.of(&data);
        if let Some(reused) = shared.reused.parts.get(&number)
            && (reused.part.len, reused.part.checksum.as_str()) == (len, checksum.as_str())
        {
            self.sent.insert(number, StoredPart { part: reused.part.clone(), pieces });
            shared.spare.put(data, shared.plan.part_size);
            return Ok(());
        }
        shared.record_part(number, (len, &checksum, None), &pieces)?;
        let permit = self.permit(shared)?;
        self.confirm_finished(shared)?;
        let (spare, part_size) = (shared.spare.clone(), shared.plan.part_size);
        let work = async move {
            let part = upload.put(number, data.clone(), checksum).await?;
            spare.put(data, part_size);
            drop(permit);
            Ok((number, StoredPart { part, pieces }))
        };
        self.in_flight.spawn_on(work, shared.store.connection.runtime().handle());
        Ok(())
    }

    /// Waits until one more part may be in flight.
    fn permit(&mut self, shared: &Shared) -> Result<OwnedSemaphorePermit> {
        loop {
            if let Ok(permit) = shared.flights.clone().try_acquire_owned() {
                return Ok(permit);
            }
            // A part of this segment that fails should end the work. If there is none, other
            // segments hold all permits.
            if !self.confirm_one(shared)? {
                let flights = shared.flights.clone();
                return shared.store.connection.wait(async {
                    flights
                        .acquire_owned()
                        .await
                        .map_err(|_| Error::internal("the permits of parts are gone"))
                });
            }
        }
    }

    /// Waits for one of the parts in flight; false if there is none.
    fn confirm_one(&mut self, shared: &Shared) -> Result<bool> {
        let in_flight = &mut self.in_flight;
        let finished = shared.store.connection.wait(async {
            match in_flight.join_next().await {
                None => Ok(None),
                Some(Ok(result)) => result.map(Some),
                Some(Err(_)) => Err(Error::internal("the task of an upload ended by itself")),
            }
        })?;
        let Some((number, stored)) = finished else { return Ok(false) };
        self.confirmed(shared, number, stored)?;
        Ok(true)
    }

    /// Waits for all parts in flight.
    pub(super) fn confirm_all(&mut self, shared: &Shared) -> Result<()> {
        while self.confirm_one(shared)? {}
        Ok(())
    }

    fn confirmed(&mut self, shared: &Shared, number: u32, stored: StoredPart) -> Result<()> {
        let SentPart { len, checksum, etag } = &stored.part;
        shared.record_part(number, (*len, checksum, Some(etag)), &stored.pieces)?;
        self.sent.insert(number, stored);
        Ok(())
    }

    /// Collects finished parts without waiting: a part that failed should end the work soon.
    fn confirm_finished(&mut self, shared: &Shared) -> Result<()> {
        while let Some(finished) = self.in_flight.try_join_next() {
            let (number, stored) = finished
                .map_err(|_| Error::internal("the task of an upload ended by itself"))??;
            self.confirmed(shared, number, stored)?;
        }
        Ok(())
    }
}

/// The writer of a segment.
pub(super) struct S3Segment {
    shared: Arc<Shared>,
    index: usize,
    /// Bytes so far, skipped ones included.
    offset: u64,
    buffer: Chunk,
    /// The first part, deferred until the segment before has ended.
    head: Option<Chunk>,
    /// Whether the first part is deferred or stored already.
    is_behind_head: bool,
    /// The number of the next part.
    next: u32,
    sender: Sender,
}

/// A finished segment, with the bytes at its ends that are not sent yet.
pub(super) struct Finished {
    pub(super) index: usize,
    pub(super) len: u64,
    /// The first part, unless the service has it, or the segment is shorter than a part.
    pub(super) head: Option<Chunk>,
    /// The bytes behind the last whole part.
    pub(super) tail: Chunk,
    /// The number of the part after the last.
    pub(super) next: u32,
    pub(super) sent: BTreeMap<u32, StoredPart>,
}

impl S3Segment {
    /// Begins a segment. All but the first defer their first part.
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

    /// Continues behind a joined segment that ended with `tail`; the parts of `sender` stay in
    /// flight.
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

    pub(super) fn stored(&self) -> Arc<ByteRanges> {
        self.shared.reused.ranges(self.index)
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let part_size = self.shared.plan.part_size;
        let mut rest = bytes;
        while !rest.is_empty() {
            let left = match self.shared.reused.covering(self.index, self.offset) {
                Some((end, number)) => {
                    let len = (rest.len() as u64).min(end - self.offset);
                    self.reach(number, len)?;
                    len
                }
                None => {
                    let len = (rest.len() as u64).min(part_size - self.buffer.len());
                    if self.buffer.bytes.capacity() == 0 {
                        self.buffer.bytes = self.shared.spare.take(part_size);
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

    pub(super) fn skip(&mut self, len: u64) -> Result<()> {
        let end = self.offset + len;
        while self.offset < end {
            let Some((covered, number)) = self.shared.reused.covering(self.index, self.offset)
            else {
                return Err(Error::internal("bytes are skipped that the store does not have")
                    .at("offset", self.offset));
            };
            self.reach(number, end.min(covered) - self.offset)?;
        }
        Ok(())
    }

    /// Advances by `len` bytes, which are in part `number` of an earlier run.
    fn reach(&mut self, number: u32, len: u64) -> Result<()> {
        // Every run cuts at the same positions, so a stored part begins where the buffer is empty.
        if self.buffer.len() > 0 {
            return Err(Error::internal("a stored part begins inside of another")
                .at("part", number)
                .at("offset", self.offset));
        }
        if let Some(reused) = self.shared.reused.parts.get(&number) {
            self.sender.sent.insert(number, reused.clone());
        }
        self.is_behind_head = true;
        self.next = self.next.max(number + 1);
        self.offset += len;
        Ok(())
    }

    /// Takes the buffer, which is a whole part.
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
            .code_as(ErrorCode::PartsTooSmall)
            .at("part_size", self.shared.plan.part_size)
            .at("part", number));
        }
        self.next += 1;
        self.sender.send(&self.shared, number, chunk)
    }

    /// Sends the buffer as the last part of the object, and waits for all parts.
    pub(super) fn flush(&mut self) -> Result<()> {
        if self.buffer.len() > 0 {
            let chunk = std::mem::take(&mut self.buffer);
            self.send(chunk)?;
        }
        self.sender.confirm_all(&self.shared)
    }

    /// Takes the bytes that are not in a part yet.
    pub(super) fn take_buffer(&mut self) -> BytesMut {
        std::mem::take(&mut self.buffer).bytes
    }

    /// The parts that the service has.
    pub(super) fn sent(&self) -> &BTreeMap<u32, StoredPart> {
        &self.sender.sent
    }

    pub(super) fn into_parts(mut self) -> (Chunk, Sender) {
        (std::mem::take(&mut self.buffer), std::mem::take(&mut self.sender))
    }

    /// Cancels all parts in flight.
    pub(super) async fn shutdown(&mut self) {
        self.sender.in_flight.shutdown().await;
    }
}

impl Drop for S3Segment {
    /// Cancels all parts in flight, and waits for that.
    fn drop(&mut self) {
        if !self.sender.in_flight.is_empty() {
            let shared = self.shared.clone();
            shared.store.connection.runtime().block_on(self.shutdown());
        }
    }
}

impl object::SegmentWriter for S3Segment {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.append(bytes)
    }

    fn stored(&self) -> Arc<ByteRanges> {
        self.stored()
    }

    fn skip(&mut self, len: u64) -> Result<()> {
        self.skip(len)
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
