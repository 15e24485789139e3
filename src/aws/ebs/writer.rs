//! The writer of a snapshot: a sink of blocks.
//!
//! Blocks are sent in the background, as many at a time as the send buffers hold. A block is
//! written when EBS has confirmed it; `confirm` waits for that.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_ebs::primitives::ByteStream;
use aws_sdk_ebs::types::ChecksumAlgorithm;
use bytes::Bytes;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::super::body::{MeteredBody, Progress};
use super::quota::SnapshotQuota;
use super::snapshot::Sum;
use super::{CompletedSnapshot, EbsConnection, Quotas, is_unknown, print_digest, transfer_failure};
use crate::base::{
    BLOCK_BYTES, Error, ErrorKind, Event, Monitor, Result, Retry, SnapshotId, VolumeSize,
};
use crate::format::{Digest, ZERO_BLOCK_DIGEST};
use crate::volume::{BlockSink, Delivered};

/// The longest time for which PutSnapshotBlock may not know a new snapshot. (EBS engineers speak of
/// up to two minutes.)
const UNKNOWN_FOR: Duration = Duration::from_secs(180);
/// The longest time for which some hosts of EBS may not know a snapshot that others know.
const UNKNOWN_TO_SOME_FOR: Duration = Duration::from_secs(20);
/// The pause between two attempts meanwhile.
const UNKNOWN_PAUSE: Duration = Duration::from_secs(1);

/// The memory for blocks in flight. Clones share it.
#[derive(Clone)]
pub struct SendBuffers(Arc<Semaphore>);

impl SendBuffers {
    /// At most `bytes` of blocks in flight, and at least one block.
    pub fn new(bytes: u64) -> Self {
        Self(Arc::new(Semaphore::new((bytes / BLOCK_BYTES).clamp(1, 1 << 20) as usize)))
    }
}

/// A snapshot that is being written.
pub struct EbsSink {
    sender: Sender,
    buffers: SendBuffers,
    tasks: Mutex<JoinSet<()>>,
    sum: Mutex<Sum>,
}

/// Sends blocks.
#[derive(Clone)]
struct Sender(Arc<Inner>);

struct Inner {
    connection: EbsConnection,
    snapshot_id: SnapshotId,
    /// Blocks of the volume.
    capacity: u64,
    /// In percent: EBS shows it in the description of the snapshot.
    progress: AtomicU8,
    quota: SnapshotQuota,
    /// Set when the first block was confirmed. Until then no other block is sent, and the first is
    /// repeated while EBS does not know the snapshot.
    known: OnceCell<()>,
    begun: Instant,
    /// Notified when a block was confirmed or failed.
    in_flight: Monitor<InFlight>,
    zeros: Bytes,
}

#[derive(Default)]
struct InFlight {
    blocks: BTreeSet<u32>,
    /// The first failure. Every waiting thread gets a copy of it.
    failed: Option<Error>,
}

impl InFlight {
    fn check(&self) -> Result<()> {
        self.failed.as_ref().map_or(Ok(()), |error| Err(error.duplicate()))
    }
}

impl EbsSink {
    /// Writes to a snapshot that was begun and is not complete, of a volume of this size.
    pub fn new(
        connection: &EbsConnection,
        (snapshot_id, size): (SnapshotId, VolumeSize),
        quotas: &Quotas,
        buffers: &SendBuffers,
    ) -> Self {
        let inner = Inner {
            connection: connection.clone(),
            snapshot_id,
            capacity: size.bytes().div_ceil(BLOCK_BYTES),
            progress: AtomicU8::new(0),
            quota: quotas.of_snapshot(),
            known: OnceCell::new(),
            begun: Instant::now(),
            in_flight: Monitor::default(),
            zeros: Bytes::from(vec![0; BLOCK_BYTES as usize]),
        };
        Self {
            sender: Sender(Arc::new(inner)),
            buffers: buffers.clone(),
            tasks: Mutex::default(),
            sum: Mutex::default(),
        }
    }

    /// The sum of the confirmed blocks.
    pub fn total(&self) -> CompletedSnapshot {
        self.sum.lock().unwrap_or_else(PoisonError::into_inner).total()
    }

    /// Sends a block in the background. Waits while too many are in flight.
    fn send(&self, block: u32, data: &[u8], digest: Digest) -> Result<()> {
        let inner = &self.sender.0;
        let permit = inner.connection.wait(async {
            self.buffers
                .0
                .clone()
                .acquire_owned()
                .await
                .map_err(|_| Error::internal("the memory for blocks is gone"))
        })?;
        let data = if digest == ZERO_BLOCK_DIGEST {
            inner.zeros.clone()
        } else {
            // The short last block of a volume that is no multiple of 512 KiB is padded with zeros,
            // as for its digest.
            let mut whole = Vec::with_capacity(BLOCK_BYTES as usize);
            whole.extend_from_slice(data);
            whole.resize(BLOCK_BYTES as usize, 0);
            Bytes::from(whole)
        };
        {
            let mut state = inner.in_flight.lock();
            state.check()?;
            state.blocks.insert(block);
        }
        let sender = self.sender.clone();
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.spawn_on(
            async move { sender.deliver(block, data, digest, permit).await },
            inner.connection.runtime().handle(),
        );
        while tasks.try_join_next().is_some() {}
        Ok(())
    }
}

impl BlockSink for EbsSink {
    fn write_data(&self, offset: u64, data: &[u8], digests: &[Digest]) -> Result<()> {
        let first = (offset / BLOCK_BYTES) as u32;
        let blocks = data.chunks(BLOCK_BYTES as usize);
        if !offset.is_multiple_of(BLOCK_BYTES) || blocks.len() != digests.len() {
            return Err(Error::internal("EBS is written by whole blocks, each with its digest"));
        }
        blocks
            .zip(digests)
            .zip(first..)
            .try_for_each(|((block, digest), index)| self.send(index, block, *digest))
    }

    fn write_zeros(&self, offset: u64, len: u64) -> Result<()> {
        let (first, end) =
            ((offset / BLOCK_BYTES) as u32, (offset + len).div_ceil(BLOCK_BYTES) as u32);
        (first..end).try_for_each(|block| self.send(block, &[], ZERO_BLOCK_DIGEST))
    }

    fn confirm(&self, cell: &Delivered<'_>) -> Result<()> {
        let inner = &self.sender.0;
        let blocks = cell.address.blocks();
        let range = blocks.first.0..blocks.first.0 + blocks.count;
        inner.in_flight.wait(&inner.connection.options().cancel, |state| {
            match state.check() {
                Err(error) => Some(Err(error)),
                Ok(()) => state.blocks.range(range.clone()).next().is_none().then_some(Ok(())),
            }
        })??;
        let mut sum = self.sum.lock().unwrap_or_else(PoisonError::into_inner);
        cell.blocks().for_each(|(_, digest)| sum.add(&digest));
        Ok(())
    }

    fn keeps_confirmed(&self) -> bool {
        true
    }
}

impl Drop for EbsSink {
    /// No block is sent after the sink is dropped.
    fn drop(&mut self) {
        let mut tasks =
            std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        self.sender.0.connection.runtime().block_on(tasks.shutdown());
    }
}

impl Sender {
    async fn deliver(&self, block: u32, data: Bytes, digest: Digest, permit: OwnedSemaphorePermit) {
        let sent = self.send(block, data, digest).await;
        drop(permit);
        let mut state = self.0.in_flight.lock();
        state.blocks.remove(&block);
        if let Err(error) = sent
            && state.failed.is_none()
        {
            state.failed = Some(error.at("snapshot_id", &self.0.snapshot_id).at("block", block));
        }
        drop(state);
        self.0.in_flight.notify_all();
    }

    async fn send(&self, block: u32, data: Bytes, digest: Digest) -> Result<()> {
        let mut first = false;
        let known = self.0.known.get_or_try_init(|| {
            first = true;
            let data = data.clone();
            async move { self.send_known(block, data, digest).await }
        });
        known.await?;
        if first { Ok(()) } else { self.send_known(block, data, digest).await }
    }

    /// Sends a block, and repeats it while EBS may not know the snapshot yet: EBS is eventually
    /// consistent.
    async fn send_known(&self, block: u32, data: Bytes, digest: Digest) -> Result<()> {
        let mut attempt = 1;
        // After the first confirmed block only some hosts of EBS may not know the snapshot.
        let end = if self.0.known.initialized() {
            Instant::now() + UNKNOWN_TO_SOME_FOR
        } else {
            self.0.begun + UNKNOWN_FOR
        };
        loop {
            match self.put(block, data.clone(), digest).await {
                Err(error) if is_unknown(&error) && Instant::now() < end => {
                    let options = self.0.connection.options();
                    let delay = UNKNOWN_PAUSE.min(options.retry.cap);
                    options.observer.note(&Event::Retried { error: &error, attempt, delay });
                    attempt += 1;
                    sleep(delay).await;
                }
                sent => return sent,
            }
        }
    }

    async fn put(&self, block: u32, data: Bytes, digest: Digest) -> Result<()> {
        let inner = &self.0;
        let checksum = print_digest(&digest);
        // By position: blocks are sent in ascending order. 100 is for the completed snapshot.
        let percent = (u64::from(block) * 100 / inner.capacity.max(1)).min(99) as u8;
        let percent = inner.progress.fetch_max(percent, Ordering::Relaxed).max(percent);
        let make = |client: aws_sdk_ebs::Client, progress: Progress| {
            let options = inner.connection.options();
            let body = MeteredBody::sdk_body(
                data.clone(),
                options.bandwidth.clone(),
                progress.clone(),
                options.observer.clone(),
            );
            let request = client
                .put_snapshot_block()
                .snapshot_id(inner.snapshot_id.as_str())
                .block_index(block as i32)
                .progress(percent.into())
                .data_length(BLOCK_BYTES as i32)
                .checksum(&checksum)
                .checksum_algorithm(ChecksumAlgorithm::ChecksumAlgorithmSha256)
                .block_data(ByteStream::new(body));
            let checksum = &checksum;
            async move {
                let turn = inner.quota.block_turn();
                progress.moved(turn);
                sleep_until(turn).await;
                let output = request.send().await.map_err(|error| {
                    let failure = transfer_failure("cannot write a block of the snapshot", error);
                    if failure.error.retry() == Retry::Throttle {
                        inner.quota.block_throttled(&failure.error);
                    }
                    failure
                })?;
                inner.quota.block_succeeded();
                match output.checksum() {
                    Some(stored) if stored != checksum => {
                        let error = Error::new(
                            ErrorKind::Io,
                            "EBS confirms another checksum than that of the block that was sent",
                        );
                        Err(error.retry_as(Retry::Transient).into())
                    }
                    _ => Ok(()),
                }
            }
        };
        inner.connection.request(make).await
    }
}
