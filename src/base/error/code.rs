//! Causes of failures by name: hints, retries and EC2's codes are chosen by them, never by a
//! message.

/// Declares the codes with their stable names.
macro_rules! codes {
    ($($(#[$doc:meta])* $code:ident => $name:literal,)*) => {
        /// The cause of a failure, where a program acts on it. A code is set where the failure is
        /// in hand; an error without one is described by its kind alone.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $($(#[$doc])* $code,)*
        }

        impl ErrorCode {
            /// All codes.
            pub const ALL: &[Self] = &[$(Self::$code,)*];

            /// The stable lower-case name, as printed in JSON.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$code => $name,)*
                }
            }
        }
    };
}

codes! {
    // Credentials and permissions.
    /// No source of credentials has any, or the source fails.
    NoCredentials => "no_credentials",
    /// The configuration files of AWS have no profile of this name.
    NoSuchProfile => "no_such_profile",
    /// The credentials have expired.
    ExpiredCredentials => "expired_credentials",
    /// The service does not know the access key or the session token.
    UnknownCredentials => "unknown_credentials",
    /// The signature is wrong: another secret key, Region or service.
    WrongSignature => "wrong_signature",
    /// The clock of this machine differs too much from that of the service.
    WrongClock => "wrong_clock",
    /// A policy of the credentials, of the bucket or of its key refuses the request.
    AccessDenied => "access_denied",
    /// A policy of the credentials refuses the action of EC2 or EBS.
    UnauthorizedOperation => "unauthorized_operation",
    /// The account is blocked, not verified, or not subscribed to the service.
    AccountNotReady => "account_not_ready",
    /// The key of an encrypted snapshot may not be used.
    KmsKeyDenied => "kms_key_denied",
    /// Everybody may use the snapshot; the direct APIs of EBS read no such snapshots.
    SnapshotIsPublic => "snapshot_is_public",
    /// Everybody may read the bucket.
    BucketIsPublic => "bucket_is_public",
    /// The image is protected against deregistration.
    DeregistrationProtected => "deregistration_protected",

    // The service and the way to it.
    /// The service limits the rate of requests.
    Throttled => "throttled",
    /// EBS limits the rate of requests of the whole account.
    AccountThrottled => "account_throttled",
    /// A quota of the account, or a size limit of the service, is reached.
    QuotaExceeded => "quota_exceeded",
    /// The service failed, or is not available at the moment.
    ServiceUnavailable => "service_unavailable",
    /// No answer arrived, or only a part of one.
    Unreachable => "unreachable",
    /// An answer arrived that is not one of the service's protocol.
    UnreadableAnswer => "unreadable_answer",
    /// The data that arrived at the service has another checksum than the data that was sent.
    ChecksumMismatch => "checksum_mismatch",

    // Requests that fail again as they are.
    /// The service does not know the action, the operation or the option.
    NotImplemented => "not_implemented",
    /// A parameter is missing or malformed, or contradicts another.
    InvalidParameter => "invalid_parameter",
    /// A client token was used before, with other parameters.
    ClientTokenReused => "client_token_reused",
    /// EC2 refuses the registration of the image as it is described.
    RegistrationRefused => "registration_refused",

    // Objects and buckets.
    /// The bucket does not exist.
    NoSuchBucket => "no_such_bucket",
    /// The object, or this version of it, does not exist.
    NoSuchObject => "no_such_object",
    /// The multipart upload does not exist.
    NoSuchUpload => "no_such_upload",
    /// The condition of a request (If-None-Match, If-Match) does not hold.
    PreconditionFailed => "precondition_failed",
    /// Another write of the same key was in progress.
    ConditionalRequestConflict => "conditional_request_conflict",
    /// The range lies beyond the end of the object.
    InvalidRange => "invalid_range",
    /// A part that the completion of an upload names is unknown to the store, or differs.
    InvalidPart => "invalid_part",
    /// The store refuses the order of the parts, or gaps between their numbers.
    InvalidPartOrder => "invalid_part_order",
    /// The store does not know the checksum algorithm, or the headers of checksums.
    ChecksumUnsupported => "checksum_unsupported",
    /// The object is in an archive tier and has to be thawed before it can be read.
    ObjectFrozen => "object_frozen",
    /// A readable copy of the object was requested and is not there yet.
    ObjectThawing => "object_thawing",
    /// A readable copy of the object was requested before.
    RestoreInProgress => "restore_in_progress",
    /// The object was replaced while it was read.
    ObjectReplaced => "object_replaced",
    /// The finished object differs from what was sent.
    FinishedObjectDiffers => "finished_object_differs",
    /// The store tells neither by HeadObject nor by a condition whether the object exists.
    ExistenceUnknown => "existence_unknown",
    /// Another object, or no whole archive, has the key already.
    OtherObjectExists => "other_object_exists",
    /// No endpoint fits the bucket or the ARN of an access point, its Region and the options of
    /// endpoints. No request was made.
    NoEndpoint => "no_endpoint",
    /// The URL names a bucket or a prefix, where an object is needed.
    NotAnObjectUrl => "not_an_object_url",

    // Images, snapshots and tasks of EC2.
    /// A dry run would have succeeded.
    DryRunOperation => "dry_run_operation",
    /// EC2 does not know the image.
    NoSuchImage => "no_such_image",
    /// EC2 lists no such image for this account in this Region.
    ImageNotShared => "image_not_shared",
    /// The image is pending, failed, or otherwise not available.
    ImageNotAvailable => "image_not_available",
    /// EC2 registers no paravirtual images.
    ImageIsParavirtual => "image_is_paravirtual",
    /// The image has no EBS snapshots.
    ImageIsInstanceStore => "image_is_instance_store",
    /// The name of an image breaks the rules of EC2.
    ImageNameMalformed => "image_name_malformed",
    /// The account has an image of this name in this Region.
    ImageNameTaken => "image_name_taken",
    /// The image id that was derived from the content belongs to another image.
    DerivedImageIdTaken => "derived_image_id_taken",
    /// EC2 or EBS does not know the snapshot.
    NoSuchSnapshot => "no_such_snapshot",
    /// EC2 lists no such snapshot for this account in this Region.
    SnapshotNotShared => "snapshot_not_shared",
    /// The snapshot is not completed yet.
    SnapshotPending => "snapshot_pending",
    /// The snapshot is in the archive tier.
    SnapshotArchived => "snapshot_archived",
    /// An image uses the snapshot.
    SnapshotInUse => "snapshot_in_use",
    /// Something that the snapshot depends on, such as its key, does not exist.
    DependencyNotFound => "dependency_not_found",
    /// AWS stores the image already.
    StoreTaskInProgress => "store_task_in_progress",
    /// The token of a page of ListSnapshotBlocks is not valid any more.
    PageTokenExpired => "page_token_expired",
    /// The token of a block is not valid any more.
    BlockTokenExpired => "block_token_expired",
    /// A block of a snapshot does not have the checksum that EBS states.
    SnapshotBlockDamaged => "snapshot_block_damaged",

    // Work that can be continued.
    /// The work was begun with other settings.
    BegunWithOtherSettings => "begun_with_other_settings",
    /// The source changed after the store began.
    SourceChanged => "source_changed",
    /// Another process does the same work at the moment.
    TaskInProgress => "task_in_progress",
    /// The state directory cannot be read or written, or lacks room.
    StateDirectoryUnusable => "state_directory_unusable",
    /// The task database cannot be read or written.
    TaskDatabaseUnusable => "task_database_unusable",

    // Memory.
    /// The memory budget does not suffice for the parts of an upload.
    MemoryForParts => "memory_for_parts",
    /// The memory budget does not suffice for one worker at this level.
    MemoryForLevel => "memory_for_level",
    /// The memory budget does not suffice for block maps and indexes.
    MemoryForIndexes => "memory_for_indexes",
    /// The archive needs more parts, or larger ones, than a store takes.
    PartsTooSmall => "parts_too_small",

    // Archives and their content.
    /// The data is no archive, and looks like an object of AWS's CreateStoreImageTask.
    AwsImageObject => "aws_image_object",
    /// The data is no archive, and looks like a disk image.
    DiskImage => "disk_image",
    /// The data is no archive.
    NotAnArchive => "not_an_archive",
    /// The archive or file is of a newer format or uses an unknown feature.
    NewerFormat => "newer_format",
    /// The archive ends early.
    Truncated => "truncated",
    /// The archive has no footer at its end.
    FooterMissing => "footer_missing",
    /// The index of the archive cannot be read.
    IndexUnreadable => "index_unreadable",
    /// A zstd frame has a header or a length that the format excludes.
    ForeignFrame => "foreign_frame",
    /// Data of a volume is damaged.
    VolumeDamaged => "volume_damaged",
    /// The archive is damaged, and the parts that prove themselves were rescued.
    Salvaged => "salvaged",
    /// The image was rescued from a damaged archive: blocks of it may be missing.
    SalvagedImage => "salvaged_image",
    /// Archive and source differ.
    SourceDiffers => "source_differs",
    /// The root of the archive is not the expected one.
    RootDiffers => "root_differs",
    /// Archive and source have equal disks, and different metadata.
    MetadataDiffers => "metadata_differs",
    /// The archive differs from the image that is to be retired.
    ArchiveDiffersFromImage => "archive_differs_from_image",

    // Local files.
    /// The disk image is not raw.
    DiskImageNotRaw => "disk_image_not_raw",
    /// The size of a disk image is not a multiple of 512 bytes.
    SizeNotOfSectors => "size_not_of_sectors",
    /// The raw disk does not have the size that image.json states.
    VolumeSizeDiffers => "volume_size_differs",
    /// image.json is the whole output of describe-images.
    DescribeImagesOutput => "describe_images_output",
    /// The image directory or its image.json does not exist.
    NoImageDirectory => "no_image_directory",
    /// The file cannot be created, because its directory does not exist.
    NoParentDirectory => "no_parent_directory",
    /// The image directory cannot be made, because the directory above it does not exist.
    NoParentOfImageDirectory => "no_parent_of_image_directory",
    /// The target exists and is not a directory.
    NotADirectory => "not_a_directory",
    /// Another process writes the file at the moment.
    FileInUse => "file_in_use",
    /// A partial file has the name that is needed, and may be in use.
    PartialFileInTheWay => "partial_file_in_the_way",
    /// A result cannot be written to standard output.
    OutputFailed => "output_failed",
    /// An archive cannot be written to standard output.
    ArchiveOutputFailed => "archive_output_failed",
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_the_codes_in_snake_case_and_unique() {
        let mut names = BTreeSet::new();
        for code in ErrorCode::ALL {
            let mut expected = String::new();
            for char in format!("{code:?}").chars() {
                if char.is_ascii_uppercase() && !expected.is_empty() {
                    expected.push('_');
                }
                expected.push(char.to_ascii_lowercase());
            }
            assert_eq!(code.name(), expected);
            assert!(names.insert(code.name()));
        }
    }
}
