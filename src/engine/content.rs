//! What an image holds, as one digest, without packing it: to tell whether an archive of it exists
//! already.

use std::sync::Arc;

use super::memory::IN_FLIGHT_FLOOR;
use super::{Budget, Context, Lease, PackOptions, run_ordered, stored_blocks};
use crate::base::{BLOCK_BYTES, Bitmap8, BlockIndex, CellAddress, Event, Result, bits_of};
use crate::codec::{sha256, zero};
use crate::format::layout::DATA_FRAME_RAW;
use crate::format::{Digest, GroupContent, VolumeContent, VolumeEntry, content_root};
use crate::image::ImageSource;
use crate::volume::BlockSource;

struct Job {
    source: Arc<dyn BlockSource>,
    address: CellAddress,
    present: Bitmap8,
    ends_group: bool,
    lease: Lease,
}

struct Done {
    address: CellAddress,
    data: Bitmap8,
    content: Digest,
    ends_group: bool,
    bytes: u64,
    lease: Lease,
}

/// The content root that an archive of `image` would have. Reads all of it.
pub fn content_of(
    image: &dyn ImageSource,
    options: &PackOptions,
    context: Context<'_>,
) -> Result<Digest> {
    let mut volumes = Vec::new();
    for (snapshot, source) in image.document().snapshots().iter().zip(image.volumes()) {
        let content = volume_content(source, options, context)
            .map_err(|error| error.at("snapshot", &snapshot.id))?;
        volumes.push(VolumeEntry {
            name: snapshot.id.clone(),
            size: source.size(),
            blocks: 0,
            zero: 0,
            fill: 0,
            content,
        });
    }
    Ok(content_root(&sha256::digest(image.document().bytes()), &volumes))
}

fn volume_content(
    source: &Arc<dyn BlockSource>,
    options: &PackOptions,
    context: Context<'_>,
) -> Result<Digest> {
    let budget = Budget::new(context.plan.in_flight);
    let map = stored_blocks(source.as_ref(), options, context)?;
    let _map_lease = budget.reserve(map.memory(), IN_FLIGHT_FLOOR, context.cancel)?;
    context.observer.note(&Event::Grew { bytes: map.stored_bytes() });
    let (mut volume, mut window) = (VolumeContent::default(), GroupContent::default());
    run_ordered(
        context.plan.threads,
        context.cancel,
        |emit| {
            let mut slots = map.cells().peekable();
            while let Some((address, bits)) = slots.next() {
                let ends_group = slots.peek().is_none_or(|(next, _)| next.group != address.group);
                let lease = budget.lease(DATA_FRAME_RAW as u64, context.cancel)?;
                for bit in bits_of(bits.present & !bits.fill) {
                    let block = BlockIndex(address.first_block().0 + bit);
                    source.prefetch(block.offset(), source.size().block_len(block));
                }
                emit(Job {
                    source: source.clone(),
                    address,
                    present: bits.present & !bits.fill,
                    ends_group,
                    lease,
                })?;
            }
            Ok(())
        },
        || {
            let mut buffer = vec![0; DATA_FRAME_RAW];
            Ok(move |job: Job| digest(job, &mut buffer))
        },
        |done: Done| {
            window.add_data(done.address.index, done.data, &done.content);
            if done.ends_group {
                let window = std::mem::take(&mut window);
                if window.has_data() {
                    volume.add(done.address.group, &window.digest());
                }
            }
            context.observer.note(&Event::Advanced { bytes: done.bytes, stored: 0 });
            drop(done.lease);
            Ok(())
        },
    )?;
    source.check_unchanged()?;
    Ok(volume.digest())
}

fn digest(job: Job, buffer: &mut [u8]) -> Result<Done> {
    const BLOCK: usize = BLOCK_BYTES as usize;
    let size = job.source.size();
    let (mut data, mut bytes) = (0, 0);
    let mut inputs: Vec<&[u8]> = Vec::with_capacity(8);
    for (bit, place) in bits_of(job.present).zip(buffer.chunks_mut(BLOCK)) {
        let block = BlockIndex(job.address.first_block().0 + bit);
        let len = size.block_len(block) as usize;
        job.source.read_at(block.offset(), &mut place[..len])?;
        // A short last block is hashed as if padded.
        place[len..].fill(0);
        bytes += len as u64;
        if !zero::is_zero(place) {
            data |= 1 << bit;
            inputs.push(place);
        }
    }
    let mut digests = vec![[0; 32]; inputs.len()];
    sha256::digest_many(&inputs, &mut digests);
    let content = sha256::digest(digests.as_flattened());
    Ok(Done {
        address: job.address,
        data,
        content,
        ends_group: job.ends_group,
        bytes,
        lease: job.lease,
    })
}
