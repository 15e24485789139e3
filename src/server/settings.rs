//! Settings of the endpoint: address, TLS, keys, limits.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::http::{Limits, TlsFiles};
use super::{AccessKeys, Upstream};
use crate::base::{Error, Result};

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
    /// The Region of the scope of signatures.
    pub region: String,
    /// EC2, for all other actions.
    pub upstream: Option<Arc<dyn Upstream>>,
    /// The password of the status page and of the metrics.
    pub status_password: Option<String>,
    /// Limits.
    pub limits: Limits,
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
            status_password: None,
            limits: Limits::default(),
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
