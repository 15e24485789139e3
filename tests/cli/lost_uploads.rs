//! A process that is killed between the answer of CreateMultipartUpload and the record of it leaves
//! an upload whose id no file has: the next run and `clean` find it by key and time.

use std::time::Duration;

use amistore_aws_double::s3::{Fault, FaultKind, When};

use crate::s3::{BUCKET, Cloud};
use crate::support::cli::{IMAGE, wait_until};

const CREATE: &str = "CreateMultipartUpload";

/// Commands that begin uploads: a store, a copy from a file, and a copy by the service.
const COMMANDS: [&[&str]; 3] = [
    &["store", "image", "s3://images/p/"],
    &["copy", "a.bin", "s3://images/copy.bin"],
    &["copy", "s3://images/there.bin", "s3://images/copy.bin"],
];

/// Kills the command while the answer to its `nth` CreateMultipartUpload is on its way. The first
/// one is the trial upload.
fn killed(args: &[&str], nth: u64) -> Cloud {
    let cloud = Cloud::new();
    cloud.sandbox.run(&["store", "image", "a.bin"]).succeeded();
    cloud.run(&["copy", "a.bin", "s3://images/there.bin"]).succeeded();
    cloud.server.reset_calls();
    let late = FaultKind::Late(Duration::from_secs(20));
    cloud.server.fail(Fault::new(late, When::CallOf(CREATE, nth)));
    let mut running = cloud.start(args);
    wait_until("the upload to exist", || {
        cloud.server.count(CREATE) as u64 == nth && cloud.uploads() == 1
    });
    running.signal("KILL");
    assert_eq!(running.wait().code, -9);
    cloud.server.clear_faults();
    assert_eq!(cloud.uploads(), 1, "{args:?}: the upload stays behind");
    cloud
}

#[test]
fn the_next_run_aborts_an_upload_whose_id_the_killed_run_did_not_learn() {
    for args in COMMANDS {
        for nth in [1, 2] {
            let cloud = killed(args, nth);
            let lost = cloud.server.open_uploads(BUCKET).remove(0).upload_id;
            cloud.run(args).succeeded();
            let open = cloud.server.open_uploads(BUCKET);
            assert!(open.is_empty(), "{args:?}, upload {nth}: {lost} stays");
            let key = if args[0] == "store" { format!("p/{IMAGE}.bin") } else { "copy.bin".into() };
            let object = cloud.server.object(BUCKET, &key).expect("an object");
            assert!(object.bytes == cloud.sandbox.read("a.bin"), "{args:?}");
            let cleaned = cloud.run(&["clean"]).succeeded().text();
            assert_eq!(cleaned, "nothing was left behind\n", "{args:?}, upload {nth}");
        }
    }
}

#[test]
fn clean_removes_an_upload_whose_id_the_killed_run_did_not_learn() {
    for args in COMMANDS {
        for nth in [1, 2] {
            let cloud = killed(args, nth);
            let listed = cloud.run(&["clean"]).succeeded().text();
            assert!(listed.contains("upload s3://images/"), "{args:?}, upload {nth}: {listed}");
            assert_eq!(cloud.uploads(), 1, "it is listed alone");
            cloud.run(&["clean", "--abort"]).succeeded();
            assert_eq!(cloud.uploads(), 0, "{args:?}, upload {nth}");
            let cleaned = cloud.run(&["clean"]).succeeded().text();
            assert_eq!(cleaned, "nothing was left behind\n", "{args:?}, upload {nth}");
        }
    }
}

#[test]
fn a_bucket_that_does_not_exist_leaves_nothing_to_clean() {
    let cloud = Cloud::new();
    cloud.sandbox.run(&["store", "image", "a.bin"]).succeeded();
    for args in
        [["store", "image", "s3://no-such-bucket/x.bin"], ["copy", "a.bin", "s3://no-such-bucket/"]]
    {
        cloud.run(&args).failed(3, &["no-such-bucket"]);
        let cleaned = cloud.run(&["clean"]).succeeded().text();
        assert_eq!(cleaned, "nothing was left behind\n", "{args:?}");
    }
}

#[test]
fn an_upload_with_parts_belongs_to_another_process_and_is_left_alone() {
    let cloud = killed(COMMANDS[2], 2);
    cloud.server.reset_calls();
    let late = FaultKind::Late(Duration::from_secs(20));
    cloud.server.fail(Fault::new(late, When::CallOf("UploadPart", 2)));
    let mut command = cloud.command(COMMANDS[1]);
    let theirs = cloud.sandbox.start(command.env("AMISTORE_STATE", cloud.sandbox.path("theirs")));
    let with_parts = || {
        let open = cloud.server.open_uploads(BUCKET);
        open.iter().filter(|upload| !upload.parts.is_empty()).count()
    };
    wait_until("a part of another process", || with_parts() == 1);
    assert_eq!(cloud.uploads(), 2);
    cloud.run(&["clean", "--abort"]).succeeded();
    assert_eq!((cloud.uploads(), with_parts()), (1, 1));
    drop(theirs);
}

#[test]
fn a_copy_by_the_service_that_fails_or_is_interrupted_leaves_no_upload_and_no_record() {
    for kind in ["denied", "interrupted"] {
        let cloud = Cloud::new();
        cloud.run(&["store", "image", "s3://images/there.bin"]).succeeded();
        let args = COMMANDS[2];
        cloud.server.reset_calls();
        if kind == "denied" {
            cloud.server.deny("UploadPartCopy");
            cloud.run(args).failed(4, &["AccessDenied"]);
        } else {
            let late = FaultKind::Late(Duration::from_secs(20));
            cloud.server.fail(Fault::new(late, When::CallOf("UploadPartCopy", 1)));
            let mut running = cloud.start(args);
            wait_until("the copy of a part", || cloud.server.count("UploadPartCopy") == 1);
            running.signal("INT");
            assert_eq!(running.wait().code, 130);
        }
        cloud.server.clear_faults();
        assert_eq!(cloud.uploads(), 0, "{kind}");
        let cleaned = cloud.run(&["clean"]).succeeded().text();
        assert_eq!(cleaned, "nothing was left behind\n", "{kind}");
    }
}

#[test]
fn a_copy_by_the_service_needs_no_state_directory() {
    let cloud = Cloud::new();
    cloud.run(&["store", "image", "s3://images/there.bin"]).succeeded();
    cloud.sandbox.write("file", b"");
    let mut command = cloud.command(COMMANDS[2]);
    let state = cloud.sandbox.path("file/state");
    let copied = cloud.sandbox.start(command.env("AMISTORE_STATE", state)).wait().succeeded();
    copied.says(&["the upload of this copy is not recorded"]);
    assert!(cloud.server.object(BUCKET, "copy.bin").is_some());
}
