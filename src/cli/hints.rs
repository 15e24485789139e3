//! Hints: advice for people about an error, chosen by its code.

use std::io;

use crate::base::{AwsService, Error, ErrorCode, ErrorKind, Resume, Retry};

/// One sentence of advice, if there is any.
pub(super) fn hint(error: &Error) -> Option<String> {
    match error.resume() {
        Some(resume) => Some(to_continue(error, resume)),
        None => match error.conversion() {
            Some(command) => Some(to_convert(command)),
            None => advice(error).map(ToOwned::to_owned),
        },
    }
}

/// Advice about a disk image in another format.
fn to_convert(command: &str) -> String {
    format!("convert it first: {command}; or store it as it is with --raw")
}

/// Advice about work that can be continued.
fn to_continue(error: &Error, Resume { command, keeps_snapshots }: &Resume) -> String {
    if error.is(ErrorCode::RegistrationRefused) {
        return format!(
            "the blocks are kept, and are not sent again: mend it by options, such as \
             --volume-type or --boot-mode, added to: {command}"
        );
    }
    if matches!(error.code(), Some(ErrorCode::InvalidPart | ErrorCode::InvalidPartOrder)) {
        let options = "--restart --volumes-at-once 1";
        return format!("the store does not take these parts: add {options} to: {command}");
    }
    let first = match error.kind() {
        ErrorKind::Denied => advice(error).or(Some("see to the permissions")),
        // The same request would be refused again.
        ErrorKind::Usage | ErrorKind::Unsupported => {
            advice(error).or(Some("change the option or the setting that is refused"))
        }
        ErrorKind::Io if is_refused_for_good(error) => {
            Some("the service will refuse the same request again: see its answer")
        }
        _ => None,
    };
    if let Some(first) = first {
        return format!("{first}; what was done is kept; then continue with: {command}");
    }
    let or = if *keeps_snapshots {
        "; or delete the snapshots with: amistore clean --abort"
    } else {
        ""
    };
    format!("what was done is kept; continue with: {command}{or}")
}

/// Whether a service refused the request itself, for a reason that has no code here.
fn is_refused_for_good(error: &Error) -> bool {
    let is_client_error = |status| matches!(status, 400 | 402 | 405 | 406 | 410..=415 | 417 | 422);
    error.code().is_none()
        && error.retry() == Retry::No
        && error.answer().is_some_and(|answer| is_client_error(answer.status))
}

fn advice(error: &Error) -> Option<&'static str> {
    match error.code() {
        Some(code) => of_code(code, error),
        None => of_kind(error),
    }
}

/// Advice about an error whose cause has no code.
fn of_kind(error: &Error) -> Option<&'static str> {
    match error.kind() {
        ErrorKind::Corrupt => Some("fetch it again if it is a copy"),
        ErrorKind::Exists => Some("choose another name, or replace it with --force"),
        ErrorKind::Io => of_cause(error),
        ErrorKind::Denied if error.answer().is_some() => of_code(ErrorCode::AccessDenied, error),
        ErrorKind::Denied
        | ErrorKind::Internal
        | ErrorKind::Interrupted
        | ErrorKind::Limit
        | ErrorKind::NotFound
        | ErrorKind::Unsupported
        | ErrorKind::Usage => None,
    }
}

/// Advice about an input or output error, by the answer of the operating system.
fn of_cause(error: &Error) -> Option<&'static str> {
    match io_kind(error)? {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Some("free some space or choose another target; the partial file has been removed")
        }
        io::ErrorKind::BrokenPipe => Some("the reader of the output stopped"),
        io::ErrorKind::FileTooLarge => {
            Some("choose a file system that holds larger files, such as XFS")
        }
        io::ErrorKind::UnexpectedEof => Some(
            "it changed while it was read: store from a snapshot, or from a disk that is not \
             written",
        ),
        _ => None,
    }
}

/// Advice about standard output that cannot be written.
fn of_output(error: &Error, broken_pipe: &'static str) -> Option<&'static str> {
    match io_kind(error)? {
        io::ErrorKind::StorageFull => {
            Some("free some space where the output goes; what is there is not whole")
        }
        io::ErrorKind::BrokenPipe => Some(broken_pipe),
        _ => of_cause(error),
    }
}

fn io_kind(error: &Error) -> Option<io::ErrorKind> {
    Some(std::error::Error::source(error)?.downcast_ref::<io::Error>()?.kind())
}

/// Advice about a code: the one place that has it, so that a new code needs a decision here.
fn of_code(code: ErrorCode, error: &Error) -> Option<&'static str> {
    let advice = match code {
        ErrorCode::NoCredentials => {
            "name a --profile, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; `aws sts \
             get-caller-identity` shows what is found"
        }
        ErrorCode::NoSuchProfile => {
            "name one of the profiles with --profile or AWS_PROFILE; AWS_CONFIG_FILE and \
             AWS_SHARED_CREDENTIALS_FILE name other files"
        }
        ErrorCode::ExpiredCredentials => {
            "log in again, or fetch new credentials, and repeat the command"
        }
        ErrorCode::UnknownCredentials | ErrorCode::WrongSignature => {
            "check the secret key, the endpoint and the Region; each partition has credentials of \
             its own"
        }
        ErrorCode::WrongClock => "set the clock of this machine",
        ErrorCode::AccessDenied if is_of(error, AwsService::S3) => {
            "the policy of the credentials, of the bucket or of its key has to allow this; \
             docs/iam.md lists the permissions of each command"
        }
        ErrorCode::AccessDenied | ErrorCode::UnauthorizedOperation => {
            "the policy of the credentials has to allow this action; docs/iam.md lists the \
             permissions of each command"
        }
        ErrorCode::AccountNotReady => {
            "the account itself is refused, whatever its policies allow: see what AWS says of it"
        }
        ErrorCode::KmsKeyDenied => {
            "allow these actions in the policy of the key and of the credentials: docs/iam.md \
             has ec2-store-kms and ec2-restore-kms, and shared keys need kms:CreateGrant as well"
        }
        ErrorCode::SnapshotIsPublic => {
            "aws ec2 modify-snapshot-attribute --snapshot-id SNAP --attribute \
             createVolumePermission --operation-type add --user-ids ACCOUNT, or aws ec2 copy-image"
        }
        ErrorCode::BucketIsPublic => {
            "block public access: aws s3api put-public-access-block --bucket BUCKET \
             --public-access-block-configuration BlockPublicAcls=true,IgnorePublicAcls=true,\
             BlockPublicPolicy=true,RestrictPublicBuckets=true; or say --allow-public-bucket"
        }
        ErrorCode::DeregistrationProtected => {
            "aws ec2 disable-image-deregistration-protection --image-id AMI"
        }
        ErrorCode::Unreachable => {
            "check the endpoint, the network, and HTTPS_PROXY if there is a proxy"
        }
        ErrorCode::InvalidParameter => "change what the service refuses: it will refuse it again",
        ErrorCode::RegistrationRefused => {
            "mend it by options, such as --volume-type or --boot-mode"
        }
        ErrorCode::NoEndpoint => {
            "check the name or ARN, --region, and the options of endpoints: \
             AWS_USE_FIPS_ENDPOINT, AWS_USE_DUALSTACK_ENDPOINT, --endpoint-url"
        }
        ErrorCode::NoSuchBucket => {
            "check the name, the Region and the endpoint; amistore does not make buckets"
        }
        ErrorCode::NoSuchObject | ErrorCode::NotAnObjectUrl => "`amistore ls` lists what is there",
        ErrorCode::PreconditionFailed => "choose another name, or replace it with --force",
        ErrorCode::ObjectFrozen => {
            "ask for a readable copy with --thaw standard, and --wait for it"
        }
        ErrorCode::ObjectThawing => "repeat the command later, or add --wait",
        ErrorCode::ObjectReplaced => {
            "repeat the command: it then reads the object that is there now"
        }
        ErrorCode::InvalidPart | ErrorCode::InvalidPartOrder => {
            "the store does not take these parts: upload one volume at a time, with \
             --volumes-at-once 1"
        }
        ErrorCode::ExistenceUnknown => {
            "allow HeadObject to the credentials, or write without this check with --force: an \
             object of this key is then replaced"
        }
        ErrorCode::OtherObjectExists => "choose another key, or replace it with --force",
        ErrorCode::ImageNotShared | ErrorCode::SnapshotNotShared => {
            "check the id, the Region and the account; have image and snapshots shared with this \
             account by its number"
        }
        ErrorCode::ImageIsParavirtual => {
            "store its snapshots alone: amistore store snap-... ARCHIVE"
        }
        ErrorCode::ImageNameMalformed => "an allowed --name takes its place",
        ErrorCode::ImageNameTaken => "give the new image another --name",
        ErrorCode::DerivedImageIdTaken => {
            "give the image another --name or an --image-id, or name another file; --force \
             replaces what is there"
        }
        ErrorCode::SnapshotArchived => {
            "aws ec2 restore-snapshot-tier --snapshot-id SNAP --temporary-restore-days 7"
        }
        ErrorCode::SnapshotBlockDamaged => {
            "repeat the command; if it stays so, the snapshot itself is damaged, and AWS support \
             has to look at it"
        }
        ErrorCode::BegunWithOtherSettings | ErrorCode::SourceChanged => {
            "begin anew with --restart, or repeat the command as it was: `amistore tasks` shows it"
        }
        ErrorCode::TaskInProgress => "wait for it to end; `amistore tasks` shows it",
        ErrorCode::StateDirectoryUnusable => "choose another directory with --state",
        ErrorCode::MemoryForParts => "give more with --memory",
        ErrorCode::MemoryForLevel => "give more with --memory, or use a lower --level",
        ErrorCode::MemoryForIndexes => "give more with --memory, or use fewer --threads",
        ErrorCode::AwsImageObject => {
            "an object made by AWS is restored by AWS: amistore restore --via-aws s3://BUCKET/KEY \
             ec2"
        }
        ErrorCode::DiskImage => {
            "to pack a disk image: amistore store --disk /dev/xvda=FILE --name NAME ARCHIVE"
        }
        ErrorCode::NewerFormat => "use a newer amistore",
        ErrorCode::FooterMissing | ErrorCode::IndexUnreadable | ErrorCode::Truncated => {
            "fetch it again, and compare its size with that of the original; without another copy, \
             `amistore restore --salvage` takes out what proves itself"
        }
        ErrorCode::ForeignFrame => "fetch it again if it is a copy",
        ErrorCode::VolumeDamaged => {
            "fetch it again if it is a copy; volumes without damage can still be taken out with \
             `amistore extract`, and whole blocks with `--salvage`"
        }
        ErrorCode::Salvaged => {
            "salvage.json lists what is missing; fetch the archive again if it is a copy"
        }
        ErrorCode::SalvagedImage => {
            "salvage.json beside it lists what is missing: --allow-salvaged stores the image as it \
             is, with holes there"
        }
        ErrorCode::RootDiffers => {
            "it is another archive than the one whose root was noted: `amistore inspect` shows it"
        }
        ErrorCode::SourceDiffers => "one of the two changed since the archive was made",
        ErrorCode::MetadataDiffers => {
            "the disks are equal: --on-metadata-change=keep of `amistore store` leaves the archive \
             as it is, =update sends the metadata; --allow-metadata-changes of `amistore retire` \
             goes on"
        }
        ErrorCode::ArchiveDiffersFromImage => {
            "store the image anew, with --force, and compare again"
        }
        ErrorCode::SizeNotOfSectors => {
            "a disk image is a whole number of 512-byte sectors: check that the file is whole"
        }
        ErrorCode::VolumeSizeDiffers => {
            "check that the file is whole; correct VolumeSize if the metadata is wrong"
        }
        ErrorCode::DescribeImagesOutput => {
            "take one image out of it: jq '{Image: .Images[0]}' described.json > image.json"
        }
        ErrorCode::NoImageDirectory => {
            "an image directory has an image.json; plain disks are packed with --disk DEVICE=FILE"
        }
        ErrorCode::NoParentDirectory => "its directory has to exist: make it with mkdir -p",
        ErrorCode::NoParentOfImageDirectory => {
            "the directory above it has to exist: make it with mkdir -p"
        }
        ErrorCode::NotADirectory => "choose another name: an archive is restored to a directory",
        ErrorCode::FileInUse => "wait for it to end, or choose another name",
        ErrorCode::PartialFileInTheWay => {
            "remove the partial file if no process is writing it, or choose another name"
        }
        ErrorCode::OutputFailed => return of_output(error, "the reader of the output stopped"),
        ErrorCode::ArchiveOutputFailed => {
            return of_output(
                error,
                "the reader of the output stopped; what it got is not a whole archive",
            );
        }
        ErrorCode::AccountThrottled
        | ErrorCode::BlockTokenExpired
        | ErrorCode::ChecksumMismatch
        | ErrorCode::ChecksumUnsupported
        | ErrorCode::ClientTokenReused
        | ErrorCode::ConditionalRequestConflict
        | ErrorCode::DependencyNotFound
        | ErrorCode::DiskImageNotRaw
        | ErrorCode::DryRunOperation
        | ErrorCode::FinishedObjectDiffers
        | ErrorCode::ImageIsInstanceStore
        | ErrorCode::ImageNotAvailable
        | ErrorCode::InvalidRange
        | ErrorCode::NoSuchImage
        | ErrorCode::NoSuchSnapshot
        | ErrorCode::NoSuchUpload
        | ErrorCode::NotAnArchive
        | ErrorCode::NotImplemented
        | ErrorCode::PageTokenExpired
        | ErrorCode::PartsTooSmall
        | ErrorCode::QuotaExceeded
        | ErrorCode::RestoreInProgress
        | ErrorCode::ServiceUnavailable
        | ErrorCode::SnapshotInUse
        | ErrorCode::SnapshotPending
        | ErrorCode::StoreTaskInProgress
        | ErrorCode::TaskDatabaseUnusable
        | ErrorCode::Throttled
        | ErrorCode::UnreadableAnswer => return None,
    };
    Some(advice)
}

fn is_of(error: &Error, service: AwsService) -> bool {
    error.answer().is_some_and(|answer| answer.service == Some(service))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ServiceAnswer;

    fn hint_for(kind: ErrorKind, code: Option<ErrorCode>, status: Option<u16>) -> String {
        let mut error = Error::new(kind, "no");
        if let Some(code) = code {
            error = error.code_as(code);
        }
        if let Some(status) = status {
            let code = Some("SomethingNew".to_owned());
            error = error.answered(ServiceAnswer { service: None, code, status });
        }
        let resume = Resume { command: "amistore store".to_owned(), keeps_snapshots: false };
        hint(&error.resumed_by(resume)).expect("a hint")
    }

    #[test]
    fn a_final_refusal_is_not_continued_by_the_same_command_alone() {
        let plain = "what was done is kept; continue with: amistore store";
        assert_eq!(hint_for(ErrorKind::Io, None, None), plain);
        assert_eq!(hint_for(ErrorKind::Io, None, Some(500)), plain);
        for (kind, code, status, says) in [
            (ErrorKind::Io, None, Some(400), "will refuse the same request again"),
            (ErrorKind::Io, None, Some(405), "will refuse the same request again"),
            (ErrorKind::Usage, Some(ErrorCode::InvalidParameter), Some(400), "change what"),
            (ErrorKind::Usage, None, Some(400), "change the option"),
            (ErrorKind::Unsupported, None, Some(501), "change the option"),
            (ErrorKind::Unsupported, Some(ErrorCode::InvalidPart), Some(400), "--volumes-at-once"),
            (ErrorKind::Usage, Some(ErrorCode::RegistrationRefused), Some(400), "by options"),
        ] {
            let hint = hint_for(kind, code, status);
            assert!(hint.contains(says) && hint != plain, "{code:?} {status:?}: {hint}");
        }
    }
}
