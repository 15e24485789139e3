//! Archives as streams: standard input and output.

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::{Errno, ReadWriteFlags, pwritev2};

use super::ObjectWriter;
use crate::base::{Cancel, Error, ErrorKind, Result};

/// How long a quiet pipe may keep an interrupt waiting.
const PATIENCE: Duration = Duration::from_millis(100);

/// The end of a pipe that archives are read from. A read that finds nothing notices when it is
/// cancelled.
#[derive(Debug)]
pub struct PipeReader {
    file: File,
    cancel: Cancel,
}

impl PipeReader {
    /// Reads from standard input.
    pub fn stdin(cancel: Cancel) -> Result<Self> {
        let fd = duplicate(std::io::stdin().as_fd())
            .map_err(|cause| Error::io("cannot read standard input", cause))?;
        Ok(Self { file: File::from(fd), cancel })
    }
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        wait(&self.file, PollFlags::IN, &self.cancel)?;
        if self.cancel.is_cancelled() {
            return Err(std::io::Error::other("interrupted"));
        }
        self.file.read(buffer)
    }
}

/// The end of a pipe that an archive is written to. What was written cannot be taken back: whoever
/// reads it has to check that it ends with a footer, as every reader of the format does.
#[derive(Debug)]
pub struct PipeWriter {
    file: File,
    /// A reader at the other end decides how fast it goes.
    is_pipe: bool,
    cancel: Cancel,
}

impl PipeWriter {
    /// Writes to standard output.
    pub fn stdout(cancel: Cancel) -> Result<Self> {
        let failed = |cause| Error::io("cannot write to standard output", cause);
        let file = File::from(duplicate(std::io::stdout().as_fd()).map_err(failed)?);
        if is_stand_in(&file).map_err(failed)? {
            return Err(Error::new(
                ErrorKind::Io,
                "standard output is closed, or is /dev/null opened for reading and writing: the archive would be lost",
            ));
        }
        let kind = file.metadata().map_err(failed)?.file_type();
        Ok(Self { file, is_pipe: kind.is_fifo() || kind.is_socket(), cancel })
    }
}

impl ObjectWriter for PipeWriter {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let failed =
            |cause| Error::io("cannot write the archive", cause).at("path", "standard output");
        let mut rest = bytes;
        while !rest.is_empty() {
            self.cancel.check()?;
            wait(&self.file, PollFlags::OUT, &self.cancel).map_err(failed)?;
            self.cancel.check()?;
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

/// Waits until `file` is ready, has failed or ended, or somebody cancels.
fn wait(file: &File, flags: PollFlags, cancel: &Cancel) -> std::io::Result<()> {
    let patience = Timespec { tv_sec: 0, tv_nsec: PATIENCE.subsec_nanos().into() };
    loop {
        // Whoever called asks again whether it was cancelled.
        if cancel.is_cancelled() {
            return Ok(());
        }
        match poll(&mut [PollFd::new(file, flags)], Some(&patience)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(cause) => return Err(cause.into()),
        }
    }
}
