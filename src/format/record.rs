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

/// A position in the archive, and with it the kinds of records that may stand there (9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// Between the tar headers of a volume and the next meta frame: C and S.
    Volume,
    /// Behind the last meta frame: R.
    Root,
    /// Behind R: F, and before it records of unknown kinds.
    BehindRoot,
}

impl Position {
    fn takes(self, kind: RecordKind) -> bool {
        match self {
            Self::Volume => matches!(kind, RecordKind::Cell | RecordKind::Group),
            Self::Root => kind == RecordKind::Root,
            Self::BehindRoot => matches!(kind, RecordKind::Footer | RecordKind::Unknown(_)),
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
    version: u8,
    flags: u16,
}

impl Record {
    /// Whether `bytes` begin like a record of ours; needs 4 bytes.
    pub fn begins(bytes: &[u8]) -> bool {
        bytes.starts_with(&RECORD_MAGIC.to_le_bytes())
    }

    /// Reads a prefix of [`RECORD_PREFIX`] bytes that stands at `position`. Every error is of kind
    /// `Corrupt`: a rule of position goes before a rule of version, which
    /// [`check_version`](Self::check_version) checks.
    pub fn parse_prefix(bytes: &[u8], position: Position) -> Result<Self> {
        let record = Self::parse(bytes)?;
        if position.takes(record.kind) {
            Ok(record)
        } else {
            Err(Error::corrupt("a record stands where it must not")
                .at("kind", (record.kind.letter() as char).escape_default()))
        }
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
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
            other => RecordKind::Unknown(other),
        };
        Ok(Self { kind, len, version, flags })
    }

    /// Whether the record is of the version that this text describes; a record of unknown kind has
    /// none.
    pub fn is_of_this_version(&self) -> bool {
        matches!(self.kind, RecordKind::Unknown(_)) || self.version == RECORD_VERSION
    }

    /// Checks version and flags. A critical record of unknown kind and a newer version are errors
    /// of kind `Unsupported`, reserved flags are of kind `Corrupt`.
    pub fn check_version(&self) -> Result<()> {
        let kind = (self.kind.letter() as char).escape_default();
        if matches!(self.kind, RecordKind::Unknown(_)) {
            return if self.flags & FLAG_CRITICAL == 0 {
                Ok(())
            } else {
                Err(Error::unsupported(
                    "the archive has a critical record of a kind that this version does not know",
                )
                .at("kind", kind))
            };
        }
        if !self.is_of_this_version() {
            return Err(Error::unsupported("the archive has a record of a newer version")
                .code_as(ErrorCode::NewerFormat)
                .at("kind", kind)
                .at("version", self.version)
                .at("supported", RECORD_VERSION));
        }
        if self.flags != 0 {
            return Err(Error::corrupt("reserved flags of a record are set").at("kind", kind));
        }
        Ok(())
    }

    /// Checks that `bytes` are one whole record of `kind` and returns its fields after the prefix.
    pub(super) fn open(bytes: &[u8], kind: RecordKind) -> Result<Fields<'_>> {
        let record = Self::parse(bytes)?;
        if record.kind != kind {
            return Err(Error::corrupt("a record is of another kind than expected")
                .at("expected", kind.letter() as char)
                .at("found", (record.kind.letter() as char).escape_default()));
        }
        let checked = record.check_version();
        if record.len != bytes.len() as u64 {
            let wrong = Error::corrupt("the length of a record is not the one in its prefix")
                .at("says", record.len)
                .at("has", bytes.len());
            // The length of R is in F, whatever the version of R. A stream reader meets the version
            // of C and S before it knows a length.
            return Err(if kind == RecordKind::Root {
                wrong
            } else {
                checked.err().unwrap_or(wrong)
            });
        }
        checked.map(|()| Fields::new(&bytes[RECORD_PREFIX..]))
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

    /// The kind of the error with which a prefix at a position is refused.
    fn verdict(kind: u8, version: u8, flags: u16, position: Position) -> Option<ErrorKind> {
        Record::parse_prefix(&prefix(kind, version, flags), position)
            .and_then(|record| record.check_version())
            .err()
            .map(|error| error.kind())
    }

    #[test]
    fn an_unknown_kind_may_be_skipped_unless_it_is_critical() {
        assert_eq!(verdict(b'G', 9, 3, Position::BehindRoot), None);
        assert_eq!(verdict(b'G', 1, 1 << 15, Position::BehindRoot), Some(ErrorKind::Unsupported));
    }

    #[test]
    fn a_newer_version_of_a_known_kind_is_unsupported_and_a_reserved_flag_is_corrupt() {
        assert_eq!(verdict(b'C', 2, 0, Position::Volume), Some(ErrorKind::Unsupported));
        assert_eq!(verdict(b'C', 2, 1, Position::Volume), Some(ErrorKind::Unsupported));
        assert_eq!(verdict(b'C', 1, 1, Position::Volume), Some(ErrorKind::Corrupt));
    }

    #[test]
    fn a_record_at_a_wrong_position_is_corrupt_whatever_its_version_and_flags() {
        let positions = [
            (Position::Volume, &b"CS"[..]),
            (Position::Root, b"R"),
            (Position::BehindRoot, b"FGX"),
        ];
        for (position, taken) in positions {
            for kind in *b"CSRFGX" {
                for (version, flags) in [(1, 0), (2, 0), (1, 1 << 15)] {
                    let verdict = verdict(kind, version, flags, position);
                    let wrong = !taken.contains(&kind);
                    let what = kind as char;
                    assert!(!wrong || verdict == Some(ErrorKind::Corrupt), "{what}, {position:?}");
                    assert!(wrong || (version, flags) != (1, 0) || verdict.is_none(), "{what}");
                }
            }
        }
    }

    #[test]
    fn short_input_is_corrupt() {
        let whole = prefix(b'C', 1, 0);
        for len in 0..whole.len() {
            assert_eq!(
                Record::parse_prefix(&whole[..len], Position::Volume).expect_err("short").kind(),
                ErrorKind::Corrupt
            );
        }
    }
}
