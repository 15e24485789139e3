//! Says what a thing is that is no archive.

use crate::base::{Error, ErrorCode, ErrorKind, Result};
use crate::codec::zstd::Decoder;
use crate::format::frame::{self, FrameEnd, FrameHeader};
use crate::format::layout::{META_FRAME_RAW, max_frame_len};
use crate::object::ObjectReader;
use crate::volume::DiskFormat;

/// The error for data whose first bytes are not those of an archive; `tail` is the end of the data,
/// empty where it is not known.
pub(in super::super) fn not_an_archive(head: &[u8], tail: &[u8]) -> Error {
    let (code, what) = looks_like(head, tail);
    Error::unsupported("this is not an amistore archive").code_as(code).at("looks_like", what)
}

/// Tells whether the error of opening an archive says that the object is something else.
pub fn is_other_object(error: &Error) -> bool {
    let code = error.code();
    matches!(code, Some(ErrorCode::AwsImageObject | ErrorCode::DiskImage | ErrorCode::NotAnArchive))
}

fn looks_like(head: &[u8], tail: &[u8]) -> (ErrorCode, &'static str) {
    let other = |what| (ErrorCode::NotAnArchive, what);
    let disk = |what| (ErrorCode::DiskImage, what);
    if let Some(format) = DiskFormat::recognise(head, tail) {
        let what = format.described();
        return if format.is_of_disks() { disk(what) } else { other(what) };
    }
    match head {
        [] => other("an empty file"),
        _ if head.len() < 4 => other("a few bytes, too few to be anything"),
        [b'{', ..] => other("JSON text"),
        [b'<', ..] => other("XML or HTML text"),
        _ if head.get(510..512) == Some(&[0x55, 0xAA]) => disk("a raw disk image"),
        [first, rest @ ..] if rest.iter().all(|byte| byte == first) => {
            other("a file of equal bytes")
        }
        _ if head
            .iter()
            .all(|byte| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~' | 0x80..)) =>
        {
            other("text")
        }
        _ => (
            ErrorCode::AwsImageObject,
            "unknown data, which is what objects made by AWS's CreateStoreImageTask look like",
        ),
    }
}

/// A zstd file without footer is either an archive that was cut short, or not ours at all; its
/// first frame tells.
pub(in super::super) fn explain_missing_footer(reader: &dyn ObjectReader, error: Error) -> Error {
    if !error.is(ErrorCode::FooterMissing) {
        return error;
    }
    match first_frame_is_ours(reader) {
        Ok(true) => Error::corrupt("the archive is truncated: it has no footer at its end")
            .code_as(ErrorCode::Truncated)
            .at("offset", reader.len()),
        Ok(false) => other_zstd_data(),
        // Cut within the first frame, or damaged there: too little is left to tell.
        Err(cause) if cause.kind() == ErrorKind::Corrupt => error.because(cause),
        Err(cause) => cause,
    }
}

/// The error for zstd data that does not begin with our metadata.
pub(in super::super) fn other_zstd_data() -> Error {
    Error::unsupported("this is not an amistore archive")
        .code_as(ErrorCode::NotAnArchive)
        .at("looks_like", "zstd data of something else")
}

/// In a stream the first frame is all there is to judge by: one with a header that the format does
/// not allow is of another program, one that is damaged or too long may be ours.
pub(in super::super) fn explain_first_frame(error: Error) -> Error {
    if error.is(ErrorCode::ForeignFrame) { other_zstd_data().because(error) } else { error }
}

/// Whether the first frame is one of the format that begins with our metadata. An error if that
/// cannot be told, because the frame is cut short, damaged or too long.
fn first_frame_is_ours(reader: &dyn ObjectReader) -> Result<bool> {
    let longest = max_frame_len(META_FRAME_RAW as u64);
    let mut bytes = vec![0; reader.len().min(longest) as usize];
    reader.read_at(0, &mut bytes)?;
    let inflate = || {
        let FrameEnd::At(end) = frame::find_end(&bytes, META_FRAME_RAW as u64)? else {
            return Err(Error::corrupt("the first frame is cut short"));
        };
        let header = FrameHeader::parse(&bytes, META_FRAME_RAW as u64)?;
        let raw_len = header.map_or(0, |header| header.content_size as usize);
        let mut raw = Vec::new();
        Decoder::new()?.decode(&bytes[..end], raw_len, &mut raw)?;
        Ok(raw)
    };
    match inflate() {
        Ok(raw) => Ok(raw.starts_with(b"image.json\0")),
        Err(error) if error.is(ErrorCode::ForeignFrame) => Ok(false),
        Err(error) => Err(error),
    }
}
