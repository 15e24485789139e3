//! Checks of the origin of a request without a signature: the host it names, the site of the page
//! that makes it, and the password of the status page.

use std::net::IpAddr;

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HOST, ORIGIN};

use super::signature::is_same_secret;
use crate::aws::base64;

/// Tells whether the request names this machine as its host. DNS rebinding sends a browser here
/// with the name of another host.
pub(super) fn names_loopback(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    host.is_some_and(|host| is_loopback(host_of(host))) && hosts.next().is_none()
}

/// A host without its port.
fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    authority.split(':').next().unwrap_or_default()
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Tells whether a browser makes the request for a page of another site. A browser posts forms
/// across sites without a preflight request.
pub(super) fn is_cross_site(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let site = text("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none"));
    let host = text(HOST.as_str()).unwrap_or_default();
    let is_own = |origin: &str| {
        ["http://", "https://"].iter().any(|scheme| origin.strip_prefix(scheme) == Some(host))
    };
    site || text(ORIGIN.as_str()).is_some_and(|origin| !is_own(origin))
}

/// Tells whether the request has the password, with any user name.
pub(super) fn has_password(headers: &HeaderMap, password: &str) -> bool {
    let value =
        headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let decoded = value
        .get(..6)
        .filter(|scheme| scheme.eq_ignore_ascii_case("basic "))
        .and_then(|_| unpadded(value[6..].trim()));
    let decoded = decoded.unwrap_or_default();
    let given = decoded.iter().position(|byte| *byte == b':').map(|at| &decoded[at + 1..]);
    is_same_secret(password.as_bytes(), given.unwrap_or_default()) & given.is_some()
}

/// Decodes Base64, with or without padding: some clients leave it out.
fn unpadded(text: &str) -> Option<Vec<u8>> {
    base64::decode(&format!("{text:=<width$}", width = text.len().next_multiple_of(4)))
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn only_loopback_hosts_are_accepted() {
        for host in [
            "localhost",
            "LOCALHOST:80",
            "127.0.0.1:8673",
            "127.9.9.9",
            "[::1]:80",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(names_loopback(&headers(&[("host", host)])), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "[::2]",
            "evil@127.0.0.1",
        ] {
            assert!(!names_loopback(&headers(&[("host", host)])), "{host}");
        }
        assert!(!names_loopback(&headers(&[])));
    }

    #[test]
    fn requests_of_other_sites_are_recognized() {
        let host = ("host", "127.0.0.1:8673");
        for ours in [
            vec![host],
            vec![host, ("origin", "http://127.0.0.1:8673")],
            vec![host, ("sec-fetch-site", "same-origin")],
        ] {
            assert!(!is_cross_site(&headers(&ours)), "{ours:?}");
        }
        for theirs in ["null", "http://evil.example", "http://127.0.0.1:8674", "127.0.0.1:8673"] {
            assert!(is_cross_site(&headers(&[host, ("origin", theirs)])), "{theirs}");
        }
        for site in ["cross-site", "same-site", "?"] {
            assert!(is_cross_site(&headers(&[host, ("sec-fetch-site", site)])), "{site}");
        }
    }

    #[test]
    fn the_password_is_compared_whole() {
        // Of `user:pass:word`, as RFC 7617 has it: only the first colon divides.
        assert!(has_password(
            &headers(&[("authorization", "Basic dXNlcjpwYXNzOndvcmQ=")]),
            "pass:word"
        ));
        for said in
            ["", "Basic", "Basic ", "Basic !", "Bearer dXNlcjpwYXNzOndvcmQ=", "Basic dXNlcg=="]
        {
            assert!(!has_password(&headers(&[("authorization", said)]), "pass:word"), "{said}");
        }
        assert!(!has_password(
            &headers(&[("authorization", "Basic dXNlcjpwYXNzOndvcmQ=")]),
            "pass:words"
        ));
    }
}
