//! Settings of the endpoint: address, TLS, keys, limits.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::http::{Limits, TlsFiles};
use super::{AccessKeys, ServedSite, Upstream};
use crate::base::{Clock, Error, Result};

/// Address, TLS, authentication and limits of the endpoint.
#[derive(Clone)]
pub struct HttpSettings {
    /// The address to listen on; port 0 takes a free port.
    pub listen: SocketAddr,
    /// TLS; `None` speaks plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Keys whose signatures are accepted. `None` accepts requests without a signature, which only
    /// a loopback address may do.
    pub keys: Option<AccessKeys>,
    /// The Region of the server: requests without a signature are for it.
    pub region: String,
    /// EC2 in that Region, for all other actions.
    pub upstream: Option<Arc<dyn Upstream>>,
    /// Other Regions, and other profiles that keys name.
    pub others: Vec<ServedSite>,
    /// The password of the status page and of the metrics.
    pub status_password: Option<String>,
    /// Limits.
    pub limits: Limits,
    /// The wall clock by which signatures expire.
    pub clock: Clock,
}

impl Default for HttpSettings {
    /// A free port of the loopback address, without keys.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tls: None,
            keys: None,
            region: "us-east-1".to_owned(),
            upstream: None,
            others: Vec::new(),
            status_password: None,
            limits: Limits::default(),
            clock: Clock::default(),
        }
    }
}

/// Refuses settings that expose the endpoint by accident: an address that other machines reach
/// needs keys and TLS.
pub fn check_exposure(settings: &HttpSettings) -> Result<()> {
    if settings.listen.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    let missing = match (settings.keys.is_some(), settings.tls.is_some()) {
        (true, true) => return Ok(()),
        (false, true) => "--access-keys",
        (true, false) => "--tls-cert and --tls-key",
        (false, false) => "--access-keys, --tls-cert and --tls-key",
    };
    Err(Error::usage(format!(
        "others can reach this address: give {missing}, or listen on 127.0.0.1"
    ))
    .at("address", settings.listen))
}

/// Refuses an endpoint of EC2 that is this server itself: each forwarded request would come back to
/// it.
pub fn check_upstream(url: &str, listen: SocketAddr) -> Result<()> {
    let authority =
        url.split("://").last().unwrap_or_default().split('/').next().unwrap_or_default();
    let Some((host, port)) = authority.rsplit_once(':') else { return Ok(()) };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_here = host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip == listen.ip());
    if is_here && port.parse() == Ok(listen.port()) {
        return Err(Error::usage(
            "the endpoint of EC2 is this server itself: start it without \
             AWS_ENDPOINT_URL_EC2, which is for its clients",
        )
        .at("endpoint", url));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_not_its_own_upstream() {
        let listen = SocketAddr::from(([10, 0, 0, 7], 8673));
        for own in ["http://localhost:8673", "http://127.0.0.1:8673/", "https://10.0.0.7:8673/x"] {
            assert!(check_upstream(own, listen).is_err(), "{own}");
        }
        for other in ["http://[::1]:8674", "http://10.0.0.8:8673", "https://ec2.amazonaws.com"] {
            assert!(check_upstream(other, listen).is_ok(), "{other}");
        }
    }
}
