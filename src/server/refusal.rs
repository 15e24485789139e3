//! Refusals: which code of EC2 and which HTTP status a failure gets.

use crate::base::{Error, ErrorKind};

use super::Refusal;
use crate::setup::told;

impl Refusal {
    /// Any refusal.
    pub fn new(status: u16, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { status, code: code.into(), message: message.into() }
    }

    /// What is wrong with the request itself: status 400.
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

    /// What a request with DryRun gets that would have succeeded.
    pub fn dry_run() -> Self {
        Self::new(412, "DryRunOperation", "Request would have succeeded, but DryRun flag is set.")
    }
}

impl From<Error> for Refusal {
    /// EC2's own code stays what it is, so that whoever knows EC2 knows what to do. Message, facts
    /// and causes become one sentence.
    fn from(error: Error) -> Self {
        let own = error.fact("code").filter(|code| is_code(code)).map(ToOwned::to_owned);
        let code = own.unwrap_or_else(|| code_of(error.kind()).to_owned());
        Self { status: status_of(&code), message: told(&error), code }
    }
}

/// EC2's codes are words. A number is the HTTP status of an answer without one.
fn is_code(code: &str) -> bool {
    code.len() <= 100
        && code.starts_with(|first: char| first.is_ascii_uppercase())
        && code.chars().all(|char| char.is_ascii_alphanumeric() || char == '.')
}

fn code_of(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Usage | ErrorKind::Corrupt => "InvalidParameterValue",
        ErrorKind::NotFound | ErrorKind::Exists => "InvalidRequest",
        ErrorKind::Denied => "UnauthorizedOperation",
        ErrorKind::Limit => "ResourceLimitExceeded",
        ErrorKind::Unsupported => "UnsupportedOperation",
        ErrorKind::Io | ErrorKind::Interrupted => "Unavailable",
        _ => "InternalError",
    }
}

/// HTTP statuses as EC2 sends them.
fn status_of(code: &str) -> u16 {
    match code {
        "AuthFailure" => 401,
        "UnauthorizedOperation" | "AccessDenied" | "OptInRequired" | "Blocked" => 403,
        "DryRunOperation" => 412,
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

    #[test]
    fn the_code_of_ec2_stays() {
        let error = Error::new(ErrorKind::NotFound, "cannot read the image")
            .at("code", "InvalidAMIID.NotFound")
            .at("status", 400);
        assert_eq!(
            Refusal::from(error),
            Refusal::client(
                "InvalidAMIID.NotFound",
                "cannot read the image (code InvalidAMIID.NotFound)"
            )
        );
        let error = Error::new(ErrorKind::Limit, "cannot read").at("code", "RequestLimitExceeded");
        assert_eq!(Refusal::from(error).status, 503);
    }

    #[test]
    fn a_failure_without_a_code_gets_that_of_its_kind() {
        for (kind, status, code) in [
            (ErrorKind::Usage, 400, "InvalidParameterValue"),
            (ErrorKind::Denied, 403, "UnauthorizedOperation"),
            (ErrorKind::Io, 503, "Unavailable"),
            (ErrorKind::Internal, 500, "InternalError"),
        ] {
            let error =
                Error::new(kind, "no").at("code", "503").because(std::io::Error::other("why"));
            assert_eq!(Refusal::from(error), Refusal::new(status, code, "no (code 503): why"));
        }
    }
}
