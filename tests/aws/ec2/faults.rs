//! Every kind of fault at the first, middle and last request of every operation: retryable faults
//! are retried, others are reported, and the work can be resumed.

use std::time::{Duration, Instant};

use amistore::internals::aws::ec2::Edits;
use amistore::internals::base::ErrorKind;
use amistore_aws_double::aws::{Content, Fault, FaultKind, Image};

use super::bench::{BLOCKS, Bench, Restoration, small_image, words};

/// Idle timeout of requests. Faults that wait for it are injected once for each operation.
const IDLE_TIMEOUT: Duration = Duration::from_millis(300);

/// Faults of any request and any answer.
fn common() -> Vec<FaultKind> {
    vec![
        FaultKind::Throttle,
        FaultKind::Unavailable,
        FaultKind::BadGateway,
        FaultKind::ExpiredToken,
        FaultKind::Garbage,
        FaultKind::Hang(2 * IDLE_TIMEOUT),
        FaultKind::Reset,
        FaultKind::ResetAfter,
        FaultKind::Truncated,
        FaultKind::Stall(2 * IDLE_TIMEOUT),
        FaultKind::ErrorAfter { status: 500, code: "InternalError".into() },
        FaultKind::error(400, "SomethingNew"),
    ]
}

/// Faults of descriptions and of the control plane: fewer, because all these requests share one
/// client.
fn of_descriptions() -> Vec<FaultKind> {
    let others = [FaultKind::BadGateway, FaultKind::Reset, FaultKind::Stall(2 * IDLE_TIMEOUT)];
    common().into_iter().filter(|kind| !others.contains(kind)).collect()
}

/// Faults of blocks that are read.
fn of_blocks() -> Vec<FaultKind> {
    vec![
        FaultKind::FlipBit,
        FaultKind::WrongChecksum,
        FaultKind::ShortBlock,
        FaultKind::WrongLength,
    ]
}

/// The first, middle and last of `count` requests; only the middle one for faults that take time.
fn positions(kind: &FaultKind, count: u64) -> Vec<u64> {
    if matches!(kind, FaultKind::Hang(_) | FaultKind::Stall(_)) {
        return vec![count.div_ceil(2)];
    }
    let mut positions = vec![1, count.div_ceil(2), count];
    positions.dedup();
    positions
}

/// Whether the fault is not retryable.
fn is_final(kind: &FaultKind) -> bool {
    matches!(kind, FaultKind::Error { status: 400 | 403, .. })
}

fn quick_bench() -> Bench {
    Bench { idle_timeout: IDLE_TIMEOUT, ..Bench::new() }
}

fn store_through_faults(operation: &str, kinds: Vec<FaultKind>) {
    let bench = quick_bench();
    // One volume: EBS allows 50 lists a second.
    let blocks = [0, 1, 2, 9, 10, 300].map(|index| (index, Content::random(1)));
    let snapshot = bench.aws.snapshot_of(1, blocks);
    let ami = bench.aws.add_image(Image::new("one volume", &snapshot));
    let archive = bench.store(&ami).expect("an archive");
    let count = bench.aws.count(operation);
    assert!(count > 0, "{operation} is asked for");
    for kind in kinds {
        for nth in positions(&kind, count) {
            bench.aws.fail(Fault::on(operation, kind.clone()).nth(nth));
            let started = Instant::now();
            let outcome = bench.store(&ami);
            assert!(started.elapsed() < Duration::from_secs(20), "{kind:?}");
            bench.aws.clear_faults();
            match outcome {
                Ok(stored) => assert!(
                    stored == archive || operation.ends_with("Attribute"),
                    "{kind:?} at {nth} changed the archive"
                ),
                Err(error) => {
                    assert!(is_final(&kind), "{kind:?} at {nth}: {}", words(&error));
                    assert!(bench.store(&ami).expect("the next run succeeds") == archive);
                }
            }
        }
    }
}

/// Runs `drill` on several servers in parallel: it mostly waits.
fn in_parallel(operations: &[&'static str], kinds: &[FaultKind], drill: fn(&str, Vec<FaultKind>)) {
    std::thread::scope(|scope| {
        for operation in operations {
            for kinds in kinds.chunks(6) {
                scope.spawn(move || drill(operation, kinds.to_vec()));
            }
        }
    });
}

#[test]
fn a_store_survives_faults_of_lists() {
    in_parallel(&["ListSnapshotBlocks"], &common(), store_through_faults);
}

#[test]
fn a_store_survives_faults_of_blocks() {
    in_parallel(&["GetSnapshotBlock"], &[common(), of_blocks()].concat(), store_through_faults);
}

#[test]
fn a_store_survives_faults_of_descriptions() {
    let operations = [
        "DescribeImages",
        "DescribeSnapshots",
        "DescribeImageAttribute",
        "DescribeSnapshotAttribute",
    ];
    in_parallel(&operations, &of_descriptions(), store_through_faults);
}

fn restore_through_faults(operation: &str, kinds: Vec<FaultKind>) {
    let mut work = Restoration::new();
    work.to.idle_timeout = IDLE_TIMEOUT;
    let restored = work.run().expect("an image");
    work.assert_restored(&restored);
    let count = work.to.aws.count(operation);
    assert!(count > 0, "{operation} is asked for");
    for kind in kinds {
        for nth in positions(&kind, count) {
            work.reset();
            work.to.aws.fail(Fault::on(operation, kind.clone()).nth(nth));
            let started = Instant::now();
            let outcome = work.run();
            assert!(started.elapsed() < Duration::from_secs(20), "{kind:?}");
            work.to.aws.clear_faults();
            let restored = outcome.unwrap_or_else(|error| {
                assert!(is_final(&kind), "{operation} {kind:?} at {nth}: {}", words(&error));
                let sent = work
                    .to
                    .aws
                    .counts()
                    .get("PutSnapshotBlock")
                    .map_or(0, |puts| puts.calls - puts.failed);
                let restored = work.run().unwrap_or_else(|error| {
                    panic!("{operation} {kind:?} at {nth}, again: {}", words(&error))
                });
                let sent_again = work.to.aws.counts()["PutSnapshotBlock"].calls - sent;
                assert!(
                    operation == "PutSnapshotBlock" || sent == 0 || sent_again < BLOCKS,
                    "{operation} {kind:?} at {nth}: sent again"
                );
                restored
            });
            work.assert_restored(&restored);
        }
    }
}

#[test]
fn a_restore_survives_faults_of_the_start() {
    in_parallel(&["StartSnapshot"], &common(), restore_through_faults);
}

#[test]
fn a_restore_survives_faults_of_blocks() {
    in_parallel(
        &["PutSnapshotBlock"],
        &[common(), vec![FaultKind::CorruptUpload, FaultKind::FlipBit]].concat(),
        restore_through_faults,
    );
}

#[test]
fn a_restore_survives_faults_of_the_completion() {
    in_parallel(&["CompleteSnapshot"], &common(), restore_through_faults);
}

#[test]
fn a_restore_survives_faults_of_descriptions() {
    in_parallel(
        &["DescribeSnapshots", "DescribeImages"],
        &of_descriptions(),
        restore_through_faults,
    );
}

#[test]
fn a_restore_survives_faults_of_the_registration() {
    in_parallel(&["RegisterImage"], &of_descriptions(), restore_through_faults);
}

/// Stores while every read of one block fails.
#[track_caller]
fn broken_block(kind: FaultKind) -> (amistore::internals::base::Error, u64) {
    let bench = quick_bench();
    let ami = small_image(&bench.aws);
    let snapshot = bench.aws.image(&ami).expect("an image").mappings[0]
        .snapshot_id()
        .expect("a snapshot")
        .to_owned();
    bench
        .aws
        .fail(Fault::on("GetSnapshotBlock", kind.clone()).snapshot(&snapshot).block(41).always());
    let started = Instant::now();
    let error = bench.store(&ami).expect_err("no archive");
    assert!(started.elapsed() < Duration::from_secs(10));
    let text = words(&error);
    assert!(text.contains(&snapshot) && text.contains("block 41"), "{kind:?}: {text}");
    let requests = bench
        .aws
        .calls()
        .iter()
        .filter(|call| call.operation == "GetSnapshotBlock" && call.block == Some(41))
        .count() as u64;
    (error, requests)
}

#[test]
fn a_block_with_a_permanently_wrong_checksum_is_named() {
    let (error, requests) = broken_block(FaultKind::WrongChecksum);
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", words(&error));
    assert!(
        words(&error).contains("checksum") && (2..=4).contains(&requests),
        "{requests} {}",
        words(&error)
    );
}

#[test]
fn a_block_that_is_always_throttled_is_a_limit_error() {
    let (error, requests) = broken_block(FaultKind::Throttle);
    assert_eq!((error.kind(), requests), (ErrorKind::Limit, 4), "{}", words(&error));
}

#[test]
fn a_block_that_is_always_incomplete_is_named() {
    for kind in [
        FaultKind::ShortBlock,
        FaultKind::WrongLength,
        FaultKind::Truncated,
        FaultKind::Reset,
        FaultKind::Garbage,
    ] {
        let (error, requests) = broken_block(kind.clone());
        assert!(
            matches!(error.kind(), ErrorKind::Io | ErrorKind::Corrupt),
            "{kind:?}: {}",
            words(&error)
        );
        assert!(requests <= 16, "{kind:?}: {requests}");
    }
}

#[test]
fn a_snapshot_that_is_deleted_during_the_store_is_named() {
    let bench = quick_bench();
    let ami = small_image(&bench.aws);
    let snapshot = bench.aws.image(&ami).expect("an image").mappings[0]
        .snapshot_id()
        .expect("a snapshot")
        .to_owned();
    bench.aws.fail(Fault::on("GetSnapshotBlock", FaultKind::Vanish).snapshot(&snapshot).nth(7));
    let error = bench.store(&ami).expect_err("no archive");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{}", words(&error));
    assert!(words(&error).contains(&snapshot), "{}", words(&error));
}

#[test]
fn a_restore_names_the_refused_block_and_the_cause() {
    for (kind, expected) in [
        (FaultKind::Throttle, ErrorKind::Limit),
        (FaultKind::error(500, "InternalServerException"), ErrorKind::Io),
        (FaultKind::error(403, "AccessDeniedException"), ErrorKind::Denied),
        (FaultKind::CorruptUpload, ErrorKind::Io),
    ] {
        let work = Restoration::new();
        work.to.aws.fail(Fault::on("PutSnapshotBlock", kind.clone()).block(41).always());
        let error = work.run().expect_err("no image");
        let text = words(&error);
        assert_eq!(error.kind(), expected, "{text}");
        assert!(
            text.contains("block 41")
                && text.contains("snap-")
                && text.contains("resume_with amistore restore"),
            "{text}"
        );
        assert_eq!(
            (work.to.aws.images().len(), work.to.aws.count("CompleteSnapshot")),
            (0, 0),
            "{kind:?}"
        );
        work.to.aws.clear_faults();
        let restored = work.run().expect("the next run succeeds");
        work.assert_restored(&restored);
    }
}

#[test]
fn a_refused_block_is_reported_by_any_thread() {
    // All sending threads and the confirming thread see the same error.
    for _ in 0..5 {
        let work = Restoration::new();
        work.to.aws.fail(
            Fault::on("PutSnapshotBlock", FaultKind::error(403, "AccessDeniedException")).nth(3),
        );
        let error = work.run().expect_err("no image");
        assert_eq!(error.kind(), ErrorKind::Denied, "{}", words(&error));
    }
}

#[test]
fn a_stream_that_cannot_be_restored_leaves_no_snapshot() {
    for (operation, nth) in [
        ("StartSnapshot", 2),
        ("PutSnapshotBlock", 9),
        ("CompleteSnapshot", 2),
        ("RegisterImage", 1),
        ("RegisterImage", 2),
    ] {
        let work = Restoration::new();
        work.to
            .aws
            .fail(Fault::on(operation, FaultKind::error(403, "AccessDeniedException")).nth(nth));
        work.to.restore_stream(&work.archive, &Edits::default()).expect_err("no image");
        assert_eq!(
            (work.to.aws.images().len(), work.to.aws.snapshots().len()),
            (0, 0),
            "{operation}"
        );
        work.to.aws.clear_faults();
        let restored = work.to.restore_stream(&work.archive, &Edits::default()).expect("an image");
        work.assert_restored(&restored);
    }
}

#[test]
fn a_snapshot_that_cannot_be_deleted_is_named() {
    let work = Restoration::new();
    work.to
        .aws
        .fail(Fault::on("PutSnapshotBlock", FaultKind::error(403, "AccessDeniedException")).nth(5));
    work.to.aws.deny("DeleteSnapshot");
    work.to.restore_stream(&work.archive, &Edits::default()).expect_err("no image");
    let text = work.to.recorded.take();
    let left = work.to.aws.snapshots();
    assert!(
        !left.is_empty()
            && left
                .iter()
                .all(|snapshot| text.contains(&format!("{} was left behind", snapshot.id))),
        "{text}"
    );
}

#[test]
fn a_damaged_stream_leaves_nothing_behind() {
    let work = Restoration::new();
    let mut damaged = work.archive.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let error = work.to.restore_stream(&damaged, &Edits::default()).expect_err("no image");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", words(&error));
    let error =
        work.to.restore_stream(&work.archive[..middle], &Edits::default()).expect_err("no image");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", words(&error));
    assert_eq!((work.to.aws.images().len(), work.to.aws.snapshots().len()), (0, 0));
}
