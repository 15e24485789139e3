//! `restore --salvage` and `extract --salvage`, and the refusal of their results by `store`.

use std::process::Command;

use amistore_aws_double::s3::{ObjectOptions, TestS3};
use serde_json::Value;

use crate::support::cli::{Anatomy, DATA, IMAGE, ROOT, Sandbox, sample_archive};
use crate::support::schema::Schema;

/// The sample archive without its end: the last cell of the second volume is cut short.
fn truncated() -> Vec<u8> {
    let [_, frame] = Anatomy::of(sample_archive()).cell(1, 1);
    sample_archive()[..frame.0 + frame.1 / 2].to_vec()
}

/// The only result on stdout of a rescue that ends with exit code 5.
#[track_caller]
fn report(sandbox: &Sandbox, args: &[&str], input: Option<&[u8]>) -> Value {
    let args = [args, &["--output", "json"]].concat();
    let outcome = match input {
        Some(bytes) => sandbox.run_with_input(&args, bytes),
        None => sandbox.run(&args),
    };
    assert_eq!(outcome.code, 5, "{}", outcome.stderr);
    let result = outcome.json();
    Schema::of_results().assert_met_by("salvage", &result);
    result
}

#[test]
fn a_truncated_archive_gives_its_volumes_with_a_mark_from_a_file_and_from_a_pipe() {
    let sandbox = Sandbox::with_image().and("a.bin", truncated());
    let by_file = report(&sandbox, &["restore", "a.bin", "out", "--salvage"], None);
    assert_eq!((&by_file["Outcome"], &by_file["ImageId"]), (&"salvaged".into(), &IMAGE.into()));
    assert_eq!(by_file["RootSha256"], Value::Null);
    let volumes = by_file["Volumes"].as_array().expect("volumes");
    assert_eq!(volumes[0]["File"], format!("{ROOT}.raw"));
    assert_eq!((&volumes[0]["IsWhole"], &volumes[1]["IsWhole"]), (&true.into(), &false.into()));
    let missing = &volumes[1]["Missing"][0];
    assert_eq!(missing["Offset"], 100 * 512 * 1024, "{missing}");
    assert_eq!(missing["MissingBytes"], 512 * 1024, "{missing}");
    assert_eq!(missing["Cause"], "the archive ends before its footer");
    // The first volume is whole, and the second lacks one block.
    let image = |name: &str| sandbox.read(name);
    assert!(image(&format!("image/{ROOT}.raw")) == image(&format!("out/{ROOT}.raw")));
    let (mut original, rescued) =
        (image(&format!("image/{DATA}.raw")), image(&format!("out/{DATA}.raw")));
    original[100 << 19..101 << 19].fill(0);
    assert!(original == rescued);
    let mark: Value = serde_json::from_slice(&sandbox.read("out/salvage.json")).expect("JSON");
    assert_eq!(mark["Volumes"], by_file["Volumes"]);
    assert_eq!(sandbox.read("image/image.json"), sandbox.read("out/image.json"));
    let by_pipe = report(&sandbox, &["restore", "-", "piped", "--salvage"], Some(&truncated()));
    assert_eq!(by_pipe["Volumes"], by_file["Volumes"]);
    assert!(sandbox.read(&format!("piped/{DATA}.raw")) == rescued);
}

#[test]
fn a_rescued_image_is_stored_only_on_request() {
    let sandbox = Sandbox::new().and("a.bin", truncated());
    report(&sandbox, &["restore", "a.bin", "out", "--salvage"], None);
    let refused = ["salvage.json", "--allow-salvaged"];
    sandbox.run(&["store", "out", "b.bin"]).failed(2, &refused);
    let disk = format!("/dev/xvda=out/{ROOT}.raw");
    let disks = ["store", "--disk", &disk, "--name", "web", "c.bin"];
    sandbox.run(&disks).failed(2, &refused);
    sandbox.run(&["store", "out", "b.bin", "--dry-run"]).failed(2, &refused);
    sandbox.run(&["store", "out", "b.bin", "--allow-salvaged"]).succeeded();
    sandbox.run(&["verify", "b.bin", "--against", "out"]).succeeded();
    // A restore over it takes the mark away with the volumes.
    let whole = Sandbox::with_archive();
    sandbox.write("whole.bin", whole.read("a.bin"));
    sandbox.run(&["restore", "whole.bin", "out"]).failed(9, &["already"]);
    sandbox.run(&["restore", "whole.bin", "out", "--force"]).succeeded();
    sandbox.run(&["store", "out", "d.bin"]).succeeded();
    assert!(sandbox.read("d.bin") == sample_archive());
}

#[test]
fn a_volume_is_rescued_to_a_file_with_a_mark_beside_it() {
    let sandbox = Sandbox::new().and("a.bin", truncated());
    let extract = ["extract", "a.bin", "--device", "/dev/sdb", "-o", "x.raw", "--salvage"];
    let report = report(&sandbox, &extract, None);
    assert_eq!(report["Volumes"][0]["File"], "x.raw");
    assert_eq!(sandbox.left(&["a.bin"]), ["x.raw", "x.raw.salvage.json"]);
    let disks = ["store", "--disk", "/dev/xvda=x.raw", "--name", "web", "c.bin"];
    sandbox.run(&disks).failed(2, &["x.raw.salvage.json"]);
    // A volume without damage in an archive that is damaged behind it.
    let mut bytes = sample_archive().to_vec();
    let (start, _) = Anatomy::of(sample_archive()).cell(1, 1)[1];
    bytes[start + 1000] ^= 1;
    sandbox.write("b.bin", &bytes);
    let snapshot = ["extract", "b.bin", "--snapshot", ROOT, "-o", "y.raw", "--salvage"];
    sandbox.run(&snapshot).succeeded();
    assert!(!sandbox.path("y.raw.salvage.json").exists());
    let nothing = ["extract", "b.bin", "--snapshot", "snap-9", "-o", "z.raw", "--salvage"];
    sandbox.run(&nothing).failed(3, &["snap-9"]);
}

#[test]
fn a_rescue_of_a_whole_archive_is_a_restore() {
    let sandbox = Sandbox::with_image().and("a.bin", sample_archive());
    let rescued = sandbox.run(&["restore", "a.bin", "out", "--salvage"]).succeeded().text();
    assert!(rescued.contains("rescued, whole"), "{rescued}");
    assert!(!sandbox.path("out/salvage.json").exists());
    sandbox.run(&["store", "out", "b.bin"]).succeeded();
    assert!(sandbox.read("b.bin") == sample_archive());
}

#[test]
fn a_dry_run_reads_all_and_writes_nothing() {
    let sandbox = Sandbox::new().and("a.bin", truncated());
    let planned = report(&sandbox, &["restore", "a.bin", "out", "--salvage", "--dry-run"], None);
    assert_eq!((&planned["DryRun"], &planned["Outcome"]), (&true.into(), &"planned".into()));
    assert_eq!(planned["Volumes"][1]["IsWhole"], false);
    assert_eq!(sandbox.left(&["a.bin"]), [""; 0]);
}

#[test]
fn a_rescue_goes_to_files_only() {
    let sandbox = Sandbox::new().and("a.bin", truncated());
    let ec2 = sandbox.run(&["restore", "a.bin", "ec2", "--salvage"]);
    ec2.failed(2, &["rescue it to a directory", "--allow-salvaged"]);
    let stdout = ["extract", "a.bin", "--device", "/dev/sdb", "-o", "-", "--salvage"];
    sandbox.run(&stdout).failed(2, &["a rescue needs a file"]);
    sandbox.make_directory("out");
    sandbox.write("out/image.json", "{}");
    sandbox.run(&["restore", "a.bin", "out", "--salvage"]).failed(9, &["already"]);
    sandbox.write("text", "no archive at all, but some text");
    sandbox.run(&["restore", "text", "new", "--salvage"]).failed(8, &["not an amistore archive"]);
    assert!(!sandbox.path("new").exists());
}

#[test]
fn a_damaged_object_is_rescued_from_a_bucket() {
    let server = TestS3::start();
    server.create_bucket("images");
    server.put_object("images", "a.bin", truncated(), ObjectOptions::default());
    let sandbox = Sandbox::new();
    let mut command: Command =
        sandbox.command(&["restore", "s3://images/a.bin", "out", "--salvage", "--output", "json"]);
    command
        .env("AWS_ENDPOINT_URL", server.endpoint())
        .env("AWS_REGION", TestS3::REGION)
        .env("AWS_ACCESS_KEY_ID", TestS3::ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", TestS3::SECRET_KEY)
        .env("AWS_EC2_METADATA_DISABLED", "true");
    let outcome = sandbox.start(&mut command).wait();
    assert_eq!(outcome.code, 5, "{}", outcome.stderr);
    let result = outcome.json();
    assert_eq!(
        (&result["Volumes"][0]["IsWhole"], &result["Archive"]),
        (&true.into(), &"s3://images/a.bin".into())
    );
    assert!(sandbox.path(&format!("out/{DATA}.raw")).exists());
}
