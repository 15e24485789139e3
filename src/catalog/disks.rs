//! Plain disks that are to become an image.

use std::path::PathBuf;
use std::sync::Arc;

use super::ImageSource;
use crate::base::{DeviceName, Error, ImageId, Result};
use crate::block::{BlockSource, RawFileSource};
use crate::model::{DiskDraft, ImageDocument, ImageDraft};

/// Raw images or block devices, and metadata made for them.
pub struct PlainDisks {
    document: ImageDocument,
    volumes: Vec<Arc<dyn BlockSource>>,
}

/// What is said of the image; the disks say the rest.
#[derive(Clone, Debug)]
pub struct PlainImage {
    /// See [`ImageDraft::name`].
    pub name: String,
    /// See [`ImageDraft::image_id`].
    pub image_id: Option<ImageId>,
    /// See [`ImageDraft::description`].
    pub description: Option<String>,
    /// See [`ImageDraft::architecture`].
    pub architecture: String,
    /// See [`ImageDraft::boot_mode`].
    pub boot_mode: Option<String>,
    /// See [`ImageDraft::tags`].
    pub tags: Vec<(String, String)>,
}

impl PlainDisks {
    /// Opens the disks, the root device first, and makes the metadata.
    pub fn open(image: PlainImage, disks: &[(DeviceName, PathBuf)]) -> Result<Self> {
        let mut volumes: Vec<Arc<dyn BlockSource>> = Vec::new();
        let mut drafts = Vec::new();
        for (device, path) in disks {
            let source = RawFileSource::open(path)?;
            if let Some(format) = source.foreign_format() {
                return Err(Error::unsupported("the disk image is not raw").at("path", path.display()).at("format", format));
            }
            drafts.push(DiskDraft { device: device.clone(), size: source.size() });
            volumes.push(Arc::new(source));
        }
        let PlainImage { name, image_id, description, architecture, boot_mode, tags } = image;
        let document = ImageDraft { name, image_id, description, architecture, boot_mode, tags, disks: drafts }.build()?;
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
