//! The task service: stores and restores as EC2's own tasks, durable and shared.

use std::sync::Arc;
use std::time::Duration;

use amistore::internals::aws::ec2::Edits;
use amistore::internals::aws::s3::ObjectOptions;
use amistore::internals::aws::{
    Access, Credentials, RequestSettings, RetryPolicy, StaticCredentials,
};
use amistore::internals::base::{Cancel, Clock, ImageId, NullObserver, TaskKind};
use amistore::internals::checkpoint::StateDirectory;
use amistore::internals::engine::Archive;
use amistore::internals::engine::Resources;
use amistore::internals::object::MemoryReader;
use amistore::internals::server::{
    Refusal, RestoreProgress, RestoreRequest, RestoredImage, Service, StoreQuery, StoreRequest,
    StoreResult, TaskLimits, TaskService, TaskServiceSettings,
};
use amistore::internals::taskdb::{NewTask, Origin, Owner, Run, TaskDb};
use amistore_aws_double::aws::{
    Content, Fault as AwsFault, FaultKind as AwsFaultKind, Image, Snapshot, TestAws,
};
use amistore_aws_double::s3::{BucketOptions, Fault, FaultKind, TestS3, When};
use tempfile::TempDir;

use crate::support::wait::wait_until;

pub const BUCKET: &str = "images";
/// Blocks of an image, which do not compress: an archive of them has that many megabytes halved.
const BLOCKS: u32 = 24;
const PART: u64 = 512 << 10;

/// An AWS, and a state directory.
pub struct Site {
    pub aws: TestAws,
    pub s3: TestS3,
    pub directory: TempDir,
}

impl Site {
    pub fn new() -> Self {
        let (aws, s3) = (TestAws::start(), TestS3::start());
        s3.create_bucket(BUCKET);
        s3.create_bucket("second");
        s3.set_min_part_size(1);
        Self { aws, s3, directory: TempDir::new().expect("a directory") }
    }

    pub fn image(&self, name: &str) -> ImageId {
        let snapshot =
            self.aws.snapshot_of(1, (0..BLOCKS).map(|index| (index * 9, Content::random(1))));
        ImageId::parse(&self.aws.add_image(Image::new(name, &snapshot))).expect("an id")
    }

    pub fn settings(&self) -> TaskServiceSettings {
        let access = |endpoint: String, id: &str, secret: &str| Access {
            region: Some(TestAws::REGION.to_owned()),
            endpoint_url: Some(endpoint),
            credentials: Credentials::Static(StaticCredentials {
                access_key_id: id.to_owned(),
                secret_access_key: secret.to_owned(),
                session_token: None,
            }),
            ..Access::default()
        };
        // Waits for nothing that tests need not wait for.
        let retry = RetryPolicy {
            max_attempts: 3,
            base: Duration::from_millis(1),
            cap: Duration::from_millis(4),
        };
        let requests = RequestSettings {
            retry,
            // A store that a test holds up does not fail before the test lets it go on.
            idle_timeout: Duration::from_secs(30),
            ..RequestSettings::default()
        };
        TaskServiceSettings {
            state: StateDirectory::new(self.directory.path()),
            resources: Resources { threads: 2, memory: 256 << 20 },
            compute: access(self.aws.endpoint(), TestAws::ACCESS_KEY, TestAws::SECRET_KEY),
            compute_requests: requests.clone(),
            account_id: None,
            account_rate: Some(100_000),
            archive: access(self.s3.endpoint(), TestS3::ACCESS_KEY, TestS3::SECRET_KEY),
            archive_requests: requests,
            edits: Edits::default(),
            others: Vec::new(),
            level: 1,
            objects: ObjectOptions { part_size: Some(PART), ..ObjectOptions::default() },
            allow_public_bucket: false,
            limits: TaskLimits::default(),
            command: vec!["amistore".to_owned(), "serve".to_owned()],
            cancel: Cancel::new(),
            observer: Arc::new(NullObserver),
            clock: Clock::default(),
        }
    }

    pub fn service(&self) -> Arc<TaskService> {
        TaskService::start(self.settings()).expect("a service")
    }

    fn service_with(&self, limits: TaskLimits) -> Arc<TaskService> {
        TaskService::start(TaskServiceSettings { limits, ..self.settings() }).expect("a service")
    }

    fn bytes(&self, bucket: &str, key: &str) -> Vec<u8> {
        self.s3.object(bucket, key).expect("an object").bytes.to_vec()
    }

    /// From now on stores are held up in the middle, until the faults are cleared.
    pub fn hold_stores(&self) {
        self.s3.fail(Fault::new(FaultKind::Hang(Duration::from_secs(60)), When::NextPart(5, 1000)));
    }
}

pub fn store_request(image: &ImageId, bucket: &str) -> StoreRequest {
    StoreRequest {
        image_id: image.clone(),
        bucket: bucket.to_owned(),
        prefix: "a/b/".to_owned(),
        tags: vec![("k".to_owned(), "v w".to_owned())],
    }
}

pub fn restore_request(key: &str, name: &str) -> RestoreRequest {
    let tag = |key: &str, value: &str| vec![(key.to_owned(), value.to_owned())];
    RestoreRequest {
        bucket: BUCKET.to_owned(),
        object_key: key.to_owned(),
        name: Some(name.to_owned()),
        image_tags: tag("of", "image"),
        snapshot_tags: tag("of", "snapshot"),
    }
}

fn tasks(service: &TaskService) -> Vec<StoreResult> {
    service.store_tasks(&StoreQuery { limit: 100, ..StoreQuery::default() }).expect("tasks").tasks
}

fn task(service: &TaskService, image: &ImageId) -> StoreResult {
    let query = StoreQuery { image_ids: vec![image.clone()], limit: 100, ..StoreQuery::default() };
    let mut found = service.store_tasks(&query).expect("tasks").tasks;
    assert_eq!(found.len(), 1, "the newest of an image");
    found.remove(0)
}

/// Waits for the end of the newest store of an image.
fn ended(service: &TaskService, image: &ImageId) -> StoreResult {
    wait_until("the store to end", || task(service, image).state != "InProgress");
    task(service, image)
}

#[track_caller]
pub fn completed(service: &TaskService, image: &ImageId) -> StoreResult {
    let result = ended(service, image);
    assert_eq!((result.state, result.percent, result.reason.as_deref()), ("Completed", 100, None));
    result
}

pub fn restored(service: &TaskService, reserved: &ImageId) -> RestoredImage {
    let find = || service.restored(reserved).expect("no error").expect("ours");
    wait_until("the restore to end", || find().progress != RestoreProgress::Pending);
    find()
}

#[track_caller]
pub fn refused<T: std::fmt::Debug>(
    outcome: Result<T, Refusal>,
    status: u16,
    code: &str,
    words: &str,
) {
    let refusal = outcome.expect_err("refused");
    assert_eq!((refusal.status, refusal.code.as_str()), (status, code), "{refusal:?}");
    assert!(refusal.message.contains(words), "{refusal:?}");
}

pub fn stored(site: &Site, service: &TaskService, name: &str) -> (ImageId, String) {
    let image = site.image(name);
    let key = service.create_store(&store_request(&image, BUCKET), false).expect("taken on");
    completed(service, &image);
    (image, key)
}

#[test]
fn a_store_completes_and_the_object_is_whole() {
    let site = Site::new();
    let service = site.service();
    let image = site.image("web");
    assert_eq!(
        service.create_store(&store_request(&image, BUCKET), true).expect("it would be"),
        format!("a/b/{image}.bin")
    );
    assert!(tasks(&service).is_empty(), "a dry run is not remembered");
    let key = service.create_store(&store_request(&image, BUCKET), false).expect("taken on");
    let result = completed(&service, &image);
    assert_eq!(site.s3.count("HeadBucket"), 2, "one look for the dry run, and one for the store");
    assert_eq!(
        (result.image_id.as_str(), result.bucket.as_str(), result.object_key.as_str()),
        (image.as_str(), BUCKET, key.as_str())
    );
    let object = site.s3.object(BUCKET, &key).expect("an object");
    assert_eq!(object.attributes.tags.get("k").map(String::as_str), Some("v w"));
    let reader = MemoryReader::new("a", object.bytes.to_vec());
    let archive = Archive::open(std::sync::Arc::new(reader)).expect("an archive");
    assert_eq!(archive.root().manifest.volumes[0].blocks, u64::from(BLOCKS));
    let overview = service.overview().expect("an overview");
    assert_eq!(
        (overview.completed, overview.failed, overview.queued, overview.running),
        (1, 0, 0, 0)
    );
    assert!(overview.bytes >= u64::from(BLOCKS) << 19 && overview.transferred > overview.bytes);
    assert_eq!(
        (overview.tasks.len(), overview.tasks[0].kind, overview.tasks[0].origin),
        (1, "store", "server")
    );
}

#[test]
fn what_cannot_be_stored_is_refused_at_once_and_in_the_words_of_ec2() {
    let site = Site::new();
    let service = site.service();
    let store =
        |image: &ImageId, bucket: &str| service.create_store(&store_request(image, bucket), false);
    let unknown = ImageId::parse("ami-0123456789abcdef0").expect("an id");
    refused(store(&unknown, BUCKET), 400, "InvalidAMIID.NotFound", "does not exist");
    let image = site.image("web");
    site.aws.change_image(image.as_str(), |image| image.state = "failed".into());
    refused(store(&image, BUCKET), 400, "InvalidAMIID.Unavailable", "failed");
    site.aws.change_image(image.as_str(), |image| image.state = "available".into());
    site.aws.change_image(image.as_str(), |image| image.virtualization_type = "paravirtual".into());
    refused(store(&image, BUCKET), 400, "UnsupportedOperation", "paravirtual");
    site.aws.change_image(image.as_str(), |image| image.virtualization_type = "hvm".into());
    refused(store(&image, "nowhere"), 400, "InvalidRequest", "no such bucket");
    site.s3.create_bucket_with(
        "public",
        BucketOptions { policy_is_public: Some(true), ..BucketOptions::default() },
    );
    refused(store(&image, "public"), 403, "UnauthorizedOperation", "public");
    site.s3.deny("CreateMultipartUpload");
    refused(store(&image, BUCKET), 403, "UnauthorizedOperation", "AccessDenied");
    site.s3.allow("CreateMultipartUpload");
    site.s3.put_object(BUCKET, &format!("a/b/{image}.bin"), "x", Default::default());
    refused(store(&image, BUCKET), 400, "InvalidRequest", "The AMI already exists in the bucket.");
    site.aws.deny("DescribeImages");
    refused(store(&image, BUCKET), 403, "UnauthorizedOperation", "");
    assert!(tasks(&service).is_empty());
    refused(
        service.store_tasks(&StoreQuery {
            after: Some("nonsense".into()),
            limit: 1,
            ..StoreQuery::default()
        }),
        400,
        "InvalidPaginationToken",
        "",
    );
}

#[test]
fn of_one_image_one_store_runs_on_any_server_and_to_any_bucket() {
    let site = Site::new();
    site.hold_stores();
    let (service, other) = (site.service(), site.service());
    let image = site.image("web");
    service.create_store(&store_request(&image, BUCKET), false).expect("taken on");
    for service in [&service, &other] {
        for dry_run in [false, true] {
            let again = service.create_store(&store_request(&image, "second"), dry_run);
            refused(
                again,
                400,
                "InvalidRequest",
                "A CreateStoreImageTask is already in progress for the AMI.",
            );
        }
    }
    // A run of the program counts as well.
    let by_command = site.image("by command");
    let run = NewTask {
        image_id: Some(by_command.to_string()),
        bucket: Some(BUCKET.to_owned()),
        object_key: Some("x.bin".to_owned()),
        ..NewTask::new(TaskKind::Store, Origin::Command, by_command.as_str(), "s3://images/x.bin")
    };
    let run = Run::begin(site.directory.path(), &run).expect("begins");
    refused(
        service.create_store(&store_request(&by_command, BUCKET), false),
        400,
        "InvalidRequest",
        "already in progress",
    );
    drop(run);
    service.create_store(&store_request(&by_command, BUCKET), false).expect("it is gone");
    site.s3.clear_faults();
}

#[test]
fn limits_of_waiting_tasks_and_of_bytes_hold() {
    let site = Site::new();
    site.hold_stores();
    let service =
        site.service_with(TaskLimits { max_tasks: 1, max_queued: 1, ..TaskLimits::default() });
    let images: Vec<ImageId> =
        (0..3).map(|number| site.image(&format!("image {number}"))).collect();
    service.create_store(&store_request(&images[0], BUCKET), false).expect("it runs");
    wait_until("it to run", || service.overview().expect("an overview").running == 1);
    service.create_store(&store_request(&images[1], BUCKET), false).expect("it waits");
    refused(
        service.create_store(&store_request(&images[2], BUCKET), false),
        400,
        "ResourceLimitExceeded",
        "wait",
    );
    let overview = service.overview().expect("an overview");
    assert_eq!((overview.running, overview.queued, overview.tasks.len()), (1, 1, 2));
    assert!(overview.tasks[0].queued && !overview.tasks[1].queued);
    assert_eq!(
        tasks(&service).iter().map(|task| task.state).collect::<Vec<_>>(),
        ["InProgress", "InProgress"]
    );
    let small = site.service_with(TaskLimits { store_bytes: 2 << 30, ..TaskLimits::default() });
    refused(
        small.create_store(&store_request(&images[2], BUCKET), false),
        400,
        "ResourceLimitExceeded",
        "GB",
    );
    site.s3.clear_faults();
}

#[test]
fn a_server_that_is_stopped_in_the_middle_goes_on_and_makes_the_same_bytes() {
    let site = Site::new();
    site.hold_stores();
    let image = site.image("web");
    let service = site.service();
    let key = service.create_store(&store_request(&image, BUCKET), false).expect("taken on");
    wait_until("parts", || {
        site.s3.open_uploads(BUCKET).iter().any(|upload| upload.parts.len() >= 4)
    });
    wait_until("progress to be noted", || task(&service, &image).percent > 0);
    service.stop();
    assert_eq!(task(&service, &image).state, "InProgress", "it is not over");
    assert_eq!(service.overview().expect("an overview").queued, 1);
    drop(service);
    // Killed instead: the next one had begun it, and its lock is free.
    let task_db = TaskDb::open(site.directory.path()).expect("a record");
    let killed = Owner::register(site.directory.path()).expect("an owner");
    let scope = task_db.recent(1).expect("rows")[0].task.scope.clone().expect("a scope");
    task_db.claim(&[&scope], &killed).expect("no error").expect("the task");
    drop((killed, task_db));
    site.s3.clear_faults();
    let sent = site.s3.count("UploadPart");
    let read = site.aws.count("GetSnapshotBlock");
    let service = site.service();
    completed(&service, &image);
    let bytes = site.bytes(BUCKET, &key);
    assert!(site.s3.open_uploads(BUCKET).is_empty());
    let parts = bytes.len().div_ceil(PART as usize);
    assert!(site.s3.count("UploadPart") - sent < parts, "parts that were there are not sent again");
    assert!(
        site.aws.count("GetSnapshotBlock") - read <= u64::from(BLOCKS),
        "no block is read twice"
    );
    service.create_store(&store_request(&image, "second"), false).expect("taken on");
    completed(&service, &image);
    assert_eq!(site.bytes("second", &key), bytes, "as if it had not been stopped");
    assert_eq!(tasks(&service).len(), 2, "each of them once");
}

#[test]
fn two_services_on_one_state_directory_do_each_task_once() {
    let site = Site::new();
    let services = [site.service(), site.service()];
    let images: Vec<ImageId> =
        (0..6).map(|number| site.image(&format!("image {number}"))).collect();
    for (number, image) in images.iter().enumerate() {
        services[number % 2].create_store(&store_request(image, BUCKET), false).expect("taken on");
    }
    for image in &images {
        drop(completed(&services[0], image));
    }
    let done: u64 =
        services.iter().map(|service| service.overview().expect("an overview").completed).sum();
    assert_eq!(
        (done, site.s3.count("CompleteMultipartUpload"), site.s3.keys(BUCKET).len()),
        (6, 6, 6)
    );
    assert_eq!(tasks(&services[1]), tasks(&services[0]));
}

#[test]
fn a_store_that_fails_says_why_and_a_new_request_continues_it() {
    let site = Site::new();
    let service = site.service();
    let image = site.image("web");
    site.s3.fail(Fault::new(FaultKind::AccessDenied, When::NextPart(7, 1)));
    service.create_store(&store_request(&image, BUCKET), false).expect("taken on");
    let result = ended(&service, &image);
    let reason = result.reason.expect("a reason");
    assert_eq!(result.state, "Failed");
    assert!(
        result.percent < 100 && reason.contains("AccessDenied") && reason.contains("ask again"),
        "{reason}"
    );
    assert!(reason.chars().count() <= 500 && !reason.contains('\n'), "{reason}");
    let sent = site.s3.count("UploadPart");
    let again = StoreRequest { tags: Vec::new(), ..store_request(&image, BUCKET) };
    service.create_store(&again, false).expect("taken on");
    completed(&service, &image);
    assert!(site.s3.count("UploadPart") > sent);
    assert_eq!(service.overview().expect("an overview").failed, 1);
}

#[test]
fn a_task_whose_credentials_end_waits_for_others() {
    let site = Site::new();
    let service = site.service();
    let (image, next) = (site.image("web"), site.image("next"));
    site.s3.fail(Fault::new(FaultKind::ExpiredToken, When::NextPart(7, 2)));
    service.create_store(&store_request(&image, BUCKET), false).expect("taken on");
    let shown = || service.overview().expect("an overview").tasks.pop().expect("a task");
    wait_until("it to wait", || shown().reason.is_some());
    let waiting = shown();
    assert!(
        waiting.queued
            && waiting.reason.as_deref().is_some_and(
                |why| why.contains("valid credentials") && why.contains("ExpiredToken")
            )
    );
    // Scripts are told what is true: it is not over.
    let result = task(&service, &image);
    assert_eq!((result.state, result.reason), ("InProgress", None));
    service.create_store(&store_request(&next, BUCKET), false).expect("taken on");
    completed(&service, &image);
    completed(&service, &next);
    let overview = service.overview().expect("an overview");
    assert_eq!((overview.completed, overview.failed), (2, 0));
    assert!(overview.tasks.iter().all(|task| task.reason.is_none()));
}

#[test]
fn a_task_that_waits_for_credentials_holds_no_other_up() {
    let site = Site::new();
    let service = site.service_with(TaskLimits { max_tasks: 1, ..TaskLimits::default() });
    let (image, next) = (site.image("web"), site.image("next"));
    let mappings = site.aws.image(image.as_str()).expect("there").mappings;
    let snapshot =
        mappings[0].ebs.as_ref().and_then(|ebs| ebs.snapshot_id.clone()).expect("a snapshot");
    // The look at the image reads the first block, and is not refused.
    site.aws.fail(
        AwsFault::on("GetSnapshotBlock", AwsFaultKind::ExpiredToken)
            .snapshot(&snapshot)
            .block(9)
            .always(),
    );
    service.create_store(&store_request(&image, BUCKET), false).expect("taken on");
    wait_until("it to wait", || service.overview().expect("an overview").tasks[0].reason.is_some());
    service.create_store(&store_request(&next, BUCKET), false).expect("taken on");
    completed(&service, &next);
    assert_eq!(task(&service, &image).state, "InProgress");
    site.aws.clear_faults();
    completed(&service, &image);
}

#[test]
fn other_keys_of_the_account_continue_a_task_and_no_other_account_does() {
    let site = Site::new();
    site.aws.add_key("AKIASECOND", "second", None);
    site.aws.add_key_of("210987654321", "AKIASTRANGER", "stranger", None);
    let with = |id: &str, secret: &str| {
        let settings = site.settings();
        let keys = StaticCredentials {
            access_key_id: id.to_owned(),
            secret_access_key: secret.to_owned(),
            session_token: None,
        };
        let compute = Access { credentials: Credentials::Static(keys), ..settings.compute.clone() };
        TaskService::start(TaskServiceSettings { compute, ..settings }).expect("a service")
    };
    let image = site.image("web");
    let first = site.service();
    site.hold_stores();
    first.create_store(&store_request(&image, BUCKET), false).expect("taken on");
    wait_until("it to be under way", || site.s3.count("UploadPart") > 3);
    first.stop();
    drop(first);
    site.s3.clear_faults();
    site.aws.expire_key(TestAws::ACCESS_KEY);
    // A server with the expired key can do nothing, and shows the true state.
    let late = site.service();
    wait_until("it to ask whose key it is", || site.aws.count("GetCallerIdentity") > 1);
    assert_eq!(task(&late, &image).state, "InProgress");
    let refusal = late
        .create_store(&store_request(&site.image("other"), BUCKET), false)
        .expect_err("the key is expired");
    assert_eq!(refusal.status, 403, "{refusal:?}");
    drop(late);
    let stranger = with("AKIASTRANGER", "stranger");
    wait_until("it to know that it is none of theirs", || tasks(&stranger).is_empty());
    std::thread::sleep(Duration::from_millis(1500));
    let calls = site.aws.calls();
    let mut theirs = calls.iter().filter(|call| call.access_key.as_deref() == Some("AKIASTRANGER"));
    assert!(
        theirs.all(|call| call.operation == "GetCallerIdentity"),
        "they only ask whose key it is"
    );
    let second = with("AKIASECOND", "second");
    completed(&second, &image);
    // With --account-id STS is not asked.
    let account = Some("210987654321".to_owned());
    let said = TaskService::start(TaskServiceSettings { account_id: account, ..site.settings() })
        .expect("a service");
    assert_eq!(tasks(&said), []);
}

#[test]
fn a_restore_gives_a_reserved_id_and_then_the_real_image() {
    let site = Site::new();
    let service = site.service();
    let (image, key) = stored(&site, &service, "web");
    let request = restore_request(&key, "web again");
    service.create_restore(&request, true).expect("it would be");
    let reserved = service.create_restore(&request, false).expect("taken on");
    let made = restored(&service, &reserved);
    assert_eq!(
        (made.progress, made.percent, made.name.as_deref()),
        (RestoreProgress::Available, 100, Some("web again"))
    );
    assert_eq!(made.location, format!("{BUCKET}/{key}"));
    let real = made.image_id.expect("an image");
    assert!(real != reserved && reserved.as_str().len() == 21);
    let new = site.aws.image(real.as_str()).expect("there");
    let snapshot = |image: &Image| -> Snapshot {
        let id =
            image.mappings.iter().find_map(|mapping| mapping.snapshot_id()).expect("a snapshot");
        site.aws.snapshot(id).expect("there")
    };
    let old = site.aws.image(image.as_str()).expect("there");
    assert_eq!(snapshot(&old).digests(), snapshot(&new).digests());
    assert_eq!(new.tags.get("of").map(String::as_str), Some("image"));
    assert_eq!(snapshot(&new).tags.get("of").map(String::as_str), Some("snapshot"));
    let unknown = ImageId::parse("ami-0123456789abcdef0").expect("an id");
    assert_eq!(service.restored(&unknown).expect("no error"), None);
}

#[test]
fn what_cannot_be_restored_is_refused_at_once() {
    let site = Site::new();
    let service = site.service();
    let (image, key) = stored(&site, &service, "web");
    let restore =
        |key: &str, name: &str| service.create_restore(&restore_request(key, name), false);
    refused(
        restore(&key, "web"),
        400,
        "InvalidAMIName.Duplicate",
        &format!("AMI name web is already in use by AMI {image}"),
    );
    refused(restore(&key, "x"), 400, "InvalidAMIName.Malformed", "3 to 128");
    refused(restore("none.bin", "other"), 400, "InvalidRequest", "none.bin");
    site.s3.put_object(BUCKET, "foreign.bin", vec![0x91; 4000], Default::default());
    refused(restore("foreign.bin", "other"), 400, "InvalidRequest", "not an archive of amistore");
    site.aws.deny("DescribeSnapshots");
    refused(restore(&key, "other"), 403, "UnauthorizedOperation", "DescribeSnapshots");
    site.aws.allow("DescribeSnapshots");
    site.aws
        .fail(AwsFault::on("StartSnapshot", AwsFaultKind::Hang(Duration::from_secs(60))).always());
    let reserved = restore(&key, "other").expect("taken on");
    refused(
        restore(&key, "other"),
        400,
        "InvalidAMIName.Duplicate",
        &format!("AMI name other is already in use by AMI {reserved}"),
    );
    assert_eq!(site.aws.images().len(), 1);
    site.aws.clear_faults();
}

/// The last step of a killed server.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Last {
    Registered,
    Noted,
    Forgotten,
}

#[test]
fn a_restore_that_was_killed_anywhere_behind_its_registration_makes_no_second_image() {
    // In parallel: each waits for the registration that has no answer.
    std::thread::scope(|scope| {
        for last in [Last::Registered, Last::Noted, Last::Forgotten] {
            scope.spawn(move || registration_survives_a_kill(last));
        }
    });
}

fn registration_survives_a_kill(last: Last) {
    let site = Site::new();
    let service = site.service();
    let (_, key) = stored(&site, &service, "web");
    // The first was a question whether it would be; the answer to the second does not come.
    site.aws
        .fail(AwsFault::on("RegisterImage", AwsFaultKind::Delay(Duration::from_secs(60))).nth(2));
    let reserved =
        service.create_restore(&restore_request(&key, "web again"), false).expect("taken on");
    wait_until("the registration", || site.aws.images().len() == 2);
    service.stop();
    assert_eq!(
        service.restored(&reserved).expect("no error").expect("ours").progress,
        RestoreProgress::Pending
    );
    drop(service);
    site.aws.clear_faults();
    let id =
        site.aws.images().into_iter().find(|image| image.name == "web again").expect("there").id;
    let state = StateDirectory::new(site.directory.path());
    if last != Last::Registered {
        let (task_db, killed) = (
            TaskDb::open(state.path()).expect("a record"),
            Owner::register(state.path()).expect("an owner"),
        );
        let scope = task_db.recent(1).expect("rows")[0].task.scope.clone().expect("a scope");
        let row = task_db.claim(&[&scope], &killed).expect("no error").expect("the task");
        task_db.note_image(row.id, &killed, &id).expect("notes");
        if last == Last::Forgotten {
            state.tasks().expect("tasks")[0].remove().expect("forgets");
        }
    }
    let sent = site.aws.count("PutSnapshotBlock");
    let service = site.service();
    let made = restored(&service, &reserved);
    assert_eq!((made.progress, made.reason), (RestoreProgress::Available, None), "{last:?}");
    assert_eq!(made.image_id.as_ref().map(ImageId::as_str), Some(id.as_str()), "{last:?}");
    assert_eq!(
        (site.aws.images().len(), site.aws.count("PutSnapshotBlock") - sent),
        (2, 0),
        "{last:?}"
    );
    assert_eq!(state.tasks().expect("tasks").len(), 0, "{last:?}: nothing is left to continue");
}

#[cfg(feature = "cli")]
#[test]
fn runs_of_the_program_are_listed_as_tasks_of_the_server_are() {
    let site = Site::new();
    site.s3.add_key(TestAws::ACCESS_KEY, TestAws::SECRET_KEY, None);
    let service = site.service();
    let image = site.image("web");
    let sandbox = crate::support::cli::Sandbox::new();
    let program = |args: &[&str]| {
        let mut command = sandbox.command(args);
        command
            .env("AWS_ENDPOINT_URL", site.aws.endpoint())
            .env("AWS_ENDPOINT_URL_S3", site.s3.endpoint());
        command.env("AWS_REGION", TestAws::REGION).env("AWS_EC2_METADATA_DISABLED", "true");
        command
            .env("AWS_ACCESS_KEY_ID", TestAws::ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", TestAws::SECRET_KEY);
        command.env("AMISTORE_STATE", site.directory.path());
        sandbox.start(&mut command).wait().succeeded()
    };
    program(&["store", image.as_str(), "s3://second/x/"]);
    let result = completed(&service, &image);
    assert_eq!((result.bucket.as_str(), result.object_key), ("second", format!("x/{image}.bin")));
    service.create_store(&store_request(&image, BUCKET), false).expect("taken on");
    assert_eq!(completed(&service, &image).bucket, BUCKET, "the newest of the image");
    program(&["restore", &format!("s3://second/x/{image}.bin"), "ec2", "--name", "by command"]);
    let listed = program(&["tasks", "--output", "json"]).json();
    let stores = listed["StoreImageTaskResults"].as_array().expect("a list");
    let states: Vec<_> = stores
        .iter()
        .map(|task| (task["Origin"].as_str(), task["StoreTaskState"].as_str()))
        .collect();
    assert_eq!(
        states,
        [(Some("server"), Some("Completed")), (Some("command"), Some("Completed"))],
        "{listed}"
    );
    assert_eq!(listed["RestoreImageTaskResults"].as_array().map(Vec::len), Some(1));
}
