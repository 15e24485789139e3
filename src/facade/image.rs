//! Images that can be stored.

use std::path::Path;

use super::Options;
#[cfg(feature = "aws")]
use crate::aws::RequestSettings;
#[cfg(feature = "aws")]
use crate::aws::ec2::Ec2Source;
use crate::base::Result;
use crate::image::{ImageDirectory, ImageDocument, ImageSource, Salvaged};
#[cfg(feature = "aws")]
use crate::ops::open_ec2_image;
use crate::ops::{EbsReads, refuse_url};

/// An image that can be stored: metadata and volumes.
pub struct Image {
    source: Box<dyn ImageSource>,
    /// Its Region and quota, if EBS has its volumes.
    ebs: Option<EbsReads>,
}

impl Image {
    /// The image of a source of your own.
    pub fn new(source: impl ImageSource + 'static) -> Self {
        Self { source: Box::new(source), ebs: None }
    }

    /// The metadata.
    pub fn document(&self) -> &ImageDocument {
        self.source.document()
    }

    pub(super) fn source(&self) -> &dyn ImageSource {
        self.source.as_ref()
    }

    pub(super) fn ebs(&self) -> Option<&EbsReads> {
        self.ebs.as_ref()
    }
}

/// Opens the image directory `source`; with feature `aws` also an image or snapshots in EC2, such
/// as `ami-0123456789abcdef0`. A directory whose name has the form of an id is `./ami-...`. Disk
/// images in it that are not raw are an error of kind
/// [`Unsupported`](crate::base::ErrorKind::Unsupported), unless [`Options::as_raw`] is set.
pub fn open_image(source: &str, options: &Options) -> Result<Image> {
    #[cfg(feature = "aws")]
    if let Some(parsed) = Ec2Source::parse(source) {
        let session = options.session();
        let compute = session.compute(&options.access, &RequestSettings::default(), None)?;
        let observer = options.observer.as_ref();
        let (image, ebs) = open_ec2_image(&compute, &parsed?, None, None, observer)?;
        return Ok(Image { source: Box::new(image), ebs: Some(ebs) });
    }
    refuse_url(source)?;
    let (path, refused) = (Path::new(source), Salvaged::Refused);
    Ok(Image::new(ImageDirectory::open(path, None, options.formats, refused)?))
}
