//! From arguments to plain types: everything that can be wrong with them is found here.

use std::path::{Path, PathBuf};

use super::args::{GlobalArgs, ImageArgs, WriteArgs};
use crate::base::{Cancel, DeviceName, Error, ErrorKind, ImageId, Result};
use crate::disk::{Durability, Overwrite};
use crate::engine::Plan;
use crate::model::ImageDraft;

/// What all commands share.
pub(super) struct Settings {
    pub(super) threads: usize,
    pub(super) memory: u64,
    pub(super) cancel: Cancel,
}

impl Settings {
    pub(super) fn new(args: &GlobalArgs) -> Result<Self> {
        let threads = match args.threads {
            Some(0) => return Err(Error::usage("--threads has to be at least 1")),
            Some(threads) => threads.min(1024),
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        let cancel = Cancel::new();
        super::interrupt::listen(&cancel)?;
        Ok(Self { threads, memory: parse_size(&args.memory)?, cancel })
    }

    pub(super) fn plan(&self, level: i32) -> Result<Plan> {
        Plan::new(self.threads, self.memory, level)
    }
}

/// Where an archive is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    Stdio,
    Path(PathBuf),
}

impl Place {
    pub(super) fn parse(path: &Path) -> Result<Self> {
        let text = path.to_string_lossy();
        if text == "-" {
            return Ok(Self::Stdio);
        }
        refuse_url(&text)?;
        Ok(Self::Path(path.to_owned()))
    }
}

/// Refuses what looks like a place in AWS, instead of making a file of that name.
pub(super) fn refuse_url(text: &str) -> Result<()> {
    if text.contains("://") {
        return Err(Error::new(ErrorKind::Unsupported, "this version works on local files and pipes only").at("place", text));
    }
    Ok(())
}

/// Refuses to replace one of the files that are read.
pub(super) fn refuse_same_file<'a>(target: &Path, sources: impl IntoIterator<Item = &'a Path>) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let identity = |path: &Path| std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
    let Some(own) = identity(target) else { return Ok(()) };
    match sources.into_iter().find(|source| identity(source) == Some(own)) {
        Some(source) => Err(Error::usage("the target is one of the sources, and would be lost")
            .at("path", target.display())
            .at("source", source.display())),
        None => Ok(()),
    }
}

/// Directory and name of an archive to be made: `path` is a file, or a directory that stands for `name` in it.
pub(super) fn archive_target(path: &Path, name: &str) -> (PathBuf, String) {
    let is_directory = path.is_dir() || path.to_string_lossy().ends_with('/');
    if is_directory {
        return (path.to_owned(), name.to_owned());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().map_or_else(|| name.to_owned(), |file| file.to_string_lossy().into_owned());
    (parent.to_owned(), name)
}

/// Devices and the files behind them, the root device first.
pub(super) type Disks = Vec<(DeviceName, PathBuf)>;

impl WriteArgs {
    pub(super) fn overwrite(&self) -> Overwrite {
        if self.force { Overwrite::Yes } else { Overwrite::No }
    }

    pub(super) fn durability(&self) -> Durability {
        if self.no_sync { Durability::Cached } else { Durability::Synced }
    }
}

impl ImageArgs {
    /// The disks and what is said of the image; `None` if there are no disks.
    pub(super) fn plain_image(&self) -> Result<Option<(ImageDraft, Disks)>> {
        if self.disk.is_empty() {
            return Ok(None);
        }
        let pair = |text: &str, flag: &str, form: &str| match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(Error::usage(format!("{flag} has to be {form}")).at("given", text)),
        };
        let mut disks = Vec::new();
        for disk in &self.disk {
            let (device, path) = pair(disk, "--disk", "DEVICE=FILE, such as /dev/xvda=root.raw")?;
            disks.push((DeviceName::parse(&device)?, PathBuf::from(path)));
        }
        let tags = self.tag.iter().map(|tag| pair(tag, "--tag", "KEY=VALUE")).collect::<Result<_>>()?;
        let name = self.name.clone().ok_or_else(|| Error::usage("an image made of plain disks needs a --name"))?;
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

/// A number of bytes: `268435456`, `256MiB`, `1G`. All units are binary.
pub(super) fn parse_size(text: &str) -> Result<u64> {
    let wrong = || Error::usage("not a size: use bytes or a number with KiB, MiB or GiB, such as 256MiB").at("given", text);
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err(wrong()),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift)).ok_or_else(wrong)
}

/// A share: `5%` or `5`; more than 0, at most 100.
pub(super) fn parse_percent(text: &str) -> Result<f64> {
    let number = text.strip_suffix('%').unwrap_or(text).parse::<f64>().ok();
    number
        .filter(|percent| *percent > 0.0 && *percent <= 100.0)
        .map(|percent| percent / 100.0)
        .ok_or_else(|| Error::usage("--sample has to be more than 0% and at most 100%").at("given", text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_shares_are_read_as_people_write_them() {
        for (text, bytes) in [("1024", 1024), ("64KiB", 65_536), ("256MiB", 256 << 20), ("1g", 1 << 30), ("2 GiB", 2 << 30)] {
            assert_eq!(parse_size(text).expect(text), bytes);
        }
        for bad in ["", "MiB", "-1", "1.5GiB", "1GB", "99999999999999999999"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_percent("5%").expect("a share"), 0.05);
        assert_eq!(parse_percent("100").expect("a share"), 1.0);
        for bad in ["0", "101%", "x", "-5%", "nan"] {
            assert!(parse_percent(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_directory_stands_for_the_archive_in_it() {
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(archive_target(directory.path(), "a.bin"), (directory.path().to_owned(), "a.bin".into()));
        assert_eq!(archive_target(Path::new("new/"), "a.bin"), (PathBuf::from("new/"), "a.bin".into()));
        assert_eq!(archive_target(Path::new("x.bin"), "a.bin"), (PathBuf::from("."), "x.bin".into()));
        assert_eq!(archive_target(Path::new("/d/x.bin"), "a.bin"), (PathBuf::from("/d"), "x.bin".into()));
    }

    #[test]
    fn a_source_is_not_replaced_by_what_is_made_of_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let (file, link) = (directory.path().join("a"), directory.path().join("b"));
        std::fs::write(&file, b"x").expect("writes");
        std::os::unix::fs::symlink(&file, &link).expect("links");
        assert!(refuse_same_file(&file, [link.as_path()]).is_err());
        assert!(refuse_same_file(&directory.path().join("new"), [file.as_path()]).is_ok());
    }

    #[test]
    fn places_in_aws_are_not_mistaken_for_files() {
        assert_eq!(Place::parse(Path::new("-")).expect("stdio"), Place::Stdio);
        assert_eq!(Place::parse(Path::new("s3://bucket/")).expect_err("refused").kind(), ErrorKind::Unsupported);
    }
}
