//! The library as an embedder sees it: nothing but the public names of the crate.

use std::collections::BTreeMap;

use amistore::plan::{self, Existing, Service};
use amistore::report::{StoreReport, TaskKind, TaskState};
use amistore::{
    Access, Archive, Clean, Credentials, Disks, ErrorCode, ErrorKind, ImageId, MemoryStore,
    Options, Result, RetireAction, StaticCredentials, Store, open_image, open_store, store,
};
use amistore_aws_double::aws::{Content, TestAws};
use amistore_aws_double::s3::{Fault, FaultKind, When};
use tempfile::TempDir;

use super::ec2::bench::small_image;
use super::s3::setup::{BUCKET, Bench};
use crate::support::image::Random;

/// Bytes of the disk: random, so that its archive has several parts of the least size.
const DISK: usize = 40 << 20;

/// The parts that the server accepted since the last reset, with their number.
fn accepted_parts(bench: &Bench) -> BTreeMap<u32, usize> {
    let mut parts = BTreeMap::new();
    for call in bench.server.calls() {
        if call.operation == "UploadPart" && call.status == 200 {
            *parts.entry(call.part_number.expect("a number")).or_default() += 1;
        }
    }
    parts
}

#[test]
fn a_state_directory_lets_a_failed_store_continue_and_sends_no_part_twice() {
    let bench = Bench::new();
    let directory = TempDir::new().expect("a directory");
    let disk = directory.path().join("disk.raw");
    std::fs::write(&disk, Random(11).noise(DISK)).expect("a disk");
    let options = Options::default()
        .threads(2)
        .access(bench.access())
        .state_directory(directory.path().join("state"));
    let run = |prefix: &str, options: &Options| -> Result<StoreReport> {
        let image = Disks::named("web").disk("/dev/xvda", &disk).open()?;
        store(&image, &open_store(&format!("s3://{BUCKET}/{prefix}"), options)?, options)
    };

    bench.server.fail(Fault::new(FaultKind::AccessDenied, When::CallOf("UploadPart", 4)));
    let error = run("a/", &options).expect_err("a part is refused");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    let first = accepted_parts(&bench);
    assert!(first.len() >= 2, "{first:?}");
    assert_eq!(bench.open_uploads(), 1, "the upload stays for the next run");
    let tasks = amistore::tasks(&options).expect("a list");
    let [task] = tasks.as_slice() else { panic!("one task: {tasks:?}") };
    assert_eq!((task.kind, task.state), (TaskKind::Store, TaskState::Failed));
    assert!(task.can_continue && task.target.starts_with(&format!("s3://{BUCKET}/a/")), "{task:?}");
    assert!(task.reason.is_some() && task.percent > 0, "{task:?}");

    bench.server.clear_faults();
    bench.server.reset_calls();
    let report = run("a/", &options).expect("it continues");
    let second = accepted_parts(&bench);
    assert!(second.keys().all(|number| !first.contains_key(number)), "{first:?} {second:?}");
    assert_eq!(bench.open_uploads(), 0);
    assert!(amistore::tasks(&options).expect("a list").iter().all(|task| !task.can_continue));

    // Without a state directory nothing stays, and the bytes are those of one run.
    let without = Options::default().threads(2).access(bench.access());
    let whole = run("b/", &without).expect("a store");
    assert_eq!(bench.bytes(&report.key), bench.bytes(&whole.key));
    bench.server.fail(Fault::new(FaultKind::AccessDenied, When::CallOf("UploadPart", 4)));
    bench.server.reset_calls();
    run("c/", &without).expect_err("a part is refused");
    assert_eq!(bench.open_uploads(), 0, "no task file names it");
}

#[test]
fn leftovers_are_listed_by_a_dry_run_and_removed_by_clean() {
    let bench = Bench::new();
    let directory = TempDir::new().expect("a directory");
    let disk = directory.path().join("disk.raw");
    std::fs::write(&disk, Random(12).noise(DISK)).expect("a disk");
    let options = Options::default()
        .threads(2)
        .access(bench.access())
        .state_directory(directory.path().join("state"));
    let image = Disks::named("web").disk("/dev/xvda", &disk).open().expect("an image");
    let target = open_store(&format!("s3://{BUCKET}/"), &options).expect("a store");
    bench.server.fail(Fault::new(FaultKind::AccessDenied, When::CallOf("UploadPart", 4)));
    store(&image, &target, &options).expect_err("a part is refused");
    bench.server.clear_faults();

    let selection = Clean::default();
    let listed = plan::clean(&selection, &options).expect("a list").leftovers;
    let [upload] = listed.as_slice() else { panic!("one leftover: {listed:?}") };
    assert!(upload.ours && !upload.removed && upload.upload_id.is_some(), "{upload:?}");
    assert_eq!(bench.open_uploads(), 1, "a dry run removes nothing");
    let cleaned = amistore::clean(&selection, &options).expect("cleans");
    assert!(cleaned.failed.is_none() && cleaned.leftovers.iter().all(|left| left.removed));
    assert_eq!(bench.open_uploads(), 0);
    assert!(plan::clean(&selection, &options).expect("a list").leftovers.is_empty());

    let below = Clean::default().uploads_below("archives/");
    let error = plan::clean(&below, &options).err().expect("no bucket");
    assert_eq!(error.kind(), ErrorKind::Usage);
    let below = Clean::default().uploads_below(format!("s3://{BUCKET}/"));
    assert!(plan::clean(&below, &options).expect("a list").leftovers.is_empty());
}

#[test]
fn a_planned_store_to_a_bucket_counts_its_requests_and_leaves_nothing() {
    let bench = Bench::new();
    let directory = TempDir::new().expect("a directory");
    let disk = directory.path().join("disk.raw");
    std::fs::write(&disk, Random(13).noise(DISK)).expect("a disk");
    let options = Options::default().threads(2).access(bench.access());
    let image = Disks::named("web").disk("/dev/xvda", &disk).open().expect("an image");
    let target = open_store(&format!("s3://{BUCKET}/"), &options).expect("a store");
    let planned = plan::store(&image, &target, &options).expect("a plan");
    assert!(target.list().expect("lists").is_empty() && bench.open_uploads() == 0);
    let s3 = planned.plan.aws.s3.as_ref().expect("an object");
    assert_eq!((s3.is_aws, s3.dollars), (false, None), "another service has other prices");
    bench.server.reset_calls();
    store(&image, &target, &options).expect("stores");
    for call in bench.server.calls() {
        let sent = bench.server.count(call.operation) as u64;
        let count = planned.plan.aws.calls.count(Service::S3, call.operation);
        assert!(sent <= count, "{} {sent} {count}", call.operation);
    }
    let again = plan::store(&image, &target, &options).expect("a plan");
    assert_eq!(again.existing, Existing::Same);
}

/// Options of one EC2.
fn options_of(aws: &TestAws) -> Options {
    let credentials = StaticCredentials {
        access_key_id: TestAws::ACCESS_KEY.to_owned(),
        secret_access_key: TestAws::SECRET_KEY.to_owned(),
        session_token: None,
    };
    Options::default().threads(2).access(Access {
        region: Some(aws.region()),
        endpoint_url: Some(aws.endpoint()),
        credentials: Credentials::Static(credentials),
        ..Access::default()
    })
}

#[test]
fn an_image_is_stored_planned_restored_and_retired() {
    let aws = TestAws::start();
    let ami = small_image(&aws);
    let options = options_of(&aws);
    let archives = Store::new(MemoryStore::default());
    let image = open_image(&ami, &options).expect("an image");
    let planned = plan::store(&image, &archives, &options).expect("a plan");
    let blocks = planned.plan.aws.calls.count(Service::Ebs, "GetSnapshotBlock");
    assert!(blocks > 0 && planned.plan.aws.ebs.is_some());
    let key = store(&image, &archives, &options).expect("stores").key;
    let archive = Archive::open(archives.get(&key).expect("an object")).expect("an archive");

    let snapshots = aws.snapshots().len();
    let planned = plan::restore_to_ec2(&archive, Some("copy"), &options).expect("a plan");
    assert!(!planned.items.is_empty(), "the account of the attributes");
    assert_eq!(aws.snapshots().len(), snapshots, "a dry run begins no snapshot");
    let restored = amistore::restore_to_ec2(&archive, Some("copy"), &options).expect("restores");
    let taken = plan::restore_to_ec2(&archive, Some("copy"), &options).expect_err("it is taken");
    assert_eq!(taken.code(), Some(ErrorCode::ImageNameTaken));

    let id = ImageId::parse(&ami).expect("an id");
    let action = || RetireAction::Deregister { with_snapshots: true };
    let object = || archives.get(&key).expect("an object");
    let planned = plan::retire(&id, object(), action(), &options).expect("a plan");
    assert!(planned.snapshots.iter().all(|snapshot| snapshot.deleted));
    assert_eq!(aws.images().len(), 2, "a dry run deregisters nothing");
    let retired = amistore::retire(&id, object(), action(), &options).expect("retires");
    assert_eq!(retired.image_id, id);
    let left: Vec<String> = aws.images().into_iter().map(|image| image.id).collect();
    assert_eq!(left, [restored.to_string()]);

    // An archive of other blocks is refused, and the image stays.
    let other = small_image(&aws);
    let id = ImageId::parse(&other).expect("an id");
    let image = open_image(&other, &options).expect("an image");
    let key = store(&image, &archives, &options).expect("stores").key;
    let snapshot = image.document().snapshots()[0].id.to_string();
    aws.change_snapshot(&snapshot, |it| drop(it.blocks.insert(0, Content::bytes(b"other"))));
    let object = archives.get(&key).expect("an object");
    let error = amistore::retire(&id, object, action(), &options).expect_err("it differs");
    assert_eq!(error.code(), Some(ErrorCode::ArchiveDiffersFromImage), "{error:?}");
    assert_eq!(aws.images().len(), 2);
}
