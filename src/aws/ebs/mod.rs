//! The EBS direct APIs: blocks of snapshots are read, and snapshots are written block by block.
//!
//! A block is accepted when its length and its SHA-256 are those of the answer's headers; an
//! error, a wrong length and a wrong checksum are never a hole or zeros. The module does not know
//! images.

mod listing;
mod quota;
mod reader;
mod snapshot;
mod tokens;
mod writer;

use aws_config::{Region, SdkConfig};
use aws_sdk_ebs::Client;
use aws_sdk_ebs::config::Builder;
use aws_sdk_ebs::config::http::HttpResponse;
use aws_sdk_ebs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ebs::types::error::{
    AccessDeniedException, RequestThrottledException, ResourceNotFoundException,
    ValidationException,
};

use super::connection::Service;
use super::error::{Failure, classify};
use super::{Access, Connection, Endpoint};
use crate::base::{AwsService, Error, ErrorCode, ErrorKind, Result, Retry};
use crate::format::Digest;

pub use quota::{Quotas, least_time, list_calls};
pub use reader::EbsSource;
pub use snapshot::{
    CompletedSnapshot, NewSnapshot, StartedSnapshot, complete_snapshot, start_snapshot,
};
pub use writer::{EbsSink, SendBuffers};

/// The EBS direct APIs.
#[derive(Clone, Copy, Debug)]
pub struct Ebs;

/// A connection to EBS.
pub type EbsConnection = Connection<Ebs>;

impl Service for Ebs {
    type Client = Client;
    const NAME: &'static str = "EBS";
    const SERVICE: AwsService = AwsService::Ebs;
    /// The 1,000 a second of one snapshot at 64 ms each. EBS throttles the rate of requests, which
    /// `quota` limits, and not their number.
    const START_REQUESTS: usize = 64;
    /// 5,000 requests a second, the most of an account, at 100 ms each.
    const MAX_REQUESTS: usize = 512;

    fn client(config: &SdkConfig, endpoint: &Endpoint, _access: &Access) -> Result<Client> {
        let builder = Builder::from(config).region(Region::new(endpoint.region().to_owned()));
        Ok(Client::from_conf(match endpoint.url() {
            Some(url) => builder.endpoint_url(url).build(),
            None => builder.build(),
        }))
    }
}

/// Turns a failed request into an error. EBS adds a reason to its code, which is more precise.
fn failure<E>(doing: &'static str, error: SdkError<E, HttpResponse>) -> Failure
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let reason = reason(&error);
    let mut failure = classify(doing, error);
    if let Some(reason) = reason {
        let error = match code_of_reason(&reason) {
            Some(code) => failure.error.code_as(code),
            None => failure.error,
        };
        failure.error = error.at("reason", reason);
    }
    failure
}

/// The code of a reason, if it is more precise than the code of the answer.
fn code_of_reason(reason: &str) -> Option<ErrorCode> {
    match reason {
        "ACCOUNT_THROTTLED" => Some(ErrorCode::AccountThrottled),
        "DEPENDENCY_ACCESS_DENIED" | "GRANT_NOT_FOUND" => Some(ErrorCode::KmsKeyDenied),
        "DEPENDENCY_RESOURCE_NOT_FOUND" | "IMAGE_NOT_FOUND" => Some(ErrorCode::DependencyNotFound),
        "INVALID_BLOCK_TOKEN" => Some(ErrorCode::BlockTokenExpired),
        "INVALID_PAGE_TOKEN" => Some(ErrorCode::PageTokenExpired),
        "SNAPSHOT_NOT_FOUND" => Some(ErrorCode::NoSuchSnapshot),
        _ => None,
    }
}

/// [`failure`] for lists and blocks, whose parameters do not come from the user: a refusal is no
/// usage error.
fn transfer_failure<E>(doing: &'static str, error: SdkError<E, HttpResponse>) -> Failure
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let mut failure = failure(doing, error);
    // The block was right when it was sent: the network cut it off or damaged it.
    if failure.error.is(ErrorCode::ChecksumMismatch) && failure.error.retry() == Retry::No {
        failure.error = failure.error.retry_as(Retry::Transient);
    }
    if failure.error.kind() == ErrorKind::Usage {
        failure.error = failure.error.as_kind(ErrorKind::Io);
    }
    failure
}

fn reason(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(cause) = next {
        let found = cause
            .downcast_ref::<ValidationException>()
            .and_then(|error| error.reason().map(|reason| reason.as_str().to_owned()))
            .or_else(|| {
                cause
                    .downcast_ref::<ResourceNotFoundException>()?
                    .reason()
                    .map(|reason| reason.as_str().to_owned())
            })
            .or_else(|| {
                cause
                    .downcast_ref::<AccessDeniedException>()
                    .map(|error| error.reason().as_str().to_owned())
            })
            .or_else(|| {
                cause
                    .downcast_ref::<RequestThrottledException>()?
                    .reason()
                    .map(|reason| reason.as_str().to_owned())
            });
        if found.is_some() {
            return found;
        }
        next = cause.source();
    }
    None
}

/// Whether the service does not know the snapshot, which may be a new one.
fn is_unknown(error: &Error) -> bool {
    error.kind() == ErrorKind::NotFound
        && error.code().is_none_or(|code| code == ErrorCode::NoSuchSnapshot)
}

/// A digest in Base64, as in EBS's headers.
fn print_digest(digest: &Digest) -> String {
    super::base64::encode(digest)
}

/// The digest of a header in Base64.
fn parse_digest(text: Option<&str>) -> Option<Digest> {
    super::base64::decode(text?)?.try_into().ok()
}

/// The error of an answer that breaks EBS's rules.
fn odd(message: &str) -> Error {
    Error::new(ErrorKind::Io, message)
}
