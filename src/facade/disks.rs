//! An image of plain disks.

use std::path::PathBuf;

use super::Image;
use crate::base::{DeviceName, ImageId, Result};
use crate::image::{ImageDraft, PlainDisks, Salvaged};
use crate::volume::DiskFormats;

/// Raw disk images or block devices that are stored as one image.
///
/// ```
/// # use amistore::{Disks, Result};
/// # fn main() -> Result<()> {
/// # let directory = tempfile::tempdir().expect("a directory");
/// # let path = directory.path().join("root.raw");
/// # std::fs::write(&path, vec![7; 1 << 20]).expect("a disk");
/// let image = Disks::named("web server")
///     .architecture("arm64")
///     .tag("Team", "storage")
///     .disk("/dev/xvda", path)
///     .open()?;
/// assert!(image.document().archive_name().starts_with("ami-"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Disks {
    name: String,
    image_id: Option<String>,
    description: Option<String>,
    architecture: String,
    boot_mode: Option<String>,
    tags: Vec<(String, String)>,
    disks: Vec<(String, PathBuf)>,
    formats: DiskFormats,
}

impl Disks {
    /// An image of this AMI name (3 to 128 characters) without disks.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            image_id: None,
            description: None,
            architecture: "x86_64".to_owned(),
            boot_mode: None,
            tags: Vec::new(),
            disks: Vec::new(),
            formats: DiskFormats::RawOnly,
        }
    }

    /// Adds a disk, the root device first: its device name, such as `/dev/xvda`, and the raw image
    /// or block device.
    pub fn disk(mut self, device: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        self.disks.push((device.into(), path.into()));
        self
    }

    /// The image id, such as `ami-0123456789abcdef0`. By default it is derived from the attributes
    /// and the sizes of the disks.
    pub fn image_id(mut self, id: impl Into<String>) -> Self {
        self.image_id = Some(id.into());
        self
    }

    /// The description.
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// `x86_64`, the default, or another architecture of EC2.
    pub fn architecture(mut self, architecture: impl Into<String>) -> Self {
        self.architecture = architecture.into();
        self
    }

    /// `legacy-bios`, `uefi` or `uefi-preferred`. By default that of the instance type.
    pub fn boot_mode(mut self, mode: impl Into<String>) -> Self {
        self.boot_mode = Some(mode.into());
        self
    }

    /// Adds a tag.
    pub fn tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.push((key.into(), value.into()));
        self
    }

    /// Takes the disk images as they are, also those that look like another format than raw.
    pub fn as_raw(mut self) -> Self {
        self.formats = DiskFormats::AsRaw;
        self
    }

    /// Opens the disks. An error of kind [`Usage`](crate::base::ErrorKind::Usage) for invalid
    /// attributes, of kind [`Unsupported`](crate::base::ErrorKind::Unsupported) for disk images
    /// that are not raw, unless [`as_raw`](Self::as_raw) is set.
    pub fn open(self) -> Result<Image> {
        let draft = ImageDraft {
            name: self.name,
            image_id: self.image_id.as_deref().map(ImageId::parse).transpose()?,
            description: self.description,
            architecture: self.architecture,
            boot_mode: self.boot_mode,
            tags: self.tags,
        };
        let parsed = |(device, path): (String, PathBuf)| Ok((DeviceName::parse(&device)?, path));
        let disks = self.disks.into_iter().map(parsed).collect::<Result<Vec<_>>>()?;
        Ok(Image::new(PlainDisks::open(&draft, &disks, self.formats, Salvaged::Refused)?))
    }
}
