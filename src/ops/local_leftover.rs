//! Leftovers of killed work on local files: partial volumes and partial files.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

#[cfg(feature = "server")]
use crate::base::TaskKind;
use crate::base::{Error, Result};
use crate::image::ImageDirectoryWriter;
use crate::localfs::LeftPartial;
#[cfg(feature = "server")]
use crate::localfs::PartialFile;

/// A leftover of killed work on local files.
pub(super) enum LocalLeftover {
    /// An image directory with partial volumes, or with volumes that have no `image.json`.
    Volumes(PathBuf),
    /// The partial file of an archive or disk image.
    File(LeftPartial),
}

impl LocalLeftover {
    /// The leftover of a run with this target. `None` if there is none, or a process works on the
    /// target.
    #[cfg(feature = "server")]
    pub(super) fn of_target(kind: TaskKind, target: &str) -> Result<Option<Self>> {
        let path = Path::new(target.strip_prefix("file://").unwrap_or(target));
        if !path.is_absolute() {
            return Ok(None);
        }
        if kind == TaskKind::Restore {
            let path = path.to_owned();
            return Ok(ImageDirectoryWriter::has_leftovers(&path)?.then_some(Self::Volumes(path)));
        }
        Ok(LeftPartial::find(&PartialFile::partial_path(path, None))?.map(Self::File))
    }

    /// The leftovers in a directory, except partial volumes with one of the `tags`: their task
    /// names them.
    pub(super) fn all_in(directory: &Path, tags: &[String]) -> Result<Vec<Self>> {
        if ImageDirectoryWriter::has_leftovers(directory)? {
            return Ok(vec![Self::Volumes(directory.to_owned())]);
        }
        let of_task = |left: &LeftPartial| {
            let name = left.path().as_os_str().as_encoded_bytes();
            tags.iter().any(|tag| name.ends_with(format!(".{tag}.partial").as_bytes()))
        };
        let found = LeftPartial::find_in(directory)?;
        Ok(found.into_iter().filter(|left| !of_task(left)).map(Self::File).collect())
    }

    pub(super) fn location(&self) -> String {
        match self {
            Self::Volumes(path) => path.display().to_string(),
            Self::File(left) => left.path().display().to_string(),
        }
    }

    /// The time of the last write.
    pub(super) fn modified(&self, directory: &Path) -> Result<SystemTime> {
        match self {
            Self::File(left) => Ok(left.modified()),
            Self::Volumes(_) => {
                std::fs::metadata(directory).and_then(|found| found.modified()).map_err(|cause| {
                    Error::io("cannot look at the directory", cause).at("path", directory.display())
                })
            }
        }
    }

    pub(super) fn remove(self) -> Result<()> {
        match self {
            Self::Volumes(path) => ImageDirectoryWriter::remove_leftovers(&path),
            Self::File(left) => left.remove(),
        }
    }
}
