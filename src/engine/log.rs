//! What connects an operation with an earlier, interrupted one that did the same, and with a later
//! one.

use crate::base::Result;

/// A cell that was dealt with, as it is noted.
pub trait LoggedCell: Sized + Send + 'static {
    /// Its fields as bytes.
    fn encode(&self) -> Vec<u8>;
    /// The cell of these bytes; `None` if they are none.
    fn decode(bytes: &[u8]) -> Option<Self>;
    /// The volume it belongs to.
    fn volume(&self) -> u16;
}

/// Cells in the order of the archive.
pub type Cells<'a, C> = Box<dyn Iterator<Item = Result<C>> + Send + 'a>;
/// Hears of cells.
pub type Note<'a, C> = Box<dyn FnMut(&C) -> Result<()> + Send + 'a>;

/// The cells that an earlier run dealt with, and who hears of those of this one.
pub struct CellLog<'a, C> {
    /// What was noted, in the order of the archive.
    pub earlier: Cells<'a, C>,
    /// Hears of each further cell.
    pub note: Note<'a, C>,
}

impl<C: LoggedCell> CellLog<'_, C> {
    /// Nothing came before, and nothing will come after.
    pub fn none() -> Self {
        Self { earlier: Box::new(std::iter::empty()), note: Box::new(|_| Ok(())) }
    }
}
