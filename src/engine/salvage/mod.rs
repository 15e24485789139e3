//! Rescues what proves itself from an archive that is damaged or cut short.
//!
//! The archive is read once, front to back, so a pipe gives as much as a file. The walk goes from
//! piece to piece; where one is damaged it looks for the next. A block is kept if its content and
//! its position prove themselves (`format-spec/container.md`, 8.1); what is missing is listed. One
//! thread does all: decisions depend on the pieces before and behind, and a rescue is rare.

mod examine;
mod groups;
mod lookahead;
mod missing;
mod pieces;
mod run;
mod tail;
mod volumes;
mod walk;

use std::sync::Arc;

use super::{Context, NoSinks};
use crate::base::{Error, ErrorCode, Result, SnapshotId, VolumeSize};
use crate::format::{Footer, RootRecord};
use crate::image::ImageDocument;
use crate::volume::{BlockSink, RawFileSink};
use walk::Walk;

pub use lookahead::{Fetched, SalvageInput, SalvagedObject, SalvagedPipe};
pub use missing::MissingRange;

/// A volume that takes rescued blocks, and gives them back if they do not prove themselves after
/// all.
pub trait SalvageSink: Send + Sync {
    /// Writes a block, or a part of one at the end of the volume, at `offset`.
    fn write(&self, offset: u64, data: &[u8]) -> Result<()>;
    /// Writes `len` zeros at `offset`: a block that is zero in the source.
    fn write_zeros(&self, offset: u64, len: u64) -> Result<()>;
    /// Makes a hole of `len` bytes at `offset` again.
    fn withdraw(&self, offset: u64, len: u64) -> Result<()>;
    /// Sets the size, which may become known late.
    fn resize(&self, size: VolumeSize) -> Result<()>;
}

impl SalvageSink for RawFileSink {
    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        // The file does not look at digests.
        self.write_data(offset, data, &[])
    }

    fn write_zeros(&self, offset: u64, len: u64) -> Result<()> {
        BlockSink::write_zeros(self, offset, len)
    }

    fn withdraw(&self, offset: u64, len: u64) -> Result<()> {
        self.withdraw(offset, len)
    }

    fn resize(&self, size: VolumeSize) -> Result<()> {
        self.resize(size)
    }
}

/// Takes rescued volumes.
pub trait SalvageSinks {
    /// The metadata, if it is found.
    fn begin(&mut self, document: &ImageDocument) {
        let _ = document;
    }

    /// The volume with this index, of which blocks were found. Name and size are `None` where they
    /// are not known yet. Without a sink its blocks are only counted.
    fn volume(
        &mut self,
        index: u16,
        name: Option<&SnapshotId>,
        size: Option<VolumeSize>,
    ) -> Result<Option<Arc<dyn SalvageSink>>>;
}

impl SalvageSinks for NoSinks {
    fn volume(
        &mut self,
        _index: u16,
        _name: Option<&SnapshotId>,
        _size: Option<VolumeSize>,
    ) -> Result<Option<Arc<dyn SalvageSink>>> {
        Ok(None)
    }
}

/// The proofs of rescued blocks, in blocks: each is counted under its strongest one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProvedBy {
    /// The whole chain of digests up to the root.
    pub root: u64,
    /// The index of the group, whose own digest could not be checked.
    pub index: u64,
    /// The digests in the record of the cell.
    pub record: u64,
    /// The checksum of the zstd frame, which has 32 bits.
    pub checksum: u64,
}

impl ProvedBy {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.root + self.index + self.record + self.checksum
    }
}

/// A volume of a damaged archive.
#[derive(Clone, Debug)]
pub struct SalvagedVolume {
    /// Its index in the archive.
    pub index: u16,
    /// Its snapshot; `None` if all three copies of the name are lost.
    pub name: Option<SnapshotId>,
    /// Its size; `None` if it is not known.
    pub size: Option<VolumeSize>,
    /// Bytes of rescued blocks, those that are zero included.
    pub rescued: u64,
    /// Whether its sink has blocks.
    pub has_file: bool,
    /// The end of the last rescued block, in bytes.
    pub end: u64,
    /// The missing ranges; `None` if the size is not known, and so neither is what is missing.
    pub missing: Option<Vec<MissingRange>>,
    /// The proofs of its blocks.
    pub proved_by: ProvedBy,
}

impl SalvagedVolume {
    /// Whether no block of it is missing.
    pub fn is_whole(&self) -> bool {
        self.missing.as_ref().is_some_and(Vec::is_empty)
    }

    /// Bytes of missing blocks, as far as known.
    pub fn missing_bytes(&self) -> u64 {
        self.missing.iter().flatten().map(|range| range.missing).sum()
    }
}

/// Damage of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The offset in the archive.
    pub offset: u64,
    /// The kind of damage, and for bytes that cannot be read the cause.
    pub cause: String,
}

/// The parts of an archive that prove themselves.
#[derive(Clone, Debug)]
pub struct Salvage {
    /// The metadata, if it was found.
    pub document: Option<ImageDocument>,
    /// Root record and footer, if they were found and are those of the metadata.
    pub root: Option<(RootRecord, Footer)>,
    /// Bytes from the start of the archive to its end or to that of its last piece.
    pub archive_len: u64,
    /// The volumes, by index.
    pub volumes: Vec<SalvagedVolume>,
    /// Damage, in the order of the archive, at most 1,000 positions.
    pub damage: Vec<Damage>,
    /// How many positions are damaged.
    pub damage_count: u64,
}

impl Salvage {
    /// Whether nothing is damaged and nothing is missing.
    pub fn is_whole(&self) -> bool {
        self.damage_count == 0
            && self.root.is_some()
            && self.document.is_some()
            && self.volumes.iter().all(|volume| {
                volume.is_whole() && volume.proved_by.total() == volume.proved_by.root
            })
    }

    /// The error for an archive that is not whole.
    pub fn error(&self, archive: &str) -> Option<Error> {
        if self.is_whole() {
            return None;
        }
        let missing: u64 = self.volumes.iter().map(SalvagedVolume::missing_bytes).sum();
        let message = if self.volumes.iter().all(SalvagedVolume::is_whole) {
            "the archive is damaged; no block of its volumes is missing"
        } else {
            "the archive is damaged: blocks are missing"
        };
        Some(
            Error::corrupt(message)
                .code_as(ErrorCode::Salvaged)
                .at("archive", archive)
                .at("missing_bytes", missing)
                .at("damage_count", self.damage_count),
        )
    }
}

/// Reads a damaged archive, and gives every block that proves itself to `sinks`. An error only if
/// the input is no archive, is of a newer format, or if a sink fails.
pub fn salvage(
    input: &mut dyn SalvageInput,
    sinks: &mut dyn SalvageSinks,
    context: Context<'_>,
) -> Result<Salvage> {
    Walk::new(input, sinks, context)?.run()
}
