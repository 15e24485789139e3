//! Archive URLs: `s3://bucket/key`, the URL of another store, a file, or `-`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::aws::s3::S3Location;
use crate::base::{Error, ErrorKind, Result};
use crate::engine::Incoming;
use crate::localfs::is_directory;
use crate::ops::{StoreUrl, refuse_url};

/// The name of standard input in messages and tasks.
pub(in super::super) const STDIN: &str = "standard input";
/// The name of standard output in messages and tasks.
pub(in super::super) const STDOUT: &str = "standard output";

/// An archive, or a directory, bucket or prefix of archives.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) enum ArchiveUrl {
    /// Standard input or output.
    Stdio,
    /// A file or directory.
    Path(PathBuf),
    /// An object or a prefix in S3.
    S3(S3Location),
    /// A URL with a scheme of [`open_url`].
    Store(String),
}

impl ArchiveUrl {
    /// Parses an argument.
    pub(in super::super) fn parse(path: &Path) -> Result<Self> {
        let Some(text) = path.to_str() else {
            // The URL of a store is UTF-8; the path of a file need not be.
            refuse_url(&path.to_string_lossy())?;
            return Ok(Self::Path(path.to_owned()));
        };
        if text == "-" {
            return Ok(Self::Stdio);
        }
        Ok(match StoreUrl::parse(text)? {
            StoreUrl::S3(location) => Self::S3(location),
            StoreUrl::Store(url) => Self::Store(url),
            StoreUrl::Path(path) => Self::Path(path),
        })
    }

    /// The object in S3, if it is one.
    pub(in super::super) fn s3(&self) -> Option<&S3Location> {
        match self {
            Self::S3(location) => Some(location),
            Self::Path(_) | Self::Stdio | Self::Store(_) => None,
        }
    }

    /// The memory that reading the archive takes.
    pub(in super::super) fn incoming(&self) -> Incoming {
        if self.s3().is_some() { Incoming::Archive } else { Incoming::Local }
    }

    /// The URL of one archive: a directory, bucket or prefix stands for `name` in it.
    pub(in super::super) fn of_archive(self, name: &OsStr) -> Result<Self> {
        // Keys are UTF-8.
        let key = || {
            name.to_str().ok_or_else(|| {
                Error::usage("this file name is not UTF-8: name the object")
                    .at("file", name.display())
            })
        };
        Ok(match self {
            Self::Stdio => Self::Stdio,
            Self::Path(path) => Self::Path(archive_target(&path, name)?),
            Self::S3(location) if location.is_prefix() => Self::S3(location.object(key()?)),
            Self::S3(location) => Self::S3(location),
            Self::Store(url) if url.ends_with('/') => Self::Store(format!("{url}{}", key()?)),
            Self::Store(url) => Self::Store(url),
        })
    }

    /// True for the URL of one archive, false for that of a directory, bucket or prefix.
    pub(in super::super) fn names_archive(&self) -> Result<bool> {
        Ok(match self {
            Self::Stdio => true,
            Self::Path(path) => !is_directory_name(path)?,
            Self::S3(location) => !location.is_prefix(),
            Self::Store(url) => !url.ends_with('/'),
        })
    }

    /// The URL of the archive that a list of this store names `key`.
    pub(in super::super) fn of_key(&self, key: &str) -> String {
        match self {
            Self::Stdio => key.to_owned(),
            Self::Path(path) => path.join(key).display().to_string(),
            Self::S3(location) => {
                S3Location { key: key.to_owned(), ..location.clone() }.to_string()
            }
            Self::Store(url) => {
                let directory = url.rfind('/').map_or(url.as_str(), |end| &url[..=end]);
                format!("{directory}{key}")
            }
        }
    }

    /// The file name in it.
    pub(in super::super) fn file_name(&self) -> Option<OsString> {
        let path = match self {
            Self::Stdio => return None,
            Self::Path(path) => path,
            Self::S3(location) => Path::new(&location.key),
            Self::Store(url) => Path::new(url),
        };
        path.file_name().map(ToOwned::to_owned)
    }

    /// Its text in messages and tasks, as the source of bytes.
    pub(in super::super) fn source(&self) -> String {
        self.text(STDIN)
    }

    /// Its text in messages and tasks, as the target of bytes.
    pub(in super::super) fn target(&self) -> String {
        self.text(STDOUT)
    }

    /// Its text in the record of runs, which is read in any working directory.
    pub(in super::super) fn recorded_target(&self) -> String {
        match self {
            Self::Path(path) => {
                std::path::absolute(path).as_ref().unwrap_or(path).display().to_string()
            }
            Self::Stdio | Self::S3(_) | Self::Store(_) => self.target(),
        }
    }

    fn text(&self, stdio: &str) -> String {
        match self {
            Self::Stdio => stdio.to_owned(),
            Self::Path(path) => path.display().to_string(),
            Self::S3(location) => location.to_string(),
            Self::Store(url) => url.clone(),
        }
    }
}

/// Refuses to replace one of the files that are read.
pub(in super::super) fn refuse_same_file<'a>(
    target: &Path,
    sources: impl IntoIterator<Item = &'a Path>,
) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let identity = |path: &Path| match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some((metadata.dev(), metadata.ino()))),
        Err(cause) => match Error::io("cannot compare target and source", cause) {
            error if error.kind() == ErrorKind::NotFound => Ok(None),
            error => Err(error.at("path", path.display())),
        },
    };
    let Some(own) = identity(target)? else { return Ok(()) };
    for source in sources {
        if identity(source)? == Some(own) {
            return Err(Error::usage("the target is one of the sources, and would be lost")
                .at("path", target.display())
                .at("source", source.display()));
        }
    }
    Ok(())
}

/// The path of a new archive: `path` is a file, or a directory that stands for `name` in it.
pub(in super::super) fn archive_target(path: &Path, name: &OsStr) -> Result<PathBuf> {
    if is_directory_name(path)? {
        return Ok(path.join(name));
    }
    // Messages show a name without a directory as a path.
    let is_bare = path.parent().is_some_and(|parent| parent.as_os_str().is_empty());
    Ok(if is_bare { Path::new(".").join(path) } else { path.to_owned() })
}

/// Whether the path is a directory, or is written as one.
fn is_directory_name(path: &Path) -> Result<bool> {
    Ok(path.as_os_str().as_bytes().ends_with(b"/") || is_directory(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_stands_for_the_archive_in_it() {
        let directory = tempfile::tempdir().expect("a directory");
        for (path, archive) in [
            (directory.path(), directory.path().join("a.bin")),
            (Path::new("new/"), "new/a.bin".into()),
            (Path::new("x.bin"), "./x.bin".into()),
            (Path::new("/d/x.bin"), "/d/x.bin".into()),
        ] {
            assert_eq!(archive_target(path, OsStr::new("a.bin")).expect("a file"), archive);
        }
    }

    #[test]
    fn a_source_is_not_replaced_by_what_is_made_of_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let (file, alias) = (directory.path().join("a"), directory.path().join("b"));
        std::fs::write(&file, b"x").expect("writes");
        std::os::unix::fs::symlink(&file, &alias).expect("a symbolic link");
        assert!(refuse_same_file(&file, [alias.as_path()]).is_err());
        assert!(refuse_same_file(&directory.path().join("new"), [file.as_path()]).is_ok());
    }

    #[test]
    fn urls_are_not_mistaken_for_files() {
        let parse = |text: &str| ArchiveUrl::parse(Path::new(text));
        assert_eq!(parse("-").expect("stdio"), ArchiveUrl::Stdio);
        assert_eq!(parse("gs://bucket/").expect_err("refused").kind(), ErrorKind::Unsupported);
        assert!(matches!(parse("s3://bucket/"), Ok(ArchiveUrl::S3(_))));
        let below = parse("file:///archives/").expect("a URL").of_archive("a.bin".as_ref());
        assert_eq!(below.expect("a name"), ArchiveUrl::Store("file:///archives/a.bin".to_owned()));
        assert_eq!(parse("file://a.bin").expect_err("no absolute path").kind(), ErrorKind::Usage);
        for (broken, meant) in [
            ("s3:/bucket/a.bin", "s3://bucket/a.bin"),
            ("s3:bucket", "s3://bucket"),
            ("S3:/bucket", "s3://bucket"),
            ("file:/archives/", "file:///archives/"),
        ] {
            let error = parse(broken).expect_err(broken);
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert!(error.message().contains(&format!(" {meant} ")), "{error:?}");
        }
        assert!(matches!(parse("./s3:/bucket"), Ok(ArchiveUrl::Path(_))));
        assert_eq!(parse("s3://").expect_err("no bucket").kind(), ErrorKind::Usage);
    }

    #[test]
    fn a_prefix_does_not_name_an_archive() {
        let parsed = |text: &str| ArchiveUrl::parse(Path::new(text)).expect("a URL");
        let names = |text: &str| parsed(text).names_archive().expect("looks");
        assert!(["-", "a.bin", "s3://b/a.bin", "file:///d/a.bin"].into_iter().all(names));
        assert!(!["s3://b", "s3://b/p/", "file:///d/", "new/", "/"].into_iter().any(names));
    }
}
