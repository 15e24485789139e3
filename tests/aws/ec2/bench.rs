//! One EC2, connections to it, a small image in it, and its archive.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use amistore::internals::aws::ebs::{EbsConnection, Quotas};
use amistore::internals::aws::ec2::{
    Ec2Connection, Ec2Destination, Ec2Image, Ec2Options, Ec2Restored, Ec2Source, Edits,
};
use amistore::internals::aws::{
    Access, ConnectionOptions, Credentials, RetryPolicy, Runtime, StaticCredentials,
};
use amistore::internals::base::{Cancel, Error, Event, Observer, Result};
use amistore::internals::checkpoint::StateDirectory;
use amistore::internals::engine::{Archive, Context, PackOptions, Plan};
use amistore::internals::image::ImageDestination;
use amistore::internals::localfs::Overwrite;
use amistore::internals::object::{Attributes, MemoryReader, MemoryStore};
use amistore::internals::ops::{self, ArchiveTarget, ObjectTarget, Resumption};
use amistore_aws_double::aws::{Content, Image, Mapping, Snapshot, TestAws};
use tempfile::TempDir;

use crate::support::ec2::assert_same;

/// Records warnings, notes and retries.
#[derive(Default)]
pub struct Recorded(Mutex<Vec<String>>);

impl Recorded {
    /// Returns and removes the recorded lines.
    pub fn take(&self) -> String {
        std::mem::take(&mut *self.0.lock().expect("no panic")).join("\n")
    }
}

impl Observer for Recorded {
    fn note(&self, event: &Event<'_>) {
        let text = match event {
            Event::Warning { message } => format!("warning: {message}"),
            Event::Note { message } => format!("note: {message}"),
            Event::Retried { error, .. } => format!("retried: {error:?}"),
            _ => return,
        };
        self.0.lock().expect("no panic").push(text);
    }
}

/// A server, and the options of connections to it.
pub struct Bench {
    pub aws: TestAws,
    pub runtime: Runtime,
    pub recorded: Arc<Recorded>,
    pub directory: TempDir,
    pub idle_timeout: Duration,
    /// Bytes of memory for data in flight.
    pub memory: u64,
    /// Made once: a new connection takes longer than a request.
    pub connections: OnceLock<(Ec2Connection, EbsConnection)>,
}

impl Bench {
    pub fn new() -> Self {
        let (aws, runtime) = (TestAws::start(), Runtime::new().expect("threads"));
        let directory = TempDir::new().expect("a directory");
        Self {
            aws,
            runtime,
            recorded: Arc::default(),
            directory,
            idle_timeout: Duration::from_millis(500),
            memory: 128 << 20,
            connections: OnceLock::new(),
        }
    }

    /// Options with short waits.
    pub fn options(&self) -> ConnectionOptions {
        ConnectionOptions {
            retry: RetryPolicy {
                max_attempts: 4,
                base: Duration::from_millis(1),
                cap: Duration::from_millis(4),
            },
            idle_timeout: self.idle_timeout,
            bandwidth: None,
            observer: self.recorded.clone(),
            cancel: Cancel::new(),
        }
    }

    fn access(&self) -> Access {
        let credentials = StaticCredentials {
            access_key_id: TestAws::ACCESS_KEY.to_owned(),
            secret_access_key: TestAws::SECRET_KEY.to_owned(),
            session_token: None,
        };
        Access {
            region: Some(self.aws.region()),
            endpoint_url: Some(self.aws.endpoint()),
            credentials: Credentials::Static(credentials),
            ..Access::default()
        }
    }

    fn connections(&self) -> &(Ec2Connection, EbsConnection) {
        self.connections.get_or_init(|| {
            let ec2 = Ec2Connection::open(&self.runtime, self.access(), self.options())
                .expect("a configuration");
            (
                ec2,
                EbsConnection::open(&self.runtime, self.access(), self.options())
                    .expect("a configuration"),
            )
        })
    }

    pub fn ec2(&self) -> Ec2Connection {
        self.connections().0.clone()
    }

    pub fn ebs(&self) -> EbsConnection {
        self.connections().1.clone()
    }

    /// Opens an image, or snapshots, as a source.
    pub fn open(&self, source: &str) -> Result<Ec2Image> {
        let source = Ec2Source::parse(source).expect("a source")?;
        Ec2Image::open(
            &self.ec2(),
            &self.ebs(),
            &Quotas::new(&self.aws.region(), Some(100_000)),
            &source,
            None,
            self.recorded.as_ref(),
        )
    }

    pub fn with_context<T>(&self, work: impl FnOnce(Context<'_>) -> T) -> T {
        let plan = Plan::new(2, self.memory, 1).expect("a plan");
        work(Context { plan: &plan, observer: self.recorded.as_ref(), cancel: &Cancel::new() })
    }

    /// Stores an image, or snapshots, and returns the archive.
    pub fn store(&self, source: &str) -> Result<Vec<u8>> {
        let image = self.open(source)?;
        let store = MemoryStore::default();
        let (key, overwrite, attributes) =
            ("a.bin".to_owned(), Overwrite::No, Attributes::default());
        let target = ObjectTarget {
            store: &store,
            key,
            overwrite,
            attributes,
            at_most: 1 << 30,
            segments: Vec::new(),
            resumption: None,
            on_metadata_change: None,
        };
        let stored = self.with_context(|context| {
            ops::store(&image, ArchiveTarget::Object(target), &PackOptions::default(), context)
        });
        assert_eq!(stored.is_ok(), store.get("a.bin").is_some(), "a whole archive, or none");
        stored?;
        Ok(store.get("a.bin").expect("an archive").to_vec())
    }

    /// A destination with these edits.
    pub fn destination(&self, edits: &Edits) -> Ec2Destination {
        Ec2Destination::new(Ec2Options {
            ec2: self.ec2(),
            ebs: self.ebs(),
            quotas: Quotas::new(&self.aws.region(), Some(100_000)),
            memory: 8 << 20,
            edits: edits.clone(),
            observer: self.recorded.clone(),
        })
    }

    /// The task called `name`.
    pub fn resumption(&self, name: &str) -> Resumption {
        Resumption {
            directory: StateDirectory::new(self.directory.path().join("state")),
            command: vec!["amistore".to_owned(), "restore".to_owned()],
            working_directory: "/".to_owned(),
            source: "archive".to_owned(),
            target: format!("ec2 {name}"),
            restart: false,
        }
    }

    /// Restores an archive with the task `name`.
    pub fn restore(&self, archive: &[u8], name: &str, edits: &Edits) -> Result<Ec2Restored> {
        let reader = MemoryReader::new("a.bin", archive.to_vec());
        let archive = Archive::open(std::sync::Arc::new(reader))?;
        let destination = self.destination(edits);
        let settings = edits.about_snapshots();
        self.with_context(|context| {
            ops::restore_resumable(
                &archive,
                &destination,
                &[&settings],
                &self.resumption(name),
                context,
            )
        })?;
        Ok(destination.restored().expect("a result"))
    }

    /// Restores an archive front to back.
    pub fn restore_stream(&self, archive: &[u8], edits: &Edits) -> Result<Ec2Restored> {
        let destination = self.destination(edits);
        self.with_context(|context| {
            ops::restore_stream(archive, |document| destination.begin(document, None), context)
        })?;
        Ok(destination.restored().expect("a result"))
    }

    /// Number of unfinished tasks.
    pub fn tasks(&self) -> usize {
        ops::describe_tasks(&StateDirectory::new(self.directory.path().join("state")))
            .expect("tasks")
            .len()
    }
}

/// Two volumes: 14 blocks in four cells, and three blocks in two, zeros that were written among
/// them.
pub fn small_image(aws: &TestAws) -> String {
    let root = (0..10).map(|index| (index, Content::random(1)));
    let root = root.chain([
        (12, Content::Zero),
        (40, Content::bytes(b"forty")),
        (41, Content::random(1)),
        (2047, Content::random(1)),
    ]);
    let root = aws.add_snapshot(
        Snapshot { tags: [("kind".to_owned(), "root".to_owned())].into(), ..Snapshot::new(1) }
            .with(root),
    );
    let data = aws.snapshot_of(
        2,
        [(3, Content::bytes(b"three")), (8, Content::Zero), (9, Content::random(1))],
    );
    let mappings = vec![Mapping::of("/dev/xvda", &root), Mapping::of("/dev/sdb", &data)];
    aws.add_image(Image {
        mappings,
        tags: [("team".to_owned(), "blue".to_owned())].into(),
        ..Image::new("small image", &root)
    })
}

/// Blocks of the small image, the zeros among them.
pub const BLOCKS: u64 = 17;

/// A server to restore to, the server of the original image, its id there, and its archive.
pub struct Restoration {
    pub from: Bench,
    pub ami: String,
    pub archive: Vec<u8>,
    pub to: Bench,
}

impl Restoration {
    pub fn new() -> Self {
        let from = Bench::new();
        let ami = small_image(&from.aws);
        let archive = from.store(&ami).expect("an archive");
        Self { from, ami, archive, to: Bench::new() }
    }

    pub fn run(&self) -> Result<Ec2Restored> {
        self.to.restore(&self.archive, "work", &Edits::default())
    }

    /// Asserts that there is exactly one image, equal to the original, and no snapshot besides its
    /// own.
    pub fn assert_restored(&self, restored: &Ec2Restored) {
        let id = restored.image_id.as_ref().expect("an image").as_str();
        let images = self.to.aws.images();
        assert_eq!(images.iter().map(|image| image.id.as_str()).collect::<Vec<_>>(), [id]);
        let mut used: Vec<&str> =
            images[0].mappings.iter().filter_map(|mapping| mapping.snapshot_id()).collect();
        used.sort_unstable();
        let snapshots = self.to.aws.snapshots();
        assert_eq!(snapshots.iter().map(|snapshot| snapshot.id.as_str()).collect::<Vec<_>>(), used);
        assert_same(&self.from.aws, &self.ami, &self.to.aws, id);
        assert_eq!(self.to.tasks(), 0, "what is done is forgotten");
    }

    /// Removes images, snapshots, tasks and faults.
    pub fn reset(&self) {
        self.to.aws.clear_faults();
        self.to.aws.images().iter().for_each(|image| self.to.aws.remove_image(&image.id));
        self.to
            .aws
            .snapshots()
            .iter()
            .for_each(|snapshot| self.to.aws.remove_snapshot(&snapshot.id));
        let _ = std::fs::remove_dir_all(self.to.directory.path().join("state"));
        self.to.aws.reset_calls();
        self.to.recorded.take();
    }
}

/// All text of an error.
pub fn words(error: &Error) -> String {
    format!("{error:?}")
}
