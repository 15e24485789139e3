//! Runs the program and other people's tools.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The program, ready for arguments, deaf to the environment of whoever runs the tests.
pub fn amistore() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_amistore"));
    for variable in [
        "AMISTORE_OUTPUT",
        "AMISTORE_PROGRESS",
        "AMISTORE_MEMORY",
        "AMISTORE_THREADS",
        "AMISTORE_LEVEL",
    ] {
        command.env_remove(variable);
    }
    command
}

/// Runs a command that has to succeed, and gives its standard output.
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

/// Whether a tool is there. On a machine that is set up for it (`AMISTORE_REQUIRE_TOOLS=1`) a
/// missing one is a failure; elsewhere the test says that it did nothing.
pub fn has(tool: &str) -> bool {
    let found =
        Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success());
    assert!(
        found || std::env::var_os("AMISTORE_REQUIRE_TOOLS").is_none(),
        "{tool} is not installed"
    );
    if !found {
        eprintln!("{tool} is not installed: nothing is tested with it");
    }
    found
}

/// Directories on different file systems: the usual temporary one, one in memory, and those of
/// `AMISTORE_TEST_DIRS`.
pub fn file_systems() -> Vec<PathBuf> {
    let mut directories = vec![std::env::temp_dir()];
    directories.extend(memory_file_system());
    if let Some(more) = std::env::var_os("AMISTORE_TEST_DIRS") {
        directories.extend(std::env::split_paths(&more));
    }
    directories
}

/// A file system in memory, which takes files of 64 TiB.
pub fn memory_file_system() -> Option<PathBuf> {
    let directory = Path::new("/dev/shm");
    directory.is_dir().then(|| directory.to_owned())
}
