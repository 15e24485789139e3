//! Archives in S3, as users of the program see them.

use std::process::Command;
use std::time::Duration;

use amistore_aws_double::s3::{BucketOptions, Fault, FaultKind, ObjectOptions, TestS3, When};
use serde_json::Value;

use crate::support::cli::{IMAGE, Outcome, Running, Sandbox, wait_until};
use crate::tasks::assert_dry_run_refuses;

pub const BUCKET: &str = "images";

/// A server with a bucket, and a sandbox with the sample image.
pub struct Cloud {
    pub server: TestS3,
    pub sandbox: Sandbox,
}

impl Cloud {
    pub fn new() -> Self {
        let server = TestS3::start();
        server.create_bucket(BUCKET);
        server.set_min_part_size(1);
        Self { server, sandbox: Sandbox::with_image() }
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.sandbox.command(args);
        command
            .env("AWS_ENDPOINT_URL", self.server.endpoint())
            .env("AWS_REGION", TestS3::REGION)
            .env("AWS_ACCESS_KEY_ID", TestS3::ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", TestS3::SECRET_KEY)
            .env("AWS_CONFIG_FILE", self.sandbox.path("aws-config"))
            .env("AWS_SHARED_CREDENTIALS_FILE", self.sandbox.path("aws-credentials"))
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AMISTORE_STATE", self.sandbox.path("state"))
            .env("AMISTORE_PART_SIZE", "256KiB");
        command
    }

    pub fn start(&self, args: &[&str]) -> Running {
        self.sandbox.start(&mut self.command(args))
    }

    pub fn run(&self, args: &[&str]) -> Outcome {
        self.start(args).wait()
    }

    fn json(&self, args: &[&str]) -> Value {
        self.run(&[args, &["--output", "json"]].concat()).succeeded().json()
    }

    pub fn uploads(&self) -> usize {
        self.server.open_uploads(BUCKET).len()
    }

    /// Stores until the fourth part, which is denied.
    fn interrupted(&self) {
        self.server.fail(Fault::new(FaultKind::AccessDenied, When::CallOf("UploadPart", 4)));
        self.run(&["store", "image", "s3://images/p/"])
            .failed(4, &["AccessDenied", "continue with: amistore store image s3://images/p/"]);
        self.server.clear_faults();
    }
}

fn key() -> String {
    format!("p/{IMAGE}.bin")
}

#[test]
fn an_image_is_stored_to_and_restored_from_a_bucket() {
    let cloud = Cloud::new();
    let url = format!("s3://images/{}", key());
    cloud.run(&["store", "image", "s3://images/p/", "--s3-object-tag", "team=a b"]).succeeded();
    cloud.sandbox.run(&["store", "image", "local.bin"]).succeeded();
    let object = cloud.server.object(BUCKET, &key()).expect("an object");
    assert!(object.bytes == cloud.sandbox.read("local.bin"));
    assert_eq!(object.tags["team"], "a b");
    assert_eq!(
        (
            object.user_metadata["ami-name"].as_str(),
            object.parts.as_ref().is_some_and(|parts| parts.len() > 5)
        ),
        ("sample", true)
    );
    // A second store finds the object and sends no part.
    cloud.server.reset_calls();
    cloud.run(&["store", "image", "s3://images/p/"]).succeeded();
    assert_eq!(cloud.server.count("UploadPart"), 0);
    cloud.run(&["verify", &url, "--against", "image"]).succeeded();
    cloud.run(&["restore", &url, "back"]).succeeded();
    for name in ["image.json", "snap-0aaaaaaaaaaaaaaaa.raw"] {
        assert!(
            cloud.sandbox.read(&format!("back/{name}"))
                == cloud.sandbox.read(&format!("image/{name}")),
            "{name}"
        );
    }
    let listed = cloud.json(&["ls", "s3://images/p/"]);
    assert_eq!(listed["Archives"][0]["AmiName"], "sample", "{listed}");
    cloud.run(&["inspect", &url]).succeeded();
    cloud.run(&["extract", &url, "--image-json"]).succeeded();
    assert_eq!(cloud.uploads(), 0);
    let tasks = cloud.json(&["tasks"]);
    let ended = tasks["StoreImageTaskResults"].as_array().expect("a list");
    assert!(
        ended
            .iter()
            .all(|task| task["StoreTaskState"] == "Completed" && task["ResumeCommand"].is_null()),
        "{tasks}"
    );
    // Another image under this key is not replaced without `--force`.
    cloud.sandbox.sample_image("other");
    let json = String::from_utf8(cloud.sandbox.read("other/image.json"))
        .expect("text")
        .replace("sample", "changed");
    cloud.sandbox.write("other/image.json", json);
    cloud.run(&["store", "other", &url]).succeeded().says(&["warning"]);
    cloud.run(&["store", "other", &url, "--on-metadata-change", "fail"]).failed(9, &["update"]);
    assert!(
        cloud.server.object(BUCKET, &key()).expect("an object").bytes
            == cloud.sandbox.read("local.bin")
    );
    cloud.run(&["store", "other", &url, "--force"]).succeeded();
    assert!(
        cloud.server.object(BUCKET, &key()).expect("an object").bytes
            != cloud.sandbox.read("local.bin")
    );
}

#[test]
fn missing_public_and_foreign_buckets_are_refused() {
    let cloud = Cloud::new();
    let store = |bucket: &str, more: &[&str]| {
        cloud.run(&[&["store", "image", &format!("s3://{bucket}/")], more].concat())
    };
    store("missing", &[]).failed(3, &["there is no such bucket"]);
    cloud.server.create_bucket_with(
        "open",
        BucketOptions { policy_is_public: Some(true), ..BucketOptions::default() },
    );
    store("open", &[]).failed(4, &["public", "--allow-public-bucket"]);
    store("open", &["--dry-run"]).failed(4, &["public"]);
    store("images", &["--expected-bucket-owner", "999999999999"]).failed(4, &["bucket"]);
    assert!(cloud.server.keys("open").is_empty() && cloud.server.keys(BUCKET).is_empty());
    assert_eq!(cloud.server.count("UploadPart"), 0);
    store("open", &["--allow-public-bucket"]).succeeded().says(&["warning"]);
    cloud.server.create_bucket_with(
        "far",
        BucketOptions { region: "eu-west-1".to_owned(), ..BucketOptions::default() },
    );
    store("far", &[]).succeeded();
    cloud.server.deny("AbortMultipartUpload");
    cloud.server.create_bucket("third");
    store("third", &[]).failed(4, &["begun and not aborted"]);
}

#[test]
fn unfinished_tasks_are_listed_resumed_and_cleaned() {
    let cloud = Cloud::new();
    cloud.interrupted();
    let tasks = cloud.json(&["tasks"]);
    assert_eq!(
        tasks["StoreImageTaskResults"].as_array().map(Vec::len),
        Some(1),
        "one task is listed once: {tasks}"
    );
    let task = &tasks["StoreImageTaskResults"][0];
    assert_eq!(
        (task["StoreTaskState"].as_str(), task["AmiId"].as_str()),
        (Some("Failed"), Some(IMAGE)),
        "{tasks}"
    );
    let found = cloud.json(&["clean"]);
    assert_eq!(cloud.uploads(), 1, "{found}");
    cloud.run(&["store", "image", "s3://images/p/"]).succeeded();
    assert_eq!((cloud.uploads(), cloud.server.object(BUCKET, &key()).is_some()), (0, true));

    let cloud = Cloud::new();
    cloud.interrupted();
    cloud.run(&["clean", "--abort"]).succeeded();
    assert_eq!((cloud.uploads(), cloud.server.keys(BUCKET).len()), (0, 0));
    let tasks = cloud.json(&["tasks"]);
    let given_up = &tasks["StoreImageTaskResults"][0];
    assert_eq!(
        (given_up["StoreTaskState"].as_str(), given_up["ResumeCommand"].as_str()),
        (Some("Failed"), None),
        "{tasks}"
    );
}

#[test]
fn an_interrupted_store_to_a_bucket_resumes() {
    let cloud = Cloud::new();
    cloud.server.set_latency(Duration::from_millis(40));
    let mut running = cloud.start(&["store", "image", "s3://images/p/"]);
    wait_until("some parts", || {
        cloud.server.open_uploads(BUCKET).iter().any(|upload| upload.parts.len() >= 2)
    });
    running.signal("INT");
    assert_eq!(running.wait().code, 130);
    assert_eq!(cloud.server.keys(BUCKET).len(), 0);
    cloud.server.set_latency(Duration::ZERO);
    let up = cloud.server.open_uploads(BUCKET).remove(0).parts;
    cloud.server.reset_calls();
    cloud.run(&["store", "image", "s3://images/p/"]).succeeded();
    assert!(
        cloud
            .server
            .calls()
            .iter()
            .filter_map(|call| call.part_number)
            .all(|part| !up.contains_key(&part))
    );
    assert_eq!((cloud.uploads(), cloud.server.keys(BUCKET).len()), (0, 1));
}

#[test]
fn a_dry_run_of_a_store_refuses_an_interrupted_task_as_the_run_does() {
    let args = ["store", "image", "s3://images/p/"];
    // The level is in the header of the task, the tags are fixed with its upload.
    for other in [["--level", "3"], ["--s3-object-tag", "team=a"]] {
        let cloud = Cloud::new();
        cloud.interrupted();
        assert_dry_run_refuses(&cloud.sandbox, &|args| cloud.run(args), &args, &other);
    }
}

#[test]
fn a_dry_run_of_a_copy_refuses_an_interrupted_task_as_the_run_does() {
    let cloud = Cloud::new();
    cloud.sandbox.run(&["store", "image", "local.bin"]).succeeded();
    let args = ["copy", "local.bin", "s3://images/c.bin"];
    cloud.server.fail(Fault::new(FaultKind::AccessDenied, When::CallOf("UploadPart", 4)));
    cloud.run(&args).failed(4, &["AccessDenied", "continue with: amistore copy"]);
    cloud.server.clear_faults();
    let other = ["--s3-object-tag", "team=a"];
    assert_dry_run_refuses(&cloud.sandbox, &|args| cloud.run(args), &args, &other);
}

#[test]
fn expired_credentials_are_read_again() {
    let cloud = Cloud::new();
    let credentials = |id: &str| {
        format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = secret-of-{id}\n")
    };
    cloud.server.add_key("AKIAFIRST", "secret-of-AKIAFIRST", None);
    cloud.server.add_key("AKIASECOND", "secret-of-AKIASECOND", None);
    cloud.sandbox.write("aws-credentials", credentials("AKIAFIRST"));
    cloud.server.set_latency(Duration::from_millis(30));
    let mut command = cloud.command(&["store", "image", "s3://images/p/"]);
    let running = cloud
        .sandbox
        .start(command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY"));
    wait_until("a part", || cloud.server.count("UploadPart") > 0);
    cloud.sandbox.write("aws-credentials", credentials("AKIASECOND"));
    cloud.server.expire_key("AKIAFIRST");
    running.wait().succeeded();
    let keys: Vec<_> =
        cloud.server.calls().into_iter().filter_map(|call| call.access_key).collect();
    assert!(
        keys.iter().any(|key| key == "AKIAFIRST")
            && keys.last().is_some_and(|key| key == "AKIASECOND")
    );
    // Without new credentials it is an error with a hint.
    cloud.server.expire_key("AKIASECOND");
    let mut command = cloud.command(&["ls", "s3://images/"]);
    let running = cloud
        .sandbox
        .start(command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY"));
    running.wait().failed(4, &["ExpiredToken", "fetch new credentials"]);
}

#[test]
fn a_copy_within_s3_keeps_attributes_and_downloads_no_data() {
    let cloud = Cloud::new();
    cloud.run(&["store", "image", "s3://images/p/", "--s3-object-tag", "team=a b"]).succeeded();
    let url = format!("s3://images/{}", key());
    let copies = [
        ("served.bin", &[][..]),
        ("carried.bin", &["--no-server-copy"][..]),
        ("checked.bin", &["--verify-blocks"][..]),
    ];
    for (target, more) in copies {
        cloud.server.reset_calls();
        cloud.run(&[&["copy", &url, &format!("s3://images/{target}")], more].concat()).succeeded();
        let fetched: u64 = cloud.server.calls().iter().map(|call| call.bytes_out).sum();
        let (from, to) = (
            cloud.server.object(BUCKET, &key()).expect("one"),
            cloud.server.object(BUCKET, target).expect("other"),
        );
        assert!(from.bytes == to.bytes);
        assert_eq!(from.tags, to.tags);
        let known = |object: &amistore_aws_double::s3::StoredObject| {
            let mut metadata = object.user_metadata.clone();
            metadata.remove("amistore-content-sha256");
            metadata.remove("amistore-root-sha256");
            metadata
        };
        assert_eq!(known(&from), known(&to));
        assert_eq!(more.is_empty(), cloud.server.count("UploadPartCopy") > 0);
        assert_eq!(more.is_empty(), fetched < from.bytes.len() as u64 / 2, "{fetched}");
    }
    // A damaged archive is not copied.
    let mut bytes = cloud.server.object(BUCKET, &key()).expect("an object").bytes.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    cloud.server.put_object(BUCKET, "damaged.bin", bytes, ObjectOptions::default());
    cloud
        .run(&["copy", "s3://images/damaged.bin", "s3://images/worse.bin", "--no-server-copy"])
        .failed(5, &["snapshot"]);
    assert!(cloud.server.object(BUCKET, "worse.bin").is_none() && cloud.uploads() == 0);
}

#[test]
fn an_archived_object_is_refused_with_a_hint_to_restore_it() {
    let cloud = Cloud::new();
    cloud.run(&["store", "image", "s3://images/p/"]).succeeded();
    cloud.server.freeze(BUCKET, &key(), "DEEP_ARCHIVE");
    let url = format!("s3://images/{}", key());
    cloud.run(&["verify", &url]).failed(6, &["archive tier", "--thaw"]);
    cloud.run(&["verify", &url, "--thaw", "bulk", "--wait", "--thaw-poll", "1"]).succeeded();
}

#[test]
fn the_settings_for_checksums_are_honoured() {
    let stored = |variables: &[(&str, &str)]| {
        let cloud = Cloud::new();
        let mut command = cloud.command(&["store", "image", "s3://images/p/"]);
        command.envs(variables.iter().copied());
        cloud.sandbox.start(&mut command).wait().succeeded();
        cloud.server.calls()
    };
    let checksums = |calls: &[amistore_aws_double::s3::Call], operation: &str| {
        let of = calls.iter().filter(|call| call.operation == operation);
        of.map(|call| call.checksum_headers.len()).sum::<usize>()
    };
    let usual = stored(&[]);
    assert!(checksums(&usual, "HeadObject") > 0);
    let quiet = stored(&[
        ("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required"),
        ("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required"),
    ]);
    let all: usize = quiet.iter().map(|call| call.checksum_headers.len()).sum();
    assert_eq!(all, 0, "no header of checksums is sent");
}

#[test]
fn a_list_of_parts_that_is_denied_is_a_warning() {
    let cloud = Cloud::new();
    cloud.server.deny("ListParts");
    cloud
        .run(&["store", "image", "s3://images/"])
        .succeeded()
        .says(&["warning: the uploaded parts cannot be listed", "checksum of the whole object"]);
    let cloud = Cloud::new();
    cloud.interrupted();
    cloud.server.deny("ListParts");
    cloud
        .run(&["store", "image", "s3://images/p/"])
        .succeeded()
        .says(&["warning: the uploaded parts cannot be listed, and are sent again"]);
}

#[test]
fn a_dry_run_says_that_it_begins_and_aborts_an_upload() {
    let cloud = Cloud::new();
    let args = ["store", "image", "s3://images/", "--dry-run"];
    let text = cloud.run(&args).succeeded().text();
    assert!(text.contains("an upload is begun and aborted, and no part of it is sent"), "{text}");
    let began = cloud.server.count("CreateMultipartUpload");
    assert_eq!((began, cloud.server.count("AbortMultipartUpload")), (1, 1));
    assert_eq!((cloud.server.count("UploadPart"), cloud.uploads()), (0, 0));
    assert_eq!(cloud.json(&args)["UploadProbed"], true);
    cloud.run(&["store", "image", "s3://images/"]).succeeded();
    let copy = ["copy", &format!("s3://images/{IMAGE}.bin"), "s3://images/copy.bin", "--dry-run"];
    assert_eq!(cloud.json(&copy)["UploadProbed"], true, "by the service");
    // Nothing is begun for a file.
    let to_file = cloud.json(&["store", "image", "file.bin", "--dry-run"]);
    assert!(to_file.get("UploadProbed").is_none(), "{to_file}");
}

#[test]
fn a_profile_that_does_not_exist_is_named_with_those_that_do() {
    let cloud = Cloud::new();
    cloud.sandbox.write("aws-config", "[profile one]\nregion = us-east-1\n");
    cloud.sandbox.write("aws-credentials", "[two]\naws_access_key_id = a\n");
    let words = ["no such profile", "profile: none", "profiles: one, two", "AWS_PROFILE"];
    let ls = ["ls", "s3://images/"];
    cloud.run(&[&ls[..], &["--profile", "none"]].concat()).failed(3, &words);
    let mut by_variable = cloud.command(&ls);
    cloud.sandbox.start(by_variable.env("AWS_PROFILE", "none")).wait().failed(3, &words);
    assert_eq!(cloud.server.calls().len(), 0, "no request was sent");
    let mut empty = cloud.command(&ls);
    cloud.sandbox.start(empty.env("AWS_PROFILE", "")).wait().succeeded();
}
