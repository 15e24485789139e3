//! Takes one volume, or the metadata, out of an archive, and reads no more than that needs.

use std::path::Path;
use std::sync::Arc;

use crate::base::{BlockIndex, Error, ErrorKind, Result, SnapshotId, Stage, VolumeSize};
use crate::engine::{Archive, Context, Purpose, RestoreLog, unpack};
use crate::format::BlockMap;
use crate::localfs::{Durability, Overwrite};
use crate::volume::{BlockSink, DeviceSink, RawFileSink};

/// Which volume.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// The one behind this device name.
    Device(String),
    /// The one of this snapshot.
    Snapshot(String),
}

/// What was taken out.
#[derive(Clone, Debug)]
pub struct Extracted {
    /// The snapshot.
    pub id: SnapshotId,
    /// Its size.
    pub size: VolumeSize,
    /// Blocks that were written, zero blocks included.
    pub blocks: u64,
    /// Bytes of archive that belong to the volume.
    pub stored: u64,
}

/// Finds the volume.
fn find_volume(archive: &Archive, wanted: &Wanted) -> Result<u16> {
    let name = match wanted {
        Wanted::Device(device) => archive.document().snapshot_of(device)?.as_str(),
        Wanted::Snapshot(name) => name.as_str(),
    };
    let volumes = &archive.root().manifest.volumes;
    let found = volumes.iter().position(|volume| volume.name.as_str() == name);
    found.map(|index| index as u16).ok_or_else(|| {
        let known =
            volumes.iter().map(|volume| volume.name.as_str()).collect::<Vec<_>>().join(", ");
        Error::new(ErrorKind::NotFound, "the archive has no such snapshot")
            .at("snapshot", name)
            .at("snapshots", known)
    })
}

/// What an extraction would do; nothing is written.
pub fn plan_extract(archive: &Archive, wanted: &Wanted) -> Result<Extracted> {
    let volume = find_volume(archive, wanted)?;
    let entry = archive.volume_entry(volume);
    let stored = archive
        .root()
        .groups_of(volume)
        .iter()
        .map(|window| window.cells_len + u64::from(window.index_len))
        .sum();
    Ok(Extracted {
        id: entry.name.clone(),
        size: entry.size,
        blocks: entry.blocks - entry.fill,
        stored,
    })
}

/// Writes one volume to `output`: a new sparse file, or, if overwriting is allowed, a block device,
/// where absent blocks become zeros.
pub fn extract(
    archive: &Archive,
    wanted: &Wanted,
    output: &Path,
    overwrite: Overwrite,
    durability: Durability,
    context: Context<'_>,
) -> Result<Extracted> {
    let volume = find_volume(archive, wanted)?;
    let entry = archive.volume_entry(volume);
    let extracted = plan_extract(archive, wanted)?;
    if let Some(device) = DeviceSink::open(output, entry.size)? {
        if overwrite == Overwrite::No {
            return Err(Error::new(
                ErrorKind::Exists,
                "the output is a block device, whose content would be lost",
            )
            .at("path", output.display()));
        }
        let device = Arc::new(device);
        write_absent_blocks(archive, volume, device.as_ref(), context)?;
        run(archive, volume, device.clone(), context)?;
        device.sync()?;
        return Ok(extracted);
    }
    let file = Arc::new(RawFileSink::create(output, entry.size, overwrite, durability)?);
    run(archive, volume, file.clone(), context)?;
    let stage = context.stage(Stage::Sync);
    Arc::into_inner(file)
        .ok_or_else(|| Error::internal("a volume is committed while it is still written"))?
        .commit()?;
    stage.finish();
    Ok(extracted)
}

fn run(
    archive: &Archive,
    volume: u16,
    sink: Arc<dyn BlockSink>,
    context: Context<'_>,
) -> Result<()> {
    let mut sink = Some(sink);
    let mut sink_for = |index: u16| Ok(if index == volume { sink.take() } else { None });
    let stage = context.stage(Stage::Restore);
    unpack(archive, Purpose::Restore(&mut sink_for, RestoreLog::none()), context)?;
    stage.finish();
    Ok(())
}

/// A device has no holes: what is absent in the archive is whatever was there before, unless it is
/// written.
fn write_absent_blocks(
    archive: &Archive,
    volume: u16,
    sink: &dyn BlockSink,
    context: Context<'_>,
) -> Result<()> {
    let size = archive.volume_entry(volume).size;
    let mut present = BlockMap::new(size);
    for window in archive.root().groups_of(volume) {
        for slot in archive.group_index(window)?.cells {
            let first =
                crate::base::CellAddress { group: window.group, index: slot.index }.first_block().0;
            crate::base::bits_of(slot.present & !slot.fill)
                .for_each(|bit| present.insert(first + bit, 1));
        }
    }
    let mut next = 0;
    let end = size.blocks();
    for (start, stop) in
        present.extents().map(|extent| (extent.first, extent.end())).chain([(end, end)])
    {
        for block in (next..start).map(BlockIndex) {
            context.cancel.check()?;
            sink.write_zeros(block.offset(), size.block_len(block))?;
        }
        next = stop;
    }
    Ok(())
}
