//! The input of a stream reader.

use std::io::{BufReader, Read};

use crate::base::{Error, ErrorCode, Result};
use crate::format::frame;

/// A stream with the offset of the next byte.
pub(super) struct StreamInput<R> {
    inner: BufReader<R>,
    /// The first bytes of the next frame, if they were peeked at.
    head: Option<[u8; 4]>,
    pub(super) offset: u64,
}

impl<R: Read> StreamInput<R> {
    pub(super) fn new(input: R) -> Self {
        Self { inner: BufReader::with_capacity(256 << 10, input), head: None, offset: 0 }
    }

    /// The magic number of the next frame.
    pub(super) fn peek(&mut self) -> Result<[u8; 4]> {
        if let Some(head) = self.head {
            return Ok(head);
        }
        let mut head = [0; 4];
        self.inner.read_exact(&mut head).map_err(|cause| self.failed(cause))?;
        self.head = Some(head);
        Ok(head)
    }

    /// The first bytes of the stream: 4, which are read again, if they begin a zstd frame;
    /// otherwise enough to recognise another format.
    pub(super) fn first_bytes(&mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        (&mut self.inner).take(4).read_to_end(&mut bytes).map_err(|cause| self.failed(cause))?;
        if frame::begins(&bytes) {
            self.head = bytes.first_chunk().copied();
        } else {
            (&mut self.inner)
                .take(508)
                .read_to_end(&mut bytes)
                .map_err(|cause| self.failed(cause))?;
        }
        Ok(bytes)
    }

    /// Appends the next `len` bytes to `bytes`. Memory grows with the bytes that arrive, not with
    /// `len`.
    pub(super) fn read(&mut self, len: usize, bytes: &mut Vec<u8>) -> Result<()> {
        let mut len = len as u64;
        if let Some(head) = self.head.take() {
            bytes.extend_from_slice(&head);
            self.offset += 4;
            len -= 4;
        }
        let read =
            (&mut self.inner).take(len).read_to_end(bytes).map_err(|cause| self.failed(cause))?;
        self.offset += read as u64;
        if (read as u64) < len {
            Err(self.failed(std::io::ErrorKind::UnexpectedEof.into()))
        } else {
            Ok(())
        }
    }

    /// Appends at most `len` of the next bytes to `bytes`, fewer only at the end of the stream.
    /// Returns how many.
    pub(super) fn read_some(&mut self, len: usize, bytes: &mut Vec<u8>) -> Result<usize> {
        let read = (&mut self.inner)
            .take(len as u64)
            .read_to_end(bytes)
            .map_err(|cause| self.failed(cause))?;
        self.offset += read as u64;
        Ok(read)
    }

    pub(super) fn at_end(&mut self) -> Result<bool> {
        let mut byte = [0];
        Ok(self.head.is_none()
            && self.inner.read(&mut byte).map_err(|cause| self.failed(cause))? == 0)
    }

    fn failed(&self, cause: std::io::Error) -> Error {
        match cause.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                Error::corrupt("the archive is truncated: the stream ends in the middle of it")
                    .code_as(ErrorCode::Truncated)
                    .at("offset", self.offset)
            }
            _ => Error::io("cannot read the archive", cause).at("offset", self.offset),
        }
    }
}
