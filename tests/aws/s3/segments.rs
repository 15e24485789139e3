//! Parallel uploads of volumes as segments: the object is that of a sequential upload, for volumes
//! of any length and after any number of interruptions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use amistore::internals::aws::s3::{Checksum, ObjectOptions};
use amistore::internals::base::{Cancel, ErrorKind, Event, Observer, Result, VolumeSize};
use amistore::internals::engine::PackOptions;
use amistore::internals::format::BlockMap;
use amistore::internals::image::ImageDocument;
use amistore::internals::image::ImageSource;
use amistore::internals::localfs::Overwrite;
use amistore::internals::object::Attributes;
use amistore::internals::ops::{self, ArchiveTarget, ObjectTarget};
use amistore::internals::volume::BlockSource;
use amistore_aws_double::s3::{Fault, FaultKind, When};

use super::setup::{
    BUCKET, Bench, PART, small_parts, store, store_in_parallel, wide_image, with_cancel,
};
use crate::support::image::{BLOCK, Random, TestImage};
use crate::support::wait::wait_until;

/// Numbers of all uploaded parts, repeated for each upload of a part.
fn sent_parts(bench: &Bench) -> Vec<u32> {
    let mut sent_parts: Vec<u32> = bench
        .server
        .calls()
        .iter()
        .filter(|call| call.operation == "UploadPart")
        .filter_map(|call| call.part_number)
        .collect();
    sent_parts.sort_unstable();
    sent_parts
}

fn uploaded_parts(bench: &Bench) -> BTreeSet<u32> {
    bench
        .server
        .open_uploads(BUCKET)
        .first()
        .map(|upload| upload.parts.keys().copied().collect())
        .unwrap_or_default()
}

fn wait_for_idle(bench: &Bench) {
    wait_until("connections to end", || bench.server.open_connections() == 0);
    bench.server.clear_faults();
}

fn is_done(bench: &Bench, key: &str, archive: &[u8]) {
    let resumption = bench.resumption(key);
    assert!(bench.bytes(key).is_some_and(|bytes| bytes == archive), "{key}");
    assert_eq!(
        (bench.open_uploads(), resumption.directory.task_file(&resumption.target).exists()),
        (0, false),
        "{key}"
    );
}

#[test]
fn a_parallel_upload_makes_the_same_object_for_volumes_of_any_length() {
    let bench = Bench::new();
    let mut random = Random(21);
    let mut with_gaps = 0;
    for round in 0..40 {
        let volumes = (0..=random.below(8)).map(|_| {
            let cells = [0, 1, 1, 2, 6][random.below(5) as usize];
            let noise = [100, 3 << 10, 12 << 10, 30 << 10, 60 << 10][random.below(5) as usize];
            (
                80 * BLOCK as u64,
                (0..cells).map(|cell| (8 * cell, random.noise(noise))).collect::<BTreeMap<_, _>>(),
            )
        });
        let image = TestImage::new(volumes.collect());
        // Memory for one volume at a time, for some, and for all.
        let memory = [4, 6, 9, 40][round % 4] * PART;
        let bucket =
            bench.store().with_options(ObjectOptions { part_memory: memory, ..small_parts() });
        let key = format!("{round}.bin");
        bench.server.reset_calls();
        store_in_parallel(&image, &bucket, &key, (round % 2 == 0).then(|| bench.resumption(&key)))
            .expect("stores");
        assert!(bench.bytes(&key).is_some_and(|bytes| bytes == image.pack(1, 2)), "round {round}");
        let sent_parts = sent_parts(&bench);
        assert!(
            sent_parts.windows(2).all(|pair| pair[0] < pair[1]),
            "round {round}: each part once"
        );
        with_gaps += u32::from(!sent_parts.iter().copied().eq(1..=sent_parts.len() as u32));
        assert_eq!(bench.open_uploads(), 0);
    }
    assert!(with_gaps > 20, "{with_gaps}");
}

#[test]
fn only_the_last_part_is_shorter_than_planned() {
    let bench = Bench::new();
    bench.server.set_min_part_size(PART);
    let image = wide_image();
    store_in_parallel(&image, &bench.store(), "a.bin", None).expect("stores");
    let parts = bench.server.object(BUCKET, "a.bin").expect("an object").parts.expect("parts");
    assert!(
        parts.len() > 4
            && parts[..parts.len() - 1].iter().all(|len| (PART..2 * PART).contains(len)),
        "{parts:?}"
    );
    assert!(bench.bytes("a.bin").is_some_and(|bytes| bytes == image.pack(1, 2)));
}

#[test]
fn a_parallel_upload_with_a_kms_key_resumes() {
    let (bench, image) = (Bench::new(), wide_image());
    let archive = image.pack(1, 2);
    let bucket = || {
        bench
            .store()
            .with_options(ObjectOptions { sse: Some("aws:kms".to_owned()), ..small_parts() })
    };
    bench.server.fail(Fault::new(FaultKind::AccessDenied, When::CallOf("UploadPart", 4)));
    store_in_parallel(&image, &bucket(), "a.bin", Some(bench.resumption("a.bin")))
        .expect_err("it is denied");
    wait_for_idle(&bench);
    let uploaded_parts = uploaded_parts(&bench);
    bench.server.reset_calls();
    store_in_parallel(&image, &bucket(), "a.bin", Some(bench.resumption("a.bin")))
        .expect("goes on");
    is_done(&bench, "a.bin", &archive);
    assert!(
        !uploaded_parts.is_empty()
            && sent_parts(&bench).iter().all(|part| !uploaded_parts.contains(part))
    );
}

#[test]
fn a_parallel_upload_resumes_after_an_interruption_at_any_request() {
    let (bench, image) = (Bench::new(), wide_image());
    let archive = image.pack(1, 2);
    store_in_parallel(&image, &bench.store(), "all.bin", Some(bench.resumption("all.bin")))
        .expect("stores");
    let parts = sent_parts(&bench).len() as u64;
    let requests = (1..=parts)
        .map(|nth| ("UploadPart", nth))
        .chain([("CreateMultipartUpload", 1), ("CompleteMultipartUpload", 1)]);
    let mut continued = 0;
    for (index, (operation, nth)) in requests.enumerate() {
        // The next run has memory for fewer volumes, or for more.
        for memory in [4, 8, 40] {
            let key = format!("{index}-{memory}.bin");
            bench.server.reset_calls();
            bench.server.fail(Fault::new(FaultKind::AccessDenied, When::CallOf(operation, nth)));
            store_in_parallel(&image, &bench.store(), &key, Some(bench.resumption(&key)))
                .expect_err("it is denied");
            wait_for_idle(&bench);
            let uploaded_parts = uploaded_parts(&bench);
            bench.server.reset_calls();
            let bucket = bench
                .store()
                .with_options(ObjectOptions { part_memory: memory * PART, ..small_parts() });
            store_in_parallel(&image, &bucket, &key, Some(bench.resumption(&key)))
                .expect("goes on");
            is_done(&bench, &key, &archive);
            let sent_parts = sent_parts(&bench);
            assert!(
                sent_parts.iter().all(|part| !uploaded_parts.contains(part)),
                "{operation} {nth}: {uploaded_parts:?} were up, and {sent_parts:?} were sent"
            );
            assert_eq!(
                (sent_parts.len() + uploaded_parts.len()) as u64,
                parts,
                "{operation} {nth}"
            );
            continued += uploaded_parts.len();
        }
    }
    assert!(continued > 50, "{continued}");
}

#[test]
fn a_parallel_upload_finishes_after_many_interruptions() {
    let (bench, image) = (Bench::new(), wide_image());
    let archive = image.pack(1, 2);
    let mut attempts = 0;
    loop {
        attempts += 1;
        assert!(attempts < 40, "it does not get on");
        bench.server.reset_calls();
        // Every second UploadPart is refused.
        bench.server.fail(Fault::new(FaultKind::AccessDenied, When::CallOf("UploadPart", 2)));
        let outcome =
            store_in_parallel(&image, &bench.store(), "a.bin", Some(bench.resumption("a.bin")));
        wait_for_idle(&bench);
        if outcome.is_ok() {
            break;
        }
    }
    assert!(attempts > 3, "{attempts}");
    is_done(&bench, "a.bin", &archive);
}

#[test]
fn a_parallel_upload_restarts_after_its_upload_was_removed() {
    let (bench, image) = (Bench::new(), wide_image());
    let archive = image.pack(1, 2);
    for round in 0..3 {
        let key = format!("{round}.bin");
        bench.server.reset_calls();
        bench.server.fail(Fault::new(FaultKind::AccessDenied, When::CallOf("UploadPart", 4)));
        store_in_parallel(&image, &bench.store(), &key, Some(bench.resumption(&key)))
            .expect_err("it is denied");
        wait_for_idle(&bench);
        let upload = bench.server.open_uploads(BUCKET).remove(0);
        bench.server.drop_upload(BUCKET, &upload.upload_id);
        if round == 1 {
            // The second run is interrupted as well: the cells that the first run recorded are not
            // in its upload.
            bench.server.reset_calls();
            bench.server.fail(Fault::new(FaultKind::AccessDenied, When::CallOf("UploadPart", 5)));
            store_in_parallel(&image, &bench.store(), &key, Some(bench.resumption(&key)))
                .expect_err("it is denied");
            wait_for_idle(&bench);
        }
        store_in_parallel(&image, &bench.store(), &key, Some(bench.resumption(&key)))
            .expect("begins anew");
        is_done(&bench, &key, &archive);
    }
}

#[test]
fn a_sequential_upload_does_not_resume_as_a_parallel_one() {
    let (bench, image) = (Bench::new(), wide_image());
    bench.server.fail(Fault::new(FaultKind::AccessDenied, When::CallOf("UploadPart", 4)));
    store(&image, &bench.store(), "a.bin", Some(bench.resumption("a.bin")))
        .expect_err("it is denied");
    wait_for_idle(&bench);
    let uploaded_parts = uploaded_parts(&bench);
    let error = store_in_parallel(&image, &bench.store(), "a.bin", Some(bench.resumption("a.bin")))
        .expect_err("other settings");
    assert_eq!(error.kind(), ErrorKind::Usage, "{error:?}");
    assert_eq!(self::uploaded_parts(&bench), uploaded_parts, "nothing is lost");
    store(&image, &bench.store(), "a.bin", Some(bench.resumption("a.bin"))).expect("goes on");
    is_done(&bench, "a.bin", &image.pack(1, 2));
}

/// Cancels at the nth event.
struct Canceller(Cancel, Mutex<u64>);

impl Observer for Canceller {
    fn note(&self, _event: &Event<'_>) {
        let mut left = self.1.lock().expect("no panic");
        *left = left.saturating_sub(1);
        if *left == 0 {
            self.0.cancel();
        }
    }
}

#[test]
fn a_parallel_upload_resumes_after_a_cancellation_at_any_event() {
    let (bench, image) = (Bench::new(), wide_image());
    let archive = image.pack(1, 2);
    let attempt = |key: &str, moment: u64, with_task: bool| -> Result<()> {
        let cancel = Cancel::new();
        let observer = Arc::new(Canceller(cancel.clone(), Mutex::new(moment)));
        let options = amistore::internals::aws::ConnectionOptions {
            observer: observer.clone(),
            cancel: cancel.clone(),
            ..bench.options()
        };
        let bucket = bench
            .store_with(bench.connect(options))
            .with_options(ObjectOptions { checksum: Some(Checksum::Md5), ..small_parts() });
        let outcome = with_cancel(&cancel, observer.as_ref(), |context| {
            let planned = ops::plan_volumes(&image)?;
            let target = ArchiveTarget::Object(ObjectTarget {
                store: &bucket,
                key: key.to_owned(),
                overwrite: Overwrite::No,
                attributes: Attributes::default(),
                at_most: planned.longest_archive,
                segments: planned.segments(),
                resumption: with_task.then(|| Box::new(bench.resumption(key))),
                on_metadata_change: None,
            });
            ops::store(&image, target, &PackOptions::default(), context)
        });
        drop(bucket);
        wait_for_idle(&bench);
        outcome.map(drop)
    };
    let mut interrupted = 0;
    for moment in 1..60 {
        for with_task in [true, false] {
            let key = format!("{moment}-{with_task}.bin");
            if let Err(error) = attempt(&key, moment, with_task) {
                interrupted += 1;
                assert_eq!(error.kind(), ErrorKind::Interrupted, "event {moment}: {error:?}");
                assert!(bench.bytes(&key).is_none_or(|bytes| bytes == archive), "event {moment}");
                if !with_task {
                    assert_eq!(bench.open_uploads(), 0, "event {moment}");
                    continue;
                }
                let uploaded_parts = uploaded_parts(&bench);
                bench.server.reset_calls();
                attempt(&key, u64::MAX, true)
                    .unwrap_or_else(|error| panic!("event {moment}: {error:?}"));
                assert!(
                    sent_parts(&bench).iter().all(|part| !uploaded_parts.contains(part)),
                    "event {moment}"
                );
            }
            is_done(&bench, &key, &archive);
        }
    }
    assert!(interrupted > 30, "{interrupted}");
}

#[test]
fn an_upload_whose_id_arrives_after_the_interruption_is_recorded() {
    // The answer comes late, or not at all: requests wait for at most one second here.
    for millis in [700, 3000] {
        interrupt_during_create_multipart_upload(FaultKind::Late(
            std::time::Duration::from_millis(millis),
        ));
    }
}

fn interrupt_during_create_multipart_upload(fault: FaultKind) {
    let (bench, image) = (Bench::new(), wide_image());
    bench.server.fail(Fault::new(fault, When::CallOf("CreateMultipartUpload", 1)));
    let cancel = Cancel::new();
    let bucket = bench.store_with(bench.connect(amistore::internals::aws::ConnectionOptions {
        cancel: cancel.clone(),
        ..bench.options()
    }));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            wait_until("it to be begun", || bench.open_uploads() == 1);
            cancel.cancel();
        });
        let error = with_cancel(&cancel, &amistore::internals::base::NullObserver, |context| {
            let target = ArchiveTarget::Object(ObjectTarget {
                store: &bucket,
                key: "a.bin".to_owned(),
                overwrite: Overwrite::No,
                attributes: Attributes::default(),
                at_most: ops::plan_volumes(&image)?.longest_archive,
                segments: Vec::new(),
                resumption: None,
                on_metadata_change: None,
            });
            ops::store(&image, target, &PackOptions::default(), context)
        });
        assert_eq!(error.expect_err("it is interrupted").kind(), ErrorKind::Interrupted);
    });
    assert_eq!(
        (bench.open_uploads(), bench.server.count("AbortMultipartUpload")),
        (0, 1),
        "{fault:?}"
    );
}

/// Volumes whose reads wait until all volumes are read, or of which one fails.
struct ConcurrentImage {
    volumes: Vec<Arc<dyn BlockSource>>,
    document: ImageDocument,
}

struct ConcurrentVolume {
    inner: Arc<dyn BlockSource>,
    /// The barrier at which concurrent reads wait for each other.
    barrier: Option<Arc<std::sync::Barrier>>,
    met: Mutex<bool>,
}

impl BlockSource for ConcurrentVolume {
    fn size(&self) -> VolumeSize {
        self.inner.size()
    }

    fn block_map(&self) -> Result<BlockMap> {
        self.inner.block_map()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        match &self.barrier {
            None => {
                return Err(amistore::internals::base::Error::new(
                    ErrorKind::Io,
                    "the volume is gone",
                ));
            }
            Some(barrier) => {
                let first = !std::mem::replace(&mut *self.met.lock().expect("no panic"), true);
                if first {
                    barrier.wait();
                }
            }
        }
        self.inner.read_at(offset, buffer)
    }

    fn check_unchanged(&self) -> Result<()> {
        Ok(())
    }

    fn identity(&self) -> Option<String> {
        self.inner.identity()
    }
}

impl ConcurrentImage {
    fn of(image: &TestImage, barrier: impl Fn(usize) -> Option<Arc<std::sync::Barrier>>) -> Self {
        let met = |(index, volume): (usize, &Arc<dyn BlockSource>)| {
            Arc::new(ConcurrentVolume {
                inner: volume.clone(),
                barrier: barrier(index),
                met: Mutex::new(false),
            }) as Arc<dyn BlockSource>
        };
        Self {
            volumes: image.volumes().iter().enumerate().map(met).collect(),
            document: image.document().clone(),
        }
    }
}

impl ImageSource for ConcurrentImage {
    fn document(&self) -> &ImageDocument {
        &self.document
    }

    fn volumes(&self) -> &[Arc<dyn BlockSource>] {
        &self.volumes
    }
}

#[test]
fn a_parallel_upload_reads_volumes_concurrently() {
    let mut random = Random(5);
    let volumes = (0..3).map(|_| {
        (80 * BLOCK as u64, (0..6).map(|cell| (8 * cell, random.noise(20 << 10))).collect())
    });
    let (bench, image) = (Bench::new(), TestImage::new(volumes.collect()));
    let barrier = Arc::new(std::sync::Barrier::new(3));
    let meeting = ConcurrentImage::of(&image, |_| Some(barrier.clone()));
    // Sequential reads would wait for ever.
    store_in_parallel(&meeting, &bench.store(), "a.bin", None).expect("stores");
    assert!(bench.bytes("a.bin").is_some_and(|bytes| bytes == image.pack(1, 2)));
}

#[test]
fn a_failed_volume_ends_a_parallel_upload_and_is_named() {
    let (bench, image) = (Bench::new(), wide_image());
    let alone = Arc::new(std::sync::Barrier::new(1));
    for failing in 0..7 {
        let key = format!("{failing}.bin");
        let meeting =
            ConcurrentImage::of(&image, |index| (index != failing).then(|| alone.clone()));
        for resumption in [None, Some(bench.resumption(&key))] {
            let with_task = resumption.is_some();
            let error = store_in_parallel(&meeting, &bench.store(), &key, resumption)
                .expect_err("a volume is gone");
            assert_eq!(
                (error.kind(), error.message()),
                (ErrorKind::Io, "the volume is gone"),
                "{error:?}"
            );
            assert_eq!(
                error.fact("snapshot"),
                Some(format!("snap-{failing}").as_str()),
                "{error:?}"
            );
            assert!(with_task || bench.open_uploads() == 0);
            assert!(bench.bytes(&key).is_none());
        }
        store_in_parallel(&image, &bench.store(), &key, Some(bench.resumption(&key)))
            .expect("goes on");
        is_done(&bench, &key, &image.pack(1, 2));
    }
}

#[test]
fn a_checksum_without_gaps_is_refused_before_a_parallel_upload() {
    let (bench, image) = (Bench::new(), wide_image());
    let error = with_cancel(&Cancel::new(), &amistore::internals::base::NullObserver, |context| {
        let bucket = bench
            .store()
            .with_options(ObjectOptions { checksum: Some(Checksum::Crc32c), ..small_parts() });
        let planned = ops::plan_volumes(&image)?;
        let target = ArchiveTarget::Object(ObjectTarget {
            store: &bucket,
            key: "a.bin".to_owned(),
            overwrite: Overwrite::No,
            attributes: Attributes::default(),
            at_most: planned.longest_archive,
            segments: planned.segments(),
            resumption: None,
            on_metadata_change: None,
        });
        ops::store(&image, target, &PackOptions::default(), context)
    });
    assert_eq!(error.expect_err("refused").kind(), ErrorKind::Usage);
    assert_eq!((bench.open_uploads(), sent_parts(&bench).len()), (0, 0));
}
