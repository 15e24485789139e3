//! The first two members of an archive: `image.json` and `FORMAT.txt`.

use std::ops::Range;

use ::tar::{EntryType, Header};

use super::{BLOCK, header, seal};
use crate::base::{Error, Result};
use crate::format::layout::{FORMAT_VERSION, MAX_FORMAT_TXT, MAX_IMAGE_JSON};

/// `FORMAT.txt`: explains an archive to a reader who has nothing but the archive.
pub fn format_text() -> String {
    format!(
        "This is an amibin archive, format version {FORMAT_VERSION}: \
         an Amazon Machine Image in one file.\n\
         \n\
         To unpack it with common tools:  zstd -dc FILE | tar -xSf -\n\
         image.json holds the metadata, \
         in the words of EC2's DescribeImages and DescribeSnapshots.\n\
         Each <snapshot-id>.raw is a sparse raw disk image; \
         image.json says which device it belongs to.\n\
         \n\
         The file is a series of zstd frames. \
         Skippable frames with the magic number 0x184D2A5B and the\n\
         letters AMIB hold an index and SHA-256 digests \
         of every frame and of every 512 KiB block that was\n\
         written, so that blocks can be found and checked alone. \
         The format is published as a part of the\n\
         program amistore, in the folder format-spec.\n"
    )
}

/// The first piece of metadata: `image.json` and `FORMAT.txt` as tar members.
pub fn prologue(image_json: &[u8], format_txt: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(image_json.len() + format_txt.len() + 4 * BLOCK);
    for (name, content) in [("image.json", image_json), ("FORMAT.txt", format_txt)] {
        bytes.extend_from_slice(&seal(header(name, EntryType::Regular, content.len() as u64)));
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    }
    bytes
}

/// The length of the prologue that begins with `bytes`; `None` if more bytes are needed to tell.
pub fn prologue_len(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(image) = Member::at(bytes, 0, MAX_IMAGE_JSON)? else { return Ok(None) };
    let Some(text) = Member::at(bytes, image.next, MAX_FORMAT_TXT)? else { return Ok(None) };
    Ok(Some(text.next))
}

/// Takes a whole prologue apart: the bytes of `image.json` and of `FORMAT.txt`. An error of kind
/// `Corrupt` unless `bytes` are what [`prologue`] makes of the two.
pub fn parse_prologue(bytes: &[u8]) -> Result<(&[u8], &[u8])> {
    let wrong = || {
        Error::corrupt(
            "the archive does not begin with image.json and FORMAT.txt in the form of the format",
        )
    };
    let image = Member::at(bytes, 0, MAX_IMAGE_JSON)?.ok_or_else(wrong)?;
    let text = Member::at(bytes, image.next, MAX_FORMAT_TXT)?.ok_or_else(wrong)?;
    let (Some(image_json), Some(format_txt)) = (bytes.get(image.content), bytes.get(text.content))
    else {
        return Err(wrong());
    };
    if prologue(image_json, format_txt) != bytes {
        return Err(wrong());
    }
    Ok((image_json, format_txt))
}

/// Byte ranges of a member, counted from the start of the prologue.
struct Member {
    content: Range<usize>,
    /// Where the next header starts.
    next: usize,
}

impl Member {
    /// The member whose header starts at byte `at`, with at most `limit` bytes of content; `None`
    /// if `bytes` end before the end of the header.
    fn at(bytes: &[u8], at: usize, limit: u64) -> Result<Option<Self>> {
        let Some(header) = bytes.get(at..).and_then(|rest| rest.get(..BLOCK)) else {
            return Ok(None);
        };
        let len = Header::from_byte_slice(header).entry_size().map_err(|cause| {
            Error::corrupt("the size in a tar header is not a number").because(cause)
        })?;
        if len > limit {
            return Err(Error::corrupt(
                "a metadata member of the archive is longer than the format allows",
            )
            .at("length", len)
            .at("limit", limit));
        }
        let start = at + BLOCK;
        let end = start + len as usize;
        Ok(Some(Self { content: start..end, next: end.next_multiple_of(BLOCK) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
