//! `amistore verify`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::super::options::{ArchiveUrl, EbsArgs, Settings, SidesArgs, ThawArgs, parse_percent};
use super::super::output::{Console, verified, verified_text};
use super::super::remote::Remote;
use crate::aws::Compute;
use crate::aws::ec2::{Ec2Image, Ec2Source};
use crate::base::{Error, Observer, Result};
use crate::engine::{Context, Depth, Incoming, Selection};
use crate::format::Digest;
use crate::image::{ImageDirectory, ImageSource};
use crate::localfs::read_short;
use crate::object::PipeReader;
use crate::ops::{self, ExpectedRoot};

/// The longest list of roots that is read. A root takes about 100 bytes.
const MAX_LIST: u64 = 64 << 20;

/// Check an archive without writing anything
#[derive(Debug, Args)]
#[command(before_help = "\
Example:
  amistore verify ami-0123456789abcdef0.bin
  amistore verify --stored s3://bucket/ami-0123456789abcdef0.bin
  amistore verify --sample 5% ami-0123456789abcdef0.bin
  amistore verify --against image-dir/ ami-0123456789abcdef0.bin
  amistore verify --against ami-0123456789abcdef0 s3://bucket/ami-0123456789abcdef0.bin
  amistore verify --root roots.txt ami-0123456789abcdef0.bin")]
pub(in super::super) struct VerifyArgs {
    /// A file, s3://BUCKET/KEY, or - for stdin
    #[arg(value_name = "ARCHIVE")]
    archive: PathBuf,
    /// Compare every stored byte with its digest, and inflate nothing: several times as fast
    #[arg(long, conflicts_with_all = ["sample", "against"])]
    stored: bool,
    /// Check a random part of the data (index and metadata always whole)
    #[arg(long, value_name = "N%")]
    sample: Option<String>,
    /// Compare with an image directory, or with an image (ami-...) or snapshots (snap-..., more
    /// with commas) in EC2, block by block. EC2 is read with the --source-* options, the archive
    /// with the --target-* options
    #[arg(long, value_name = "SOURCE", conflicts_with = "sample")]
    against: Option<PathBuf>,
    /// Compare the root with this one (64 hex digits), or with that of the archive in a file that
    /// lists a name and a root in every line
    #[arg(long, value_name = "HEX|FILE")]
    root: Option<PathBuf>,
    #[command(flatten)]
    thaw: ThawArgs,
    #[command(flatten)]
    ebs: EbsArgs,
    #[command(flatten)]
    sides: SidesArgs,
}

/// The source that an archive is compared with.
enum Against {
    Directory(ImageDirectory),
    Ec2(Box<Ec2Image>),
}

impl Against {
    fn image(&self) -> &dyn ImageSource {
        match self {
            Self::Directory(directory) => directory,
            Self::Ec2(image) => image.as_ref(),
        }
    }
}

pub(super) fn run(args: &VerifyArgs, settings: &Settings, console: &Console) -> Result<()> {
    let url = ArchiveUrl::parse(&args.archive)?;
    let archive = url.source();
    let root = args.root.as_deref().map(|given| expected_root(given, &archive)).transpose()?;
    let plan = settings.plan(args.incoming(&url))?;
    console.explain_plan(&plan, settings);
    let observer = console.observer();
    let context = Context { plan: &plan, observer: observer.as_ref(), cancel: &settings.cancel };
    let selection = match &args.sample {
        Some(share) => {
            Selection::Sample { fraction: parse_percent(share)?, seed: fastrand::u64(..) }
        }
        None => Selection::All,
    };
    let depth = if args.stored { Depth::Stored } else { Depth::Blocks };
    let remote = Remote::new(settings, &observer);
    let opened = remote.open(&url, args.sides.target()?, &args.thaw)?;
    let other = match (&opened, &root) {
        (Some(reader), Some(root)) => ops::check_root(reader.clone(), root, depth, context)?,
        _ => None,
    };
    let outcome = match opened {
        _ if other.is_some() => None,
        None if args.sample.is_some() || args.against.is_some() => {
            return Err(Error::usage(
                "--sample and --against need random access: name a file or an object",
            ));
        }
        None => {
            let input = PipeReader::stdin(settings.cancel.clone())?;
            Some(ops::verify_stream(input, depth, context)?)
        }
        Some(reader) => Some(match args.against(&remote, observer.as_ref())? {
            Some(against) => ops::verify_against(reader, against.image(), context)?,
            None => ops::verify(reader, selection, depth, context)?,
        }),
    };
    let outcome = other.or(outcome);
    let outcome = outcome.ok_or_else(|| Error::internal("a check ended without an outcome"))?;
    let outcome = match &root {
        Some(root) if !outcome.has_other_root => outcome.with_expected_root(root),
        _ => outcome,
    };
    drop((remote, observer));
    console.result(|| verified_text(&outcome, &archive), || verified(&outcome, &archive))?;
    outcome.error(&archive, url == ArchiveUrl::Stdio).map_or(Ok(()), Err)
}

/// The root that the archive is to have: 64 hex digits, or that in a list of roots.
fn expected_root(given: &Path, archive: &str) -> Result<Digest> {
    let expected = match given.to_str().and_then(ExpectedRoot::parse) {
        Some(root) => root,
        None => {
            let text = read_short(given, "list of roots", MAX_LIST)?;
            let text = String::from_utf8(text).map_err(|cause| {
                Error::usage("the list of roots is no text in UTF-8")
                    .because(cause)
                    .at("path", given.display())
            })?;
            ExpectedRoot::parse_list(&text).map_err(|error| error.at("path", given.display()))?
        }
    };
    expected.of(archive).map_err(|error| error.at("list", given.display()))
}

impl VerifyArgs {
    /// The source in EC2 that the archive is compared with, if it is one. A directory whose name
    /// has the form of an id is `./ami-...`.
    fn ec2_source(&self) -> Result<Option<Ec2Source>> {
        let against = self.against.as_ref().map(|against| against.to_string_lossy());
        against.and_then(|against| Ec2Source::parse(&against)).transpose()
    }

    fn incoming(&self, url: &ArchiveUrl) -> Incoming {
        match self.ec2_source() {
            Ok(Some(_)) if url.incoming() == Incoming::Archive => Incoming::Both,
            Ok(Some(_)) => Incoming::Blocks,
            // An id that is none is an error later.
            Ok(None) | Err(_) => url.incoming(),
        }
    }

    fn against(&self, remote: &Remote, observer: &dyn Observer) -> Result<Option<Against>> {
        if let Some(source) = self.ec2_source()? {
            let Compute { ec2, ebs, quotas } = &remote.compute(&self.sides.source()?, &self.ebs)?;
            let image = Ec2Image::open(ec2, ebs, quotas, &source, None, observer)?;
            return Ok(Some(Against::Ec2(Box::new(image))));
        }
        let directory = self.against.as_deref().map(ImageDirectory::open_as_is);
        Ok(directory.transpose()?.map(Against::Directory))
    }
}
