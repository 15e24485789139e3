//! An image made from plain disks.

use std::path::PathBuf;
use std::sync::Arc;

use super::ImageSource;
use crate::base::{DeviceName, Error, ErrorCode, Result};
use crate::image::{DiskDraft, ImageDocument, ImageDraft};
use crate::volume::{BlockSource, RawFileSource};

/// Raw images or block devices, and the metadata made for them.
pub struct PlainDisks {
    document: ImageDocument,
    volumes: Vec<Arc<dyn BlockSource>>,
}

impl PlainDisks {
    /// Opens the disks, the root device first, and makes the metadata.
    pub fn open(image: &ImageDraft, disks: &[(DeviceName, PathBuf)]) -> Result<Self> {
        let mut volumes: Vec<Arc<dyn BlockSource>> = Vec::new();
        let mut drafts = Vec::new();
        for (device, path) in disks {
            let source = RawFileSource::open(path)?;
            if let Some(format) = source.foreign_format() {
                return Err(Error::unsupported("the disk image is not raw")
                    .code_as(ErrorCode::DiskImageNotRaw)
                    .at("path", path.display())
                    .at("format", format));
            }
            drafts.push(DiskDraft { device: device.clone(), size: source.size() });
            volumes.push(Arc::new(source));
        }
        let document = image.build(&drafts)?;
        Ok(Self { document, volumes })
    }
}

impl ImageSource for PlainDisks {
    fn document(&self) -> &ImageDocument {
        &self.document
    }

    fn volumes(&self) -> &[Arc<dyn BlockSource>] {
        &self.volumes
    }
}
