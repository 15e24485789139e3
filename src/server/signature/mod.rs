//! Verifies Signature Version 4 of requests as EC2 does: the client has a key of this server, and
//! the request arrived unchanged.
//!
//! The header `Authorization` is parsed here; the request as it arrived, body included, is signed
//! again with the secret of the named key, and both signatures are compared in constant time. An
//! unknown key takes the time of a known one, and both failures read alike. Presigned URLs are
//! refused: URLs end up in logs.

mod keys;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName};
use sha2::Sha256;

use super::Refusal;
use super::times::{http_date, signed_at, signing_day};
use crate::aws::signature_v4::{Signer, signature};
use crate::base::hex;
use crate::codec::sha256;
pub use keys::{AccessKeys, read_private};

/// The largest difference between the clocks of client and server, as EC2 has it.
const SKEW_SECONDS: i64 = 15 * 60;
const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const SERVICE: &str = "ec2";
/// One message for an unknown key and for a wrong signature, as EC2 has it.
const NOT_VALID: &str = "AWS was not able to validate the provided access credentials: \
     the access key is not one of this server, or the signature does not match";

/// The head of a request to `/`.
#[derive(Clone, Copy)]
pub(super) struct Head<'a> {
    pub(super) method: &'a str,
    pub(super) query: &'a str,
    pub(super) headers: &'a HeaderMap,
}

/// A verified signature.
#[derive(Clone, Debug)]
pub(super) struct Verified {
    pub(super) signature: [u8; 32],
    /// The end of its validity.
    pub(super) until: SystemTime,
    /// The Region of its scope.
    pub(super) region: String,
    /// The profile of the key.
    pub(super) profile: Option<String>,
    /// The Regions of the key; empty for those of the server.
    pub(super) regions: Vec<String>,
}

/// Verifies signatures with the keys and the Regions of the server.
pub(super) struct Verifier {
    keys: AccessKeys,
    /// The Regions of all sites.
    regions: Vec<String>,
}

impl Verifier {
    pub(super) fn new(keys: AccessKeys, regions: Vec<String>) -> Self {
        Self { keys, regions }
    }

    /// Checks everything about a signature that the head of a request tells: a request that fails
    /// here fails with any body. Its time is at most 15 minutes from `now`.
    pub(super) fn read<'a>(
        &'a self,
        head: Head<'a>,
        now: SystemTime,
    ) -> Result<SignedHead<'a>, Refusal> {
        let claims = Claims::read(&head)?;
        let date = Date::read(head.headers)?;
        let [day, region, service, end] = claims.scope;
        if day != signing_day(date.seconds) || end != "aws4_request" {
            return Err(incomplete(&format!(
                "the scope of the credential is not DATE/REGION/ec2/aws4_request of the date of {}",
                date.header
            )));
        }
        if service != SERVICE {
            let message = format!(
                "Credential should be scoped to the service '{SERVICE}', which is what this server \
                 serves"
            );
            return Err(Refusal::new(403, "SignatureDoesNotMatch", message));
        }
        if !self.regions.iter().any(|served| served == region) {
            return Err(other_region(region, &self.regions));
        }
        // The content type may be unsigned: there is one that this server accepts.
        let needed =
            |name: &str| name == "host" || name == date.header || name.starts_with("x-amz-");
        let unsigned = |name: &&str| needed(name) && !claims.signed_headers.contains(name);
        let mut names = head.headers.keys().map(HeaderName::as_str).chain(["host"]);
        if let Some(name) = names.find(unsigned) {
            return Err(incomplete(&format!("the header {name} has to be signed")));
        }
        if seconds(now).abs_diff(date.seconds) > SKEW_SECONDS.unsigned_abs() {
            let message = format!(
                "Request has expired: it is signed at {}, more than 15 minutes from the clock of \
                 this server",
                date.text
            );
            return Err(Refusal::client("RequestExpired", message));
        }
        let stated_hash = header(head.headers, "x-amz-content-sha256");
        Ok(SignedHead { verifier: self, head, claims, date, stated_hash })
    }
}

/// The refusal of a request for a Region that is not served.
pub(super) fn other_region(region: &str, served: &[String]) -> Refusal {
    let region: String = region.chars().take(64).collect();
    let message = format!(
        "AWS was not able to validate the provided access credentials: they are scoped to the \
         Region '{region}', and this server acts in {} for them; nothing was begun. Start it with \
         --serve-region, or name the Region in the file of its access keys",
        if served.is_empty() { "no Region".to_owned() } else { served.join(", ") }
    );
    Refusal::new(401, "AuthFailure", message)
}

/// The Region in the scope of a signature that is not verified, because the server has no keys;
/// `None` for a request without a signature.
pub(super) fn stated_region(head: Head<'_>) -> Result<Option<&str>, Refusal> {
    if is_presigned(head.query) {
        return Err(presigned());
    }
    let mut all = head.headers.get_all(AUTHORIZATION).iter();
    let Some(header) = all.next().and_then(|header| header.to_str().ok()) else { return Ok(None) };
    if !header.starts_with("AWS4-") {
        return Ok(None);
    }
    let credential = header
        .split([',', ' '])
        .find_map(|part| part.strip_prefix("Credential="))
        .filter(|_| all.next().is_none());
    match credential.map(|credential| credential.split('/').collect::<Vec<_>>()).as_deref() {
        Some(&[_, _, region, _, _]) => Ok(Some(region)),
        _ => Err(incomplete("the credential is not KEY/DATE/REGION/ec2/aws4_request")),
    }
}

fn presigned() -> Refusal {
    Refusal::new(
        403,
        "AuthFailure",
        "signatures in URLs are not taken: sign with the header Authorization",
    )
}

/// The head of a request whose signature is right if key and body are.
pub(super) struct SignedHead<'a> {
    verifier: &'a Verifier,
    head: Head<'a>,
    claims: Claims<'a>,
    date: Date,
    /// The SHA-256 of the body, if the head states it.
    stated_hash: Option<String>,
}

impl SignedHead<'_> {
    /// Verifies the signature before the body has arrived. Returns false if the head does not state
    /// the SHA-256 of the body.
    pub(super) fn verify_stated(&self) -> Result<bool, Refusal> {
        match &self.stated_hash {
            Some(hash) if bytes(hash).is_some() => self.verify_hash(hash.clone()).map(|_| true),
            _ => Ok(false),
        }
    }

    /// Verifies that a client with a key of this server signed the request with this body.
    pub(super) fn verify(&self, body: &[u8]) -> Result<Verified, Refusal> {
        let hash = hex(&sha256::digest(body));
        if self.stated_hash.as_ref().is_some_and(|stated| *stated != hash) {
            return Err(Refusal::client(
                "XAmzContentSHA256Mismatch",
                "the body is not the one that was signed",
            ));
        }
        self.verify_hash(hash)
    }

    fn verify_hash(&self, hash: String) -> Result<Verified, Refusal> {
        // For an unknown key the same work is done with a secret that no key has.
        let known = self.verifier.keys.find(self.claims.key);
        let secret = known.map_or("no key", |key| key.secret.as_str());
        let signed = self.date.seconds;
        let expected = expected(&self.head, &self.claims, secret, signed, hash)
            .ok_or_else(|| incomplete("a signed header is missing, or is not text"))?;
        let fits = is_same_secret(expected.as_bytes(), hex(&self.claims.signature).as_bytes());
        if let (true, Some(key)) = (fits, known) {
            // One second more than it is valid: the date of a request has whole seconds.
            let until =
                UNIX_EPOCH + Duration::from_secs((signed + SKEW_SECONDS + 1).unsigned_abs());
            return Ok(Verified {
                signature: self.claims.signature,
                until,
                region: self.claims.scope[1].to_owned(),
                profile: key.profile.clone(),
                regions: key.regions.clone(),
            });
        }
        Err(Refusal::new(401, "AuthFailure", NOT_VALID))
    }
}

/// The time of a signature: that of `x-amz-date`, or without that header of `Date`.
struct Date {
    /// The header, in small letters.
    header: &'static str,
    text: String,
    /// Since 1970.
    seconds: i64,
}

impl Date {
    fn read(headers: &HeaderMap) -> Result<Self, Refusal> {
        let name = if headers.contains_key("x-amz-date") { "x-amz-date" } else { "date" };
        let text = header(headers, name).ok_or_else(|| {
            incomplete("the request needs one header x-amz-date, or without it one header Date")
        })?;
        let http = || http_date(&text).filter(|_| name == "date");
        let seconds = signed_at(&text).or_else(http).ok_or_else(|| {
            incomplete(&format!("the header {name} is not a time such as 20260101T010101Z"))
        })?;
        Ok(Self { header: name, text, seconds })
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

/// The parts of the header `Authorization`.
struct Claims<'a> {
    key: &'a str,
    scope: [&'a str; 4],
    signed_headers: Vec<&'a str>,
    signature: [u8; 32],
}

impl<'a> Claims<'a> {
    fn read(head: &Head<'a>) -> Result<Self, Refusal> {
        if is_presigned(head.query) {
            return Err(presigned());
        }
        let mut all = head.headers.get_all(AUTHORIZATION).iter();
        let missing = || {
            Refusal::new(
                403,
                "MissingAuthenticationToken",
                "Request is missing Authentication Token: sign it with an access key of this \
                 server",
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
            let part = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut headers,
                "Signature" => &mut signature,
                _ => {
                    return Err(incomplete(
                        "the header Authorization has a part that is none of Credential, \
                         SignedHeaders, Signature",
                    ));
                }
            };
            if part.replace(value).is_some() {
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
        let signature = bytes(signature)
            .ok_or_else(|| incomplete("the signature is not 64 hexadecimal digits"))?;
        Ok(Self { key, scope: [day, region, service, end], signed_headers, signature })
    }
}

/// Tells whether a URL carries a signature.
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

/// The signature of a client with `secret`, in 64 hexadecimal digits. `signed` is the time of the
/// signature in seconds since 1970, `hash` the SHA-256 of the body in hexadecimal digits. `None` if
/// a signed header is missing or is not text.
fn expected(
    head: &Head<'_>,
    claims: &Claims<'_>,
    secret: &str,
    signed: i64,
    hash: String,
) -> Option<String> {
    let mut headers = Vec::with_capacity(claims.signed_headers.len());
    for name in &claims.signed_headers {
        let values = head.headers.get_all(*name).iter();
        let values: Vec<_> = values.map(|value| value.to_str().ok().map(folded)).collect();
        if values.is_empty() {
            return None;
        }
        for value in values {
            headers.push((*name, value?));
        }
    }
    let [_, region, service, _] = claims.scope;
    let time = UNIX_EPOCH + Duration::from_secs(signed.unsigned_abs());
    let signer = Signer { access_key_id: claims.key, secret, region, service, time };
    signature(signer, head.method, head.query, &headers, hash)
}

/// A header value without spaces at both ends, and with single spaces in between.
fn folded(value: &str) -> String {
    value.split([' ', '\t']).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

fn hasher(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

/// Compares secrets in a time that does not depend on the position of a difference.
pub(super) fn is_same_secret(one: &[u8], other: &[u8]) -> bool {
    let expected = hasher(b"compare").chain_update(one).finalize().into_bytes();
    hasher(b"compare").chain_update(other).verify_slice(&expected).is_ok()
}
