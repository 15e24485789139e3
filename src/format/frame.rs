//! The header of a zstd frame and the position of its end, found without inflating it (3.1, RFC
//! 8878).

use super::layout::MAX_FRAME_WINDOW;
use crate::base::{Error, ErrorCode, Result};

const MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];
/// The longest frame header that the format allows: magic, descriptor, window, 8 bytes of content
/// size.
pub const MAX_HEADER: usize = 4 + 1 + 1 + 8;

/// The header of a frame of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Length of the header.
    pub len: usize,
    /// Bytes that the frame inflates to, as the header says.
    pub content_size: u64,
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
    /// Reads a header. Refuses frames that the format does not allow: without content size or
    /// checksum, with a dictionary, with a window above 8 MiB. `None` if more bytes are needed.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>> {
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
        let window = if single_segment {
            content_size
        } else {
            let base = 1u64 << (10 + (bytes[5] >> 3));
            base + base / 8 * u64::from(bytes[5] & 7)
        };
        if window > MAX_FRAME_WINDOW {
            return refuse("needs a window of more than 8 MiB");
        }
        Ok(Some(Self { len, content_size }))
    }
}

/// Follows the block headers of the frame at the start of `bytes` to its end.
pub fn find_end(bytes: &[u8]) -> Result<FrameEnd> {
    EndFinder::default().find(bytes)
}

/// Finds the end of a frame that comes in pieces. It visits each block once: a frame may have a
/// block for every 3 bytes, and a new start with each piece would take quadratic time.
#[derive(Clone, Copy, Debug, Default)]
pub struct EndFinder {
    /// The next block header; 0 before the frame header was read.
    at: usize,
}

impl EndFinder {
    /// Looks for the end in `bytes`, which begin with the bytes of the call before.
    pub fn find(&mut self, bytes: &[u8]) -> Result<FrameEnd> {
        if self.at == 0 {
            let Some(header) = FrameHeader::parse(bytes)? else {
                return Ok(FrameEnd::Beyond(MAX_HEADER));
            };
            self.at = header.len;
        }
        loop {
            let Some([low, middle, high]) = bytes.get(self.at..self.at + 3) else {
                return Ok(FrameEnd::Beyond(self.at + 3));
            };
            let block = u32::from_le_bytes([*low, *middle, *high, 0]);
            let size = match block >> 1 & 3 {
                1 => 1,
                3 => return Err(Error::corrupt("a zstd frame has a block of a reserved type")),
                _ => (block >> 3) as usize,
            };
            let next = self.at + 3 + size;
            if block & 1 == 1 {
                let end = next + 4;
                return Ok(if end <= bytes.len() {
                    FrameEnd::At(end)
                } else {
                    FrameEnd::Beyond(end)
                });
            }
            self.at = next;
        }
    }
}

/// Checks that `bytes` are exactly one frame whose header says `raw_len` bytes of content.
pub fn check(bytes: &[u8], raw_len: u64) -> Result<()> {
    let header = FrameHeader::parse(bytes)?
        .ok_or_else(|| Error::corrupt("a zstd frame ends in its header"))?;
    if header.content_size != raw_len {
        return Err(Error::corrupt("a zstd frame does not have the content size it should")
            .at("content_size", header.content_size)
            .at("expected", raw_len));
    }
    if find_end(bytes)? != FrameEnd::At(bytes.len()) {
        return Err(Error::corrupt("a zstd frame does not end where it should"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
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
            check(&frame, raw.len() as u64).expect("one frame");
            for len in (0..frame.len()).step_by(frame.len() / 50 + 1) {
                let end = find_end(&frame[..len]).expect("a prefix");
                assert!(matches!(end, FrameEnd::Beyond(more) if more > len), "{len}");
            }
            let len = frame.len();
            frame.extend_from_slice(b"more");
            assert_eq!(find_end(&frame).expect("a frame"), FrameEnd::At(len));
            assert!(check(&frame, raw.len() as u64).is_err());
        }
    }

    #[test]
    fn a_frame_of_many_empty_blocks_is_walked_once() {
        // A raw block of no bytes, over and over, and an end; it comes block by block, as from a
        // stream.
        let mut frame = vec![0x28, 0xB5, 0x2F, 0xFD, 0x24, 1];
        frame.resize(frame.len() + 3 * 300_000, 0);
        frame.extend_from_slice(&[1, 0, 0, 9, 9, 9, 9]);
        let (mut finder, mut have, mut calls) = (EndFinder::default(), 0, 0);
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
        assert_eq!(find_end(&frame).expect("a frame"), FrameEnd::At(frame.len()));
    }

    #[test]
    fn frames_the_format_does_not_allow_are_refused() {
        for descriptor in [0x00, 0x04, 0x20, 0x25, 0x2C] {
            assert!(
                FrameHeader::parse(&[0x28, 0xB5, 0x2F, 0xFD, descriptor, 0, 0, 0, 0, 0]).is_err(),
                "{descriptor:#x}"
            );
        }
        // 16 MiB in a single segment.
        assert!(FrameHeader::parse(&[0x28, 0xB5, 0x2F, 0xFD, 0xA4, 0, 0, 0, 1]).is_err());
    }
}
