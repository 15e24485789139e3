//! Lets every operation go wrong in every way, at its first, middle and last request: what can be
//! mended is mended, everything else is said, and what is left can be continued.

use std::time::{Duration, Instant};

use amistore::internals::aws::ec2::Edits;
use amistore::internals::base::ErrorKind;
use amistore_aws_double::aws::{Content, Fault, FaultKind, Image};

use super::bench::{BLOCKS, Bench, Restoration, small_image, words};

/// How long a request may be silent. Faults that need it are met once in each drill.
const SILENCE: Duration = Duration::from_millis(300);

/// Faults of any request and any answer.
fn common() -> Vec<FaultKind> {
    vec![
        FaultKind::Throttle,
        FaultKind::Unavailable,
        FaultKind::BadGateway,
        FaultKind::ExpiredToken,
        FaultKind::Garbage,
        FaultKind::Hang(2 * SILENCE),
        FaultKind::Reset,
        FaultKind::ResetAfter,
        FaultKind::Truncated,
        FaultKind::Stall(2 * SILENCE),
        FaultKind::ErrorAfter { status: 500, code: "InternalError".into() },
        FaultKind::error(400, "SomethingNew"),
    ]
}

/// Faults of what only tells something, and of the control plane: fewer, because one request is
/// made like the other.
fn of_descriptions() -> Vec<FaultKind> {
    let others = [FaultKind::BadGateway, FaultKind::Reset, FaultKind::Stall(2 * SILENCE)];
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

/// The first, the middle and the last of so many; of faults that take time only the middle.
fn places(kind: &FaultKind, count: u64) -> Vec<u64> {
    if matches!(kind, FaultKind::Hang(_) | FaultKind::Stall(_)) {
        return vec![count.div_ceil(2)];
    }
    let mut places = vec![1, count.div_ceil(2), count];
    places.dedup();
    places
}

/// Whether another attempt cannot help.
fn is_final(kind: &FaultKind) -> bool {
    matches!(kind, FaultKind::Error { status: 400 | 403, .. })
}

fn quick_bench() -> Bench {
    Bench { silence: SILENCE, ..Bench::new() }
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
        for nth in places(&kind, count) {
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

/// Goes through faults on several servers at a time: it is mostly waiting.
fn side_by_side(operations: &[&'static str], kinds: &[FaultKind], drill: fn(&str, Vec<FaultKind>)) {
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
    side_by_side(&["ListSnapshotBlocks"], &common(), store_through_faults);
}

#[test]
fn a_store_survives_faults_of_blocks() {
    side_by_side(&["GetSnapshotBlock"], &[common(), of_blocks()].concat(), store_through_faults);
}

#[test]
fn a_store_survives_faults_of_descriptions() {
    let operations = [
        "DescribeImages",
        "DescribeSnapshots",
        "DescribeImageAttribute",
        "DescribeSnapshotAttribute",
    ];
    side_by_side(&operations, &of_descriptions(), store_through_faults);
}

fn restore_through_faults(operation: &str, kinds: Vec<FaultKind>) {
    let mut work = Restoration::new();
    work.to.silence = SILENCE;
    let restored = work.run().expect("an image");
    work.assert_restored(&restored);
    let count = work.to.aws.count(operation);
    assert!(count > 0, "{operation} is asked for");
    for kind in kinds {
        for nth in places(&kind, count) {
            work.sweep();
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
    side_by_side(&["StartSnapshot"], &common(), restore_through_faults);
}

#[test]
fn a_restore_survives_faults_of_blocks() {
    side_by_side(
        &["PutSnapshotBlock"],
        &[common(), vec![FaultKind::CorruptUpload, FaultKind::FlipBit]].concat(),
        restore_through_faults,
    );
}

#[test]
fn a_restore_survives_faults_of_the_completion() {
    side_by_side(&["CompleteSnapshot"], &common(), restore_through_faults);
}

#[test]
fn a_restore_survives_faults_of_descriptions() {
    side_by_side(
        &["DescribeSnapshots", "DescribeImages"],
        &of_descriptions(),
        restore_through_faults,
    );
}

#[test]
fn a_restore_survives_faults_of_the_registration() {
    side_by_side(&["RegisterImage"], &of_descriptions(), restore_through_faults);
}

/// Stores while one block goes wrong for ever.
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
    let said = words(&error);
    assert!(said.contains(&snapshot) && said.contains("block 41"), "{kind:?}: {said}");
    let asked = bench
        .aws
        .calls()
        .iter()
        .filter(|call| call.operation == "GetSnapshotBlock" && call.block == Some(41))
        .count() as u64;
    (error, asked)
}

#[test]
fn a_block_whose_checksum_is_always_wrong_ends_the_store_soon_and_by_name() {
    let (error, asked) = broken_block(FaultKind::WrongChecksum);
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", words(&error));
    assert!(
        words(&error).contains("checksum") && (2..=4).contains(&asked),
        "{asked} {}",
        words(&error)
    );
}

#[test]
fn a_block_that_is_always_throttled_ends_the_store_as_a_limit() {
    let (error, asked) = broken_block(FaultKind::Throttle);
    assert_eq!((error.kind(), asked), (ErrorKind::Limit, 4), "{}", words(&error));
}

#[test]
fn a_block_that_never_comes_whole_ends_the_store_by_name() {
    for kind in [
        FaultKind::ShortBlock,
        FaultKind::WrongLength,
        FaultKind::Truncated,
        FaultKind::Reset,
        FaultKind::Garbage,
    ] {
        let (error, asked) = broken_block(kind.clone());
        assert!(
            matches!(error.kind(), ErrorKind::Io | ErrorKind::Corrupt),
            "{kind:?}: {}",
            words(&error)
        );
        assert!(asked <= 16, "{kind:?}: {asked}");
    }
}

#[test]
fn a_snapshot_that_vanishes_half_way_ends_the_store_by_name() {
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
fn a_block_that_is_always_refused_ends_the_restore_with_its_name_and_cause() {
    for (kind, expected) in [
        (FaultKind::Throttle, ErrorKind::Limit),
        (FaultKind::error(500, "InternalServerException"), ErrorKind::Io),
        (FaultKind::error(403, "AccessDeniedException"), ErrorKind::Denied),
        (FaultKind::CorruptUpload, ErrorKind::Io),
    ] {
        let work = Restoration::new();
        work.to.aws.fail(Fault::on("PutSnapshotBlock", kind.clone()).block(41).always());
        let error = work.run().expect_err("no image");
        let said = words(&error);
        assert_eq!(error.kind(), expected, "{said}");
        assert!(
            said.contains("block 41")
                && said.contains("snap-")
                && said.contains("resume_with amistore restore"),
            "{said}"
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
fn a_refused_block_is_told_whoever_is_asked_first() {
    // All threads that send and the one that confirms meet the same failure.
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
    let said = work.to.heard.take();
    let left = work.to.aws.snapshots();
    assert!(
        !left.is_empty()
            && left
                .iter()
                .all(|snapshot| said.contains(&format!("{} was left behind", snapshot.id))),
        "{said}"
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
