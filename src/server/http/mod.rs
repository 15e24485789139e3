//! HTTP/1.1 and TLS: connections, their limits, and their end.
//!
//! A slow, silent or greedy client costs one connection and no thread. This layer gives requests to
//! a [`Handler`] and does not know their meaning.

mod acceptor;
mod bodies;
mod connections;
mod reply;
mod timeouts;
mod tls;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;

pub(super) use acceptor::Acceptor;
pub(super) use bodies::{Bodies, BodyError, is_long};
pub(super) use connections::ConnectionHandle;
pub(super) use reply::{Body, Reply};
pub(super) use tls::acceptor as acceptor_of;

/// Answers the requests of all connections.
pub(super) trait Handler: Send + Sync + 'static {
    /// Answers one request; a failure is a reply as well. `connection` marks the connection as in
    /// use by an authenticated client.
    fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        connection: ConnectionHandle,
    ) -> impl Future<Output = Reply> + Send;
}

/// Paths of certificate and private key in PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// The number of connections, and timeouts.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections that are open at one moment.
    pub max_connections: usize,
    /// For the head of a request, and between two requests.
    pub head_timeout: Duration,
    /// For the body of a request.
    pub body_timeout: Duration,
    /// For any progress of a reply that is being sent.
    pub write_timeout: Duration,
    /// For requests in progress when the server stops.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let [head_timeout, body_timeout, write_timeout, drain_timeout] =
            [20, 20, 30, 10].map(Duration::from_secs);
        Self { max_connections: 512, head_timeout, body_timeout, write_timeout, drain_timeout }
    }
}
