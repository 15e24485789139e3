//! The mark of an image that was rescued from a damaged archive: `salvage.json` in its directory,
//! or `FILE.salvage.json` beside a volume.

use std::path::{Path, PathBuf};

use crate::base::{Error, ErrorCode, ErrorKind, Result};
use crate::localfs::{Overwrite, exists};

/// The mark of a directory with volumes that were rescued: lists what is missing.
pub const SALVAGE_JSON: &str = "salvage.json";

/// Whether an image that was rescued from a damaged archive may be stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Salvaged {
    /// It is an error with the code `SalvagedImage`.
    #[default]
    Refused,
    /// It is stored as it is.
    Allowed,
}

/// The mark of a single volume: `FILE.salvage.json` beside `FILE`.
pub fn mark_of(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(SALVAGE_JSON);
    file.with_file_name(name)
}

impl Salvaged {
    /// Refuses a directory that is marked.
    pub(super) fn check_directory(self, directory: &Path) -> Result<()> {
        self.check_mark(&directory.join(SALVAGE_JSON))
    }

    /// Refuses a disk that is marked, or that lies in a directory that is.
    pub(super) fn check_disk(self, disk: &Path) -> Result<()> {
        self.check_mark(&mark_of(disk))?;
        self.check_mark(&disk.with_file_name(SALVAGE_JSON))
    }

    fn check_mark(self, mark: &Path) -> Result<()> {
        if self == Self::Refused && exists(mark)? {
            return Err(Error::usage(
                "this image was rescued from a damaged archive: blocks of it may be missing",
            )
            .code_as(ErrorCode::SalvagedImage)
            .at("path", mark.display()));
        }
        Ok(())
    }
}

/// Refuses to replace a marked directory unless it may be overwritten.
pub(super) fn check_salvage_json(directory: &Path, overwrite: Overwrite) -> Result<()> {
    let mark = directory.join(SALVAGE_JSON);
    if overwrite == Overwrite::No && exists(&mark)? {
        return Err(Error::new(
            ErrorKind::Exists,
            "the directory holds volumes of a damaged archive already",
        )
        .at("path", mark.display()));
    }
    Ok(())
}
