//! Looks at paths before they are opened: an open of a named pipe waits for a writer, perhaps for
//! ever, and a path that cannot be looked up is neither present nor absent.

use std::fs::{self, DirBuilder, File, FileType, OpenOptions};
#[cfg(feature = "aws")]
use std::io::Read;
use std::io::{self, ErrorKind as IoKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use crate::base::{Error, Result};

/// An opened path.
#[derive(Debug)]
pub enum Opened {
    /// A regular file.
    Regular(File),
    /// A block device.
    BlockDevice(File),
    /// Neither of them, which was not opened: its kind, with an article.
    Other(&'static str),
}

/// Opens a regular file or block device for reading, and nothing else. It does not wait.
pub fn open_to_read(path: &Path) -> io::Result<Opened> {
    let found = fs::metadata(path)?.file_type();
    if let Some(other) = other_kind(found) {
        return Ok(Opened::Other(other));
    }
    // Another process may put a pipe in its place in between: the flag keeps the open from waiting,
    // and means nothing for files.
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(OFlags::NONBLOCK.bits() as i32);
    let file = options.open(path)?;
    let opened = file.metadata()?.file_type();
    Ok(match other_kind(opened) {
        Some(other) => Opened::Other(other),
        None if opened.is_file() => Opened::Regular(file),
        None => Opened::BlockDevice(file),
    })
}

/// Opens a block device for writing; `None` if the path is none, or does not exist. The open fails
/// if the device is mounted or otherwise in use.
pub fn open_device_to_write(path: &Path) -> io::Result<Option<File>> {
    match fs::metadata(path) {
        Ok(found) if found.file_type().is_block_device() => {}
        Ok(_) => return Ok(None),
        Err(cause) if cause.kind() == IoKind::NotFound => return Ok(None),
        Err(cause) => return Err(cause),
    }
    let mut options = OpenOptions::new();
    options.write(true).custom_flags((OFlags::EXCL | OFlags::NONBLOCK).bits() as i32);
    let file = options.open(path)?;
    Ok(Some(file)
        .filter(|file| file.metadata().is_ok_and(|opened| opened.file_type().is_block_device())))
}

/// Reads a short file whole: keys, certificates, passwords. `what` names it in errors. It is a
/// regular file, or an anonymous pipe, such as that of `<(command)` in a shell. Anything else, and
/// more than `limit` bytes, is a usage error.
#[cfg(feature = "aws")]
pub fn read_short(path: &Path, what: &str, limit: u64) -> Result<Vec<u8>> {
    let failed = |cause: io::Error| {
        Error::io(format!("cannot read the {what}"), cause).at("path", path.display())
    };
    let mut bytes = Vec::new();
    let file = match open_to_read(path).map_err(failed)? {
        Opened::Regular(file) => file,
        // Its open does not wait, and its end is known: the process that writes it has it open.
        Opened::Other(_) if is_anonymous_pipe(path) => File::open(path).map_err(failed)?,
        Opened::BlockDevice(_) => return Err(not_a_file(path, what, "a block device")),
        Opened::Other(kind) => return Err(not_a_file(path, what, kind)),
    };
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        let error = Error::usage(format!("the {what} is too long"));
        return Err(error.at("path", path.display()).at("limit", limit));
    }
    Ok(bytes)
}

/// Refuses a named pipe, whose open may wait, for files that a library opens. A path that does not
/// exist is allowed, and so is `/dev/null`.
#[cfg(feature = "aws")]
pub fn check_open(path: &Path, what: &str) -> Result<()> {
    let found = look_up(path, fs::metadata(path))?;
    let is_pipe = found.is_some_and(|found| found.file_type().is_fifo());
    if is_pipe && !is_anonymous_pipe(path) {
        return Err(not_a_file(path, what, "a named pipe"));
    }
    Ok(())
}

#[cfg(feature = "aws")]
fn not_a_file(path: &Path, what: &str, kind: &'static str) -> Error {
    Error::usage(format!("the {what} is read from a regular file, and this is none"))
        .at("path", path.display())
        .at("found", kind)
}

/// Whether the path leads to a pipe without a name: it is in the file system of pipes.
#[cfg(feature = "aws")]
fn is_anonymous_pipe(path: &Path) -> bool {
    const PIPEFS_MAGIC: u64 = 0x5049_5045;
    rustix::fs::statfs(path).is_ok_and(|found| found.f_type as u64 == PIPEFS_MAGIC)
}

/// Whether the path exists; a link counts, wherever it leads.
pub fn exists(path: &Path) -> Result<bool> {
    look_up(path, fs::symlink_metadata(path)).map(|found| found.is_some())
}

/// Whether the path is a directory, or a link to one.
pub fn is_directory(path: &Path) -> Result<bool> {
    let found = look_up(path, fs::metadata(path))?;
    Ok(found.is_some_and(|metadata| metadata.is_dir()))
}

/// Makes a directory that only its user may enter, and those above it, unless it exists.
pub fn make_private_directory(path: &Path) -> io::Result<()> {
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        // Also the answer where the look at an existing directory failed.
        Err(cause) if cause.kind() == IoKind::AlreadyExists => {
            if fs::metadata(path)?.is_dir() {
                Ok(())
            } else {
                Err(IoKind::NotADirectory.into())
            }
        }
        made => made,
    }
}

/// Metadata of a look-up; `None` for a path that does not exist.
fn look_up(path: &Path, found: io::Result<fs::Metadata>) -> Result<Option<fs::Metadata>> {
    match found {
        Ok(metadata) => Ok(Some(metadata)),
        Err(cause) if matches!(cause.kind(), IoKind::NotFound | IoKind::NotADirectory) => Ok(None),
        Err(cause) => {
            let message = "cannot find out whether the path exists";
            Err(Error::io(message, cause).at("path", path.display()))
        }
    }
}

fn other_kind(kind: FileType) -> Option<&'static str> {
    match kind {
        _ if kind.is_file() || kind.is_block_device() => None,
        _ if kind.is_dir() => Some("a directory"),
        _ if kind.is_fifo() => Some("a named pipe"),
        _ if kind.is_socket() => Some("a socket"),
        _ if kind.is_char_device() => Some("a character device"),
        _ => Some("a path of an unknown kind"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ErrorKind;

    #[test]
    fn a_named_pipe_is_named_and_not_waited_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let pipe = directory.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0)
            .expect("a pipe");
        assert!(matches!(open_to_read(&pipe), Ok(Opened::Other("a named pipe"))));
        assert!(matches!(open_to_read(directory.path()), Ok(Opened::Other("a directory"))));
        let file = directory.path().join("file");
        fs::write(&file, b"x").expect("writes");
        assert!(matches!(open_to_read(&file), Ok(Opened::Regular(_))));
    }

    #[cfg(feature = "aws")]
    #[test]
    fn a_short_file_is_a_regular_file_or_an_anonymous_pipe() {
        use std::io::Write;
        use std::os::fd::AsRawFd;
        let directory = tempfile::tempdir().expect("a directory");
        let (file, named) = (directory.path().join("file"), directory.path().join("named"));
        fs::write(&file, b"secret").expect("writes");
        assert_eq!(read_short(&file, "key", 6).expect("reads"), b"secret");
        assert_eq!(read_short(&file, "key", 5).expect_err("long").kind(), ErrorKind::Usage);
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &named, rustix::fs::FileType::Fifo, mode, 0)
            .expect("a pipe");
        for path in [named.as_path(), directory.path(), Path::new("/dev/null")] {
            let error = read_short(path, "key", 6).expect_err("no file");
            assert_eq!(error.kind(), ErrorKind::Usage, "{error:?}");
        }
        assert_eq!(check_open(&named, "key").expect_err("a pipe").kind(), ErrorKind::Usage);
        let missing = directory.path().join("missing");
        for path in [file.as_path(), &missing, Path::new("/dev/null"), directory.path()] {
            check_open(path, "key").expect("it does not wait");
        }
        let missing = read_short(&missing, "key", 6).expect_err("missing");
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        writer.write_all(b"piped").expect("writes");
        drop(writer);
        let path = Path::new("/dev/fd").join(reader.as_raw_fd().to_string());
        check_open(&path, "key").expect("it does not wait");
        assert_eq!(read_short(&path, "key", 6).expect("reads"), b"piped");
    }

    #[test]
    fn a_path_that_cannot_be_looked_up_is_neither_present_nor_absent() {
        let directory = tempfile::tempdir().expect("a directory");
        let [dangling, missing] = ["dangling", "missing"].map(|name| directory.path().join(name));
        std::os::unix::fs::symlink("nowhere", &dangling).expect("links");
        assert!(exists(&dangling).expect("looks") && !exists(&missing).expect("looks"));
        assert!(!is_directory(&dangling).expect("looks"));
        assert!(!exists(&dangling.join("below")).expect("looks"));
        assert!(is_directory(directory.path()).expect("looks"));
        let (private, file) = (directory.path().join("a/b"), directory.path().join("file"));
        make_private_directory(&private).expect("makes");
        make_private_directory(&private).expect("is there");
        fs::write(&file, b"x").expect("writes");
        let refused = make_private_directory(&file).expect_err("a file");
        assert_eq!(refused.kind(), IoKind::NotADirectory);
        let too_long = directory.path().join("x".repeat(300));
        assert_eq!(exists(&too_long).expect_err("no answer").kind(), ErrorKind::Io);
        assert_eq!(is_directory(&too_long).expect_err("no answer").kind(), ErrorKind::Io);
    }
}
