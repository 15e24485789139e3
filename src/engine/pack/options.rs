//! Options and log of a pack.

use super::super::{Cells, Context, MadeCell};
use crate::base::Result;
use crate::format::BlockMap;
use crate::volume::{BlockSource, scan_zero_blocks};

/// Options of a pack.
#[derive(Clone, Debug)]
pub struct PackOptions {
    /// Treats blocks that read as zeros as absent. For sources whose holes got lost; reads all data
    /// once more.
    pub sparse: bool,
    /// Name and version of the tool, as it is written into the manifest.
    pub writer: String,
}

impl Default for PackOptions {
    fn default() -> Self {
        Self { sparse: false, writer: format!("amistore/{}", env!("CARGO_PKG_VERSION")) }
    }
}

/// The log of the cells that were made, by earlier runs and by this one.
pub struct PackLog<'a> {
    /// Reads the entries of a volume, in the order of the archive.
    pub earlier: Box<dyn Fn(u16) -> Result<Cells<'static, MadeCell>> + Sync + 'a>,
    /// Adds an entry, before the cell is appended. Called from different threads for different
    /// volumes.
    pub note: NoteOfCells<'a>,
}

/// Adds an entry to a log, from several threads.
pub type NoteOfCells<'a> = Box<dyn Fn(&MadeCell) -> Result<()> + Sync + 'a>;

impl PackLog<'_> {
    /// No log.
    pub fn none() -> Self {
        Self { earlier: Box::new(|_| Ok(Box::new(std::iter::empty()))), note: Box::new(|_| Ok(())) }
    }
}

/// The blocks of a volume that a pack stores: those that were written, without zeros if the options
/// say so, and the fill blocks of gaps.
pub fn stored_blocks(
    source: &dyn BlockSource,
    options: &PackOptions,
    context: Context<'_>,
) -> Result<BlockMap> {
    let mut map = source.block_map()?;
    if options.sparse {
        scan_zero_blocks(source, &mut map, context.plan.threads, context.cancel)?;
    }
    map.fill_gaps();
    Ok(map)
}
