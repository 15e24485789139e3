//! The jobs and pieces of a pack.

use std::sync::Arc;

use super::super::MadeCell;
use crate::base::{
    BlockIndex, CellAddress, Error, ErrorCode, ErrorKind, SnapshotId, VolumeSize, bits_of,
};
use crate::format::{CellBits, CellFacts, Digest, MetaRole};
use crate::volume::BlockSource;

/// A job of a worker.
pub(super) enum PackJob {
    /// A meta frame with these bytes.
    Meta { role: MetaRole, raw: Vec<u8> },
    /// A cell, and the log's entry of it if an earlier run made it.
    Cell { source: Arc<dyn BlockSource>, cell: CellPlan, earlier: Option<MadeCell> },
}

/// A cell that is made of a volume.
#[derive(Clone, Copy)]
pub(super) struct CellPlan {
    pub(super) volume: u16,
    pub(super) address: CellAddress,
    pub(super) bits: CellBits,
    pub(super) ends_group: bool,
}

/// A piece of the archive, in order.
pub(super) enum PackPiece {
    Meta {
        role: MetaRole,
        frame: Vec<u8>,
        raw_len: u64,
        digest: Digest,
    },
    OpenVolume {
        name: SnapshotId,
        size: VolumeSize,
    },
    Cell(PackedCell),
    /// A cell that an earlier run made and the writer has.
    Reused {
        made: MadeCell,
        ends_group: bool,
    },
    CloseVolume {
        source: Arc<dyn BlockSource>,
    },
}

/// A cell with its record and frame.
pub(super) struct PackedCell {
    pub(super) volume: u16,
    pub(super) facts: CellFacts,
    pub(super) bytes: Vec<u8>,
    /// The log's entry of the cell, if there is one.
    pub(super) earlier: Option<MadeCell>,
    pub(super) ends_group: bool,
}

/// Adjacent blocks of one kind.
pub(super) struct Run {
    pub(super) offset: u64,
    pub(super) len: usize,
    pub(super) fill: bool,
}

/// The present blocks of a slot as runs of one kind.
pub(super) fn runs(bits: CellBits, size: VolumeSize, address: CellAddress) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::with_capacity(4);
    let first = address.first_block();
    for bit in bits_of(bits.present) {
        let block = BlockIndex(first.0 + bit);
        let (offset, len, fill) =
            (block.offset(), size.block_len(block) as usize, bits.fill >> bit & 1 == 1);
        match runs.last_mut() {
            Some(last) if last.fill == fill && last.offset + last.len as u64 == offset => {
                last.len += len;
            }
            _ => runs.push(Run { offset, len, fill }),
        }
    }
    runs
}

/// The archive would differ from the bytes that an earlier run wrote.
pub(super) fn changed_since(address: CellAddress) -> Error {
    Error::new(ErrorKind::Io, "the source is not what it was when this store began")
        .code_as(ErrorCode::SourceChanged)
        .at("blocks", address.blocks())
        .at("cannot_continue", true)
}
