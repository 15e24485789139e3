//! Signature Version 4 of requests, as EC2 checks it: who asks, and that nobody changed what is
//! asked for.
//!
//! What is signed is the request as it came in, body included; the signature is made again with the
//! secret of the named key and compared in constant time. A key that is not
//! known takes as long as one that is, and both failures read the same. Signatures in URLs are not
//! taken: they end up in logs.

mod keys;

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName};
use sha2::Sha256;

use super::Refusal;
use super::times::signed_at;
use crate::base::hex;
use crate::codec::sha256;
pub use keys::{AccessKeys, read_private};

/// How far the clock of a client may be off.
const SKEW_SECONDS: i64 = 15 * 60;
const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const SERVICE: &str = "ec2";
/// What EC2 says, without saying which of the two it is.
const NOT_VALID: &str = "AWS was not able to validate the provided access credentials: the access key is not one of this server, or the signature does not match";

/// A request as far as it is signed.
pub(super) struct Signed<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a [u8],
}

/// A signature that is right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verified {
    pub(super) signature: [u8; 32],
    /// When it is not valid any more.
    pub(super) until: SystemTime,
}

/// Checks signatures.
pub(super) struct Verifier {
    keys: AccessKeys,
    region: String,
}

impl Verifier {
    pub(super) fn new(keys: AccessKeys, region: String) -> Self {
        Self { keys, region }
    }

    /// Checks that somebody with a key of ours signed exactly this, lately.
    pub(super) fn verify(
        &self,
        request: &Signed<'_>,
        now: SystemTime,
    ) -> Result<Verified, Refusal> {
        let claims = Claims::read(request)?;
        let date = header(request.headers, "x-amz-date")
            .ok_or_else(|| incomplete("the header x-amz-date is missing"))?;
        let signed = signed_at(&date).ok_or_else(|| {
            incomplete("the header x-amz-date is not a time such as 20260101T010101Z")
        })?;
        let [day, region, service, end] = claims.scope;
        if !date.starts_with(day) || day.len() != 8 || end != "aws4_request" {
            return Err(incomplete(
                "the scope of the credential is not DATE/REGION/ec2/aws4_request of the date of x-amz-date",
            ));
        }
        if region != self.region || service != SERVICE {
            let message = format!(
                "Credential should be scoped to the Region '{}' and the service '{SERVICE}', which are what this server serves",
                self.region
            );
            return Err(Refusal::new(403, "SignatureDoesNotMatch", message));
        }
        for needed in ["host", "x-amz-date", "content-type"] {
            if request.headers.contains_key(needed) && !claims.signed_headers.contains(&needed) {
                return Err(incomplete(&format!("the header {needed} has to be signed")));
            }
        }
        let unsigned =
            |name: &&str| name.starts_with("x-amz-") && !claims.signed_headers.contains(name);
        if let Some(name) = request.headers.keys().map(HeaderName::as_str).find(unsigned) {
            return Err(incomplete(&format!("the header {name} has to be signed")));
        }
        let now = seconds(now);
        if now.abs_diff(signed) > SKEW_SECONDS.unsigned_abs() {
            let message = format!(
                "Request has expired: it is signed at {date}, more than 15 minutes from the clock of this server"
            );
            return Err(Refusal::client("RequestExpired", message));
        }
        let hash = hex(&sha256::digest(request.body));
        if header(request.headers, "x-amz-content-sha256").is_some_and(|said| said != hash) {
            return Err(Refusal::client(
                "XAmzContentSHA256Mismatch",
                "the body is not the one that was signed",
            ));
        }
        let canonical = canonical(request, &claims.signed_headers, &hash)
            .ok_or_else(|| incomplete("a signed header is missing, or is not text"))?;
        let scope = format!("{day}/{region}/{service}/{end}");
        let text =
            format!("{ALGORITHM}\n{date}\n{scope}\n{}", hex(&sha256::digest(canonical.as_bytes())));
        // Without a key of that name the same is done with one that nobody has.
        let known = self.keys.secret(claims.key);
        let mut key = mac(format!("AWS4{}", known.unwrap_or("no key")).as_bytes(), day.as_bytes());
        for part in [region, service, end] {
            key = mac(&key, part.as_bytes());
        }
        let fits =
            hasher(&key).chain_update(text.as_bytes()).verify_slice(&claims.signature).is_ok();
        if fits & known.is_some() {
            // One more second than it can be valid.
            let until =
                UNIX_EPOCH + Duration::from_secs((signed + SKEW_SECONDS + 1).unsigned_abs());
            return Ok(Verified { signature: claims.signature, until });
        }
        Err(Refusal::new(401, "AuthFailure", NOT_VALID))
    }
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_secs()).ok())
        .unwrap_or_default()
}

fn incomplete(what: &str) -> Refusal {
    Refusal::client("IncompleteSignature", what)
}

/// What the header `Authorization` says.
struct Claims<'a> {
    key: &'a str,
    scope: [&'a str; 4],
    signed_headers: Vec<&'a str>,
    signature: [u8; 32],
}

impl<'a> Claims<'a> {
    fn read(request: &Signed<'a>) -> Result<Self, Refusal> {
        if is_presigned(request.query) {
            return Err(Refusal::new(
                403,
                "AuthFailure",
                "signatures in URLs are not taken: sign with the header Authorization",
            ));
        }
        let mut all = request.headers.get_all(AUTHORIZATION).iter();
        let missing = || {
            Refusal::new(
                403,
                "MissingAuthenticationToken",
                "Request is missing Authentication Token: sign it with an access key of this server",
            )
        };
        let header = all
            .next()
            .ok_or_else(missing)?
            .to_str()
            .map_err(|_| incomplete("the header Authorization is not text"))?;
        if all.next().is_some() {
            return Err(incomplete("the header Authorization stands there twice"));
        }
        let rest = header.strip_prefix(ALGORITHM).filter(|rest| rest.starts_with(' '));
        let rest = rest.ok_or_else(|| {
            incomplete("the header Authorization does not begin with AWS4-HMAC-SHA256")
        })?;
        let (mut credential, mut headers, mut signature) = (None, None, None);
        for part in rest.split(',') {
            let (name, value) = part
                .trim()
                .split_once('=')
                .ok_or_else(|| incomplete("the header Authorization has a part without ="))?;
            let place = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut headers,
                "Signature" => &mut signature,
                _ => {
                    return Err(incomplete(
                        "the header Authorization has a part that is none of Credential, SignedHeaders, Signature",
                    ));
                }
            };
            if place.replace(value).is_some() {
                return Err(incomplete("a part of the header Authorization stands there twice"));
            }
        }
        let (Some(credential), Some(headers), Some(signature)) = (credential, headers, signature)
        else {
            return Err(incomplete(
                "the header Authorization needs Credential, SignedHeaders and Signature",
            ));
        };
        let parts: Vec<&str> = credential.split('/').collect();
        let &[key, day, region, service, end] = parts.as_slice() else {
            return Err(incomplete("the credential is not KEY/DATE/REGION/ec2/aws4_request"));
        };
        let signed_headers: Vec<&str> = headers.split(';').collect();
        if !signed_headers.windows(2).all(|pair| pair[0] < pair[1])
            || headers.bytes().any(|byte| byte.is_ascii_uppercase())
        {
            return Err(incomplete(
                "the signed headers have to be in order, in small letters, and each once",
            ));
        }
        for needed in ["host", "x-amz-date"] {
            if !signed_headers.contains(&needed) {
                return Err(incomplete(&format!("the header {needed} has to be signed")));
            }
        }
        let signature = bytes(signature)
            .ok_or_else(|| incomplete("the signature is not 64 hexadecimal digits"))?;
        Ok(Self { key, scope: [day, region, service, end], signed_headers, signature })
    }
}

/// Whether a URL carries a signature.
fn is_presigned(query: &str) -> bool {
    query.split('&').any(|pair| {
        pair.get(..6).is_some_and(|name| name.eq_ignore_ascii_case("x-amz-"))
            || pair.starts_with("AWSAccessKeyId=")
    })
}

fn bytes(digits: &str) -> Option<[u8; 32]> {
    let plain = digits.len() == 64
        && digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * at..2 * at + 2).filter(|_| plain)?, 16).ok()?;
    }
    Some(bytes)
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?.trim().to_owned();
    values.next().is_none().then_some(value)
}

/// The request in the form that is signed. `None` if a signed header is not there or is not text.
fn canonical(request: &Signed<'_>, names: &[&str], hash: &str) -> Option<String> {
    let mut text = format!("{}\n", request.method);
    escaped(&mut text, &unescaped(request.path.as_bytes()), true);
    text.push('\n');
    text.push_str(&canonical_query(request.query));
    text.push('\n');
    for name in names {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        let values: Option<Vec<String>> = request
            .headers
            .get_all(&name)
            .iter()
            .map(|value| value.to_str().ok().map(folded))
            .collect();
        let values = values.filter(|values| !values.is_empty())?;
        _ = writeln!(text, "{name}:{}", values.join(","));
    }
    _ = write!(text, "\n{}\n{hash}", names.join(";"));
    Some(text)
}

/// Spaces at both ends go, several become one.
fn folded(value: &str) -> String {
    value.split([' ', '\t']).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Names and values in AWS's one way to write them, in order.
fn canonical_query(query: &str) -> String {
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let write = |part: &str| {
                let mut text = String::new();
                escaped(&mut text, &unescaped(part.as_bytes()), false);
                text
            };
            (write(name), write(value))
        })
        .collect();
    pairs.sort();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        let digits = text
            .get(at + 1..at + 3)
            .filter(|_| *byte == b'%')
            .and_then(|digits| std::str::from_utf8(digits).ok());
        match digits
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
        {
            Some(value) => {
                bytes.push(value);
                at += 3;
            }
            None => {
                bytes.push(*byte);
                at += 1;
            }
        }
    }
    bytes
}

fn escaped(text: &mut String, bytes: &[u8], is_path: bool) {
    for byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                text.push(char::from(*byte))
            }
            b'/' if is_path => text.push('/'),
            _ => _ = write!(text, "%{byte:02X}"),
        }
    }
}

fn hasher(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn mac(key: &[u8], data: &[u8]) -> [u8; 32] {
    hasher(key).chain_update(data).finalize().into_bytes().into()
}

/// Compares secrets in a time that does not depend on where they differ.
pub(super) fn is_same_secret(one: &[u8], other: &[u8]) -> bool {
    let expected = mac(b"compare", one);
    hasher(b"compare").chain_update(other).verify_slice(&expected).is_ok()
}
