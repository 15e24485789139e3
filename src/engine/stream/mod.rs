//! Reads an archive front to back, from a pipe: restores all of it, or only checks it.
//!
//! The pieces are added to an index, as when an archive is packed; at the end the index is compared
//! with root record, footer and seek table. The first damage ends the reading. Blocks that were
//! delivered are complete only when [`read_stream`] has returned.

mod feeder;
mod input;
mod sinks;
mod worker;

use std::io::Read;

use super::Context;
use super::cell::{CellOpener, Depth, delivered};
use super::pipeline::Pipeline;
use crate::base::{Error, Result};

use feeder::StreamFeeder;
use worker::{StreamJob, StreamPiece, work};

pub use feeder::StreamSummary;
pub use sinks::{NoSinks, StreamSinks};

/// Reads a whole archive from `input`, which has to end with it. Cells that have no sink are
/// checked as far as `depth` says.
pub fn read_stream(
    input: impl Read + Send,
    sinks: &mut dyn StreamSinks,
    depth: Depth,
    context: Context<'_>,
) -> Result<StreamSummary> {
    let mut summary = None;
    Pipeline::new(context).run(
        |feed| {
            summary = Some(StreamFeeder::new(input, feed, depth, context).run(sinks)?);
            Ok(())
        },
        || {
            let mut opener = CellOpener::new()?;
            Ok(move |job: StreamJob| work(&mut opener, job, depth))
        },
        |piece: StreamPiece, lease| {
            // The cells are delivered; only a confirmation may be open.
            drop(lease);
            if let Some(sink) = &piece.sink {
                piece.records.iter().try_for_each(|record| sink.confirm(&delivered(record)))?;
            }
            context.advanced(piece.bytes, piece.stored);
            Ok(())
        },
    )?;
    summary.ok_or_else(|| Error::internal("a stream was read and there is no summary"))
}
