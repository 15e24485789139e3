//! The zstd seek table at the end, for zstd tools that do not know the format (3.7).

use super::CellRecord;
use super::layout::MAX_SEEK_FRAMES;
use crate::base::{BLOCK_BYTES, Bitmap8};

const MAGIC: u32 = 0x184D_2A5E;
/// The last four bytes of a seek table.
pub const END_MAGIC: u32 = 0x8F92_EAB1;
const HEAD: u64 = 8;
const TAIL: u64 = SEEK_TABLE_TAIL as u64;
/// The end of a seek table: number of frames, descriptor, magic.
pub const SEEK_TABLE_TAIL: usize = 9;
const CELL: u32 = 1 << 31;

/// The length of a seek table of `frames` frames.
pub fn seek_table_len(frames: u64) -> u64 {
    HEAD + 8 * frames + TAIL
}

/// The number of frames in the seek table that ends with `tail`; `None` if none ends there.
pub fn seek_table_frames(tail: &[u8]) -> Option<u64> {
    match tail.last_chunk::<SEEK_TABLE_TAIL>()? {
        [a, b, c, d, _, magic @ ..] if u32::from_le_bytes(*magic) == END_MAGIC => {
            Some(u32::from_le_bytes([*a, *b, *c, *d]).into())
        }
        _ => None,
    }
}

/// The lengths of all frames, in 4 bytes a cell: at most 32 MiB, because an archive of more than
/// 2^24 frames has no seek table.
#[derive(Clone, Debug, Default)]
pub struct FrameLog {
    /// A cell: `CELL`, digests (4 bits), blocks (4 bits), length of the data frame (23 bits). Any
    /// other frame: two words, both below `CELL`. In chunks, so that growing never needs twice the
    /// memory.
    words: Vec<Vec<u32>>,
    frames: u64,
}

/// Words of a chunk: 256 KiB.
const CHUNK: usize = 1 << 16;

impl FrameLog {
    /// Adds a cell.
    pub fn cell(&mut self, present: Bitmap8, zero: Bitmap8, frame_len: u32, raw_len: u32) {
        let (digests, blocks) = ((present & !zero).count_ones(), present.count_ones());
        if u64::from(raw_len) == u64::from(blocks) * BLOCK_BYTES && frame_len < 1 << 23 {
            self.add(2, &[CELL | digests << 27 | blocks << 23 | frame_len]);
        } else {
            self.frame(CellRecord::len_of(present, zero) as u32, 0);
            self.frame(frame_len, raw_len);
        }
    }

    /// Bytes of memory for a cell.
    pub const CELL_MEMORY: u64 = 4;

    /// Adds one frame. A record inflates to 0 bytes.
    pub fn frame(&mut self, len: u32, raw_len: u32) {
        debug_assert!(len < CELL && raw_len < CELL);
        self.add(1, &[len, raw_len]);
    }

    fn add(&mut self, frames: u64, words: &[u32]) {
        self.frames += frames;
        if self.frames <= MAX_SEEK_FRAMES {
            match self.words.last_mut().filter(|chunk| chunk.len() + words.len() <= CHUNK) {
                Some(chunk) => chunk.extend_from_slice(words),
                None => {
                    let mut chunk = Vec::with_capacity(CHUNK);
                    chunk.extend_from_slice(words);
                    self.words.push(chunk);
                }
            }
        } else {
            self.words = Vec::new();
        }
    }

    /// Appends the frames of the archive part that follows.
    pub fn append(&mut self, other: Self) {
        self.frames += other.frames;
        if self.frames <= MAX_SEEK_FRAMES {
            self.words.extend(other.words);
        } else {
            self.words = Vec::new();
        }
    }

    /// The length of the seek table in bytes; 0 if there are too many frames for one.
    pub fn table_len(&self) -> u64 {
        if self.frames <= MAX_SEEK_FRAMES { seek_table_len(self.frames) } else { 0 }
    }

    /// The bytes of the seek table, in pieces of about 1 MiB; none if there are too many frames for
    /// one.
    pub fn table(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        let mut entries = self.entries();
        let mut next = if self.frames <= MAX_SEEK_FRAMES { Some(Part::Head) } else { None };
        std::iter::from_fn(move || {
            let mut piece = Vec::with_capacity(1 << 20);
            while piece.len() < 1 << 20 {
                match next? {
                    Part::Head => {
                        piece.extend_from_slice(&MAGIC.to_le_bytes());
                        piece.extend_from_slice(&((8 * self.frames + TAIL) as u32).to_le_bytes());
                        next = Some(Part::Entries);
                    }
                    Part::Entries => match entries.next() {
                        Some((len, raw_len)) => {
                            piece.extend_from_slice(&len.to_le_bytes());
                            piece.extend_from_slice(&raw_len.to_le_bytes());
                        }
                        None => next = Some(Part::Tail),
                    },
                    Part::Tail => {
                        piece.extend_from_slice(&(self.frames as u32).to_le_bytes());
                        piece.push(0);
                        piece.extend_from_slice(&END_MAGIC.to_le_bytes());
                        next = None;
                        break;
                    }
                }
            }
            Some(piece)
        })
    }

    fn entries(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let mut words = self.words.iter().flatten().copied();
        let mut pending = None;
        std::iter::from_fn(move || {
            if let Some(entry) = pending.take() {
                return Some(entry);
            }
            let word = words.next()?;
            if word & CELL == 0 {
                return Some((word, words.next()?));
            }
            let (digests, blocks, frame_len) = (word >> 27 & 15, word >> 23 & 15, word & 0x7F_FFFF);
            pending = Some((frame_len, blocks * BLOCK_BYTES as u32));
            Some((super::layout::CELL_HEAD as u32 + 32 * digests, 0))
        })
    }
}

#[derive(Clone, Copy)]
enum Part {
    Head,
    Entries,
    Tail,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_and_plain_entries_are_equal() {
        let mut packed = FrameLog::default();
        packed.frame(700, 3072);
        packed.cell(0b111, 0b100, 70, 3 << 19);
        packed.cell(1, 0, 4_200_000, 1 << 19);
        packed.cell(1, 0, 99, 512);
        packed.frame(116, 0);
        let table: Vec<u8> = packed.table().flatten().collect();
        assert_eq!(table.len() as u64, packed.table_len());
        let words: Vec<u32> = table[8..table.len() - 9]
            .as_chunks::<4>()
            .0
            .iter()
            .map(|word| u32::from_le_bytes(*word))
            .collect();
        assert_eq!(
            words,
            [700, 3072, 136, 0, 70, 3 << 19, 104, 0, 4_200_000, 1 << 19, 104, 0, 99, 512, 116, 0]
        );
        assert_eq!(table[table.len() - 9..], [8, 0, 0, 0, 0, 0xB1, 0xEA, 0x92, 0x8F]);
    }

    #[test]
    fn too_many_frames_give_no_table() {
        let mut log = FrameLog { words: Vec::new(), frames: MAX_SEEK_FRAMES - 1 };
        log.cell(1, 1, 20, 1 << 19);
        assert_eq!((log.table_len(), log.table().count()), (0, 0));
    }
}
