//! Images that were rescued from a damaged archive: a directory of volumes, whole or partial, and
//! `salvage.json`, which marks it.
//!
//! The mark gets its name before the first volume and stays, so no moment shows a partial volume
//! without it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::directory::{CreatedDirectory, check_image_json, make_directory, remove_if_there};
use super::mark::SALVAGE_JSON;
use super::names::{DirectoryClaim, IMAGE_JSON};
use crate::base::{Error, Result, SnapshotId, VolumeSize};
use crate::image::ImageDocument;
use crate::localfs::{Durability, Overwrite, PartialFile, sync_directory};
use crate::volume::RawFileSink;

/// The tag of the partial `image.json` and `salvage.json`.
const DOCUMENT: &str = "document";

/// A directory that takes the volumes of a damaged archive. Its files have partial names until the
/// commit.
pub struct SalvageDirectory {
    path: PathBuf,
    overwrite: Overwrite,
    durability: Durability,
    volumes: BTreeMap<u16, Arc<RawFileSink>>,
    claim: DirectoryClaim,
    /// Declared last: the partial files go first, then the directory, if it is ours and empty.
    created: CreatedDirectory,
}

/// A rescued volume that gets its name.
#[derive(Clone, Debug)]
pub struct NamedVolume {
    /// Its index in the archive.
    pub index: u16,
    /// Its file name.
    pub file: String,
    /// Its size.
    pub size: VolumeSize,
}

impl SalvageDirectory {
    /// Begins to write into `path`, which is made if it does not exist (its parent has to). An
    /// image in it is an error of kind `Exists` unless it may be overwritten.
    pub fn create(path: &Path, overwrite: Overwrite, durability: Durability) -> Result<Self> {
        let created = make_directory(path)?;
        check_image_json(path, overwrite)?;
        let claim = DirectoryClaim::take(path, durability)?;
        let path = path.to_owned();
        Ok(Self { path, overwrite, durability, volumes: BTreeMap::new(), claim, created })
    }

    /// Begins the volume with this index; without a name it is called after its index.
    pub fn volume(
        &mut self,
        index: u16,
        name: Option<&SnapshotId>,
        size: Option<VolumeSize>,
    ) -> Result<Arc<RawFileSink>> {
        let file = name.map_or_else(|| unnamed(index), SnapshotId::file_name);
        let size = size.map_or_else(|| VolumeSize::new(512), Ok)?;
        let path = self.path.join(file);
        let sink = Arc::new(RawFileSink::create(&path, size, self.overwrite, self.durability)?);
        self.volumes.insert(index, sink.clone());
        Ok(sink)
    }

    /// Gives their names to `volumes`, to `image.json` if it was found, and, before them, to
    /// `salvage.json` with the content `mark`, unless the image is whole.
    pub fn commit(
        mut self,
        volumes: &[NamedVolume],
        document: Option<&ImageDocument>,
        mark: Option<&[u8]>,
    ) -> Result<()> {
        let mut sinks = Vec::new();
        for volume in volumes {
            let sink = self.volumes.remove(&volume.index).and_then(Arc::into_inner);
            let mut sink = sink.ok_or_else(|| {
                Error::internal("a volume is committed that was not begun, or is still written")
            })?;
            sink.resize(volume.size)?;
            sink.rename_to(self.path.join(&volume.file));
            sinks.push(sink);
        }
        self.volumes.clear();
        let mark = mark.map(|mark| self.file(SALVAGE_JSON, mark)).transpose()?;
        let json = document.map(|document| self.file(IMAGE_JSON, document.bytes())).transpose()?;
        // The slow step comes before the first name.
        sinks.iter().try_for_each(RawFileSink::sync)?;
        self.claim.record(None, &sinks)?;
        if self.overwrite == Overwrite::Yes {
            // The metadata of an old image must not stand beside these volumes.
            remove_if_there(&self.path.join(IMAGE_JSON))?;
        }
        let is_marked = mark.is_some();
        let named = mark
            .map_or(Ok(()), |mark| mark.rename().map(drop))
            .and_then(|()| self.sync_names())
            .and_then(|()| sinks.into_iter().try_for_each(RawFileSink::rename))
            .and_then(|()| json.map_or(Ok(()), |json| json.rename().map(drop)));
        if let Err(error) = named {
            if self.overwrite == Overwrite::No && self.claim.take_back().is_ok() && is_marked {
                // The error that brought us here is the one to report.
                let _ = remove_if_there(&self.path.join(SALVAGE_JSON));
            }
            return Err(error);
        }
        if !is_marked {
            remove_if_there(&self.path.join(SALVAGE_JSON))?;
        }
        let created = self.created.keep();
        self.sync_names()?;
        match created {
            Some(created) if self.durability == Durability::Synced => sync_directory(&created),
            _ => Ok(()),
        }
    }

    /// A file with its whole content, which is on disk.
    fn file(&self, name: &str, content: &[u8]) -> Result<PartialFile> {
        let path = self.path.join(name);
        let file =
            PartialFile::create_tagged(&path, Some(DOCUMENT), self.overwrite, self.durability)?;
        file.file().write_all(content).map_err(|cause| {
            Error::io("cannot write the file", cause).at("path", path.display())
        })?;
        file.sync()?;
        Ok(file)
    }

    fn sync_names(&self) -> Result<()> {
        match self.durability {
            Durability::Synced => sync_directory(&self.path.join(IMAGE_JSON)),
            Durability::Cached => Ok(()),
        }
    }
}

/// The file name of a volume whose snapshot is not known.
pub fn unnamed(index: u16) -> String {
    format!("volume-{index}.raw")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::mark::Salvaged;
    use super::*;
    use crate::base::{ErrorCode, ErrorKind};

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("lists");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("an entry").file_name().display().to_string())
            .collect();
        names.sort();
        names
    }

    fn begun(path: &Path) -> SalvageDirectory {
        let mut directory =
            SalvageDirectory::create(path, Overwrite::No, Durability::Cached).expect("begins");
        directory.volume(0, None, None).expect("a volume");
        directory
    }

    #[test]
    fn nothing_has_a_final_name_before_the_commit_and_the_mark_is_there_after_it() {
        let parent = tempfile::tempdir().expect("a directory");
        let path = parent.path().join("out");
        drop(begun(&path));
        assert_eq!(names(parent.path()), [""; 0]);
        let size = VolumeSize::new(1 << 20).expect("a size");
        let volume = NamedVolume { index: 0, file: "snap-1.raw".to_owned(), size };
        begun(&path).commit(&[volume], None, Some(b"{}")).expect("commits");
        assert_eq!(names(&path), ["salvage.json", "snap-1.raw"]);
        assert_eq!(fs::metadata(path.join("snap-1.raw")).expect("a file").len(), 1 << 20);
        let refused = Salvaged::Refused.check_directory(&path).expect_err("marked");
        assert!(refused.is(ErrorCode::SalvagedImage));
        assert!(Salvaged::Refused.check_disk(&path.join("snap-1.raw")).is_err());
        Salvaged::Allowed.check_directory(&path).expect("allowed");
        let again = SalvageDirectory::create(&path, Overwrite::No, Durability::Cached).err();
        assert_eq!(again.expect("it holds volumes").kind(), ErrorKind::Exists);
    }

    #[test]
    fn a_name_that_is_taken_meanwhile_takes_all_names_back() {
        let parent = tempfile::tempdir().expect("a directory");
        let path = parent.path().join("out");
        let mut directory = begun(&path);
        directory.volume(1, None, None).expect("a volume");
        fs::write(path.join("volume-1.raw"), b"theirs").expect("writes");
        let size = VolumeSize::new(512).expect("a size");
        let volumes = [0, 1].map(|index| NamedVolume { index, file: unnamed(index), size });
        let error = directory.commit(&volumes, None, Some(b"{}")).expect_err("a name is taken");
        assert_eq!(error.kind(), ErrorKind::Exists);
        assert_eq!(names(&path), ["volume-1.raw"]);
        assert_eq!(fs::read(path.join("volume-1.raw")).expect("reads"), b"theirs");
    }
}
