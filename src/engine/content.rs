//! The digest of an image's content, without packing it: it shows whether an archive of the image
//! exists already.

use std::sync::Arc;

use super::pipeline::Pipeline;
use super::{Context, PackOptions, stored_blocks};
use crate::base::{BLOCK_BYTES, Bitmap8, BlockIndex, CellAddress, Result, bits_of};
use crate::codec::{sha256, zero};
use crate::format::layout::DATA_FRAME_RAW;
use crate::format::{Digest, GroupContent, VolumeContent};
use crate::image::{ImageSource, SnapshotEntry};
use crate::volume::BlockSource;

/// A job of a worker: the blocks of a cell.
struct DigestJob {
    source: Arc<dyn BlockSource>,
    address: CellAddress,
    present: Bitmap8,
    ends_group: bool,
}

/// The digest of a cell's data.
struct CellDigest {
    address: CellAddress,
    data: Bitmap8,
    content: Digest,
    ends_group: bool,
    bytes: u64,
}

/// The content digest that each volume of an archive of `image` would have. Reads all of them.
pub fn contents_of(
    image: &dyn ImageSource,
    options: &PackOptions,
    context: Context<'_>,
) -> Result<Vec<Digest>> {
    let volumes = image.document().snapshots().iter().zip(image.volumes());
    let content = |(snapshot, source): (&SnapshotEntry, &Arc<dyn BlockSource>)| {
        volume_content(source, options, context).map_err(|error| error.at("snapshot", &snapshot.id))
    };
    volumes.map(content).collect()
}

fn volume_content(
    source: &Arc<dyn BlockSource>,
    options: &PackOptions,
    context: Context<'_>,
) -> Result<Digest> {
    let map = stored_blocks(source.as_ref(), options, context)?;
    context.grew(map.stored_bytes());
    let (mut volume, mut group) = (VolumeContent::default(), GroupContent::default());
    Pipeline::new(context).run(
        |feed| {
            let _map_lease = feed.reserve(map.memory())?;
            let mut cells = map.cells().peekable();
            while let Some((address, bits)) = cells.next() {
                let ends_group = cells.peek().is_none_or(|(next, _)| next.group != address.group);
                let lease = feed.lease(DATA_FRAME_RAW as u64)?;
                for bit in bits_of(bits.present & !bits.fill) {
                    let block = BlockIndex(address.first_block().0 + bit);
                    source.prefetch(block.offset(), source.size().block_len(block));
                }
                let present = bits.present & !bits.fill;
                let job = DigestJob { source: source.clone(), address, present, ends_group };
                feed.work(job, lease)?;
            }
            Ok(())
        },
        || {
            let mut buffer = vec![0; DATA_FRAME_RAW];
            Ok(move |job: DigestJob| digest(job, &mut buffer))
        },
        |done: CellDigest, lease| {
            group.add_data(done.address.index, done.data, &done.content);
            if done.ends_group {
                let group = std::mem::take(&mut group);
                if group.has_data() {
                    volume.add(done.address.group, &group.digest());
                }
            }
            context.advanced(done.bytes, 0);
            drop(lease);
            Ok(())
        },
    )?;
    source.check_unchanged()?;
    Ok(volume.digest())
}

fn digest(job: DigestJob, buffer: &mut [u8]) -> Result<CellDigest> {
    const BLOCK: usize = BLOCK_BYTES as usize;
    let size = job.source.size();
    let (mut data, mut bytes) = (0, 0);
    let mut inputs: Vec<&[u8]> = Vec::with_capacity(8);
    for (bit, slice) in bits_of(job.present).zip(buffer.chunks_mut(BLOCK)) {
        let block = BlockIndex(job.address.first_block().0 + bit);
        let len = size.block_len(block) as usize;
        job.source.read_at(block.offset(), &mut slice[..len])?;
        // A short last block is hashed as if padded.
        slice[len..].fill(0);
        bytes += len as u64;
        if !zero::is_zero(slice) {
            data |= 1 << bit;
            inputs.push(slice);
        }
    }
    let mut digests = vec![[0; 32]; inputs.len()];
    sha256::digest_many(&inputs, &mut digests);
    let content = sha256::digest(digests.as_flattened());
    Ok(CellDigest { address: job.address, data, content, ends_group: job.ends_group, bytes })
}
