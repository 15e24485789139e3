//! Changes of images and snapshots.

use std::time::Duration;

use amistore_aws_double::aws::{Ebs, Image, Mapping, Permissions, Snapshot, Tags, TestAws, iso};

use super::client::{Client, outcome};

fn start() -> (TestAws, Client, String, String) {
    let aws = TestAws::start();
    let snapshot = aws.snapshot_of(1, []);
    let image = aws.add_image(Image::new("image", &snapshot));
    let client = Client::new(&aws);
    (aws, client, image, snapshot)
}

/// Another account, and its client.
fn other(aws: &TestAws) -> Client {
    aws.add_key_of("999999999999", "OTHER", "other", None);
    Client::with_key(aws, "OTHER", "other")
}

#[test]
fn images_are_visible_to_accounts_with_launch_permission() {
    let (aws, client, id, _) = start();
    let other = other(&aws);
    let sees = || other.ec2("DescribeImages", &[("ImageId.1", &id)]).outcome().1;
    let modify = |name: &str, value: &str| {
        client.ec2("ModifyImageAttribute", &[("ImageId", &id), (name, value)]).outcome().1
    };
    assert_eq!(sees(), "InvalidAMIID.NotFound");
    assert_eq!(modify("LaunchPermission.Add.1.UserId", "999999999999"), "");
    assert_eq!(sees(), "");
    assert_eq!(
        modify(
            "LaunchPermission.Add.1.OrganizationArn",
            "arn:aws:organizations::123456789012:organization/o-abc"
        ),
        ""
    );
    assert_eq!(
        modify(
            "LaunchPermission.Add.1.OrganizationalUnitArn",
            "arn:aws:organizations::123456789012:ou/o-abc/ou-def"
        ),
        ""
    );
    assert_eq!(modify("LaunchPermission.Add.1.Group", "all"), "");
    let foreign = "arn:aws-cn:organizations::123456789012:organization/o-abc";
    for (name, value) in [("UserId", "123"), ("Group", "some"), ("OrganizationArn", foreign)] {
        assert_eq!(
            modify(&format!("LaunchPermission.Add.1.{name}"), value),
            "InvalidAMIAttributeItemValue"
        );
    }
    let shown = client
        .ec2("DescribeImageAttribute", &[("ImageId", &id), ("Attribute", "launchPermission")]);
    assert_eq!(
        (shown.get("group"), shown.get("userId")),
        (Some("all".to_owned()), Some("999999999999".to_owned()))
    );
    assert!(
        shown.text().contains("<organizationArn>")
            && shown.text().contains("<organizationalUnitArn>")
    );
    assert_eq!(
        other
            .ec2("DescribeImageAttribute", &[("ImageId", &id), ("Attribute", "description")])
            .outcome(),
        outcome(403, "AuthFailure")
    );
    assert_eq!(
        other
            .ec2("ModifyImageAttribute", &[("ImageId", &id), ("Description.Value", "x")])
            .outcome(),
        outcome(403, "AuthFailure")
    );
    for (query, count) in [("all", 1), ("self", 1), ("888888888888", 0)] {
        assert_eq!(
            other.ec2("DescribeImages", &[("ExecutableBy.1", query)]).all("imageId").len(),
            count,
            "{query}"
        );
    }
    assert_eq!(other.ec2("DescribeImages", &[("Owner.1", "self")]).all("imageId").len(), 0);
    let old_way = [
        ("ImageId", id.as_str()),
        ("Attribute", "launchPermission"),
        ("OperationType", "remove"),
        ("UserGroup.1", "all"),
    ];
    assert_eq!(client.ec2("ModifyImageAttribute", &old_way).outcome().1, "");
    assert_eq!(modify("LaunchPermission.Remove.1.UserId", "999999999999"), "");
    assert_eq!(sees(), "InvalidAMIID.NotFound");
    assert_eq!(
        (modify("Description.Value", "täxt"), modify("ImdsSupport.Value", "v2.0")),
        (String::new(), String::new())
    );
    assert_eq!(modify("ImdsSupport.Value", "v1.0"), "InvalidParameterValue");
    assert_eq!(modify("DryRun", "false"), "MissingParameter");
    let both =
        [("ImageId", id.as_str()), ("Description.Value", "x"), ("ImdsSupport.Value", "v2.0")];
    assert_eq!(
        client.ec2("ModifyImageAttribute", &both).outcome().1,
        "InvalidParameterCombination"
    );
    let image = aws.image(&id).expect("an image");
    assert_eq!(
        (image.description.as_deref(), image.imds_support.as_deref()),
        (Some("täxt"), Some("v2.0"))
    );
}

#[test]
fn all_attributes_of_an_image_are_described() {
    let (aws, client, _, snapshot) = start();
    let some = |text: &str| Some(text.to_owned());
    let ebs = Ebs {
        volume_type: some("io2"),
        iops: Some(500),
        kms_key_id: some("arn:key"),
        initialization_rate: Some(200),
        card_index: Some(1),
        outpost_arn: some("arn:outpost"),
        availability_zone: some("us-east-1a"),
        ..Mapping::of("/dev/xvda", &snapshot).ebs.expect("a volume")
    };
    let full = Image {
        owner_alias: some("amazon"),
        description: some("a & b"),
        state_reason: Some(("Client.Error".to_owned(), "why".to_owned())),
        platform: some("windows"),
        platform_details: some("Windows"),
        usage_operation: some("RunInstances:0002"),
        product_codes: vec![("abc".to_owned(), "marketplace".to_owned())],
        kernel_id: some("aki-1"),
        ramdisk_id: some("ari-1"),
        sriov_net_support: some("simple"),
        tpm_support: some("v2.0"),
        uefi_data: some("QU1aTlVFRkk="),
        last_launched: some("2026-01-01T00:00:00Z"),
        source_instance_id: some("i-1"),
        source_image_id: some("ami-1"),
        source_image_region: some("eu-west-1"),
        image_allowed: Some(true),
        free_tier_eligible: Some(false),
        launch: Permissions { all: true, ..Permissions::default() },
        tags: Tags::from([("aws:cloudformation:stack-name".to_owned(), "s".to_owned())]),
        mappings: vec![
            Mapping { device: "/dev/xvda".to_owned(), ebs: Some(ebs), ..Mapping::default() },
            Mapping {
                device: "/dev/sdc".to_owned(),
                no_device: Some(String::new()),
                ..Mapping::default()
            },
        ],
        ..Image::new("full", &snapshot)
    };
    let id = aws.add_image(full);
    let shown = client.ec2("DescribeImages", &[("ImageId.1", &id)]);
    let expected = [
        ("imageOwnerAlias", "amazon"),
        ("description", "a &amp; b"),
        ("code", "Client.Error"),
        ("message", "why"),
        ("platform", "windows"),
        ("platformDetails", "Windows"),
        ("usageOperation", "RunInstances:0002"),
        ("productCode", "abc"),
        ("kernelId", "aki-1"),
        ("ramdiskId", "ari-1"),
        ("tpmSupport", "v2.0"),
        ("lastLaunchedTime", "2026-01-01T00:00:00Z"),
        ("sourceInstanceId", "i-1"),
        ("sourceImageId", "ami-1"),
        ("sourceImageRegion", "eu-west-1"),
        ("imageAllowed", "true"),
        ("freeTierEligible", "false"),
        ("isPublic", "true"),
        ("deregistrationProtection", "disabled"),
        ("kmsKeyId", "arn:key"),
        ("VolumeInitializationRate", "200"),
        ("EbsCardIndex", "1"),
        ("outpostArn", "arn:outpost"),
        ("availabilityZone", "us-east-1a"),
        ("noDevice", ""),
    ];
    for (name, value) in expected {
        assert_eq!(shown.get(name).as_deref(), Some(value), "{name}");
    }
    for (attribute, value) in [
        ("uefiData", "QU1aTlVFRkk="),
        ("kernel", "aki-1"),
        ("ramdisk", "ari-1"),
        ("sriovNetSupport", "simple"),
        ("lastLaunchedTime", "2026-01-01T00:00:00Z"),
        ("tpmSupport", "v2.0"),
    ] {
        let answer =
            client.ec2("DescribeImageAttribute", &[("ImageId", &id), ("Attribute", attribute)]);
        assert_eq!(answer.get("value").as_deref(), Some(value), "{attribute}");
    }
    assert_eq!(
        client
            .ec2("DescribeImageAttribute", &[("ImageId", &id), ("Attribute", "productCodes")])
            .get("type")
            .as_deref(),
        Some("marketplace")
    );
    assert_eq!(
        client
            .ec2("DescribeImageAttribute", &[("ImageId", &id), ("Attribute", "wrong")])
            .outcome()
            .1,
        "InvalidParameterValue"
    );
    assert_eq!(
        client.ec2("CreateStoreImageTask", &[("ImageId", "ami-x"), ("Bucket", "b")]).outcome().1,
        "InvalidAMIID.Malformed"
    );
}

#[test]
fn images_are_deprecated() {
    let (aws, client, id, _) = start();
    let other = other(&aws);
    aws.change_image(&id, |image| image.launch.all = true);
    let deprecate = |date: &str| {
        client.ec2("EnableImageDeprecation", &[("ImageId", &id), ("DeprecateAt", date)]).outcome().1
    };
    assert_eq!(deprecate("2020-01-01T00:00:00Z"), "InvalidParameterValue");
    assert_eq!(deprecate("2999-01-01T00:00:00Z"), "InvalidParameterValue");
    assert_eq!(deprecate("tomorrow"), "InvalidParameterValue");
    let soon = format!("{}29.999Z", &iso(aws.now() + Duration::from_secs(3600))[..17]);
    assert_eq!(deprecate(&soon), "");
    assert_eq!(
        client.ec2("DescribeImages", &[]).get("deprecationTime"),
        Some(format!("{}00.000Z", &soon[..17]))
    );
    let listed = |client: &Client, more: &[(&str, &str)]| {
        client.ec2("DescribeImages", more).all("imageId").len()
    };
    assert_eq!(listed(&other, &[]), 1);
    aws.advance(Duration::from_secs(3700));
    assert_eq!(
        (
            listed(&client, &[]),
            listed(&other, &[]),
            listed(&other, &[("IncludeDeprecated", "true")])
        ),
        (1, 0, 1)
    );
    assert_eq!(listed(&other, &[("ImageId.1", &id)]), 1);
    assert_eq!(
        client.ec2("DisableImageDeprecation", &[("ImageId", &id)]).get("return").as_deref(),
        Some("true")
    );
    assert_eq!(listed(&other, &[]), 1);
}

#[test]
fn images_are_disabled_protected_and_deregistered() {
    let (aws, client, id, snapshot) = start();
    let other = aws.add_image(Image::new("other", &snapshot));
    let second = aws.snapshot_of(1, []);
    aws.change_image(&id, |image| {
        image.launch.all = true;
        image.mappings.push(Mapping::of("/dev/sdb", &second));
    });
    let act = |action: &str, more: &[(&str, &str)]| {
        client.ec2(action, &[&[("ImageId", id.as_str())], more].concat())
    };
    assert_eq!(act("DisableImage", &[]).get("return").as_deref(), Some("true"));
    assert_eq!(
        aws.image(&id).map(|image| (image.state, image.launch.all)),
        Some(("disabled".to_owned(), false))
    );
    let listed = |more: &[(&str, &str)]| client.ec2("DescribeImages", more).all("imageId").len();
    assert_eq!((listed(&[]), listed(&[("IncludeDisabled", "true")])), (1, 2));
    assert_eq!(
        act("ModifyImageAttribute", &[("LaunchPermission.Add.1.Group", "all")]).outcome().1,
        "InvalidAMIID.Unavailable"
    );
    assert_eq!(
        client.ec2("DeleteSnapshot", &[("SnapshotId", &second)]).outcome().1,
        "InvalidSnapshot.InUse"
    );
    assert_eq!(act("EnableImage", &[]).status, 200);
    assert_eq!(listed(&[]), 2);
    assert_eq!(
        act("EnableImageDeregistrationProtection", &[]).get("return").as_deref(),
        Some("enabled-without-cooldown")
    );
    assert_eq!(act("DeregisterImage", &[]).outcome().1, "OperationNotPermitted");
    assert_eq!(act("EnableImageDeregistrationProtection", &[("WithCooldown", "true")]).status, 200);
    let shown = act("DescribeImageAttribute", &[("Attribute", "deregistrationProtection")]);
    assert_eq!(shown.get("value").as_deref(), Some("enabled-with-cooldown"));
    assert_eq!(
        act("DisableImageDeregistrationProtection", &[]).get("return").as_deref(),
        Some("disabled")
    );
    assert_eq!(act("DeregisterImage", &[]).outcome().1, "OperationNotPermitted");
    aws.advance(Duration::from_secs(86_401));
    let gone = act("DeregisterImage", &[("DeleteAssociatedSnapshots", "true")]);
    assert_eq!(
        (gone.all("snapshotId"), gone.all("returnCode")),
        (vec![snapshot.clone(), second], vec!["skipped".to_owned(), "success".to_owned()])
    );
    assert_eq!(
        aws.snapshots().iter().map(|snapshot| snapshot.id.clone()).collect::<Vec<_>>(),
        [snapshot]
    );
    assert_eq!(act("DeregisterImage", &[]).outcome().1, "InvalidAMIID.Unavailable");
    assert_eq!(aws.images().iter().map(|image| image.id.clone()).collect::<Vec<_>>(), [other]);
}

#[test]
fn snapshots_are_described_and_shared() {
    let (aws, client, _, snapshot) = start();
    let other = other(&aws);
    let encrypted = aws.add_snapshot(Snapshot {
        encrypted: true,
        description: "s".to_owned(),
        ..Snapshot::new(2)
    });
    let archived = aws.add_snapshot(Snapshot {
        tier: "archive".to_owned(),
        restore_expiry: Some(aws.now()),
        ..Snapshot::new(3)
    });
    let listed = |more: &[(&str, &str)]| client.ec2("DescribeSnapshots", more).all("snapshotId");
    assert_eq!(listed(&[]).len(), 3);
    let by =
        |name: &str, value: &str| listed(&[("Filter.1.Name", name), ("Filter.1.Value.1", value)]);
    assert_eq!(by("storage-tier", "archive"), std::slice::from_ref(&archived));
    assert_eq!(by("encrypted", "true"), std::slice::from_ref(&encrypted));
    assert_eq!(by("volume-size", "1"), std::slice::from_ref(&snapshot));
    assert_eq!((by("status", "completed").len(), by("status", "pend*").len()), (3, 0));
    assert_eq!(
        client
            .ec2("DescribeSnapshots", &[("Filter.1.Name", "wrong"), ("Filter.1.Value.1", "x")])
            .outcome()
            .1,
        "InvalidParameterValue"
    );
    let shown = client.ec2("DescribeSnapshots", &[("SnapshotId.1", &archived)]);
    assert!(
        shown.get("restoreExpiryTime").is_some()
            && shown.get("fullSnapshotSizeInBytes").as_deref() == Some("0")
    );
    let tiers = client.ec2(
        "DescribeSnapshotTierStatus",
        &[("Filter.1.Name", "snapshot-id"), ("Filter.1.Value.1", &archived)],
    );
    assert_eq!(tiers.all("lastTieringOperationStatus"), ["temporary-restore-completed"]);
    let modify = |id: &str, name: &str, value: &str| {
        client.ec2("ModifySnapshotAttribute", &[("SnapshotId", id), (name, value)]).outcome().1
    };
    let sees = |id: &str| other.ec2("DescribeSnapshots", &[("SnapshotId.1", id)]).outcome().1;
    assert_eq!(sees(&snapshot), "InvalidSnapshot.NotFound");
    assert_eq!(modify(&snapshot, "CreateVolumePermission.Add.1.UserId", "999999999999"), "");
    assert_eq!(sees(&snapshot), "");
    assert_eq!(
        other.ec2("DescribeSnapshots", &[("RestorableBy.1", "self")]).all("snapshotId"),
        std::slice::from_ref(&snapshot)
    );
    assert_eq!(
        other.ec2("DeleteSnapshot", &[("SnapshotId", &snapshot)]).outcome().1,
        "OperationNotPermitted"
    );
    assert_eq!(
        modify(&encrypted, "CreateVolumePermission.Add.1.Group", "all"),
        "InvalidParameterCombination"
    );
    assert_eq!(
        modify(&encrypted, "CreateVolumePermission.Add.1.UserId", "999999999999"),
        "InvalidParameterCombination"
    );
    let attribute = |client: &Client, name: &str| {
        client.ec2("DescribeSnapshotAttribute", &[("SnapshotId", &snapshot), ("Attribute", name)])
    };
    assert_eq!(attribute(&client, "createVolumePermission").all("userId"), ["999999999999"]);
    assert!(attribute(&client, "productCodes").text().contains("<productCodes/>"));
    assert_eq!(attribute(&other, "productCodes").outcome(), outcome(403, "AuthFailure"));
}

#[test]
fn describe_actions_have_pages() {
    let (aws, client, _, snapshot) = start();
    (0..11)
        .for_each(|number| drop(aws.add_image(Image::new(&format!("image {number}"), &snapshot))));
    let mut found = Vec::new();
    let mut token = String::new();
    loop {
        let page = match token.as_str() {
            "" => client.ec2("DescribeImages", &[("MaxResults", "5")]),
            token => client.ec2("DescribeImages", &[("MaxResults", "5"), ("NextToken", token)]),
        };
        found.push(page.all("imageId").len());
        match page.get("nextToken") {
            Some(next) => token = next,
            None => break,
        }
    }
    assert_eq!(found, [5, 5, 2]);
    assert_eq!(
        client.ec2("DescribeImages", &[("NextToken", "x")]).outcome().1,
        "InvalidPaginationToken"
    );
    assert_eq!(
        client.ec2("DescribeSnapshots", &[("NextToken", &token)]).outcome().1,
        "InvalidPaginationToken"
    );
    aws.set(|settings| settings.ec2_page_cap = Some(4));
    assert_eq!(client.ec2("DescribeImages", &[]).all("imageId").len(), 4);
    let both = [("SnapshotId.1", snapshot.as_str()), ("MaxResults", "5")];
    assert_eq!(client.ec2("DescribeSnapshots", &both).outcome().1, "InvalidParameterCombination");
    assert_eq!(
        client.ec2("DescribeSnapshots", &[("MaxResults", "4")]).outcome().1,
        "InvalidParameterValue"
    );
}

#[test]
fn accounts_have_encryption_by_default() {
    let (aws, client, ..) = start();
    let defaults = || {
        let encrypts = client.ec2("GetEbsEncryptionByDefault", &[]).get("ebsEncryptionByDefault");
        (
            encrypts.expect("an answer"),
            client.ec2("GetEbsDefaultKmsKeyId", &[]).get("kmsKeyId").expect("a key"),
        )
    };
    assert_eq!(defaults(), ("false".to_owned(), "alias/aws/ebs".to_owned()));
    aws.encrypt_by_default(
        &aws.account(),
        true,
        Some("arn:aws:kms:us-east-1:123456789012:key/mine"),
    );
    assert_eq!(
        defaults(),
        ("true".to_owned(), "arn:aws:kms:us-east-1:123456789012:key/mine".to_owned())
    );
    assert_eq!(client.ec2("RunInstances", &[]).outcome().1, "InvalidAction");
}
