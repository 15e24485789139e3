//! Objects that AWS stored, and other objects that are no archives: they are carried as they are.

use amistore_aws_double::aws::{Content, Image};
use amistore_aws_double::s3::{Fault, FaultKind, ObjectOptions, When};
use serde_json::json;

use super::partitions::{BUCKET, Partitions};
use crate::support::cli::{noise, sample_archive};

const COM_TO_GOV: [&str; 4] = ["--source-profile", "com", "--target-profile", "gov"];
const COM: [&str; 4] = ["--source-profile", "com", "--target-profile", "com"];

/// Two partitions, and the key of an object in the first one that AWS stored.
fn world() -> (Partitions, String) {
    let world = Partitions::new();
    // Made of bytes, so that the object is longer than a part.
    let blocks = (0..24_u32).map(|index| (index * 2, Content::bytes(noise(index.into(), 1))));
    let snapshot = world.com.aws.snapshot_of(1, blocks);
    let ami = world.com.aws.add_image(Image::new("by AWS", &snapshot));
    world.com.aws.set(|settings| settings.store_polls = 0);
    let stored = [&["store", &ami, "s3://images/aws/", "--via-aws", "--task-poll", "1"][..], &COM];
    let tags = ["--s3-object-tag", "team=blue"];
    world.run(&[&stored.concat()[..], &tags].concat()).succeeded();
    (world, format!("aws/{ami}.bin"))
}

fn copy(world: &Partitions, from: &str, to: &str, more: &[&str]) -> crate::support::cli::Outcome {
    world.run(&[&["copy", from, to, "--part-size", "5MiB"][..], more].concat())
}

#[test]
fn an_object_of_aws_is_carried_to_another_partition_byte_for_byte_with_metadata_and_tags() {
    let (world, key) = world();
    let from = format!("s3://{BUCKET}/{key}");
    let args = [&COM_TO_GOV[..], &["--output", "json"]].concat();
    let planned = copy(&world, &from, "s3://images/", &[&args[..], &["--dry-run"]].concat());
    let planned = planned.succeeded().json();
    assert_eq!((&planned["DryRun"], &planned["IsArchive"]), (&json!(true), &json!(false)));
    let name = key.trim_start_matches("aws/").to_owned();
    assert!(world.gov.s3.object(BUCKET, &name).is_none());
    let outcome = copy(&world, &from, "s3://images/", &args).succeeded();
    assert!(outcome.stderr.contains("cannot look inside"), "{}", outcome.stderr);
    let copied = outcome.json();
    assert_eq!(
        (&copied["Outcome"], &copied["ComparedChecksum"], &copied["S3objectKey"]),
        (&json!("copied"), &json!("CRC64NVME"), &json!(name))
    );
    let (source, copy_of) = (
        world.com.s3.object(BUCKET, &key).expect("there"),
        world.gov.s3.object(BUCKET, &name).expect("there"),
    );
    assert!(source.bytes.len() > 10 << 20 && source.bytes == copy_of.bytes);
    assert_eq!(source.attributes.user_metadata, copy_of.attributes.user_metadata);
    assert_eq!(copy_of.attributes.tags["team"], "blue");
    // A second run finds it, and another object of that name is an error.
    let again = copy(&world, &from, "s3://images/", &args).succeeded().json();
    assert_eq!(again["Outcome"], json!("present"));
    world.gov.s3.put_object(BUCKET, &name, "other", ObjectOptions::default());
    copy(&world, &from, "s3://images/", &COM_TO_GOV).failed(9, &["another object"]);
    // AWS restores it there.
    let object = format!("s3://images/{name}");
    copy(&world, &from, &object, &[&COM_TO_GOV[..], &["--force"]].concat()).succeeded();
    world.gov.aws.set(|settings| settings.restore_polls = 0);
    let restore = ["restore", &object, "ec2", "--via-aws", "--task-poll", "1", "--name", "again"];
    let gov = ["--source-profile", "gov", "--target-profile", "gov"];
    world.run(&[&restore[..], &gov].concat()).succeeded();
    assert!(world.gov.aws.images().iter().any(|image| image.name == "again"));
}

#[test]
fn within_one_service_the_service_copies_it_and_the_checksums_are_compared() {
    let (world, key) = world();
    let from = format!("s3://{BUCKET}/{key}");
    let read = world.com.s3.count("GetObject");
    copy(&world, &from, "s3://images/copy.bin", &COM).succeeded();
    let copied = world.com.s3.object(BUCKET, "copy.bin").expect("there");
    assert_eq!(copied.bytes, world.com.s3.object(BUCKET, &key).expect("there").bytes);
    assert_eq!(copied.attributes.tags["team"], "blue");
    assert!(world.com.s3.count("UploadPartCopy") > 0);
    let read = world.com.s3.count("GetObject") - read;
    assert!(read < 5, "{read} reads: only its head and its end are looked at");
    copy(&world, &from, &from, &COM).failed(2, &["source and target are one object"]);
}

#[test]
fn bytes_that_change_on_the_way_are_not_written() {
    let (world, key) = world();
    let from = format!("s3://{BUCKET}/{key}");
    world.com.s3.fail(Fault::new(FaultKind::FlipBit, When::EveryOf("GetObject", 1)));
    copy(&world, &from, "s3://images/", &COM_TO_GOV)
        .failed(6, &["do not have the checksum that the store keeps", "nothing was written"]);
    assert!(world.gov.s3.keys(BUCKET).is_empty());
}

#[test]
fn any_object_is_copied_to_a_file_and_back() {
    let (world, key) = world();
    let from = format!("s3://{BUCKET}/{key}");
    copy(&world, &from, "object.bin", &COM).succeeded();
    let bytes = world.com.s3.object(BUCKET, &key).expect("there").bytes;
    assert_eq!(world.sandbox.read("object.bin"), bytes.to_vec());
    copy(&world, "object.bin", "s3://images/from-file.bin", &COM_TO_GOV).succeeded();
    assert_eq!(world.gov.s3.object(BUCKET, "from-file.bin").expect("there").bytes, bytes);
    // Without a checksum of the store the copy says so; an ETag may be one.
    for (name, part_size, words) in [
        ("md5", None, "compared with the MD5"),
        ("parts", Some(5 << 20), "keeps no checksum over the whole"),
    ] {
        let options = ObjectOptions { part_size, ..ObjectOptions::default() };
        world.com.s3.put_object(BUCKET, name, bytes.clone(), options);
        let copied = copy(&world, &format!("s3://images/{name}"), "s3://images/", &COM_TO_GOV);
        let text = String::from_utf8(copied.succeeded().stdout).expect("text");
        assert!(text.contains(words), "{text}");
        assert_eq!(world.gov.s3.object(BUCKET, name).expect("there").bytes, bytes);
    }
    // An archive that is cut short is a damaged archive, and is not carried.
    world.sandbox.write("half.bin", &sample_archive()[..sample_archive().len() / 2]);
    copy(&world, "half.bin", "s3://images/", &COM_TO_GOV).failed(5, &["truncated"]);
}

#[test]
fn a_list_marks_objects_that_are_no_archives() {
    let (world, key) = world();
    let ami = key.trim_start_matches("aws/").trim_end_matches(".bin").to_owned();
    world.run(&[&["store", &ami, "s3://images/ours/"][..], &COM].concat()).succeeded();
    // A copy by another program has no metadata.
    let ours = world.com.s3.object(BUCKET, &format!("ours/{ami}.bin")).expect("there").bytes;
    world.com.s3.put_object(BUCKET, "plain.bin", ours.clone(), ObjectOptions::default());
    let half = ours.slice(..ours.len() / 2);
    world.com.s3.put_object(BUCKET, "half.bin", half, ObjectOptions::default());
    let list = ["ls", "s3://images/", "--profile", "com"];
    let listed = world.json(&list);
    let mut marks: Vec<_> = listed["Archives"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|found| (found["S3objectKey"].as_str().expect("a key"), found["IsArchive"].clone()))
        .collect();
    // The list is by time.
    marks.sort_by_key(|(key, _)| *key);
    let (aws, ours) = (key.clone(), format!("ours/{ami}.bin"));
    assert_eq!(
        marks,
        [
            (aws.as_str(), json!(false)),
            ("half.bin", json!(null)),
            (ours.as_str(), json!(true)),
            ("plain.bin", json!(true)),
        ]
    );
    let text = String::from_utf8(world.run(&list).succeeded().stdout).expect("text");
    assert_eq!(text.matches("[no archive of amistore]").count(), 1, "{text}");
}
