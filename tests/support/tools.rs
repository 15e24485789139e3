//! Stock tools.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs a command that has to succeed, and returns its standard output.
pub fn succeed(command: &mut Command) -> Vec<u8> {
    let output: Output = command.output().unwrap_or_else(|cause| panic!("{command:?}: {cause}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Whether a tool is installed. With `AMISTORE_REQUIRE_TOOLS=1` a missing tool is a failure;
/// otherwise the test prints that it was skipped.
pub fn has(tool: &str) -> bool {
    // Older releases of openssl know `version` alone.
    let found = ["--version", "version"].iter().any(|argument| {
        Command::new(tool).arg(argument).output().is_ok_and(|output| output.status.success())
    });
    assert!(
        found || std::env::var_os("AMISTORE_REQUIRE_TOOLS").is_none(),
        "{tool} is not installed"
    );
    if !found {
        eprintln!("{tool} is not installed: nothing is tested with it");
    }
    found
}

/// A file system in memory, which takes files of 64 TiB.
pub fn memory_file_system() -> Option<PathBuf> {
    let directory = Path::new("/dev/shm");
    directory.is_dir().then(|| directory.to_owned())
}
