//! Volumes packed side by side: each has its stretch of the archive, its own books, and its share
//! of threads and memory.
//!
//! An archive is one sequence of bytes, and a volume has no place in it before those in front of it
//! are packed. But nothing inside of a volume's stretch says where that stands: cells and windows
//! are the same wherever it is. So stretches are made independently, with offsets that count from
//! their own beginning, and the books put them behind each other when all are done. The bytes are
//! those that one volume after the other makes.

use super::pack::{Output, Packed, Packing};
use super::{Context, Plan, run_lanes};
use crate::base::{Error, ErrorKind, Result};
use crate::object::{ParallelWriter, SegmentWriter};

/// Packs as many volumes at a time as there is memory for, in the order of the archive. The first
/// error ends all, and is the one that is returned.
pub(super) fn side_by_side(
    packing: &Packing<'_>,
    stretches: &mut dyn ParallelWriter,
    context: Context<'_>,
) -> Result<Packed> {
    let count = packing.image.volumes().len();
    let (lanes, plan) = context.plan.divided(stretches.workers().min(count));
    let mut whole: Option<Packed> = None;
    for first in (0..count).step_by(lanes) {
        let group = first..count.min(first + lanes);
        let begun = group
            .map(|volume| Ok((volume, stretches.begin(volume)?)))
            .collect::<Result<Vec<_>>>()?;
        let packed = pack_group(packing, begun, &plan, context)?;
        stretches.join()?;
        for lane in packed {
            match &mut whole {
                None => whole = Some(lane),
                Some(whole) => {
                    whole.index.append(lane.index)?;
                    whole.volumes.extend(lane.volumes);
                }
            }
        }
    }
    whole.ok_or_else(|| Error::internal("stretches were begun for an image without volumes"))
}

fn pack_group(
    packing: &Packing<'_>,
    begun: Vec<(usize, Box<dyn SegmentWriter>)>,
    plan: &Plan,
    context: Context<'_>,
) -> Result<Vec<Packed>> {
    let cancel = context.cancel.child();
    let context = Context { plan, cancel: &cancel, ..context };
    let lane = |volume: usize, mut stretch: Box<dyn SegmentWriter>| {
        // Blocks alone do not say where, with several volumes under way.
        let located = |error: Error| match error.kind() {
            ErrorKind::Interrupted => error,
            _ => error.at_once("snapshot", &packing.image.document().snapshots()[volume].id),
        };
        let packed = packing
            .lane(volume..volume + 1, &mut Output::Stretch(stretch.as_mut()), context)
            .map_err(located)?;
        stretch.finish()?;
        Ok(packed)
    };
    let lane = &lane;
    run_lanes(
        &cancel,
        begun.into_iter().map(|(volume, stretch)| move || lane(volume, stretch)).collect(),
    )
}
