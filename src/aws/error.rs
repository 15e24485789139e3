//! The error of a failed request: its kind, its code, and whether another attempt may succeed.
//! Decided here, where the SDK's typed error is available.

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::ec2::REQUEST_ID;
use crate::base::{Error, ErrorCode, ErrorKind, NameHolder, Retry, ServiceAnswer};

/// A request that failed.
pub(super) struct Failure {
    pub(super) error: Error,
    /// The bucket is in this Region, and the request went to another.
    pub(super) region: Option<String>,
    /// Whether the local clock may be the cause. The SDK reads the clock of the service in the
    /// answer, and signs the next request with the corrected time.
    pub(super) skewed: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, region: None, skewed: false }
    }
}

/// The message of the service, as a cause.
#[derive(Debug)]
struct Said(String);

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Said {}

/// The meaning of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Meaning {
    kind: ErrorKind,
    retry: Retry,
    code: Option<ErrorCode>,
}

impl Meaning {
    const fn of(kind: ErrorKind, retry: Retry, code: ErrorCode) -> Self {
        Self { kind, retry, code: Some(code) }
    }

    /// A refusal that a repeated request meets again.
    const fn last(kind: ErrorKind, code: ErrorCode) -> Self {
        Self::of(kind, Retry::No, code)
    }

    const fn throttled() -> Self {
        Self::of(ErrorKind::Limit, Retry::Throttle, ErrorCode::Throttled)
    }

    const fn unavailable() -> Self {
        Self::of(ErrorKind::Io, Retry::Transient, ErrorCode::ServiceUnavailable)
    }

    const fn unimplemented() -> Self {
        Self::last(ErrorKind::Unsupported, ErrorCode::NotImplemented)
    }

    const fn denied() -> Self {
        Self::last(ErrorKind::Denied, ErrorCode::AccessDenied)
    }

    const fn invalid() -> Self {
        Self::last(ErrorKind::Usage, ErrorCode::InvalidParameter)
    }
}

/// The meaning of an error code of S3, EC2, EBS or STS. `status` decides where there is no code
/// (HEAD has no body) or an unknown one; `said` is the message of the service. This is the only
/// function that decides by it: four codes of AWS (`InvalidRequest`, `InvalidArgument`,
/// `ValidationException` and `IncorrectState` with its relatives) have several meanings that
/// nothing but the message tells apart. All other code decides by the result.
fn meaning(code: &str, status: u16, said: &str) -> Meaning {
    use ErrorCode as Code;
    use ErrorKind::{Denied, Exists, Io, Limit, NotFound, Unsupported, Usage};
    match code {
        // Some services answer with an internal failure to every action that they lack.
        "InternalError" | "InternalFailure" if status == 501 => Meaning::unimplemented(),
        "SlowDown"
        | "Throttling"
        | "ThrottlingException"
        | "RequestLimitExceeded"
        | "TooManyRequests"
        | "TooManyRequestsException"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "EC2ThrottledException"
        | "ConcurrentLimitExceededException"
        | "BandwidthLimitExceeded"
        // Limits on concurrent work, and on capacity: a later attempt may succeed.
        | "ConcurrentSnapshotLimitExceeded"
        | "PendingSnapshotLimitExceeded"
        | "InsufficientCapacity"
        | "InsufficientVolumeCapacity" => Meaning::throttled(),
        "InternalError"
        | "InternalFailure"
        | "InternalServerError"
        | "InternalServerException"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "Unavailable"
        | "RequestTimeout"
        | "RequestTimeoutException"
        | "OperationAborted"
        | "IncompleteBody" => Meaning::unavailable(),
        // The data was right when it was sent: it was damaged on the network.
        "BadDigest"
        | "XAmzContentChecksumMismatch"
        | "XAmzContentSHA256Mismatch"
        | "InvalidDigest" => Meaning::of(Io, Retry::Transient, Code::ChecksumMismatch),
        // EC2 answers RequestExpired for expired credentials, too.
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "RequestExpired" => {
            Meaning::of(Denied, Retry::Stale, Code::ExpiredCredentials)
        }
        // The SDK reads the clock of the service in this answer, and signs the next request with
        // the corrected time.
        "RequestTimeTooSkewed" => Meaning::of(Denied, Retry::Transient, Code::WrongClock),
        "InvalidAccessKeyId"
        | "InvalidClientTokenId"
        | "InvalidToken"
        | "UnrecognizedClientException" => Meaning::last(Denied, Code::UnknownCredentials),
        // With another status EC2 answers it for resources of another account.
        "AuthFailure" if status == 401 => Meaning::last(Denied, Code::UnknownCredentials),
        "AuthFailure"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch" => Meaning::last(Denied, Code::WrongSignature),
        "Blocked" | "OptInRequired" | "PendingVerification" => {
            Meaning::last(Denied, Code::AccountNotReady)
        }
        "AccessDeniedException"
        | "NotAuthorized"
        | "OperationNotPermitted"
        | "TagPolicyViolation"
        | "UnauthorizedOperation" => Meaning::last(Denied, Code::UnauthorizedOperation),
        "AccessDenied" | "MissingAuthenticationToken" | "MissingAuthenticationTokenException" => {
            Meaning::denied()
        }
        "NoSuchBucket" => Meaning::last(NotFound, Code::NoSuchBucket),
        "NoSuchKey" | "NoSuchVersion" => Meaning::last(NotFound, Code::NoSuchObject),
        "NoSuchUpload" => Meaning::last(NotFound, Code::NoSuchUpload),
        "InvalidAMIID.NotFound" | "InvalidAMIID.Unavailable" => {
            Meaning::last(NotFound, Code::NoSuchImage)
        }
        "InvalidSnapshot.NotFound" | "ResourceNotFoundException" => {
            Meaning::last(NotFound, Code::NoSuchSnapshot)
        }
        "NotFound" => Meaning { kind: NotFound, retry: Retry::No, code: None },
        "InvalidAMIName.Duplicate" => Meaning::last(Exists, Code::ImageNameTaken),
        "InvalidAMIName.Malformed" => Meaning::last(Usage, Code::ImageNameMalformed),
        "InvalidSnapshot.InUse" => Meaning::last(Usage, Code::SnapshotInUse),
        "PreconditionFailed" => Meaning::last(Exists, Code::PreconditionFailed),
        "ConditionalRequestConflict" => Meaning::last(Io, Code::ConditionalRequestConflict),
        "InvalidRange" => Meaning::last(Io, Code::InvalidRange),
        "InvalidObjectState" => Meaning::last(Denied, Code::ObjectFrozen),
        "RestoreAlreadyInProgress" => Meaning::last(Io, Code::RestoreInProgress),
        // The store takes other cuts only: equal parts, or numbers without gaps.
        "InvalidPart" => Meaning::last(Unsupported, Code::InvalidPart),
        "InvalidPartOrder" => Meaning::last(Unsupported, Code::InvalidPartOrder),
        "NotImplemented"
        | "MethodNotAllowed"
        | "InvalidAction"
        | "UnknownOperationException"
        | "UnsupportedOperation"
        | "Unsupported" => Meaning::unimplemented(),
        "EntityTooLarge"
        | "TooManyParts"
        | "MetadataTooLarge"
        | "QuotaExceeded"
        | "InsufficientStorage"
        | "ServiceQuotaExceededException" => Meaning::last(Limit, Code::QuotaExceeded),
        // A success in the form of a failure: the caller that sets DryRun looks at the code.
        "DryRunOperation" => Meaning::last(Usage, Code::DryRunOperation),
        // EBS answers ConflictException to a client token with other parameters.
        "ConflictException" | "IdempotentParameterMismatch" => {
            Meaning::last(Usage, Code::ClientTokenReused)
        }
        "InvalidRequest" | "InvalidArgument" if mentions(said, "checksum") => {
            Meaning::last(Io, Code::ChecksumUnsupported)
        }
        "InvalidRequest" if said.contains("already in progress") => {
            Meaning::last(Io, Code::StoreTaskInProgress)
        }
        // Some stores answer it for failures that the request did not cause.
        "InvalidRequest" => Meaning { kind: Io, retry: Retry::No, code: None },
        // EBS has one code for a wrong request and for a block that was damaged on its way.
        "ValidationException"
            if said.contains("Failed to read block data") || mentions(said, "checksum") =>
        {
            Meaning::last(Usage, Code::ChecksumMismatch)
        }
        "IncorrectState"
        | "EntityTooSmall"
        | "InvalidBucketName"
        | "InvalidInput"
        | "InvalidPaginationToken"
        | "InvalidQueryParameter"
        | "KeyTooLongError"
        | "MalformedQueryString"
        | "MalformedXML"
        | "MissingAction"
        | "MissingParameter"
        | "UnknownParameter"
        | "ValidationError"
        | "ValidationException" => of_parameters(said),
        _ => family(code, status, said),
    }
}

/// A refusal of a parameter, which may name a snapshot that is not completed yet.
fn of_parameters(said: &str) -> Meaning {
    if said.contains("pending") {
        Meaning::last(ErrorKind::Usage, ErrorCode::SnapshotPending)
    } else {
        Meaning::invalid()
    }
}

/// The image that EC2 names in its refusal of a name: "AMI name web is already in use by AMI
/// ami-...". No member of the answer has its id.
fn image_in(said: &str) -> Option<String> {
    said.split_whitespace().rfind(|word| word.starts_with("ami-")).map(ToOwned::to_owned)
}

fn mentions(said: &str, word: &str) -> bool {
    said.to_ascii_lowercase().contains(word)
}

/// The meaning of a code that only resembles others, or is unknown.
fn family(code: &str, status: u16, said: &str) -> Meaning {
    use ErrorKind::{Exists, Io, Limit, NotFound};
    let plain = |kind| Meaning { kind, retry: Retry::No, code: None };
    // EC2 has a code of each kind for each type of resource: InvalidVolume.NotFound,
    // InvalidKeyPair.Duplicate.
    match code.split_once('.') {
        Some((_, "NotFound")) => return plain(NotFound),
        Some((_, "Duplicate")) => return plain(Exists),
        Some((_, "Malformed" | "InUse" | "Unsupported")) => return of_parameters(said),
        _ => {}
    }
    // ResourceLimitExceeded, SnapshotLimitExceeded, TagLimitExceeded.
    if code.ends_with("LimitExceeded") {
        return Meaning::last(Limit, ErrorCode::QuotaExceeded);
    }
    // InvalidParameterValue, InvalidBlockDeviceMapping, MissingContentLength: with a 400 the
    // request is wrong, and fails again as it is.
    let is_invalid = ["Invalid", "Missing", "Malformed"].iter().any(|word| code.starts_with(word));
    if code.starts_with("InvalidParameter") || (status == 400 && is_invalid) {
        return of_parameters(said);
    }
    match status {
        401 | 403 => Meaning::denied(),
        // The answer to HEAD has a status only; expired credentials are the one cause that another
        // attempt can mend.
        400 if code.is_empty() => Meaning { retry: Retry::Stale, ..Meaning::denied() },
        404 => plain(NotFound),
        408 => Meaning::unavailable(),
        409 => plain(Io),
        412 => Meaning::last(Exists, ErrorCode::PreconditionFailed),
        416 => Meaning::last(Io, ErrorCode::InvalidRange),
        429 => Meaning::throttled(),
        501 => Meaning::unimplemented(),
        503 => Meaning::throttled(),
        500..=599 => Meaning::unavailable(),
        _ => plain(Io),
    }
}

/// Whether a wrong local clock may be the cause of a refusal. An answer to HEAD has no code, and a
/// refusal by EC2 or EBS has no reason.
fn may_be_the_clock(code: &str, status: u16) -> bool {
    match code {
        "" => status == 403,
        "AuthFailure"
        | "RequestExpired"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch" => true,
        _ => false,
    }
}

/// Turns a failed request into an error. `doing` is the message of the error: "cannot upload a
/// part".
pub(super) fn classify<E>(doing: &'static str, error: SdkError<E, HttpResponse>) -> Failure
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let status = error.raw_response().map_or(0, |response| response.status().as_u16());
    let header = |name: &str| {
        error
            .raw_response()
            .and_then(|response| response.headers().get(name))
            .map(ToOwned::to_owned)
    };
    let request_id = header("x-amz-request-id").or_else(|| header("x-amzn-requestid"));
    let region = header("x-amz-bucket-region");
    let is_far = header("date").is_some_and(|date| is_far_from_now(&date));
    match error {
        SdkError::ServiceError(context) => {
            let meta = context.err().meta();
            let code = meta.code().unwrap_or_default();
            let Meaning { kind, retry, code: cause } =
                meaning(code, status, meta.message().unwrap_or_default());
            let mut failed = Error::new(kind, doing).retry_as(retry).answered(ServiceAnswer {
                service: None,
                code: Some(code).filter(|code| !code.is_empty()).map(ToOwned::to_owned),
                status,
            });
            if let Some(cause) = cause {
                failed = failed.code_as(cause);
                if cause == ErrorCode::ImageNameTaken
                    && let Some(image_id) = image_in(meta.message().unwrap_or_default())
                {
                    failed = failed.name_taken_by(NameHolder { name: None, image_id });
                }
            } else if code.is_empty() && status < 300 {
                failed = failed.code_as(ErrorCode::UnreadableAnswer);
            }
            // EC2 answers with the id in the body.
            if let Some(id) = request_id.or_else(|| meta.extra(REQUEST_ID).map(ToOwned::to_owned)) {
                failed = failed.at("request_id", id);
            }
            match meta.message().filter(|message| !message.is_empty()) {
                Some(message) => failed = failed.because(Said(message.to_owned())),
                None if code.is_empty() && status < 300 => {
                    failed = failed.because(Said(deepest(context.err())));
                }
                None => {}
            }
            let moved = matches!(status, 301 | 307 | 400) && (code != "ExpiredToken");
            Failure {
                error: failed,
                region: region.filter(|_| moved),
                skewed: is_far && may_be_the_clock(code, status),
            }
        }
        // An answer that cannot be read: cut off, or from something that is not S3.
        SdkError::ResponseError(context) => {
            let retry = if status == 0 || !(300..500).contains(&status) {
                Retry::Transient
            } else {
                Retry::No
            };
            let error = Error::new(ErrorKind::Io, doing)
                .code_as(ErrorCode::UnreadableAnswer)
                .retry_as(retry)
                .answered(ServiceAnswer { service: None, code: None, status });
            Failure {
                error: error.because(Said(format!(
                    "the answer cannot be read: {}",
                    deepest(&SdkError::<E, HttpResponse>::ResponseError(context))
                ))),
                region,
                skewed: false,
            }
        }
        SdkError::TimeoutError(_) => Error::new(ErrorKind::Io, doing)
            .code_as(ErrorCode::Unreachable)
            .retry_as(Retry::Transient)
            .because(Said("timed out".into()))
            .into(),
        SdkError::DispatchFailure(failure) => {
            let user = failure.is_user();
            let other = failure.is_other();
            let failure = SdkError::<E, HttpResponse>::DispatchFailure(failure);
            let cause = Said(deepest(&failure));
            if is_of_endpoint(&failure) {
                let error = Error::usage(doing).code_as(ErrorCode::NoEndpoint);
                return error.because(cause).into();
            }
            if let Some(retry) = of_credentials(&failure) {
                let error = Error::new(
                    ErrorKind::Denied,
                    "there are no credentials, or they cannot be used",
                );
                let error = error.code_as(ErrorCode::NoCredentials).retry_as(retry);
                return error.because(cause).into();
            }
            let retry = if user || (other && is_of_identity(&failure)) {
                Retry::No
            } else {
                Retry::Transient
            };
            Error::new(ErrorKind::Io, doing)
                .code_as(ErrorCode::Unreachable)
                .retry_as(retry)
                .because(cause)
                .into()
        }
        error => {
            let cause = Said(deepest(&error));
            let failed = if of_credentials(&error).is_some() {
                Error::new(ErrorKind::Denied, doing).code_as(ErrorCode::NoCredentials)
            } else {
                Error::usage(doing)
            };
            failed.because(cause).into()
        }
    }
}

/// Whether the clock of the service and the local one differ by more than 14 minutes: the 15 that
/// S3 allows, less one for the network.
fn is_far_from_now(date: &str) -> bool {
    const ALLOWED: i64 = 14 * 60;
    let date = aws_sdk_s3::primitives::DateTime::from_str(
        date,
        aws_sdk_s3::primitives::DateTimeFormat::HttpDate,
    );
    let now = aws_sdk_s3::primitives::DateTime::from(std::time::SystemTime::now());
    date.is_ok_and(|date| (date.secs() - now.secs()).abs() > ALLOWED)
}

/// Whether the error or a cause of it is about credentials that are missing, expired or unknown:
/// with other credentials the same request may succeed. A missing permission is another error.
pub fn needs_other_credentials(error: &Error) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let refused = matches!(
            error.code(),
            Some(
                ErrorCode::NoCredentials
                    | ErrorCode::ExpiredCredentials
                    | ErrorCode::UnknownCredentials
            )
        );
        if refused || error.retry() == Retry::Stale {
            return true;
        }
        next = std::error::Error::source(error).and_then(|cause| cause.downcast_ref());
    }
    false
}

/// `Some` if the provider of credentials failed, which the SDK reports as a failed dispatch: with
/// the retry class of the provider's error.
fn of_credentials(error: &(dyn std::error::Error + 'static)) -> Option<Retry> {
    let mut next = Some(error);
    while let Some(cause) = next {
        match cause.downcast_ref::<CredentialsError>() {
            Some(CredentialsError::ProviderTimedOut(_) | CredentialsError::ProviderError(_)) => {
                return Some(Retry::Transient);
            }
            Some(_) => return Some(Retry::No),
            None => next = cause.source(),
        }
    }
    None
}

/// Whether the SDK found no endpoint for the bucket or ARN, and so made no request.
fn is_of_endpoint(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        if cause.is::<aws_smithy_http::endpoint::ResolveEndpointError>()
            || cause.is::<aws_smithy_runtime_api::client::endpoint::error::ResolveEndpointError>()
        {
            return true;
        }
        next = cause.source();
    }
    false
}

/// Whether the certificate of the endpoint is refused, or its host cannot be in a certificate:
/// another attempt would fail alike.
fn is_of_identity(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        let certificate = cause.downcast_ref::<rustls::Error>();
        if matches!(certificate, Some(rustls::Error::InvalidCertificate(_)))
            || cause.is::<rustls::pki_types::InvalidDnsNameError>()
        {
            return true;
        }
        // An `io::Error` does not give the error that it wraps as its source.
        let wrapped = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => cause.source(),
        };
    }
    false
}

/// All causes in one line, outermost first, without repetition.
fn deepest(error: &dyn std::error::Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !text.is_empty() && texts.last().is_none_or(|last| !last.contains(&text)) {
            texts.push(text);
        }
        next = cause.source();
    }
    if texts.is_empty() { error.to_string() } else { texts.join(": ") }
}

#[cfg(test)]
mod tests;
