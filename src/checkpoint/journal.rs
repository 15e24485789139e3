//! An append-only file of records, each with a digest: a record that a crash cut off is ignored,
//! and those before it are valid.
//!
//! A record is: u32 length of kind and payload, u8 kind, payload, the first 8 bytes of the SHA-256
//! of kind and payload. Numbers are little-endian.

use std::fs::File;
use std::io::{BufReader, Read, Take, Write};

use crate::codec::sha256;

/// The largest length of kind and payload. The longest payload is the metadata of an image.
const MAX_RECORD: usize = 9 << 20;
const DIGEST: usize = 8;

/// The bytes of a record.
pub(super) fn encode(kind: u8, payload: &[u8]) -> Vec<u8> {
    debug_assert!(payload.len() < MAX_RECORD, "records are small");
    let mut bytes = Vec::with_capacity(payload.len() + 5 + DIGEST);
    bytes.extend_from_slice(&(payload.len() as u32 + 1).to_le_bytes());
    bytes.push(kind);
    bytes.extend_from_slice(payload);
    let digest = sha256::digest(&bytes[4..]);
    bytes.extend_from_slice(&digest[..DIGEST]);
    bytes
}

/// A record of a task file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its kind; `H` is reserved for the header.
    pub kind: u8,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// Reads valid records from the start of a file.
pub(super) struct Records {
    input: BufReader<Take<File>>,
    /// The offset behind the last valid record.
    end: u64,
}

impl Records {
    /// Reads at most `end` bytes of the file.
    pub(super) fn new(file: File, end: u64) -> Self {
        Self { input: BufReader::with_capacity(256 << 10, file.take(end)), end: 0 }
    }

    /// The offset behind the last valid record that was read.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// The next record; `None` at the end, or at the first record that is not valid.
    pub(super) fn next(&mut self) -> std::io::Result<Option<Record>> {
        let mut len = [0; 4];
        if !self.fill(&mut len)? {
            return Ok(None);
        }
        let len = u32::from_le_bytes(len) as usize;
        if !(1..=MAX_RECORD).contains(&len) {
            return Ok(None);
        }
        let mut body = vec![0; len + DIGEST];
        if !self.fill(&mut body)? || sha256::digest(&body[..len])[..DIGEST] != body[len..] {
            return Ok(None);
        }
        self.end += 4 + body.len() as u64;
        body.truncate(len);
        let kind = body.remove(0);
        Ok(Some(Record { kind, payload: body }))
    }

    /// Fills `buffer`; false if the file ends before.
    fn fill(&mut self, buffer: &mut [u8]) -> std::io::Result<bool> {
        match self.input.read_exact(buffer) {
            Err(cause) if cause.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
            result => result.map(|()| true),
        }
    }
}

/// Appends records. They are buffered until they are flushed.
pub(super) struct Appender {
    file: File,
    buffer: Vec<u8>,
}

impl Appender {
    /// Appends at the file's position.
    pub(super) fn new(file: File) -> Self {
        Self { file, buffer: Vec::new() }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn append(&mut self, kind: u8, payload: &[u8]) -> std::io::Result<()> {
        self.buffer.extend_from_slice(&encode(kind, payload));
        if self.buffer.len() >= 64 << 10 { self.flush() } else { Ok(()) }
    }

    /// Writes the buffer to the file: the records survive this process.
    pub(super) fn flush(&mut self) -> std::io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    /// Flushes, and syncs the file: the records survive a power failure.
    pub(super) fn sync(&mut self) -> std::io::Result<()> {
        self.flush()?;
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom};

    use super::*;

    fn read(bytes: &[u8]) -> (Vec<(u8, Vec<u8>)>, u64) {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("writes");
        file.seek(SeekFrom::Start(0)).expect("seeks");
        let mut records = Records::new(file, u64::MAX);
        let mut found = Vec::new();
        while let Some(record) = records.next().expect("reads") {
            found.push((record.kind, record.payload));
        }
        (found, records.end())
    }

    #[test]
    fn a_record_that_is_cut_off_anywhere_is_ignored_and_those_before_are_read() {
        let whole = [encode(1, b"one"), encode(2, b""), encode(3, &[7; 1000])];
        let bytes = whole.concat();
        let ends: Vec<usize> =
            whole.iter().scan(0, |end, record| Some((*end += record.len(), *end).1)).collect();
        for cut in 0..=bytes.len() {
            let (records, end) = read(&bytes[..cut]);
            let expected = ends.iter().filter(|end| **end <= cut).count();
            assert_eq!(records.len(), expected, "cut at {cut}");
            assert_eq!(end as usize, if expected == 0 { 0 } else { ends[expected - 1] });
        }
    }

    #[test]
    fn a_flipped_bit_ends_the_records() {
        let whole = [encode(1, b"one"), encode(2, b"two")].concat();
        let first = encode(1, b"one").len();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            assert_eq!(read(&bytes).0.len(), usize::from(at >= first), "byte {at}");
        }
    }
}
