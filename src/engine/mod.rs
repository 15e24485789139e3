//! The streaming engine: moves blocks between volumes and archives, in parallel, in order, in
//! bounded memory.
//!
//! ```text
//! feeder --lease--> workers: read, zero test, digest, zstd --> in order --> archive         pack
//! feeder --lease--> workers: read, digest, zstd, digest, write --> in order --> totals      unpack
//! ```
//!
//! The feeder alone waits for memory, in the order of the archive, and the lease travels with the
//! bytes until they are written. So the oldest piece always has its memory, and a slow piece cannot
//! dead-lock the others. The engine does not know the command line, or the kind of a source or
//! target.

mod archive;
mod budget;
mod cell;
mod cell_reader;
mod content;
mod digest_metadata;
mod log;
mod made;
mod memory;
mod pack;
mod parallel;
mod pipeline;
mod pool;
mod reads;
mod relay;
mod salvage;
mod seek_table_lease;
mod stream;
mod unpack;
mod volume_totals;
mod written;

pub use archive::{
    Archive, ArchiveVolume, DEFAULT_CELL_CACHE, RangeCells, RangePart, Revision, check_tail,
    compare_volume, is_other_object, read_footer,
};
pub use budget::{Budget, Lease};
pub use cell::Depth;
pub use content::contents_of;
pub use digest_metadata::{CONTENT_METADATA, ROOT_METADATA, digest_metadata};
pub use log::{CellLog, Cells, LoggedCell, Note};
pub use made::MadeCell;
pub use memory::{
    DEFAULT_MEMORY, Incoming, MemorySplit, MemoryUses, Plan, Resources, seek_table_memory,
};
pub use pack::{NoteOfCells, PackLog, PackOptions, PackReport, VolumeReport, pack, stored_blocks};
pub use parallel::run_parallel;
pub use relay::relay;
pub use salvage::{
    Damage, Fetched, MissingRange, ProvedBy, Salvage, SalvageInput, SalvageSink, SalvageSinks,
    SalvagedObject, SalvagedPipe, SalvagedVolume, salvage,
};
pub use stream::{NoSinks, StreamSinks, StreamSummary, read_stream};
pub use unpack::{CheckReport, RestoreLog, Selection, check_volumes, unpack_volume};
pub use written::WrittenCell;

use crate::base::{Cancel, Error, Event, Observer, Stage, StageGuard};

/// The surroundings of an operation of the engine.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Threads and memory.
    pub plan: &'a Plan,
    /// Receives the events of the operation.
    pub observer: &'a dyn Observer,
    /// Stops the operation.
    pub cancel: &'a Cancel,
}

impl<'a> Context<'a> {
    /// Reports that `stage` begins; its total is reported as it becomes known.
    pub fn stage(&self, stage: Stage) -> StageGuard<'a> {
        StageGuard::begin(self.observer, stage, None)
    }

    /// Reports that the total of the stage grew by `bytes` of volume data.
    pub fn grew(&self, bytes: u64) {
        self.observer.note(&Event::Grew { bytes });
    }

    /// Reports that `bytes` of volume data were handled, with `stored` bytes of archive for them.
    pub fn advanced(&self, bytes: u64, stored: u64) {
        self.observer.note(&Event::Advanced { bytes, stored });
    }

    /// Reports that `bytes` of volume data, with `stored` bytes of archive, are those of an earlier
    /// run.
    pub fn reused(&self, bytes: u64, stored: u64) {
        self.observer.note(&Event::Reused { bytes, stored });
    }

    /// Reports that `error` was found and the work goes on.
    pub fn damage(&self, error: &Error) {
        self.observer.note(&Event::Damage { error });
    }
}
