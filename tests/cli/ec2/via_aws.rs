//! Store and restore tasks of AWS itself: start and progress.

use amistore_aws_double::aws::{Content, Image};
use serde_json::json;

use super::partitions::Partitions;
use crate::support::cli::Outcome;
use crate::support::ec2::rich_image;

const COM: [&str; 4] = ["--source-profile", "com", "--target-profile", "com"];
const VIA: [&str; 2] = ["--via-aws", "--task-poll"];

/// Two partitions with a small image.
fn world() -> (Partitions, String) {
    let world = Partitions::new();
    let snapshot = world.com.aws.snapshot_of(1, [(0, Content::bytes(b"boot")), (3, Content::Zero)]);
    let ami = world.com.aws.add_image(Image::new("small", &snapshot));
    world.com.aws.set(|settings| (settings.store_polls, settings.restore_polls) = (0, 0));
    (world, ami)
}

fn via(args: &[&str]) -> Vec<String> {
    [args, &VIA, &["1"], &COM].concat().iter().map(|word| (*word).to_owned()).collect()
}

fn run(world: &Partitions, args: &[&str]) -> Outcome {
    let args = via(args);
    world.run(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn aws_stores_and_restores_an_image() {
    let world = Partitions::new();
    let ami = rich_image(&world.com.aws);
    world.com.aws.set(|settings| (settings.store_polls, settings.restore_polls) = (1, 1));
    let stored = run(
        &world,
        &["store", &ami, "s3://images/by/aws/", "--s3-object-tag", "team=blue", "--output", "json"],
    )
    .succeeded()
    .json();
    let key = format!("by/aws/{ami}.bin");
    assert_eq!(stored["S3objectKey"], json!(key));
    assert!(world.com.s3.object("images", &key).is_some());
    assert_eq!(world.com.aws.store_tasks()[0].tags["team"], "blue");
    let object = format!("s3://images/{key}");
    let args = [
        "restore",
        &object,
        "ec2",
        "--name",
        "again",
        "--tag",
        "new=1",
        "--output",
        "json",
        "--progress",
        "json",
    ];
    let restored = run(&world, &args).succeeded();
    assert!(restored.stderr.contains("\"finished\""), "{}", restored.stderr);
    let id = restored.json()["RestoredImageId"].as_str().expect("an image").to_owned();
    let image = world.com.aws.image(&id).expect("there");
    assert_eq!(
        (image.name.as_str(), image.state.as_str(), image.tags["new"].as_str()),
        ("again", "available", "1")
    );
    assert_eq!(
        (world.com.aws.count("GetSnapshotBlock"), world.com.aws.count("PutSnapshotBlock")),
        (0, 0)
    );
}

#[test]
fn the_reason_of_a_failed_task_is_reported() {
    let (world, ami) = world();
    world.com.aws.fail_store("the bucket has gone away");
    run(&world, &["store", &ami, "s3://images/"]).failed(6, &["the bucket has gone away", &ami]);
}

#[test]
fn the_outcome_of_an_earlier_task_is_not_that_of_a_new_one() {
    let (world, ami) = world();
    world.com.aws.fail_store("no luck");
    run(&world, &["store", &ami, "s3://images/"]).failed(6, &["no luck"]);
    world.com.aws.set(|settings| settings.store_polls = 1);
    run(&world, &["store", &ami, "s3://images/"]).succeeded();
    assert!(world.com.s3.object("images", &format!("{ami}.bin")).is_some());
}

#[test]
fn an_error_of_aws_is_reported() {
    let (world, ami) = world();
    run(&world, &["store", &ami, "s3://images/"]).succeeded();
    run(&world, &["store", &ami, "s3://images/"]).failed(6, &["already exists in the bucket"]);
    run(&world, &["store", &ami, "s3://nowhere/"]).failed(6, &["nowhere"]);
    run(&world, &["store", &ami, "s3://images/other-name.bin"])
        .failed(2, &["AWS names the object itself"]);
    run(&world, &["store", &ami, "a.bin"]).failed(2, &["buckets"]);
    run(&world, &["restore", "s3://images/nothing.bin", "ec2"]).failed(6, &["nothing.bin"]);
}

#[test]
fn an_object_of_aws_is_recognised_with_a_hint_to_restore_it() {
    let (world, ami) = world();
    run(&world, &["store", &ami, "s3://images/"]).succeeded();
    let object = format!("s3://images/{ami}.bin");
    let refused = world.run(&[
        "restore",
        &object,
        "ec2",
        "--source-profile",
        "com",
        "--target-profile",
        "com",
    ]);
    refused.failed(8, &["--via-aws"]);
    assert_eq!(world.com.aws.count("StartSnapshot"), 0);
}

#[test]
fn an_archive_of_amistore_is_refused_before_a_request_to_aws() {
    let (world, ami) = world();
    world.run(&[&["store", &ami, "s3://images/"][..], &COM].concat()).succeeded();
    let object = format!("s3://images/{ami}.bin");
    for more in [&[][..], &["--dry-run"]] {
        let args = [&["restore", &object, "ec2", "--name", "x y z"][..], more].concat();
        run(&world, &args).failed(2, &["an archive of amistore", "leave out --via-aws"]);
    }
    // A damaged one as well.
    let mut bytes = world.com.s3.object("images", &format!("{ami}.bin")).expect("there").bytes;
    bytes.truncate(bytes.len() / 2);
    world.com.s3.put_object("images", "half.bin", bytes, Default::default());
    run(&world, &["restore", "s3://images/half.bin", "ec2", "--name", "x y z"])
        .failed(5, &["truncated"]);
    assert_eq!(world.com.aws.count("CreateRestoreImageTask"), 0);
}

#[test]
fn stores_and_restores_by_aws_are_listed_as_tasks() {
    let (world, ami) = world();
    run(&world, &["store", &ami, "s3://images/"]).succeeded();
    let object = format!("s3://images/{ami}.bin");
    run(&world, &["restore", &object, "ec2", "--name", "again"]).succeeded();
    world.com.aws.fail_store("no luck");
    let other = {
        let snapshot = world.com.aws.snapshot_of(1, [(0, Content::bytes(b"boot"))]);
        world.com.aws.add_image(Image::new("other", &snapshot))
    };
    run(&world, &["store", &other, "s3://images/"]).failed(6, &["no luck"]);
    let listed = world.run(&["tasks", "--output", "json"]).succeeded().json();
    let stores = listed["StoreImageTaskResults"].as_array().expect("stores");
    let states: Vec<_> = stores
        .iter()
        .map(|task| (task["AmiId"].as_str(), task["StoreTaskState"].as_str()))
        .collect();
    assert_eq!(
        states,
        [(Some(other.as_str()), Some("Failed")), (Some(ami.as_str()), Some("Completed"))]
    );
    let restores = listed["RestoreImageTaskResults"].as_array().expect("restores");
    assert_eq!(restores.len(), 1, "{listed}");
    assert_eq!(
        (&restores[0]["Source"], &restores[0]["Bucket"]),
        (&json!(object), &json!("images"))
    );
    let text = String::from_utf8(world.run(&["tasks"]).succeeded().stdout).expect("text");
    assert!(text.contains("by AWS"), "{text}");
}
