//! The books of a volume that is read at any position: what its cells add up to, and whether index
//! and manifest say the same.

use super::Archive;
use crate::base::{BlockIndex, Error, Result};
use crate::format::{CellFacts, GroupContent, GroupEntry, VolumeContent};

/// The books of one volume: what its cells add up to.
#[derive(Default)]
pub(super) struct Books {
    group: GroupContent,
    volume: VolumeContent,
    blocks: u64,
    zero: u64,
    fill: u64,
    /// Something is missing, so that nothing can add up.
    pub(super) damaged: bool,
}

impl Books {
    pub(super) fn cell(&mut self, facts: &CellFacts) {
        self.group.add(facts);
        self.blocks += u64::from(facts.present.count_ones());
        self.zero += u64::from(facts.zero.count_ones());
        self.fill += u64::from(facts.fill.count_ones());
    }

    pub(super) fn close_group(&mut self, archive: &Archive, entry: &GroupEntry) -> Result<()> {
        let window = std::mem::take(&mut self.group);
        if window.has_data() {
            self.volume.add(entry.group, &entry.content);
        }
        if !self.damaged && window.digest() != entry.content {
            self.damaged = true;
            return Err(archive.locate_group(
                Error::corrupt("the content digest of a window is not that of its blocks"),
                entry,
            ));
        }
        Ok(())
    }

    pub(super) fn close_volume(&self, archive: &Archive, volume: u16) -> Result<()> {
        let entry = archive.volume_entry(volume);
        let agree = (self.blocks, self.zero, self.fill) == (entry.blocks, entry.zero, entry.fill)
            && self.volume.digest() == entry.content;
        if self.damaged || agree {
            return Ok(());
        }
        let all = crate::base::BlockRange { first: BlockIndex(0), count: entry.size.blocks() };
        Err(Error::corrupt("the manifest does not say of a volume what its blocks say")
            .at("snapshot", &entry.name)
            .at("blocks", all)
            .at("offset", archive.footer().root_offset))
    }
}
