//! The EBS direct APIs: routes requests to operations.

mod read;
mod write;

use hyper::body::Bytes;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Response, StatusCode};
use serde_json::{Value, json};

use super::super::wire::percent_decoded;
use super::auth::AuthFailure;
use super::model::Snapshot;
use super::router::Body;
use super::world::World;
use super::{Shared, router};

pub use write::linear;

/// An error: status, name, reason (which may be empty) and message.
#[derive(Clone, Debug)]
pub struct Error {
    pub status: u16,
    pub code: String,
    pub reason: String,
    pub message: String,
}

pub type Outcome<T> = Result<T, Error>;

impl Error {
    pub fn new(status: u16, code: &str, reason: &str, message: impl Into<String>) -> Self {
        Self { status, code: code.to_owned(), reason: reason.to_owned(), message: message.into() }
    }

    pub fn invalid(reason: &str, message: impl Into<String>) -> Self {
        Self::new(400, "ValidationException", reason, message)
    }

    fn no_snapshot(id: &str) -> Self {
        Self::new(
            404,
            "ResourceNotFoundException",
            "SNAPSHOT_NOT_FOUND",
            format!("The snapshot '{id}' does not exist."),
        )
    }

    fn denied(reason: &str, message: impl Into<String>) -> Self {
        Self::new(403, "AccessDeniedException", reason, message)
    }

    pub fn throttled(reason: &str, plain: bool) -> Self {
        if plain {
            return Self::new(400, "ThrottlingException", "", "Rate exceeded");
        }
        Self::new(
            400,
            "RequestThrottledException",
            reason,
            "The number of API requests has exceeded the maximum allowed API request rate.",
        )
    }

    pub fn expired() -> Self {
        Self::new(
            403,
            "ExpiredTokenException",
            "",
            "The security token included in the request is expired",
        )
    }

    pub fn unauthenticated(failure: &AuthFailure) -> Self {
        let refused = |code: &str, message: String| Self::new(403, code, "", message);
        match failure {
            AuthFailure::Unsigned => refused(
                "MissingAuthenticationTokenException",
                "Missing Authentication Token".to_owned(),
            ),
            AuthFailure::Malformed => refused(
                "IncompleteSignatureException",
                "The authorization header is not complete.".to_owned(),
            ),
            AuthFailure::UnknownKey | AuthFailure::WrongToken => refused(
                "UnrecognizedClientException",
                "The security token included in the request is invalid.".to_owned(),
            ),
            AuthFailure::Expired => Self::expired(),
            AuthFailure::WrongScope(scope) => refused(
                "InvalidSignatureException",
                format!("Credential should be scoped to a valid region: {scope}"),
            ),
            AuthFailure::Skewed => refused(
                "InvalidSignatureException",
                "Signature expired, or not yet current.".to_owned(),
            ),
            AuthFailure::WrongPayload => refused(
                "InvalidSignatureException",
                "The payload is not the one that was signed.".to_owned(),
            ),
            AuthFailure::WrongSignature(canonical) => {
                let message = "The request signature we calculated does not match the signature \
                               you provided.";
                refused(
                    "InvalidSignatureException",
                    format!(
                        "{message} The Canonical String for this request should have been \
                         '{canonical}'"
                    ),
                )
            }
        }
    }

    pub fn answer(&self, world: &World) -> Response<Body> {
        let mut body = json!({ "Message": self.message });
        if !self.reason.is_empty() {
            body["Reason"] = self.reason.clone().into();
        }
        let suffix = if world.settings.long_error_types {
            ":http://internal.amazon.com/coral/com.amazonaws.ebs/"
        } else {
            ""
        };
        let mut answer = json_answer(self.status, &body);
        let kind = format!("{}{suffix}", self.code);
        answer
            .headers_mut()
            .insert("x-amzn-errortype", kind.parse().expect("a name is a header value"));
        answer.extensions_mut().insert(router::ErrorCode(self.code.clone()));
        answer
    }
}

pub fn json_answer(status: u16, body: &Value) -> Response<Body> {
    let mut answer = Response::new(vec![Bytes::from(body.to_string())]);
    *answer.status_mut() = StatusCode::from_u16(status).expect("a status");
    answer
        .headers_mut()
        .insert("content-type", "application/json".parse().expect("a header value"));
    answer
}

/// The operation and resource that method and path name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub operation: &'static str,
    pub snapshot: Option<String>,
    pub block: Option<u32>,
    /// The index as it was sent, for the error if it is no number.
    raw_block: Option<String>,
}

impl Target {
    pub fn of(parts: &Parts) -> Option<Self> {
        let path: Vec<String> =
            parts.uri.path().trim_matches('/').split('/').map(percent_decoded).collect();
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let (operation, snapshot, block) = match (&parts.method, path.as_slice()) {
            (&Method::POST, ["snapshots"]) => ("StartSnapshot", None, None),
            (&Method::POST, ["snapshots", "completion", id]) => {
                ("CompleteSnapshot", Some(*id), None)
            }
            (&Method::GET, ["snapshots", id, "blocks"]) => ("ListSnapshotBlocks", Some(*id), None),
            (&Method::GET, ["snapshots", id, "changedblocks"]) => {
                ("ListChangedBlocks", Some(*id), None)
            }
            (&Method::GET, ["snapshots", id, "blocks", index]) => {
                ("GetSnapshotBlock", Some(*id), Some(*index))
            }
            (&Method::PUT, ["snapshots", id, "blocks", index]) => {
                ("PutSnapshotBlock", Some(*id), Some(*index))
            }
            (_, ["snapshots", ..]) => ("Unknown", None, None),
            _ => return None,
        };
        Some(Self {
            operation,
            snapshot: snapshot.map(str::to_owned),
            block: block.and_then(|index| index.parse().ok()),
            raw_block: block.map(str::to_owned),
        })
    }

    fn id(&self) -> Outcome<&str> {
        let id = self.snapshot.as_deref().unwrap_or_default();
        checked_id(id)?;
        Ok(id)
    }

    fn index(&self) -> Outcome<u32> {
        let wrong = || {
            Error::invalid(
                "INVALID_PARAMETER_VALUE",
                format!("Block index {:?} is not a number.", self.raw_block),
            )
        };
        self.block.ok_or_else(wrong)
    }
}

/// Ids are `snap-` and hexadecimal digits.
fn checked_id(id: &str) -> Outcome<()> {
    let digits = id.strip_prefix("snap-").unwrap_or_default();
    let well_formed = !digits.is_empty()
        && id.len() <= 64
        && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    if well_formed {
        Ok(())
    } else {
        Err(Error::invalid("INVALID_SNAPSHOT_ID", format!("Invalid snapshot id: {id}")))
    }
}

/// A request with a valid signature.
pub struct Request<'a> {
    pub target: &'a Target,
    pub account: &'a str,
    pub parameters: &'a std::collections::BTreeMap<String, String>,
    pub headers: &'a HeaderMap,
    pub body: &'a Bytes,
}

impl Request<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// A number in the query or in a header.
    fn number(name: &str, text: Option<&str>) -> Outcome<Option<u64>> {
        let wrong = |text| {
            Error::invalid("INVALID_PARAMETER_VALUE", format!("{name}: {text:?} is not a number."))
        };
        text.map(|text| text.parse().map_err(|_| wrong(text))).transpose()
    }
}

/// Carries out a request.
pub fn answer(shared: &Shared, request: &Request) -> Response<Body> {
    let outcome = match request.target.operation {
        "ListSnapshotBlocks" => read::list_snapshot_blocks(&mut shared.world(), request),
        "ListChangedBlocks" => read::list_changed_blocks(&mut shared.world(), request),
        "GetSnapshotBlock" => read::get_snapshot_block(shared, request),
        "StartSnapshot" => write::start_snapshot(&mut shared.world(), request),
        "PutSnapshotBlock" => write::put_snapshot_block(shared, request),
        "CompleteSnapshot" => write::complete_snapshot(&mut shared.world(), request),
        _ => Err(Error::new(404, "UnknownOperationException", "", "There is no such operation.")),
    };
    outcome.unwrap_or_else(|error| error.answer(&shared.world()))
}

/// The snapshot, if the account may read it.
fn readable<'a>(world: &'a mut World, id: &str, account: &str) -> Outcome<&'a mut Snapshot> {
    let denied_kms = world.denied_kms.clone();
    let snapshot = world.snapshots.get_mut(id).ok_or_else(|| Error::no_snapshot(id))?;
    if snapshot.visible_after.lists > 0 {
        snapshot.visible_after.lists -= 1;
        return Err(Error::no_snapshot(id));
    }
    let shared = snapshot.permissions.users.contains(account);
    if snapshot.owner != account && !shared {
        if snapshot.permissions.all {
            let message = format!(
                "The snapshot {id} is public. Public snapshots cannot be read with the EBS direct \
                 APIs."
            );
            return Err(Error::denied("UNAUTHORIZED_ACCOUNT", message));
        }
        return Err(Error::no_snapshot(id));
    }
    if snapshot.kms_key_id.as_ref().is_some_and(|key| denied_kms.contains(key)) {
        return Err(Error::denied(
            "DEPENDENCY_ACCESS_DENIED",
            "The request to KMS was denied: the key of the snapshot may not be used.",
        ));
    }
    if !snapshot.is_completed() {
        let message =
            format!("The snapshot {id} is not completed: its state is {}.", snapshot.state);
        return Err(Error::invalid("INVALID_SNAPSHOT_ID", message));
    }
    if snapshot.not_listable > 0 {
        snapshot.not_listable -= 1;
        return Err(Error::invalid(
            "INVALID_SNAPSHOT_ID",
            format!("The snapshot {id} is not completed: its state is pending."),
        ));
    }
    if snapshot.tier == "archive" && snapshot.restore_expiry.is_none() {
        return Err(Error::invalid(
            "INVALID_SNAPSHOT_ID",
            format!("The snapshot {id} is archived. Restore it first."),
        ));
    }
    Ok(snapshot)
}
