//! The F record: 128 bytes at the end, from which a reader finds the R record (3.6).

use super::Digest;
use super::record::{Position, Record, RecordKind};
use crate::base::{Error, Result};

/// Length of the footer.
pub const FOOTER_LEN: usize = 128;
const END_MAGIC: &[u8; 8] = b"AMIBEND1";

/// The footer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    /// Offset of the R record.
    pub root_offset: u64,
    /// Length of the R record.
    pub root_len: u64,
    /// SHA-256 of the R record: the root.
    pub root: Digest,
    /// The content root (7).
    pub content_root: Digest,
    /// Offset of this record.
    pub offset: u64,
}

impl Footer {
    /// The record's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Record::begin(RecordKind::Footer, FOOTER_LEN);
        bytes.extend_from_slice(&self.root_offset.to_le_bytes());
        bytes.extend_from_slice(&self.root_len.to_le_bytes());
        bytes.extend_from_slice(&self.root);
        bytes.extend_from_slice(&self.content_root);
        bytes.extend_from_slice(&self.offset.to_le_bytes());
        bytes.extend_from_slice(&[0; 16]);
        bytes.extend_from_slice(END_MAGIC);
        bytes
    }

    /// Reads the record that stands at `offset`. Kind, length and end magic are those of all
    /// versions, so a footer without them is corrupt, whatever its version.
    pub fn parse(bytes: &[u8], offset: u64) -> Result<Self> {
        let record = Record::parse_prefix(bytes, Position::BehindRoot)?;
        if record.kind != RecordKind::Footer || record.len != FOOTER_LEN as u64 {
            return Err(Error::corrupt("a footer is not of the kind and length of a footer")
                .at("length", record.len));
        }
        if bytes.len() != FOOTER_LEN || !bytes.ends_with(END_MAGIC) {
            return Err(Error::corrupt("the footer does not end with its magic"));
        }
        let mut fields = Record::open(bytes, RecordKind::Footer)?;
        let (root_offset, root_len) = (fields.u64()?, fields.u64()?);
        let (root, content_root, own_offset) = (fields.bytes()?, fields.bytes()?, fields.u64()?);
        fields.reserved(16)?;
        if own_offset != offset || root_offset.checked_add(root_len).is_none_or(|end| end > offset)
        {
            return Err(Error::corrupt("the footer belongs to another offset")
                .at("says", own_offset)
                .at("stands_at", offset));
        }
        Ok(Self { root_offset, root_len, root, content_root, offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_byte_of_a_footer_is_noticed_or_changes_what_it_says() {
        let footer = Footer {
            root_offset: 100,
            root_len: 50,
            root: [1; 32],
            content_root: [2; 32],
            offset: 150,
        };
        let bytes = footer.encode();
        assert_eq!(bytes.len(), FOOTER_LEN);
        assert_eq!(Footer::parse(&bytes, 150).expect("parses"), footer);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            assert_ne!(Footer::parse(&bad, 150).ok(), Some(footer.clone()), "byte {at}");
        }
    }
}
