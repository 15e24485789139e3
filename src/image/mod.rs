//! The image as data, and the ports to its sources and destinations.
//!
//! An [`ImageDocument`] is `image.json` (`format-spec/image-json.md`); its bytes are kept as they
//! came, so that members unknown to this version are not lost. It does not know archives.

mod directory;
mod disks;
mod document;
mod draft;
mod json;

use std::sync::Arc;

use crate::base::{Result, SnapshotId, VolumeSize, hex};
use crate::checkpoint::{Earlier, SharedTask};
use crate::codec::sha256;
use crate::volume::{BlockSink, BlockSource};

pub use directory::{DirectoryPlace, IMAGE_JSON, ImageDirectory, ImageDirectoryTarget, Leftovers};
pub use disks::PlainDisks;
pub use document::{ImageDocument, Mapping, SnapshotEntry};
pub use draft::{DiskDraft, ImageDraft};

/// An image that can be stored.
pub trait ImageSource: Send + Sync {
    /// Its metadata.
    fn document(&self) -> &ImageDocument;
    /// Its volumes, in the order of [`ImageDocument::snapshots`].
    fn volumes(&self) -> &[Arc<dyn BlockSource>];

    /// What its metadata is known by: as long as that does not change, what was begun can be
    /// continued.
    fn fingerprint(&self) -> String {
        hex(&sha256::digest(self.document().bytes()))
    }

    /// What an archive with this metadata is to it.
    fn likeness(&self, archived: &ImageDocument) -> Likeness {
        if archived.bytes() == self.document().bytes() {
            Likeness::Metadata
        } else {
            Likeness::Different
        }
    }
}

/// How an image that was archived compares with one that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Likeness {
    /// It is another.
    Different,
    /// It is the same, and its metadata says something else here.
    Described(String),
    /// It is the same by its metadata. Its data may have changed.
    Metadata,
    /// It is the same, and its data cannot have changed.
    Whole,
}

/// A place where an image is being restored. Nothing stands under its final name before `commit`;
/// dropped without, it vanishes.
pub trait ImageTarget: Send {
    /// Begins a volume of the image.
    fn create_volume(&mut self, id: &SnapshotId, size: VolumeSize) -> Result<Arc<dyn BlockSink>>;
    /// How many volumes are best written side by side.
    fn lanes(&self) -> usize {
        1
    }

    /// Makes the whole image visible, its metadata last. The sinks have been dropped by their
    /// users.
    fn commit(self: Box<Self>, document: &ImageDocument) -> Result<()>;
}

/// A place where images can be restored to, and an interrupted restore can be continued.
pub trait ImagePlace: Sync {
    /// Begins a target. With a task it notes in it what it makes outside of this machine, takes up
    /// what an earlier run left, and leaves what a later one needs.
    fn begin(
        &self,
        document: &ImageDocument,
        task: Option<&SharedTask>,
    ) -> Result<Box<dyn ImageTarget>>;
    /// Whether the image of an interrupted restore is there, whole: its run was killed when all was
    /// done.
    fn is_there(&self, document: &ImageDocument) -> bool;
    /// Removes what a task left behind.
    fn clean(&self, earlier: &Earlier) -> Result<()>;
}
