//! Forms as botocore 1.44.5 sends them, answers as it reads them, and arbitrary bytes.

use amistore::internals::aws::ec2_query::{MAX_DEPTH, Params, ServiceError, answer};
use proptest::prelude::*;
use serde_json::Value;

/// For each action: an answer that has every member of the API model, the output of botocore's
/// parser (times left as sent), and both again with empty lists and structures.
const ANSWERS: &str = include_str!("answers.txt");

const FORMS: [(&str, &str); 10] = [
    (
        "DescribeImages",
        "ImageId.1=ami-1&ImageId.2=ami-2&Owner.1=self&IncludeDeprecated=true&Filter.1.Name=name&Filter.1.Value.1=a+b%2Ac%27%28d%29~%C3%A9%2F&Filter.1.Value.2=x",
    ),
    (
        "CreateTags",
        "ResourceId.1=ami-1&Tag.1.Key=a+b&Tag.1.Value=&Tag.2.Key=%C3%BC&Tag.2.Value=%3D%26%2B%25",
    ),
    (
        "ModifyImageAttribute",
        "ImageId=ami-1&LaunchPermission.Add.1.UserId=123456789012&LaunchPermission.Add.2.OrganizationArn=arn%3Aaws%3Aorganizations%3A%3A1%3Aorganization%2Fo-1",
    ),
    (
        "ModifySnapshotAttribute",
        "SnapshotId=snap-1&Attribute=createVolumePermission&OperationType=add&UserId.1=1&UserId.2=2",
    ),
    ("EnableImageDeprecation", "ImageId=ami-1&DeprecateAt=2027-01-02T03%3A04%3A05Z"),
    ("DeregisterImage", "ImageId=ami-1&DeleteAssociatedSnapshots=true&DryRun=false"),
    ("DescribeSnapshots", "SnapshotId.1=snap-1&MaxResults=5"),
    (
        "CreateStoreImageTask",
        "ImageId=ami-0abcdef1234567890&Bucket=my-bucket%2Fpath1%2Fpath2&S3ObjectTag.1.Key=env&S3ObjectTag.1.Value=prod&S3ObjectTag.2.Key=owner&S3ObjectTag.2.Value=ops&DryRun=true",
    ),
    (
        "CreateRestoreImageTask",
        "Bucket=my-bucket&ObjectKey=path1%2Fami-0abcdef1234567890.bin&Name=restored+ami&TagSpecification.1.ResourceType=image&TagSpecification.1.Tag.1.Key=a&TagSpecification.1.Tag.1.Value=1&TagSpecification.2.ResourceType=snapshot&TagSpecification.2.Tag.1.Key=b&TagSpecification.2.Tag.1.Value=2",
    ),
    (
        "RegisterImage",
        "Name=xyz&Architecture=x86_64&RootDeviceName=%2Fdev%2Fxvda&VirtualizationType=hvm&EnaSupport=true&SriovNetSupport=simple&BootMode=uefi-preferred&TpmSupport=v2.0&ImdsSupport=v2.0&UefiData=QU1aTlVFRkk%3D&BlockDeviceMapping.1.DeviceName=%2Fdev%2Fxvda&BlockDeviceMapping.1.Ebs.SnapshotId=snap-1&BlockDeviceMapping.1.Ebs.VolumeSize=8&BlockDeviceMapping.1.Ebs.VolumeType=gp3&BlockDeviceMapping.1.Ebs.Iops=3000&BlockDeviceMapping.1.Ebs.Throughput=125&BlockDeviceMapping.1.Ebs.DeleteOnTermination=true&BlockDeviceMapping.2.DeviceName=%2Fdev%2Fsdb&BlockDeviceMapping.2.VirtualName=ephemeral0&TagSpecification.1.ResourceType=image&TagSpecification.1.Tag.1.Key=a&TagSpecification.1.Tag.1.Value=1",
    ),
];

fn tag(key: &str, value: &str) -> Params {
    Params::new().set("Key", key).set("Value", value)
}

fn made(action: &str) -> Params {
    match action {
        "DescribeImages" => Params::new()
            .list("ImageId", ["ami-1", "ami-2"])
            .list("Owner", ["self"])
            .set("IncludeDeprecated", true)
            .structures(
                "Filter",
                [Params::new().set("Name", "name").list("Value", ["a b*c'(d)~é/", "x"])],
            ),
        "CreateTags" => Params::new()
            .list("ResourceId", ["ami-1"])
            .structures("Tag", [tag("a b", ""), tag("ü", "=&+%")]),
        "ModifyImageAttribute" => Params::new().set("ImageId", "ami-1").structure(
            "LaunchPermission",
            Params::new().structures(
                "Add",
                [
                    Params::new().set("UserId", "123456789012"),
                    Params::new()
                        .set("OrganizationArn", "arn:aws:organizations::1:organization/o-1"),
                ],
            ),
        ),
        "ModifySnapshotAttribute" => Params::new()
            .set("SnapshotId", "snap-1")
            .set("Attribute", "createVolumePermission")
            .set("OperationType", "add")
            .list("UserId", ["1", "2"]),
        "EnableImageDeprecation" => {
            Params::new().set("ImageId", "ami-1").set("DeprecateAt", "2027-01-02T03:04:05Z")
        }
        "DeregisterImage" => Params::new()
            .set("ImageId", "ami-1")
            .set("DeleteAssociatedSnapshots", true)
            .set("DryRun", false),
        "DescribeSnapshots" => Params::new()
            .list("SnapshotId", ["snap-1"])
            .set_some("MaxResults", Some(5))
            .set_some("NextToken", None::<&str>),
        "CreateStoreImageTask" => Params::new()
            .set("ImageId", "ami-0abcdef1234567890")
            .set("Bucket", "my-bucket/path1/path2")
            .structures("S3ObjectTag", [tag("env", "prod"), tag("owner", "ops")])
            .set("DryRun", true),
        "CreateRestoreImageTask" => {
            let tags = |kind: &str, key, value| {
                Params::new().set("ResourceType", kind).structures("Tag", [tag(key, value)])
            };
            Params::new()
                .set("Bucket", "my-bucket")
                .set("ObjectKey", "path1/ami-0abcdef1234567890.bin")
                .set("Name", "restored ami")
                .structures(
                    "TagSpecification",
                    [tags("image", "a", "1"), tags("snapshot", "b", "2")],
                )
        }
        "RegisterImage" => {
            let ebs = Params::new()
                .set("SnapshotId", "snap-1")
                .set("VolumeSize", 8)
                .set("VolumeType", "gp3")
                .set("Iops", 3000)
                .set("Throughput", 125)
                .set("DeleteOnTermination", true);
            let mappings = [
                Params::new().set("DeviceName", "/dev/xvda").structure("Ebs", ebs),
                Params::new().set("DeviceName", "/dev/sdb").set("VirtualName", "ephemeral0"),
            ];
            Params::new()
                .set("Name", "xyz")
                .set("Architecture", "x86_64")
                .set("RootDeviceName", "/dev/xvda")
                .set("VirtualizationType", "hvm")
                .set("EnaSupport", true)
                .set("SriovNetSupport", "simple")
                .set("BootMode", "uefi-preferred")
                .set("TpmSupport", "v2.0")
                .set("ImdsSupport", "v2.0")
                .set("UefiData", "QU1aTlVFRkk=")
                .structures("BlockDeviceMapping", mappings)
                .structures(
                    "TagSpecification",
                    [Params::new().set("ResourceType", "image").structures("Tag", [tag("a", "1")])],
                )
        }
        action => panic!("{action} has no sample"),
    }
}

#[test]
fn forms_equal_those_of_botocore() {
    for (action, form) in FORMS {
        let whole = format!("Action={action}&Version=2016-11-15&{form}");
        assert_eq!(made(action).request(action), whole);
        assert_eq!(Params::decode(form.as_bytes()).expect("reads"), made(action));
        assert_eq!(Params::decode(whole.as_bytes()).expect("reads").get("Action"), Some(action));
    }
}

#[test]
fn parsed_answers_equal_those_of_botocore() {
    let mut count = 0;
    for block in ANSWERS.split("# ").skip(1) {
        let (action, rest) = block.split_once('\n').expect("a name");
        let (xml, json) = rest.trim_end().rsplit_once('\n').expect("a value");
        let expected: Value = serde_json::from_str(json).expect("JSON");
        assert_eq!(answer(action, xml.as_bytes()).expect(action), expected, "{action}");
        count += 1;
    }
    assert_eq!(count, 34);
}

#[test]
fn the_deepest_answer_is_within_the_depth_limit() {
    let depth = |xml: &str| {
        xml.lines().map(|line| line.len() - line.trim_start().len()).max().expect("lines") / 2 + 1
    };
    assert!(depth(ANSWERS) * 4 <= MAX_DEPTH, "{}", depth(ANSWERS));
}

fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "<DescribeImagesResponse>",
        "</DescribeImagesResponse>",
        "<imagesSet>",
        "</imagesSet>",
        "<item>",
        "</item>",
        "<ebs/>",
        "<ebs a='1'>",
        "</ebs>",
        "<p:volumeSize>",
        "</p:volumeSize>",
        "<isPublic>",
        "</isPublic>",
        "<![CDATA[",
        "]]>",
        "&amp;",
        "&#x0;",
        "&#65;",
        "&",
        "<!--",
        "-->",
        "<?x?>",
        "<!DOCTYPE a [",
        "]>",
        "8",
        "true",
        " ",
        "ä",
        "<",
        ">",
        "\u{0}",
        "<Response><Errors><Error><Code>",
        "</Code>",
    ]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn a_form_survives_the_round_trip(
        pairs in prop::collection::vec((".{1,20}", ".{0,20}"), 0..20)
    ) {
        let params: Params = pairs.into_iter().collect();
        prop_assert_eq!(Params::decode(params.encode().as_bytes()).expect("reads"), params);
    }

    #[test]
    fn arbitrary_bytes_are_parsed_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200)
    ) {
        _ = Params::decode(&bytes);
        _ = answer("DescribeImages", &bytes);
        prop_assert!(!ServiceError::read(500, &bytes).code.is_empty());
    }

    #[test]
    fn arbitrary_xml_is_parsed_without_a_panic(xml in pieces()) {
        _ = answer("DescribeImages", xml.as_bytes());
        let document = format!("<DescribeImagesResponse>{xml}</DescribeImagesResponse>");
        _ = answer("DescribeImages", document.as_bytes());
        prop_assert!(!ServiceError::read(500, xml.as_bytes()).code.is_empty());
    }
}
