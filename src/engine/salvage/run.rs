//! A run of pieces that follow each other without damage, and what that proves about the positions
//! of its cells.

use crate::base::CellAddress;

/// A run of pieces.
///
/// It is *sure* if it is a part of the archive and not of a volume in which an archive is stored,
/// and *linked* if the position of its last cell proves itself: because it follows the tar header,
/// or because two cells in a row are neighbours in the volume.
pub(super) struct Run {
    start: u64,
    is_sure: bool,
    /// Volume and last cell, once a header or a cell was met; `None` behind a header.
    position: Option<(u16, Option<CellAddress>)>,
    is_linked: bool,
    /// Cells whose position proves itself as soon as the run is sure and linked.
    waiting: Vec<(u16, CellAddress)>,
    /// Cells since the last header or index.
    cells: Option<usize>,
}

/// Bytes of a run that is no copy of an archive in a volume.
const SURE: u64 = 128 << 10;
/// Cells that wait for the proof of their position: a run is sure after 128 KiB.
const MOST_WAITING: usize = 4096;

impl Run {
    /// A run that begins at `offset`.
    pub(super) fn begin(offset: u64, is_sure: bool) -> Self {
        Self {
            start: offset,
            is_sure,
            position: None,
            is_linked: false,
            waiting: Vec::new(),
            cells: None,
        }
    }

    pub(super) fn is_sure(&self) -> bool {
        self.is_sure
    }

    /// The volume of the last cell or header.
    pub(super) fn volume(&self) -> Option<u16> {
        self.position.map(|(volume, _)| volume)
    }

    /// Volume and last cell, if they prove themselves.
    pub(super) fn position(&self) -> Option<(u16, Option<CellAddress>)> {
        self.position.filter(|_| self.is_linked)
    }

    /// The last cell of `volume` in this run, `None` at its header; `None` without either.
    pub(super) fn last_of(&self, volume: u16) -> Option<Option<CellAddress>> {
        self.position.filter(|(last, _)| *last == volume).map(|(_, last)| last)
    }

    /// Volume and group of the last cell.
    pub(super) fn group_in_progress(&self) -> Option<(u16, u32)> {
        self.position.and_then(|(volume, last)| Some((volume, last?.group)))
    }

    /// The cells of the group in progress, if the run has all of them.
    pub(super) fn cells_of_group(&self) -> Option<usize> {
        self.cells.filter(|cells| *cells > 0)
    }

    /// A tar header.
    pub(super) fn header(&mut self, volume: u16) {
        (self.position, self.is_linked, self.cells) = (Some((volume, None)), true, Some(0));
    }

    /// A cell; `is_next` says whether it follows the last one in the volume.
    pub(super) fn cell(&mut self, volume: u16, address: CellAddress, is_next: bool) {
        if is_next {
            self.is_linked = true;
        } else {
            self.waiting.clear();
            (self.is_linked, self.cells) = (false, None);
        }
        self.position = Some((volume, Some(address)));
        self.cells = self.cells.map(|cells| cells + 1);
        if self.waiting.len() < MOST_WAITING {
            self.waiting.push((volume, address));
        }
    }

    /// The index of a group, whose last cell is `last`.
    pub(super) fn group(&mut self, volume: u16, last: CellAddress) {
        self.cells = Some(0);
        if !self.is_linked {
            self.waiting.clear();
        }
        (self.position, self.is_linked) = (Some((volume, Some(last))), true);
    }

    /// The position is not known any more.
    pub(super) fn unlink(&mut self) {
        self.waiting.clear();
        (self.position, self.is_linked, self.cells) = (None, false, None);
    }

    /// The run goes on to `offset`. Returns the cells whose position proves itself now.
    pub(super) fn reach(&mut self, offset: u64) -> Vec<(u16, CellAddress)> {
        self.is_sure |= offset - self.start > SURE;
        if self.is_sure && self.is_linked { std::mem::take(&mut self.waiting) } else { Vec::new() }
    }
}
