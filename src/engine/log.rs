//! The log of cells, by which an operation continues an interrupted one.

use crate::base::Result;

/// An entry of a log: a cell that was packed or restored.
pub trait LoggedCell: Sized + Send + 'static {
    /// Its fields as bytes.
    fn encode(&self) -> Vec<u8>;
    /// The cell of these bytes; `None` if they are no entry.
    fn decode(bytes: &[u8]) -> Option<Self>;
    /// The volume it belongs to.
    fn volume(&self) -> u16;
}

/// Cells in the order of the archive.
pub type Cells<'a, C> = Box<dyn Iterator<Item = Result<C>> + Send + 'a>;
/// Adds an entry to a log.
pub type Note<'a, C> = Box<dyn FnMut(&C) -> Result<()> + Send + 'a>;

/// The log of an operation: entries of earlier runs, and a way to add more.
pub struct CellLog<'a, C> {
    /// Entries of earlier runs, in the order of the archive.
    pub earlier: Cells<'a, C>,
    /// Adds an entry.
    pub note: Note<'a, C>,
}

impl<C: LoggedCell> CellLog<'_, C> {
    /// No log.
    pub fn none() -> Self {
        Self { earlier: Box::new(std::iter::empty()), note: Box::new(|_| Ok(())) }
    }
}
