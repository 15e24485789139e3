//! GUID partition tables. A table has a backup at the end of its disk, which a larger device moves
//! away from its end.

use super::BlockSource;
use crate::base::Result;

/// The signature of the header, in the second logical block (UEFI, 5.3.2).
const SIGNATURE: [u8; 8] = *b"EFI PART";
/// The first bytes of a disk that have the header, with logical blocks of 512 or 4096 bytes.
const HEAD_LEN: usize = 4096 + SIGNATURE.len();

/// Whether a disk that begins with `head` has a GUID partition table.
pub fn has_gpt(head: &[u8]) -> bool {
    [512, 4096].iter().any(|at| head.get(*at..at + 8) == Some(&SIGNATURE))
}

/// A sentence on the backup header of a disk that is now on the longer device `device`.
pub fn backup_header_note(device: &str) -> String {
    format!(
        "the disk has a GUID partition table, and {device} is larger: \
         the backup header is not at its end, and `sgdisk -e` on that device moves it there"
    )
}

/// The [`backup_header_note`] for `volume` on a device of `device_len` bytes; `None` where there is
/// nothing to note.
pub fn note_on_larger_device(
    volume: &dyn BlockSource,
    (device, device_len): (&str, u64),
) -> Result<Option<String>> {
    let size = volume.size().bytes();
    if device_len <= size {
        return Ok(None);
    }
    let mut head = [0; HEAD_LEN];
    let head = &mut head[..size.min(HEAD_LEN as u64) as usize];
    volume.read_at(0, head)?;
    Ok(has_gpt(head).then(|| backup_header_note(device)))
}

#[cfg(all(test, feature = "internals"))]
mod tests {
    use super::super::MemorySource;
    use super::*;
    use crate::base::VolumeSize;

    fn disk(header_at: usize) -> MemorySource {
        let size = VolumeSize::new(1 << 20).expect("a size");
        let mut block = vec![0; 1 << 19];
        block[header_at..header_at + 8].copy_from_slice(b"EFI PART");
        MemorySource::new(size, [(0, block)])
    }

    #[test]
    fn a_partition_table_on_a_larger_device_is_worth_a_note() {
        for header_at in [512, 4096] {
            let note = note_on_larger_device(&disk(header_at), ("/dev/sdx", 2 << 20));
            let note = note.expect("reads").expect("a note");
            assert!(note.contains("/dev/sdx") && note.contains("sgdisk -e"), "{note}");
        }
    }

    #[test]
    fn a_device_of_the_same_size_or_a_disk_without_a_table_needs_no_note() {
        for (disk, len) in [(disk(512), 1 << 20), (disk(1024), 2 << 20)] {
            assert_eq!(note_on_larger_device(&disk, ("/dev/sdx", len)).expect("reads"), None);
        }
    }
}
