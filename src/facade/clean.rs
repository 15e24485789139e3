//! The leftovers that are looked for.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::base::{Error, Result};
use crate::ops::{CleanOptions, StoreUrl};

/// Selects leftovers of interrupted work: those in the
/// [state directory](super::Options::state_directory), and, below a prefix, those of other
/// machines.
///
/// ```
/// use std::time::Duration;
///
/// use amistore::Clean;
///
/// let week = Duration::from_secs(7 * 86_400);
/// let selection = Clean::default().older_than(week).uploads_below("s3://bucket/prefix/").others();
/// # let _ = selection;
/// ```
#[derive(Clone, Debug, Default)]
pub struct Clean {
    older_than: Option<Duration>,
    uploads_below: Option<String>,
    files_in: Option<PathBuf>,
    others: bool,
}

impl Clean {
    /// Leaves out work that began later than this long ago.
    pub fn older_than(mut self, age: Duration) -> Self {
        self.older_than = Some(age);
        self
    }

    /// Looks for open uploads of `*.bin` below this bucket or prefix as well, such as
    /// `s3://bucket/prefix/`.
    pub fn uploads_below(mut self, url: impl Into<String>) -> Self {
        self.uploads_below = Some(url.into());
        self
    }

    /// Looks for partial files in this directory as well, which no record names.
    pub fn files_in(mut self, directory: impl Into<PathBuf>) -> Self {
        self.files_in = Some(directory.into());
        self
    }

    /// Removes those uploads and files, too: another machine may be working on the uploads.
    pub fn others(mut self) -> Self {
        self.others = true;
        self
    }

    pub(super) fn options(&self, abort: bool) -> Result<CleanOptions> {
        let uploads_below = match self.uploads_below.as_deref() {
            None => None,
            Some(url) => match StoreUrl::parse(url)? {
                StoreUrl::S3(location) => Some(location),
                StoreUrl::Store(_) | StoreUrl::Path(_) => {
                    return Err(Error::usage("uploads are looked for in buckets").at("url", url));
                }
            },
        };
        let began_before = self
            .older_than
            .map(|age| SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH));
        let (files_in, others) = (self.files_in.clone(), self.others);
        Ok(CleanOptions { began_before, uploads_below, files_in, abort, others })
    }
}
