//! Interrupted stores, copies and restores resume at any point: finished parts are neither read nor
//! sent again, and the result is that of an uninterrupted run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use amistore::internals::base::{
    Cancel, CellAddress, ErrorKind, Event, GROUP_BLOCKS, Observer, Result, TaskKind, VolumeSize,
};
use amistore::internals::checkpoint::TaskHeader;
use amistore::internals::engine::{Archive, Depth, PackOptions};
use amistore::internals::format::BlockMap;
use amistore::internals::image::ImageDocument;
use amistore::internals::image::{DirectoryDestination, ImageSource};
use amistore::internals::localfs::{Durability, Overwrite};
use amistore::internals::object::{Attributes, MemoryReader, ObjectStore};
use amistore::internals::ops::{self, ArchiveTarget, Copied, ObjectTarget, StoreOutcome, Stored};
use amistore::internals::volume::BlockSource;
use amistore_aws_double::s3::{Call, Fault, FaultKind, ObjectOptions, When};

use super::setup::{BUCKET, Bench, PART, image, store, with_cancel, with_context};
use crate::support::image::{BLOCK, Random, TestImage};
use crate::support::wait::wait_until;

/// A volume that records reads.
struct RecordedVolume(Arc<dyn BlockSource>, Arc<Mutex<BTreeSet<u64>>>);

impl BlockSource for RecordedVolume {
    fn size(&self) -> VolumeSize {
        self.0.size()
    }

    fn block_map(&self) -> Result<BlockMap> {
        self.0.block_map()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.1.lock().expect("no panic").insert(offset / BLOCK as u64);
        self.0.read_at(offset, buffer)
    }

    fn check_unchanged(&self) -> Result<()> {
        self.0.check_unchanged()
    }

    fn identity(&self) -> Option<String> {
        self.0.identity()
    }
}

struct RecordedImage {
    document: ImageDocument,
    volumes: Vec<Arc<dyn BlockSource>>,
    read: Vec<Arc<Mutex<BTreeSet<u64>>>>,
}

impl RecordedImage {
    fn new(image: &TestImage) -> Self {
        let read: Vec<Arc<Mutex<BTreeSet<u64>>>> =
            image.volumes().iter().map(|_| Arc::default()).collect();
        let watched = |(volume, read): (&Arc<dyn BlockSource>, &Arc<_>)| {
            Arc::new(RecordedVolume(volume.clone(), Arc::clone(read))) as Arc<dyn BlockSource>
        };
        let volumes = image.volumes().iter().zip(&read).map(watched).collect();
        Self { document: image.document().clone(), volumes, read }
    }

    fn was_read(&self, volume: usize, block: u64) -> bool {
        self.read[volume].lock().expect("no panic").contains(&block)
    }
}

impl ImageSource for RecordedImage {
    fn document(&self) -> &ImageDocument {
        &self.document
    }

    fn volumes(&self) -> &[Arc<dyn BlockSource>] {
        &self.volumes
    }
}

/// Positions of the cells: volume, blocks, and bytes of the archive.
fn cells(archive: &[u8]) -> Vec<(usize, std::ops::Range<u64>, std::ops::Range<u64>)> {
    let reader = MemoryReader::new("a", archive.to_vec());
    let archive = Archive::open(std::sync::Arc::new(reader)).expect("opens");
    let mut cells = Vec::new();
    for entry in &archive.root().groups {
        let mut at = entry.offset;
        for cell in archive.group_index(entry).expect("an index").cells {
            let first =
                u64::from(CellAddress { group: entry.group, index: cell.index }.first_block().0);
            cells.push((
                usize::from(entry.volume),
                first..first + 8,
                at..at + u64::from(cell.cell_len),
            ));
            at += u64::from(cell.cell_len);
        }
    }
    cells
}

/// An image, its archive and a server for tests of resumed stores.
struct ResumedStore {
    bench: Bench,
    image: TestImage,
    archive: Vec<u8>,
}

impl ResumedStore {
    /// The upper bound of the length of an archive of the image.
    fn longest(&self) -> u64 {
        ops::plan_volumes(&self.image).expect("plans").longest_archive
    }

    fn new() -> Self {
        Self::of(image())
    }

    fn of(image: TestImage) -> Self {
        let bench = Bench::new();
        let archive = image.pack(1, 2);
        Self { bench, image, archive }
    }

    fn attempt(&self, key: &str) -> Result<Stored> {
        store(&self.image, &self.bench.store(), key, Some(self.bench.resumption(key)))
    }

    /// Stores until the nth request of the operation, which is denied.
    fn interrupt(&self, key: &str, operation: &'static str, nth: u64) {
        self.bench.server.reset_calls();
        self.bench.server.fail(Fault::new(FaultKind::AccessDenied, When::CallOf(operation, nth)));
        self.attempt(key).expect_err("it is denied");
        self.wait_for_idle();
    }

    /// Waits until no request of the interrupted run is in progress.
    fn wait_for_idle(&self) {
        wait_until("connections to end", || self.bench.server.open_connections() == 0);
        self.bench.server.clear_faults();
    }

    /// Numbers of the parts of the one open upload.
    fn parts(&self) -> BTreeSet<u32> {
        self.bench
            .server
            .open_uploads(BUCKET)
            .first()
            .map(|upload| upload.parts.keys().copied().collect())
            .unwrap_or_default()
    }

    fn state_file(&self, key: &str) -> PathBuf {
        let resumption = self.bench.resumption(key);
        resumption.directory.task_file(&resumption.target)
    }

    fn is_done(&self, key: &str) {
        assert!(self.bench.bytes(key).is_some_and(|bytes| bytes == self.archive), "{key}");
        assert_eq!((self.bench.open_uploads(), self.state_file(key).exists()), (0, false), "{key}");
    }
}

fn sent_parts(calls: &[Call]) -> BTreeSet<u32> {
    calls
        .iter()
        .filter(|call| call.operation == "UploadPart")
        .filter_map(|call| call.part_number)
        .collect()
}

/// Whether these parts hold all bytes of the range.
fn covers(parts: &BTreeSet<u32>, range: &std::ops::Range<u64>) -> bool {
    (range.start / PART..=(range.end - 1) / PART).all(|index| parts.contains(&(index as u32 + 1)))
}

/// Whether one of these parts holds some of the range.
fn touches(parts: &BTreeSet<u32>, range: &std::ops::Range<u64>) -> bool {
    (range.start / PART..=(range.end - 1) / PART).any(|index| parts.contains(&(index as u32 + 1)))
}

#[test]
fn a_store_resumes_after_an_interruption_at_any_request() {
    let site = ResumedStore::new();
    let cells = cells(&site.archive);
    let parts = site.archive.len().div_ceil(PART as usize) as u64;
    assert!((7..=10).contains(&parts), "{parts}");
    let requests = (1..=parts)
        .map(|nth| ("UploadPart", nth))
        .chain([("CreateMultipartUpload", 1), ("CompleteMultipartUpload", 1)]);
    let mut passed = 0;
    for (index, (operation, nth)) in requests.enumerate() {
        let key = format!("{index}.bin");
        site.interrupt(&key, operation, nth);
        let up = site.parts();
        site.bench.server.reset_calls();
        let watched = RecordedImage::new(&site.image);
        store(&watched, &site.bench.store(), &key, Some(site.bench.resumption(&key)))
            .expect("goes on");
        site.is_done(&key);
        let sent = sent_parts(&site.bench.server.calls());
        assert!(sent.is_disjoint(&up), "{operation} {nth}: {up:?} were up, and {sent:?} were sent");
        assert!(sent.len() + up.len() == parts as usize, "{operation} {nth}");
        for (volume, blocks, bytes) in &cells {
            if covers(&up, bytes) {
                passed += 1;
                assert!(
                    !blocks.clone().any(|block| watched.was_read(*volume, block)),
                    "{operation} {nth}: {blocks:?} were read again"
                );
            } else if touches(&sent, bytes) {
                assert!(watched.was_read(*volume, blocks.start), "{operation} {nth}: {blocks:?}");
            }
        }
    }
    assert!(passed > 20, "{passed}");
}

/// Cancels at the nth event.
struct Canceller(Cancel, AtomicU64, u64);

impl Observer for Canceller {
    fn note(&self, _event: &Event<'_>) {
        if self.1.fetch_add(1, Ordering::SeqCst) + 1 == self.2 {
            self.0.cancel();
        }
    }
}

#[test]
fn a_store_resumes_after_a_cancellation_at_any_event() {
    let site = ResumedStore::new();
    let attempt = |key: &str, moment: u64, with_task: bool| -> (Result<Stored>, u64) {
        let cancel = Cancel::new();
        let observer = Arc::new(Canceller(cancel.clone(), AtomicU64::new(0), moment));
        let options = amistore::internals::aws::ConnectionOptions {
            observer: observer.clone(),
            cancel: cancel.clone(),
            ..site.bench.options()
        };
        let bucket = site.bench.store_with(site.bench.connect(options));
        let outcome = with_cancel(&cancel, observer.as_ref(), |context| {
            let resumption = with_task.then(|| site.bench.resumption(key));
            let (overwrite, attributes) = (Overwrite::No, Attributes::default());
            let target = ArchiveTarget::Object(ObjectTarget {
                store: &bucket,
                key: key.to_owned(),
                overwrite,
                attributes,
                at_most: site.longest(),
                segments: Vec::new(),
                resumption: resumption.map(Box::new),
                on_metadata_change: None,
            });
            ops::store(&site.image, target, &PackOptions::default(), context)
        });
        drop(bucket);
        site.wait_for_idle();
        (outcome, observer.1.load(Ordering::SeqCst))
    };
    let (outcome, events) = attempt("all.bin", u64::MAX, true);
    outcome.expect("stores");
    assert!(events > 15, "{events}");
    for moment in 1..=events {
        for with_task in [true, false] {
            let key = format!("{moment}-{with_task}.bin");
            let (outcome, _) = attempt(&key, moment, with_task);
            match outcome {
                // A cancellation at the last event comes too late.
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Interrupted, "event {moment}: {error:?}");
                    // A cancellation during CompleteMultipartUpload may leave the object: this one,
                    // or none.
                    assert!(
                        site.bench.bytes(&key).is_none_or(|bytes| bytes == site.archive),
                        "event {moment}"
                    );
                    if !with_task {
                        assert_eq!(site.bench.open_uploads(), 0, "event {moment}");
                        continue;
                    }
                    let up = site.parts();
                    site.bench.server.reset_calls();
                    site.attempt(&key).expect("goes on");
                    assert!(
                        sent_parts(&site.bench.server.calls()).is_disjoint(&up),
                        "event {moment}"
                    );
                }
            }
            site.is_done(&key);
        }
    }
}

#[test]
fn a_copy_resumes_after_an_interruption_at_any_request() {
    let site = ResumedStore::new();
    let server = &site.bench.server;
    server.put_object(BUCKET, "source.bin", site.archive.clone(), ObjectOptions::default());
    let attempt = |key: &str| -> Result<Copied> {
        let bucket = site.bench.store();
        let reader = bucket.open("source.bin")?;
        let archive = Archive::open(reader)?;
        let (overwrite, attributes, resumption) =
            (Overwrite::No, Attributes::default(), Some(site.bench.resumption(key)));
        let target = ArchiveTarget::Object(ObjectTarget {
            store: &bucket,
            key: key.to_owned(),
            overwrite,
            attributes,
            at_most: archive.reader().len(),
            segments: Vec::new(),
            resumption: resumption.map(Box::new),
            on_metadata_change: None,
        });
        with_context(|context| ops::copy(&archive, target, Depth::Stored, context))
    };
    let fetched = || {
        server
            .calls()
            .iter()
            .filter(|call| call.operation == "GetObject")
            .map(|call| call.bytes_out)
            .sum::<u64>()
    };
    server.reset_calls();
    attempt("whole.bin").expect("copies");
    let all = fetched();
    let parts = site.archive.len().div_ceil(PART as usize) as u64;
    let requests =
        (1..=parts).map(|nth| ("UploadPart", nth)).chain([("CompleteMultipartUpload", 1)]);
    for (index, (operation, nth)) in requests.enumerate() {
        let key = format!("{index}.bin");
        server.fail(Fault::new(FaultKind::AccessDenied, When::CallOf(operation, nth)));
        server.reset_calls();
        attempt(&key).expect_err("it is denied");
        site.wait_for_idle();
        let up = site.parts();
        server.reset_calls();
        attempt(&key).expect("goes on");
        site.is_done(&key);
        assert!(sent_parts(&server.calls()).is_disjoint(&up), "{operation} {nth}");
        assert!(
            up.len() < 5 || fetched() < all,
            "{operation} {nth}: {} of {all} bytes were fetched",
            fetched()
        );
    }
}

#[test]
fn a_truncated_or_corrupt_task_file_only_repeats_work() {
    let site = ResumedStore::new();
    site.interrupt("first.bin", "UploadPart", 6);
    let whole = fs::read(site.state_file("first.bin")).expect("a state file");
    site.attempt("first.bin").expect("goes on");
    assert!(whole.len() > 500);
    let step = whole.len() / 40;
    for (index, cut) in (0..=whole.len()).step_by(step).enumerate() {
        for garble in [false, true] {
            let key = format!("{index}-{garble}.bin");
            site.interrupt(&key, "UploadPart", 6);
            let path = site.state_file(&key);
            let mut bytes = fs::read(&path).expect("a state file");
            let cut = cut.min(bytes.len() - 1);
            if garble {
                bytes[cut] ^= 0x41;
            } else {
                bytes.truncate(cut);
            }
            fs::write(&path, bytes).expect("writes");
            site.attempt(&key).expect("goes on, or begins anew");
            // The upload id is on disk before the first part is sent. Here the record is cut off,
            // so the upload cannot be found.
            for upload in site.bench.server.open_uploads(BUCKET) {
                site.bench.server.drop_upload(BUCKET, &upload.upload_id);
            }
            site.is_done(&key);
        }
    }
}

#[test]
fn a_part_that_differs_from_its_record_is_sent_again() {
    let site = ResumedStore::new();
    site.interrupt("a.bin", "CompleteMultipartUpload", 1);
    let upload = site.bench.server.open_uploads(BUCKET).remove(0);
    site.bench.server.corrupt_part(BUCKET, &upload.upload_id, 2);
    site.bench.server.reset_calls();
    site.attempt("a.bin").expect("goes on");
    assert_eq!(sent_parts(&site.bench.server.calls()), BTreeSet::from([2]));
    site.is_done("a.bin");
}

#[test]
fn a_store_restarts_after_its_upload_was_removed() {
    let site = ResumedStore::new();
    site.interrupt("a.bin", "UploadPart", 5);
    let upload = site.bench.server.open_uploads(BUCKET).remove(0);
    site.bench.server.drop_upload(BUCKET, &upload.upload_id);
    site.bench.recorded.take();
    site.attempt("a.bin").expect("begins anew");
    let warnings = site.bench.recorded.take().warnings;
    assert!(warnings.iter().any(|warning| warning.contains("begins anew")), "{warnings:?}");
    site.is_done("a.bin");
}

#[test]
fn a_changed_image_aborts_the_upload_of_the_old_one() {
    let site = ResumedStore::new();
    site.interrupt("a.bin", "UploadPart", 5);
    let old = site.bench.server.open_uploads(BUCKET).remove(0);
    let mut random = Random(99);
    let changed = TestImage::new(vec![(
        80 * BLOCK as u64,
        BTreeMap::from([(0, random.noise(200 << 10)), (40, random.noise(100 << 10))]),
    )]);
    store(&changed, &site.bench.store(), "a.bin", Some(site.bench.resumption("a.bin")))
        .expect("stores");
    assert!(site.bench.bytes("a.bin").is_some_and(|bytes| bytes == changed.pack(1, 2)));
    assert_eq!(site.bench.open_uploads(), 0, "{}", old.upload_id);
    assert!(!site.state_file("a.bin").exists());
}

#[test]
fn a_store_finds_an_object_that_an_interrupted_run_completed() {
    let site = ResumedStore::new();
    site.interrupt("a.bin", "CompleteMultipartUpload", 1);
    let upload = site.bench.server.open_uploads(BUCKET).remove(0);
    site.bench.server.drop_upload(BUCKET, &upload.upload_id);
    site.bench.server.put_object(BUCKET, "a.bin", site.archive.clone(), ObjectOptions::default());
    site.bench.server.reset_calls();
    let stored = site.attempt("a.bin").expect("is done");
    assert!(matches!(stored.outcome, StoreOutcome::Present { .. }));
    assert_eq!(site.bench.server.count("UploadPart"), 0);
    site.is_done("a.bin");
    // A repetition, then another image under this key.
    assert!(matches!(
        site.attempt("a.bin").expect("is there").outcome,
        StoreOutcome::Present { .. }
    ));
    let other = TestImage::new(vec![(8 * BLOCK as u64, BTreeMap::from([(0, vec![9])]))]);
    let error = store(&other, &site.bench.store(), "a.bin", Some(site.bench.resumption("a.bin")))
        .expect_err("is another");
    assert_eq!((error.kind(), error.fact("content")), (ErrorKind::Exists, Some("another image")));
    site.is_done("a.bin");
}

#[test]
fn two_processes_cannot_run_the_same_task() {
    let site = ResumedStore::new();
    let resumption = site.bench.resumption("a.bin");
    let header = TaskHeader {
        kind: TaskKind::Store,
        command: Vec::new(),
        directory: "/".to_owned(),
        source: "image".to_owned(),
        target: resumption.target.clone(),
        image_id: None,
        started: "2026-01-01T00:00:00Z".to_owned(),
        nonce: String::new(),
        fingerprint: "of another process".to_owned(),
        settings: String::new(),
        expected: 1,
    };
    let locked = resumption
        .directory
        .begin(&resumption.target, &header, false, &|_| Ok(()))
        .expect("begins");
    let error = site.attempt("a.bin").expect_err("another process runs it");
    assert_eq!(error.kind(), ErrorKind::Exists);
    assert!(
        error.message().contains("another process") && error.fact("state_file").is_some(),
        "{error:?}"
    );
    assert_eq!(site.bench.open_uploads(), 0);
    drop(locked);
    site.attempt("a.bin").expect("it gave up");
    site.is_done("a.bin");
}

/// Restores to a directory with a task.
fn restore(site: &ResumedStore, target: &Path) -> Result<()> {
    let reader = site.bench.store().open("source.bin")?;
    let archive = Archive::open(reader)?;
    let destination = DirectoryDestination {
        path: target.to_owned(),
        overwrite: Overwrite::No,
        durability: Durability::Cached,
    };
    let resumption = site.bench.resumption(&target.display().to_string());
    with_context(|context| {
        ops::restore_resumable(&archive, &destination, &[], &resumption, context)
    })
    .map(drop)
}

fn restored_right(site: &ResumedStore, target: &Path) {
    for (index, blocks) in site.image.blocks.iter().enumerate() {
        let volume = fs::File::open(target.join(format!("snap-{index}.raw"))).expect("a volume");
        let mut found = vec![0; BLOCK];
        for (block, expected) in blocks {
            volume.read_exact_at(&mut found, u64::from(*block) * BLOCK as u64).expect("reads");
            assert!(found == *expected, "volume {index} block {block}");
        }
        let metadata = volume.metadata().expect("metadata");
        assert_eq!(metadata.len(), site.image.volumes()[index].size().bytes());
        assert!(
            metadata.blocks() * 512 <= ((blocks.len() + 1) * BLOCK) as u64,
            "something else was written"
        );
    }
    assert!(target.join("image.json").exists());
    let left = crate::support::listing::names(target);
    assert!(left.iter().all(|name| !name.contains("partial")), "{left:?}");
}

#[test]
fn a_restore_resumes_after_an_interruption_at_any_request() {
    // Cells of different groups are fetched by different requests.
    let mut random = Random(12);
    let blocks = (0..7).map(|group| (group * GROUP_BLOCKS, random.noise(60 << 10))).collect();
    let site = ResumedStore::of(TestImage::new(vec![(
        u64::from(7 * GROUP_BLOCKS) * BLOCK as u64,
        blocks,
    )]));
    let server = &site.bench.server;
    server.put_object(BUCKET, "source.bin", site.archive.clone(), ObjectOptions::default());
    let directory = site.bench.directory.path();
    let fetched = || {
        server
            .calls()
            .iter()
            .filter(|call| call.operation == "GetObject")
            .map(|call| call.bytes_out)
            .sum::<u64>()
    };
    server.reset_calls();
    restore(&site, &directory.join("whole")).expect("restores");
    restored_right(&site, &directory.join("whole"));
    let (calls, all) = (server.count("GetObject") as u64, fetched());
    assert!(calls >= 3, "{calls}");
    let mut spared = false;
    for nth in 2..=calls {
        for harm in [false, true] {
            let target = directory.join(format!("{nth}-{harm}"));
            server.reset_calls();
            server.fail(Fault::new(FaultKind::AccessDenied, When::CallOf("GetObject", nth)));
            restore(&site, &target).expect_err("it is denied");
            site.wait_for_idle();
            if harm && target.exists() {
                // Another process writes into the partial volume.
                for name in crate::support::listing::names(&target) {
                    let path = target.join(name);
                    fs::OpenOptions::new()
                        .write(true)
                        .open(path)
                        .and_then(|file| file.write_all_at(b"harm", 5))
                        .expect("writes");
                }
            }
            server.reset_calls();
            restore(&site, &target).expect("goes on");
            restored_right(&site, &target);
            spared |= !harm && fetched() < all;
        }
    }
    assert!(spared, "nothing was spared");
}
