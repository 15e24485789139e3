//! The written parts of a sparse file.
//!
//! The answer depends on the file alone, not on earlier reads: FIEMAP where the file system has it,
//! otherwise SEEK_DATA after the clean pages are dropped, because SEEK_DATA reports a cached page
//! of an unwritten extent as data. It does not read the file.

use std::fs::File;
use std::ops::Range;

use rustix::fs::{Advice, FallocateFlags, SeekFrom, fadvise, fallocate, seek};
use rustix::io::{Errno, retry_on_intr};

use super::fiemap;
use crate::base::{Error, Result};

/// Calls `found` with each written range of the first `len` bytes of a regular file: ascending, not
/// empty, not coalesced. Flushes the file.
pub fn written_ranges(file: &File, len: u64, mut found: impl FnMut(Range<u64>)) -> Result<()> {
    let failed = |cause: Errno| Error::io("cannot list the written parts of the file", cause);
    let mut found = |range: Range<u64>| {
        if range.start < range.end {
            found(range);
        }
    };
    if fiemap::written_ranges(file, len, &mut found).map_err(failed)? {
        return Ok(());
    }
    by_seeking(file, len, found).map_err(failed)
}

fn by_seeking(file: &File, len: u64, mut found: impl FnMut(Range<u64>)) -> Result<(), Errno> {
    // Dirty pages cannot be dropped. A file system without FIEMAP may not know fsync either, and
    // then has no unwritten extents; but data that cannot be written back is data that may be lost.
    match retry_on_intr(|| rustix::fs::fdatasync(file)) {
        Ok(()) | Err(Errno::INVAL | Errno::NOTSUP | Errno::NOSYS | Errno::ROFS) => {}
        Err(cause) => return Err(cause),
    }
    let _ = fadvise(file, 0, None, Advice::DontNeed);
    let mut at = 0;
    while at < len {
        let start = match retry_on_intr(|| seek(file, SeekFrom::Data(at))) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(()),
            // A file system without holes: all of it is data.
            Err(Errno::INVAL) if at == 0 => {
                found(0..len);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if start >= len {
            return Ok(());
        }
        let end = retry_on_intr(|| seek(file, SeekFrom::Hole(start)))?.min(len);
        found(start..end);
        at = end.max(start + 1);
    }
    Ok(())
}

/// Makes a hole of `len` bytes at `offset`; the length of the file stays. False if the file system
/// has no holes.
pub fn punch_hole(file: &File, offset: u64, len: u64) -> std::io::Result<bool> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match retry_on_intr(|| fallocate(file, flags, offset, len)) {
        Ok(()) => Ok(true),
        Err(Errno::NOTSUP | Errno::NOSYS | Errno::INVAL) => Ok(false),
        Err(cause) => Err(cause.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    fn coalesced(list: impl FnOnce(&mut dyn FnMut(Range<u64>))) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        list(&mut |range| match ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => ranges.push(range),
        });
        ranges
    }

    #[test]
    fn both_ways_find_what_was_written() {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(64 << 20).expect("length");
        let written = [1u64 << 20, 5 << 20, (64 << 20) - 4096];
        for at in written {
            file.write_all_at(&[1; 4096], at).expect("writes");
        }
        for ranges in [
            coalesced(|found| written_ranges(&file, 64 << 20, found).expect("lists")),
            coalesced(|found| by_seeking(&file, 64 << 20, found).expect("lists")),
        ] {
            assert_eq!(ranges.len(), 3, "{ranges:?}");
            for (range, at) in ranges.iter().zip(written) {
                assert!(range.contains(&at) && range.end - range.start <= 1 << 20, "{ranges:?}");
            }
        }
    }

    #[test]
    fn an_unwritten_extent_is_a_hole_even_when_it_was_read() {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(8 << 20).expect("length");
        if rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 1 << 20, 2 << 20)
            .is_err()
        {
            return;
        }
        file.read_exact_at(&mut vec![0; 4 << 20], 0).expect("reads");
        assert_eq!(coalesced(|found| written_ranges(&file, 8 << 20, found).expect("lists")), []);
    }
}
