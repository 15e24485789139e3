//! Breaks every step once: each read of a source, each write of a sink, each read and write of an
//! archive. The caller gets the error unchanged, and no archive is left.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use amistore::internals::base::{
    Cancel, Error, ErrorKind, NullObserver, Result, SnapshotId, VolumeSize,
};
use amistore::internals::engine::{
    Archive, Context, Depth, PackLog, PackOptions, Plan, Selection, pack,
};
use amistore::internals::format::BlockMap;
use amistore::internals::image::ImageDocument;
use amistore::internals::image::{ImageSource, ImageWriter};
use amistore::internals::object::{
    Creation, MemoryReader, MemoryStore, ObjectReader, ObjectStore, ObjectWriter,
};
use amistore::internals::ops;
use amistore::internals::volume::{BlockSink, BlockSource, MemorySink};

use crate::support::image::{BLOCK, Random, TestImage};

/// Fails at its `n`-th call; counts them.
#[derive(Clone)]
struct Fuse {
    calls: Arc<AtomicU64>,
    at: u64,
}

impl Fuse {
    fn at(at: u64) -> Self {
        Self { calls: Arc::default(), at }
    }

    fn never() -> Self {
        Self::at(0)
    }

    fn burn(&self) -> Result<()> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        if call == self.at { Err(Error::new(ErrorKind::Io, "the fuse blew")) } else { Ok(()) }
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }
}

struct FaultySource {
    inner: Arc<dyn BlockSource>,
    reads: Fuse,
    /// Reads before each check whether the source changed.
    looked_after: AtomicU64,
}

impl BlockSource for FaultySource {
    fn size(&self) -> VolumeSize {
        self.inner.size()
    }

    fn block_map(&self) -> Result<BlockMap> {
        self.inner.block_map()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        std::thread::yield_now();
        self.reads.burn()?;
        self.inner.read_at(offset, buffer)
    }

    fn check_unchanged(&self) -> Result<()> {
        self.looked_after.store(self.reads.calls(), Ordering::SeqCst);
        Ok(())
    }

    fn identity(&self) -> Option<String> {
        self.inner.identity()
    }
}

struct FaultyImage {
    document: ImageDocument,
    sources: Vec<Arc<FaultySource>>,
    volumes: Vec<Arc<dyn BlockSource>>,
}

impl FaultyImage {
    fn new(image: &TestImage, reads: &Fuse) -> Self {
        let faulty = |inner: &Arc<dyn BlockSource>| {
            Arc::new(FaultySource {
                inner: inner.clone(),
                reads: reads.clone(),
                looked_after: AtomicU64::new(0),
            })
        };
        let sources: Vec<_> = image.volumes().iter().map(faulty).collect();
        let volumes = sources.iter().map(|source| source.clone() as Arc<dyn BlockSource>).collect();
        Self { document: image.document().clone(), sources, volumes }
    }
}

impl ImageSource for FaultyImage {
    fn document(&self) -> &ImageDocument {
        &self.document
    }

    fn volumes(&self) -> &[Arc<dyn BlockSource>] {
        &self.volumes
    }
}

struct FaultyWriter {
    inner: Box<dyn ObjectWriter>,
    fuse: Fuse,
}

impl ObjectWriter for FaultyWriter {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.fuse.burn()?;
        self.inner.append(bytes)
    }

    fn commit(self: Box<Self>) -> Result<()> {
        self.fuse.burn()?;
        self.inner.commit()
    }
}

struct FaultyReader {
    inner: MemoryReader,
    fuse: Fuse,
}

impl ObjectReader for FaultyReader {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.fuse.burn()?;
        self.inner.read_at(offset, buffer)
    }
}

struct FaultySink(MemorySink, Fuse);

impl BlockSink for FaultySink {
    fn write_data(&self, offset: u64, data: &[u8], digests: &[[u8; 32]]) -> Result<()> {
        self.1.burn()?;
        self.0.write_data(offset, data, digests)
    }

    fn write_zeros(&self, offset: u64, len: u64) -> Result<()> {
        self.1.burn()?;
        self.0.write_zeros(offset, len)
    }
}

#[derive(Clone)]
struct FaultyTarget {
    fuse: Fuse,
    committed: Arc<Mutex<bool>>,
}

impl FaultyTarget {
    fn new(fuse: Fuse) -> Self {
        Self { fuse, committed: Arc::default() }
    }

    fn committed(&self) -> bool {
        *self.committed.lock().expect("no panic")
    }
}

impl ImageWriter for FaultyTarget {
    fn create_volume(&mut self, _id: &SnapshotId, _size: VolumeSize) -> Result<Arc<dyn BlockSink>> {
        self.fuse.burn()?;
        Ok(Arc::new(FaultySink(MemorySink::default(), self.fuse.clone())))
    }

    fn commit(self: Box<Self>, _document: &ImageDocument) -> Result<()> {
        *self.committed.lock().expect("no panic") = true;
        Ok(())
    }
}

fn image() -> TestImage {
    let mut random = Random(5);
    let mut volume = BTreeMap::new();
    for block in 0..50 {
        match random.below(4) {
            0 => volume.insert(block, vec![0]),
            1 => None,
            _ => volume.insert(block, random.text(BLOCK / 4)),
        };
    }
    TestImage::new(vec![(50 * BLOCK as u64, volume.clone()), (60 * BLOCK as u64, volume)])
}

fn with_context<T>(work: impl FnOnce(Context<'_>) -> T) -> T {
    // Little memory, so that the feeder waits for it.
    let plan = Plan::new(2, 60 << 20, 1).expect("a plan");
    work(Context { plan: &plan, observer: &NullObserver, cancel: &Cancel::new() })
}

fn store(image: &FaultyImage, writes: &Fuse) -> (Result<()>, MemoryStore) {
    let store = MemoryStore::default();
    let inner = store.create("a.bin", Creation::default()).expect("creates");
    let writer = Box::new(FaultyWriter { inner, fuse: writes.clone() });
    let result = with_context(|context| {
        pack(image, &PackOptions::default(), writer, PackLog::none(), context)
    });
    (result.map(|_| ()), store)
}

#[test]
fn a_failed_read_is_the_error_and_leaves_no_archive() {
    let image = image();
    let all = Fuse::never();
    store(&FaultyImage::new(&image, &all), &Fuse::never()).0.expect("nothing fails");
    assert!(all.calls() > 10);
    for n in 1..=all.calls() {
        let (result, store) = store(&FaultyImage::new(&image, &Fuse::at(n)), &Fuse::never());
        let error = result.expect_err("a read failed");
        assert_eq!((error.kind(), error.message()), (ErrorKind::Io, "the fuse blew"), "read {n}");
        assert!(error.fact("blocks").is_some(), "{error:?}");
        assert!(store.get("a.bin").is_none(), "read {n}");
    }
}

#[test]
fn a_failed_write_is_the_error_and_leaves_no_archive() {
    let image = image();
    let all = Fuse::never();
    store(&FaultyImage::new(&image, &Fuse::never()), &all).0.expect("nothing fails");
    for n in 1..=all.calls() {
        let (result, store) = store(&FaultyImage::new(&image, &Fuse::never()), &Fuse::at(n));
        assert_eq!(result.expect_err("a write failed").message(), "the fuse blew", "write {n}");
        assert!(store.get("a.bin").is_none(), "write {n}");
    }
}

#[test]
fn a_source_is_checked_again_after_its_last_read() {
    let image = image();
    let reads = Fuse::never();
    let faulty = FaultyImage::new(&image, &reads);
    store(&faulty, &Fuse::never()).0.expect("stores");
    let last = faulty.sources.last().expect("a volume");
    assert_eq!(last.looked_after.load(Ordering::SeqCst), reads.calls());
}

#[test]
fn a_failing_read_of_the_archive_is_an_error_and_never_damage() {
    let archive = image().pack(1, 1);
    let attempt = |fuse: &Fuse| -> (Result<()>, bool) {
        let reader =
            FaultyReader { inner: MemoryReader::new("a", archive.clone()), fuse: fuse.clone() };
        let target = FaultyTarget::new(Fuse::never());
        let result = Archive::open(std::sync::Arc::new(reader)).and_then(|archive| {
            with_context(|context| ops::restore(&archive, Box::new(target.clone()), context))
        });
        (result.map(|_| ()), target.committed())
    };
    let all = Fuse::never();
    assert!(attempt(&all).1);
    for n in 1..=all.calls() {
        let (result, committed) = attempt(&Fuse::at(n));
        assert_eq!(result.expect_err("a read failed").kind(), ErrorKind::Io, "read {n}");
        assert!(!committed, "read {n}");
    }
    let verify = |fuse: &Fuse| {
        let reader =
            FaultyReader { inner: MemoryReader::new("a", archive.clone()), fuse: fuse.clone() };
        with_context(|context| {
            ops::verify(std::sync::Arc::new(reader), Selection::All, Depth::Blocks, context)
        })
    };
    let all = Fuse::never();
    assert!(verify(&all).expect("verifies").is_ok());
    for n in 1..=all.calls() {
        assert_eq!(
            verify(&Fuse::at(n)).expect_err("a read failed").kind(),
            ErrorKind::Io,
            "read {n}"
        );
    }
}

#[test]
fn a_failed_sink_is_the_error_and_nothing_is_committed() {
    let archive = image().pack(1, 1);
    let ranged = |fuse: &Fuse| -> (Result<()>, bool) {
        let reader = MemoryReader::new("a", archive.clone());
        let target = FaultyTarget::new(fuse.clone());
        let opened = Archive::open(std::sync::Arc::new(reader)).expect("opens");
        let result =
            with_context(|context| ops::restore(&opened, Box::new(target.clone()), context));
        (result.map(|_| ()), target.committed())
    };
    let streamed = |fuse: &Fuse| -> (Result<()>, bool) {
        let target = FaultyTarget::new(fuse.clone());
        let begun = target.clone();
        let result = with_context(|context| {
            ops::restore_stream(&archive[..], |_| Ok(Box::new(begun)), context)
        });
        (result.map(|_| ()), target.committed())
    };
    for restore in [&ranged as &dyn Fn(&Fuse) -> (Result<()>, bool), &streamed] {
        let all = Fuse::never();
        assert!(restore(&all).1);
        for n in 1..=all.calls() {
            let (result, committed) = restore(&Fuse::at(n));
            assert_eq!(result.expect_err("a write failed").message(), "the fuse blew", "call {n}");
            assert!(!committed, "call {n}");
        }
    }
}

#[test]
fn cancelling_at_any_moment_leaves_no_archive() {
    struct Canceller(Cancel, AtomicU64, u64);
    impl amistore::internals::base::Observer for Canceller {
        fn note(&self, _event: &amistore::internals::base::Event<'_>) {
            if self.1.fetch_add(1, Ordering::SeqCst) + 1 == self.2 {
                self.0.cancel();
            }
        }
    }
    let image = image();
    let plan = Plan::new(2, 60 << 20, 1).expect("a plan");
    for moment in 1..16 {
        let (store, cancel) = (MemoryStore::default(), Cancel::new());
        let observer = Canceller(cancel.clone(), AtomicU64::new(0), moment);
        let writer = store.create("a.bin", Creation::default()).expect("creates");
        let error = pack(
            &image,
            &PackOptions::default(),
            writer,
            PackLog::none(),
            Context { plan: &plan, observer: &observer, cancel: &cancel },
        )
        .expect_err("cancelled");
        assert_eq!(error.kind(), ErrorKind::Interrupted, "event {moment}");
        assert!(store.get("a.bin").is_none(), "event {moment}");
    }
}
