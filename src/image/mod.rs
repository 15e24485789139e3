//! The image as data, and the ports to its sources and destinations.
//!
//! An [`ImageDocument`] is `image.json` (`format-spec/image-json.md`); its bytes are stored
//! verbatim, so members unknown to this version survive. An [`ImageSource`] provides the volumes
//! of an image, an [`ImageDestination`] receives them. The module does not know archives, nor
//! where the progress of a restore is recorded.

mod directory;
mod disks;
mod document;
mod draft;
mod json;
mod mark;
mod metadata;
mod names;
mod renamed;
mod restore;
mod salvaged;

use std::sync::Arc;

use crate::base::{Result, SnapshotId, VolumeSize, hex};
use crate::codec::sha256;
use crate::volume::{BlockSink, BlockSource};

pub use directory::{DirectoryDestination, ImageDirectory, ImageDirectoryWriter, Leftovers};
pub use disks::PlainDisks;
pub use document::{ImageDocument, Mapping, SnapshotEntry};
pub use draft::{DiskDraft, ImageDraft};
pub use mark::{SALVAGE_JSON, Salvaged, mark_of};
pub use metadata::changed_members;
pub use names::IMAGE_JSON;
pub use restore::{RestoreJournal, RestoreRecord, ResumableRestore, SnapshotBegun};
pub use salvaged::{NamedVolume, SalvageDirectory, unnamed};

/// An image that can be stored.
pub trait ImageSource: Send + Sync {
    /// Its metadata.
    fn document(&self) -> &ImageDocument;
    /// Its volumes, in the order of [`ImageDocument::snapshots`].
    fn volumes(&self) -> &[Arc<dyn BlockSource>];

    /// A text that identifies the image for a resumed store: while it is equal, an interrupted
    /// store can be continued. By default the SHA-256 of the metadata, in hex.
    fn fingerprint(&self) -> String {
        hex(&sha256::digest(self.document().bytes()))
    }

    /// Compares the image with the metadata of an archived one.
    fn compare(&self, archived: &ImageDocument) -> ImageMatch {
        let here = self.document();
        if archived.bytes() == here.bytes() {
            return ImageMatch::Same { changed: None, disks_are_fixed: false };
        }
        let snapshots = |document: &ImageDocument| {
            document.snapshots().iter().map(|snapshot| snapshot.id.clone()).collect::<Vec<_>>()
        };
        if archived.image_id() != here.image_id() || snapshots(archived) != snapshots(here) {
            return ImageMatch::Different;
        }
        let changed = Some(changed_members(archived, here, |_, _| true));
        ImageMatch::Same { changed, disks_are_fixed: false }
    }
}

/// Result of comparing an image with the metadata of an archived one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageMatch {
    /// Another image.
    Different,
    /// One image.
    Same {
        /// The names of the members of the metadata that differ, empty if only the form of the JSON
        /// does; `None` if the metadata is equal.
        changed: Option<Vec<String>>,
        /// Whether the disks cannot have changed: snapshots in EC2 never do.
        disks_are_fixed: bool,
    },
}

/// An image that is being restored. Nothing has its final name before `commit`; dropped without,
/// the image vanishes, except for what a [`ResumableRestore`] needs.
pub trait ImageWriter: Send {
    /// Begins a volume of the image.
    fn create_volume(&mut self, id: &SnapshotId, size: VolumeSize) -> Result<Arc<dyn BlockSink>>;
    /// The number of volumes to write in parallel for the best throughput.
    fn parallel_volumes(&self) -> usize {
        1
    }

    /// Makes the whole image visible, its metadata last. The sinks have been dropped by their
    /// users.
    fn commit(self: Box<Self>, document: &ImageDocument) -> Result<()>;
}

/// A destination of restores: a directory, or a Region of EC2.
pub trait ImageDestination: Sync {
    /// Begins a restore. With `resume` it reports each resource that it creates outside of this
    /// machine, continues the volumes of earlier runs, and on an error leaves what the next run
    /// needs.
    fn begin(
        &self,
        document: &ImageDocument,
        resume: Option<&ResumableRestore>,
    ) -> Result<Box<dyn ImageWriter>>;
    /// Whether the image of an interrupted restore is complete: its process was killed after the
    /// last step. Called when `begin` failed because the image exists.
    fn is_complete(&self, document: &ImageDocument, record: &RestoreRecord) -> bool;
    /// Removes the partial volumes of an interrupted restore.
    fn remove_partial(&self, record: &RestoreRecord) -> Result<()>;
}
