//! An image made from plain disks.

use std::path::PathBuf;
use std::sync::Arc;

use super::ImageSource;
use crate::base::{DeviceName, Result};
use crate::image::{DiskDraft, ImageDocument, ImageDraft, Salvaged};
use crate::volume::{BlockSource, DiskFormats, open_disk};

/// Disk images or block devices, and the metadata made for them.
pub struct PlainDisks {
    document: ImageDocument,
    volumes: Vec<Arc<dyn BlockSource>>,
}

impl PlainDisks {
    /// Opens the disks, the root device first, and makes the metadata.
    pub fn open(
        image: &ImageDraft,
        disks: &[(DeviceName, PathBuf)],
        formats: DiskFormats,
        salvaged: Salvaged,
    ) -> Result<Self> {
        let mut volumes: Vec<Arc<dyn BlockSource>> = Vec::new();
        let mut drafts = Vec::new();
        for (device, path) in disks {
            salvaged.check_disk(path)?;
            let source = open_disk(path, formats)?;
            drafts.push(DiskDraft { device: device.clone(), size: source.size() });
            volumes.push(source);
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
