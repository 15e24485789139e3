//! Archives as streams: standard input and output.

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::sync::Arc;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::OFlags;
use rustix::io::{Errno, ReadWriteFlags, pwritev2};

use super::ObjectWriter;
use crate::base::{Cancel, CancelListener, Error, ErrorCode, ErrorKind, Result};

/// The end of a pipe that archives are read from. A read that waits for data ends at once when the
/// token is cancelled.
pub struct PipeReader {
    file: File,
    wait: CancellablePoll,
}

impl PipeReader {
    /// Reads from standard input.
    pub fn stdin(cancel: Cancel) -> Result<Self> {
        Self::new(std::io::stdin().as_fd(), cancel)
            .map_err(|cause| Error::io("cannot read standard input", cause))
    }

    fn new(fd: impl AsFd, cancel: Cancel) -> std::io::Result<Self> {
        Ok(Self { file: File::from(duplicate(fd)?), wait: CancellablePoll::new(cancel)? })
    }
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.wait.until_ready(&self.file, PollFlags::IN)?;
        if self.wait.cancel.is_cancelled() {
            return Err(std::io::Error::other("interrupted"));
        }
        self.file.read(buffer)
    }
}

/// The end of a pipe that an archive is written to. Written bytes cannot be taken back: the reader
/// checks that they end with a footer, as every reader of the format does.
pub struct PipeWriter {
    file: File,
    /// A reader at the other end decides how fast it goes.
    is_pipe: bool,
    wait: CancellablePoll,
    /// Message and code of a write that failed.
    failure: (&'static str, ErrorCode),
}

impl PipeWriter {
    /// Writes to standard output.
    pub fn stdout(cancel: Cancel) -> Result<Self> {
        let failed = |cause| {
            Error::io("cannot write to standard output", cause).code_as(ErrorCode::OutputFailed)
        };
        let file = File::from(duplicate(std::io::stdout().as_fd()).map_err(failed)?);
        if is_stand_in(&file).map_err(failed)? {
            return Err(Error::new(
                ErrorKind::Io,
                "standard output is closed, or is /dev/null opened for reading and writing: \
                 the data would be lost",
            ));
        }
        let kind = file.metadata().map_err(failed)?.file_type();
        let wait = CancellablePoll::new(cancel).map_err(failed)?;
        let is_pipe = kind.is_fifo() || kind.is_socket();
        let failure = ("cannot write the archive", ErrorCode::ArchiveOutputFailed);
        Ok(Self { file, is_pipe, wait, failure })
    }

    /// Writes a volume instead of an archive: its errors say so.
    #[must_use]
    pub fn for_volume(self) -> Self {
        Self { failure: ("cannot write the volume", ErrorCode::OutputFailed), ..self }
    }
}

impl ObjectWriter for PipeWriter {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let (message, code) = self.failure;
        let failed = |cause| Error::io(message, cause).code_as(code).at("path", "standard output");
        let mut rest = bytes;
        while !rest.is_empty() {
            self.wait.until_ready(&self.file, PollFlags::OUT).map_err(failed)?;
            self.wait.cancel.check()?;
            let written = match write_some(&self.file, self.is_pipe, rest) {
                Ok(written) => written,
                Err(cause) if cause.kind() == std::io::ErrorKind::Interrupted => 0,
                Err(cause) => return Err(failed(cause)),
            };
            rest = &rest[written..];
        }
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// Writes some of `bytes` to something that is ready, without waiting for a reader: a blocking
/// write of more than a pipe has room for would be deaf to interrupts.
fn write_some(mut file: &File, is_pipe: bool, bytes: &[u8]) -> std::io::Result<usize> {
    const PAGE: usize = 4096;
    const MOST: usize = 64 << 10;
    let some = &bytes[..bytes.len().min(MOST)];
    if !is_pipe {
        return file.write(some);
    }
    // The offset says: where the stream is.
    match pwritev2(file, &[IoSlice::new(some)], u64::MAX, ReadWriteFlags::NOWAIT) {
        Ok(written) => Ok(written),
        Err(Errno::AGAIN) => Ok(0),
        // A kernel that cannot do that: a pipe that is ready has room for a page.
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::SPIPE) => {
            file.write(&some[..some.len().min(PAGE)])
        }
        Err(cause) => Err(cause.into()),
    }
}

/// Whether this is what Rust puts in the place of a closed standard output before `main`:
/// `/dev/null`, open for reading and writing. A shell opens it for writing only.
fn is_stand_in(file: &File) -> std::io::Result<bool> {
    let null = std::fs::metadata("/dev/null")?;
    let own = file.metadata()?;
    let both_ways = rustix::fs::fcntl_getfl(file)? & OFlags::RWMODE == OFlags::RDWR;
    Ok(both_ways && own.file_type().is_char_device() && own.rdev() == null.rdev())
}

fn duplicate(fd: impl AsFd) -> std::io::Result<OwnedFd> {
    fd.as_fd().try_clone_to_owned()
}

/// Waits for a descriptor and for a token at the same time.
struct CancellablePoll {
    cancel: Cancel,
    /// Readable once the token is cancelled.
    cancelled: Arc<OwnedFd>,
    _listener: CancelListener,
}

impl CancellablePoll {
    fn new(cancel: Cancel) -> std::io::Result<Self> {
        let cancelled = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let signalled = cancelled.clone();
        let listener = cancel.on_cancel(move || {
            // It cannot fail: the counter is far from its end, and the descriptor is open.
            let _ = rustix::io::write(&*signalled, &1_u64.to_ne_bytes());
        });
        Ok(Self { cancel, cancelled, _listener: listener })
    }

    /// Returns when `file` is ready, has failed or ended, or the token is cancelled: the caller
    /// looks at the token.
    fn until_ready(&self, file: &File, flags: PollFlags) -> std::io::Result<()> {
        while !self.cancel.is_cancelled() {
            let mut ends = [PollFd::new(file, flags), PollFd::new(&*self.cancelled, PollFlags::IN)];
            match poll(&mut ends, None) {
                Err(Errno::INTR) => {}
                Ok(_) => break,
                Err(cause) => return Err(cause.into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_that_waits_for_data_ends_when_it_is_cancelled() {
        let (silent, _open) = std::io::pipe().expect("a pipe");
        let cancel = Cancel::new();
        let mut reader = PipeReader::new(&silent, cancel.clone()).expect("a reader");
        std::thread::scope(|scope| {
            let read = scope.spawn(move || reader.read(&mut [0; 16]));
            cancel.cancel();
            assert!(read.join().expect("no panic").is_err());
        });
    }
}
