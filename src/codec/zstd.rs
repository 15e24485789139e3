//! zstd frames, compressed and decompressed whole.
//!
//! A frame from [`Encoder::encode`] has its content size and an XXH64 checksum, and depends only on
//! its input, the level and the version of libzstd: archives are reproducible. It does not know
//! skippable frames, and does not bound its input: callers check lengths and digests before.

use ::zstd::bulk::Compressor;
use ::zstd::stream::raw;
use ::zstd::stream::raw::Operation;
use ::zstd::zstd_safe::{
    DCtx, DParameter, ErrorCode, InBuffer, OutBuffer, ResetDirective, SafeResult, get_error_name,
};

use crate::base::{Error, Result};

/// Compression levels of the format's writer. Above 19, zstd's window and memory grow beyond what 4
/// MiB of data can use.
pub const LEVELS: std::ops::RangeInclusive<i32> = 1..=19;

/// Data that level 1 cannot shrink by 1/64 keeps the frame of level 1, which stores it raw at
/// several GB/s. Level 19 would try at 5 MB/s, with the same result.
const WORTH_MORE: usize = 64;

/// The highest level without a probe. Level 3 stores noise at 4 GiB/s, as fast as a probe would
/// find it; for compressible data a probe costs a third of the time of level 3 (measured).
const CHEAP_LEVEL: i32 = 5;

/// The version of libzstd that is linked in, such as `1.5.7`.
pub fn library_version() -> &'static str {
    ::zstd::zstd_safe::version_string()
}

/// The longest frame that [`Encoder::encode`] makes of `raw_len` bytes.
pub fn frame_bound(raw_len: usize) -> usize {
    ::zstd::zstd_safe::compress_bound(raw_len)
}

/// Compresses frames at one level. Working memory: 0.2 MiB at level 1 to 30 MiB at level 19.
pub struct Encoder {
    /// Present above [`CHEAP_LEVEL`]: tells whether the data is compressible.
    probe: Option<Compressor<'static>>,
    main: Compressor<'static>,
}

impl Encoder {
    /// An encoder for a level of [`LEVELS`]; other levels are a usage error.
    pub fn new(level: i32) -> Result<Self> {
        if !LEVELS.contains(&level) {
            return Err(
                Error::usage("the compression level has to be from 1 to 19").at("level", level)
            );
        }
        let compressor = |level| -> Result<Compressor<'static>> {
            let make = || {
                let mut compressor = Compressor::new(level)?;
                compressor.include_checksum(true)?;
                compressor.include_contentsize(true)?;
                Ok(compressor)
            };
            make().map_err(|cause: std::io::Error| {
                Error::internal("cannot set up zstd").because(cause)
            })
        };
        Ok(Self {
            probe: if level > CHEAP_LEVEL { Some(compressor(1)?) } else { None },
            main: compressor(level)?,
        })
    }

    /// Replaces the content of `frame` by the frame of `raw`. `frame` grows to [`frame_bound`] if
    /// it has less room.
    pub fn encode(&mut self, raw: &[u8], frame: &mut Vec<u8>) -> Result<()> {
        if let Some(probe) = &mut self.probe {
            run(probe, raw, frame)?;
            if frame.len() + raw.len() / WORTH_MORE > raw.len() {
                return Ok(());
            }
        }
        run(&mut self.main, raw, frame)
    }
}

fn run(compressor: &mut Compressor<'static>, raw: &[u8], frame: &mut Vec<u8>) -> Result<()> {
    frame.clear();
    frame.reserve(frame_bound(raw.len()));
    compressor
        .compress_to_buffer(raw, frame)
        .map(|_| ())
        .map_err(|cause| Error::internal("zstd failed to compress").because(cause))
}

/// Decompresses frames. Working memory: 0.4 MiB.
pub struct Decoder(DCtx<'static>);

impl Decoder {
    /// A decoder without dictionary.
    pub fn new() -> Result<Self> {
        let failed = |code| Error::internal("cannot set up zstd").because(cause_of(code));
        let mut context = DCtx::try_create()
            .ok_or_else(|| Error::internal("cannot set up zstd: there is no memory"))?;
        // Blocks are inflated to where they belong, and not copied there.
        context.set_parameter(DParameter::StableOutBuffer(true)).map_err(failed)?;
        Ok(Self(context))
    }

    /// Replaces the content of `raw` by that of `frame`. Any length but `raw_len`, and a block that
    /// is larger than zstd allows, is an error of kind `Corrupt`. Never writes more than `raw_len`
    /// bytes.
    pub fn decode(&mut self, frame: &[u8], raw_len: usize, raw: &mut Vec<u8>) -> Result<()> {
        raw.clear();
        if raw.capacity() < raw_len {
            raw.reserve_exact(raw_len);
        }
        // The destination is bounded by `raw_len`, not by the vector's capacity, which may be
        // larger.
        let mut room = Bounded { vec: raw, limit: raw_len };
        self.inflate(frame, &mut room).map_err(|code| {
            Error::corrupt("the frame does not inflate to its declared length")
                .because(cause_of(code))
        })?;
        if raw.len() != raw_len {
            return Err(Error::corrupt("the frame inflates to less than its declared length")
                .at("declared", raw_len)
                .at("inflated", raw.len()));
        }
        Ok(())
    }

    /// Inflates one frame. It comes in two pieces: a frame that is whole is decoded in one call,
    /// which does not compare the inflated length of compressed blocks with Block_Maximum_Size, and
    /// the decoders of stock tools do. The time is the same (medians of 60 frames of 4 MiB).
    fn inflate(&mut self, frame: &[u8], room: &mut Bounded<'_>) -> SafeResult {
        self.0.reset(ResetDirective::SessionOnly)?;
        let mut output = OutBuffer::around(room);
        let (most, last) = frame.split_at(frame.len().saturating_sub(1));
        let mut hint = 0;
        for piece in [most, last] {
            let mut input = InBuffer::around(piece);
            hint = self.0.decompress_stream(&mut output, &mut input)?;
            if input.pos() != piece.len() {
                // The frame, or the room for its content, has ended before.
                return Err(CORRUPTION);
            }
        }
        if hint == 0 { Ok(0) } else { Err(CORRUPTION) }
    }
}

/// `ZSTD_error_corruption_detected`, as libzstd returns it.
const CORRUPTION: ErrorCode = 20_usize.wrapping_neg();

/// The name of an error of libzstd.
fn cause_of(code: ErrorCode) -> std::io::Error {
    std::io::Error::other(get_error_name(code))
}

/// Decompresses the beginning of a frame that is damaged or cut short. Its output is what libzstd
/// makes of the bytes, right or wrong.
pub struct PrefixDecoder {
    decoder: raw::Decoder<'static>,
    /// Most bytes of output.
    limit: usize,
}

impl PrefixDecoder {
    /// A decoder of one frame, which gives at most `limit` bytes.
    pub fn new(limit: usize) -> Result<Self> {
        let decoder = raw::Decoder::new()
            .map_err(|cause| Error::internal("cannot set up zstd").because(cause))?;
        Ok(Self { decoder, limit })
    }

    /// Decompresses the next bytes of the frame and appends the output to `out`. After an error,
    /// the output of this call is lost, so a call should end with a block. Returns whether another
    /// call can give more.
    pub fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> bool {
        const STEP: usize = 128 << 10;
        loop {
            let start = out.len();
            out.resize((start + STEP).min(self.limit), 0);
            let Ok(status) = self.decoder.run_on_buffers(bytes, &mut out[start..]) else {
                out.truncate(start);
                return false;
            };
            out.truncate(start + status.bytes_written);
            bytes = &bytes[status.bytes_read..];
            if status.remaining == 0 || out.len() == self.limit {
                return false;
            }
            if bytes.is_empty() && status.bytes_written < STEP {
                return true;
            }
            if status.bytes_read == 0 && status.bytes_written == 0 {
                return false;
            }
        }
    }
}

use bounded::Bounded;

#[expect(
    unsafe_code,
    reason = "WriteBuf is an unsafe trait; a safe one would zero 4 MiB before every decode"
)]
mod bounded {
    use zstd::zstd_safe::WriteBuf;

    /// A vector that takes at most `limit` bytes, whatever its capacity.
    pub(super) struct Bounded<'a> {
        pub(super) vec: &'a mut Vec<u8>,
        pub(super) limit: usize,
    }

    // SAFETY: pointer and length are those of the vector, which upholds the contract; the capacity
    // is only ever made smaller.
    unsafe impl WriteBuf for Bounded<'_> {
        fn as_slice(&self) -> &[u8] {
            self.vec
        }

        fn capacity(&self) -> usize {
            self.vec.capacity().min(self.limit)
        }

        fn as_mut_ptr(&mut self) -> *mut u8 {
            self.vec.as_mut_ptr()
        }

        unsafe fn filled_until(&mut self, n: usize) {
            // SAFETY: the caller initialised the first `n` bytes, and `n` is at most our capacity.
            unsafe { self.vec.set_len(n) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1u64;
        (0..len)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect()
    }

    #[test]
    fn a_frame_gives_back_its_content() {
        let mut decoder = Decoder::new().expect("decoder");
        for level in [1, 3, 19] {
            let mut encoder = Encoder::new(level).expect("encoder");
            for raw in [vec![], b"abc".repeat(1000), noise(100_000), vec![0; 1 << 20]] {
                let (mut frame, mut back) = (Vec::new(), Vec::new());
                encoder.encode(&raw, &mut frame).expect("encodes");
                decoder.decode(&frame, raw.len(), &mut back).expect("decodes");
                assert_eq!(back, raw);
            }
        }
    }

    #[test]
    fn incompressible_data_costs_a_high_level_no_more_than_level_1() {
        let raw = noise(1 << 20);
        let (mut low, mut high) = (Vec::new(), Vec::new());
        Encoder::new(1).expect("encoder").encode(&raw, &mut low).expect("encodes");
        Encoder::new(19).expect("encoder").encode(&raw, &mut high).expect("encodes");
        assert_eq!(low, high);
        assert!(low.len() < raw.len() + 100);
    }

    #[test]
    fn a_frame_that_inflates_to_more_than_declared_is_refused_even_where_the_buffer_has_room() {
        let mut frame = Vec::new();
        Encoder::new(1).expect("encoder").encode(&[7; 4096], &mut frame).expect("encodes");
        let mut raw = Vec::with_capacity(1 << 20);
        let error =
            Decoder::new().expect("decoder").decode(&frame, 4095, &mut raw).expect_err("refused");
        assert_eq!(error.kind(), crate::base::ErrorKind::Corrupt);
        let error =
            Decoder::new().expect("decoder").decode(&frame, 4097, &mut raw).expect_err("refused");
        assert_eq!(error.kind(), crate::base::ErrorKind::Corrupt);
    }

    /// A frame in one segment of a compressed block of 131,584 bytes, which is more than zstd
    /// allows, and one of 31.
    fn with_a_long_block() -> (Vec<u8>, usize) {
        let len = 131_584 + 31;
        let mut frame = vec![0x28, 0xB5, 0x2F, 0xFD, 0xA0];
        frame.extend_from_slice(&(len as u32).to_le_bytes());
        // 510 literals of one value; one sequence: a literal, and a match of 131,074 bytes at
        // offset 1. Then 31 literals of one value.
        let blocks: [&[u8]; 2] =
            [&[0xE5, 0x1F, b'A', 1, 0x54, 1, 0, 52, 0xFF, 0xFF, 1], &[0xF9, b'A', 0]];
        for (number, block) in blocks.iter().enumerate() {
            let header = (block.len() as u32) << 3 | 2 << 1 | number as u32;
            frame.extend_from_slice(&header.to_le_bytes()[..3]);
            frame.extend_from_slice(block);
        }
        (frame, len)
    }

    #[test]
    fn a_compressed_block_that_inflates_to_more_than_128_kib_is_refused_beside_shorter_ones() {
        let (frame, len) = with_a_long_block();
        // A decoder that does not look takes it.
        let taken = ::zstd::bulk::decompress(&frame, len).expect("one call does not look");
        assert!(taken == vec![b'A'; len]);
        let mut decoder = Decoder::new().expect("decoder");
        let mut raw = Vec::new();
        let error = decoder.decode(&frame, len, &mut raw).expect_err("refused");
        assert_eq!(error.kind(), crate::base::ErrorKind::Corrupt);
        // The decoder is of use after an error.
        let mut good = Vec::new();
        Encoder::new(1).expect("encoder").encode(&noise(9), &mut good).expect("encodes");
        decoder.decode(&good, 9, &mut raw).expect("decodes");
        assert_eq!(raw, noise(9));
    }

    #[test]
    fn bytes_behind_a_frame_and_a_frame_that_is_cut_off_are_refused() {
        let (mut frame, mut raw) = (Vec::new(), Vec::new());
        Encoder::new(1).expect("encoder").encode(&noise(5000), &mut frame).expect("encodes");
        let mut decoder = Decoder::new().expect("decoder");
        let whole = frame.clone();
        frame.extend_from_slice(&whole);
        for bytes in [&frame[..], &frame[..=whole.len()], &whole[..whole.len() - 1], &[], b"x"] {
            assert!(decoder.decode(bytes, 5000, &mut raw).is_err(), "{}", bytes.len());
        }
        decoder.decode(&whole, 5000, &mut raw).expect("decodes");
    }

    #[test]
    fn the_beginning_of_a_frame_that_is_cut_short_or_damaged_inflates() {
        let raw: Vec<u8> = b"one of some words, ".iter().copied().cycle().take(1 << 20).collect();
        let mut raw = [raw, noise(1 << 20)].concat();
        raw.extend_from_slice(&[0; 1 << 20]);
        let mut frame = Vec::new();
        Encoder::new(1).expect("encoder").encode(&raw, &mut frame).expect("encodes");
        let prefix = |bytes: &[u8], limit| {
            let (mut decoder, mut out) = (PrefixDecoder::new(limit).expect("decoder"), Vec::new());
            for byte in bytes.chunks(1000) {
                if !decoder.feed(byte, &mut out) {
                    break;
                }
            }
            out
        };
        let cut = prefix(&frame[..frame.len() / 2], raw.len());
        assert!(cut.len() > 1 << 20 && raw.starts_with(&cut), "{}", cut.len());
        assert_eq!(prefix(&frame, 4096), raw[..4096], "never more than the limit");
        let mut damaged = frame;
        damaged[10] ^= 0x40;
        let out = prefix(&damaged, raw.len());
        assert!(out.len() <= raw.len() && out != raw);
    }

    #[test]
    fn levels_beyond_the_range_are_a_usage_error() {
        for level in [-5, 0, 20, 22] {
            assert!(Encoder::new(level).is_err());
        }
    }
}
