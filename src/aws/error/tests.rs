//! Refusals of services, and the errors that they become.

use super::*;

#[test]
fn errors_that_other_credentials_mend_are_found_in_causes() {
    let denied = |code: &str, status: u16| {
        let cause = meaning(code, status, "").code.expect("a code");
        Error::new(ErrorKind::Denied, "no").code_as(cause)
    };
    let wrapped =
        |error: Error| Error::new(ErrorKind::Denied, "the snapshot cannot be read").because(error);
    for error in [
        denied("UnrecognizedClientException", 403),
        denied("AuthFailure", 401),
        denied("", 400).retry_as(Retry::Stale),
        Error::new(ErrorKind::Denied, "no").code_as(ErrorCode::NoCredentials),
    ] {
        assert!(needs_other_credentials(&error), "{error:?}");
        assert!(needs_other_credentials(&wrapped(wrapped(error))));
    }
    for error in [denied("AccessDenied", 403), denied("AuthFailure", 403), denied("", 403)] {
        assert!(!needs_other_credentials(&error) && !needs_other_credentials(&wrapped(error)));
    }
}

#[test]
fn failures_that_a_retry_mends_are_distinguished() {
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
        let meaning = meaning(code, status, "");
        assert_eq!((meaning.kind, meaning.retry), (kind, retry), "{code} {status}");
    }
}

#[test]
fn errors_that_the_program_acts_on_have_a_code() {
    for (code, status, said, expected) in [
        ("NoSuchBucket", 404, "", ErrorCode::NoSuchBucket),
        ("", 412, "", ErrorCode::PreconditionFailed),
        ("InvalidPart", 400, "", ErrorCode::InvalidPart),
        ("InvalidRequest", 400, "Unknown Checksum header", ErrorCode::ChecksumUnsupported),
        ("InvalidRequest", 400, "is already in progress", ErrorCode::StoreTaskInProgress),
        ("InvalidBlockDeviceMapping", 400, "", ErrorCode::InvalidParameter),
        ("InvalidArgument", 400, "", ErrorCode::InvalidParameter),
        ("MissingParameter", 400, "", ErrorCode::InvalidParameter),
        ("IncorrectState", 400, "it is pending", ErrorCode::SnapshotPending),
        ("InvalidAMIName.Duplicate", 400, "", ErrorCode::ImageNameTaken),
        ("InvalidSnapshot.InUse", 400, "", ErrorCode::SnapshotInUse),
        ("DryRunOperation", 412, "", ErrorCode::DryRunOperation),
        ("UnauthorizedOperation", 403, "", ErrorCode::UnauthorizedOperation),
        ("ValidationException", 400, "the checksum differs", ErrorCode::ChecksumMismatch),
        ("SlowDown", 503, "", ErrorCode::Throttled),
        ("", 502, "", ErrorCode::ServiceUnavailable),
    ] {
        assert_eq!(meaning(code, status, said).code, Some(expected), "{code} {status}");
    }
}

#[test]
fn a_refused_name_tells_the_image_that_has_it() {
    let said = "AMI name ami-x is already in use by AMI ami-0123456789abcdef0";
    assert_eq!(image_in(said).as_deref(), Some("ami-0123456789abcdef0"));
    assert_eq!(image_in("AMI name web is already in use"), None);
}

#[test]
fn a_request_that_is_wrong_is_wrong_for_good() {
    for code in ["InvalidBlockDeviceMapping", "InvalidArgument", "MissingParameter"] {
        assert_eq!(meaning(code, 400, ""), Meaning::invalid(), "{code}");
    }
}

#[test]
fn a_certificate_that_is_refused_is_refused_for_good() {
    use std::io::Error as IoError;
    let tls =
        |error: rustls::Error| IoError::other(IoError::new(std::io::ErrorKind::InvalidData, error));
    let refused = rustls::CertificateError::UnknownIssuer;
    assert!(is_of_identity(&tls(rustls::Error::InvalidCertificate(refused))));
    assert!(!is_of_identity(&tls(rustls::Error::DecryptError)));
    assert!(!is_of_identity(&IoError::from(std::io::ErrorKind::ConnectionReset)));
}

#[test]
fn a_wrong_clock_is_suspected_where_the_answer_has_no_better_reason() {
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
