//! The blocks of a snapshot, as ListSnapshotBlocks names them, and the tokens they are read with.
//!
//! Tokens are kept for the blocks that are being read and those that come next, not for the volume:
//! those of 16 TiB would take gigabytes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::quota::SnapshotQuota;
use super::{EbsLink, odd, transfer_failure};
use crate::base::{BLOCK_BYTES, Error, ErrorKind, Result, VolumeSize};
use crate::format::BlockMap;

/// Tokens are renewed so long before they end, or after three quarters of their time.
const MARGIN: Duration = Duration::from_secs(60);
/// A volume is listed in pieces of so many blocks at the same time (128 GiB), in at most so many.
const PIECE: u32 = 1 << 18;
const PIECES: u32 = 8;
/// Refused tokens of pages that follow one another without a block in them: after so many it is
/// given up. Each time the list was begun anew.
const RENEWALS: u32 = 5;

/// A snapshot that is listed.
#[derive(Clone)]
pub(super) struct Listing {
    pub(super) link: EbsLink,
    pub(super) snapshot_id: String,
    pub(super) quota: SnapshotQuota,
    /// Blocks of a page at most.
    pub(super) page: u32,
}

/// One answer.
pub(super) struct Page {
    blocks: Vec<(u32, String)>,
    next: Option<String>,
    expires: Option<SystemTime>,
    pub(super) size: VolumeSize,
}

impl Listing {
    /// One page: from block `start`, or, with a token, where the page before ended.
    pub(super) async fn page(&self, start: u32, token: Option<&str>) -> Result<Page> {
        let make = |client: aws_sdk_ebs::Client, progress: super::super::body::Progress| {
            let request = client
                .list_snapshot_blocks()
                .snapshot_id(&self.snapshot_id)
                .max_results(self.page as i32);
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
        let output = self.link.request(make).await?;
        let size = output
            .volume_size()
            .and_then(|gib| u64::try_from(gib).ok())
            .and_then(|gib| gib.checked_mul(1 << 30));
        let size =
            VolumeSize::new(size.ok_or_else(|| odd("EBS does not say how large the volume is"))?)?;
        if output.block_size().is_some_and(|bytes| bytes as u64 != BLOCK_BYTES) {
            let bytes = output.block_size().unwrap_or_default();
            return Err(Error::unsupported(
                "the blocks of the snapshot have not the size that EBS blocks have",
            )
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

    /// All blocks that the snapshot holds. Large volumes are listed in several pieces at the same
    /// time.
    pub(super) async fn map(&self, size: VolumeSize) -> Result<BlockMap> {
        let pieces = size.blocks().div_ceil(PIECE).clamp(1, PIECES);
        let step = size.blocks().div_ceil(pieces);
        let mut tasks = tokio::task::JoinSet::new();
        for piece in 0..pieces {
            let (listing, start, end) =
                (self.clone(), piece * step, ((piece + 1) * step).min(size.blocks()));
            tasks.spawn(async move { listing.runs(start, end, size).await });
        }
        let mut map = BlockMap::new(size);
        while let Some(runs) = tasks.join_next().await {
            let runs =
                runs.map_err(|cause| Error::internal("a task of a listing ended").because(cause))??;
            runs.into_iter().for_each(|(first, count)| map.insert(first, count));
        }
        Ok(map)
    }

    /// The listed blocks from `start` to `end`, as runs.
    async fn runs(&self, start: u32, end: u32, size: VolumeSize) -> Result<Vec<(u32, u32)>> {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        let mut from = start;
        let mut token: Option<String> = None;
        // Refused tokens since the last block.
        let mut refused = 0;
        while from < end {
            let page = match self.page(from, token.as_deref()).await {
                // The token of a page ends after an hour: begin again behind what is known.
                Err(error) if token.is_some() && is_stale_page(&error) && refused < RENEWALS => {
                    token = None;
                    refused += 1;
                    continue;
                }
                page => page?,
            };
            if page.size != size {
                return Err(odd("EBS says two sizes of one volume"));
            }
            for (index, _) in page.blocks.iter().take_while(|(index, _)| *index < end) {
                match runs.last_mut() {
                    Some((first, count)) if *first + *count == *index => *count += 1,
                    _ => runs.push((*index, 1)),
                }
            }
            if let Some((last, _)) = page.blocks.last() {
                (from, refused) = (last + 1, 0);
            }
            match page.next {
                Some(next) => token = Some(next),
                None => break,
            }
        }
        Ok(runs)
    }
}

fn is_stale_page(error: &Error) -> bool {
    error.fact("reason") == Some("INVALID_PAGE_TOKEN")
}

/// Whether a block was refused because its token is not good any more.
pub(super) fn is_stale_block(error: &Error) -> bool {
    error.fact("reason") == Some("INVALID_BLOCK_TOKEN")
}

/// Blocks that are being read. The tokens from the lowest of them on are wanted.
#[derive(Clone, Default)]
pub(super) struct Wanted(Arc<Mutex<BTreeSet<u32>>>);

impl Wanted {
    pub(super) fn add(&self, block: u32) -> WantedBlock {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(block);
        WantedBlock { wanted: self.clone(), block }
    }

    fn lowest(&self) -> Option<u32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).first().copied()
    }
}

/// A block that is wanted until this is dropped.
pub(super) struct WantedBlock {
    wanted: Wanted,
    block: u32,
}

impl Drop for WantedBlock {
    fn drop(&mut self) {
        self.wanted.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.block);
    }
}

/// The tokens of a stretch of the volume: one listing, as far as it was read and is still of use.
pub(super) struct Tokens {
    listing: Listing,
    wanted: Wanted,
    state: tokio::sync::Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Counts listings. A new one makes the tokens of the one before it invalid.
    generation: u64,
    /// Pages, ascending: where each begins and ends, and its tokens.
    pages: VecDeque<Stretch>,
    /// What leads to the next page, and the block from which on that lists; `None` before the first
    /// page and after the last.
    next: Option<(String, u32)>,
    /// When the tokens are too old.
    renew_at: Option<SystemTime>,
}

struct Stretch {
    first: u32,
    end: u32,
    tokens: BTreeMap<u32, String>,
}

impl State {
    fn covers(&self) -> Option<(u32, u32)> {
        Some((self.pages.front()?.first, self.pages.back()?.end))
    }

    fn has_expired(&self) -> bool {
        self.renew_at.is_some_and(|at| at <= SystemTime::now())
    }
}

impl Tokens {
    pub(super) fn new(listing: Listing, wanted: Wanted) -> Self {
        Self { listing, wanted, state: tokio::sync::Mutex::default() }
    }

    /// The token of a block that the map names, and which listing it is of.
    pub(super) async fn of(&self, block: u32, size: VolumeSize) -> Result<(String, u64)> {
        let mut state = self.state.lock().await;
        let mut refused = 0;
        loop {
            if state.has_expired() {
                self.begin(&mut state);
            }
            match state.covers() {
                Some((first, end)) if (first..end).contains(&block) => {
                    let page = state.pages.iter().find(|page| block < page.end);
                    let token = page.and_then(|page| page.tokens.get(&block)).cloned();
                    let missing = || {
                        Error::new(
                            ErrorKind::Io,
                            "EBS does not list a block any more that it listed before",
                        )
                        .at("block", block)
                    };
                    return Ok((token.ok_or_else(missing)?, state.generation));
                }
                Some((first, _)) if block < first => self.begin(&mut state),
                None if state.next.as_ref().is_some_and(|(_, from)| block < *from) => {
                    self.begin(&mut state)
                }
                // Far ahead, as when most of a store was done before: whoever is behind is not
                // waited for.
                Some((_, end))
                    if block - end > 4 * self.listing.page
                        && self.wanted.lowest().is_none_or(|lowest| lowest >= block) =>
                {
                    self.begin(&mut state);
                }
                _ => {}
            }
            match self.extend(&mut state, block, size).await {
                // The token of a page ends after an hour.
                Err(error) if is_stale_page(&error) && refused < RENEWALS => {
                    refused += 1;
                    self.begin(&mut state);
                }
                extended => extended?,
            }
        }
    }

    /// The tokens of this listing are not good any more.
    pub(super) async fn refused(&self, generation: u64) {
        let mut state = self.state.lock().await;
        if state.generation == generation {
            self.begin(&mut state);
        }
    }

    /// A new listing, of which nothing is known yet.
    fn begin(&self, state: &mut State) {
        *state = State { generation: state.generation + 1, ..State::default() };
    }

    /// Reads one more page.
    async fn extend(&self, state: &mut State, block: u32, size: VolumeSize) -> Result<()> {
        let lowest = self.wanted.lowest().unwrap_or(block).min(block);
        while state.pages.front().is_some_and(|page| page.end <= lowest) && state.pages.len() > 1 {
            state.pages.pop_front();
        }
        // Pages may be empty. Where the listing stands is then not seen in them, and a lower block
        // may be wanted meanwhile.
        let from = state.next.as_ref().map_or(lowest, |(_, from)| *from);
        let page =
            self.listing.page(from, state.next.as_ref().map(|(token, _)| token.as_str())).await?;
        let end = match (page.blocks.last(), &page.next) {
            (_, None) => size.blocks(),
            (Some((last, _)), Some(_)) => last + 1,
            // A page may be empty although others follow.
            (None, Some(_)) => from,
        };
        state.next = page.next.map(|token| (token, end));
        state.renew_at =
            [state.renew_at, page.expires.and_then(renewal)].into_iter().flatten().min();
        if end > from {
            state.pages.push_back(Stretch {
                first: from,
                end,
                tokens: page.blocks.into_iter().collect(),
            });
        }
        Ok(())
    }
}

/// When tokens are renewed that end at `expires`; `None` if that cannot be, because a clock is
/// wrong. Then the service says when.
fn renewal(expires: SystemTime) -> Option<SystemTime> {
    let left = expires.duration_since(SystemTime::now()).ok()?;
    expires.checked_sub(MARGIN.min(left / 4))
}
