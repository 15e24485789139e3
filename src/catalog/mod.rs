//! Ports to the places where images live: where an image comes from, and where it goes.
//!
//! It does not know archives.

mod disks;
mod image_directory;

use std::sync::Arc;

use crate::base::{Result, SnapshotId, VolumeSize};
use crate::block::{BlockSink, BlockSource};
use crate::model::ImageDocument;

pub use disks::PlainDisks;
pub use image_directory::{IMAGE_JSON, ImageDirectory, ImageDirectoryTarget, Leftovers};

/// An image that can be stored.
pub trait ImageSource: Send + Sync {
    /// Its metadata.
    fn document(&self) -> &ImageDocument;
    /// Its volumes, in the order of [`ImageDocument::snapshots`].
    fn volumes(&self) -> &[Arc<dyn BlockSource>];
}

/// A place where an image is being restored. Nothing stands under its final name before `commit`; dropped without, it vanishes.
pub trait ImageTarget: Send {
    /// Begins a volume of the image.
    fn create_volume(&mut self, id: &SnapshotId, size: VolumeSize) -> Result<Arc<dyn BlockSink>>;
    /// Makes the whole image visible, its metadata last. The sinks have been dropped by their users.
    fn commit(self: Box<Self>, document: &ImageDocument) -> Result<()>;
}
