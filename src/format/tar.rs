//! The tar that stock tools see (5): headers made from names, sizes and block maps, and read back.
//!
//! The bytes of a header are a function of what they say. Reading therefore only has to be careful,
//! not strict: whoever reads a header makes it again and compares.

use super::layout::{FORMAT_VERSION, MAX_FORMAT_TXT, MAX_IMAGE_JSON, META_FRAME_RAW};
use super::{BlockMap, Extent};
use crate::base::{BLOCK_BYTES, Error, Result, SnapshotId, VolumeSize};

const BLOCK: usize = 512;
const HEADER_ENTRIES: usize = 4;
const EXTENSION_ENTRIES: usize = 21;
const ENTRY: usize = 24;
/// Where the sparse map starts in a header.
const MAP_AT: usize = 386;
const HEADER_EXTENDED_AT: usize = 482;
const REAL_SIZE_AT: usize = 483;
const EXTENSION_EXTENDED_AT: usize = 504;

/// What an archive says about itself to somebody who has nothing else.
pub fn format_text() -> String {
    format!(
        "This is an amibin archive, format version {FORMAT_VERSION}: an Amazon Machine Image in one file.\n\
         \n\
         To unpack it with common tools:  zstd -dc FILE | tar -xSf -\n\
         image.json holds the metadata, in the words of EC2's DescribeImages and DescribeSnapshots.\n\
         Each <snapshot-id>.raw is a sparse raw disk image; image.json says which device it belongs to.\n\
         \n\
         The file is a series of zstd frames. Skippable frames with the magic number 0x184D2A5B and the\n\
         letters AMIB hold an index and SHA-256 digests of every frame and of every 512 KiB block that was\n\
         written, so that blocks can be found and checked alone. The format is published as a part of the\n\
         program amistore, in the folder format-spec.\n"
    )
}

/// The first piece of metadata: `image.json` and `FORMAT.txt` as tar members.
pub fn prologue(image_json: &[u8], format_txt: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(image_json.len() + format_txt.len() + 4 * BLOCK);
    for (name, content) in [("image.json", image_json), ("FORMAT.txt", format_txt)] {
        bytes.extend_from_slice(&seal(header(name, b'0', content.len() as u64)));
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    }
    bytes
}

/// How long the prologue is that begins with `bytes`; `None` if more bytes are needed to tell.
pub fn prologue_len(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(image) = member_len(bytes, 0, MAX_IMAGE_JSON)? else { return Ok(None) };
    let Some(text) = member_len(bytes, image.next, MAX_FORMAT_TXT)? else { return Ok(None) };
    Ok(Some(text.next))
}

/// Takes a whole prologue apart: the bytes of `image.json` and of `FORMAT.txt`.
pub fn parse_prologue(bytes: &[u8]) -> Result<(&[u8], &[u8])> {
    let wrong = || {
        Error::corrupt(
            "the archive does not begin with image.json and FORMAT.txt as the format wants them",
        )
    };
    let image = member_len(bytes, 0, MAX_IMAGE_JSON)?.ok_or_else(wrong)?;
    let text = member_len(bytes, image.next, MAX_FORMAT_TXT)?.ok_or_else(wrong)?;
    let (Some(image_json), Some(format_txt)) = (bytes.get(image.content), bytes.get(text.content))
    else {
        return Err(wrong());
    };
    if prologue(image_json, format_txt) != bytes {
        return Err(wrong());
    }
    Ok((image_json, format_txt))
}

struct Member {
    content: std::ops::Range<usize>,
    next: usize,
}

fn member_len(bytes: &[u8], at: usize, limit: u64) -> Result<Option<Member>> {
    let Some(header) = bytes.get(at..).and_then(|rest| rest.get(..BLOCK)) else { return Ok(None) };
    let len = parse_number(&header[124..136])?;
    if len > limit {
        return Err(Error::corrupt(
            "a metadata member of the archive is longer than the format allows",
        )
        .at("length", len)
        .at("limit", limit));
    }
    let start = at + BLOCK;
    let end = start + len as usize;
    Ok(Some(Member { content: start..end, next: end.next_multiple_of(BLOCK) }))
}

/// The last piece of metadata: the end of the tar.
pub fn trailer() -> Vec<u8> {
    vec![0; 2 * BLOCK]
}

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
    let size = map.size().bytes();
    let mut head = header(&name.file_name(), b'S', map.stored_bytes());
    put_number(&mut head[REAL_SIZE_AT..REAL_SIZE_AT + 12], size);
    let mut entries = map_entries(map).peekable();
    let mut head = Some(head);
    let mut more = true;
    std::iter::from_fn(move || {
        if !more {
            return None;
        }
        let first = head.take();
        let is_header = first.is_some();
        let (mut block, at, room, flag) = match first {
            Some(head) => (head, MAP_AT, HEADER_ENTRIES, HEADER_EXTENDED_AT),
            None => ([0; BLOCK], 0, EXTENSION_ENTRIES, EXTENSION_EXTENDED_AT),
        };
        for (offset, len) in
            entries.by_ref().take(room).enumerate().map(|(i, entry)| (at + i * ENTRY, entry))
        {
            put_number(&mut block[offset..offset + 12], len.0);
            put_number(&mut block[offset + 12..offset + 24], len.1);
        }
        more = entries.peek().is_some();
        block[flag] = u8::from(more);
        Some(if is_header { seal(block) } else { block })
    })
}

/// Offset and length of each extent, and the entry that marks a trailing hole.
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

/// Reads the header of a volume as it comes, in pieces whose lengths are multiples of 512. Holds
/// the block map, whatever the length of the tar map.
#[derive(Default)]
pub struct VolumeHeaderReader {
    state: Option<(SnapshotId, BlockMap)>,
    complete: bool,
    /// The block after the last extent.
    end: u32,
    /// An entry was seen after which none may follow: an unused one, or the one that ends the map.
    closed: bool,
}

impl VolumeHeaderReader {
    /// A reader that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the whole header was read.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Takes the next piece.
    pub fn read(&mut self, piece: &[u8]) -> Result<()> {
        let (blocks, rest) = piece.as_chunks::<BLOCK>();
        if !rest.is_empty() {
            return Err(Error::corrupt("a tar header is not a whole number of 512-byte blocks"));
        }
        for block in blocks {
            if self.complete {
                return Err(Error::corrupt("a tar header is longer than its map"));
            }
            // An extension block without entries would go on for ever, at no cost to whoever made
            // it.
            if self.state.is_some() && block[..ENTRY].iter().all(|byte| *byte == 0) {
                return Err(Error::corrupt("a tar header has an extension block without extents"));
            }
            let (map, flag) = if self.state.is_none() {
                self.begin(block)?;
                (&block[MAP_AT..HEADER_EXTENDED_AT], block[HEADER_EXTENDED_AT])
            } else {
                (&block[..EXTENSION_EXTENDED_AT], block[EXTENSION_EXTENDED_AT])
            };
            for entry in map.as_chunks::<ENTRY>().0 {
                self.entry(entry)?;
            }
            self.complete = flag == 0;
        }
        Ok(())
    }

    /// The name and the stored blocks of the volume.
    pub fn finish(self) -> Result<(SnapshotId, BlockMap)> {
        self.state
            .filter(|_| self.complete)
            .ok_or_else(|| Error::corrupt("a tar header ends in the middle of its map"))
    }

    fn begin(&mut self, block: &[u8; BLOCK]) -> Result<()> {
        let name = block[..100].split(|byte| *byte == 0).next().unwrap_or_default();
        let name = str::from_utf8(name).ok().and_then(|name| name.strip_suffix(".raw"));
        let name =
            name.filter(|_| block[156] == b'S').and_then(|name| SnapshotId::parse(name).ok());
        let name = name.ok_or_else(|| Error::corrupt("a tar member is no volume of the format"))?;
        let size = VolumeSize::new(parse_number(&block[REAL_SIZE_AT..REAL_SIZE_AT + 12])?)
            .map_err(|cause| Error::corrupt("a volume has an impossible size").because(cause))?;
        self.state = Some((name, BlockMap::new(size)));
        Ok(())
    }

    fn entry(&mut self, entry: &[u8; ENTRY]) -> Result<()> {
        let wrong = || Error::corrupt("the sparse map of a tar header is not one of the format");
        if entry.iter().all(|byte| *byte == 0) {
            self.closed = true;
            return Ok(());
        }
        if self.closed {
            return Err(wrong());
        }
        let (offset, len) = (parse_number(&entry[..12])?, parse_number(&entry[12..])?);
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

fn header(name: &str, kind: u8, size: u64) -> [u8; BLOCK] {
    debug_assert!(name.len() < 100);
    let mut bytes = [0; BLOCK];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    bytes[100..108].copy_from_slice(b"0000644\0");
    bytes[108..116].copy_from_slice(b"0000000\0");
    bytes[116..124].copy_from_slice(b"0000000\0");
    put_number(&mut bytes[124..136], size);
    put_number(&mut bytes[136..148], 0);
    bytes[156] = kind;
    bytes[257..265].copy_from_slice(b"ustar  \0");
    bytes
}

/// Puts the checksum in.
fn seal(mut header: [u8; BLOCK]) -> [u8; BLOCK] {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

fn put_number(field: &mut [u8], number: u64) {
    if number < 1 << 33 {
        field.copy_from_slice(format!("{number:011o}\0").as_bytes());
    } else {
        field.fill(0);
        field[0] = 0x80;
        field[4..12].copy_from_slice(&number.to_be_bytes());
    }
}

fn parse_number(field: &[u8]) -> Result<u64> {
    let wrong = || Error::corrupt("a tar header has a number that is none");
    if field.first() == Some(&0x80) {
        let (high, low) = field[1..].split_at(3);
        let low: [u8; 8] = low.try_into().map_err(|_| wrong())?;
        return if high.iter().all(|byte| *byte == 0) {
            Ok(u64::from_be_bytes(low))
        } else {
            Err(wrong())
        };
    }
    let digits = field.strip_suffix(b"\0").ok_or_else(wrong)?;
    digits.iter().try_fold(0u64, |number, digit| match digit {
        b'0'..=b'7' => Ok(number * 8 + u64::from(digit - b'0')),
        _ => Err(wrong()),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

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
        let mut archive = tar::Archive::new(&bytes[..]);
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
        let mut empty = [0; BLOCK];
        empty[EXTENSION_EXTENDED_AT] = 1;
        for block in [empty, {
            let mut ends = empty;
            put_number(&mut ends[..12], BLOCK_BYTES * 9);
            put_number(&mut ends[12..24], 0);
            put_number(&mut ends[24..36], BLOCK_BYTES * 9);
            put_number(&mut ends[36..48], 0);
            ends
        }] {
            let mut reader = VolumeHeaderReader::new();
            reader.read(&header).expect("a header that goes on");
            assert!(reader.read(&block).is_err());
        }
    }

    #[test]
    fn a_prologue_is_taken_apart_again() {
        let bytes = prologue(&[b'a'; 700], b"hello");
        assert_eq!(prologue_len(&bytes[..500]).expect("so far"), None);
        assert_eq!(prologue_len(&bytes[..600]).expect("so far"), None);
        assert_eq!(prologue_len(&bytes).expect("whole"), Some(bytes.len()));
        assert_eq!(parse_prologue(&bytes).expect("whole"), (&[b'a'; 700][..], &b"hello"[..]));
        for at in [0, 100, 130, 150, 1300, bytes.len() - 1] {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(parse_prologue(&bad).is_err(), "byte {at}");
        }
    }

    #[test]
    fn numbers_too_large_for_octal_are_binary() {
        let mut field = [0; 12];
        for number in [0, 1, (1 << 33) - 1, 1 << 33, u64::MAX] {
            put_number(&mut field, number);
            assert_eq!(parse_number(&field).expect("a number"), number);
        }
    }
}
