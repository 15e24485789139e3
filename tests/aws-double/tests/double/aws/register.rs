//! RegisterImage has the rules of AWS.

use amistore_aws_double::aws::{Image, Snapshot, TestAws};

use super::client::{Answer, Client};

struct Case {
    aws: TestAws,
    client: Client,
    snapshot: String,
}

fn start() -> Case {
    let aws = TestAws::start();
    let (client, snapshot) = (Client::new(&aws), aws.snapshot_of(8, []));
    Case { aws, client, snapshot }
}

impl Case {
    /// Registers a valid image with these parameters instead of or besides its own; parameters
    /// without a value are left out.
    fn register(&self, changes: &[(&str, &str)]) -> Answer {
        let mut parameters = vec![
            ("Name", "image"),
            ("Architecture", "x86_64"),
            ("VirtualizationType", "hvm"),
            ("RootDeviceName", "/dev/xvda"),
            ("BlockDeviceMapping.1.DeviceName", "/dev/xvda"),
            ("BlockDeviceMapping.1.Ebs.SnapshotId", self.snapshot.as_str()),
        ];
        parameters.retain(|(name, _)| changes.iter().all(|(other, _)| other != name));
        parameters.extend(changes.iter().filter(|(_, value)| !value.is_empty()));
        self.client.ec2("RegisterImage", &parameters)
    }

    /// The code of the error; empty for a success, after which the image is deregistered.
    fn code(&self, changes: &[(&str, &str)]) -> String {
        let answer = self.register(changes);
        self.aws.images().iter().for_each(|image| self.aws.remove_image(&image.id));
        answer.outcome().1
    }
}

const EBS: &str = "BlockDeviceMapping.1.Ebs";

#[test]
fn register_image_fills_in_the_defaults_of_aws() {
    let case = start();
    let answer = case.register(&[("Architecture", ""), ("VirtualizationType", "")]);
    let image = case.aws.image(&answer.get("imageId").expect("an id")).expect("an image");
    assert_eq!(
        (image.architecture.as_str(), image.virtualization_type.as_str()),
        ("i386", "paravirtual")
    );
    let ebs = image.mappings[0].ebs.clone().expect("a volume");
    assert_eq!(
        (ebs.volume_size, ebs.volume_type.as_deref(), ebs.encrypted),
        (Some(8), Some("gp2"), Some(false))
    );
    let again = case.register(&[]);
    assert_eq!(again.outcome().1, "InvalidAMIName.Duplicate");
    assert_eq!(
        again.get("Message"),
        Some(format!("AMI name image is already in use by AMI {}", image.id))
    );
}

#[test]
fn register_image_checks_names_and_texts() {
    let case = start();
    let long = "x".repeat(256);
    for (name, code) in [
        ("ab", "InvalidAMIName.Malformed"),
        ("a,b", "InvalidAMIName.Malformed"),
        ("été", "InvalidAMIName.Malformed"),
    ] {
        assert_eq!(case.code(&[("Name", name)]), code, "{name}");
    }
    assert_eq!(case.code(&[("Name", &long[..129])]), "InvalidAMIName.Malformed");
    assert_eq!(case.code(&[("Name", "a (b) [c] d./-'@_9")]), "");
    assert_eq!(case.code(&[("Name", "")]), "MissingParameter");
    assert_eq!(case.code(&[("Description", &long)]), "InvalidParameterValue");
    assert_eq!(case.code(&[("Description", "ünï")]), "");
    assert_eq!(case.code(&[("Wrong", "x")]), "UnknownParameter");
    assert_eq!(case.code(&[("BillingProduct.1", "bp-1")]), "AuthFailure");
    assert_eq!(case.code(&[("ImageLocation", "bucket/manifest")]), "UnsupportedOperation");
    assert_eq!(case.code(&[("RootDeviceName", "")]), "MissingParameter");
    assert_eq!(case.code(&[("RootDeviceName", "/dev/sda1")]), "InvalidBlockDeviceMapping");
    assert_eq!(case.code(&[("DryRun", "true")]), "DryRunOperation");
    assert_eq!(case.register(&[("DryRun", "true")]).status, 412);
    case.aws.deny("ec2:RegisterImage");
    let refused = case.register(&[("DryRun", "true")]);
    assert_eq!((refused.status, refused.outcome().1.as_str()), (403, "UnauthorizedOperation"));
    assert!(refused.text().contains("Encoded authorization failure message: "));
}

#[test]
fn register_image_refuses_incompatible_features() {
    let case = start();
    let data = "x".repeat(64_001);
    for (changes, code) in [
        (&[("TpmSupport", "v2.0"), ("BootMode", "uefi")][..], ""),
        (&[("TpmSupport", "v2.0"), ("BootMode", "uefi-preferred")], "InvalidParameterCombination"),
        (&[("TpmSupport", "v2.0")], "InvalidParameterCombination"),
        (&[("TpmSupport", "v1.0")], "InvalidParameterValue"),
        (&[("BootMode", "bios")], "InvalidParameterValue"),
        (&[("ImdsSupport", "v1.0")], "InvalidParameterValue"),
        (&[("SriovNetSupport", "complex")], "InvalidParameterValue"),
        (&[("Architecture", "sparc")], "InvalidParameterValue"),
        (&[("EnaSupport", "yes")], "InvalidParameterValue"),
        (&[("UefiData", &data[1..])], ""),
        (&[("UefiData", &data)], "InvalidParameterValue"),
        (
            &[("VirtualizationType", "paravirtual"), ("EnaSupport", "true")],
            "InvalidParameterCombination",
        ),
        (&[("Architecture", "arm64"), ("BootMode", "legacy-bios")], "InvalidParameterCombination"),
    ] {
        assert_eq!(case.code(changes), code, "{changes:?}");
    }
}

#[test]
fn volumes_have_the_limits_of_their_type() {
    let case = start();
    let field = |name: &str| format!("{EBS}.{name}");
    for (kind, size, iops, throughput, code) in [
        ("gp3", "8", "3000", "125", ""),
        ("gp3", "8", "4000", "1000", ""),
        ("gp3", "8", "4001", "", "InvalidParameterValue"),
        ("gp3", "200", "80001", "", "InvalidParameterValue"),
        ("gp3", "8", "3000", "800", "InvalidParameterValue"),
        ("gp3", "65536", "", "", ""),
        ("gp3", "65537", "", "", "InvalidParameterValue"),
        ("gp3", "7", "", "", "InvalidBlockDeviceMapping"),
        ("gp2", "8", "", "", ""),
        ("gp2", "8", "3000", "", "InvalidParameterCombination"),
        ("gp2", "8", "", "125", "InvalidParameterCombination"),
        ("gp2", "16385", "", "", "InvalidParameterValue"),
        ("io1", "8", "", "", "MissingParameter"),
        ("io1", "8", "400", "", ""),
        ("io1", "8", "401", "", "InvalidParameterValue"),
        ("io2", "8", "8000", "", ""),
        ("st1", "8", "", "", "InvalidParameterValue"),
        ("st1", "125", "", "", ""),
        ("standard", "1025", "", "", "InvalidParameterValue"),
        ("gp9", "8", "", "", "InvalidParameterValue"),
    ] {
        let changes = [
            (field("VolumeType"), kind),
            (field("VolumeSize"), size),
            (field("Iops"), iops),
            (field("Throughput"), throughput),
        ];
        let changes: Vec<(&str, &str)> =
            changes.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        assert_eq!(case.code(&changes), code, "{kind} {size} {iops} {throughput}");
    }
}

#[test]
fn register_image_needs_completed_snapshots() {
    let case = start();
    let snapshot = format!("{EBS}.SnapshotId");
    let with = |id: &str| case.code(&[(&snapshot, id)]);
    let pending =
        case.aws.add_snapshot(Snapshot { state: "pending".to_owned(), ..Snapshot::new(1) });
    let archived =
        case.aws.add_snapshot(Snapshot { tier: "archive".to_owned(), ..Snapshot::new(1) });
    let foreign =
        case.aws.add_snapshot(Snapshot { owner: "999999999999".to_owned(), ..Snapshot::new(1) });
    assert_eq!(with("snap-0123456789abcdef0"), "InvalidSnapshot.NotFound");
    assert_eq!(with("snap-1"), "InvalidSnapshotID.Malformed");
    assert_eq!(with("x"), "InvalidParameterValue");
    assert_eq!(with(&pending), "IncorrectState");
    assert_eq!(with(&archived), "IncorrectState");
    assert_eq!(with(&foreign), "InvalidSnapshot.NotFound");
    case.aws.change_snapshot(&foreign, |snapshot| snapshot.permissions.all = true);
    assert_eq!(with(&foreign), "AuthFailure");
    for name in ["Encrypted", "KmsKeyId"] {
        assert_eq!(case.code(&[(&format!("{EBS}.{name}"), "true")]), "InvalidParameterCombination");
    }
    let second = |name: &'static str, value: &'static str| {
        case.code(&[("BlockDeviceMapping.2.DeviceName", "/dev/sdb"), (name, value)])
    };
    assert_eq!(second("BlockDeviceMapping.2.Ebs.VolumeSize", "4"), "");
    assert_eq!(second("BlockDeviceMapping.2.Ebs.Encrypted", "true"), "MissingParameter");
    assert_eq!(second("BlockDeviceMapping.2.NoDevice", ""), "InvalidBlockDeviceMapping");
    assert_eq!(second("BlockDeviceMapping.2.VirtualName", "ephemeral0"), "");
    let twice = [
        ("BlockDeviceMapping.2.DeviceName", "/dev/xvda"),
        ("BlockDeviceMapping.2.Ebs.VolumeSize", "4"),
    ];
    assert_eq!(case.code(&twice), "InvalidBlockDeviceMapping");
}

#[test]
fn register_image_tags_only_the_image() {
    let case = start();
    let with = |kind: &'static str, key: &'static str| {
        let name = "TagSpecification.1.Tag.1.Key";
        case.code(&[
            ("TagSpecification.1.ResourceType", kind),
            (name, key),
            ("TagSpecification.1.Tag.1.Value", "v"),
        ])
    };
    assert_eq!(with("image", "a"), "");
    assert_eq!(with("snapshot", "a"), "InvalidParameterValue");
    assert_eq!(with("image", "aws:a"), "InvalidParameterValue");
    case.aws.set(|settings| settings.settle.describes = 1);
    let id = case.register(&[]).get("imageId").expect("an id");
    let shown = || case.client.ec2("DescribeImages", &[("ImageId.1", &id)]).outcome().1;
    assert_eq!([shown(), shown()], ["InvalidAMIID.NotFound", ""]);
    case.aws.change_image(&id, |image| *image = Image { visible_after: 1, ..image.clone() });
    assert_eq!(
        case.client.ec2("CreateTags", &[("ResourceId.1", &id), ("Tag.1.Key", "a")]).outcome().1,
        "InvalidAMIID.NotFound"
    );
}
