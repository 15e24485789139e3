//! Signature Version 4 of a request that this program receives, computed by the library with which
//! AWS's clients sign.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;

/// The signer of a request, and the scope of the signature.
#[derive(Clone, Copy)]
pub struct Signer<'a> {
    /// The access key id.
    pub access_key_id: &'a str,
    /// The secret of that key.
    pub secret: &'a str,
    /// The Region of the scope.
    pub region: &'a str,
    /// The service of the scope, such as `ec2`.
    pub service: &'a str,
    /// The time of `x-amz-date`.
    pub time: SystemTime,
}

/// The signature of a request to `/`, in 64 hexadecimal digits. `headers` are exactly the signed
/// ones, host included, with single spaces in their values; `query` is percent-encoded;
/// `body_sha256` is in hexadecimal digits. `None` if a part is not valid in a request.
pub fn signature(
    signer: Signer<'_>,
    method: &str,
    query: &str,
    headers: &[(&str, String)],
    body_sha256: String,
) -> Option<String> {
    let headers = headers.iter().map(|(name, value)| (*name, value.as_str()));
    // Only the encoding of forms has a plus for a space. The host comes from the headers.
    let url = format!("http://localhost/?{}", query.replace('+', "%2B"));
    let mut settings = SigningSettings::default();
    // The client chose the headers that it signed, so none of them is excluded here.
    settings.excluded_headers = None;
    let identity =
        Credentials::new(signer.access_key_id, signer.secret, None, None, "amistore").into();
    let params = SigningParams::builder()
        .identity(&identity)
        .region(signer.region)
        .name(signer.service)
        .time(signer.time)
        .settings(settings)
        .build()
        .ok()?;
    let body = SignableBody::Precomputed(body_sha256);
    let request = SignableRequest::new(method, url, headers, body).ok()?;
    sign(request, &params.into()).ok().map(|output| output.into_parts().1)
}
