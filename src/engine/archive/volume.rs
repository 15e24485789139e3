//! A volume of an archive, read at any position.
//!
//! ```text
//! read_at --> block in the group's index? --no--> zeros
//!                      |yes
//!             opened cell in the cache? --yes--> copy
//!                      |no, one thread for each cell
//!             fetch, check record, frame and blocks --> cache
//! ```

use std::sync::{Arc, Mutex, PoisonError};

use super::Archive;
use super::cache::{Cache, Guard};
use super::index::{CELL_BYTES, IndexedCell, indexed_cells};
use super::open::twice;
use super::read_ahead::Sequences;
use crate::base::{
    BLOCK_BYTES, BlockIndex, CellAddress, Error, ErrorKind, Result, SnapshotId, VolumeSize, hex,
};
use crate::engine::cell::{CellOpener, StoredCell, check_frames, locate, read_record};
use crate::format::layout::{MAX_CELL, MAX_CELL_RECORD};
use crate::format::{
    BlockMap, CellBits, CellEntry, CellRecord, Digest, GroupEntry, VolumeEntry, ZERO_BLOCK_DIGEST,
};
use crate::volume::BlockSource;

/// Bytes of opened cells that a volume caches unless told otherwise: a quarter of the default
/// memory of an operation.
pub const DEFAULT_CELL_CACHE: u64 = 64 << 20;

/// Bytes of group indexes that a volume caches: those of 0.5 TiB of full volume.
const INDEX_CACHE: u64 = 8 << 20;
/// Most cells that are fetched ahead of a sequential read: 32 MiB, as much as 8 connections carry
/// in 100 ms at 320 MiB/s.
const CELLS_AHEAD: usize = 8;

/// A volume of an archive. A read fetches, checks and caches the cells that it needs, and no
/// others; absent blocks and fill blocks read as zeros. Data that does not match its digests is an
/// error of kind `Corrupt` that names snapshot, blocks and offset, each time it is read. Clones
/// share the caches, and can be used by any number of threads.
#[derive(Clone)]
pub struct ArchiveVolume(Arc<Shared>);

struct Shared {
    archive: Archive,
    index: u16,
    map: Mutex<Option<Arc<BlockMap>>>,
    groups: Cache<u32, CachedGroup, ()>,
    cells: Cache<CellAddress, CachedCell, Prefetched>,
    openers: Mutex<Vec<CellOpener>>,
    sequences: Sequences,
}

/// The cells of a group, and where each begins in the archive.
struct CachedGroup {
    entries: Vec<CellEntry>,
    offsets: Vec<u64>,
}

/// An opened cell: the bytes of its present blocks.
struct CachedCell {
    raw: Vec<u8>,
    block_digests: Vec<Digest>,
}

/// A range that was announced to the reader. Dropped, the announcement is withdrawn; after the read
/// that has no effect.
struct Prefetched {
    archive: Archive,
    offset: u64,
    len: u64,
}

impl Drop for Prefetched {
    fn drop(&mut self) {
        self.archive.reader().cancel_prefetch(self.offset, self.len);
    }
}

impl Archive {
    /// The volume of a snapshot id, or behind a device name such as `/dev/xvda`; an error of kind
    /// `NotFound` if there is none. It caches 64 MiB of opened cells.
    pub fn volume(&self, name: &str) -> Result<ArchiveVolume> {
        match self.index_of(name) {
            Some(index) => Ok(ArchiveVolume::new(self, index, DEFAULT_CELL_CACHE)),
            None => self.volume_of_device(name),
        }
    }

    /// The volume behind a device name.
    pub fn volume_of_device(&self, device: &str) -> Result<ArchiveVolume> {
        self.volume_of_snapshot(self.document().snapshot_of(device)?.as_str())
    }

    /// The volume of a snapshot id.
    pub fn volume_of_snapshot(&self, id: &str) -> Result<ArchiveVolume> {
        if let Some(index) = self.index_of(id) {
            return Ok(ArchiveVolume::new(self, index, DEFAULT_CELL_CACHE));
        }
        let volumes = self.root().manifest.volumes.iter();
        let known: Vec<&str> = volumes.map(|volume| volume.name.as_str()).collect();
        Err(Error::new(ErrorKind::NotFound, "the archive has no such snapshot")
            .at("snapshot", id)
            .at("snapshots", known.join(", ")))
    }

    /// All volumes, in the order of the archive.
    pub fn volumes(&self) -> impl Iterator<Item = ArchiveVolume> + '_ {
        let count = self.root().manifest.volumes.len() as u16;
        (0..count).map(|index| ArchiveVolume::new(self, index, DEFAULT_CELL_CACHE))
    }

    fn index_of(&self, id: &str) -> Option<u16> {
        let volumes = &self.root().manifest.volumes;
        volumes.iter().position(|volume| volume.name.as_str() == id).map(|index| index as u16)
    }
}

impl ArchiveVolume {
    fn new(archive: &Archive, index: u16, cell_cache: u64) -> Self {
        Self(Arc::new(Shared {
            archive: archive.clone(),
            index,
            map: Mutex::default(),
            groups: Cache::new(INDEX_CACHE),
            cells: Cache::new(cell_cache.max(MAX_CELL as u64)),
            openers: Mutex::default(),
            sequences: Sequences::default(),
        }))
    }

    /// This volume with an empty cache that holds at most `bytes` of opened cells, and at least
    /// one cell (4 MiB). Every thread that reads needs as much as one stored cell beside it.
    #[must_use]
    pub fn with_cell_cache(&self, bytes: u64) -> Self {
        Self::new(&self.0.archive, self.0.index, bytes)
    }

    /// The archive.
    pub fn archive(&self) -> &Archive {
        &self.0.archive
    }

    /// The index of the volume in the archive, counted from 0.
    pub fn index(&self) -> u16 {
        self.0.index
    }

    /// The manifest's entry of the volume.
    pub fn entry(&self) -> &VolumeEntry {
        self.0.archive.volume_entry(self.0.index)
    }

    /// The snapshot.
    pub fn snapshot(&self) -> &SnapshotId {
        &self.entry().name
    }

    /// Bytes of the archive that hold the volume's cells and group indexes.
    pub fn stored_bytes(&self) -> u64 {
        let groups = self.group_entries().iter();
        groups.map(|group| group.cells_len + u64::from(group.index_len)).sum()
    }

    /// Bytes that the cache of opened cells takes now.
    pub fn cached_bytes(&self) -> u64 {
        self.0.cells.used()
    }

    /// The stored blocks, fill blocks marked. Reads all group indexes the first time, and checks
    /// that the volume's tar header lists the same blocks.
    pub fn map(&self) -> Result<Arc<BlockMap>> {
        let mut map = self.0.map.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(map) = map.as_ref() {
            return Ok(map.clone());
        }
        let mut built = BlockMap::new(self.size());
        self.for_each_cell(&mut |cell| {
            let bits = CellBits { present: cell.entry.present, fill: cell.entry.fill };
            built.set(cell.address, bits);
            Ok(())
        })?;
        self.0.archive.check_header(self.0.index, &built)?;
        let built = Arc::new(built);
        *map = Some(built.clone());
        Ok(built)
    }

    /// Calls `found` for all cells, ascending. Reads every group index once, past the cache.
    pub(in crate::engine) fn for_each_cell(
        &self,
        found: &mut dyn FnMut(IndexedCell) -> Result<()>,
    ) -> Result<()> {
        let archive = &self.0.archive;
        for (number, group) in self.group_entries().iter().enumerate() {
            archive.prefetch_indexes(self.0.index, number);
            indexed_cells(archive.group_index(group)?, group).try_for_each(&mut *found)?;
        }
        Ok(())
    }

    /// Calls `found` for the cells of the slots that bytes `offset .. end` touch, ascending. Reads
    /// the indexes of their groups.
    pub(super) fn for_each_cell_of(
        &self,
        offset: u64,
        end: u64,
        found: &mut dyn FnMut(IndexedCell) -> Result<()>,
    ) -> Result<()> {
        let address_at = |offset: u64| BlockIndex((offset / BLOCK_BYTES) as u32).cell();
        if offset >= end {
            return Ok(());
        }
        let (first, last) = (address_at(offset), address_at(end - 1));
        let entries = self.group_entries();
        let start = entries.partition_point(|group| group.group < first.group);
        let touched = entries[start..].iter().take_while(|group| group.group <= last.group);
        for number in touched.map(|group| group.group) {
            let Some(group) = self.group(number)? else { continue };
            let cells = (0..group.entries.len()).map(|position| group.cell(number, position));
            cells
                .skip_while(|cell| cell.address < first)
                .take_while(|cell| cell.address <= last)
                .try_for_each(&mut *found)?;
        }
        Ok(())
    }

    /// The cell of a slot, if there is one. Reads the index of its group if that is not cached.
    pub(in crate::engine) fn cell(&self, address: CellAddress) -> Result<Option<IndexedCell>> {
        let Some(group) = self.group(address.group)? else { return Ok(None) };
        Ok(group.position(address.index).ok().map(|position| group.cell(address.group, position)))
    }

    /// Begins to fetch the record of a cell, which [`Self::block_digests`] reads.
    pub(in crate::engine) fn prefetch_record(&self, cell: &IndexedCell) {
        self.0.archive.reader().prefetch(cell.offset, cell.entry.record_len().into());
    }

    /// The digests of the data blocks of a cell, ascending, from its record: the frame is neither
    /// fetched nor inflated.
    pub(in crate::engine) fn block_digests(&self, cell: &IndexedCell) -> Result<Vec<Digest>> {
        let reader = self.0.archive.reader();
        let read = || {
            let mut bytes = [0; MAX_CELL_RECORD];
            let bytes = &mut bytes[..cell.entry.record_len() as usize];
            reader.read_at(cell.offset, bytes)?;
            read_record(bytes, &cell.entry, cell.address, self.0.index)
        };
        let record = twice(reader, read).map_err(|error| self.located(error, cell))?;
        Ok(record.block_digests)
    }

    fn group_entries(&self) -> &[GroupEntry] {
        self.0.archive.root().groups_of(self.0.index)
    }

    fn group(&self, number: u32) -> Result<Option<Guard<'_, u32, CachedGroup, ()>>> {
        let groups = self.group_entries();
        let Ok(position) = groups.binary_search_by_key(&number, |group| group.group) else {
            return Ok(None);
        };
        let entry = &groups[position];
        let make =
            || self.0.archive.group_index(entry).map(|index| CachedGroup::new(entry, index.cells));
        self.0.groups.get(number, CachedGroup::memory(entry.entries), make).map(Some)
    }

    fn opened(&self, cell: &IndexedCell) -> Result<Guard<'_, CellAddress, CachedCell, Prefetched>> {
        self.0.cells.get(cell.address, self.weight(cell), || self.open(cell))
    }

    /// Room for a cell as stored, and then for its blocks.
    pub(super) fn weight(&self, cell: &IndexedCell) -> u64 {
        let raw = self.size().cell_bytes(cell.address, cell.entry.present);
        raw.max(cell.len())
    }

    /// Fetches and checks a cell.
    fn open(&self, cell: &IndexedCell) -> Result<CachedCell> {
        let opener = self.0.openers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut opener = opener.map_or_else(CellOpener::new, Ok)?;
        let reader = self.0.archive.reader();
        let mut bytes = vec![0; cell.len() as usize];
        let opened = twice(reader, || {
            reader.read_at(cell.offset, &mut bytes)?;
            let (record, frame) = bytes.split_at(cell.entry.record_len() as usize);
            let record = read_record(record, &cell.entry, cell.address, self.0.index)?;
            let stored = StoredCell { record, frame };
            check_frames(std::slice::from_ref(&stored)).into_iter().collect::<Result<()>>()?;
            opener.open(&stored, self.size())?;
            Ok(stored.record)
        });
        let record: CellRecord = opened.map_err(|error| self.located(error, cell))?;
        let raw = opener.take_raw();
        self.0.openers.lock().unwrap_or_else(PoisonError::into_inner).push(opener);
        Ok(CachedCell { raw, block_digests: record.block_digests })
    }

    fn located(&self, error: Error, cell: &IndexedCell) -> Error {
        if error.kind() != ErrorKind::Corrupt {
            return error.at("snapshot", self.snapshot());
        }
        locate(error, cell.address, cell.offset)
            .at("snapshot", self.snapshot())
            .at("archive", self.0.archive.reader().name())
    }

    /// Calls `visit` for each part of a range of the volume: the slot, the offset in the volume,
    /// and the part of `buffer` that it fills.
    fn for_each_part(
        offset: u64,
        mut buffer: &mut [u8],
        mut visit: impl FnMut(CellAddress, u64, &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let mut at = offset;
        while !buffer.is_empty() {
            let len = (CELL_BYTES - at % CELL_BYTES).min(buffer.len() as u64);
            let (part, rest) = buffer.split_at_mut(len as usize);
            visit(BlockIndex((at / BLOCK_BYTES) as u32).cell(), at, part)?;
            buffer = rest;
            at += len;
        }
        Ok(())
    }

    /// Fills `part`, which lies in one slot.
    fn read_part(&self, address: CellAddress, offset: u64, part: &mut [u8]) -> Result<()> {
        let Some(cell) =
            self.cell(address)?.filter(|cell| cell.has_data_in(offset, part.len() as u64))
        else {
            part.fill(0);
            return Ok(());
        };
        self.copy_from(&cell, offset, part)
    }

    /// Fills `part`, which lies in the slot of `cell`, from that.
    pub(super) fn copy_from(&self, cell: &IndexedCell, offset: u64, part: &mut [u8]) -> Result<()> {
        let opened = self.opened(cell)?;
        let data = cell.data();
        let mut done = 0;
        while done < part.len() {
            let at = offset + done as u64;
            let bit = BlockIndex((at / BLOCK_BYTES) as u32).bit();
            let within = (at % BLOCK_BYTES) as usize;
            let len = (part.len() - done).min(BLOCK_BYTES as usize - within);
            let target = &mut part[done..done + len];
            if data >> bit & 1 == 0 {
                target.fill(0);
            } else {
                let before = (cell.entry.present & ((1 << bit) - 1)).count_ones() as usize;
                let start = before * BLOCK_BYTES as usize + within;
                target.copy_from_slice(&opened.raw[start..start + len]);
            }
            done += len;
        }
        Ok(())
    }

    /// Begins to fetch the cells of a range that hold data, as far as the cache has room.
    fn prefetch_range(&self, offset: u64, len: u64) -> Result<()> {
        let end = (offset + len).min(self.size().bytes());
        let mut at = offset;
        while at < end {
            let next = (at / CELL_BYTES + 1) * CELL_BYTES;
            let len = next.min(end) - at;
            let address = BlockIndex((at / BLOCK_BYTES) as u32).cell();
            if let Some(cell) = self.cell(address)?
                && cell.has_data_in(at, len)
                && !self.prefetch_cell(&cell)
            {
                return Ok(());
            }
            at = next;
        }
        Ok(())
    }

    /// Begins to fetch a cell. Returns false if there is no room for it, or no need.
    pub(super) fn prefetch_cell(&self, cell: &IndexedCell) -> bool {
        self.0.cells.reserve(cell.address, self.weight(cell), || {
            let (offset, len) = (cell.offset, cell.len());
            self.0.archive.reader().prefetch(offset, len);
            Prefetched { archive: self.0.archive.clone(), offset, len }
        })
    }

    /// Begins to fetch the cells behind `offset` that hold data: of the same group only, because
    /// the index of the next would have to be waited for.
    fn read_ahead(&self, offset: u64) -> Result<()> {
        let address = BlockIndex((offset / BLOCK_BYTES) as u32).cell();
        let Some(group) = self.group(address.group)? else { return Ok(()) };
        let next = group.position(address.index).map_or_else(|next| next, |this| this + 1);
        // Half of the cache stays for cells that were read.
        let mut room = self.0.cells.budget() / 2;
        let ahead: Vec<IndexedCell> = (next..group.entries.len())
            .map(|position| group.cell(address.group, position))
            .filter(IndexedCell::has_data)
            .take(CELLS_AHEAD)
            .collect();
        drop(group);
        for cell in ahead {
            let weight = self.weight(&cell);
            if weight > room {
                break;
            }
            room -= weight;
            self.prefetch_cell(&cell);
        }
        Ok(())
    }

    pub(super) fn check_range(&self, offset: u64, len: u64) -> Result<()> {
        let size = self.size().bytes();
        if offset.checked_add(len).is_some_and(|end| end <= size) {
            return Ok(());
        }
        Err(Error::usage("a read past the end of the volume")
            .at("snapshot", self.snapshot())
            .at("offset", offset)
            .at("length", len)
            .at("size", size))
    }
}

impl BlockSource for ArchiveVolume {
    fn size(&self) -> VolumeSize {
        self.entry().size
    }

    fn block_map(&self) -> Result<BlockMap> {
        let stored = self.map()?;
        if stored.fill_blocks() == 0 {
            return Ok(stored.as_ref().clone());
        }
        let mut map = BlockMap::new(self.size());
        for (address, bits) in stored.cells() {
            let present = bits.present & !bits.fill;
            if present != 0 {
                map.set(address, CellBits { present, fill: 0 });
            }
        }
        Ok(map)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let len = buffer.len() as u64;
        self.check_range(offset, len)?;
        if len == 0 {
            return Ok(());
        }
        let reads_ahead = self.0.sequences.note(offset, len);
        if offset / CELL_BYTES != (offset + len - 1) / CELL_BYTES {
            self.prefetch_range(offset, len)?;
        }
        if reads_ahead {
            self.read_ahead(offset + len - 1)?;
        }
        Self::for_each_part(offset, buffer, |address, offset, part| {
            self.read_part(address, offset, part)
        })
    }

    fn read_blocks(&self, offset: u64, buffer: &mut [u8], digests: &mut Vec<Digest>) -> Result<()> {
        self.read_at(offset, buffer)?;
        let first = (offset / BLOCK_BYTES) as u32;
        let count = (buffer.len() as u64).div_ceil(BLOCK_BYTES) as u32;
        for block in (first..first + count).map(BlockIndex) {
            digests.push(self.digest_of(block)?);
        }
        Ok(())
    }

    fn prefetch(&self, offset: u64, len: u64) {
        // A damaged index is reported by the read.
        let _ = self.prefetch_range(offset, len);
    }

    /// An archive cannot change unnoticed: all bytes that are read have to match the root.
    fn check_unchanged(&self) -> Result<()> {
        Ok(())
    }

    fn identity(&self) -> Option<String> {
        Some(format!("archive:{}:{}", hex(&self.0.archive.footer().root), self.0.index))
    }
}

impl ArchiveVolume {
    /// The digest of a block that was read just before: its cell is in the cache, most likely.
    fn digest_of(&self, block: BlockIndex) -> Result<Digest> {
        let Some(cell) = self.cell(block.cell())? else { return Ok(ZERO_BLOCK_DIGEST) };
        let (data, bit) = (cell.data(), block.bit());
        if data >> bit & 1 == 0 {
            return Ok(ZERO_BLOCK_DIGEST);
        }
        let position = (data & ((1 << bit) - 1)).count_ones() as usize;
        Ok(self.opened(&cell)?.block_digests[position])
    }
}

impl CachedGroup {
    fn new(group: &GroupEntry, entries: Vec<CellEntry>) -> Self {
        let mut next = group.offset;
        let offsets = entries.iter().map(|entry| {
            let offset = next;
            next += u64::from(entry.cell_len);
            offset
        });
        let offsets = offsets.collect();
        Self { entries, offsets }
    }

    /// Bytes that the index of a group with so many cells takes.
    fn memory(entries: u32) -> u64 {
        u64::from(entries) * (size_of::<CellEntry>() + size_of::<u64>()) as u64
    }

    fn position(&self, index: u16) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&index, |entry| entry.index)
    }

    fn cell(&self, group: u32, position: usize) -> IndexedCell {
        let entry = self.entries[position].clone();
        let address = CellAddress { group, index: entry.index };
        IndexedCell { address, entry, offset: self.offsets[position] }
    }
}
