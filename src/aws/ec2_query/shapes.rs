//! The shapes of EC2's answers that do not follow from the XML.
//!
//! A member that is not listed is a text, named like its element with a capital first letter.
//! Listed are members with another name, members that are not texts, and lists and structures that
//! may be empty. Source: the API model of 2016-11-15 in botocore 1.44.5; `tests/aws/query` compares
//! with botocore's result for an answer that has every member.

use Shape::{Boolean, Integer, List, Structure, Text};

/// The shape of an element's content.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// A text, or an unknown shape if the element has children.
    Text,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// Elements called `item`, each of this shape.
    List(&'static Shape),
    /// Elements by name.
    Structure(&'static [Member]),
}

/// An element, the name of the member it becomes, and its shape.
pub(super) type Member = (&'static str, &'static str, Shape);

/// A structure of texts.
const TEXTS: Shape = Structure(&[]);
/// A list of structures of texts.
const LIST_OF_TEXTS: Shape = List(&TEXTS);
const TAGS: Member = ("tagSet", "Tags", LIST_OF_TEXTS);
const PRODUCT_CODES: Member = (
    "productCodes",
    "ProductCodes",
    List(&Structure(&[("productCode", "ProductCodeId", Text), ("type", "ProductCodeType", Text)])),
);

const EBS: Shape = Structure(&[
    ("deleteOnTermination", "DeleteOnTermination", Boolean),
    ("ebsCardIndex", "EbsCardIndex", Integer),
    ("EbsCardIndex", "EbsCardIndex", Integer),
    ("encrypted", "Encrypted", Boolean),
    ("iops", "Iops", Integer),
    ("throughput", "Throughput", Integer),
    ("volumeInitializationRate", "VolumeInitializationRate", Integer),
    ("VolumeInitializationRate", "VolumeInitializationRate", Integer),
    ("volumeSize", "VolumeSize", Integer),
]);
const MAPPINGS: Member =
    ("blockDeviceMapping", "BlockDeviceMappings", List(&Structure(&[("ebs", "Ebs", EBS)])));

const IMAGE: Shape = Structure(&[
    MAPPINGS,
    ("enaSupport", "EnaSupport", Boolean),
    ("freeTierEligible", "FreeTierEligible", Boolean),
    ("imageAllowed", "ImageAllowed", Boolean),
    ("imageOwnerId", "OwnerId", Text),
    ("imageState", "State", Text),
    ("imageWatermarkSet", "ImageWatermarks", LIST_OF_TEXTS),
    (
        "instanceTypeSpecification",
        "InstanceTypeSpecification",
        Structure(&[
            ("supportedInstanceTypeSet", "SupportedInstanceTypes", LIST_OF_TEXTS),
            ("unsupportedInstanceTypeSet", "UnsupportedInstanceTypes", LIST_OF_TEXTS),
        ]),
    ),
    ("isPublic", "Public", Boolean),
    PRODUCT_CODES,
    ("scanResults", "ScanResults", TEXTS),
    ("stateReason", "StateReason", TEXTS),
    TAGS,
]);

const SNAPSHOT: Shape = Structure(&[
    ("associatedKmsKeySet", "AssociatedKmsKeys", LIST_OF_TEXTS),
    ("completionDurationMinutes", "CompletionDurationMinutes", Integer),
    ("encrypted", "Encrypted", Boolean),
    ("fullSnapshotSizeInBytes", "FullSnapshotSizeInBytes", Integer),
    ("status", "State", Text),
    ("statusMessage", "StateMessage", Text),
    TAGS,
    ("volumeSize", "VolumeSize", Integer),
]);

const RETURN: Member = ("return", "Return", Boolean);

/// The members of the answer to `action`; empty for an unknown action.
pub(super) fn answer(action: &str) -> &'static [Member] {
    match action {
        "DescribeImages" => &[("imagesSet", "Images", List(&IMAGE))],
        "DescribeImageAttribute" => &[
            MAPPINGS,
            ("bootMode", "BootMode", TEXTS),
            ("deregistrationProtection", "DeregistrationProtection", TEXTS),
            ("description", "Description", TEXTS),
            ("imdsSupport", "ImdsSupport", TEXTS),
            ("kernel", "KernelId", TEXTS),
            ("lastLaunchedTime", "LastLaunchedTime", TEXTS),
            ("launchPermission", "LaunchPermissions", LIST_OF_TEXTS),
            PRODUCT_CODES,
            ("ramdisk", "RamdiskId", TEXTS),
            ("sriovNetSupport", "SriovNetSupport", TEXTS),
            ("tpmSupport", "TpmSupport", TEXTS),
            ("uefiData", "UefiData", TEXTS),
        ],
        "DescribeSnapshots" => &[("snapshotSet", "Snapshots", List(&SNAPSHOT))],
        "DescribeSnapshotAttribute" => {
            &[("createVolumePermission", "CreateVolumePermissions", LIST_OF_TEXTS), PRODUCT_CODES]
        }
        "DescribeSnapshotTierStatus" => &[(
            "snapshotTierStatusSet",
            "SnapshotTierStatuses",
            List(&Structure(&[("lastTieringProgress", "LastTieringProgress", Integer), TAGS])),
        )],
        "DescribeTags" => &[TAGS],
        "DescribeStoreImageTasks" => &[(
            "storeImageTaskResultSet",
            "StoreImageTaskResults",
            List(&Structure(&[("progressPercentage", "ProgressPercentage", Integer)])),
        )],
        "DeregisterImage" => {
            &[("deleteSnapshotResultSet", "DeleteSnapshotResults", LIST_OF_TEXTS), RETURN]
        }
        "GetEbsEncryptionByDefault" => {
            &[("ebsEncryptionByDefault", "EbsEncryptionByDefault", Boolean)]
        }
        "DescribeRegions" => &[(
            "regionInfo",
            "Regions",
            List(&Structure(&[
                ("geographySet", "Geography", LIST_OF_TEXTS),
                ("regionEndpoint", "Endpoint", Text),
            ])),
        )],
        "CreateTags"
        | "DeleteSnapshot"
        | "DeleteTags"
        | "DisableImage"
        | "DisableImageDeprecation"
        | "EnableImage"
        | "EnableImageDeprecation"
        | "ModifyImageAttribute"
        | "ModifySnapshotAttribute" => &[RETURN],
        // RegisterImage, CreateStoreImageTask, CreateRestoreImageTask, GetEbsDefaultKmsKeyId and
        // the two of deregistration protection answer with texts alone.
        _ => &[],
    }
}
