//! The cells of each group, and their proofs: the index of the group, and the digest of that index
//! in the root record.
//!
//! The cells of a group are noted until its index is read, or cells of a later group are placed.
//! Then only the exceptions stay in memory: the cells whose fate the root record decides.

use std::collections::{BTreeMap, BTreeSet};

use super::ProvedBy;
use super::examine::{Examined, Proof};
use crate::base::{Bitmap8, CellAddress};
use crate::codec::sha256;
use crate::format::{CellEntry, CellRecord, Digest, GroupContent, GroupIndex};

/// The most cells that are noted: those of a group, and some at uncertain positions.
const MOST_NOTES: usize = 6000;

/// A cell that was written.
pub(super) struct Note {
    record_digest: Digest,
    /// The record that a writer makes of the content.
    made: Option<CellRecord>,
    good: Bitmap8,
    proof: Proof,
    is_placed: bool,
    /// The index that was read last has this cell.
    is_indexed: bool,
}

impl Note {
    /// A note of a cell at whose position the record `record` stands, right or wrong. `fill` are
    /// the blocks that it calls absent in the source.
    pub(super) fn new(record: &[u8], examined: &Examined, fill: Bitmap8) -> Self {
        let made = examined.made.clone().map(|made| CellRecord { fill: fill & made.zero, ..made });
        Self {
            record_digest: sha256::digest(record),
            made,
            good: examined.data | examined.zero,
            proof: examined.proof,
            is_placed: false,
            is_indexed: false,
        }
    }

    /// Whether this is the cell of an entry: by its record, or by the record of its content.
    fn is_cell_of(&self, entry: &CellEntry) -> bool {
        if self.record_digest == entry.record_digest {
            return true;
        }
        let Some(made) = &self.made else { return false };
        let record = CellRecord { fill: entry.fill, ..made.clone() };
        (record.present, record.zero) == (entry.present, entry.zero)
            && sha256::digest(&record.encode()) == entry.record_digest
    }

    fn blocks(&self) -> u64 {
        self.good.count_ones().into()
    }
}

/// A cell of a closed group that is not both placed and listed in the index.
struct Exception {
    cell: u16,
    blocks: u64,
    proof: Proof,
    is_placed: bool,
    is_indexed: bool,
    /// The index has another cell here.
    is_contradicted: bool,
}

impl Exception {
    fn new(cell: u16, note: &Note, is_contradicted: bool) -> Self {
        Self {
            cell,
            blocks: note.blocks(),
            proof: note.proof,
            is_placed: note.is_placed,
            is_indexed: note.is_indexed,
            is_contradicted,
        }
    }
}

/// A group whose cells were all met.
#[derive(Default)]
struct Closed {
    /// Digest of the index as it stands.
    index: Option<Digest>,
    /// Digest of the index that a writer makes of the cells, if all of them are whole.
    made: Option<Digest>,
    /// Blocks of cells that are listed in an index that counts without the root record.
    listed: u64,
    /// Blocks that the index alone proves to be zero.
    zero: u64,
    exceptions: Vec<Exception>,
}

/// The finding of a group index.
pub(super) struct Proved {
    pub(super) is_credible: bool,
    /// The last cell that it has in common with those that were written.
    pub(super) last: Option<u16>,
    /// All cells that it has in common with them.
    pub(super) indexed: BTreeSet<u16>,
}

/// The cells of a group that are withdrawn.
pub(super) enum Withdrawn {
    Cells(Vec<u16>),
    /// All: they are those of another archive.
    All,
}

/// The groups of a volume.
#[derive(Default)]
pub(super) struct Groups {
    open: BTreeMap<u32, BTreeMap<u16, Note>>,
    /// Digests of indexes that do not count without the root record.
    uncertain: BTreeMap<u32, Digest>,
    closed: BTreeMap<u32, Closed>,
    notes: usize,
}

impl Groups {
    /// Notes a cell. False if its group is closed: nothing can prove the cell.
    pub(super) fn note(&mut self, address: CellAddress, note: Note) -> bool {
        if self.closed.contains_key(&address.group) {
            return false;
        }
        self.notes += 1;
        self.open.entry(address.group).or_default().insert(address.index, note);
        if self.notes > MOST_NOTES
            && let Some(lowest) = self.open.keys().next().copied()
        {
            self.close_without_index(lowest);
        }
        true
    }

    /// Whether the group is closed.
    pub(super) fn is_closed(&self, group: u32) -> bool {
        self.closed.contains_key(&group)
    }

    pub(super) fn remove(&mut self, address: CellAddress) {
        if let Some(cells) = self.open.get_mut(&address.group)
            && cells.remove(&address.index).is_some()
        {
            self.notes -= 1;
        }
    }

    /// The position of a cell proves itself; groups before it have no more cells.
    pub(super) fn confirm(&mut self, address: CellAddress) {
        if let Some(cells) = self.open.get_mut(&address.group)
            && let Some(note) = cells.get_mut(&address.index)
        {
            note.is_placed = true;
        }
        while let Some(lowest) = self.open.keys().next().copied().filter(|at| *at < address.group) {
            self.close_without_index(lowest);
        }
    }

    pub(super) fn add_zero(&mut self, group: u32, blocks: u64) {
        if let Some(closed) = self.closed.get_mut(&group) {
            closed.zero += blocks;
        }
    }

    /// Closes all groups.
    pub(super) fn close_all(&mut self) {
        while let Some(lowest) = self.open.keys().next().copied() {
            self.close_without_index(lowest);
        }
    }

    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        self.closed.keys().copied()
    }

    /// Compares the cells of a group with its index. An index at an uncertain position counts if it
    /// has a cell in common with those whose position proves itself; whether it counts otherwise is
    /// known with the root record.
    pub(super) fn close(&mut self, index: &GroupIndex, bytes: &[u8], is_sure: bool) -> Proved {
        if self.closed.contains_key(&index.group) {
            return Proved { is_credible: false, last: None, indexed: BTreeSet::new() };
        }
        let mut cells = self.open.remove(&index.group).unwrap_or_default();
        let entry_of = |cell: u16| {
            let at = index.cells.binary_search_by_key(&cell, |entry| entry.index).ok()?;
            Some(&index.cells[at])
        };
        for (cell, note) in &mut cells {
            note.is_indexed = entry_of(*cell).is_some_and(|entry| note.is_cell_of(entry));
        }
        let in_common = cells.values().any(|note| note.is_indexed && note.is_placed);
        let last = cells.iter().rev().find(|(_, note)| note.is_indexed).map(|(cell, _)| *cell);
        if !(is_sure || in_common) {
            if last.is_some() {
                self.uncertain.insert(index.group, sha256::digest(bytes));
            }
            if !cells.is_empty() {
                self.open.insert(index.group, cells);
            }
            return Proved { is_credible: false, last, indexed: BTreeSet::new() };
        }
        self.notes -= cells.len();
        let is_complete = cells.len() == index.cells.len();
        let made = is_complete
            .then(|| made_again(index.group, cells.iter().map(|(cell, note)| (*cell, note))));
        let mut closed = Closed {
            index: Some(sha256::digest(bytes)),
            made: made.flatten(),
            ..Closed::default()
        };
        let mut indexed = BTreeSet::new();
        for (cell, note) in cells {
            if note.is_indexed {
                indexed.insert(cell);
                closed.listed += note.blocks();
            } else {
                let is_contradicted = note.made.is_some();
                closed.exceptions.push(Exception::new(cell, &note, is_contradicted));
            }
        }
        self.closed.insert(index.group, closed);
        Proved { is_credible: true, last, indexed }
    }

    fn close_without_index(&mut self, group: u32) {
        let cells = self.open.remove(&group).unwrap_or_default();
        self.notes -= cells.len();
        let made = made_again(group, cells.iter().map(|(cell, note)| (*cell, note)));
        let exceptions =
            cells.iter().map(|(cell, note)| Exception::new(*cell, note, false)).collect();
        let index = self.uncertain.remove(&group);
        self.closed.insert(group, Closed { index, made, exceptions, ..Closed::default() });
    }

    /// Whether the index of a group is lost, or is not the one in the root record.
    pub(super) fn lacks_index(&self, group: u32, expected: Digest) -> bool {
        self.closed.get(&group).is_none_or(|closed| closed.index != Some(expected))
    }

    /// Judges a group when the whole archive was read. `expected` is the digest of its index in the
    /// root record: `None` without a root record, and `Some(None)` if that has no such group.
    pub(super) fn judge(
        &self,
        group: u32,
        expected: Option<Option<Digest>>,
        proved: &mut ProvedBy,
    ) -> Withdrawn {
        let Some(closed) = self.closed.get(&group) else { return Withdrawn::Cells(Vec::new()) };
        let is_that_of_root = |digest: Option<Digest>| digest.is_some() && expected == Some(digest);
        let (by_index, by_cells) = (is_that_of_root(closed.index), is_that_of_root(closed.made));
        // Cells and index agree with each other, and not with the root record.
        let is_other = closed.made.is_some() && closed.made == closed.index;
        if expected.is_some() && !by_index && !by_cells && (is_other || expected == Some(None)) {
            return Withdrawn::All;
        }
        let is_root = by_index || by_cells;
        *(if is_root { &mut proved.root } else { &mut proved.index }) +=
            closed.listed + closed.zero;
        let mut withdrawn = Vec::new();
        for cell in &closed.exceptions {
            if by_cells || by_index && cell.is_indexed {
                proved.root += cell.blocks;
            } else if !cell.is_placed || by_index && cell.is_contradicted {
                withdrawn.push(cell.cell);
            } else {
                match cell.proof {
                    Proof::Record => proved.record += cell.blocks,
                    Proof::Checksum => proved.checksum += cell.blocks,
                }
            }
        }
        Withdrawn::Cells(withdrawn)
    }
}

/// The digest of the index that a writer makes of these cells; `None` unless each of them is whole.
fn made_again<'a>(group: u32, notes: impl Iterator<Item = (u16, &'a Note)>) -> Option<Digest> {
    let (mut content, mut cells) = (GroupContent::default(), Vec::new());
    let (mut volume, mut cells_len) = (0, 0);
    for (index, note) in notes {
        let record = note.made.as_ref()?;
        let bytes = record.encode();
        content.add_data(index, record.present & !record.zero, &record.content());
        let cell_len = bytes.len() as u32 + record.frame_len;
        cells_len += u64::from(cell_len);
        volume = record.volume;
        cells.push(CellEntry {
            cell_len,
            index,
            present: record.present,
            zero: record.zero,
            fill: record.fill,
            record_digest: sha256::digest(&bytes),
        });
    }
    let index = GroupIndex { volume, group, cells_len, content: content.digest(), cells };
    Some(sha256::digest(&index.encode()))
}
