//! The bytes of a damaged archive, front to back: those that were read ahead, and the gaps that
//! could not be read.

use std::io::Read;
use std::sync::Arc;

use crate::base::{Cancel, Error, ErrorKind, Result};
use crate::format::layout::MAX_CELL;
use crate::object::ObjectReader;

/// Bytes of one read.
const READ: usize = 1 << 20;
/// Reads that are announced to a remote object ahead of time.
const AHEAD: u64 = 8;
/// The units in which a failed read of a local file is repeated, in bytes: the last one is a page.
const UNITS: [usize; 2] = [64 << 10, 4 << 10];
/// Consumed bytes that are kept before the buffer is moved.
const SLACK: usize = 1 << 20;

/// A result of a read.
#[derive(Debug)]
pub enum Fetched {
    /// Bytes were appended.
    Bytes,
    /// So many bytes cannot be read.
    Unreadable(u64, Error),
    /// No more bytes.
    End,
}

/// Bytes that are read front to back.
pub trait SalvageInput: Send {
    /// Appends the next bytes to `bytes`.
    fn fetch(&mut self, bytes: &mut Vec<u8>) -> Result<Fetched>;
}

/// An archive on a pipe. An error ends it: a pipe has no bytes behind one.
pub struct SalvagedPipe<R> {
    input: R,
    cancel: Cancel,
    ended: bool,
}

impl<R: Read + Send> SalvagedPipe<R> {
    /// Reads from `input` until it ends, fails, or the token is cancelled.
    pub fn new(input: R, cancel: Cancel) -> Self {
        Self { input, cancel, ended: false }
    }
}

impl<R: Read + Send> SalvageInput for SalvagedPipe<R> {
    fn fetch(&mut self, bytes: &mut Vec<u8>) -> Result<Fetched> {
        self.cancel.check()?;
        if self.ended {
            return Ok(Fetched::End);
        }
        let before = bytes.len();
        let read = (&mut self.input).take(READ as u64).read_to_end(bytes);
        self.cancel.check()?;
        match read {
            Ok(0) => Ok(Fetched::End),
            Ok(_) => Ok(Fetched::Bytes),
            Err(cause) => {
                self.ended = true;
                let error = Error::io("cannot read the archive", cause);
                // What arrived before the error counts.
                if bytes.len() > before {
                    self.ended = false;
                    return Ok(Fetched::Bytes);
                }
                Ok(Fetched::Unreadable(0, error))
            }
        }
    }
}

/// An archive that can be read at any position.
pub struct SalvagedObject {
    reader: Arc<dyn ObjectReader>,
    is_remote: bool,
    cancel: Cancel,
    at: u64,
    announced: u64,
    /// Failed parts of the last read: where they end, and the unit of the repetition.
    doubtful: Option<(u64, usize)>,
}

impl SalvagedObject {
    /// Reads all of `reader`. Of a local file, parts that cannot be read are gaps; of a remote
    /// object they are an error, because a service that fails says nothing about the archive.
    pub fn new(reader: Arc<dyn ObjectReader>, is_remote: bool, cancel: Cancel) -> Self {
        Self { reader, is_remote, cancel, at: 0, announced: 0, doubtful: None }
    }

    fn announce(&mut self) {
        let len = self.reader.len();
        let ahead = len.min(self.at.saturating_add(AHEAD * READ as u64));
        while self.is_remote && self.announced < ahead {
            let step = (len - self.announced).min(READ as u64);
            self.reader.prefetch(self.announced, step);
            self.announced += step;
        }
    }

    /// The length of the next read: what is left of a doubtful part is read in smaller units.
    fn step(&mut self) -> usize {
        let left = self.reader.len() - self.at;
        let unit = match self.doubtful {
            Some((end, unit)) if self.at < end => unit.min((end - self.at) as usize),
            _ => {
                self.doubtful = None;
                READ
            }
        };
        left.min(unit as u64) as usize
    }
}

impl SalvageInput for SalvagedObject {
    fn fetch(&mut self, bytes: &mut Vec<u8>) -> Result<Fetched> {
        loop {
            self.cancel.check()?;
            self.announce();
            let step = self.step();
            if step == 0 {
                return Ok(Fetched::End);
            }
            let before = bytes.len();
            bytes.resize(before + step, 0);
            match self.reader.read_at(self.at, &mut bytes[before..]) {
                Ok(()) => {
                    self.at += step as u64;
                    return Ok(Fetched::Bytes);
                }
                Err(error) => {
                    bytes.truncate(before);
                    if self.is_remote || error.kind() != ErrorKind::Io {
                        return Err(error);
                    }
                    let smaller = UNITS.into_iter().find(|unit| *unit < step);
                    match smaller {
                        Some(unit) => {
                            self.doubtful = Some((self.at + step as u64, unit));
                        }
                        None => {
                            self.at += step as u64;
                            return Ok(Fetched::Unreadable(step as u64, error));
                        }
                    }
                }
            }
        }
    }
}

/// Why no more bytes were read ahead.
#[derive(Clone, Debug, Default)]
pub(super) enum Limit {
    /// It holds as many as were asked for.
    #[default]
    None,
    /// The bytes behind it cannot be read: how many, and why.
    Unreadable(u64, Error),
    /// The archive ends.
    End,
}

/// Bytes of the archive that were read ahead, consumed at their start.
pub(super) struct Lookahead<'a> {
    input: &'a mut dyn SalvageInput,
    bytes: Vec<u8>,
    start: usize,
    offset: u64,
    limit: Limit,
}

impl<'a> Lookahead<'a> {
    pub(super) fn new(input: &'a mut dyn SalvageInput) -> Self {
        // Growth by doubling would take twice the memory.
        let bytes = Vec::with_capacity(SLACK + MAX_CELL + 3 * READ);
        Self { input, bytes, start: 0, offset: 0, limit: Limit::None }
    }

    /// The offset of the first byte in the archive.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The bytes that were read, at least `least` unless a gap or the end comes before.
    pub(super) fn bytes(&mut self, least: usize) -> Result<&[u8]> {
        while self.bytes.len() - self.start < least && matches!(self.limit, Limit::None) {
            if self.start > SLACK {
                self.bytes.drain(..self.start);
                self.start = 0;
            }
            match self.input.fetch(&mut self.bytes)? {
                Fetched::Bytes => {}
                Fetched::Unreadable(len, error) => self.limit = Limit::Unreadable(len, error),
                Fetched::End => self.limit = Limit::End,
            }
        }
        Ok(&self.bytes[self.start..])
    }

    /// The bytes that are in memory.
    pub(super) fn known(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Why the bytes in memory are not followed by others.
    pub(super) fn limit(&self) -> &Limit {
        &self.limit
    }

    /// Consumes `len` bytes that are in memory.
    pub(super) fn advance(&mut self, len: usize) {
        self.start += len;
        self.offset += len as u64;
        debug_assert!(self.start <= self.bytes.len());
    }

    /// Goes on behind the gap. The bytes before it are consumed.
    pub(super) fn cross(&mut self) {
        if let Limit::Unreadable(len, _) = std::mem::take(&mut self.limit) {
            self.offset += (self.bytes.len() - self.start) as u64 + len;
            self.bytes.clear();
            self.start = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An object of which some bytes cannot be read.
    struct Broken(Vec<u8>, std::ops::Range<u64>);

    impl ObjectReader for Broken {
        fn name(&self) -> &'static str {
            "broken"
        }

        fn len(&self) -> u64 {
            self.0.len() as u64
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
            let end = offset + buffer.len() as u64;
            if offset < self.1.end && end > self.1.start {
                return Err(Error::new(ErrorKind::Io, "cannot read"));
            }
            buffer.copy_from_slice(&self.0[offset as usize..end as usize]);
            Ok(())
        }
    }

    #[test]
    fn a_range_that_cannot_be_read_costs_its_pages_and_no_more() {
        let data: Vec<u8> = (0..5 << 20).map(|at: u32| (at >> 8) as u8).collect();
        let broken = Arc::new(Broken(data.clone(), (2 << 20) + 5000..(2 << 20) + 5001));
        let mut object = SalvagedObject::new(broken.clone(), false, Cancel::new());
        let mut ahead = Lookahead::new(&mut object);
        let first = ahead.bytes(usize::MAX).expect("reads").to_vec();
        assert_eq!(first, data[..(2 << 20) + 4096]);
        assert!(matches!(ahead.limit(), Limit::Unreadable(4096, _)));
        ahead.cross();
        assert_eq!(ahead.offset(), (2 << 20) + 8192);
        assert_eq!(ahead.bytes(usize::MAX).expect("reads"), &data[(2 << 20) + 8192..]);
        assert!(matches!(ahead.limit(), Limit::End));
        // A service that fails says nothing about the archive.
        let mut object = SalvagedObject::new(broken, true, Cancel::new());
        assert!(Lookahead::new(&mut object).bytes(usize::MAX).is_err());
    }
}
