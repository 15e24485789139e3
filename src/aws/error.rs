//! What a failed request means: kind, and whether it is worth another attempt. Decided here, where
//! the typed failure is still in hand.

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::ec2::REQUEST_ID;
use crate::base::{Error, ErrorKind, Retry};

/// What is said if there is nothing to sign with.
const NO_CREDENTIALS: &str = "there are no credentials, or they cannot be used";

/// A request that failed.
pub(super) struct Failure {
    pub(super) error: Error,
    /// The bucket is in this Region, and the request went to another.
    pub(super) region: Option<String>,
    /// It may have failed because our clock is wrong. The SDK has seen that of the service in the
    /// answer, and signs the next request by it.
    pub(super) skewed: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, region: None, skewed: false }
    }
}

/// What the service said, as a cause.
#[derive(Debug)]
struct Said(String);

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Said {}

/// What an error code of S3, EC2 or EBS means. `status` decides where there is no code (HEAD has no
/// body) or an unknown one.
fn meaning(code: &str, status: u16) -> (ErrorKind, Retry) {
    match code {
        // Some services call everything that they lack an internal failure.
        "InternalError" | "InternalFailure" if status == 501 => (ErrorKind::Unsupported, Retry::No),
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
        | "BandwidthLimitExceeded" => (ErrorKind::Limit, Retry::Throttle),
        // So many at a time, and later there are fewer; or none left, and later there are more.
        "ConcurrentSnapshotLimitExceeded"
        | "PendingSnapshotLimitExceeded"
        | "InsufficientCapacity"
        | "InsufficientVolumeCapacity" => (ErrorKind::Limit, Retry::Throttle),
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
        | "IncompleteBody" => (ErrorKind::Io, Retry::Transient),
        // What left us was right: it was damaged on the way.
        "BadDigest"
        | "XAmzContentChecksumMismatch"
        | "XAmzContentSHA256Mismatch"
        | "InvalidDigest" => (ErrorKind::Io, Retry::Transient),
        // RequestExpired is what EC2 says of credentials that have ended, too.
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "RequestExpired" => {
            (ErrorKind::Denied, Retry::Stale)
        }
        // The SDK has seen the clock of the service in this answer, and signs the next request by
        // it.
        "RequestTimeTooSkewed" => (ErrorKind::Denied, Retry::Transient),
        "AccessDenied"
        | "AccessDeniedException"
        | "AuthFailure"
        | "Blocked"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "NotAuthorized"
        | "OperationNotPermitted"
        | "OptInRequired"
        | "PendingVerification"
        | "SignatureDoesNotMatch"
        | "TagPolicyViolation"
        | "UnauthorizedOperation"
        | "UnrecognizedClientException" => (ErrorKind::Denied, Retry::No),
        "NoSuchBucket"
        | "NoSuchKey"
        | "NoSuchUpload"
        | "NoSuchVersion"
        | "NotFound"
        | "ResourceNotFoundException"
        | "InvalidAMIID.Unavailable" => (ErrorKind::NotFound, Retry::No),
        "PreconditionFailed" => (ErrorKind::Exists, Retry::No),
        "NotImplemented"
        | "MethodNotAllowed"
        | "InvalidAction"
        | "UnknownOperationException"
        | "UnsupportedOperation"
        | "Unsupported" => (ErrorKind::Unsupported, Retry::No),
        "EntityTooLarge"
        | "TooManyParts"
        | "MetadataTooLarge"
        | "QuotaExceeded"
        | "InsufficientStorage"
        | "ServiceQuotaExceededException" => (ErrorKind::Limit, Retry::No),
        // DryRunOperation is a success that has the form of a failure: whoever asked for it looks
        // at the code. ConflictException is EBS's for one client token with two meanings.
        "DryRunOperation"
        | "ConflictException"
        | "IdempotentParameterMismatch"
        | "IncorrectState"
        | "InvalidBucketName"
        | "InvalidInput"
        | "InvalidPaginationToken"
        | "InvalidQueryParameter"
        | "MalformedQueryString"
        | "MissingAction"
        | "MissingParameter"
        | "UnknownParameter"
        | "ValidationError"
        | "ValidationException" => (ErrorKind::Usage, Retry::No),
        _ => family(code, status),
    }
}

/// What a code means that only resembles others, or that is not known at all.
fn family(code: &str, status: u16) -> (ErrorKind, Retry) {
    // EC2 has a code of each kind for each of its things: InvalidSnapshot.NotFound,
    // InvalidAMIName.Duplicate.
    match code.split_once('.') {
        Some((_, "NotFound")) => return (ErrorKind::NotFound, Retry::No),
        Some((_, "Duplicate")) => return (ErrorKind::Exists, Retry::No),
        Some((_, "Malformed" | "InUse" | "Unsupported")) => return (ErrorKind::Usage, Retry::No),
        _ => {}
    }
    // InvalidParameterValue, InvalidParameterCombination.
    if code.starts_with("InvalidParameter") {
        return (ErrorKind::Usage, Retry::No);
    }
    // ResourceLimitExceeded, SnapshotLimitExceeded, TagLimitExceeded.
    if code.ends_with("LimitExceeded") {
        return (ErrorKind::Limit, Retry::No);
    }
    match status {
        401 | 403 => (ErrorKind::Denied, Retry::No),
        // Of a HEAD request nothing but the status is known; expired credentials are the one cause
        // that can be mended.
        400 if code.is_empty() => (ErrorKind::Denied, Retry::Stale),
        404 => (ErrorKind::NotFound, Retry::No),
        408 => (ErrorKind::Io, Retry::Transient),
        409 => (ErrorKind::Io, Retry::No),
        412 => (ErrorKind::Exists, Retry::No),
        429 => (ErrorKind::Limit, Retry::Throttle),
        501 => (ErrorKind::Unsupported, Retry::No),
        503 => (ErrorKind::Limit, Retry::Throttle),
        500..=599 => (ErrorKind::Io, Retry::Transient),
        _ => (ErrorKind::Io, Retry::No),
    }
}

/// Whether a refusal may come of a clock that is wrong: an answer to HEAD says no more than that it
/// is refused, EC2 and EBS do not say why.
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

/// Turns a failed request into an error. `doing` says what could not be done: "cannot upload a
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
            let (kind, retry) = meaning(code, status);
            let mut failed = Error::new(kind, doing).retry_as(retry);
            if !code.is_empty() {
                failed = failed.at("code", code);
            }
            failed = failed.at("status", status);
            // EC2 has it in the body.
            if let Some(id) = request_id.or_else(|| meta.extra(REQUEST_ID).map(ToOwned::to_owned)) {
                failed = failed.at("request_id", id);
            }
            match meta.message().filter(|message| !message.is_empty()) {
                Some(message) => failed = failed.because(Said(message.to_owned())),
                None if code.is_empty() && status < 300 => {
                    failed = failed.because(Said(deepest(context.err())))
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
            let error = Error::new(ErrorKind::Io, doing).retry_as(retry).at("status", status);
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
            .retry_as(Retry::Transient)
            .because(Said("timed out".into()))
            .into(),
        SdkError::DispatchFailure(failure) => {
            let user = failure.is_user();
            let other = failure.is_other();
            let failure = SdkError::<E, HttpResponse>::DispatchFailure(failure);
            let cause = Said(deepest(&failure));
            if let Some(retry) = of_credentials(&failure) {
                let error = Error::new(ErrorKind::Denied, NO_CREDENTIALS).retry_as(retry);
                return error.because(cause).into();
            }
            let retry = if user || (other && cause.0.contains("invalid")) {
                Retry::No
            } else {
                Retry::Transient
            };
            Error::new(ErrorKind::Io, doing).retry_as(retry).because(cause).into()
        }
        error => {
            let cause = Said(deepest(&error));
            let kind =
                if of_credentials(&error).is_some() { ErrorKind::Denied } else { ErrorKind::Usage };
            Error::new(kind, doing).because(cause).into()
        }
    }
}

/// Whether the service's clock and ours differ by more than the minutes that S3 allows, less one
/// for the way.
fn is_far_from_now(date: &str) -> bool {
    const ALLOWED: i64 = 14 * 60;
    let date = aws_sdk_s3::primitives::DateTime::from_str(
        date,
        aws_sdk_s3::primitives::DateTimeFormat::HttpDate,
    );
    let now = aws_sdk_s3::primitives::DateTime::from(std::time::SystemTime::now());
    date.is_ok_and(|date| (date.secs() - now.secs()).abs() > ALLOWED)
}

/// Whether credentials are missing, have ended or are not known any more, here or in a cause: with
/// others the same request may succeed. That they do not allow something is another matter.
pub fn needs_other_credentials(error: &Error) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let refused = match error.fact("code").unwrap_or_default() {
            "InvalidAccessKeyId"
            | "InvalidClientTokenId"
            | "InvalidToken"
            | "UnrecognizedClientException" => true,
            // With 403 EC2 says it of what is not ours.
            "AuthFailure" => error.fact("status") == Some("401"),
            _ => false,
        };
        if refused || error.retry() == Retry::Stale || error.message() == NO_CREDENTIALS {
            return true;
        }
        next = std::error::Error::source(error).and_then(|cause| cause.downcast_ref());
    }
    false
}

/// Whether it was credentials that failed, which the SDK reports as a failed dispatch, and whether
/// whoever provides them may do so yet.
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
mod tests {
    use super::*;

    #[test]
    fn what_other_credentials_can_mend_is_found_in_causes() {
        let denied = |code: &str, status: &str| {
            Error::new(ErrorKind::Denied, "no").at("code", code).at("status", status)
        };
        let wrapped = |error: Error| {
            Error::new(ErrorKind::Denied, "the snapshot cannot be read").because(error)
        };
        for error in [
            denied("UnrecognizedClientException", "403"),
            denied("AuthFailure", "401"),
            denied("", "400").retry_as(Retry::Stale),
            Error::new(ErrorKind::Denied, NO_CREDENTIALS),
        ] {
            assert!(needs_other_credentials(&error), "{error:?}");
            assert!(needs_other_credentials(&wrapped(wrapped(error))));
        }
        for error in
            [denied("AccessDenied", "403"), denied("AuthFailure", "403"), denied("", "403")]
        {
            assert!(!needs_other_credentials(&error) && !needs_other_credentials(&wrapped(error)));
        }
    }

    #[test]
    fn what_can_help_is_told_from_what_cannot() {
        for (code, status, kind, retry) in [
            ("SlowDown", 503, ErrorKind::Limit, Retry::Throttle),
            ("", 503, ErrorKind::Limit, Retry::Throttle),
            ("InternalError", 500, ErrorKind::Io, Retry::Transient),
            ("", 502, ErrorKind::Io, Retry::Transient),
            ("ExpiredToken", 400, ErrorKind::Denied, Retry::Stale),
            ("AccessDenied", 403, ErrorKind::Denied, Retry::No),
            ("SignatureDoesNotMatch", 403, ErrorKind::Denied, Retry::No),
            ("", 404, ErrorKind::NotFound, Retry::No),
            ("PreconditionFailed", 412, ErrorKind::Exists, Retry::No),
            ("NotImplemented", 501, ErrorKind::Unsupported, Retry::No),
            ("InternalFailure", 501, ErrorKind::Unsupported, Retry::No),
            ("BadDigest", 400, ErrorKind::Io, Retry::Transient),
            ("InvalidRequest", 400, ErrorKind::Io, Retry::No),
            // EC2.
            ("RequestLimitExceeded", 503, ErrorKind::Limit, Retry::Throttle),
            ("Unavailable", 503, ErrorKind::Io, Retry::Transient),
            ("InsufficientCapacity", 500, ErrorKind::Limit, Retry::Throttle),
            ("ConcurrentSnapshotLimitExceeded", 400, ErrorKind::Limit, Retry::Throttle),
            ("503", 503, ErrorKind::Limit, Retry::Throttle),
            ("502", 502, ErrorKind::Io, Retry::Transient),
            ("400", 400, ErrorKind::Io, Retry::No),
            ("RequestExpired", 400, ErrorKind::Denied, Retry::Stale),
            ("AuthFailure", 401, ErrorKind::Denied, Retry::No),
            ("AuthFailure", 400, ErrorKind::Denied, Retry::No),
            ("UnauthorizedOperation", 403, ErrorKind::Denied, Retry::No),
            ("OptInRequired", 401, ErrorKind::Denied, Retry::No),
            ("Blocked", 403, ErrorKind::Denied, Retry::No),
            ("InvalidAMIID.NotFound", 400, ErrorKind::NotFound, Retry::No),
            ("InvalidAMIID.Unavailable", 400, ErrorKind::NotFound, Retry::No),
            ("InvalidAMIID.Malformed", 400, ErrorKind::Usage, Retry::No),
            ("InvalidSnapshot.NotFound", 400, ErrorKind::NotFound, Retry::No),
            ("InvalidSnapshot.InUse", 400, ErrorKind::Usage, Retry::No),
            ("InvalidAMIName.Duplicate", 400, ErrorKind::Exists, Retry::No),
            ("InvalidAMIName.Malformed", 400, ErrorKind::Usage, Retry::No),
            ("InvalidParameter", 400, ErrorKind::Usage, Retry::No),
            ("InvalidParameterCombination", 400, ErrorKind::Usage, Retry::No),
            ("MissingParameter", 400, ErrorKind::Usage, Retry::No),
            ("InvalidAction", 400, ErrorKind::Unsupported, Retry::No),
            ("DryRunOperation", 412, ErrorKind::Usage, Retry::No),
            ("SnapshotLimitExceeded", 400, ErrorKind::Limit, Retry::No),
            ("ResourceLimitExceeded", 400, ErrorKind::Limit, Retry::No),
            // EBS.
            ("ThrottlingException", 400, ErrorKind::Limit, Retry::Throttle),
            ("RequestThrottledException", 400, ErrorKind::Limit, Retry::Throttle),
            ("ConcurrentLimitExceededException", 400, ErrorKind::Limit, Retry::Throttle),
            ("InternalServerException", 500, ErrorKind::Io, Retry::Transient),
            ("ServiceQuotaExceededException", 402, ErrorKind::Limit, Retry::No),
            ("ConflictException", 409, ErrorKind::Usage, Retry::No),
            ("ResourceNotFoundException", 404, ErrorKind::NotFound, Retry::No),
            ("AccessDeniedException", 403, ErrorKind::Denied, Retry::No),
            ("ValidationException", 400, ErrorKind::Usage, Retry::No),
            ("InvalidSignatureException", 403, ErrorKind::Denied, Retry::No),
            ("UnrecognizedClientException", 403, ErrorKind::Denied, Retry::No),
            ("ExpiredTokenException", 400, ErrorKind::Denied, Retry::Stale),
        ] {
            assert_eq!(meaning(code, status), (kind, retry), "{code} {status}");
        }
    }

    #[test]
    fn a_wrong_clock_is_suspected_where_nothing_better_is_said() {
        assert!(
            may_be_the_clock("", 403)
                && may_be_the_clock("AuthFailure", 401)
                && may_be_the_clock("RequestExpired", 400)
        );
        assert!(
            !may_be_the_clock("", 400)
                && !may_be_the_clock("AccessDenied", 403)
                && !may_be_the_clock("UnauthorizedOperation", 403)
        );
    }
}
