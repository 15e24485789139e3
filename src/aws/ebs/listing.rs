//! ListSnapshotBlocks: pages of block indexes, and the block map made of them.
//!
//! A volume is listed twice, unless it is small. The first listing, here, gives the block map: one
//! bit a block, kept by the [source](super::EbsSource). The second, in [`tokens`](super::tokens),
//! gives the tokens of the blocks that are read next; all tokens of a 16 TiB volume would take
//! gigabytes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::quota::{RETAINED_TOKENS, SnapshotQuota};
use super::{EbsConnection, odd, transfer_failure};
use crate::base::{BLOCK_BYTES, Error, ErrorCode, Result, VolumeSize};
use crate::format::BlockMap;

/// After its first page a volume is listed in sections of at least this many blocks (128 GiB), in
/// parallel.
const SECTION_BLOCKS: u32 = 1 << 18;
/// Sections of a volume at most.
const MAX_SECTIONS: u32 = 8;
/// The number of times that a listing begins anew at one block because EBS refuses the page token.
pub(super) const MAX_PAGE_RENEWALS: u32 = 5;

/// The parameters of ListSnapshotBlocks requests for one snapshot.
#[derive(Clone)]
pub(super) struct Listing {
    pub(super) connection: EbsConnection,
    pub(super) snapshot_id: String,
    pub(super) quota: SnapshotQuota,
    /// `MaxResults`: blocks of a page at most.
    pub(super) page_blocks: u32,
}

/// One answer of ListSnapshotBlocks.
pub(super) struct Page {
    /// Block indexes, ascending, each with its token.
    pub(super) blocks: Vec<(u32, String)>,
    /// `NextToken`. A page may be empty and have one.
    pub(super) next: Option<String>,
    /// The time at which the block tokens expire.
    pub(super) expires: Option<SystemTime>,
    pub(super) size: VolumeSize,
}

/// A listing after its first page.
#[derive(Clone)]
pub(super) struct PartialMap {
    /// The blocks of the first page.
    map: BlockMap,
    /// The first block that is not listed yet, and the page token; `None` if the first page is the
    /// last.
    next: Option<(u32, String)>,
}

impl PartialMap {
    pub(super) fn size(&self) -> VolumeSize {
        self.map.size()
    }
}

impl Listing {
    /// Requests one page: from block `start`, or, with a page token, from the end of the page
    /// before.
    pub(super) async fn page(&self, start: u32, token: Option<&str>) -> Result<Page> {
        let make = |client: aws_sdk_ebs::Client, progress: super::super::body::Progress| {
            let request = client
                .list_snapshot_blocks()
                .snapshot_id(&self.snapshot_id)
                .max_results(self.page_blocks as i32);
            let request = match token {
                Some(token) => request.next_token(token),
                None => request.starting_block_index(start as i32),
            };
            let turn = self.quota.list_turn();
            async move {
                progress.moved(turn);
                tokio::time::sleep_until(turn).await;
                request.send().await.map_err(|error| {
                    transfer_failure("cannot list the blocks of the snapshot", error)
                })
            }
        };
        let output = self.connection.request(make).await?;
        let size = output
            .volume_size()
            .and_then(|gib| u64::try_from(gib).ok())
            .and_then(|gib| gib.checked_mul(1 << 30));
        let size = VolumeSize::new(
            size.ok_or_else(|| odd("the answer of EBS has no size of the volume"))?,
        )?;
        if output.block_size().is_some_and(|bytes| bytes as u64 != BLOCK_BYTES) {
            let bytes = output.block_size().unwrap_or_default();
            return Err(Error::unsupported("the blocks of the snapshot are not 512 KiB")
                .at("block_size", bytes));
        }
        let mut blocks: Vec<(u32, String)> = Vec::with_capacity(output.blocks().len());
        for block in output.blocks() {
            let (Some(index), Some(token)) = (
                block.block_index().and_then(|index| u32::try_from(index).ok()),
                block.block_token(),
            ) else {
                return Err(odd("EBS lists a block without index or token"));
            };
            let after = blocks.last().map_or(start, |(last, _)| last + 1);
            if index < after || index >= size.blocks() {
                return Err(odd("EBS lists blocks out of order, twice, or beyond the volume")
                    .at("block", index));
            }
            blocks.push((index, token.to_owned()));
        }
        let expires = output.expiry_time().and_then(|time| SystemTime::try_from(*time).ok());
        Ok(Page {
            blocks,
            next: output.next_token().filter(|token| !token.is_empty()).map(ToOwned::to_owned),
            expires,
            size,
        })
    }

    /// Requests the first page of the volume. If it is the last and has few blocks, it is returned,
    /// because its tokens are valid: no other listing follows.
    pub(super) async fn begin(&self) -> Result<(PartialMap, Option<Page>)> {
        let mut page = self.page(0, None).await?;
        let mut map = BlockMap::new(page.size);
        insert(&mut map, &page, page.size.blocks());
        let from = page.blocks.last().map_or(0, |(last, _)| last + 1);
        let next = page.next.take().map(|token| (from, token));
        let is_whole = next.is_none() && page.blocks.len() <= RETAINED_TOKENS;
        Ok((PartialMap { map, next }, is_whole.then_some(page)))
    }

    /// Requests the pages after the first, and returns all blocks of the snapshot. The rest of a
    /// large volume is listed in several sections in parallel.
    pub(super) async fn finish(&self, begun: PartialMap) -> Result<BlockMap> {
        let PartialMap { map, next } = begun;
        let Some((from, token)) = next else { return Ok(map) };
        let end = map.size().blocks();
        let sections = (end - from).div_ceil(SECTION_BLOCKS).clamp(1, MAX_SECTIONS);
        let step = (end - from).div_ceil(sections);
        let map = Arc::new(Mutex::new(map));
        let mut tasks = tokio::task::JoinSet::new();
        let mut token = Some(token);
        for section in 0..sections {
            let start = from + section * step;
            let (listing, map, token) = (self.clone(), map.clone(), token.take());
            let section_end = start.saturating_add(step).min(end);
            tasks.spawn(async move { listing.section(start, section_end, token, &map).await });
        }
        while let Some(listed) = tasks.join_next().await {
            listed
                .map_err(|cause| Error::internal("a task of a listing ended").because(cause))??;
        }
        let map = map.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(map)
    }

    /// Inserts the listed blocks from `start` to `end` into `map`. `token` is a page token that
    /// continues at `start`.
    async fn section(
        &self,
        start: u32,
        end: u32,
        mut token: Option<String>,
        map: &Mutex<BlockMap>,
    ) -> Result<()> {
        let mut from = start;
        // Refused page tokens since the last block.
        let mut refused = 0;
        while from < end {
            let page = match self.page(from, token.as_deref()).await {
                // A page token expires after an hour: list again from the first missing block.
                Err(error)
                    if token.is_some() && is_stale_page(&error) && refused < MAX_PAGE_RENEWALS =>
                {
                    token = None;
                    refused += 1;
                    continue;
                }
                page => page?,
            };
            let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
            if page.size != map.size() {
                return Err(odd("EBS answers with two sizes for one volume"));
            }
            insert(&mut map, &page, end);
            drop(map);
            if let Some((last, _)) = page.blocks.last() {
                (from, refused) = (last + 1, 0);
            }
            match page.next {
                Some(next) => token = Some(next),
                None => break,
            }
        }
        Ok(())
    }
}

/// Inserts the blocks of a page that are below `end`.
fn insert(map: &mut BlockMap, page: &Page, end: u32) {
    let mut run: Option<(u32, u32)> = None;
    for (index, _) in page.blocks.iter().take_while(|(index, _)| *index < end) {
        match &mut run {
            Some((first, count)) if *first + *count == *index => *count += 1,
            _ => {
                if let Some((first, count)) = run.replace((*index, 1)) {
                    map.insert(first, count);
                }
            }
        }
    }
    if let Some((first, count)) = run {
        map.insert(first, count);
    }
}

/// Whether EBS refused a page token.
pub(super) fn is_stale_page(error: &Error) -> bool {
    error.is(ErrorCode::PageTokenExpired)
}
