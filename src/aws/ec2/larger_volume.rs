//! A volume of a new image that is larger than the archived one: its partition table may have to
//! be told.

use std::sync::Arc;

use super::edits::{DeviceChange, Edits};
use crate::base::{Event, Observer, Result, SnapshotId, VolumeSize};
use crate::format::Digest;
use crate::image::ImageDocument;
use crate::volume::{BlockSink, Delivered, backup_header_note, has_gpt};

/// A sink whose volume becomes larger. It reports a GUID partition table when the first block
/// arrives; a resumed run that does not send this block again does not repeat the report.
pub(super) struct LargerVolume {
    pub(super) inner: Arc<dyn BlockSink>,
    /// The device of the volume.
    pub(super) device: String,
    pub(super) observer: Arc<dyn Observer>,
}

/// The device whose volume becomes larger than the archived one of `size`: by an option, or because
/// the snapshot has whole GiB. `None` if the volume keeps its size or the recorded one.
pub(super) fn larger_device(
    document: &ImageDocument,
    edits: &Edits,
    (id, size, snapshot_gib): (&SnapshotId, VolumeSize, u32),
) -> Option<String> {
    let entry = document.snapshots().iter().find(|snapshot| &snapshot.id == id)?;
    let requested = |device: &str| {
        let size = |change: &DeviceChange| match change {
            DeviceChange::VolumeSize(gib) => Some(*gib),
            _ => None,
        };
        edits.of(device, size).unwrap_or_default()
    };
    let is_larger = |gib: u64| gib.saturating_mul(1 << 30) > size.bytes();
    let is_rounded_up = is_larger(snapshot_gib.into());
    let device =
        entry.devices.iter().find(|device| is_rounded_up || is_larger(requested(device.as_str())));
    match device {
        Some(device) => Some(device.to_string()),
        // A snapshot without a device becomes a volume by hand.
        None => is_rounded_up.then(|| format!("the volume of {id}")),
    }
}

impl BlockSink for LargerVolume {
    fn write_data(&self, offset: u64, data: &[u8], digests: &[Digest]) -> Result<()> {
        if offset == 0 && has_gpt(data) {
            let message = backup_header_note(&self.device);
            self.observer.note(&Event::Warning { message });
        }
        self.inner.write_data(offset, data, digests)
    }

    fn write_zeros(&self, offset: u64, len: u64) -> Result<()> {
        self.inner.write_zeros(offset, len)
    }

    fn read_back(&self, offset: u64, buffer: &mut [u8]) -> Result<bool> {
        self.inner.read_back(offset, buffer)
    }

    fn confirm(&self, cell: &Delivered<'_>) -> Result<()> {
        self.inner.confirm(cell)
    }

    fn keeps_confirmed(&self) -> bool {
        self.inner.keeps_confirmed()
    }
}
