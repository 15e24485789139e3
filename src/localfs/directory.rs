//! Directories that files are created in.

use std::io::ErrorKind as IoKind;
use std::path::Path;

use crate::base::{Error, ErrorCode, Result};

/// Checks that the directory of a new file exists. An empty path is the working directory.
pub fn check_directory(directory: &Path) -> Result<()> {
    let current = directory.as_os_str().is_empty();
    let error = match std::fs::metadata(if current { Path::new(".") } else { directory }) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => Error::usage("the directory of the target is not a directory"),
        Err(cause) if cause.kind() == IoKind::NotFound => {
            Error::io("the directory of the target does not exist", cause)
                .code_as(ErrorCode::NoParentDirectory)
        }
        Err(cause) => Error::io("cannot look up the directory of the target", cause),
    };
    Err(error.at("directory", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ErrorKind;

    #[test]
    fn only_a_directory_can_get_files() {
        let root = tempfile::tempdir().expect("a directory");
        let file = root.path().join("file");
        std::fs::write(&file, b"x").expect("writes");
        assert!(check_directory(root.path()).is_ok());
        assert!(check_directory(Path::new("")).is_ok(), "the working directory");
        assert_eq!(check_directory(&file).expect_err("a file").kind(), ErrorKind::Usage);
        let missing = check_directory(&root.path().join("none")).expect_err("nothing");
        assert!(missing.is(ErrorCode::NoParentDirectory));
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        // A component of the path is a file: this is not the same as a missing directory.
        let below = check_directory(&file.join("below")).expect_err("below a file");
        assert!(!below.is(ErrorCode::NoParentDirectory), "{below:?}");
    }
}
