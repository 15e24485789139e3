//! Every kind of fault at every request of every operation, once and for ever: retryable faults are
//! retried, others are reported, and no wrong byte is left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use amistore::internals::aws::ConnectionOptions;
use amistore::internals::aws::s3::S3Store;
use amistore::internals::base::{Error, ErrorKind, Result, SnapshotId, VolumeSize};
use amistore::internals::engine::{Archive, Depth, Selection};
use amistore::internals::image::ImageDocument;
use amistore::internals::image::ImageWriter;
use amistore::internals::localfs::Overwrite;
use amistore::internals::object::{Attributes, Creation, ObjectStore};
use amistore::internals::ops::{self, ArchiveTarget, ObjectTarget};
use amistore::internals::volume::{BlockSink, MemorySink};
use amistore_aws_double::s3::{Call, Fault, FaultKind, ObjectOptions, When};

use super::setup::{
    BUCKET, Bench, PART, image, store, store_in_parallel, wide_image, with_context,
};
use crate::support::image::TestImage;
use crate::support::wait::wait_until;

/// Operations to which faults are injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Store,
    StoreWithTask,
    ParallelStore,
    ParallelStoreWithTask,
    Copy,
    CopyWithTask,
    Restore,
    Verify,
}

impl Work {
    const ALL: [Self; 8] = [
        Self::Store,
        Self::StoreWithTask,
        Self::ParallelStore,
        Self::ParallelStoreWithTask,
        Self::Copy,
        Self::CopyWithTask,
        Self::Restore,
        Self::Verify,
    ];

    fn has_task(self) -> bool {
        matches!(self, Self::StoreWithTask | Self::ParallelStoreWithTask | Self::CopyWithTask)
    }

    fn writes(self) -> bool {
        !matches!(self, Self::Restore | Self::Verify)
    }
}

/// An operation that is repeated, each time with another fault.
struct Drill {
    work: Work,
    bench: Bench,
    store: S3Store,
    image: TestImage,
    archive: Vec<u8>,
    runs: AtomicU64,
}

impl Drill {
    fn new(work: Work) -> Self {
        Self::with(work, |_| {})
    }

    fn with(work: Work, change: impl FnOnce(&mut ConnectionOptions)) -> Self {
        let parallel = matches!(work, Work::ParallelStore | Work::ParallelStoreWithTask);
        let (bench, image) = (Bench::new(), if parallel { wide_image() } else { image() });
        let archive = image.pack(1, 2);
        bench.server.put_object(
            BUCKET,
            "source.bin",
            archive.clone(),
            ObjectOptions { part_size: Some(PART as usize), ..ObjectOptions::default() },
        );
        let mut options = bench.options();
        change(&mut options);
        let store = bench.store_with(bench.connect(options));
        Self { work, bench, store, image, archive, runs: AtomicU64::new(0) }
    }

    /// An unused key.
    fn fresh_key(&self) -> String {
        format!("target-{}.bin", self.runs.fetch_add(1, Ordering::Relaxed))
    }

    /// Runs the operation, and asserts the result of a success.
    fn run(&self, key: &str) -> Result<()> {
        let resumption = self.work.has_task().then(|| self.bench.resumption(key));
        match self.work {
            Work::Store | Work::StoreWithTask => {
                drop(store(&self.image, &self.store, key, resumption)?);
            }
            Work::ParallelStore | Work::ParallelStoreWithTask => {
                drop(store_in_parallel(&self.image, &self.store, key, resumption)?);
            }
            Work::Copy | Work::CopyWithTask => {
                let reader = self.store.open("source.bin")?;
                let archive = Archive::open(reader)?;
                let (overwrite, attributes) = (Overwrite::No, Attributes::default());
                let target = ArchiveTarget::Object(ObjectTarget {
                    store: &self.store,
                    key: key.to_owned(),
                    overwrite,
                    attributes,
                    at_most: archive.reader().len(),
                    segments: Vec::new(),
                    resumption: resumption.map(Box::new),
                    on_metadata_change: None,
                });
                with_context(|context| ops::copy(&archive, target, Depth::Stored, context))?;
            }
            Work::Restore => {
                let reader = self.store.open("source.bin")?;
                let archive = Archive::open(reader)?;
                let target = Collected::default();
                let restored = with_context(|context| {
                    ops::restore(&archive, Box::new(target.clone()), context)
                });
                let sinks = target.0.lock().expect("no panic");
                for (sink, expected) in sinks.iter().zip(&self.image.blocks) {
                    let blocks = sink.blocks();
                    // Bytes that were written before an error are right as well.
                    assert!(blocks.iter().all(|(block, data)| expected.get(block) == Some(data)));
                    assert!(restored.is_err() || blocks.len() == expected.len());
                }
                assert!(restored.is_err() || sinks.len() == self.image.blocks.len());
                restored?;
            }
            Work::Verify => {
                let reader = self.store.open("source.bin")?;
                let verified = with_context(|context| {
                    ops::verify(reader, Selection::All, Depth::Blocks, context)
                })?;
                if !verified.is_ok() {
                    return Err(Error::corrupt(format!("{:?}", verified.findings)));
                }
            }
        }
        Ok(())
    }

    /// Runs the operation with a fault, and returns the call that it hit, if any.
    fn run_with(&self, key: &str, fault: Fault) -> (Result<()>, Option<Call>) {
        self.bench.server.reset_calls();
        self.bench.server.fail(fault);
        let outcome = self.run(key);
        self.bench.server.clear_faults();
        (outcome, self.bench.server.calls().into_iter().find(|call| call.fault.is_some()))
    }

    /// The calls of a run without a fault: operation and its number. Of parts the first, one in the
    /// middle, and the last.
    fn calls(&self) -> Vec<(&'static str, u64)> {
        self.bench.server.reset_calls();
        let key = self.fresh_key();
        self.run(&key).expect("nothing goes wrong");
        self.check(&key, true, "nothing went wrong");
        let mut counts = BTreeMap::new();
        for call in self.bench.server.calls() {
            *counts.entry(call.operation).or_insert(0) += 1;
        }
        let some = |(operation, count): (&'static str, u64)| {
            (1..=count)
                .filter(move |nth| operation != "UploadPart" || [1, count / 2, count].contains(nth))
                .map(move |nth| (operation, nth))
        };
        counts.into_iter().flat_map(some).collect()
    }

    /// Asserts the invariants after every run. An operation with a task is repeated, and must
    /// succeed then.
    fn check(&self, key: &str, succeeded: bool, what: &str) {
        if !self.work.writes() {
            return;
        }
        let tasks = || self.bench.resumption(key).directory.tasks().expect("lists");
        match self.bench.bytes(key) {
            Some(bytes) => assert!(bytes == self.archive, "{what}: another object"),
            None => assert!(!succeeded, "{what}: no object"),
        }
        if succeeded || !self.work.has_task() {
            assert_eq!(self.bench.open_uploads(), 0, "{what}: an upload is left");
            assert!(tasks().is_empty(), "{what}: a task is left");
            return;
        }
        let known: Vec<String> = ops::describe_tasks(&self.bench.resumption(key).directory)
            .expect("describes")
            .into_iter()
            .flat_map(|task| task.uploads)
            .map(|upload| upload.upload_id)
            .collect();
        for upload in self.bench.server.open_uploads(BUCKET) {
            assert!(
                known.contains(&upload.upload_id),
                "{what}: no task names {}",
                upload.upload_id
            );
        }
        self.run(key).unwrap_or_else(|error| panic!("{what}: it cannot be repeated: {error:?}"));
        self.check(key, true, what);
    }

    /// Asserts that lost connections are closed, and the number of connections is bounded.
    fn check_connections(&self) {
        wait_until("connections to end", || self.bench.server.open_connections() <= 32);
    }
}

#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Vec<MemorySink>>>);

impl ImageWriter for Collected {
    fn create_volume(&mut self, _id: &SnapshotId, _size: VolumeSize) -> Result<Arc<dyn BlockSink>> {
        let sink = MemorySink::default();
        self.0.lock().expect("no panic").push(sink.clone());
        Ok(Arc::new(sink))
    }

    fn commit(self: Box<Self>, _document: &ImageDocument) -> Result<()> {
        Ok(())
    }
}

/// Whether S3 can answer the operation with a fault of this kind.
fn happens(kind: FaultKind, operation: &str) -> bool {
    match kind {
        // Operations whose answer begins before their outcome is known.
        FaultKind::ErrorIn200 => {
            matches!(operation, "CompleteMultipartUpload" | "UploadPartCopy" | "CopyObject")
        }
        // Bits are flipped only in data: other answers are XML, which TLS protects.
        FaultKind::FlipBit => operation == "GetObject",
        FaultKind::NoSuchUpload => {
            matches!(operation, "UploadPart" | "ListParts" | "CompleteMultipartUpload")
        }
        FaultKind::ConditionalRequestConflict => operation == "CompleteMultipartUpload",
        _ => true,
    }
}

/// Every kind of fault at every call, several operations in parallel.
fn at_every_call(
    works: &[Work],
    kinds: &[FaultKind],
    judge: impl Fn(&Call, Result<()>, &str) + Sync,
) {
    std::thread::scope(|scope| {
        for work in works {
            let judge = &judge;
            scope.spawn(move || {
                let drill = Drill::new(*work);
                let calls = drill.calls();
                for kind in kinds {
                    for (operation, nth) in
                        calls.iter().filter(|(operation, _)| happens(*kind, operation))
                    {
                        let key = drill.fresh_key();
                        let (outcome, call) =
                            drill.run_with(&key, Fault::new(*kind, When::CallOf(operation, *nth)));
                        let what = format!("{work:?}: {kind:?} at {operation} {nth}");
                        let call = call.unwrap_or_else(|| panic!("{what}: there was no such call"));
                        let succeeded = outcome.is_ok();
                        judge(&call, outcome, &what);
                        drill.check(&key, succeeded, &what);
                    }
                }
                drill.check_connections();
            });
        }
    });
}

fn succeeds(_call: &Call, outcome: Result<()>, what: &str) {
    outcome.unwrap_or_else(|error| panic!("{what}: {error:?}"));
}

#[test]
fn retryable_answers_are_retried() {
    at_every_call(
        &Work::ALL,
        &[FaultKind::SlowDown, FaultKind::InternalError, FaultKind::ExpiredToken],
        succeeds,
    );
    // Faults with the same meaning.
    let alike = [FaultKind::ServiceUnavailable, FaultKind::BadGateway, FaultKind::RequestTimeout];
    at_every_call(&[Work::StoreWithTask, Work::Restore], &alike, succeeds);
}

#[test]
fn broken_connections_are_retried() {
    let kinds = [FaultKind::Reset, FaultKind::ResetAfter, FaultKind::TruncatedBody];
    at_every_call(&Work::ALL, &kinds, succeeds);
}

#[test]
fn corrupt_uploads_are_sent_again() {
    at_every_call(
        &[Work::Store, Work::ParallelStore, Work::CopyWithTask],
        &[FaultKind::CorruptUpload, FaultKind::ErrorIn200],
        succeeds,
    );
}

#[test]
fn corrupt_downloads_are_read_again() {
    at_every_call(&[Work::Copy, Work::Restore, Work::Verify], &[FaultKind::FlipBit], succeeds);
}

#[test]
fn final_errors_are_reported() {
    let works = [
        Work::Store,
        Work::StoreWithTask,
        Work::ParallelStore,
        Work::ParallelStoreWithTask,
        Work::Copy,
        Work::CopyWithTask,
    ];
    let kinds =
        [FaultKind::AccessDenied, FaultKind::NoSuchUpload, FaultKind::ConditionalRequestConflict];
    at_every_call(&works, &kinds, |call, outcome, what| {
        let Err(error) = outcome else {
            // Requests whose failure is ignored.
            assert!(
                matches!(call.operation, "HeadObject" | "ListParts"),
                "{what}: nothing was said"
            );
            return;
        };
        let kinds: &[ErrorKind] = match call.fault.expect("a fault") {
            FaultKind::AccessDenied => &[ErrorKind::Denied],
            FaultKind::NoSuchUpload => &[ErrorKind::NotFound],
            _ => &[ErrorKind::Io],
        };
        assert!(kinds.contains(&error.kind()), "{what}: {error:?}");
        assert!(error.message().starts_with("cannot "), "{what}: {error:?}");
        assert_eq!(
            error.fact("code"),
            Some(format!("{:?}", call.fault.expect("a fault")).as_str()),
            "{what}: {error:?}"
        );
        // Of several failed requests the error of the first part in order is reported.
        assert!(
            error.fact("request_id").is_some_and(|id| id.starts_with("TESTREQUEST")),
            "{what}: {error:?}"
        );
        assert!(error.fact("object").is_some(), "{what}: {error:?}");
    });
    at_every_call(
        &[Work::Restore, Work::Verify],
        &[FaultKind::AccessDenied],
        |_, outcome, what| {
            let error = outcome.expect_err(what);
            assert_eq!(
                (error.kind(), error.fact("code")),
                (ErrorKind::Denied, Some("AccessDenied")),
                "{what}: {error:?}"
            );
        },
    );
}

#[test]
fn a_request_is_retried_after_the_idle_timeout() {
    std::thread::scope(|scope| {
        for work in [Work::StoreWithTask, Work::Copy, Work::Restore] {
            scope.spawn(move || {
                let drill =
                    Drill::with(work, |options| options.idle_timeout = Duration::from_millis(250));
                drill.calls();
                let operations: BTreeSet<_> =
                    drill.bench.server.calls().iter().map(|call| call.operation).collect();
                for operation in operations {
                    for kind in [
                        FaultKind::Hang(Duration::from_millis(700)),
                        FaultKind::Stall(Duration::from_millis(700)),
                    ] {
                        let key = drill.fresh_key();
                        let (outcome, _) =
                            drill.run_with(&key, Fault::new(kind, When::CallOf(operation, 1)));
                        let what = format!("{work:?}: {kind:?}, {operation}");
                        succeeds(&drill.bench.server.calls()[0], outcome, &what);
                        drill.check(&key, true, &what);
                    }
                }
            });
        }
    });
}

#[test]
fn a_permanent_fault_ends_the_work_soon() {
    let kinds = [
        (FaultKind::SlowDown, ErrorKind::Limit),
        (FaultKind::InternalError, ErrorKind::Io),
        (FaultKind::ServiceUnavailable, ErrorKind::Limit),
        (FaultKind::BadGateway, ErrorKind::Io),
        (FaultKind::Reset, ErrorKind::Io),
        (FaultKind::ResetAfter, ErrorKind::Io),
        (FaultKind::TruncatedBody, ErrorKind::Io),
        (FaultKind::ExpiredToken, ErrorKind::Denied),
    ];
    for work in [Work::StoreWithTask, Work::ParallelStoreWithTask, Work::Restore] {
        let drill = Drill::new(work);
        for (kind, expected) in kinds {
            for operation in ["", "UploadPart", "GetObject"] {
                let when =
                    if operation.is_empty() { When::Every(1) } else { When::EveryOf(operation, 1) };
                let (started, key) = (Instant::now(), drill.fresh_key());
                let (outcome, met) = drill.run_with(&key, Fault::new(kind, when));
                let what = format!("{work:?}: {kind:?} {operation}");
                // An answer without a body cannot be truncated.
                if met.is_none() || (kind, operation) == (FaultKind::TruncatedBody, "UploadPart") {
                    succeeds(&drill.bench.server.calls()[0], outcome, &what);
                    continue;
                }
                let error = outcome.expect_err(&what);
                assert_eq!(error.kind(), expected, "{what}: {error:?}");
                let calls = drill.bench.server.calls().len();
                assert!(
                    calls <= 60 && started.elapsed() < Duration::from_secs(5),
                    "{what}: {calls} calls, {:?}",
                    started.elapsed()
                );
                if kind != FaultKind::ExpiredToken {
                    assert_eq!(error.fact("attempts"), Some("4"), "{what}: {error:?}");
                }
                // An upload whose CreateMultipartUpload was never answered has no known id.
                for upload in drill
                    .bench
                    .server
                    .open_uploads(BUCKET)
                    .iter()
                    .filter(|upload| upload.parts.is_empty())
                {
                    drill.bench.server.drop_upload(BUCKET, &upload.upload_id);
                }
                drill.check(&key, false, &what);
            }
        }
    }
}

#[test]
fn work_resumes_after_a_network_outage() {
    let drill = Drill::new(Work::StoreWithTask);
    drill.bench.server.set_latency(Duration::from_millis(15));
    let key = "a.bin";
    let error = std::thread::scope(|scope| {
        let running = scope.spawn(|| drill.run(key));
        wait_until("a part", || drill.bench.server.count("UploadPart") >= 2);
        drill.bench.server.stop_accepting();
        running.join().expect("no panic").expect_err("there is no network")
    });
    assert_eq!((error.kind(), error.fact("attempts")), (ErrorKind::Io, Some("4")), "{error:?}");
    assert!(error.fact("resume_with").is_some(), "{error:?}");
    drill.bench.server.resume();
    drill.bench.server.set_latency(Duration::ZERO);
    drill.check(key, false, "the network went away");
}

#[test]
fn a_skewed_clock_is_corrected_by_that_of_the_service() {
    for seconds in [-7200, 3600, 86_400] {
        for work in Work::ALL {
            let drill = Drill::new(work);
            drill.bench.server.set_clock_skew(seconds);
            let key = drill.fresh_key();
            drill.run(&key).unwrap_or_else(|error| panic!("{work:?} {seconds}: {error:?}"));
            drill.check(&key, true, "the clock was wrong");
        }
        // Also for answers that have only a status.
        let bench = Bench::new();
        bench.server.set_clock_skew(seconds);
        bench.server.create_bucket_with(
            BUCKET,
            amistore_aws_double::s3::BucketOptions {
                owner: "111122223333".to_owned(),
                ..Default::default()
            },
        );
        let mut options = super::setup::small_parts();
        options.expected_bucket_owner = Some("111122223333".to_owned());
        let store = S3Store::new(bench.connect(bench.options()), BUCKET, options);
        store.preflight("a.bin").unwrap_or_else(|error| panic!("{seconds}: {error:?}"));
    }
}

#[test]
fn a_replaced_part_is_detected_before_the_completion() {
    {
        let drill = Drill::new(Work::Store);
        let mut writer = drill.store.create("a.bin", Creation::default()).expect("creates");
        writer.append(&drill.archive).expect("appends");
        wait_until("all parts but the last", || {
            drill
                .bench
                .server
                .open_uploads(BUCKET)
                .first()
                .is_some_and(|upload| upload.parts.len() == drill.archive.len() / PART as usize)
        });
        let upload = drill.bench.server.open_uploads(BUCKET).remove(0);
        drill.bench.server.corrupt_part(BUCKET, &upload.upload_id, 3);
        let error = writer.commit().expect_err("a part differs");
        assert_eq!((error.kind(), error.fact("part")), (ErrorKind::Io, Some("3")), "{error:?}");
        assert_eq!((drill.bench.open_uploads(), drill.bench.bytes("a.bin")), (0, None));
    }
}

#[test]
fn an_upload_that_cannot_be_aborted_is_named() {
    let drill = Drill::new(Work::Store);
    drill.bench.server.deny("AbortMultipartUpload");
    let mut writer = drill.store.create("a.bin", Creation::default()).expect("creates");
    writer.append(&drill.archive).expect("appends");
    drop(writer);
    let upload = drill.bench.server.open_uploads(BUCKET).remove(0);
    let warnings = drill.bench.recorded.take().warnings;
    assert!(
        warnings.len() == 1
            && warnings[0].contains(&upload.upload_id)
            && warnings[0].contains("abort-multipart-upload"),
        "{warnings:?}"
    );
}
