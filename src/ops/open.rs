//! Opens what a use case reads: stores by their URLs, and images of EC2. The command line, the
//! library and the server open them here.

use std::path::PathBuf;

#[cfg(feature = "aws")]
use super::EbsReads;
#[cfg(feature = "aws")]
use crate::aws::Compute;
#[cfg(feature = "aws")]
use crate::aws::ec2::{Ec2Image, Ec2Source};
#[cfg(feature = "aws")]
use crate::aws::s3::S3Location;
#[cfg(feature = "aws")]
use crate::base::Observer;
use crate::base::{Error, ErrorKind, Result};
use crate::object::{Located, open_url};

/// The URLs that are known, in a message.
#[cfg(feature = "aws")]
const KNOWN: &str = "only local files, pipes, s3:// and file:// are known";
#[cfg(not(feature = "aws"))]
const KNOWN: &str = "only local files and file:// are known without the feature aws";

/// A URL or path of an archive, or of a store of archives.
#[derive(Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// A bucket, or an object or prefix in it.
    #[cfg(feature = "aws")]
    S3(S3Location),
    /// A URL with a scheme of [`open_url`].
    Store(String),
    /// A file or directory.
    Path(PathBuf),
}

impl StoreUrl {
    /// Parses a URL or path. A URL of an unknown scheme is an error of kind `Unsupported`.
    pub fn parse(text: &str) -> Result<Self> {
        #[cfg(feature = "aws")]
        if let Some(location) = S3Location::parse(text) {
            return location.map(Self::S3);
        }
        if let Some(located) = open_url(text) {
            return located.map(|_| Self::Store(text.to_owned()));
        }
        refuse_url(text)?;
        Ok(Self::Path(text.into()))
    }
}

/// The store and the key of a URL that was parsed.
pub fn located(url: &str) -> Result<Located> {
    open_url(url).unwrap_or_else(|| Err(Error::internal("a URL of no store").at("url", url)))
}

/// Refuses a URL of an unknown scheme, instead of making a file of that name. A URL whose slashes
/// are not two (`s3:/bucket`, `S3://bucket`, `file:/archives`) is an error of kind `Usage` with the
/// URL that was meant; a file of such a name is `./s3:...`.
pub fn refuse_url(text: &str) -> Result<()> {
    let (scheme, rest) = text.split_once(':').unwrap_or_default();
    let known = ["s3", "file"].into_iter().find(|known| known.eq_ignore_ascii_case(scheme));
    if let Some(known) = known.filter(|known| !text.starts_with(&format!("{known}://"))) {
        let root = if known == "file" { "/" } else { "" };
        let path = rest.trim_start_matches('/');
        let message = format!("this looks like a URL, and is none: {known}://{root}{path} is one");
        return Err(Error::usage(message).at("given", text));
    }
    if text.contains("://") {
        return Err(Error::new(ErrorKind::Unsupported, KNOWN).at("url", text));
    }
    Ok(())
}

/// Opens an image or snapshots in EC2, under `new_name` or under its own name. `account_rate` is
/// the account's quota of blocks a second, if it is not that of the Region.
#[cfg(feature = "aws")]
pub fn open_ec2_image(
    compute: &Compute,
    source: &Ec2Source,
    new_name: Option<&str>,
    account_rate: Option<u32>,
    observer: &dyn Observer,
) -> Result<(Ec2Image, EbsReads)> {
    let Compute { ec2, ebs, quotas } = compute;
    let image = Ec2Image::open(ec2, ebs, quotas, source, new_name, observer)?;
    Ok((image, EbsReads { region: ebs.region(), account_rate }))
}
