//! The memory of a seek table.

use super::Lease;
use super::pipeline::Feed;
use crate::base::Result;
use crate::format::FrameLog;
use crate::format::layout::MAX_SEEK_FRAMES;

/// The memory of the seek table while it grows: reserved volume by volume, until the table would be
/// longer than the format allows and is left out.
#[derive(Debug, Default)]
pub(super) struct SeekTableLease {
    leases: Vec<Lease>,
    bytes: u64,
}

impl SeekTableLease {
    /// Makes room for `cells` more.
    pub(super) fn grow<J, P>(&mut self, cells: u64, feed: &Feed<'_, J, P>) -> Result<()> {
        let most = MAX_SEEK_FRAMES / 2 * FrameLog::CELL_MEMORY;
        let bytes = (self.bytes + cells * FrameLog::CELL_MEMORY).min(most);
        self.leases.push(feed.reserve(bytes - self.bytes)?);
        self.bytes = bytes;
        Ok(())
    }
}
