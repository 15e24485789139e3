//! Refusals: the code of EC2 and the HTTP status of each failure, in one table.

use crate::base::{AwsService, Error, ErrorCode, ErrorKind, NameHolder};

use super::Refusal;
use crate::taskdb::one_line_of;

impl Refusal {
    /// Any refusal.
    pub fn new(status: u16, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { status, code: code.into(), message: message.into() }
    }

    /// A fault of the request itself: status 400.
    pub fn client(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(400, code, message)
    }

    /// `InvalidParameterValue`.
    pub fn value(message: impl Into<String>) -> Self {
        Self::client("InvalidParameterValue", message)
    }

    /// `RequestLimitExceeded`: clients wait and try again.
    pub fn busy(message: impl Into<String>) -> Self {
        Self::new(503, "RequestLimitExceeded", message)
    }

    /// `InternalError`: clients try again.
    pub fn internal() -> Self {
        Self::new(
            500,
            "InternalError",
            "an internal error has occurred; the log of the server says more",
        )
    }

    /// The answer to a request with DryRun that would have succeeded.
    pub fn dry_run() -> Self {
        Self::new(412, "DryRunOperation", "Request would have succeeded, but DryRun flag is set.")
    }
}

/// The words of EC2 for a failure.
enum Words {
    /// A code with its status.
    Code(u16, &'static str),
    /// EC2's own code, if EC2 refused; otherwise this one, with status 400.
    Ec2Or(&'static str),
}

impl From<&Error> for Refusal {
    /// Message, facts and causes become one sentence. A refusal by EC2 keeps its code and, about an
    /// image, its message, so that clients of EC2 know what to do.
    fn from(error: &Error) -> Self {
        let words = match error.code() {
            Some(code) => words_of_code(code),
            None => words_of_kind(error.kind()),
        };
        let own = code_of_ec2(error);
        let (status, code) = match (words, own) {
            (Words::Code(status, code), _) => (status, code),
            (Words::Ec2Or(_), Some(own)) => (status_of(own), own),
            (Words::Ec2Or(code), None) => (400, code),
        };
        let message = match error.code() {
            Some(ErrorCode::NoSuchImage) => error.causes().pop(),
            Some(ErrorCode::ImageNameTaken) => name_taken(error),
            None if error.kind() == ErrorKind::Interrupted => {
                Some("the server is stopping".to_owned())
            }
            _ => None,
        };
        Self::new(status, code, message.unwrap_or_else(|| one_line_of(error)))
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

/// The sentence of EC2 about a name that is taken.
fn name_taken(error: &Error) -> Option<String> {
    let NameHolder { name, image_id } = error.name_holder()?;
    name.as_ref().map(|name| format!("AMI name {name} is already in use by AMI {image_id}"))
}

/// The code of EC2 in a refusal by EC2. EC2's codes are words; a number is the HTTP status of an
/// answer without one.
fn code_of_ec2(error: &Error) -> Option<&str> {
    let answer = error.answer().filter(|answer| answer.service == Some(AwsService::Ec2))?;
    answer.code.as_deref().filter(|code| {
        code.len() <= 100
            && code.starts_with(|first: char| first.is_ascii_uppercase())
            && code.chars().all(|char| char.is_ascii_alphanumeric() || char == '.')
    })
}

/// The words for a failure whose cause has no code.
fn words_of_kind(kind: ErrorKind) -> Words {
    match kind {
        ErrorKind::Usage => Words::Ec2Or("InvalidParameterValue"),
        ErrorKind::NotFound | ErrorKind::Exists | ErrorKind::Corrupt => {
            Words::Ec2Or("InvalidRequest")
        }
        ErrorKind::Denied => UNAUTHORIZED,
        ErrorKind::Limit => Words::Ec2Or("ResourceLimitExceeded"),
        ErrorKind::Unsupported => Words::Ec2Or("UnsupportedOperation"),
        ErrorKind::Io | ErrorKind::Interrupted => UNAVAILABLE,
        ErrorKind::Internal => INTERNAL,
    }
}

const UNAUTHORIZED: Words = Words::Code(403, "UnauthorizedOperation");
const UNAVAILABLE: Words = Words::Code(503, "Unavailable");
const BUSY: Words = Words::Code(503, "RequestLimitExceeded");
const INTERNAL: Words = Words::Code(500, "InternalError");

/// The words for a code. The credentials are those of the server: what is wrong with them is not
/// for the client to mend by signing anew, so it is no `AuthFailure`.
fn words_of_code(code: ErrorCode) -> Words {
    match code {
        ErrorCode::AccessDenied
        | ErrorCode::AccountNotReady
        | ErrorCode::BucketIsPublic
        | ErrorCode::DeregistrationProtected
        | ErrorCode::ExpiredCredentials
        | ErrorCode::KmsKeyDenied
        | ErrorCode::NoCredentials
        | ErrorCode::NoSuchProfile
        | ErrorCode::SnapshotIsPublic
        | ErrorCode::UnauthorizedOperation
        | ErrorCode::UnknownCredentials
        | ErrorCode::WrongClock
        | ErrorCode::WrongSignature => UNAUTHORIZED,
        ErrorCode::AccountThrottled | ErrorCode::Throttled => BUSY,
        ErrorCode::ChecksumMismatch
        | ErrorCode::ServiceUnavailable
        | ErrorCode::Unreachable
        | ErrorCode::UnreadableAnswer => UNAVAILABLE,
        ErrorCode::MemoryForIndexes
        | ErrorCode::MemoryForLevel
        | ErrorCode::MemoryForParts
        | ErrorCode::PartsTooSmall
        | ErrorCode::QuotaExceeded => Words::Ec2Or("ResourceLimitExceeded"),
        ErrorCode::ImageIsInstanceStore
        | ErrorCode::ImageIsParavirtual
        | ErrorCode::NewerFormat
        | ErrorCode::NotImplemented => Words::Ec2Or("UnsupportedOperation"),
        ErrorCode::ClientTokenReused => Words::Ec2Or("IdempotentParameterMismatch"),
        ErrorCode::DescribeImagesOutput
        | ErrorCode::InvalidParameter
        | ErrorCode::NoEndpoint
        | ErrorCode::NotAnObjectUrl
        | ErrorCode::RegistrationRefused
        | ErrorCode::SizeNotOfSectors
        | ErrorCode::VolumeSizeDiffers => Words::Ec2Or("InvalidParameterValue"),
        ErrorCode::DryRunOperation => Words::Code(412, "DryRunOperation"),
        ErrorCode::ImageNameMalformed => Words::Code(400, "InvalidAMIName.Malformed"),
        ErrorCode::ImageNameTaken => Words::Code(400, "InvalidAMIName.Duplicate"),
        ErrorCode::ImageNotAvailable => Words::Code(400, "InvalidAMIID.Unavailable"),
        ErrorCode::ImageNotShared => Words::Code(400, "InvalidAMIID.NotFound"),
        ErrorCode::NoSuchImage => Words::Ec2Or("InvalidAMIID.NotFound"),
        ErrorCode::NoSuchSnapshot | ErrorCode::SnapshotNotShared => {
            Words::Ec2Or("InvalidSnapshot.NotFound")
        }
        ErrorCode::SnapshotInUse => Words::Ec2Or("InvalidSnapshot.InUse"),
        ErrorCode::SnapshotArchived | ErrorCode::SnapshotPending => Words::Ec2Or("IncorrectState"),
        ErrorCode::TaskDatabaseUnusable => INTERNAL,
        // No code of EC2 is known for these; CreateStoreImageTask and CreateRestoreImageTask answer
        // this one for buckets, objects and archives they cannot use.
        ErrorCode::ArchiveDiffersFromImage
        | ErrorCode::ArchiveOutputFailed
        | ErrorCode::AwsImageObject
        | ErrorCode::BegunWithOtherSettings
        | ErrorCode::BlockTokenExpired
        | ErrorCode::ChecksumUnsupported
        | ErrorCode::ConditionalRequestConflict
        | ErrorCode::DependencyNotFound
        | ErrorCode::DerivedImageIdTaken
        | ErrorCode::DiskImage
        | ErrorCode::DiskImageNotRaw
        | ErrorCode::ExistenceUnknown
        | ErrorCode::FileInUse
        | ErrorCode::FinishedObjectDiffers
        | ErrorCode::FooterMissing
        | ErrorCode::ForeignFrame
        | ErrorCode::IndexUnreadable
        | ErrorCode::InvalidPart
        | ErrorCode::InvalidPartOrder
        | ErrorCode::InvalidRange
        | ErrorCode::MetadataDiffers
        | ErrorCode::NoImageDirectory
        | ErrorCode::NoParentDirectory
        | ErrorCode::NoParentOfImageDirectory
        | ErrorCode::NoSuchBucket
        | ErrorCode::NoSuchObject
        | ErrorCode::NoSuchUpload
        | ErrorCode::NotADirectory
        | ErrorCode::NotAnArchive
        | ErrorCode::ObjectFrozen
        | ErrorCode::ObjectReplaced
        | ErrorCode::ObjectThawing
        | ErrorCode::OtherObjectExists
        | ErrorCode::OutputFailed
        | ErrorCode::PageTokenExpired
        | ErrorCode::PartialFileInTheWay
        | ErrorCode::PreconditionFailed
        | ErrorCode::RestoreInProgress
        | ErrorCode::RootDiffers
        | ErrorCode::Salvaged
        | ErrorCode::SalvagedImage
        | ErrorCode::SnapshotBlockDamaged
        | ErrorCode::SourceChanged
        | ErrorCode::SourceDiffers
        | ErrorCode::StateDirectoryUnusable
        | ErrorCode::StoreTaskInProgress
        | ErrorCode::TaskInProgress
        | ErrorCode::Truncated
        | ErrorCode::VolumeDamaged => Words::Ec2Or("InvalidRequest"),
    }
}

/// HTTP statuses as EC2 sends them.
fn status_of(code: &str) -> u16 {
    match code {
        "InternalError" | "InternalFailure" => 500,
        "RequestLimitExceeded" | "Unavailable" | "ServiceUnavailable" | "InsufficientCapacity" => {
            503
        }
        _ => 400,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ServiceAnswer;

    fn refused(kind: ErrorKind, code: &str, status: u16) -> Error {
        let (service, code) = (Some(AwsService::Ec2), Some(code.to_owned()));
        Error::new(kind, "no").answered(ServiceAnswer { service, code, status })
    }

    #[test]
    fn the_code_of_ec2_stays() {
        let error =
            Error::new(ErrorKind::NotFound, "cannot read the image").answered(ServiceAnswer {
                service: Some(AwsService::Ec2),
                code: Some("InvalidAMIID.NotFound".to_owned()),
                status: 400,
            });
        assert_eq!(
            Refusal::from(&error),
            Refusal::client(
                "InvalidAMIID.NotFound",
                "cannot read the image (code InvalidAMIID.NotFound)"
            )
        );
        let error = refused(ErrorKind::Limit, "RequestLimitExceeded", 503);
        assert_eq!(Refusal::from(&error).status, 503);
    }

    #[test]
    fn a_failure_without_a_code_gets_that_of_its_kind() {
        for (kind, status, code) in [
            (ErrorKind::Usage, 400, "InvalidParameterValue"),
            (ErrorKind::Denied, 403, "UnauthorizedOperation"),
            (ErrorKind::Io, 503, "Unavailable"),
            (ErrorKind::Internal, 500, "InternalError"),
        ] {
            let error = refused(kind, "503", 503).because(std::io::Error::other("why"));
            assert_eq!(Refusal::from(&error), Refusal::new(status, code, "no (code 503): why"));
        }
    }

    #[test]
    fn the_code_of_another_service_does_not_reach_the_client() {
        let answer = ServiceAnswer {
            service: Some(AwsService::S3),
            code: Some("NoSuchBucket".to_owned()),
            status: 404,
        };
        let error =
            Error::new(ErrorKind::NotFound, "no").code_as(ErrorCode::NoSuchBucket).answered(answer);
        assert_eq!(Refusal::from(&error).code, "InvalidRequest");
    }
}
