//! Store and restore tasks of AWS itself.

use std::time::Duration;

use amistore_aws_double::aws::{Content, Image, Settings, Snapshot, TestAws};
use amistore_aws_double::s3::{BucketOptions, ObjectOptions, TestS3};

use super::client::{Client, block, outcome};

/// A Region with a bucket and an image.
fn start() -> (TestS3, TestAws, Client, String) {
    let s3 = TestS3::start();
    s3.create_bucket("images");
    let aws = TestAws::builder().buckets(s3.buckets()).start();
    let blocks = [(0, Content::bytes(block(1))), (2, Content::Zero), (9, Content::random(4))];
    let snapshot = Snapshot { description: "disk".to_owned(), ..Snapshot::new(1) }.with(blocks);
    let snapshot = aws.add_snapshot(snapshot);
    let image = aws.add_image(Image {
        description: Some("d".to_owned()),
        boot_mode: Some("uefi".to_owned()),
        ..Image::new("image", &snapshot)
    });
    let client = Client::new(&aws);
    (s3, aws, client, image)
}

fn store(client: &Client, image: &str, bucket: &str) -> String {
    let answer = client.ec2("CreateStoreImageTask", &[("ImageId", image), ("Bucket", bucket)]);
    answer.get("objectKey").unwrap_or_else(|| answer.outcome().1)
}

/// Polls until the newest task of the image has ended.
fn wait(client: &Client, image: &str) -> String {
    loop {
        let answer = client.ec2("DescribeStoreImageTasks", &[("ImageId.1", image)]);
        match answer.get("storeTaskState").expect("a task") {
            state if state == "InProgress" => {}
            state => return state,
        }
    }
}

#[test]
fn an_image_is_stored_and_restored_in_another_partition() {
    let (s3, aws, client, image) = start();
    let tagged = [
        ("ImageId", image.as_str()),
        ("Bucket", "images/a/b"),
        ("S3ObjectTag.1.Key", "k"),
        ("S3ObjectTag.1.Value", "v"),
    ];
    let answer = client.ec2("CreateStoreImageTask", &tagged);
    let key = format!("a/b/{image}.bin");
    assert_eq!(answer.get("objectKey").as_ref(), Some(&key));
    assert_eq!(store(&client, &image, "images"), "InvalidRequest");
    let look = || {
        let answer = client.ec2("DescribeStoreImageTasks", &[("ImageId.1", &image)]);
        (
            answer.get("storeTaskState").expect("a state"),
            answer.get("progressPercentage").expect("progress"),
        )
    };
    let states = [look(), look(), look()];
    assert_eq!(
        states.map(|(state, progress)| format!("{state} {progress}")),
        ["InProgress 33", "InProgress 66", "Completed 100"]
    );
    let object = s3.object("images", &key).expect("an object");
    let metadata: Vec<&str> = object.user_metadata.keys().map(String::as_str).collect();
    assert_eq!(
        metadata,
        [
            "ami-description",
            "ami-name",
            "ami-owner-account",
            "ami-registration-date",
            "ami-store-date"
        ]
    );
    assert_eq!(
        (object.tags["k"].as_str(), object.content_type.as_deref()),
        ("v", Some("application/octet-stream"))
    );
    assert_eq!(store(&client, &image, "images/a/b/"), "InvalidRequest");
    assert_eq!(aws.store_tasks().len(), 1);

    let china = TestS3::start();
    china.create_bucket_with(
        "images",
        BucketOptions { region: "cn-north-1".to_owned(), ..BucketOptions::default() },
    );
    china.put_object("images", "copy.bin", object.bytes, ObjectOptions::default());
    let settings = Settings { restore_polls: 1, ..Settings::default() };
    let there = TestAws::builder()
        .region("cn-north-1")
        .account("210987654321")
        .buckets(china.buckets())
        .settings(settings)
        .start();
    there.encrypt_by_default("210987654321", true, None);
    let client = Client::new(&there);
    let parameters = [
        ("Bucket", "images"),
        ("ObjectKey", "copy.bin"),
        ("Name", "restored"),
        ("TagSpecification.1.ResourceType", "snapshot"),
        ("TagSpecification.1.Tag.1.Key", "t"),
        ("TagSpecification.1.Tag.1.Value", "1"),
    ];
    let id = client.ec2("CreateRestoreImageTask", &parameters).get("imageId").expect("an id");
    let snapshot = there
        .image(&id)
        .and_then(|image| image.mappings[0].snapshot_id().map(str::to_owned))
        .expect("a snapshot");
    let look = || {
        let image =
            client.ec2("DescribeImages", &[("ImageId.1", &id)]).get("imageState").expect("a state");
        (image, there.snapshot(&snapshot).expect("a snapshot").state)
    };
    assert_eq!(
        [look(), look()].map(|(image, snapshot)| format!("{image} {snapshot}")),
        ["pending pending", "available completed"]
    );
    let (image, snapshot) =
        (there.image(&id).expect("an image"), there.snapshot(&snapshot).expect("a snapshot"));
    assert_eq!(
        (image.name.as_str(), image.boot_mode.as_deref(), image.owner.as_str()),
        ("restored", Some("uefi"), "210987654321")
    );
    assert_eq!((snapshot.tags["t"].as_str(), snapshot.description.as_str()), ("1", "disk"));
    assert!(
        snapshot.encrypted
            && snapshot
                .kms_key_id
                .is_some_and(|key| key.starts_with("arn:aws-cn:kms:cn-north-1:210987654321:"))
    );
    let stored = aws.snapshots().remove(0);
    assert_eq!(
        snapshot
            .blocks
            .keys()
            .map(|index| (*index, snapshot.blocks[index].digest(*index)))
            .collect::<Vec<_>>(),
        stored.digests().into_iter().collect::<Vec<_>>()
    );
}

#[test]
fn create_store_image_task_refuses_unsuitable_images() {
    let (s3, aws, client, image) = start();
    let snapshot = aws.snapshots().remove(0).id;
    let with = |image: Image| store(&client, &aws.add_image(image), "images");
    assert_eq!(
        with(Image { virtualization_type: "paravirtual".to_owned(), ..Image::new("a", &snapshot) }),
        "UnsupportedOperation"
    );
    assert_eq!(
        with(Image { root_device_type: "instance-store".to_owned(), ..Image::new("b", &snapshot) }),
        "UnsupportedOperation"
    );
    assert_eq!(
        with(Image { state: "disabled".to_owned(), ..Image::new("c", &snapshot) }),
        "InvalidAMIID.Unavailable"
    );
    let mut large = Image::new("d", &snapshot);
    large.mappings[0].ebs.as_mut().expect("a volume").volume_size = Some(5000);
    assert_eq!(with(large), "InvalidRequest");
    let mut public = Image { owner: "999999999999".to_owned(), ..Image::new("e", &snapshot) };
    public.launch.all = true;
    assert_eq!(with(public.clone()), "AuthFailure");
    public.launch.users.insert(TestAws::ACCOUNT.to_owned());
    assert!(with(public).ends_with(".bin"));
    assert_eq!(store(&client, "ami-0123456789abcdef0", "images"), "InvalidAMIID.NotFound");
    assert_eq!(store(&client, &image, "nowhere"), "InvalidRequest");
    s3.create_bucket_with(
        "elsewhere",
        BucketOptions { region: "eu-west-1".to_owned(), ..BucketOptions::default() },
    );
    assert_eq!(store(&client, &image, "elsewhere"), "InvalidRequest");
    aws.set(|settings| settings.store_quota_gb = 1);
    assert_eq!(store(&client, &image, "images"), "ResourceLimitExceeded");
    let dry = [("ImageId", image.as_str()), ("Bucket", "images"), ("DryRun", "true")];
    assert_eq!(client.ec2("CreateStoreImageTask", &dry).outcome(), outcome(412, "DryRunOperation"));
    aws.deny("CreateStoreImageTask");
    assert_eq!(
        client.ec2("CreateStoreImageTask", &dry).outcome(),
        outcome(403, "UnauthorizedOperation")
    );
    let fake = [("ImageId", "ami-0123456789abcdef0"), ("Bucket", "images"), ("DryRun", "true")];
    assert_eq!(client.ec2("CreateStoreImageTask", &fake).outcome().1, "InvalidAMIID.NotFound");
}

#[test]
fn store_tasks_are_listed_for_a_month() {
    let (s3, aws, client, image) = start();
    s3.create_bucket("more");
    assert_eq!(store(&client, &image, "images"), format!("{image}.bin"));
    assert_eq!(wait(&client, &image), "Completed");
    aws.fail_store("The disk is on fire.");
    assert_eq!(store(&client, &image, "more"), format!("{image}.bin"));
    assert_eq!(wait(&client, &image), "Failed");
    assert!(s3.keys("more").is_empty());
    let describe = |more: &[(&str, &str)]| client.ec2("DescribeStoreImageTasks", more);
    assert_eq!(describe(&[("ImageId.1", &image)]).all("bucket"), ["more"]);
    let all = describe(&[]);
    assert_eq!(
        (all.all("bucket"), all.get("storeTaskFailureReason")),
        (vec!["more".to_owned(), "images".to_owned()], Some("The disk is on fire.".to_owned()))
    );
    let by = |name: &str, value: &str| {
        describe(&[("Filter.1.Name", name), ("Filter.1.Value.1", value)]).all("bucket")
    };
    assert_eq!(
        (by("bucket", "images"), by("task-state", "Failed")),
        (vec!["images".to_owned()], vec!["more".to_owned()])
    );
    let page = describe(&[("MaxResults", "1")]);
    let token = page.get("nextToken").expect("more");
    assert_eq!(
        (page.all("bucket"), describe(&[("NextToken", &token)]).all("bucket")),
        (vec!["more".to_owned()], vec!["images".to_owned()])
    );
    assert_eq!(
        describe(&[("ImageId.1", &image), ("MaxResults", "5")]).outcome().1,
        "InvalidParameterCombination"
    );
    assert_eq!(describe(&[("MaxResults", "201")]).outcome().1, "InvalidParameterValue");
    assert!(
        describe(&[("ImageId.1", "ami-0123456789abcdef0")])
            .text()
            .contains("<storeImageTaskResultSet/>")
    );
    aws.advance(Duration::from_secs(32 * 86_400));
    assert!(describe(&[]).all("bucket").is_empty());
}

#[test]
fn create_restore_image_task_refuses_other_objects() {
    let (s3, aws, client, image) = start();
    s3.put_object("images", "other.bin", &b"something else"[..], ObjectOptions::default());
    let restore = |key: &str, name: &str| {
        let answer = client.ec2(
            "CreateRestoreImageTask",
            &[("Bucket", "images"), ("ObjectKey", key), ("Name", name)],
        );
        answer.get("imageId").unwrap_or_else(|| answer.outcome().1)
    };
    assert_eq!(restore("none.bin", "abc"), "InvalidRequest");
    assert_eq!(restore("other.bin", "abc"), "InvalidRequest");
    assert_eq!(restore("other.bin", "image"), "InvalidAMIName.Duplicate");
    assert_eq!(restore("other.bin", "x"), "InvalidAMIName.Malformed");
    aws.set(|settings| settings.restore_fails_late = true);
    let id = restore("other.bin", "abc");
    let states: Vec<_> = (0..3)
        .filter_map(|_| client.ec2("DescribeImages", &[("ImageId.1", &id)]).get("imageState"))
        .collect();
    assert_eq!(states, ["pending", "pending", "failed"]);
    assert!(
        client
            .ec2("DescribeImages", &[("ImageId.1", &id)])
            .get("message")
            .is_some_and(|reason| reason.contains("not an image"))
    );
    store(&client, &image, "images");
    assert_eq!(wait(&client, &image), "Completed");
    // The default name is that of the stored image.
    let nameless = || {
        client.ec2(
            "CreateRestoreImageTask",
            &[("Bucket", "images"), ("ObjectKey", &format!("{image}.bin"))],
        )
    };
    assert_eq!(nameless().outcome().1, "InvalidAMIName.Duplicate");
    aws.remove_image(&image);
    let id = nameless().get("imageId").expect("an id");
    let snapshot = aws
        .image(&id)
        .and_then(|image| image.mappings[0].snapshot_id().map(str::to_owned))
        .expect("a snapshot");
    let progress: Vec<_> = (0..3)
        .filter_map(|_| {
            client.ec2("DescribeSnapshots", &[("SnapshotId.1", &snapshot)]).get("progress")
        })
        .collect();
    assert_eq!(progress, ["20%", "40%", "100%"]);
    aws.set(|settings| settings.restore_quota_gb = 0);
    assert_eq!(restore(&format!("{image}.bin"), "more"), "ResourceLimitExceeded");
}
