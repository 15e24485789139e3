//! From arguments to plain types: everything that can be wrong with them is found here.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::{Ec2Args, EditArgs, GlobalArgs, ImageArgs, WriteArgs};
use crate::aws::ec2::{DeviceChange, DeviceEdit, Edits};
use crate::aws::s3::S3Location;
use crate::base::{Cancel, DeviceName, Error, ErrorKind, ImageId, Result, check_image_name};
use crate::checkpoint::StateDirectory;
use crate::engine::{Incoming, MemoryUses, Plan, Resources};
use crate::image::ImageDraft;
use crate::localfs::{Durability, Overwrite};
use crate::object::{Located, open_url};
use crate::ops::VolumeRange;

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

    /// What work may take.
    pub(super) fn resources(&self) -> Resources {
        Resources { threads: self.threads, memory: self.memory }
    }

    /// Threads and memory of an operation that reads an archive.
    pub(super) fn reading_plan(&self, place: &Place) -> Result<Plan> {
        self.plan(if place.key().is_some() { Incoming::Archive } else { Incoming::Local })
    }

    /// Threads and memory of an operation that compares an archive with snapshots of EBS.
    pub(super) fn comparing_plan(&self, place: &Place) -> Result<Plan> {
        self.plan(if place.key().is_some() { Incoming::Both } else { Incoming::Blocks })
    }

    fn plan(&self, incoming: Incoming) -> Result<Plan> {
        let uses = MemoryUses { incoming, ..MemoryUses::default() };
        Ok(self.resources().split(&uses)?.plan)
    }
}

/// Where an archive is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    Stdio,
    Path(PathBuf),
    S3(S3Location),
    /// A URL with a scheme of [`open_url`].
    Url(String),
}

impl Place {
    pub(super) fn parse(path: &Path) -> Result<Self> {
        let text = path.to_string_lossy();
        if text == "-" {
            return Ok(Self::Stdio);
        }
        if let Some(place) = S3Location::parse(&text) {
            return place.map(Self::S3);
        }
        if let Some(located) = open_url(&text) {
            return located.map(|_| Self::Url(text.into_owned()));
        }
        refuse_url(&text)?;
        Ok(Self::Path(path.to_owned()))
    }

    /// The key in a bucket.
    pub(super) fn key(&self) -> Option<&str> {
        match self {
            Self::S3(place) => Some(&place.key),
            Self::Path(_) | Self::Stdio | Self::Url(_) => None,
        }
    }

    /// The place of an archive: a directory, bucket or prefix stands for `name` in it.
    pub(super) fn of_archive(self, name: &str) -> Self {
        match self {
            Self::Stdio => Self::Stdio,
            Self::Path(path) => {
                let (directory, key) = archive_target(&path, name);
                Self::Path(directory.join(key))
            }
            Self::S3(place) => Self::S3(place.object(name)),
            Self::Url(url) if url.ends_with('/') => Self::Url(format!("{url}{name}")),
            Self::Url(url) => Self::Url(url),
        }
    }

    /// What to call it in messages.
    pub(super) fn shown(&self, stdio: &str) -> String {
        match self {
            Self::Stdio => stdio.to_owned(),
            Self::Path(path) => path.display().to_string(),
            Self::S3(place) => place.to_string(),
            Self::Url(url) => url.clone(),
        }
    }
}

/// The store and the key of a URL that was parsed.
pub(super) fn located(url: &str) -> Result<Located> {
    open_url(url).unwrap_or_else(|| Err(Error::internal("a URL of no store").at("url", url)))
}

/// Refuses what looks like a place elsewhere, instead of making a file of that name.
pub(super) fn refuse_url(text: &str) -> Result<()> {
    if text.contains("://") {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "only local files, pipes and s3:// are known here",
        )
        .at("place", text));
    }
    Ok(())
}

/// Where unfinished work is remembered: as given, or by the rules of XDG.
pub(super) fn state_directory(given: Option<&Path>) -> Result<StateDirectory> {
    let variable =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let standard = || {
        let base = variable("XDG_STATE_HOME")
            .or_else(|| variable("HOME").map(|home| home.join(".local/state")));
        base.map(|base| base.join("amistore"))
    };
    let path = given.map(Path::to_owned).or_else(standard);
    path.map(StateDirectory::new).ok_or_else(|| {
        Error::usage("nobody knows where to remember unfinished work: give --state, or set HOME")
    })
}

/// An age: `90s`, `30m`, `12h`, `7d`.
pub(super) fn parse_age(text: &str) -> Result<Duration> {
    let wrong =
        || Error::usage("not an age: a number with s, m, h or d, such as 7d").at("given", text);
    let (number, unit) = text.split_at(text.len().saturating_sub(1));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number = number.parse::<u64>().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

/// Refuses to replace one of the files that are read.
pub(super) fn refuse_same_file<'a>(
    target: &Path,
    sources: impl IntoIterator<Item = &'a Path>,
) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let identity =
        |path: &Path| std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
    let Some(own) = identity(target) else { return Ok(()) };
    match sources.into_iter().find(|source| identity(source) == Some(own)) {
        Some(source) => Err(Error::usage("the target is one of the sources, and would be lost")
            .at("path", target.display())
            .at("source", source.display())),
        None => Ok(()),
    }
}

/// Directory and name of an archive to be made: `path` is a file, or a directory that stands for
/// `name` in it.
pub(super) fn archive_target(path: &Path, name: &str) -> (PathBuf, String) {
    let is_directory = path.is_dir() || path.to_string_lossy().ends_with('/');
    if is_directory {
        return (path.to_owned(), name.to_owned());
    }
    let parent =
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path
        .file_name()
        .map_or_else(|| name.to_owned(), |file| file.to_string_lossy().into_owned());
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
        let mut disks = Vec::new();
        for disk in &self.disk {
            let (device, path) = pair(disk, "--disk", "DEVICE=FILE, such as /dev/xvda=root.raw")?;
            disks.push((DeviceName::parse(&device)?, PathBuf::from(path)));
        }
        let tags =
            self.tag.iter().map(|tag| pair(tag, "--tag", "KEY=VALUE")).collect::<Result<_>>()?;
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

impl Ec2Args {
    /// The pause between two looks at a task.
    pub(super) fn poll(&self) -> Duration {
        Duration::from_secs(self.task_poll.unwrap_or(10))
    }
}

impl EditArgs {
    /// What is to be different.
    pub(super) fn edits(&self) -> Result<Edits> {
        let tags =
            self.tag.iter().map(|tag| pair(tag, "--tag", "KEY=VALUE")).collect::<Result<_>>()?;
        if let Some(name) = &self.name {
            check_image_name(name)?;
        }
        if self.kms_key_id.as_ref().is_some_and(|key| !key.starts_with("arn:")) {
            return Err(Error::usage(
                "--kms-key-id has to be the ARN of a key: EBS takes no other name",
            )
            .at("given", self.kms_key_id.as_deref().unwrap_or_default())
            .at(
                "such_as",
                "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab",
            ));
        }
        Ok(Edits {
            name: self.name.clone(),
            description: self.description.clone(),
            tags,
            image_tags: Vec::new(),
            snapshot_tags: Vec::new(),
            no_tags: self.no_tags,
            devices: self.devices()?,
            boot_mode: self.boot_mode.clone(),
            imds_support: self.imds_support.clone(),
            encrypted: self.encrypted,
            kms_key_arn: self.kms_key_id.clone(),
            launch_permissions: self.launch_permissions,
            deprecation: self.deprecation,
            deregistration_protection: self.deregistration_protection,
            snapshots_only: self.snapshots_only,
        })
    }

    fn devices(&self) -> Result<Vec<DeviceEdit>> {
        let number = |flag: &str, text: &str| {
            text.parse::<u64>().map_err(|_| {
                Error::usage(format!("{flag} has to be a whole number, or DEVICE=number"))
                    .at("given", text)
            })
        };
        let mut edits = Vec::new();
        let mut add = |flag: &'static str,
                       given: &[String],
                       change: &dyn Fn(&str) -> Result<DeviceChange>|
         -> Result<()> {
            for text in given {
                let (device, value) = match text.rsplit_once('=') {
                    Some((device, value)) => (Some(DeviceName::parse(device)?), value),
                    None => (None, text.as_str()),
                };
                if value.is_empty() {
                    return Err(Error::usage(format!("{flag} has to be VALUE or DEVICE=VALUE"))
                        .at("given", text));
                }
                edits.push(DeviceEdit { device, change: change(value)? });
            }
            Ok(())
        };
        add("--volume-type", &self.volume_type, &|kind| {
            Ok(DeviceChange::VolumeType(kind.to_owned()))
        })?;
        add("--iops", &self.iops, &|text| number("--iops", text).map(DeviceChange::Iops))?;
        add("--throughput", &self.throughput, &|text| {
            number("--throughput", text).map(DeviceChange::Throughput)
        })?;
        add("--volume-size", &self.volume_size, &|text| {
            number("--volume-size", text).map(DeviceChange::VolumeSize)
        })?;
        add("--delete-on-termination", &self.delete_on_termination, &|text| match text {
            "true" => Ok(DeviceChange::DeleteOnTermination(true)),
            "false" => Ok(DeviceChange::DeleteOnTermination(false)),
            _ => {
                Err(Error::usage("--delete-on-termination has to be true or false, or DEVICE=true")
                    .at("given", text))
            }
        })?;
        Ok(edits)
    }

    /// CreateRestoreImageTask knows a name and tags, and nothing else.
    pub(super) fn refuse_for_aws(&self) -> Result<()> {
        let others = Self { name: None, tag: Vec::new(), ..self.clone() };
        if others == Self::default() {
            return Ok(());
        }
        Err(Error::usage(
            "AWS's own restore takes only --name and --tag: change the image afterwards, or restore without --via-aws from an archive of amistore",
        ))
    }
}

/// Two texts with `=` between them.
pub(super) fn pair(text: &str, flag: &str, form: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Error::usage(format!("{flag} has to be {form}")).at("given", text)),
    }
}

/// A number of bytes: `268435456`, `256MiB`, `1G`. All units are binary.
pub(super) fn parse_size(text: &str) -> Result<u64> {
    let wrong = || {
        Error::usage("not a size: use bytes or a number with KiB, MiB or GiB, such as 256MiB")
            .at("given", text)
    };
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

/// A range of bytes: `OFFSET+LENGTH`, both sizes, such as `1MiB+512`.
pub(super) fn parse_range(text: &str) -> Result<VolumeRange> {
    let wrong = || {
        Error::usage("not a range: OFFSET+LENGTH is one, such as 1MiB+64KiB, with at least 1 byte")
            .at("given", text)
    };
    let (offset, len) = text.split_once('+').ok_or_else(wrong)?;
    let range = VolumeRange { offset: parse_size(offset)?, len: parse_size(len)? };
    if range.len == 0 { Err(wrong()) } else { Ok(range) }
}

/// A share: `5%` or `5`; more than 0, at most 100.
pub(super) fn parse_percent(text: &str) -> Result<f64> {
    let number = text.strip_suffix('%').unwrap_or(text).parse::<f64>().ok();
    number
        .filter(|percent| *percent > 0.0 && *percent <= 100.0)
        .map(|percent| percent / 100.0)
        .ok_or_else(|| {
            Error::usage("--sample has to be more than 0% and at most 100%").at("given", text)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_shares_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("1024", 1024),
            ("64KiB", 65_536),
            ("256MiB", 256 << 20),
            ("1g", 1 << 30),
            ("2 GiB", 2 << 30),
        ] {
            assert_eq!(parse_size(text).expect(text), bytes);
        }
        for bad in ["", "MiB", "-1", "1.5GiB", "1GB", "99999999999999999999"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_age("7d").expect("an age"), Duration::from_secs(7 * 86_400));
        for bad in ["", "7", "d", "7w", "-1d"] {
            assert!(parse_age(bad).is_err(), "{bad}");
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
        assert_eq!(
            archive_target(directory.path(), "a.bin"),
            (directory.path().to_owned(), "a.bin".into())
        );
        assert_eq!(
            archive_target(Path::new("new/"), "a.bin"),
            (PathBuf::from("new/"), "a.bin".into())
        );
        assert_eq!(
            archive_target(Path::new("x.bin"), "a.bin"),
            (PathBuf::from("."), "x.bin".into())
        );
        assert_eq!(
            archive_target(Path::new("/d/x.bin"), "a.bin"),
            (PathBuf::from("/d"), "x.bin".into())
        );
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
        assert_eq!(
            Place::parse(Path::new("gs://bucket/")).expect_err("refused").kind(),
            ErrorKind::Unsupported
        );
        assert!(matches!(Place::parse(Path::new("s3://bucket/")), Ok(Place::S3(_))));
        let below =
            Place::parse(Path::new("file:///archives/")).expect("a URL").of_archive("a.bin");
        assert_eq!(below, Place::Url("file:///archives/a.bin".to_owned()));
        assert_eq!(
            Place::parse(Path::new("file://a.bin")).expect_err("no absolute path").kind(),
            ErrorKind::Usage
        );
        assert_eq!(
            Place::parse(Path::new("s3://")).expect_err("no bucket").kind(),
            ErrorKind::Usage
        );
    }
}
