//! The reader of a snapshot: a source of blocks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_sdk_ebs::primitives::ByteStream;
use bytes::BytesMut;
use tokio::time::{sleep, sleep_until};

use super::super::body::Progress;
use super::super::error::Failure;
use super::super::fetch::Fetch;
use super::listing::{Listing, PartialMap};
use super::quota::{PAGE_BLOCKS, SnapshotQuota, SpareBlocks};
use super::tokens::{PendingReads, Tokens, is_stale_block};
use super::{EbsConnection, Quotas, odd, parse_digest, transfer_failure};
use crate::base::{
    BLOCK_BYTES, BlockIndex, Error, ErrorCode, ErrorKind, Event, Result, Retry, SnapshotId,
    VolumeSize,
};
use crate::codec::sha256;
use crate::format::{BlockMap, Digest};
use crate::volume::BlockSource;

/// `MaxResults` of the request that shows that a snapshot can be listed: the fewest that EBS takes.
const PROBE_BLOCKS: u32 = 100;

/// A snapshot, read block by block.
pub struct EbsSource {
    fetcher: Fetcher,
    size: VolumeSize,
    presence: Mutex<Presence>,
    /// Blocks that were requested ahead of their read.
    ahead: Mutex<HashMap<u32, Fetch<Fetched>>>,
}

/// The part of the volume that is listed.
enum Presence {
    /// The first page.
    FirstPage(PartialMap),
    /// The whole block map: 4 KiB for each 16 GiB that have blocks, at most 16 MiB.
    Whole(BlockMap),
}

/// A block, and its digest by EBS's header.
struct Fetched {
    data: BytesMut,
    digest: Digest,
}

#[derive(Clone)]
struct Fetcher(Arc<Inner>);

struct Inner {
    listing: Listing,
    size: VolumeSize,
    quota: SnapshotQuota,
    tokens: Tokens,
    pending: PendingReads,
    spare: SpareBlocks,
}

impl EbsSource {
    /// Opens a snapshot. Requests the first page of its blocks, which fails without the permission
    /// to list it.
    pub fn open(connection: &EbsConnection, id: &SnapshotId, quotas: &Quotas) -> Result<Self> {
        let listing = Self::listing(connection, id, quotas, PAGE_BLOCKS);
        let (begun, page) = connection.wait(listing.begin())?;
        let size = begun.size();
        let pending = PendingReads::default();
        let (quota, tokens) =
            (listing.quota.clone(), Tokens::new(listing.clone(), page, pending.clone()));
        let fetcher = Fetcher(Arc::new(Inner {
            listing,
            size,
            quota,
            tokens,
            pending,
            spare: quotas.spare.clone(),
        }));
        let presence = Mutex::new(Presence::FirstPage(begun));
        Ok(Self { fetcher, size, presence, ahead: Mutex::default() })
    }

    /// The size of the volume of a snapshot that may be listed: one request with a short answer.
    pub fn size_of(
        connection: &EbsConnection,
        id: &SnapshotId,
        quotas: &Quotas,
    ) -> Result<VolumeSize> {
        let listing = Self::listing(connection, id, quotas, PROBE_BLOCKS);
        Ok(connection.wait(listing.page(0, None))?.size)
    }

    fn listing(
        connection: &EbsConnection,
        id: &SnapshotId,
        quotas: &Quotas,
        page_blocks: u32,
    ) -> Listing {
        Listing {
            connection: connection.clone(),
            snapshot_id: id.to_string(),
            quota: quotas.of_snapshot(),
            page_blocks,
        }
    }

    /// Reads the first block, if there is one: proves that blocks may be read, and, of an encrypted
    /// snapshot, that its key may be used.
    pub fn try_block(&self) -> Result<()> {
        let Some(first) = self.block_map()?.extents().next() else { return Ok(()) };
        self.read_at(BlockIndex(first.first).offset(), &mut vec![0; BLOCK_BYTES as usize])
    }

    fn connection(&self) -> &EbsConnection {
        &self.fetcher.0.listing.connection
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Fetch<Fetched>>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn locate(&self, error: Error, block: u32) -> Error {
        error.at("snapshot_id", &self.fetcher.0.listing.snapshot_id).at("block", block)
    }

    fn begin(&self, block: u32) -> Fetch<Fetched> {
        let fetcher = self.fetcher.clone();
        // Before the task starts: tasks start in any order, and a listing that begins with a later
        // block would be repeated for this one.
        let pending = fetcher.0.pending.add(block);
        Fetch::begin(self.connection().runtime(), async move {
            let _pending = pending;
            fetcher.fetch(block).await
        })
    }

    fn receive(&self, block: u32, fetch: Fetch<Fetched>) -> Result<Fetched> {
        self.connection().wait(fetch.outcome()).map_err(|error| self.locate(error, block))
    }
}

impl BlockSource for EbsSource {
    fn size(&self) -> VolumeSize {
        self.size
    }

    fn block_map(&self) -> Result<BlockMap> {
        // Locked while it is listed, so that a second caller does not list again.
        let mut presence = self.presence.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = match &*presence {
            Presence::Whole(map) => return Ok(map.clone()),
            Presence::FirstPage(begun) => begun.clone(),
        };
        let map = self.connection().wait(self.fetcher.0.listing.finish(begun))?;
        *presence = Presence::Whole(map.clone());
        Ok(map)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.read_blocks(offset, buffer, &mut Vec::new())
    }

    fn read_blocks(&self, offset: u64, buffer: &mut [u8], digests: &mut Vec<Digest>) -> Result<()> {
        const BLOCK: usize = BLOCK_BYTES as usize;
        if !offset.is_multiple_of(BLOCK_BYTES) || !buffer.len().is_multiple_of(BLOCK) {
            return Err(Error::internal("EBS is read by whole blocks"));
        }
        let first = (offset / BLOCK_BYTES) as u32;
        let count = (buffer.len() / BLOCK) as u32;
        let fetches: Vec<(u32, Fetch<Fetched>)> = {
            let mut ahead = self.lock();
            (first..first + count)
                .map(|block| (block, ahead.remove(&block).unwrap_or_else(|| self.begin(block))))
                .collect()
        };
        let mut expected = Vec::with_capacity(fetches.len());
        for ((block, fetch), target) in fetches.into_iter().zip(buffer.chunks_exact_mut(BLOCK)) {
            let fetched = self.receive(block, fetch)?;
            target.copy_from_slice(&fetched.data);
            self.fetcher.give_back(fetched.data);
            expected.push(fetched.digest);
        }
        let mut found = vec![[0; 32]; expected.len()];
        let inputs: Vec<&[u8]> = buffer.chunks_exact(BLOCK).collect();
        sha256::digest_many(&inputs, &mut found);
        let wrong: Vec<usize> = (0..found.len()).filter(|at| found[*at] != expected[*at]).collect();
        for at in wrong {
            found[at] =
                self.read_again(first + at as u32, &mut buffer[at * BLOCK..(at + 1) * BLOCK])?;
        }
        digests.append(&mut found);
        Ok(())
    }

    fn prefetch(&self, offset: u64, len: u64) {
        let (first, end) = (
            (offset / BLOCK_BYTES) as u32,
            offset.saturating_add(len).div_ceil(BLOCK_BYTES) as u32,
        );
        let mut ahead = self.lock();
        for block in first..end.min(self.size.blocks()) {
            ahead.entry(block).or_insert_with(|| self.begin(block));
        }
    }

    fn check_unchanged(&self) -> Result<()> {
        // A snapshot never changes.
        Ok(())
    }

    fn identity(&self) -> Option<String> {
        Some(format!("ebs:{}", self.fetcher.0.listing.snapshot_id))
    }
}

impl EbsSource {
    /// Reads a block again whose bytes did not match their checksum. Returns its digest.
    fn read_again(&self, block: u32, buffer: &mut [u8]) -> Result<Digest> {
        let options = self.connection().options();
        let mut attempt = 1;
        loop {
            let error = Error::corrupt(
                "a block of the snapshot does not match the checksum that EBS sent with it",
            )
            .code_as(ErrorCode::SnapshotBlockDamaged);
            let Some(delay) = options.retry.delay(Retry::Damaged, attempt, fastrand::f64()) else {
                return Err(self.locate(error.after_attempts(attempt), block));
            };
            options.observer.note(&Event::Retried { error: &error, attempt, delay });
            self.connection().wait(async {
                tokio::time::sleep(delay).await;
                Ok(())
            })?;
            attempt += 1;
            let fetched = self.receive(block, self.begin(block))?;
            buffer.copy_from_slice(&fetched.data);
            self.fetcher.give_back(fetched.data);
            if sha256::digest(buffer) == fetched.digest {
                return Ok(fetched.digest);
            }
        }
    }
}

impl Drop for EbsSource {
    /// No fetch outlives its source.
    fn drop(&mut self) {
        let fetches = std::mem::take(&mut *self.lock());
        Fetch::abort_all(self.connection().runtime(), fetches.into_values());
    }
}

impl Fetcher {
    async fn fetch(&self, block: u32) -> Result<Fetched> {
        let inner = &self.0;
        let mut refused = 0;
        loop {
            let (token, generation) = inner.tokens.of(block, inner.size).await?;
            match self.get(block, &token).await {
                Err(error) if is_stale_block(&error) => {
                    inner.tokens.refused(generation).await;
                    if refused > 0 {
                        // Another client reads the snapshot, and lists it as often: random pauses
                        // let one of the two finish.
                        let Some(pause) = inner.listing.connection.options().retry.delay(
                            Retry::Transient,
                            refused,
                            fastrand::f64(),
                        ) else {
                            let message = "EBS refuses its own block tokens again and again: \
                                           every listing replaces them, so another client may be \
                                           reading the snapshot";
                            return Err(Error::new(ErrorKind::Io, message)
                                .code_as(ErrorCode::BlockTokenExpired)
                                .at("reason", "INVALID_BLOCK_TOKEN")
                                .because(error));
                        };
                        sleep(pause).await;
                    }
                    refused += 1;
                }
                fetched => return fetched,
            }
        }
    }

    async fn get(&self, block: u32, token: &str) -> Result<Fetched> {
        let inner = &self.0;
        let make = |client: aws_sdk_ebs::Client, progress: Progress| {
            let request = client
                .get_snapshot_block()
                .snapshot_id(&inner.listing.snapshot_id)
                .block_index(block as i32)
                .block_token(token);
            async move {
                let turn = inner.quota.block_turn();
                progress.moved(turn);
                sleep_until(turn).await;
                let output = request.send().await.map_err(|error| {
                    inner.heard(transfer_failure("cannot read a block of the snapshot", error))
                })?;
                let algorithm =
                    output.checksum_algorithm().map(|algorithm| algorithm.as_str().to_owned());
                if algorithm.as_deref().is_some_and(|algorithm| algorithm != "SHA256") {
                    return Err(Failure::from(
                        Error::unsupported("EBS gives a checksum of another kind")
                            .at("algorithm", algorithm.unwrap_or_default()),
                    ));
                }
                let digest = parse_digest(output.checksum()).ok_or_else(|| {
                    Failure::from(
                        odd("EBS sent a block without a checksum").retry_as(Retry::Damaged),
                    )
                })?;
                if output.data_length().is_some_and(|len| len as u64 != BLOCK_BYTES) {
                    let len = output.data_length().unwrap_or_default();
                    return Err(Failure::from(
                        odd("EBS sent a block of a wrong length")
                            .at("length", len)
                            .retry_as(Retry::Damaged),
                    ));
                }
                let data = self.receive(output.block_data, &progress).await?;
                inner.quota.block_succeeded();
                Ok(Fetched { data, digest })
            }
        };
        inner.listing.connection.request(make).await
    }

    async fn receive(
        &self,
        mut body: ByteStream,
        progress: &Progress,
    ) -> Result<BytesMut, Failure> {
        const BLOCK: usize = BLOCK_BYTES as usize;
        let options = self.0.listing.connection.options();
        let mut data = self
            .0
            .spare
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
            .unwrap_or_else(|| BytesMut::with_capacity(BLOCK));
        let cut = || Error::new(ErrorKind::Io, "a block was cut off").retry_as(Retry::Transient);
        loop {
            let chunk = match body.next().await {
                None if data.len() == BLOCK => return Ok(data),
                // The answer has the length that it announces.
                None => {
                    return Err(odd("EBS sent a block of a wrong length")
                        .at("length", data.len())
                        .retry_as(Retry::Damaged)
                        .into());
                }
                Some(Err(cause)) => return Err(cut().because(cause).into()),
                Some(Ok(chunk)) => chunk,
            };
            if data.len() + chunk.len() > BLOCK {
                return Err(odd("EBS sent a block of a wrong length")
                    .retry_as(Retry::Damaged)
                    .into());
            }
            data.extend_from_slice(&chunk);
            options.received(chunk.len(), progress).await;
        }
    }

    /// Recycles a buffer.
    fn give_back(&self, mut buffer: BytesMut) {
        buffer.clear();
        self.0.spare.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

impl Inner {
    /// A throttled request slows down all that share its limit.
    fn heard(&self, failure: Failure) -> Failure {
        if failure.error.retry() == Retry::Throttle {
            self.quota.block_throttled(&failure.error);
        }
        failure
    }
}
