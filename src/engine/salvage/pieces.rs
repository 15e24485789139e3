//! Recognises the pieces of an archive at a position, without their context.

use crate::codec::sha256;
use crate::format::frame::{self, EndFinder, FrameEnd, FrameHeader};
use crate::format::layout::{
    DATA_FRAME_RAW, GROUP_HEAD, MAX_CELL_RECORD, MAX_EXTRA_RECORDS, MAX_GROUP_RECORD,
    MAX_ROOT_RECORD, META_FRAME_RAW, RECORD_PREFIX, ROOT_HEAD,
};
use crate::format::{CellRecord, FOOTER_LEN, Position, Record, RecordKind};

/// The first bytes of a record; bytes 4 to 8 are its length.
const MAGIC: [u8; 4] = [0x5B, 0x2A, 0x4D, 0x18];
const SIGNATURE: &[u8; 4] = b"AMIB";
/// The first bytes of a seek table.
const SEEK_TABLE: [u8; 4] = [0x5E, 0x2A, 0x4D, 0x18];
/// No zstd frame of the format has more bytes of its content in one piece: a block of a frame holds
/// at most 128 KiB, and its header stands before it. So pieces that follow each other for longer
/// are not the content of a volume in which an archive is stored.
const LONGEST_COPY: usize = 128 << 10;

/// A piece of an archive.
pub(super) enum Piece {
    Cell {
        record: Box<CellRecord>,
        len: usize,
    },
    Group {
        len: usize,
    },
    Root {
        len: usize,
    },
    Footer,
    /// A record of another kind, which stands between R and F.
    Other {
        len: usize,
    },
    SeekTable {
        len: usize,
    },
    Frame,
}

/// The piece that begins with `bytes`; `None` if none does, or if it is damaged. A frame is only
/// looked at as far as its first four bytes.
pub(super) fn recognise(bytes: &[u8]) -> Option<Piece> {
    if frame::begins(bytes) {
        return Some(Piece::Frame);
    }
    if bytes.starts_with(&SEEK_TABLE) {
        let len = u32::from_le_bytes(*bytes.get(4..)?.first_chunk()?) as usize + 8;
        return Some(Piece::SeekTable { len });
    }
    let prefix = bytes.get(..RECORD_PREFIX)?;
    let record = [Position::Volume, Position::Root, Position::BehindRoot]
        .into_iter()
        .find_map(|position| Record::parse_prefix(prefix, position).ok())?;
    let within = |least: usize, most: u64| {
        (record.check_version().is_ok() && (least as u64..=most).contains(&record.len))
            .then_some(record.len as usize)
    };
    match record.kind {
        RecordKind::Cell => {
            let len = within(RECORD_PREFIX, MAX_CELL_RECORD as u64)?;
            let record = Box::new(CellRecord::parse(bytes.get(..len)?).ok()?);
            Some(Piece::Cell { record, len })
        }
        RecordKind::Group => {
            within(GROUP_HEAD, MAX_GROUP_RECORD as u64).map(|len| Piece::Group { len })
        }
        RecordKind::Root => within(ROOT_HEAD, MAX_ROOT_RECORD).map(|len| Piece::Root { len }),
        RecordKind::Footer => within(FOOTER_LEN, FOOTER_LEN as u64).map(|_| Piece::Footer),
        RecordKind::Unknown(_) => {
            within(RECORD_PREFIX, MAX_EXTRA_RECORDS).map(|len| Piece::Other { len })
        }
    }
}

/// The length of the frame at the start of `bytes`, as far as `bytes` hold it, and whether they
/// hold all of it; `None` if its headers are damaged.
pub(super) fn frame_len(bytes: &[u8], raw_limit: u64) -> Option<(usize, bool)> {
    match EndFinder::new(raw_limit).find(bytes) {
        Ok(FrameEnd::At(end)) => Some((end, true)),
        Ok(FrameEnd::Beyond(_)) => Some((bytes.len(), false)),
        Err(_) => None,
    }
}

/// Bytes that the frame at the start of `bytes` inflates to, by its header.
pub(super) fn content_size(bytes: &[u8]) -> Option<u64> {
    let header = FrameHeader::parse(bytes, DATA_FRAME_RAW as u64).ok().flatten();
    header.map(|header| header.content_size)
}

/// Whether a piece begins at `at`, or the archive ends there: the piece before it has its length.
pub(super) fn follows(bytes: &[u8], at: usize, ends: bool) -> bool {
    match bytes.get(at..) {
        Some([]) => ends,
        Some(rest) => match recognise(rest) {
            Some(Piece::Frame) => frame_len(rest, DATA_FRAME_RAW as u64).is_some(),
            Some(_) => true,
            None => false,
        },
        None => false,
    }
}

/// Whether pieces follow each other from the start of `bytes` for longer than a copy of an archive
/// in a volume could do, or to the end of the archive. `ends` says whether `bytes` end with it.
pub(super) fn is_no_copy(bytes: &[u8], ends: bool) -> bool {
    let mut at = 0;
    let mut behind_footer = false;
    while at <= LONGEST_COPY {
        let Some(rest) = bytes.get(at..) else { return false };
        if rest.is_empty() {
            return ends && behind_footer;
        }
        let Some(piece) = recognise(rest) else { return false };
        behind_footer |= matches!(piece, Piece::Footer);
        at += match piece {
            Piece::Cell { record, len } => {
                let end = len + record.frame_len as usize;
                let Some(stored) = rest.get(len..end) else { return false };
                if sha256::digest(stored) != record.frame_digest {
                    return false;
                }
                end
            }
            Piece::Group { len }
            | Piece::Root { len }
            | Piece::Other { len }
            | Piece::SeekTable { len } => len,
            Piece::Footer => FOOTER_LEN,
            Piece::Frame => match frame_len(rest, META_FRAME_RAW as u64) {
                Some((len, true)) => len,
                _ => return false,
            },
        };
    }
    true
}

/// The position of the next bytes that may begin a piece, from `from` on.
pub(super) fn next_candidate(bytes: &[u8], from: usize) -> Option<usize> {
    (from..bytes.len().saturating_sub(RECORD_PREFIX - 1)).find(|&at| {
        let rest = &bytes[at..];
        frame::begins(rest) || (rest.starts_with(&MAGIC) && rest[8..].starts_with(SIGNATURE))
    })
}
