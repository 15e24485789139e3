//! Signature Version 4, computed again from the received request.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper::http::request::Parts;
use sha2::Sha256;

use super::blocks::sha256;
use super::clock;

/// How far a request's date may be from the server's clock.
const MAX_SKEW: Duration = Duration::from_secs(300);
const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// An access key.
#[derive(Clone, Debug)]
pub struct Key {
    pub secret: String,
    /// The account that owns the key.
    pub account: String,
    pub session_token: Option<String>,
    pub expired: bool,
    /// Operations that are denied to the key.
    pub denied: BTreeSet<String>,
}

/// The reason of a failed authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthFailure {
    Unsigned,
    Malformed,
    UnknownKey,
    /// The session token is not that of the key.
    WrongToken,
    Expired,
    /// The scope names another Region or service; the text is the expected scope.
    WrongScope(String),
    Skewed,
    /// The payload is not the one that was signed.
    WrongPayload,
    /// The signature does not match this canonical request.
    WrongSignature(String),
}

struct Authorization<'a> {
    access_key: &'a str,
    scope: &'a str,
    signed: &'a str,
    signature: &'a str,
}

/// The access key in the `Authorization` header.
pub fn access_key(parts: &Parts) -> Option<&str> {
    authorization(parts).ok().map(|authorization| authorization.access_key)
}

/// The access key and the Region in the `Authorization` header.
pub fn scope(parts: &Parts) -> Option<(&str, &str)> {
    let authorization = authorization(parts).ok()?;
    let mut scope = authorization.scope.split('/');
    scope.nth(1).map(|region| (authorization.access_key, region))
}

fn header<'a>(parts: &'a Parts, name: &str) -> Option<&'a str> {
    parts.headers.get(name).and_then(|value| value.to_str().ok())
}

fn authorization(parts: &Parts) -> Result<Authorization<'_>, AuthFailure> {
    let text = header(parts, "authorization").ok_or(AuthFailure::Unsigned)?;
    let fields = text.strip_prefix(ALGORITHM).ok_or(AuthFailure::Malformed)?;
    let fields: BTreeMap<&str, &str> =
        fields.split(',').filter_map(|field| field.trim().split_once('=')).collect();
    let field = |name| fields.get(name).copied().ok_or(AuthFailure::Malformed);
    let (access_key, scope) = field("Credential")?.split_once('/').ok_or(AuthFailure::Malformed)?;
    Ok(Authorization {
        access_key,
        scope,
        signed: field("SignedHeaders")?,
        signature: field("Signature")?,
    })
}

/// Checks the signature of a request, and gives the access key.
pub fn check(
    parts: &Parts,
    body: &[u8],
    keys: &BTreeMap<String, Key>,
    region: &str,
    service: &str,
    now: SystemTime,
) -> Result<String, AuthFailure> {
    let authorization = authorization(parts)?;
    let key = keys.get(authorization.access_key).ok_or(AuthFailure::UnknownKey)?;
    if key.session_token.as_deref() != header(parts, "x-amz-security-token") {
        return Err(AuthFailure::WrongToken);
    }
    if key.expired {
        return Err(AuthFailure::Expired);
    }
    let scope = format!("{region}/{service}/aws4_request");
    let (day, named) = authorization.scope.split_once('/').ok_or(AuthFailure::Malformed)?;
    if named != scope {
        return Err(AuthFailure::WrongScope(scope));
    }
    let date = header(parts, "x-amz-date").ok_or(AuthFailure::Malformed)?;
    let time =
        clock::parse(date).filter(|_| date.starts_with(day)).ok_or(AuthFailure::Malformed)?;
    if now.duration_since(time).unwrap_or_else(|early| early.duration()) > MAX_SKEW {
        return Err(AuthFailure::Skewed);
    }
    let signs = |name: &str| authorization.signed.split(';').any(|signed| signed == name);
    let complete = signs("host")
        && parts
            .headers
            .keys()
            .all(|name| !name.as_str().starts_with("x-amz-") || signs(name.as_str()));
    if !complete {
        return Err(AuthFailure::Malformed);
    }
    let payload = match header(parts, "x-amz-content-sha256") {
        Some("UNSIGNED-PAYLOAD") => "UNSIGNED-PAYLOAD".to_owned(),
        Some(digest) if digest != hex(&sha256(body)) => return Err(AuthFailure::WrongPayload),
        _ => hex(&sha256(body)),
    };
    let canonical = canonical(parts, authorization.signed, &payload);
    let text = format!(
        "{ALGORITHM}\n{date}\n{}\n{}",
        authorization.scope,
        hex(&sha256(canonical.as_bytes()))
    );
    if sign(&key.secret, authorization.scope, &text) != authorization.signature {
        return Err(AuthFailure::WrongSignature(canonical));
    }
    Ok(authorization.access_key.to_owned())
}

/// The signature of a text; the scope is `DAY/REGION/SERVICE/aws4_request`.
fn sign(secret: &str, scope: &str, text: &str) -> String {
    let first = format!("AWS4{secret}").into_bytes();
    let key = scope.split('/').fold(first, |key, part| hmac(&key, part.as_bytes()));
    hex(&hmac(&key, text.as_bytes()))
}

fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("keys of any length");
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The canonical request. Outside of S3 the path is encoded once more than on the wire.
fn canonical(parts: &Parts, signed: &str, payload: &str) -> String {
    let mut query: Vec<(&str, &str)> = parts
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .collect();
    query.sort_unstable();
    let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let headers: String = signed
        .split(';')
        .map(|name| {
            let values: Vec<String> = parts
                .headers
                .get_all(name)
                .iter()
                .map(|value| collapsed(value.as_bytes()))
                .collect();
            format!("{name}:{}\n", values.join(","))
        })
        .collect();
    let path = encoded(parts.uri.path());
    format!("{}\n{path}\n{}\n{headers}\n{signed}\n{payload}", parts.method, query.join("&"))
}

/// A trimmed value with single spaces.
fn collapsed(value: &[u8]) -> String {
    String::from_utf8_lossy(value).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn encoded(path: &str) -> String {
    let one = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    path.bytes().map(one).collect()
}

#[test]
fn signatures_match_the_example_of_the_documentation() {
    // The example of a derived key in the IAM guide: its secret, day, Region and service.
    let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    let text = "AWS4-HMAC-SHA256\n20150830T123600Z\n20150830/us-east-1/iam/aws4_request\n\
                f536975d06c0309214f805bb90ccff089219ecd68b2577efef23edd43b7e1a59";
    let signature = "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7";
    assert_eq!(sign(secret, "20150830/us-east-1/iam/aws4_request", text), signature);
}
