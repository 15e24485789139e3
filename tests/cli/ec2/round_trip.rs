//! An image is stored in one partition and restored in another.

use serde_json::json;

use super::partitions::Partitions;
use crate::support::ec2::{assert_same, rich_image};

const COM: [&str; 2] = ["--source-profile", "com"];

#[test]
fn an_image_is_copied_to_another_partition_without_a_loss() {
    let world = Partitions::new();
    let ami = rich_image(&world.com.aws);
    let stored = world.json(&[
        "store",
        &ami,
        "s3://images/p/",
        "--source-profile",
        "com",
        "--target-profile",
        "com",
    ]);
    assert_eq!(stored["ImageId"], json!(ami));
    assert_eq!(stored["S3objectKey"], json!(format!("p/{ami}.bin")));
    let object = format!("s3://images/p/{ami}.bin");
    world
        .run(&[
            "copy",
            &object,
            "s3://images/",
            "--source-profile",
            "com",
            "--target-profile",
            "gov",
        ])
        .succeeded();
    let object = format!("s3://images/{ami}.bin");
    let restored = world.json(&[
        "restore",
        &object,
        "ec2",
        "--source-profile",
        "gov",
        "--target-profile",
        "gov",
        "--encrypted",
    ]);
    let id = restored["RestoredImageId"].as_str().expect("an image").to_owned();
    assert_same(&world.com.aws, &ami, &world.gov.aws, &id);
    assert!(world.gov.aws.snapshots().iter().all(|snapshot| snapshot.encrypted));
    assert_eq!((world.gov.aws.images().len(), world.gov.aws.snapshots().len()), (1, 3));
    // Each partition received only requests of its own key.
    for (side, account) in [(&world.com, "111122223333"), (&world.gov, "444455556666")] {
        assert!(
            side.aws.calls().iter().all(|call| call.access_key.as_deref() == Some(side.key.0)),
            "{account}"
        );
        assert!(side.aws.snapshots().iter().all(|snapshot| snapshot.owner == account));
    }
    // The snapshot of two devices was read once.
    let gets = world.com.aws.count("GetSnapshotBlock");
    assert_eq!(gets, 3 * 12 + 3, "12 blocks each, and one of each to see whether it can be read");
}

#[test]
fn an_image_is_restored_from_a_bucket_of_another_partition() {
    let world = Partitions::new();
    let ami = rich_image(&world.com.aws);
    world.run(&[&["store", &ami, "archives.bin"][..], &COM].concat()).succeeded();
    let restored = world.json(&[
        "restore",
        "archives.bin",
        "ec2",
        "--target-profile",
        "gov",
        "--name",
        "other name",
    ]);
    let id = restored["RestoredImageId"].as_str().expect("an image");
    assert_eq!(world.gov.aws.image(id).expect("an image").name, "other name");
}
