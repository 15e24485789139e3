//! The workers of a stream reader: check cells and deliver their blocks.

use std::sync::Arc;

use super::super::cell::{CellOpener, Depth, StoredCell, check_form, check_frames, deliver};
use crate::base::{ErrorKind, Result, SnapshotId, VolumeSize};
use crate::format::CellRecord;
use crate::volume::BlockSink;

/// A job of a worker: cells that are hashed together.
pub(super) struct StreamJob {
    pub(super) cells: Vec<StreamCell>,
    pub(super) size: VolumeSize,
    pub(super) name: SnapshotId,
    pub(super) sink: Option<Arc<dyn BlockSink>>,
}

/// A cell as it was read, with its offset in the archive.
pub(super) struct StreamCell {
    pub(super) record: CellRecord,
    pub(super) frame: Vec<u8>,
    pub(super) offset: u64,
}

/// Cells that were checked and delivered.
pub(super) struct StreamPiece {
    pub(super) sink: Option<Arc<dyn BlockSink>>,
    /// Cells that the sink has to confirm.
    pub(super) records: Vec<CellRecord>,
    pub(super) bytes: u64,
    pub(super) stored: u64,
}

pub(super) fn work(opener: &mut CellOpener, job: StreamJob, depth: Depth) -> Result<StreamPiece> {
    let offsets: Vec<u64> = job.cells.iter().map(|cell| cell.offset).collect();
    let cells: Vec<StoredCell<'_>> = job
        .cells
        .iter()
        .map(|cell| StoredCell { record: cell.record.clone(), frame: &cell.frame })
        .collect();
    let (mut bytes, mut stored) = (0, 0);
    for ((cell, checked), offset) in cells.iter().zip(check_frames(&cells)).zip(offsets) {
        let opened = checked.and_then(|()| match (&job.sink, depth) {
            (Some(sink), _) => {
                deliver(opener.open(cell, job.size)?, &cell.record, job.size, sink.as_ref())
            }
            (None, Depth::Blocks) => opener.open(cell, job.size).map(drop),
            (None, Depth::Stored) => check_form(cell, job.size),
        });
        opened.map_err(|error| match error.kind() {
            ErrorKind::Corrupt => cell.locate(error, offset).at("snapshot", &job.name),
            _ => error.at("snapshot", &job.name),
        })?;
        bytes += u64::from(cell.record.raw_len);
        stored += cell.frame.len() as u64;
    }
    let records = cells.into_iter().map(|cell| cell.record).collect();
    Ok(StreamPiece { sink: job.sink, records, bytes, stored })
}
