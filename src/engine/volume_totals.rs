//! Totals of a volume that is read by random access: compared with index and manifest at its end.

use super::Archive;
use crate::base::{BlockIndex, Error, Result};
use crate::format::{CellFacts, GroupContent, GroupEntry, VolumeContent};

/// Totals over the cells of one volume.
#[derive(Default)]
pub(super) struct VolumeTotals {
    group: GroupContent,
    volume: VolumeContent,
    blocks: u64,
    zero: u64,
    fill: u64,
    /// A cell is missing, so no total can be right.
    pub(super) damaged: bool,
}

impl VolumeTotals {
    pub(super) fn cell(&mut self, facts: &CellFacts) {
        self.group.add(facts);
        self.blocks += u64::from(facts.present.count_ones());
        self.zero += u64::from(facts.zero.count_ones());
        self.fill += u64::from(facts.fill.count_ones());
    }

    pub(super) fn close_group(&mut self, archive: &Archive, entry: &GroupEntry) -> Result<()> {
        let group = std::mem::take(&mut self.group);
        if group.has_data() {
            self.volume.add(entry.group, &entry.content);
        }
        if !self.damaged && group.digest() != entry.content {
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
