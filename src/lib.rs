//! amistore stores an Amazon Machine Image as **one** compressed, indexed, verifiable object, and
//! restores it anywhere: a directory, or EC2 in any account, Region and partition.
//!
//! # Storing a disk
//!
//! ```
//! use amistore::{Disks, Options, open_store};
//!
//! # fn main() -> amistore::Result<()> {
//! # let directory = tempfile::tempdir().expect("a directory");
//! # let disk = directory.path().join("root.raw");
//! # std::fs::write(&disk, vec![7; 9 << 20]).expect("a disk");
//! # let archives = directory.path().to_str().expect("UTF-8");
//! let options = Options::default();
//! let image = Disks::named("web").disk("/dev/xvda", disk).open()?;
//! let store = open_store(archives, &options)?; // a directory, or "s3://bucket/prefix/"
//! let report = amistore::store(&image, &store, &options)?;
//! assert!(report.key.starts_with("ami-") && report.key.ends_with(".bin"));
//! # Ok(())
//! # }
//! ```
//!
//! An [`Image`] is made of plain disks ([`Disks`]), of an image directory or an AMI
//! ([`open_image`]), or of an [`ImageSource`](port::ImageSource) of your own. A [`Store`] is a
//! directory, a prefix of a bucket ([`open_store`]), or an [`ObjectStore`](port::ObjectStore) of
//! your own.
//!
//! # Reading a range
//!
//! An [`Archive`] owns its reader and is cheap to clone; so is an [`ArchiveVolume`]. A read fetches
//! and checks only the cells (4 MiB of a volume) that it needs.
//!
//! ```
//! use amistore::{Archive, BlockSource, Disks, MemoryStore, Options, Store};
//!
//! # fn main() -> amistore::Result<()> {
//! # let directory = tempfile::tempdir().expect("a directory");
//! # let disk = directory.path().join("root.raw");
//! # std::fs::write(&disk, vec![7; 9 << 20]).expect("a disk");
//! # let options = Options::default();
//! # let image = Disks::named("web").disk("/dev/xvda", disk).open()?;
//! # let store = Store::new(MemoryStore::default());
//! # let report = amistore::store(&image, &store, &options)?;
//! let archive = Archive::open(store.get(&report.key)?)?;
//! let volume = archive.volume("/dev/xvda")?;
//! let mut mib = vec![0; 1 << 20];
//! volume.read_at(8 << 20, &mut mib)?;
//! assert!(mib.iter().all(|&byte| byte == 7));
//! # Ok(())
//! # }
//! ```
//!
//! # Checking and restoring
//!
//! [`verify`] reports damage by snapshot, block and offset; [`restore`] writes an image directory,
//! [`extract`] one volume, and [`copy`] carries an archive to another store. Each of them checks
//! every byte that it reads. [`inspect`] tells the content of an archive, [`tasks`] lists
//! unfinished work, and with feature `aws` there are `restore_to_ec2`, `retire` and `clean`. Module
//! [`plan`] has a dry run of each use case that writes.
//!
//! ```
//! use amistore::{Archive, Disks, ErrorKind, MemoryStore, Options, Store};
//!
//! # fn main() -> amistore::Result<()> {
//! # let directory = tempfile::tempdir().expect("a directory");
//! # let disk = directory.path().join("root.raw");
//! # std::fs::write(&disk, vec![7; 9 << 20]).expect("a disk");
//! # let options = Options::default();
//! # let image = Disks::named("web").disk("/dev/xvda", &disk).open()?;
//! # let store = Store::new(MemoryStore::default());
//! # let key = amistore::store(&image, &store, &options)?.key;
//! assert!(amistore::verify(store.get(&key)?, &options)?.is_ok());
//!
//! let archive = Archive::open(store.get(&key)?)?;
//! let target = directory.path().join("restored");
//! amistore::restore(&archive, &target, &options)?;
//! let again = amistore::restore(&archive, &target, &options);
//! assert_eq!(again.expect_err("the image exists").kind(), ErrorKind::Exists);
//!
//! let image = amistore::open_image(target.to_str().expect("UTF-8"), &options)?;
//! assert!(amistore::verify_against(store.get(&key)?, &image, &options)?.is_ok());
//! # Ok(())
//! # }
//! ```
//!
//! # Progress, cancellation, errors
//!
//! Operations block their caller. They send [`Event`]s to an [`Observer`], and end when their
//! [`Cancel`] token is cancelled. Every [`Error`] has an [`ErrorKind`], which decides about exit
//! codes and retries, most have an [`ErrorCode`], and all have facts such as path and offset.
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicU64, Ordering};
//!
//! use amistore::{Cancel, Disks, ErrorKind, Event, MemoryStore, Observer, Options, Store};
//!
//! #[derive(Default)]
//! struct Bytes(AtomicU64);
//!
//! impl Observer for Bytes {
//!     fn note(&self, event: &Event<'_>) {
//!         if let Event::Advanced { bytes, .. } = event {
//!             self.0.fetch_add(*bytes, Ordering::Relaxed);
//!         }
//!     }
//! }
//!
//! # fn main() -> amistore::Result<()> {
//! # let directory = tempfile::tempdir().expect("a directory");
//! # let disk = directory.path().join("root.raw");
//! # std::fs::write(&disk, vec![7; 9 << 20]).expect("a disk");
//! let image = Disks::named("web").disk("/dev/xvda", disk).open()?;
//! let store = Store::new(MemoryStore::default());
//! let (progress, cancel) = (Arc::new(Bytes::default()), Cancel::new());
//! let options = Options::default().observer(progress.clone()).cancel(&cancel);
//! amistore::store(&image, &store, &options)?;
//! assert_eq!(progress.0.load(Ordering::Relaxed), 9 << 20);
//!
//! cancel.cancel(); // from any thread
//! let error = amistore::store(&image, &store, &options.overwrite()).expect_err("interrupted");
//! assert_eq!(error.kind(), ErrorKind::Interrupted);
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | none | disks and image directories, archives in directories; no async runtime, no TLS |
//! | `aws` | S3, EBS and EC2 |
//! | `server` | the endpoint of `amistore serve` |
//! | `cli` | the program; the default |
//!
//! An embedder of S3 needs `default-features = false, features = ["aws"]`.
#![cfg_attr(
    not(feature = "cli"),
    allow(dead_code, reason = "the program uses more than the library exports")
)]
#![cfg_attr(
    not(feature = "internals"),
    allow(unused_imports, reason = "a room exports every type that its functions name")
)]

#[cfg(feature = "aws")]
mod aws;
mod base;
mod checkpoint;
#[cfg(feature = "cli")]
mod cli;
mod codec;
mod engine;
mod facade;
mod format;
mod image;
mod localfs;
mod object;
mod ops;
#[cfg(feature = "server")]
mod server;
#[cfg(feature = "server")]
mod taskdb;
mod volume;

#[cfg(feature = "aws")]
pub use aws::ec2::RetireAction;
#[cfg(feature = "aws")]
pub use aws::{Access, Addressing, Credentials, StaticCredentials};
pub use base::{
    Cancel, Error, ErrorCode, ErrorKind, Event, ImageId, Observer, Result, SnapshotId, Stage,
    VolumeSize,
};
#[cfg(feature = "cli")]
#[doc(hidden)]
pub use cli::main as run_command_line;
pub use engine::{Archive, ArchiveVolume};
#[cfg(feature = "aws")]
pub use facade::{Clean, clean, restore_to_ec2, retire};
pub use facade::{
    Disks, Image, Options, Store, copy, extract, inspect, open_image, open_store, restore, store,
    tasks, verify, verify_against,
};
pub use image::ImageDocument;
pub use object::MemoryStore;
pub use volume::BlockSource;

/// Dry runs: functions with the names of the use cases, and the plans that they return.
///
/// A dry run sends no request that writes, and refuses what the run would refuse. Its plan is the
/// one that a run makes and carries out: volumes, parts, memory, requests to AWS with their price
/// at the Region, and the least time by the quotas.
pub mod plan {
    #[cfg(feature = "aws")]
    pub use crate::aws::ec2::{EncryptionPlan, Fidelity, FidelityItem};
    pub use crate::engine::{MemorySplit, Plan as WorkerPlan};
    pub use crate::facade::plan::{Planned, copy, extract, restore, store};
    #[cfg(feature = "aws")]
    pub use crate::facade::plan::{clean, restore_to_ec2, retire};
    pub use crate::ops::{
        AwsUse, Calls, CopyPlan, Dollars, EbsUse, Existing, PlannedVolume, PlannedVolumes,
        RestorePlan, S3Reads, S3Use, Service, StorePlan, Transfer, UploadPlan,
    };
}

/// Interfaces to implement: a store of archives, and a source of images or blocks.
///
/// [`Store::new`](crate::Store::new) takes an [`ObjectStore`](port::ObjectStore) of your own,
/// [`Image::new`](crate::Image::new) an [`ImageSource`](port::ImageSource).
pub mod port {
    pub use crate::base::BlockIndex;
    pub use crate::format::BlockMap;
    pub use crate::image::{ImageMatch, ImageSource};
    pub use crate::localfs::Overwrite;
    pub use crate::object::{
        Attributes, ByteRanges, Creation, Listed, ObjectReader, ObjectService, ObjectStore,
        ObjectWriter, Splice, Spliced,
    };
    pub use crate::volume::BlockSource;
}

/// Reports: what the use cases return.
pub mod report {
    #[cfg(feature = "aws")]
    pub use crate::aws::ec2::{RetirePlan, RetiredSnapshot};
    pub use crate::base::{TaskKind, TaskState};
    pub use crate::engine::Depth;
    pub use crate::facade::{StoreReport, Task};
    pub use crate::format::{Codec, Footer, VolumeEntry};
    pub use crate::object::Listed;
    #[cfg(feature = "aws")]
    pub use crate::ops::{Cleaned, Leftover};
    pub use crate::ops::{
        Copied, CopyProof, Extracted, Inspection, MapCell, Restored, RestoredVolume, Verified,
        VolumeInspection, VolumeRange,
    };
}

/// The rooms, for tests, benchmarks and fuzz targets. No part of the interface: any version may
/// change it.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    macro_rules! rooms {
        ($($(#[$attribute:meta])* $room:ident)*) => {
            $($(#[$attribute])* pub mod $room { pub use crate::$room::*; })*
        };
    }

    rooms! {
        #[cfg(feature = "aws")] aws
        base
        checkpoint
        #[cfg(feature = "cli")] cli
        codec
        engine
        format
        image
        localfs
        object
        ops
        #[cfg(feature = "server")] server
        #[cfg(feature = "server")] taskdb
        volume
    }
}
