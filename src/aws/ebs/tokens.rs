//! Block tokens, which GetSnapshotBlock requires: the second listing of a volume, page by page,
//! with the tokens of the blocks that are being read and of the blocks after them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::listing::{Listing, MAX_PAGE_RENEWALS, Page, is_stale_page};
use crate::base::{Error, ErrorCode, ErrorKind, Result, VolumeSize};

/// Tokens are renewed this long before they expire, or after three quarters of their life if that
/// is later.
const RENEWAL_MARGIN: Duration = Duration::from_secs(60);

/// Whether EBS refused a block token.
pub(super) fn is_stale_block(error: &Error) -> bool {
    error.is(ErrorCode::BlockTokenExpired)
}

/// Blocks whose reads have not ended. Tokens below the lowest of them are dropped.
#[derive(Clone, Default)]
pub(super) struct PendingReads(Arc<Mutex<BTreeSet<u32>>>);

impl PendingReads {
    pub(super) fn add(&self, block: u32) -> PendingRead {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(block);
        PendingRead { reads: self.clone(), block }
    }

    fn lowest(&self) -> Option<u32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).first().copied()
    }
}

/// A read that is pending until this is dropped.
pub(super) struct PendingRead {
    reads: PendingReads,
    block: u32,
}

impl Drop for PendingRead {
    fn drop(&mut self) {
        self.reads.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.block);
    }
}

/// The tokens of a range of the volume: pages of one listing.
pub(super) struct Tokens {
    listing: Listing,
    pending: PendingReads,
    state: tokio::sync::Mutex<TokenState>,
}

#[derive(Default)]
struct TokenState {
    /// Counts listings. A new one makes the tokens of the one before it invalid.
    generation: u64,
    /// Pages, ascending, without a gap between two of them.
    pages: VecDeque<TokenPage>,
    /// The page token, and the first block that the next page may have; `None` before the first
    /// page and after the last.
    next: Option<(String, u32)>,
    /// The time at which the tokens have to be renewed.
    renew_at: Option<SystemTime>,
}

struct TokenPage {
    /// The first block that the page may have.
    first: u32,
    /// The block after the last that it may have.
    end: u32,
    tokens: BTreeMap<u32, String>,
}

impl TokenState {
    fn range(&self) -> Option<(u32, u32)> {
        Some((self.pages.front()?.first, self.pages.back()?.end))
    }

    fn has_expired(&self) -> bool {
        self.renew_at.is_some_and(|at| at <= SystemTime::now())
    }
}

impl Tokens {
    /// The tokens of `listed`, if it is the only page of the volume.
    pub(super) fn new(listing: Listing, listed: Option<Page>, pending: PendingReads) -> Self {
        let state = listed.map_or_else(TokenState::default, |page| TokenState {
            renew_at: page.expires.and_then(renewal),
            pages: VecDeque::from([TokenPage {
                first: 0,
                end: page.size.blocks(),
                tokens: page.blocks.into_iter().collect(),
            }]),
            ..TokenState::default()
        });
        Self { listing, pending, state: tokio::sync::Mutex::new(state) }
    }

    /// The token of a block of the block map, and the generation of its listing.
    pub(super) async fn of(&self, block: u32, size: VolumeSize) -> Result<(String, u64)> {
        let mut state = self.state.lock().await;
        let mut refused = 0;
        loop {
            if state.has_expired() {
                self.begin(&mut state);
            }
            match state.range() {
                Some((first, end)) if (first..end).contains(&block) => {
                    let page = state.pages.iter().find(|page| block < page.end);
                    let token = page.and_then(|page| page.tokens.get(&block)).cloned();
                    let missing = || {
                        Error::new(
                            ErrorKind::Io,
                            "the second listing of the snapshot lacks a block of the first",
                        )
                        .at("block", block)
                    };
                    return Ok((token.ok_or_else(missing)?, state.generation));
                }
                Some((first, _)) if block < first => self.begin(&mut state),
                None if state.next.as_ref().is_some_and(|(_, from)| block < *from) => {
                    self.begin(&mut state);
                }
                // Far ahead, as when most of a volume was stored before: list from there, unless a
                // lower block is pending.
                Some((_, end))
                    if block - end > 4 * self.listing.page_blocks
                        && self.pending.lowest().is_none_or(|lowest| lowest >= block) =>
                {
                    self.begin(&mut state);
                }
                _ => {}
            }
            match self.extend(&mut state, block, size).await {
                // A page token expires after an hour.
                Err(error) if is_stale_page(&error) && refused < MAX_PAGE_RENEWALS => {
                    refused += 1;
                    self.begin(&mut state);
                }
                extended => extended?,
            }
        }
    }

    /// EBS refused a token of this generation: the next read lists anew.
    pub(super) async fn refused(&self, generation: u64) {
        let mut state = self.state.lock().await;
        if state.generation == generation {
            self.begin(&mut state);
        }
    }

    /// Drops all pages, for a new listing.
    fn begin(&self, state: &mut TokenState) {
        *state = TokenState { generation: state.generation + 1, ..TokenState::default() };
    }

    /// Requests one more page.
    async fn extend(&self, state: &mut TokenState, block: u32, size: VolumeSize) -> Result<()> {
        let lowest = self.pending.lowest().unwrap_or(block).min(block);
        while state.pages.front().is_some_and(|page| page.end <= lowest) && state.pages.len() > 1 {
            state.pages.pop_front();
        }
        // After empty pages the position of the listing is known from `next` alone.
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
            state.pages.push_back(TokenPage {
                first: from,
                end,
                tokens: page.blocks.into_iter().collect(),
            });
        }
        Ok(())
    }
}

/// The time at which tokens that expire at `expires` are renewed; `None` if `expires` is in the
/// past, because a clock is wrong: then EBS refuses the tokens when they are too old.
fn renewal(expires: SystemTime) -> Option<SystemTime> {
    let left = expires.duration_since(SystemTime::now()).ok()?;
    expires.checked_sub(RENEWAL_MARGIN.min(left / 4))
}
