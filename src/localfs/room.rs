//! Free space of file systems.

use std::path::Path;

/// Bytes that an unprivileged process may still write to the file system of `path`, or, if `path`
/// does not exist, to that of the closest directory above it. `None` if the file system does not
/// report it.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let there = path
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or_else(|| Path::new(if path.is_absolute() { "/" } else { "." }));
    let stat = rustix::fs::statvfs(there).ok()?;
    (stat.f_blocks > 0).then(|| stat.f_bavail.saturating_mul(stat.f_frsize))
}
