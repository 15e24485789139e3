//! A tag that is new in EC2 neither breaks a nightly store nor a retirement.

use amistore_aws_double::aws::{Content, Image};
use serde_json::{Value, json};

use super::partitions::{BUCKET, Partitions};

const COM: [&str; 4] = ["--source-profile", "com", "--target-profile", "com"];

/// An image whose archive is in its bucket, and which got a tag since.
fn tagged() -> (Partitions, String) {
    let world = Partitions::new();
    let blocks = (0..8).map(|block| (block * 3, Content::random(u64::from(block))));
    let snapshot = world.com.aws.snapshot_of(1, blocks);
    let ami = world.com.aws.add_image(Image::new("web", &snapshot));
    world.run(&store(&ami, "s3://images/", &[])).succeeded();
    world.com.aws.change_image(&ami, |image| {
        image.tags.insert("reviewed".into(), "yes".into());
    });
    world.com.aws.reset_calls();
    (world, ami)
}

fn store<'a>(ami: &'a str, target: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["store", ami, target][..], &COM, more].concat()
}

#[test]
fn a_nightly_store_goes_on_and_says_so() {
    let (world, ami) = tagged();
    let key = format!("{ami}.bin");
    let bytes = |key: &str| world.com.s3.object(BUCKET, key).expect("an object").bytes;
    let before = bytes(&key);
    let report = world.json(&store(&ami, "s3://images/", &[]));
    assert_eq!(report["Outcome"], json!("metadata_changed"));
    assert_eq!(report["MetadataChanged"], json!(["Image.Tags"]));
    let plan = world.json(&store(&ami, "s3://images/", &["--dry-run"]));
    assert_eq!(plan["Outcome"], json!("metadata_changed"));
    let fails = ["--on-metadata-change", "fail"];
    world.run(&store(&ami, "s3://images/", &fails)).failed(9, &["Image.Tags", "disks are equal"]);
    assert_eq!(bytes(&key), before);
    let updates = ["--on-metadata-change", "update"];
    let report = world.json(&store(&ami, "s3://images/", &updates));
    assert_eq!(report["Outcome"], json!("metadata_updated"));
    assert!(report["SentAsAWhole"].as_str().is_some_and(|why| why.contains("5 MiB")), "{report}");
    // Each run reads one block, to see whether it may; none reads the disks.
    assert_eq!(world.com.aws.count("GetSnapshotBlock"), 4);
    world.run(&store(&ami, "s3://images/fresh.bin", &[])).succeeded();
    assert_eq!(bytes(&key), bytes("fresh.bin"), "byte for byte");
    let again = world.json(&store(&ami, "s3://images/", &updates));
    assert_eq!((&again["Outcome"], &again["MetadataChanged"]), (&json!("present"), &Value::Null));
}

#[test]
fn a_retirement_compares_disks_and_reports_metadata() {
    let (world, ami) = tagged();
    let archive = format!("s3://images/{ami}.bin");
    let args = ["retire", &ami, "--archive", &archive, "--deregister", "--yes"];
    let args = [&args[..], &COM].concat();
    world.run(&args).failed(9, &["every block", "Image.Tags", "--allow-metadata-changes"]);
    assert_eq!(world.com.aws.images().len(), 1);
    let allowed = [&args[..], &["--allow-metadata-changes"]].concat();
    let snapshot = world.com.aws.snapshots()[0].id.clone();
    let original = world.com.aws.snapshot(&snapshot).expect("there").blocks;
    world.com.aws.change_snapshot(&snapshot, |it| drop(it.blocks.insert(0, Content::Zero)));
    world.run(&allowed).failed(5, &["nothing was done"]);
    world.com.aws.change_snapshot(&snapshot, |it| it.blocks = original);
    let report = world.json(&allowed);
    assert_eq!(report["MetadataChanged"], json!(["Image.Tags"]));
    assert!(world.com.aws.images().is_empty());
}
