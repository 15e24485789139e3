//! The header of a zstd frame and the position of its end, found without inflating it (3.1, RFC
//! 8878).

use super::layout::{MAX_FRAME_WINDOW, max_frame_len};
use crate::base::{Error, ErrorCode, Result};

const MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];
/// The longest frame header that the format allows: magic, descriptor, window, 8 bytes of content
/// size.
pub const MAX_HEADER: usize = 4 + 1 + 1 + 8;
/// Length of the shortest frame: a header with one byte of content size, an empty block, the
/// checksum. A stream reader reads no byte behind a frame.
const SHORTEST: usize = 4 + 1 + 1 + 3 + 4;
/// Largest block of a frame with a window of at least this size (RFC 8878, 3.1.1.2.4).
const MAX_BLOCK: u64 = 128 << 10;

/// The header of a frame of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Length of the header.
    pub len: usize,
    /// Bytes that the frame inflates to, as the header says.
    pub content_size: u64,
    /// Most bytes of a block: Block_Maximum_Size.
    pub max_block: u64,
}

/// The end of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameEnd {
    /// After this many bytes.
    At(usize),
    /// Beyond the input: the frame has at least this many bytes.
    Beyond(usize),
}

/// Whether `bytes` begin like a zstd frame; needs 4 bytes.
pub fn begins(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

impl FrameHeader {
    /// Reads the header of a frame that inflates to at most `limit` bytes. Refuses frames that the
    /// format does not allow: without content size or checksum, with a dictionary, with a window
    /// above 8 MiB. `None` if more bytes are needed.
    pub fn parse(bytes: &[u8], limit: u64) -> Result<Option<Self>> {
        let Some(descriptor) = bytes.get(4).copied() else { return Ok(None) };
        if !begins(bytes) {
            return Err(Error::corrupt("there is no zstd frame here"));
        }
        let single_segment = descriptor & 0x20 != 0;
        let refuse = |what: &str| {
            let message = format!("a zstd frame {what}, which the format does not allow");
            Err(Error::corrupt(message).code_as(ErrorCode::ForeignFrame))
        };
        if descriptor & 0x08 != 0 {
            return refuse("has a reserved bit set");
        }
        if descriptor & 0x04 == 0 {
            return refuse("has no checksum");
        }
        if descriptor & 0x03 != 0 {
            return refuse("needs a dictionary");
        }
        let size_len = match descriptor >> 6 {
            0 if single_segment => 1,
            0 => return refuse("has no content size"),
            1 => 2,
            2 => 4,
            _ => 8,
        };
        let size_at = if single_segment { 5 } else { 6 };
        let len = size_at + size_len;
        let Some(size) = bytes.get(size_at..len) else { return Ok(None) };
        let mut word = [0; 8];
        word[..size_len].copy_from_slice(size);
        let content_size =
            u64::from_le_bytes(word).saturating_add(if size_len == 2 { 256 } else { 0 });
        // A limit, and no rule on headers: the frame is too long, not of another program.
        if content_size > limit {
            return Err(Error::corrupt(
                "a zstd frame declares more content than the format allows",
            )
            .at("content_size", content_size)
            .at("limit", limit));
        }
        let window_size = if single_segment {
            content_size
        } else {
            let base = 1u64 << (10 + (bytes[5] >> 3));
            base + base / 8 * u64::from(bytes[5] & 7)
        };
        if window_size > MAX_FRAME_WINDOW {
            return refuse("needs a window of more than 8 MiB");
        }
        Ok(Some(Self { len, content_size, max_block: window_size.min(MAX_BLOCK) }))
    }
}

/// Follows the block headers of the frame at the start of `bytes`, which inflates to at most
/// `limit` bytes, to its end.
pub fn find_end(bytes: &[u8], limit: u64) -> Result<FrameEnd> {
    EndFinder::new(limit).find(bytes)
}

/// Finds the end of a frame that comes in pieces, and checks the sizes of its blocks: libzstd does
/// not compare them with Block_Maximum_Size when it decodes a frame in one call, and other decoders
/// do. It visits each block once: a frame may have a block for every 3 bytes, and a new start with
/// each piece would take quadratic time.
#[derive(Clone, Copy, Debug)]
pub struct EndFinder {
    /// Most bytes that the frame may inflate to.
    limit: u64,
    header: Option<FrameHeader>,
    /// The next block header.
    at: usize,
    /// Most bytes that the blocks before it inflate to.
    room: u64,
}

impl EndFinder {
    /// A finder at the start of a frame that inflates to at most `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self { limit, header: None, at: 0, room: 0 }
    }

    /// Looks for the end in `bytes`, which begin with the bytes of the call before.
    pub fn find(&mut self, bytes: &[u8]) -> Result<FrameEnd> {
        let header = match self.header {
            Some(header) => header,
            None => {
                let Some(header) = FrameHeader::parse(bytes, self.limit)? else {
                    let read_enough = bytes.len() >= SHORTEST;
                    return Ok(FrameEnd::Beyond(if read_enough { MAX_HEADER } else { SHORTEST }));
                };
                self.at = header.len;
                *self.header.insert(header)
            }
        };
        let longest = max_frame_len(header.content_size);
        loop {
            let Some([low, middle, high]) = bytes.get(self.at..self.at + 3) else {
                return Ok(FrameEnd::Beyond(self.at + 3));
            };
            let block = u32::from_le_bytes([*low, *middle, *high, 0]);
            let block_size = u64::from(block >> 3);
            let (stored, inflated) = match block >> 1 & 3 {
                0 => (block_size, block_size),
                1 => (1, block_size),
                2 => (block_size, header.max_block),
                _ => return Err(Error::corrupt("a zstd frame has a block of a reserved type")),
            };
            if block_size > header.max_block {
                return Err(Error::corrupt("a zstd frame has a larger block than zstd allows")
                    .at("block_size", block_size)
                    .at("limit", header.max_block));
            }
            self.room += inflated;
            let is_last = block & 1 == 1;
            let next = self.at as u64 + 3 + stored;
            let end = next + if is_last { 4 } else { 0 };
            if end > longest {
                return Err(Error::corrupt("a zstd frame is longer than the format allows")
                    .at("content_size", header.content_size)
                    .at("limit", longest));
            }
            if !is_last {
                self.at = next as usize;
                continue;
            }
            if header.content_size > self.room {
                return Err(Error::corrupt("the blocks of a zstd frame cannot hold its content")
                    .at("content_size", header.content_size)
                    .at("limit", self.room));
            }
            let end = end as usize;
            let found = end <= bytes.len();
            return Ok(if found { FrameEnd::At(end) } else { FrameEnd::Beyond(end) });
        }
    }
}

/// The ends of the blocks of the frame at the start of `bytes`, which inflates to at most `limit`
/// bytes, as far as its header and block headers lead; the last end is that of `bytes` if they are
/// cut short or wrong, so that a decoder meets every byte.
pub fn block_ends(bytes: &[u8], limit: u64) -> impl Iterator<Item = usize> + '_ {
    let header = FrameHeader::parse(bytes, limit).ok().flatten();
    let mut at = header.map(|header| header.len);
    let (mut done, mut is_last) = (false, false);
    std::iter::from_fn(move || {
        if done {
            return None;
        }
        let next = at.filter(|at| *at <= bytes.len()).and_then(|at| {
            let [low, middle, high] = *bytes.get(at..)?.first_chunk()?;
            let block = u32::from_le_bytes([low, middle, high, 0]);
            let stored = if block >> 1 & 3 == 1 { 1 } else { (block >> 3) as usize };
            is_last = block & 1 == 1;
            Some(at + 3 + stored)
        });
        let next = next.filter(|end| *end < bytes.len());
        done = next.is_none();
        // The checksum stands behind the last block.
        at = next.filter(|_| !is_last);
        Some(next.unwrap_or(bytes.len()))
    })
}

/// Checks that `bytes` are exactly one frame whose header says `raw_len` bytes of content, and
/// which has no larger block than zstd allows. Visits the block headers alone: 33 of them in a
/// frame of 4 MiB.
pub fn check(bytes: &[u8], raw_len: u64) -> Result<()> {
    let header = FrameHeader::parse(bytes, raw_len)?
        .ok_or_else(|| Error::corrupt("a zstd frame ends in its header"))?;
    if header.content_size != raw_len {
        return Err(Error::corrupt("a zstd frame does not have the content size it should")
            .at("content_size", header.content_size)
            .at("expected", raw_len));
    }
    if find_end(bytes, raw_len)? != FrameEnd::At(bytes.len()) {
        return Err(Error::corrupt("a zstd frame does not end where it should"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_blocks_lead_over_every_byte() {
        // A single-segment frame of 4 bytes: a raw block of 3, an RLE block of 1, the checksum.
        let frame = [
            0x28,
            0xB5,
            0x2F,
            0xFD,
            0x24,
            4,
            3 << 3,
            0,
            0,
            b'a',
            b'b',
            b'c',
            1 << 3 | 3,
            0,
            0,
            b'd',
            1,
            2,
            3,
            4,
        ];
        let ends = |bytes: &[u8]| block_ends(bytes, 4).collect::<Vec<_>>();
        assert_eq!(ends(&frame), [12, 16, 20]);
        assert_eq!(ends(&frame[..14]), [12, 14]);
        assert_eq!(ends(&frame[..16]), [12, 16]);
        assert_eq!(ends(&frame[1..]), [19], "no header");
    }
    use crate::codec::zstd::Encoder;

    #[test]
    fn the_end_is_found_from_any_prefix() {
        let mut frame = Vec::new();
        for raw in [
            vec![],
            b"hello".to_vec(),
            vec![7; 1 << 20],
            (0..300_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect(),
        ] {
            Encoder::new(1).expect("encoder").encode(&raw, &mut frame).expect("encodes");
            let limit = raw.len() as u64;
            check(&frame, limit).expect("one frame");
            for len in (0..frame.len()).step_by(frame.len() / 50 + 1) {
                let end = find_end(&frame[..len], limit).expect("a prefix");
                assert!(matches!(end, FrameEnd::Beyond(more) if more > len), "{len}");
            }
            let len = frame.len();
            frame.extend_from_slice(b"more");
            assert_eq!(find_end(&frame, limit).expect("a frame"), FrameEnd::At(len));
            assert!(check(&frame, limit).is_err());
        }
    }

    #[test]
    fn a_frame_of_many_empty_blocks_is_walked_once() {
        // A raw block of no bytes, over and over, and compressed blocks at the end; it comes block
        // by block, as from a stream.
        let mut frame = vec![0x28, 0xB5, 0x2F, 0xFD, 0xA4, 0, 0, 16, 0];
        frame.resize(frame.len() + 3 * 300_000, 0);
        (0..7).for_each(|_| frame.extend_from_slice(&[0b1100, 0, 0, 9]));
        frame.extend_from_slice(&[0b1101, 0, 0, 9, 9, 9, 9, 9]);
        let (mut finder, mut have, mut calls) = (EndFinder::new(1 << 20), 0, 0);
        loop {
            let before = finder.at;
            match finder.find(&frame[..have]).expect("a frame") {
                FrameEnd::At(end) => break assert_eq!((end, have), (frame.len(), frame.len())),
                FrameEnd::Beyond(more) => have = more.min(frame.len()),
            }
            assert!(finder.at >= before && finder.at <= have, "no block is visited twice");
            calls += 1;
        }
        assert!(calls > 299_000);
        assert_eq!(find_end(&frame, 1 << 20).expect("a frame"), FrameEnd::At(frame.len()));
    }

    /// A frame without window descriptor, or with this one, of blocks of these types and sizes.
    fn frame_of(content_size: u32, window_size: Option<u8>, blocks: &[(u32, u32)]) -> Vec<u8> {
        let mut frame = MAGIC.to_vec();
        frame.push(if window_size.is_some() { 0x84 } else { 0xA4 });
        frame.extend(window_size);
        frame.extend_from_slice(&content_size.to_le_bytes());
        for (number, (kind, size)) in blocks.iter().enumerate() {
            let last = u32::from(number + 1 == blocks.len());
            frame.extend_from_slice(&(size << 3 | kind << 1 | last).to_le_bytes()[..3]);
            frame.resize(frame.len() + if *kind == 1 { 1 } else { *size as usize }, 7);
        }
        frame.extend_from_slice(&[0; 4]);
        frame
    }

    #[test]
    fn a_block_of_any_type_is_at_most_128_kib_and_the_window_size() {
        const RAW: u32 = 0;
        const RLE: u32 = 1;
        const COMPRESSED: u32 = 2;
        let most = MAX_BLOCK as u32;
        for kind in [RAW, RLE, COMPRESSED] {
            let whole = frame_of(most, None, &[(kind, most)]);
            check(&whole, most.into()).expect("a block of the largest size");
            let larger = frame_of(2 * most, None, &[(kind, most + 1), (kind, most - 1)]);
            assert!(check(&larger, u64::from(2 * most)).is_err(), "type {kind}");
            // Descriptor 0 is a window of 1 KiB.
            let narrow = frame_of(1025, Some(0), &[(kind, 1024), (kind, 1)]);
            assert!(check(&narrow, 1025).is_ok(), "type {kind}");
            assert!(check(&frame_of(1025, Some(0), &[(kind, 1025)]), 1025).is_err(), "type {kind}");
            // A frame in one segment has its content as window.
            assert!(check(&frame_of(9, None, &[(kind, 10)]), 9).is_err(), "type {kind}");
        }
    }

    #[test]
    fn blocks_that_cannot_hold_the_content_of_their_frame_are_refused() {
        let most = MAX_BLOCK as u32;
        assert!(check(&frame_of(2 * most, None, &[(2, 50), (1, most)]), (2 * most).into()).is_ok());
        for blocks in [&[(2, 50)][..], &[(1, most), (0, 9)], &[(2, 50), (1, most - 1)]] {
            let frame = frame_of(2 * most, None, blocks);
            assert!(check(&frame, (2 * most).into()).is_err(), "{blocks:?}");
        }
    }

    #[test]
    fn a_frame_that_declares_more_than_its_limit_is_too_long_and_not_foreign() {
        let foreign = |bytes: &[u8], limit| {
            FrameHeader::parse(bytes, limit).expect_err("refused").is(ErrorCode::ForeignFrame)
        };
        assert!(!foreign(&frame_of(1 << 24, None, &[]), 1 << 20), "16 MiB in one segment");
        assert!(foreign(&frame_of(1 << 20, Some(15 << 3), &[]), 1 << 20), "a window of 32 MiB");
    }

    #[test]
    fn frames_the_format_does_not_allow_are_refused() {
        for descriptor in [0x00, 0x04, 0x20, 0x25, 0x2C] {
            assert!(
                FrameHeader::parse(&[0x28, 0xB5, 0x2F, 0xFD, descriptor, 0, 0, 0, 0, 0], 1 << 20)
                    .is_err(),
                "{descriptor:#x}"
            );
        }
        // 16 MiB in a single segment.
        let segment = [0x28, 0xB5, 0x2F, 0xFD, 0xA4, 0, 0, 0, 1];
        assert!(FrameHeader::parse(&segment, 1 << 30).is_err());
    }
}
