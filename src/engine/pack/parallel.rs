//! Volumes packed in parallel: each is a segment of the archive, with an index and threads of its
//! own. They share the memory: a volume whose blocks come late leaves it to the others.
//!
//! An archive is one sequence of bytes, and the offset of a volume is unknown until those before it
//! are packed. But no byte of a segment depends on its offset: cells and windows are the same
//! wherever they are. So segments are made independently, with offsets that count from their own
//! start, and their indexes are appended when all are done. The archive is the one that packing one
//! volume after the other makes.

use super::super::{Budget, Context, Plan, run_parallel};
use super::segment::{Output, Packed, Packing};
use crate::base::{Error, ErrorKind, Result};
use crate::object::{ParallelWriter, SegmentWriter};

/// Packs as many volumes at a time as there is memory for, in the order of the archive. The first
/// error ends all, and is returned.
pub(super) fn pack_parallel(
    packing: &Packing<'_>,
    writer: &mut dyn ParallelWriter,
    context: Context<'_>,
) -> Result<Packed> {
    let count = packing.image.volumes().len();
    let (parallel, plan) = context.plan.divided(writer.workers().min(count));
    let mut whole: Option<Packed> = None;
    for first in (0..count).step_by(parallel) {
        let group = first..count.min(first + parallel);
        let begun =
            group.map(|volume| Ok((volume, writer.begin(volume)?))).collect::<Result<Vec<_>>>()?;
        let packed = pack_group(packing, begun, &plan, context)?;
        writer.join()?;
        for segment in packed {
            match &mut whole {
                None => whole = Some(segment),
                Some(whole) => {
                    whole.index.append(segment.index)?;
                    whole.volumes.extend(segment.volumes);
                }
            }
        }
    }
    whole.ok_or_else(|| Error::internal("segments were begun for an image without volumes"))
}

fn pack_group(
    packing: &Packing<'_>,
    begun: Vec<(usize, Box<dyn SegmentWriter>)>,
    plan: &Plan,
    context: Context<'_>,
) -> Result<Vec<Packed>> {
    let budget = Budget::new(plan.in_flight * begun.len() as u64);
    let cancel = context.cancel.child();
    let context = Context { plan, cancel: &cancel, ..context };
    let pack = |volume: usize, mut segment: Box<dyn SegmentWriter>| {
        // A block range is ambiguous while several volumes are under way.
        let located = |error: Error| match error.kind() {
            ErrorKind::Interrupted => error,
            _ => error.at_once("snapshot", &packing.image.document().snapshots()[volume].id),
        };
        let packed = packing
            .segment(volume..volume + 1, &mut Output::Segment(segment.as_mut()), &budget, context)
            .map_err(located)?;
        segment.finish()?;
        Ok(packed)
    };
    let pack = &pack;
    run_parallel(
        &cancel,
        begun.into_iter().map(|(volume, segment)| move || pack(volume, segment)).collect(),
    )
}
