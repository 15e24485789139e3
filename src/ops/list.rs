//! Lists the archives of a directory with the metadata of their images.

use std::path::Path;
use std::sync::Arc;

use super::store::image_metadata;
use crate::base::Result;
use crate::engine::Archive;
use crate::localfs::Durability;
use crate::object::{DirectoryStore, FileReader, Listed, ObjectStore};

/// Lists the archives of a directory, ascending by name. A store has the metadata of an image
/// beside the object; a directory has not, so it is read from the archive. An archive that cannot
/// be read is listed without metadata.
pub fn list_directory(directory: &Path, found: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
    DirectoryStore::new(directory, Durability::Cached).list("", &mut |listed| {
        let metadata = FileReader::open(&directory.join(&listed.key))
            .and_then(|reader| Archive::open(Arc::new(reader)))
            .map(|archive| {
                let mut metadata = image_metadata(archive.document());
                // The time of the store is that of the file, which is listed.
                metadata.remove("ami-store-date");
                metadata
            });
        found(Listed { metadata: metadata.unwrap_or_default(), ..listed })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ErrorKind;

    #[test]
    fn a_file_that_is_no_archive_is_listed_without_metadata() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("b.bin"), b"no archive").expect("writes");
        std::fs::write(directory.path().join("notes.txt"), b"no name of one").expect("writes");
        let mut names = Vec::new();
        list_directory(directory.path(), &mut |listed| {
            assert!(listed.metadata.is_empty());
            names.push((listed.key, listed.len));
            Ok(())
        })
        .expect("a list");
        assert_eq!(names, [("b.bin".to_owned(), 10)]);
        let error = list_directory(&directory.path().join("none"), &mut |_| Ok(()))
            .expect_err("no directory");
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
