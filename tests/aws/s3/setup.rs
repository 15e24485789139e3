//! A server, a connection to it, and an image whose archive has about eight parts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amistore::internals::aws::s3::{Checksum, ObjectOptions, S3Connection, S3Store};
use amistore::internals::aws::{
    Access, ConnectionOptions, Credentials, RetryPolicy, Runtime, StaticCredentials,
};
use amistore::internals::base::{Cancel, Event, NullObserver, Observer, Result};
use amistore::internals::checkpoint::StateDirectory;
use amistore::internals::engine::{Context, PackOptions, Plan};
use amistore::internals::image::ImageSource;
use amistore::internals::localfs::Overwrite;
use amistore::internals::object::{Attributes, ObjectStore};
use amistore::internals::ops::{self, ArchiveTarget, ObjectTarget, Resumption, Stored};
use amistore_aws_double::s3::TestS3;
use tempfile::TempDir;

use crate::support::image::{BLOCK, Random, TestImage};

/// The bucket of all tests.
pub const BUCKET: &str = "images";
/// Bytes of a part.
pub const PART: u64 = 32 << 10;

/// Records warnings, notes and retries.
#[derive(Default)]
pub struct Recorded(Mutex<Messages>);

#[derive(Clone, Debug, Default)]
pub struct Messages {
    pub warnings: Vec<String>,
    pub notes: Vec<String>,
    /// Messages of the errors that were retried.
    pub retried: Vec<String>,
}

impl Recorded {
    /// Returns and removes the recorded messages.
    pub fn take(&self) -> Messages {
        std::mem::take(&mut self.0.lock().expect("no panic"))
    }
}

impl Observer for Recorded {
    fn note(&self, event: &Event<'_>) {
        let mut messages = self.0.lock().expect("no panic");
        match event {
            Event::Warning { message } => messages.warnings.push(message.clone()),
            Event::Note { message } => messages.notes.push(message.clone()),
            Event::Retried { error, .. } => messages.retried.push(format!("{error:?}")),
            _ => {}
        }
    }
}

/// A server with the bucket, and the options of connections to it.
pub struct Bench {
    pub server: TestS3,
    pub runtime: Runtime,
    pub recorded: Arc<Recorded>,
    pub directory: TempDir,
}

impl Bench {
    pub fn new() -> Self {
        let server = TestS3::start();
        server.create_bucket(BUCKET);
        server.set_min_part_size(1);
        let (runtime, directory) =
            (Runtime::new().expect("threads"), TempDir::new().expect("a directory"));
        Self { server, runtime, recorded: Arc::default(), directory }
    }

    /// Options with short waits.
    pub fn options(&self) -> ConnectionOptions {
        ConnectionOptions {
            retry: RetryPolicy {
                max_attempts: 4,
                base: Duration::from_millis(1),
                cap: Duration::from_millis(4),
            },
            idle_timeout: Duration::from_secs(1),
            bandwidth: None,
            observer: self.recorded.clone(),
            cancel: Cancel::new(),
        }
    }

    pub fn access(&self) -> Access {
        let credentials = StaticCredentials {
            access_key_id: TestS3::ACCESS_KEY.to_owned(),
            secret_access_key: TestS3::SECRET_KEY.to_owned(),
            session_token: None,
        };
        Access {
            region: Some(TestS3::REGION.to_owned()),
            endpoint_url: Some(self.server.endpoint()),
            credentials: Credentials::Static(credentials),
            ..Access::default()
        }
    }

    pub fn connect(&self, options: ConnectionOptions) -> S3Connection {
        S3Connection::open(&self.runtime, self.access(), options).expect("a configuration")
    }

    /// The bucket, cut into small parts.
    pub fn store(&self) -> S3Store {
        self.store_with(self.connect(self.options()))
    }

    pub fn store_with(&self, connection: S3Connection) -> S3Store {
        S3Store::new(connection, BUCKET, small_parts())
    }

    /// The task of an upload to `key`.
    pub fn resumption(&self, key: &str) -> Resumption {
        Resumption {
            directory: StateDirectory::new(self.directory.path().join("state")),
            command: vec!["amistore".to_owned(), "store".to_owned()],
            working_directory: "/".to_owned(),
            source: "image".to_owned(),
            target: format!("s3://{BUCKET}/{key}"),
            restart: false,
        }
    }

    /// The bytes of an object.
    pub fn bytes(&self, key: &str) -> Option<Vec<u8>> {
        self.server.object(BUCKET, key).map(|object| object.bytes.to_vec())
    }

    pub fn open_uploads(&self) -> usize {
        self.server.open_uploads(BUCKET).len()
    }
}

pub fn small_parts() -> ObjectOptions {
    ObjectOptions { part_size: Some(PART), part_memory: 8 * PART, ..ObjectOptions::default() }
}

/// An image of two volumes, eleven cells, and some zeros, whose archive has about eight parts.
pub fn image() -> TestImage {
    let mut random = Random(11);
    let mut volume = |cells: &[u32]| -> BTreeMap<u32, Vec<u8>> {
        let mut blocks: BTreeMap<_, _> =
            cells.iter().map(|cell| (8 * cell, random.noise(22 << 10))).collect();
        blocks.insert(3, vec![0]);
        blocks
    };
    let volumes = vec![
        (80 * BLOCK as u64, volume(&[0, 1, 2, 3, 5, 7, 8])),
        (40 * BLOCK as u64, volume(&[0, 1, 3, 4])),
    ];
    TestImage::new(volumes)
}

/// Runs `work` with two threads and no observer.
pub fn with_context<T>(work: impl FnOnce(Context<'_>) -> T) -> T {
    with_cancel(&Cancel::new(), &NullObserver, work)
}

pub fn with_cancel<T>(
    cancel: &Cancel,
    observer: &dyn Observer,
    work: impl FnOnce(Context<'_>) -> T,
) -> T {
    let plan = Plan::new(2, 128 << 20, 1).expect("a plan");
    work(Context { plan: &plan, observer, cancel })
}

/// An image of seven volumes for parts of [`PART`]: long ones, and some that are shorter than a
/// part, first, last and next to each other.
pub fn wide_image() -> TestImage {
    let mut random = Random(12);
    let mut volume = |cells: u32, noise: usize| -> (u64, BTreeMap<u32, Vec<u8>>) {
        (80 * BLOCK as u64, (0..cells).map(|cell| (8 * cell, random.noise(noise))).collect())
    };
    TestImage::new(vec![
        volume(1, 5 << 10),
        volume(4, 22 << 10),
        volume(1, 20 << 10),
        volume(1, 7 << 10),
        volume(1, 9 << 10),
        volume(5, 20 << 10),
        volume(1, 3 << 10),
    ])
}

/// Stores an image by a parallel upload, with a task or without.
pub fn store_in_parallel(
    image: &dyn ImageSource,
    store: &S3Store,
    key: &str,
    resumption: Option<Resumption>,
) -> Result<Stored> {
    with_context(|context| {
        let store = store.clone().with_options(ObjectOptions {
            checksum: Some(Checksum::Md5),
            ..store.options().clone()
        });
        let (overwrite, attributes, resumption) =
            (Overwrite::No, Attributes::default(), resumption.map(Box::new));
        let planned = ops::plan_volumes(image)?;
        let (at_most, segments) = (planned.longest_archive, planned.segments());
        let target = ObjectTarget {
            store: &store,
            key: key.to_owned(),
            overwrite,
            attributes,
            at_most,
            segments,
            resumption,
            on_metadata_change: None,
        };
        ops::store(image, ArchiveTarget::Object(target), &PackOptions::default(), context)
    })
}

/// Stores an image, with a task or without.
pub fn store(
    image: &dyn ImageSource,
    store: &dyn ObjectStore,
    key: &str,
    resumption: Option<Resumption>,
) -> Result<Stored> {
    with_context(|context| {
        let (overwrite, attributes) = (Overwrite::No, Attributes::default());
        let at_most = ops::plan_volumes(image)?.longest_archive;
        let resumption = resumption.map(Box::new);
        let target = ObjectTarget {
            store,
            key: key.to_owned(),
            overwrite,
            attributes,
            at_most,
            segments: Vec::new(),
            resumption,
            on_metadata_change: None,
        };
        ops::store(image, ArchiveTarget::Object(target), &PackOptions::default(), context)
    })
}
