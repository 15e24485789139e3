//! The image that `amistore store` packs.

use std::path::{Path, PathBuf};

use super::options::{EbsArgs, ImageArgs, SidesArgs};
use super::remote::Remote;
use crate::aws::ec2::Ec2Source;
use crate::base::{Error, ErrorCode, ErrorKind, Observer, Result};
use crate::image::{IMAGE_JSON, ImageDirectory, ImageSource, PlainDisks, Salvaged};
use crate::ops::{EbsReads, open_ec2_image, refuse_url, shell_line};
use crate::volume::DiskFormats;

/// Refuses the arguments of `store` in the wrong order, and archives as a source.
pub(super) fn refuse_swapped(source: &Path, archive: &Path) -> Result<()> {
    let text = source.to_string_lossy();
    let is_url = text.starts_with("s3://") || text.starts_with("file://");
    let is_archive = is_url || text.ends_with(".bin") || source.is_file();
    let is_id = |path: &Path| matches!(Ec2Source::parse(&path.to_string_lossy()), Some(Ok(_)));
    let is_swapped = (is_id(archive) && !is_id(source))
        || (is_archive && archive.join(IMAGE_JSON).is_file() && !source.join(IMAGE_JSON).is_file());
    if is_swapped {
        return Err(swapped("store", source, archive));
    }
    if is_url {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "SOURCE is an image, and this is the URL of an archive: `amistore copy` copies \
             archives, `amistore restore` makes an image of one",
        )
        .at("source", text));
    }
    Ok(())
}

/// The error of two arguments in the wrong order. It has the command in the right one.
pub(super) fn swapped(verb: &str, first: &Path, second: &Path) -> Error {
    let paths = [second, first].map(|path| path.to_string_lossy().into_owned());
    let command = shell_line(&paths);
    Error::usage(format!("the arguments are in the wrong order: amistore {verb} {command}"))
}

/// Options of the source.
pub(super) struct SourceOptions<'a> {
    pub(super) image: &'a ImageArgs,
    pub(super) formats: DiskFormats,
    pub(super) salvaged: Salvaged,
    pub(super) ebs: &'a EbsArgs,
    pub(super) sides: &'a SidesArgs,
}

/// The image to store.
pub(super) struct Source {
    image: Box<dyn ImageSource>,
    name: String,
    files: Vec<PathBuf>,
    ebs: Option<EbsReads>,
    /// Whether the image id is derived from the attributes of plain disks.
    has_derived_id: bool,
}

impl Source {
    /// Opens an image or snapshots in EC2, or an image directory; without `source`, plain disks. A
    /// directory whose name has the form of an id is `./ami-...`.
    pub(super) fn open(
        source: Option<&Path>,
        options: &SourceOptions<'_>,
        remote: &Remote,
        observer: &dyn Observer,
    ) -> Result<Self> {
        let Some(path) = source else { return Self::of_disks(options) };
        let name = path.display().to_string();
        refuse_url(&name)?;
        let has_derived_id = false;
        let new_name = options.image.name.as_deref();
        if let Some(source) = Ec2Source::parse(&name) {
            let compute = remote.compute(&options.sides.source()?, options.ebs)?;
            let account_rate = options.ebs.account_rate()?;
            let (image, ebs) =
                open_ec2_image(&compute, &source?, new_name, account_rate, observer)?;
            return Ok(Self {
                image: Box::new(image),
                name,
                files: Vec::new(),
                ebs: Some(ebs),
                has_derived_id,
            });
        }
        let image =
            Box::new(ImageDirectory::open(path, new_name, options.formats, options.salvaged)?);
        let snapshots = image.document().snapshots().iter();
        let raws = snapshots.map(|snapshot| path.join(snapshot.id.file_name()));
        let files = raws.chain([path.join(IMAGE_JSON)]).collect();
        Ok(Self { image, name, files, ebs: None, has_derived_id })
    }

    fn of_disks(options: &SourceOptions<'_>) -> Result<Self> {
        let SourceOptions { image: args, formats, salvaged, .. } = *options;
        let plain = args.plain_image()?;
        let (image, disks) = plain.ok_or_else(|| Error::internal("neither source nor disks"))?;
        let image = Box::new(PlainDisks::open(&image, &disks, formats, salvaged)?);
        let files: Vec<PathBuf> = disks.into_iter().map(|(_, path)| path).collect();
        let name = files.first().map(|path| path.display().to_string()).unwrap_or_default();
        Ok(Self { image, name, files, ebs: None, has_derived_id: args.image_id.is_none() })
    }

    /// The image.
    pub(super) fn image(&self) -> &dyn ImageSource {
        self.image.as_ref()
    }

    /// Its name in messages and tasks.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Local files that are read, and must not be replaced.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(PathBuf::as_path)
    }

    /// EBS, if the image is in EC2.
    pub(super) fn ebs(&self) -> Option<&EbsReads> {
        self.ebs.as_ref()
    }

    /// Adds to the error that the archive exists: two images with equal attributes have one derived
    /// id, and so one file name.
    pub(super) fn explain(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::Exists || !self.has_derived_id {
            return error;
        }
        error
            .or_code(ErrorCode::DerivedImageIdTaken)
            .at("image_id", "derived from name, attributes and sizes, not from the disks' content")
    }
}
