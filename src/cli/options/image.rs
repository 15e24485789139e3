//! Options of an image that is made of plain disks.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::Args;

use super::values::{pair, tags};
use crate::base::{DeviceName, Error, ImageId, Result};
use crate::image::ImageDraft;

/// Devices and the files behind them, the root device first.
pub(in super::super) type Disks = Vec<(DeviceName, PathBuf)>;

#[derive(Debug, Args)]
#[command(next_help_heading = "Image from plain disks")]
pub(in super::super) struct ImageArgs {
    /// A raw disk image or block device, and the device name it gets; the first is the root device
    #[arg(long, value_name = "DEVICE=FILE")]
    pub(in super::super) disk: Vec<OsString>,
    /// AMI name, 3 to 128 characters [default: that of SOURCE; needed with --disk]
    #[arg(long)]
    pub(in super::super) name: Option<String>,
    /// AMI description
    #[arg(long, requires = "disk")]
    description: Option<String>,
    /// AMI id [default: derived from these options and the sizes of the disks]
    #[arg(long, value_name = "ID", requires = "disk")]
    pub(in super::super) image_id: Option<String>,
    /// Processor architecture
    #[arg(
        long,
        value_name = "ARCH",
        default_value = "x86_64",
        requires = "disk",
        value_parser = ["x86_64", "arm64", "i386", "x86_64_mac", "arm64_mac"]
    )]
    architecture: String,
    /// Boot mode [default: that of the instance type]
    #[arg(
        long,
        value_name = "MODE",
        requires = "disk",
        value_parser = ["legacy-bios", "uefi", "uefi-preferred"]
    )]
    boot_mode: Option<String>,
    /// Tag of the image; may be repeated
    #[arg(long, value_name = "KEY=VALUE", requires = "disk")]
    tag: Vec<String>,
}

impl ImageArgs {
    /// The attributes of the image and its disks; `None` without disks.
    pub(in super::super) fn plain_image(&self) -> Result<Option<(ImageDraft, Disks)>> {
        if self.disk.is_empty() {
            return Ok(None);
        }
        let mut disks = Vec::new();
        for disk in &self.disk {
            let (device, path) = device_and_file(disk)?;
            disks.push((DeviceName::parse(&device)?, path));
        }
        let tags = tags(&self.tag, "--tag")?;
        let name = self
            .name
            .clone()
            .ok_or_else(|| Error::usage("an image made of plain disks needs a --name"))?;
        let image = ImageDraft {
            name,
            image_id: self.image_id.as_deref().map(ImageId::parse).transpose()?,
            description: self.description.clone(),
            architecture: self.architecture.clone(),
            boot_mode: self.boot_mode.clone(),
            tags,
        };
        Ok(Some((image, disks)))
    }
}

/// The parts of `DEVICE=FILE`. The path of the file need not be UTF-8.
fn device_and_file(disk: &OsStr) -> Result<(String, PathBuf)> {
    if disk.to_str().is_none()
        && let Some(at) = disk.as_bytes().iter().position(|byte| *byte == b'=')
    {
        let (device, path) = disk.as_bytes().split_at(at);
        let device = String::from_utf8_lossy(device).into_owned();
        return Ok((device, OsStr::from_bytes(&path[1..]).into()));
    }
    let form = "DEVICE=FILE, such as /dev/xvda=root.raw";
    pair(&disk.to_string_lossy(), "--disk", form).map(|(device, path)| (device, path.into()))
}
