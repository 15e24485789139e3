//! The program, and the file systems of its tests.

use std::path::PathBuf;
use std::process::Command;

use super::cli::remove_settings;
use super::tools::memory_file_system;

/// The program without arguments, in a clean environment, with a state directory of the tests.
pub fn amistore() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_amistore"));
    remove_settings(&mut command);
    command.env("AMISTORE_STATE", concat!(env!("CARGO_TARGET_TMPDIR"), "/state"));
    command
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
