//! Extracts one volume, or a range of it, and reads only the cells that hold it.

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::plan::refuse_existing;
use crate::base::{
    BLOCK_BYTES, BlockIndex, Error, ErrorKind, Event, Result, SnapshotId, Stage, StageGuard,
    VolumeSize,
};
use crate::engine::{Archive, ArchiveVolume, Context, RangePart, RestoreLog, unpack_volume};
use crate::localfs::{Durability, Overwrite, PartialFile, check_directory};
use crate::object::ObjectWriter;
use crate::volume::{BlockSink, BlockSource, DeviceSink, RawFileSink, note_on_larger_device};

/// Names a volume of an archive.
#[derive(Clone, Debug)]
pub enum VolumeName {
    /// The one behind this device name.
    Device(String),
    /// The one of this snapshot.
    Snapshot(String),
}

impl VolumeName {
    /// The name as it was given.
    pub fn text(&self) -> &str {
        match self {
            Self::Device(name) | Self::Snapshot(name) => name,
        }
    }

    /// The volume of this name; an error of kind `NotFound` lists the names that there are.
    pub fn find(&self, archive: &Archive) -> Result<ArchiveVolume> {
        match self {
            Self::Device(device) => archive.volume_of_device(device),
            Self::Snapshot(snapshot) => archive.volume_of_snapshot(snapshot),
        }
    }
}

/// A range of a volume, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeRange {
    /// The first byte.
    pub offset: u64,
    /// How many; at least 1.
    pub len: u64,
}

/// Report of an extraction.
#[derive(Clone, Debug)]
pub struct Extracted {
    /// The snapshot.
    pub id: SnapshotId,
    /// The size of the volume.
    pub size: VolumeSize,
    /// The range, if not the whole volume was asked for.
    pub range: Option<VolumeRange>,
    /// Bytes of blocks that are written: in the volume zero blocks included, in a range without.
    pub allocated: u64,
    /// Bytes of archive that belong to the volume, or that hold the cells of the range.
    pub stored: u64,
}

/// The report that an extraction would make, from the index alone; nothing is written.
pub fn plan_extract(volume: &ArchiveVolume, range: Option<VolumeRange>) -> Result<Extracted> {
    let entry = volume.entry();
    let (allocated, stored) = match range {
        None => {
            let written = (entry.blocks - entry.fill) * BLOCK_BYTES;
            (written.min(entry.size.bytes()), volume.stored_bytes())
        }
        Some(range) => {
            let cells = volume.cells_of_range(range.offset, range.len)?;
            (cells.data, cells.stored)
        }
    };
    Ok(Extracted { id: entry.name.clone(), size: entry.size, range, allocated, stored })
}

/// Checks that a file can be written as an extraction writes it: its directory exists, and it does
/// not exist, or is replaced. Nothing is written.
pub fn check_output(output: &Path, overwrite: Overwrite) -> Result<()> {
    check_directory(output.parent().unwrap_or(Path::new("/")))?;
    if overwrite == Overwrite::Yes { Ok(()) } else { refuse_existing(output) }
}

/// Writes the image document, byte for byte, to a new file.
pub fn extract_document(
    archive: &Archive,
    output: &Path,
    overwrite: Overwrite,
    durability: Durability,
) -> Result<()> {
    write_whole(output, archive.document().bytes(), overwrite, durability)
}

/// Writes a file that appears whole.
pub(super) fn write_whole(
    output: &Path,
    content: &[u8],
    overwrite: Overwrite,
    durability: Durability,
) -> Result<()> {
    let partial = PartialFile::create(output, overwrite, durability)?;
    let failed = |cause| Error::io("cannot write the file", cause).at("path", output.display());
    partial.file().write_all(content).map_err(failed)?;
    partial.commit()
}

/// Writes a volume to `output`: a new sparse file, or, if overwriting is allowed, a block device,
/// where absent blocks become zeros.
pub fn extract(
    volume: &ArchiveVolume,
    output: &Path,
    overwrite: Overwrite,
    durability: Durability,
    context: Context<'_>,
) -> Result<Extracted> {
    let extracted = plan_extract(volume, None)?;
    if let Some(device) = DeviceSink::open(output, volume.size())? {
        if overwrite == Overwrite::No {
            return Err(Error::new(
                ErrorKind::Exists,
                "the output is a block device, whose content would be lost",
            )
            .at("path", output.display()));
        }
        let device = Arc::new(device);
        write_absent_blocks(volume, device.as_ref(), context)?;
        unpack(volume, device.clone(), context)?;
        device.sync()?;
        let shown = output.display().to_string();
        if let Some(message) = note_on_larger_device(volume, (&shown, device.device_len()))? {
            context.observer.note(&Event::Warning { message });
        }
        return Ok(extracted);
    }
    let file = Arc::new(RawFileSink::create(output, volume.size(), overwrite, durability)?);
    unpack(volume, file.clone(), context)?;
    let stage = context.stage(Stage::Sync);
    Arc::into_inner(file)
        .ok_or_else(|| Error::internal("a volume is committed while it is still written"))?
        .commit()?;
    stage.finish();
    Ok(extracted)
}

/// Writes a range of a volume to a new sparse file `output`, as long as the range.
pub fn extract_range(
    volume: &ArchiveVolume,
    range: VolumeRange,
    output: &Path,
    overwrite: Overwrite,
    durability: Durability,
    context: Context<'_>,
) -> Result<Extracted> {
    let extracted = plan_extract(volume, Some(range))?;
    let partial = PartialFile::create(output, overwrite, durability)?;
    let failed = |cause| Error::io("cannot write the file", cause).at("path", output.display());
    partial.file().set_len(range.len).map_err(failed)?;
    let mut at = 0;
    read(volume, range, context, |part| {
        match part {
            RangePart::Data(bytes) => {
                partial.file().write_all_at(bytes, at).map_err(failed)?;
                at += bytes.len() as u64;
            }
            RangePart::Zeros(len) => at += len,
        }
        Ok(())
    })?;
    let stage = context.stage(Stage::Sync);
    partial.commit()?;
    stage.finish();
    Ok(extracted)
}

/// Writes a volume, or a range of it, to a stream, front to back. Damage ends it: all bytes that
/// the stream got before were right, and it ends early.
pub fn extract_to_stream(
    volume: &ArchiveVolume,
    range: Option<VolumeRange>,
    mut writer: Box<dyn ObjectWriter>,
    context: Context<'_>,
) -> Result<Extracted> {
    let extracted = plan_extract(volume, range)?;
    let whole = VolumeRange { offset: 0, len: volume.size().bytes() };
    if range.is_none() {
        // Stock tools must not see another disk.
        volume.map()?;
    }
    let zeros = vec![0; BLOCK_BYTES as usize];
    read(volume, range.unwrap_or(whole), context, |part| match part {
        RangePart::Data(bytes) => writer.append(bytes),
        RangePart::Zeros(mut len) => {
            while len > 0 {
                let some = len.min(BLOCK_BYTES);
                writer.append(&zeros[..some as usize])?;
                len -= some;
            }
            Ok(())
        }
    })?;
    writer.commit()?;
    Ok(extracted)
}

fn read(
    volume: &ArchiveVolume,
    range: VolumeRange,
    context: Context<'_>,
    write: impl FnMut(RangePart<'_>) -> Result<()>,
) -> Result<()> {
    let stage = StageGuard::begin(context.observer, Stage::Restore, Some(range.len));
    volume.read_range(range.offset, range.len, context, write)?;
    stage.finish();
    Ok(())
}

fn unpack(volume: &ArchiveVolume, sink: Arc<dyn BlockSink>, context: Context<'_>) -> Result<()> {
    let stage = context.stage(Stage::Restore);
    unpack_volume(volume, sink, RestoreLog::none(), context)?;
    stage.finish();
    Ok(())
}

/// Writes zeros where the archive has no blocks: a device has no holes, and would keep its old
/// content there.
fn write_absent_blocks(
    volume: &ArchiveVolume,
    sink: &dyn BlockSink,
    context: Context<'_>,
) -> Result<()> {
    let (size, present) = (volume.size(), volume.block_map()?);
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
