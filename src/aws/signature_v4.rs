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
    /// The time of the header `x-amz-date`, or without that header of `date`.
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
    let is_dated = headers.iter().any(|(name, _)| *name == "x-amz-date");
    let headers = headers.iter().map(|(name, value)| (*name, value.as_str()));
    // Only the encoding of forms has a plus for a space. The host comes from the headers.
    let url = format!("http://localhost/?{}", query.replace('+', "%2B"));
    let mut settings = SigningSettings::default();
    // The client chose the headers that it signed, so none of them is excluded here. The library
    // adds `x-amz-date` to every request.
    settings.excluded_headers = (!is_dated).then(|| vec!["x-amz-date".into()]);
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::base::hex;
    use crate::codec::sha256;

    #[test]
    fn a_request_with_the_header_date_has_the_signature_of_the_test_suite_of_aws() {
        let signer = Signer {
            access_key_id: "AKIDEXAMPLE",
            secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            region: "us-east-1",
            service: "host",
            time: UNIX_EPOCH + Duration::from_secs(1_315_611_360),
        };
        let headers = [
            ("date", "Mon, 09 Sep 2011 23:36:00 GMT".to_owned()),
            ("host", "host.foo.com".to_owned()),
        ];
        let found = signature(signer, "GET", "", &headers, hex(&sha256::digest(b"")));
        assert_eq!(
            found.as_deref(),
            Some("b27ccfbfa7df52a200ff74193ca6e32d4b48b8856fab7ebf1c595d0670a7e470")
        );
    }
}
