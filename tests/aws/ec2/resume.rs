//! Interrupted restores resume at any point: confirmed blocks are not sent again, and exactly one
//! image is registered.

use std::collections::BTreeMap;
use std::time::Duration;

use amistore::internals::aws::ec2::{DeviceChange, DeviceEdit, Edits};
use amistore::internals::base::ErrorKind;
use amistore_aws_double::aws::{Content, Fault, FaultKind, Image, VisibleAfter};

use super::bench::{BLOCKS, Bench, Restoration, words};

/// Confirmations of each block, by snapshot and index.
fn confirmed(bench: &Bench) -> BTreeMap<(String, u32), usize> {
    let mut sent = BTreeMap::new();
    for call in bench.aws.calls() {
        if let ("PutSnapshotBlock", Some(snapshot), Some(block), true) =
            (call.operation.as_str(), call.snapshot, call.block, call.status == 201)
        {
            *sent.entry((snapshot, block)).or_insert(0) += 1;
        }
    }
    sent
}

fn denied(operation: &str) -> Fault {
    Fault::on(operation, FaultKind::error(403, "AccessDeniedException"))
}

/// Lets RegisterImage fail after all snapshots are complete. The dry run before the first block
/// succeeds.
fn deny_registration(bench: &Bench) {
    bench.aws.fail(Fault::on("RegisterImage", FaultKind::error(400, "SomethingNew")).nth(2));
}

#[test]
fn a_restore_resumes_after_a_refused_registration_without_a_block() {
    let work = Restoration::new();
    let edit = |change| DeviceEdit { device: None, change };
    let edits = Edits {
        devices: vec![
            edit(DeviceChange::VolumeType("io2".into())),
            edit(DeviceChange::Iops(1)),
            edit(DeviceChange::VolumeSize(4)),
        ],
        ..Edits::default()
    };
    let error =
        work.to.restore(&work.archive, "work", &edits).expect_err("too few operations a second");
    assert_eq!(error.kind(), ErrorKind::Usage, "{}", words(&error));
    assert!(
        words(&error).contains("RegisterImage") && error.fact("resume_with").is_some(),
        "{}",
        words(&error)
    );
    let sent = work.to.aws.count("PutSnapshotBlock");
    let restored = work.run().expect("an image");
    work.assert_restored(&restored);
    assert_eq!(
        (sent, work.to.aws.count("PutSnapshotBlock"), work.to.aws.count("StartSnapshot")),
        (BLOCKS, BLOCKS, 2)
    );
}

#[test]
fn a_restore_with_other_snapshot_options_does_not_resume() {
    let work = Restoration::new();
    deny_registration(&work.to);
    work.run().expect_err("denied");
    work.to.aws.clear_faults();
    for edits in [
        Edits { encrypted: true, ..Edits::default() },
        Edits { no_tags: true, ..Edits::default() },
        Edits { tags: vec![("a".into(), "b".into())], ..Edits::default() },
    ] {
        let error = work.to.restore(&work.archive, "work", &edits).expect_err("other snapshots");
        assert_eq!(work.to.aws.images().len(), 0);
        assert_eq!(error.kind(), ErrorKind::Usage, "{}", words(&error));
        assert!(error.fact("begun_with").is_some(), "{}", words(&error));
    }
    let restored = work.run().expect("as it was begun");
    work.assert_restored(&restored);
}

#[test]
fn confirmed_blocks_are_not_sent_again() {
    for nth in [3, 9, 16] {
        let work = Restoration::new();
        work.to.aws.fail(denied("PutSnapshotBlock").nth(nth));
        work.run().expect_err("denied");
        work.to.aws.clear_faults();
        let before: u64 = work.to.aws.counts()["PutSnapshotBlock"].calls;
        let restored = work.run().expect("an image");
        work.assert_restored(&restored);
        let again = work.to.aws.counts()["PutSnapshotBlock"].calls - before;
        // Blocks of cells that were not yet recorded may be sent twice, and requests that were in
        // progress at the end of the first run may arrive late.
        assert!(again <= BLOCKS + 4, "{nth}: {again}");
        assert_eq!(work.to.aws.count("StartSnapshot"), 2, "{nth}");
    }
}

#[test]
fn a_restore_resumes_after_all_snapshots_are_complete() {
    for operation in ["CompleteSnapshot", "RegisterImage", "DescribeSnapshots"] {
        let work = Restoration::new();
        // The dry run does not fail with this error.
        work.to.aws.fail(Fault::on(operation, FaultKind::error(400, "SomethingNew")).always());
        work.run().expect_err("refused");
        work.to.aws.clear_faults();
        let restored = work.run().expect("an image");
        work.assert_restored(&restored);
        let sent = confirmed(&work.to);
        assert_eq!((sent.len() as u64, sent.values().max()), (BLOCKS, Some(&1)), "{operation}");
    }
}

#[test]
fn a_restore_resumes_between_complete_snapshot_and_its_effect() {
    let work = Restoration::new();
    work.to.aws.set(|settings| settings.completion_polls = 2);
    // All snapshots get CompleteSnapshot, and then no request describes them.
    work.to.aws.fail(denied("DescribeSnapshots").always());
    work.run().expect_err("denied");
    work.to.aws.clear_faults();
    assert!(work.to.aws.snapshots().iter().all(|snapshot| snapshot.state == "pending"));
    let restored = work.run().unwrap_or_else(|error| panic!("{}", words(&error)));
    work.assert_restored(&restored);
    assert_eq!(work.to.aws.count("PutSnapshotBlock"), BLOCKS);
}

#[test]
fn a_restore_finds_an_image_that_an_interrupted_run_registered() {
    let work = Restoration::new();
    // RegisterImage is carried out, and its answer is lost.
    work.to.aws.fail(Fault::on("RegisterImage", FaultKind::ResetAfter).always());
    let error = work.run();
    work.to.aws.clear_faults();
    let restored = match error {
        // The restore finds the image by its name.
        Ok(restored) => restored,
        Err(error) => {
            work.run().unwrap_or_else(|again| panic!("{} then {}", words(&error), words(&again)))
        }
    };
    work.assert_restored(&restored);
}

#[test]
fn a_restore_resumes_after_the_registration_without_another_image() {
    let work = Restoration::new();
    let edits = Edits { tags: vec![("late".into(), "x".into())], ..Edits::default() };
    // The second DescribeImages is for the new image, the first for its name.
    work.to.aws.fail(denied("DescribeImages").nth(2));
    let error = work.to.restore(&work.archive, "work", &edits).expect_err("denied");
    let registered = error.fact("registered").expect("the image is named").to_owned();
    work.to.aws.clear_faults();
    let restored = work.to.restore(&work.archive, "work", &edits).expect("it is finished");
    assert_eq!(restored.image_id.as_ref().map(|id| id.as_str()), Some(registered.as_str()));
    assert_eq!(
        (work.to.aws.images().len(), work.to.aws.snapshots().len(), work.to.tasks()),
        (1, 2, 0)
    );
    assert_eq!(work.to.aws.count("PutSnapshotBlock"), BLOCKS);
}

#[test]
fn a_volume_is_sent_again_only_if_its_snapshot_was_deleted() {
    for index in [0, 1] {
        let work = Restoration::new();
        deny_registration(&work.to);
        work.run().expect_err("refused");
        work.to.aws.clear_faults();
        let sizes = [1, 2];
        let gone = work
            .to
            .aws
            .snapshots()
            .into_iter()
            .find(|snapshot| snapshot.volume_size == sizes[index])
            .expect("there");
        work.to.aws.remove_snapshot(&gone.id);
        work.to.aws.reset_calls();
        let restored = work.run().unwrap_or_else(|error| panic!("{}", words(&error)));
        work.assert_restored(&restored);
        assert_eq!(work.to.aws.count("PutSnapshotBlock"), gone.blocks.len() as u64);
        assert!(work.to.recorded.take().contains(&format!("{} is gone or failed", gone.id)));
    }
}

#[test]
fn a_single_volume_is_sent_again_if_its_snapshot_was_deleted() {
    let (from, to) = (Bench::new(), Bench::new());
    let blocks = || (0..12).map(|index| (index * 3, Content::random(1)));
    let snapshot = from.aws.snapshot_of(1, blocks());
    let ami = from.aws.add_image(Image::new("one volume", &snapshot));
    let archive = from.store(&ami).expect("an archive");
    let work = Restoration { from, ami, archive, to };
    deny_registration(&work.to);
    work.run().expect_err("denied");
    work.to.aws.clear_faults();
    let gone = work.to.aws.snapshots()[0].id.clone();
    work.to.aws.remove_snapshot(&gone);
    let restored = work.run().unwrap_or_else(|error| panic!("{}", words(&error)));
    work.assert_restored(&restored);
    // A failed snapshot gives the same result.
    work.reset();
    work.to.aws.fail(denied("CompleteSnapshot"));
    work.run().expect_err("denied");
    work.to.aws.clear_faults();
    work.to.aws.advance(Duration::from_secs(4321 * 60));
    assert_eq!(work.to.aws.snapshots()[0].state, "error");
    let failed = work.to.aws.snapshots()[0].id.clone();
    work.run().expect("an image");
    assert!(work.to.aws.snapshot(&failed).is_none(), "what is of no use is not left behind");
}

#[test]
fn memory_for_one_volume_at_a_time_keeps_their_records_apart() {
    let mut work = Restoration::new();
    work.to.memory = 48 << 20;
    deny_registration(&work.to);
    work.run().expect_err("denied");
    work.to.aws.clear_faults();
    let gone = work
        .to
        .aws
        .snapshots()
        .into_iter()
        .find(|snapshot| snapshot.volume_size == 1)
        .expect("there");
    work.to.aws.remove_snapshot(&gone.id);
    work.to.aws.reset_calls();
    let restored = work.run().unwrap_or_else(|error| panic!("{}", words(&error)));
    work.assert_restored(&restored);
    assert_eq!(work.to.aws.count("PutSnapshotBlock"), gone.blocks.len() as u64);
}

#[test]
fn a_snapshot_that_fails_is_named_and_made_anew_by_the_next_run() {
    let work = Restoration::new();
    work.to.aws.set(|settings| settings.completion_polls = 20);
    std::thread::scope(|scope| {
        let running = scope.spawn(|| work.run().expect_err("it failed"));
        let completing = || {
            work.to.aws.snapshots().iter().filter(|snapshot| snapshot.completing.is_some()).count()
        };
        crate::support::wait::wait_until("the completion", || completing() == 2);
        let id = work.to.aws.snapshots()[0].id.clone();
        work.to.aws.change_snapshot(&id, |snapshot| {
            (snapshot.state, snapshot.state_message, snapshot.completing) =
                ("error".into(), Some("broken inside".into()), None);
        });
        let error = running.join().expect("no panic");
        assert!(
            words(&error).contains("broken inside") && words(&error).contains(&id),
            "{}",
            words(&error)
        );
    });
    work.to.aws.set(|settings| settings.completion_polls = 0);
    // The other snapshot is completed meanwhile.
    for snapshot in work.to.aws.snapshots().iter().filter(|snapshot| snapshot.completing.is_some())
    {
        work.to.aws.change_snapshot(&snapshot.id, |snapshot| snapshot.completing = Some(0));
    }
    let restored = work.run().unwrap_or_else(|error| panic!("{}", words(&error)));
    work.assert_restored(&restored);
}

#[test]
fn a_restore_waits_for_eventual_consistency() {
    let work = Restoration::new();
    work.to.aws.set(|settings| settings.settle = VisibleAfter { puts: 2, lists: 0, describes: 1 });
    work.to.aws.set(|settings| (settings.completion_polls, settings.not_listable) = (1, 2));
    let restored = work.run().unwrap_or_else(|error| panic!("{}", words(&error)));
    work.assert_restored(&restored);
    let counts = work.to.aws.counts();
    assert!(
        counts["PutSnapshotBlock"].failed >= 2 && counts["PutSnapshotBlock"].failed < 10,
        "the first block goes alone"
    );
}

#[test]
fn a_lost_answer_of_start_snapshot_makes_no_second_snapshot() {
    let work = Restoration::new();
    for kind in [
        FaultKind::ResetAfter,
        FaultKind::ErrorAfter { status: 500, code: "InternalServerException".into() },
    ] {
        work.to.aws.fail(Fault::on("StartSnapshot", kind.clone()).times(2));
        let restored = work.run().unwrap_or_else(|error| panic!("{kind:?}: {}", words(&error)));
        work.assert_restored(&restored);
        work.reset();
    }
}

#[test]
fn a_taken_name_is_refused_before_a_snapshot_is_made() {
    let work = Restoration::new();
    let other = work.to.aws.snapshot_of(1, []);
    let id = work.to.aws.add_image(Image::new("small image", &other));
    let error = work.run().expect_err("taken");
    assert_eq!(error.kind(), ErrorKind::Exists);
    assert!(
        words(&error).contains(&id) && words(&error).contains("small image"),
        "{}",
        words(&error)
    );
    assert_eq!((work.to.aws.count("StartSnapshot"), work.to.tasks()), (0, 0));
    let edits = Edits { name: Some("another".into()), ..Edits::default() };
    work.to.restore(&work.archive, "another", &edits).expect("under another name");
}

#[test]
fn a_taken_name_on_a_later_page_is_found() {
    let work = Restoration::new();
    let other = work.to.aws.snapshot_of(1, []);
    for number in 0..5 {
        work.to.aws.add_image(Image::new(&format!("image {number}"), &other));
    }
    work.to.aws.add_image(Image::new("small image", &other));
    work.to.aws.set(|settings| settings.ec2_page_cap = Some(1));
    assert_eq!(work.run().expect_err("taken").kind(), ErrorKind::Exists);
}

#[test]
fn a_quota_of_pending_snapshots_is_a_limit_error() {
    let work = Restoration::new();
    work.to.aws.set(|settings| settings.pending_limit = 1);
    let error = work.run().expect_err("one is not enough");
    assert_eq!(error.kind(), ErrorKind::Limit, "{}", words(&error));
    work.to.aws.set(|settings| settings.pending_limit = 100);
    let restored = work.run().expect("later");
    work.assert_restored(&restored);
}

#[test]
fn a_denied_kms_key_is_refused_and_leaves_no_snapshot() {
    let work = Restoration::new();
    let key = "arn:aws:kms:us-east-1:123456789012:key/11111111-aaaa-4bbb-8ccc-0123456789ab";
    work.to.aws.deny_kms_key(key);
    let edits = Edits { kms_key_arn: Some(key.into()), ..Edits::default() };
    let error = work.to.restore(&work.archive, "work", &edits).expect_err("denied");
    assert_eq!(error.kind(), ErrorKind::Denied, "{}", words(&error));
    assert!(words(&error).contains("KMS"), "{}", words(&error));
    assert_eq!((work.to.aws.snapshots().len(), work.to.tasks()), (0, 0));
}

#[test]
fn a_restore_without_an_image_makes_only_snapshots() {
    let work = Restoration::new();
    let edits = Edits { snapshots_only: true, ..Edits::default() };
    let restored = work.to.restore(&work.archive, "work", &edits).expect("snapshots");
    assert_eq!((restored.image_id, restored.snapshots.len()), (None, 2));
    assert_eq!(
        (
            work.to.aws.images().len(),
            work.to.aws.snapshots().len(),
            work.to.aws.count("RegisterImage")
        ),
        (0, 2, 0)
    );
}

#[test]
fn a_restore_names_every_missing_permission_and_resumes() {
    let names = [
        "StartSnapshot",
        "PutSnapshotBlock",
        "CompleteSnapshot",
        "DescribeSnapshots",
        "DescribeImages",
        "RegisterImage",
    ];
    for name in names {
        let work = Restoration::new();
        work.to.aws.deny(name);
        let error = work.run().expect_err("denied");
        assert_eq!(error.kind(), ErrorKind::Denied, "{name}: {}", words(&error));
        assert!(words(&error).contains(name), "{name}: {}", words(&error));
        assert!(name == "DescribeImages" || work.to.aws.images().is_empty());
        work.to.aws.allow(name);
        let restored = work.run().expect("an image");
        work.assert_restored(&restored);
    }
}
