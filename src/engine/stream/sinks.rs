//! The port for the content of a stream.

use std::sync::Arc;

use crate::base::{Result, SnapshotId, VolumeSize};
use crate::image::ImageDocument;
use crate::volume::BlockSink;

/// Takes the content of a stream.
pub trait StreamSinks: Send {
    /// The metadata, which comes first.
    fn begin(&mut self, document: &ImageDocument) -> Result<()>;
    /// The next volume; without a sink it is only checked.
    fn volume(&mut self, id: &SnapshotId, size: VolumeSize) -> Result<Option<Arc<dyn BlockSink>>>;
}

/// Takes nothing: the stream is only checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSinks;

impl StreamSinks for NoSinks {
    fn begin(&mut self, _document: &ImageDocument) -> Result<()> {
        Ok(())
    }

    fn volume(
        &mut self,
        _id: &SnapshotId,
        _size: VolumeSize,
    ) -> Result<Option<Arc<dyn BlockSink>>> {
        Ok(None)
    }
}
