//! The volumes of a damaged archive: which blocks were stored, which were rescued, and by what they
//! are proved.
//!
//! A cell is *placed* when its position proves itself. Before that its blocks are written, too,
//! because its proof, the index of its group, may come gigabytes later; without a proof they are
//! withdrawn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::examine::{CellPosition, Examined};
use super::groups::{Groups, Note, Withdrawn};
use super::missing::{Coverage, missing};
use super::{ProvedBy, SalvageSink, SalvageSinks, SalvagedVolume};
use crate::base::{
    Bitmap8, BlockIndex, CELLS_PER_GROUP, CellAddress, Error, ErrorCode, ErrorKind, MAX_VOLUMES,
    Result, SnapshotId, VolumeSize, bits_of,
};
use crate::format::{BlockMap, CellBits, GroupEntry, GroupIndex, RootRecord};
use crate::image::{ImageDocument, SnapshotEntry};

/// Notes of cells, and bitmaps, in bytes of memory.
const GROUP_MEMORY: u64 = 2 * BlockMap::BITMAP_MEMORY;

/// A volume.
pub(super) struct Volume {
    name: Option<SnapshotId>,
    size: Option<VolumeSize>,
    /// Stored blocks: those of the tar header, or of the group indexes that were found.
    expected: BlockMap,
    /// Whether the tar header was found.
    has_map: bool,
    /// Groups whose index was found, if the tar header was not.
    indexed: BTreeSet<u32>,
    rescued: BlockMap,
    sink: Option<Arc<dyn SalvageSink>>,
    is_selected: bool,
    groups: Groups,
    /// The last cell that was placed.
    last: Option<CellAddress>,
    /// Damage by its number, and the last placed cell before it.
    breaks: Vec<(Option<CellAddress>, usize)>,
}

impl Volume {
    fn new(name: Option<SnapshotId>, size: Option<VolumeSize>) -> Self {
        let bound = size.unwrap_or(LARGEST);
        Self {
            name,
            size,
            expected: BlockMap::new(bound),
            has_map: false,
            indexed: BTreeSet::new(),
            rescued: BlockMap::new(bound),
            sink: None,
            is_selected: true,
            groups: Groups::default(),
            last: None,
            breaks: Vec::new(),
        }
    }

    fn bound(&self) -> VolumeSize {
        self.size.unwrap_or(LARGEST)
    }

    /// The next cell that is stored behind `last`, if the tar header was found.
    fn next(&self, last: Option<CellAddress>) -> Option<(CellAddress, Bitmap8)> {
        let (first, from) = match last {
            None => (0, 0),
            Some(last) => (last.group, u32::from(last.index) + 1),
        };
        let in_group = (from..CELLS_PER_GROUP).find_map(|index| {
            let address = CellAddress { group: first, index: index as u16 };
            let present = self.expected.get(address).present;
            (present != 0).then_some((address, present))
        });
        in_group.or_else(|| {
            let group = self.expected.groups().find(|group| *group > first)?;
            let (address, bits) = self.expected.cells_of(group).next()?;
            Some((address, bits.present))
        })
    }
}

/// The size of a volume by the metadata, which counts in GiB: the real one may be less.
fn size_of(snapshot: &SnapshotEntry) -> Option<VolumeSize> {
    let bytes = snapshot.volume_gib?.checked_mul(1 << 30)?;
    VolumeSize::new(bytes).ok()
}

/// A size that no volume exceeds, for volumes whose size is not known.
const LARGEST: VolumeSize = VolumeSize::LARGEST;

/// All volumes.
pub(super) struct Volumes<'a> {
    volumes: BTreeMap<u16, Volume>,
    sinks: &'a mut dyn SalvageSinks,
    /// Memory for bitmaps, in bytes.
    room: u64,
}

impl<'a> Volumes<'a> {
    pub(super) fn new(sinks: &'a mut dyn SalvageSinks, room: u64) -> Self {
        Self { volumes: BTreeMap::new(), sinks, room }
    }

    /// Adds the volumes that `image.json` names.
    pub(super) fn name_all(&mut self, document: &ImageDocument) {
        self.sinks.begin(document);
        for (index, snapshot) in document.snapshots().iter().enumerate().take(MAX_VOLUMES) {
            self.volumes
                .entry(index as u16)
                .or_insert_with(|| Volume::new(Some(snapshot.id.clone()), size_of(snapshot)));
        }
    }

    /// The index of the volume of this name.
    pub(super) fn index_of(&self, name: &SnapshotId) -> Option<u16> {
        let named = |(_, volume): &(&u16, &Volume)| volume.name.as_ref() == Some(name);
        self.volumes.iter().find(named).map(|(index, _)| *index)
    }

    /// The index behind the highest one.
    pub(super) fn next_index(&self) -> u16 {
        self.volumes.keys().next_back().map_or(0, |last| last + 1)
    }

    /// Takes the map of a tar header. False if the volume has one already, or cannot exist.
    pub(super) fn open(&mut self, index: u16, name: SnapshotId, map: BlockMap) -> Result<bool> {
        if usize::from(index) >= MAX_VOLUMES {
            return Ok(false);
        }
        take(&mut self.room, map.memory() + map.groups().count() as u64 * GROUP_MEMORY)?;
        let volume = self.volumes.entry(index).or_insert_with(|| Volume::new(None, None));
        if volume.has_map {
            return Ok(false);
        }
        let size = map.size();
        let mut rescued = BlockMap::new(size);
        for (address, bits) in volume.rescued.cells() {
            rescued.set(address, bits);
        }
        (volume.name, volume.size, volume.has_map) = (Some(name), Some(size), true);
        (volume.expected, volume.rescued) = (map, rescued);
        if let Some(sink) = &volume.sink {
            sink.resize(size)?;
        }
        Ok(true)
    }

    /// The position of a cell with these bitmaps, if the volume can have it.
    pub(super) fn position(
        &mut self,
        index: u16,
        address: CellAddress,
        present: Bitmap8,
    ) -> Option<CellPosition> {
        if usize::from(index) >= MAX_VOLUMES {
            return None;
        }
        let (has_map, expected, size) = match self.volumes.get(&index) {
            Some(volume) => (volume.has_map, volume.expected.get(address), volume.bound()),
            None => (false, CellBits::default(), LARGEST),
        };
        let fits = if has_map {
            expected.present == present
        } else {
            present & !size.cell_mask(address) == 0
        };
        fits.then_some(CellPosition { volume: index, address, present, size })
    }

    /// The cell that follows `last`, `None` for the first one, in the archive; `None` if the map of
    /// the volume is not known, or has no other cell.
    pub(super) fn next(&self, index: u16, last: Option<CellAddress>) -> Option<CellPosition> {
        let volume = self.volumes.get(&index).filter(|volume| volume.has_map)?;
        let (address, present) = volume.next(last)?;
        Some(CellPosition { volume: index, address, present, size: volume.bound() })
    }

    /// Whether a cell follows `last` by all that is known: the map, or, without one, as the next
    /// cell of the address space.
    pub(super) fn is_next(&self, position: &CellPosition, last: Option<CellAddress>) -> bool {
        let has_map = self.volumes.get(&position.volume).is_some_and(|volume| volume.has_map);
        match last {
            _ if has_map => self
                .next(position.volume, last)
                .is_some_and(|next| next.address == position.address),
            Some(last) => {
                let next = BlockIndex(last.first_block().0 + crate::base::CELL_BLOCKS).cell();
                next == position.address
            }
            None => false,
        }
    }

    /// Whether a placed cell lies behind `address`, or there.
    pub(super) fn is_passed(&self, index: u16, address: CellAddress) -> bool {
        self.volumes
            .get(&index)
            .is_some_and(|volume| volume.last.is_some_and(|last| address <= last))
    }

    /// Notes the number of a damage behind the last placed cell of a volume.
    pub(super) fn broke(&mut self, index: u16, damage: usize) {
        if let Some(volume) = self.volumes.get_mut(&index) {
            volume.breaks.push((volume.last, damage));
        }
    }

    /// Writes the blocks of a cell that prove themselves. `record` are the bytes that stand where
    /// its record should be, and `fill` the blocks that it calls absent in the source.
    pub(super) fn add(
        &mut self,
        position: &CellPosition,
        examined: &Examined,
        record: &[u8],
        fill: Bitmap8,
    ) -> Result<()> {
        let CellPosition { volume: index, address, present, size } = *position;
        let volume = self.volumes.entry(index).or_insert_with(|| Volume::new(None, None));
        withdraw(volume, address)?;
        if volume.groups.is_closed(address.group) {
            return Ok(());
        }
        if volume.rescued.cells_of(address.group).next().is_none() {
            take(&mut self.room, GROUP_MEMORY)?;
        }
        let good = examined.data | examined.zero;
        if volume.sink.is_none() && volume.is_selected && good & !fill != 0 {
            volume.sink = self.sinks.volume(index, volume.name.as_ref(), volume.size)?;
            volume.is_selected = volume.sink.is_some();
        }
        if let Some(sink) = &volume.sink {
            for (bit, block) in super::super::cell::blocks_of(&examined.raw, present, size, address)
            {
                let offset = BlockIndex(address.first_block().0 + bit).offset();
                if examined.data >> bit & 1 == 1 {
                    sink.write(offset, block)?;
                } else if (examined.zero & !fill) >> bit & 1 == 1 {
                    sink.write_zeros(offset, block.len() as u64)?;
                }
            }
        }
        volume.rescued.set(address, CellBits { present: good, fill: 0 });
        volume.groups.note(address, Note::new(record, examined, fill));
        Ok(())
    }

    /// The position of a cell proves itself.
    pub(super) fn confirm(&mut self, index: u16, address: CellAddress) {
        if let Some(volume) = self.volumes.get_mut(&index) {
            volume.groups.confirm(address);
            volume.last = volume.last.max(Some(address));
        }
    }

    /// Compares the cells of a group with its index. `is_sure` says whether the index is one of
    /// this archive, by its position.
    pub(super) fn index(&mut self, index: &GroupIndex, bytes: &[u8], is_sure: bool) -> Result<()> {
        let Some(volume) = self.volumes.get_mut(&index.volume) else { return Ok(()) };
        if !volume.has_map && !volume.indexed.contains(&index.group) {
            take(&mut self.room, GROUP_MEMORY)?;
        }
        let proved = volume.groups.close(index, bytes, is_sure);
        if !proved.is_credible {
            return Ok(());
        }
        for entry in &index.cells {
            let address = CellAddress { group: index.group, index: entry.index };
            if !volume.has_map {
                volume.expected.set(address, CellBits { present: entry.present, fill: 0 });
            }
            // Record and index say that these blocks are zero. The index alone may be damaged.
            if !proved.indexed.contains(&entry.index) {
                continue;
            }
            let rescued = volume.rescued.get(address).present;
            let zero = entry.zero & entry.present & !rescued;
            if zero == 0 || volume.expected.get(address).present != entry.present {
                continue;
            }
            let size = volume.bound();
            if volume.sink.is_none() && volume.is_selected && zero & !entry.fill != 0 {
                let name = volume.name.as_ref();
                volume.sink = self.sinks.volume(index.volume, name, volume.size)?;
                volume.is_selected = volume.sink.is_some();
            }
            if let Some(sink) = &volume.sink {
                for bit in bits_of(zero & !entry.fill) {
                    let block = BlockIndex(address.first_block().0 + bit);
                    sink.write_zeros(block.offset(), size.block_len(block))?;
                }
            }
            volume.rescued.set(address, CellBits { present: rescued | zero, fill: 0 });
            volume.groups.add_zero(index.group, zero.count_ones().into());
        }
        volume.indexed.insert(index.group);
        volume.last = volume
            .last
            .max(proved.last.map(|last| CellAddress { group: index.group, index: last }));
        Ok(())
    }

    /// Whether a root record has the volumes whose headers were found.
    pub(super) fn agree_with(&self, root: &RootRecord) -> bool {
        self.volumes.iter().filter(|(_, volume)| volume.has_map).all(|(index, volume)| {
            root.manifest.volumes.get(usize::from(*index)).is_some_and(|entry| {
                volume.name.as_ref() == Some(&entry.name) && volume.size == Some(entry.size)
            })
        })
    }

    /// Offsets of group indexes that are lost, or are not those of the root record.
    pub(super) fn lost_indexes(&mut self, root: &RootRecord) -> Vec<u64> {
        self.volumes.values_mut().for_each(|volume| volume.groups.close_all());
        let is_lost = |entry: &&GroupEntry| {
            self.volumes
                .get(&entry.volume)
                .is_none_or(|volume| volume.groups.lacks_index(entry.group, entry.index_digest))
        };
        root.groups.iter().filter(is_lost).map(GroupEntry::index_offset).collect()
    }

    /// The volumes, after the blocks without proof were withdrawn. `causes` are those of damage, by
    /// its number; the last one is that of the end of the archive.
    pub(super) fn finish(
        mut self,
        root: Option<&RootRecord>,
        causes: &[String],
    ) -> Result<Vec<SalvagedVolume>> {
        if let Some(root) = root {
            // Its list is the whole one.
            for (index, entry) in root.manifest.volumes.iter().enumerate() {
                let volume =
                    self.volumes.entry(index as u16).or_insert_with(|| Volume::new(None, None));
                volume.name = Some(entry.name.clone());
                if !volume.has_map {
                    volume.size = Some(entry.size);
                    if let Some(sink) = &volume.sink {
                        sink.resize(entry.size)?;
                    }
                }
            }
        }
        let mut found = Vec::new();
        for (index, mut volume) in self.volumes {
            let mut proved = ProvedBy::default();
            volume.groups.close_all();
            let groups: Vec<u32> = volume.groups.numbers().collect();
            for group in groups {
                let expected = root.map(|root| {
                    let mut entries = root.groups_of(index).iter();
                    entries.find(|entry| entry.group == group).map(|entry| entry.index_digest)
                });
                let withdrawn: Vec<u16> = match volume.groups.judge(group, expected, &mut proved) {
                    Withdrawn::Cells(cells) => cells,
                    Withdrawn::All => {
                        volume.rescued.cells_of(group).map(|(address, _)| address.index).collect()
                    }
                };
                for cell in withdrawn {
                    withdraw(&mut volume, CellAddress { group, index: cell })?;
                }
            }
            if let Some(volume) = report(index, volume, root, causes, proved) {
                found.push(volume);
            }
        }
        Ok(found)
    }
}

/// Takes memory for bitmaps.
fn take(room: &mut u64, bytes: u64) -> Result<()> {
    *room = room.checked_sub(bytes).ok_or_else(|| {
        Error::new(
            ErrorKind::Limit,
            "the memory budget is too small for the block maps and indexes of this archive",
        )
        .code_as(ErrorCode::MemoryForIndexes)
    })?;
    Ok(())
}

fn withdraw(volume: &mut Volume, address: CellAddress) -> Result<()> {
    let rescued = volume.rescued.get(address).present;
    if rescued == 0 {
        return Ok(());
    }
    if let Some(sink) = &volume.sink {
        for bit in bits_of(rescued) {
            let block = BlockIndex(address.first_block().0 + bit);
            sink.withdraw(block.offset(), volume.bound().block_len(block))?;
        }
    }
    volume.rescued.set(address, CellBits::default());
    volume.groups.remove(address);
    Ok(())
}

/// The report on a volume; `None` for one that was never there: nothing names it, and nothing of it
/// proved itself.
fn report(
    index: u16,
    volume: Volume,
    root: Option<&RootRecord>,
    causes: &[String],
    proved_by: ProvedBy,
) -> Option<SalvagedVolume> {
    let Volume { name, size, expected, has_map, indexed, rescued, sink, breaks, .. } = volume;
    if name.is_none() && proved_by.total() == 0 {
        return None;
    }
    let listed: Option<BTreeSet<u32>> =
        root.map(|root| root.groups_of(index).iter().map(|group| group.group).collect());
    let is_known = |group: u32| {
        let is_absent = listed.as_ref().is_some_and(|listed| !listed.contains(&group));
        has_map || indexed.contains(&group) || is_absent
    };
    let last = causes.last().cloned().unwrap_or_default();
    let cause = |address: CellAddress| {
        let before = breaks.iter().rev().find(|(placed, _)| *placed <= Some(address));
        before.and_then(|(_, number)| causes.get(*number)).unwrap_or(&last).clone()
    };
    let ranges = size.map(|size| {
        missing(&Coverage {
            size,
            expected: &expected,
            rescued: &rescued,
            is_known: &is_known,
            cause: &cause,
        })
    });
    Some(SalvagedVolume {
        index,
        name,
        size,
        rescued: rescued.stored_bytes(),
        has_file: sink.is_some() && proved_by.total() > 0,
        end: rescued.extents().last().map_or(0, |extent| BlockIndex(extent.end()).offset()),
        missing: ranges,
        proved_by,
    })
}
