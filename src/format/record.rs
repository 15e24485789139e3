//! The prefix that all records share, and their fixed-width little-endian fields (3.2).

use super::layout::RECORD_PREFIX;
use crate::base::{Error, ErrorCode, Result, hex};

/// The magic of our skippable frames.
pub(super) const RECORD_MAGIC: u32 = 0x184D_2A5B;
const SIGNATURE: &[u8; 4] = b"AMIB";
const RECORD_VERSION: u8 = 1;
const FLAG_CRITICAL: u16 = 1 << 15;

/// The kinds of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// C: a cell.
    Cell,
    /// S: the index of a group.
    Group,
    /// R: manifest and table of groups.
    Root,
    /// F: the footer.
    Footer,
    /// A kind that this version does not know and may skip.
    Unknown(u8),
}

impl RecordKind {
    fn letter(self) -> u8 {
        match self {
            Self::Cell => b'C',
            Self::Group => b'S',
            Self::Root => b'R',
            Self::Footer => b'F',
            Self::Unknown(letter) => letter,
        }
    }
}

/// The prefix of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The kind.
    pub kind: RecordKind,
    /// Length of the whole record, prefix included.
    pub len: u64,
}

impl Record {
    /// Whether `bytes` begin like a record of ours; needs 4 bytes.
    pub fn begins(bytes: &[u8]) -> bool {
        bytes.starts_with(&RECORD_MAGIC.to_le_bytes())
    }

    /// Reads a prefix of [`RECORD_PREFIX`] bytes. Unknown critical kinds and record versions are
    /// errors of kind `Unsupported`, all others of kind `Corrupt`.
    pub fn parse_prefix(bytes: &[u8]) -> Result<Self> {
        let mut fields = Fields::new(bytes);
        let (magic, len, signature) = (fields.u32()?, fields.u32()?, fields.bytes::<4>()?);
        let (letter, version, flags) = (fields.u8()?, fields.u8()?, fields.u16()?);
        if magic != RECORD_MAGIC || &signature != SIGNATURE {
            return Err(
                Error::corrupt("this is not a record of the format").at("found", hex(&bytes[..12]))
            );
        }
        let len = u64::from(len) + 8;
        if len < RECORD_PREFIX as u64 {
            return Err(Error::corrupt("a record is shorter than its prefix"));
        }
        let kind = match letter {
            b'C' => RecordKind::Cell,
            b'S' => RecordKind::Group,
            b'R' => RecordKind::Root,
            b'F' => RecordKind::Footer,
            other if flags & FLAG_CRITICAL != 0 => {
                return Err(Error::unsupported(
                    "the archive has a critical record of a kind that this version does not know",
                )
                .at("kind", (other as char).escape_default()));
            }
            other => return Ok(Self { kind: RecordKind::Unknown(other), len }),
        };
        if version != RECORD_VERSION {
            return Err(Error::unsupported("the archive has a record of a newer version")
                .code_as(ErrorCode::NewerFormat)
                .at("kind", letter as char)
                .at("version", version)
                .at("supported", RECORD_VERSION));
        }
        if flags != 0 {
            return Err(
                Error::corrupt("reserved flags of a record are set").at("kind", letter as char)
            );
        }
        Ok(Self { kind, len })
    }

    /// Checks that `bytes` are one whole record of `kind` and returns its fields after the prefix.
    pub(super) fn open(bytes: &[u8], kind: RecordKind) -> Result<Fields<'_>> {
        let record = Self::parse_prefix(bytes)?;
        if record.kind != kind {
            return Err(Error::corrupt("a record is of another kind than expected")
                .at("expected", kind.letter() as char)
                .at("found", (record.kind.letter() as char).escape_default()));
        }
        if record.len != bytes.len() as u64 {
            return Err(Error::corrupt("the length of a record is not the one in its prefix")
                .at("says", record.len)
                .at("has", bytes.len()));
        }
        Ok(Fields::new(&bytes[RECORD_PREFIX..]))
    }

    /// Begins a record of `kind` and `len` bytes, prefix included.
    pub(super) fn begin(kind: RecordKind, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(&RECORD_MAGIC.to_le_bytes());
        bytes.extend_from_slice(&(len as u32 - 8).to_le_bytes());
        bytes.extend_from_slice(SIGNATURE);
        bytes.push(kind.letter());
        bytes.push(RECORD_VERSION);
        bytes.extend_from_slice(&0u16.to_le_bytes());
        bytes
    }
}

/// Reads little-endian fields from a slice, front to back. Too few bytes are an error of kind
/// `Corrupt`.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn slice(&mut self, len: usize) -> Result<&'a [u8]> {
        match self.0.split_at_checked(len) {
            Some((head, rest)) => {
                self.0 = rest;
                Ok(head)
            }
            None => Err(Error::corrupt("a record ends in the middle of a field")),
        }
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.slice(N)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        Ok(self.bytes::<1>()?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.bytes()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    /// A bitmap of a cell: 16 bits, of which version 1 uses 8.
    pub(super) fn bitmap(&mut self) -> Result<u8> {
        u8::try_from(self.u16()?)
            .map_err(|_| Error::corrupt("a bitmap has bits beyond the 8 blocks of a cell"))
    }

    /// Reserved bytes, which have to be zero.
    pub(super) fn reserved(&mut self, len: usize) -> Result<()> {
        if self.slice(len)?.iter().all(|byte| *byte == 0) {
            Ok(())
        } else {
            Err(Error::corrupt("a reserved field is not zero"))
        }
    }

    pub(super) fn remaining(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ErrorKind;

    fn prefix(kind: u8, version: u8, flags: u16) -> Vec<u8> {
        let mut bytes = Record::begin(RecordKind::Unknown(kind), 16);
        bytes[13] = version;
        bytes[14..16].copy_from_slice(&flags.to_le_bytes());
        bytes
    }

    #[test]
    fn an_unknown_kind_may_be_skipped_unless_it_is_critical() {
        assert_eq!(
            Record::parse_prefix(&prefix(b'G', 9, 3)).expect("skippable").kind,
            RecordKind::Unknown(b'G')
        );
        assert_eq!(
            Record::parse_prefix(&prefix(b'G', 1, 1 << 15)).expect_err("critical").kind(),
            ErrorKind::Unsupported
        );
    }

    #[test]
    fn a_newer_version_of_a_known_kind_is_unsupported_and_a_reserved_flag_is_corrupt() {
        assert_eq!(
            Record::parse_prefix(&prefix(b'C', 2, 0)).expect_err("newer").kind(),
            ErrorKind::Unsupported
        );
        assert_eq!(
            Record::parse_prefix(&prefix(b'C', 1, 1)).expect_err("flag").kind(),
            ErrorKind::Corrupt
        );
    }

    #[test]
    fn short_input_is_corrupt() {
        let whole = prefix(b'C', 1, 0);
        for len in 0..whole.len() {
            assert_eq!(
                Record::parse_prefix(&whole[..len]).expect_err("short").kind(),
                ErrorKind::Corrupt
            );
        }
    }
}
