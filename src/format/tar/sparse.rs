//! The header of a volume: a GNU sparse member whose map lists the extents of stored blocks.
//!
//! The first block has room for 4 extents, each extension block for 21.

use std::iter::Peekable;

use ::tar::{EntryType, GnuExtSparseHeader, GnuHeader, GnuSparseHeader, Header};

use super::{BLOCK, header, seal};
use crate::base::{BLOCK_BYTES, Error, Result, SnapshotId, VolumeSize};
use crate::format::layout::META_FRAME_RAW;
use crate::format::{BlockMap, Extent};

/// The header of a volume with its map, in pieces of [`META_FRAME_RAW`] bytes and a rest.
pub fn volume_header<'a>(
    name: &SnapshotId,
    map: &'a BlockMap,
) -> impl Iterator<Item = Vec<u8>> + use<'a> {
    let mut blocks = header_blocks(name, map);
    std::iter::from_fn(move || {
        let mut piece = Vec::new();
        while piece.len() < META_FRAME_RAW {
            let Some(block) = blocks.next() else { break };
            piece.extend_from_slice(&block);
        }
        (!piece.is_empty()).then_some(piece)
    })
}

fn header_blocks<'a>(
    name: &SnapshotId,
    map: &'a BlockMap,
) -> impl Iterator<Item = [u8; BLOCK]> + use<'a> {
    let mut extents = map_entries(map).peekable();
    let mut head = header(&name.file_name(), EntryType::GNUSparse, map.stored_bytes());
    let gnu = head.as_gnu_mut().expect("new_gnu sets the magic that as_gnu_mut looks for");
    gnu.set_real_size(map.size().bytes());
    let mut extended = fill(&mut gnu.sparse, &mut extents);
    gnu.set_is_extended(extended);
    let extensions = std::iter::from_fn(move || {
        if !extended {
            return None;
        }
        let mut block = GnuExtSparseHeader::new();
        extended = fill(&mut block.sparse, &mut extents);
        block.set_is_extended(extended);
        Some(*block.as_bytes())
    });
    std::iter::once(seal(head)).chain(extensions)
}

/// Puts the next extents (offset and length in bytes) into one block; returns whether more follow.
fn fill(
    entries: &mut [GnuSparseHeader],
    extents: &mut Peekable<impl Iterator<Item = (u64, u64)>>,
) -> bool {
    for (entry, (offset, len)) in entries.iter_mut().zip(extents.by_ref()) {
        entry.set_offset(offset);
        entry.set_length(len);
    }
    extents.peek().is_some()
}

/// Offset and length of each extent in bytes, and the entry that marks a hole at the end.
fn map_entries(map: &BlockMap) -> impl Iterator<Item = (u64, u64)> + '_ {
    let size = map.size().bytes();
    let mut end = 0;
    let mut extents = map.extents();
    let mut done = false;
    std::iter::from_fn(move || {
        if let Some(Extent { first, count }) = extents.next() {
            let offset = u64::from(first) * BLOCK_BYTES;
            end = (offset + u64::from(count) * BLOCK_BYTES).min(size);
            return Some((offset, end - offset));
        }
        let trailing_hole = !done && end != size;
        done = true;
        trailing_hole.then_some((size, 0))
    })
}

/// Reads the header of a volume piece by piece; the length of each piece is a multiple of 512.
/// Memory: that of the block map, whatever the length of the tar map.
#[derive(Default)]
pub struct VolumeHeaderReader {
    state: Option<(SnapshotId, BlockMap)>,
    complete: bool,
    /// The block after the last extent.
    end: u32,
    /// No entry may follow: the last one was unused, or ended the map.
    closed: bool,
}

impl VolumeHeaderReader {
    /// A reader at the start of a header.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the whole header was read.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Reads the next piece. Every error is of kind `Corrupt`.
    pub fn read(&mut self, piece: &[u8]) -> Result<()> {
        let (blocks, rest) = piece.as_chunks::<BLOCK>();
        if !rest.is_empty() {
            return Err(Error::corrupt("a tar header is not a whole number of 512-byte blocks"));
        }
        for block in blocks {
            if self.complete {
                return Err(Error::corrupt("a tar header is longer than its map"));
            }
            let extended = if self.state.is_none() {
                let header = self.begin(block)?;
                self.entries(&header.sparse)?;
                header.is_extended()
            } else {
                let mut extension = GnuExtSparseHeader::new();
                extension.as_mut_bytes().copy_from_slice(block);
                // Such blocks could follow each other without end, at no cost to their author.
                if extension.sparse[0].is_empty() {
                    return Err(Error::corrupt(
                        "a tar header has an extension block without extents",
                    ));
                }
                self.entries(&extension.sparse)?;
                extension.is_extended()
            };
            self.complete = !extended;
        }
        Ok(())
    }

    /// The name and the stored blocks of the volume.
    pub fn finish(self) -> Result<(SnapshotId, BlockMap)> {
        self.state
            .filter(|_| self.complete)
            .ok_or_else(|| Error::corrupt("a tar header ends in the middle of its map"))
    }

    /// Reads the fields of the first block.
    fn begin<'a>(&mut self, block: &'a [u8; BLOCK]) -> Result<&'a GnuHeader> {
        let header = Header::from_byte_slice(block);
        let name = header.path_bytes();
        let name = str::from_utf8(&name).ok().and_then(|name| name.strip_suffix(".raw"));
        let (name, header) = name
            .filter(|_| header.entry_type().is_gnu_sparse())
            .and_then(|name| SnapshotId::parse(name).ok())
            .zip(header.as_gnu())
            .ok_or_else(|| Error::corrupt("a tar member is not a volume of the format"))?;
        let size = header
            .real_size()
            .map_err(|cause| {
                Error::corrupt("the real size in a tar header is not a number").because(cause)
            })
            .and_then(|bytes| {
                VolumeSize::new(bytes).map_err(|cause| {
                    Error::corrupt("a volume has an impossible size").because(cause)
                })
            })?;
        self.state = Some((name, BlockMap::new(size)));
        Ok(header)
    }

    fn entries(&mut self, entries: &[GnuSparseHeader]) -> Result<()> {
        for entry in entries {
            if entry.is_empty() {
                self.closed = true;
            } else {
                self.entry(entry)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: &GnuSparseHeader) -> Result<()> {
        let wrong = || Error::corrupt("the sparse map of a tar header is not one of the format");
        if self.closed {
            return Err(wrong());
        }
        let offset = entry.offset().map_err(|cause| wrong().because(cause))?;
        let len = entry.length().map_err(|cause| wrong().because(cause))?;
        let (_, map) = self.state.as_mut().ok_or_else(wrong)?;
        let size = map.size().bytes();
        let end = offset.checked_add(len).filter(|end| *end <= size).ok_or_else(wrong)?;
        self.closed = end == size;
        if (offset, len) == (size, 0) {
            return Ok(());
        }
        if offset % BLOCK_BYTES != 0 || len == 0 || (end % BLOCK_BYTES != 0 && end != size) {
            return Err(wrong());
        }
        let (first, end) = ((offset / BLOCK_BYTES) as u32, end.div_ceil(BLOCK_BYTES) as u32);
        if first < self.end {
            return Err(wrong());
        }
        map.insert(first, end - first);
        self.end = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::format::tar::{prologue, trailer};

    fn map(size: u64, extents: &[(u32, u32)]) -> BlockMap {
        let mut map = BlockMap::new(VolumeSize::new(size).expect("a size"));
        for (first, count) in extents {
            map.insert(*first, *count);
        }
        map
    }

    fn maps() -> Vec<BlockMap> {
        vec![
            map(BLOCK_BYTES, &[]),
            map(BLOCK_BYTES, &[(0, 1)]),
            map(BLOCK_BYTES * 5 + 512, &[(1, 2), (5, 1)]),
            map(1 << 46, &[(0, 1), (100, 3), (1 << 26, 8), ((1 << 27) - 1, 1)]),
            map(1 << 40, &(0..1000).map(|i| (i * 3, 1)).collect::<Vec<_>>()),
            map(1 << 40, &(0..60_000).map(|i| (i * 3, 2)).collect::<Vec<_>>()),
        ]
    }

    #[test]
    fn a_header_is_read_back_and_made_again() {
        let name = SnapshotId::parse("snap-1").expect("a name");
        for map in maps() {
            let mut reader = VolumeHeaderReader::new();
            let pieces: Vec<_> = volume_header(&name, &map).collect();
            assert!(pieces[..pieces.len() - 1].iter().all(|piece| piece.len() == META_FRAME_RAW));
            for piece in &pieces {
                reader.read(piece).expect("a good piece");
            }
            assert_eq!(reader.finish().expect("complete"), (name.clone(), map));
        }
    }

    #[test]
    fn the_tar_crate_reads_our_headers() {
        let name = SnapshotId::parse("snap-1").expect("a name");
        let map = map(
            BLOCK_BYTES * 20 + 512,
            &[(1, 1), (3, 1), (5, 1), (7, 1), (9, 1), (11, 1), (20, 1)],
        );
        let mut bytes = prologue(b"{}", b"text");
        for piece in volume_header(&name, &map) {
            bytes.extend_from_slice(&piece);
        }
        bytes.resize(bytes.len() + map.stored_bytes() as usize, b'x');
        bytes.extend_from_slice(&trailer());
        let mut archive = ::tar::Archive::new(&bytes[..]);
        let mut members = Vec::new();
        for entry in archive.entries().expect("entries") {
            let mut entry = entry.expect("an entry");
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("content");
            members.push((entry.path().expect("a path").display().to_string(), content));
        }
        assert_eq!(members[0], ("image.json".into(), b"{}".to_vec()));
        assert_eq!(members[1], ("FORMAT.txt".into(), b"text".to_vec()));
        assert_eq!(members[2].0, "snap-1.raw");
        for (index, block) in members[2].1.chunks(BLOCK_BYTES as usize).enumerate() {
            let stored = [1, 3, 5, 7, 9, 11, 20].contains(&index);
            assert!(
                block.iter().all(|byte| *byte == if stored { b'x' } else { 0 }),
                "block {index}"
            );
        }
    }

    #[test]
    fn an_endless_header_is_refused() {
        let name = SnapshotId::parse("snap-1").expect("a name");
        let mut header: Vec<u8> =
            volume_header(&name, &map(BLOCK_BYTES * 9, &[(1, 1), (3, 1), (5, 1), (7, 1)]))
                .flatten()
                .collect();
        header.truncate(BLOCK);
        let mut empty = GnuExtSparseHeader::new();
        empty.set_is_extended(true);
        let mut ends = GnuExtSparseHeader::new();
        ends.set_is_extended(true);
        for entry in &mut ends.sparse[..2] {
            entry.set_offset(BLOCK_BYTES * 9);
            entry.set_length(0);
        }
        for block in [empty, ends] {
            let mut reader = VolumeHeaderReader::new();
            reader.read(&header).expect("a header that goes on");
            assert!(reader.read(block.as_bytes()).is_err());
        }
    }

    #[test]
    fn numbers_too_large_for_octal_are_binary() {
        let mut entry = GnuExtSparseHeader::new().sparse;
        for (number, field) in [
            (0, *b"00000000000\0"),
            (1, *b"00000000001\0"),
            ((1 << 33) - 1, *b"77777777777\0"),
            (1 << 33, *b"\x80\0\0\0\0\0\0\x02\0\0\0\0"),
            (u64::MAX, *b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"),
        ] {
            entry[0].set_offset(number);
            assert_eq!(entry[0].offset, field);
            assert_eq!(entry[0].offset().expect("a number"), number);
        }
    }
}
