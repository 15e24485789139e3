//! Options of all use cases.

use std::path::PathBuf;
use std::sync::Arc;

#[cfg(feature = "aws")]
use crate::aws::{Access, Session};
use crate::base::{Cancel, Error, NullObserver, Observer, Result};
use crate::checkpoint::StateDirectory;
use crate::engine::{Context, DEFAULT_MEMORY, Incoming, MemoryUses, Resources};
use crate::localfs::{Durability, Overwrite};
use crate::ops::{Resumption, StoreOptions};
use crate::volume::DiskFormats;

/// Options of every operation. The defaults are those of the command line: all processors, 256 MiB
/// of memory, level 1, nothing is replaced, written data is synced to disk.
///
/// ```
/// use amistore::{Cancel, Options};
///
/// let cancel = Cancel::new();
/// let options = Options::default().threads(2).memory(128 << 20).level(3).cancel(&cancel);
/// # let _ = options;
/// ```
#[derive(Clone)]
pub struct Options {
    resources: Resources,
    level: i32,
    pub(super) overwrite: Overwrite,
    pub(super) durability: Durability,
    pub(super) formats: DiskFormats,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) cancel: Cancel,
    state: Option<PathBuf>,
    #[cfg(feature = "aws")]
    pub(super) access: Access,
}

impl Default for Options {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            resources: Resources { threads, memory: DEFAULT_MEMORY },
            level: 1,
            overwrite: Overwrite::No,
            durability: Durability::Synced,
            formats: DiskFormats::RawOnly,
            observer: Arc::new(NullObserver),
            cancel: Cancel::new(),
            state: None,
            #[cfg(feature = "aws")]
            access: Access::default(),
        }
    }
}

impl Options {
    /// Threads that compute, at most; at least 1.
    pub fn threads(mut self, threads: usize) -> Self {
        self.resources.threads = threads.max(1);
        self
    }

    /// Bytes of memory, at most. An operation that needs more fails at its start, with an error of
    /// kind [`Limit`](crate::base::ErrorKind::Limit) that names the least memory it needs.
    pub fn memory(mut self, bytes: u64) -> Self {
        self.resources.memory = bytes;
        self
    }

    /// Compression level, 1 (fast) to 19 (small).
    pub fn level(mut self, level: i32) -> Self {
        self.level = level;
        self
    }

    /// Replaces existing archives, directories and files. Without it they are an error of kind
    /// [`Exists`](crate::base::ErrorKind::Exists).
    pub fn overwrite(mut self) -> Self {
        self.overwrite = Overwrite::Yes;
        self
    }

    /// Takes disk images in an image directory as they are, also those that look like another
    /// format than raw.
    pub fn as_raw(mut self) -> Self {
        self.formats = DiskFormats::AsRaw;
        self
    }

    /// Leaves it to the system when written files reach the disk. An operation then ends earlier,
    /// and a power failure can take its result.
    pub fn no_sync(mut self) -> Self {
        self.durability = Durability::Cached;
        self
    }

    /// Sends the events of an operation to `observer`.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Ends operations when `cancel` is cancelled, with an error of kind
    /// [`Interrupted`](crate::base::ErrorKind::Interrupted).
    pub fn cancel(mut self, cancel: &Cancel) -> Self {
        self.cancel = cancel.clone();
        self
    }

    /// Keeps task files in `directory`: after an error, the same operation on the same target
    /// continues. For targets in AWS; what goes to files begins anew.
    pub fn state_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.state = Some(directory.into());
        self
    }

    /// Region, profile, endpoint and credentials of requests to AWS. By default those of the
    /// environment and the configuration files.
    #[cfg(feature = "aws")]
    pub fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// The state directory; an error of kind `Usage` if none is set.
    pub(super) fn state(&self) -> Result<StateDirectory> {
        let directory = self.state.as_ref().map(StateDirectory::new);
        directory.ok_or_else(|| Error::usage("tasks are in a state directory: set one"))
    }

    pub(super) fn resources(&self) -> &Resources {
        &self.resources
    }

    pub(super) fn store_options(&self) -> StoreOptions {
        StoreOptions { level: self.level, overwrite: self.overwrite, ..StoreOptions::default() }
    }

    /// Calls `run` with the context of an operation that reads an archive, and `incoming` data.
    pub(super) fn with_context<T>(
        &self,
        incoming: Incoming,
        run: impl FnOnce(Context<'_>) -> Result<T>,
    ) -> Result<T> {
        let uses = MemoryUses { incoming, ..MemoryUses::default() };
        let memory = self.resources.split(&uses)?;
        run(Context { plan: &memory.plan, observer: self.observer.as_ref(), cancel: &self.cancel })
    }

    /// A resumption of work from `source` to `target`, if there is a state directory.
    pub(super) fn resumption(&self, source: String, target: String) -> Option<Resumption> {
        let directory = StateDirectory::new(self.state.as_ref()?);
        Some(Resumption {
            directory,
            command: Vec::new(),
            working_directory: String::new(),
            source,
            target,
            restart: false,
        })
    }

    #[cfg(feature = "aws")]
    pub(super) fn session(&self) -> Session {
        Session::new(self.observer.clone(), self.cancel.clone())
    }
}
