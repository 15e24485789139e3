//! The running endpoint: listener, threads, router and shutdown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::watch;

use super::http::{Acceptor, acceptor_of};
use super::metrics::Metrics;
use super::router::Router;
use super::{HttpSettings, Service, check_exposure};
use crate::aws::start_threads;
use crate::base::{Error, Result};

/// Threads that read and write connections: they only parse.
const WORKERS: usize = 2;
/// Threads for blocking calls to the service: more than the router admits at one moment.
const BLOCKING_THREADS: usize = 64;

/// The endpoint. It stops when it is dropped.
pub struct HttpServer {
    address: SocketAddr,
    secure: bool,
    stop: watch::Sender<bool>,
    drain_timeout: Duration,
    runtime: Option<tokio::runtime::Runtime>,
    accepting: Option<tokio::task::JoinHandle<()>>,
    /// Dropped last: the service behind the router joins threads of its own, and a thread of the
    /// runtime must not wait for those.
    _router: Arc<Router>,
}

impl HttpServer {
    /// Listens, and answers requests with `service`.
    pub fn start(settings: HttpSettings, service: Arc<dyn Service>) -> Result<Self> {
        check_exposure(&settings)?;
        let tls = settings
            .tls
            .as_ref()
            .map(|files| acceptor_of(&files.certificate, &files.key))
            .transpose()?;
        let mut threads = tokio::runtime::Builder::new_multi_thread();
        threads.max_blocking_threads(BLOCKING_THREADS).thread_name("amistore-http").enable_all();
        let message = "cannot start the threads of the server";
        let runtime = start_threads(&mut threads, WORKERS, message)?;
        let (listen, limits, secure) = (settings.listen, settings.limits.clone(), tls.is_some());
        let listener = runtime.block_on(TcpListener::bind(listen)).map_err(|cause| {
            Error::io("cannot listen: choose another --listen", cause).at("address", listen)
        })?;
        let address = listener
            .local_addr()
            .map_err(|cause| Error::io("cannot listen", cause).at("address", listen))?;
        let (stop, stopping) = watch::channel(false);
        let drain_timeout = limits.drain_timeout;
        let metrics = Arc::<Metrics>::default();
        let router = Arc::new(Router::new(settings, address, service, metrics.clone()));
        let acceptor = Acceptor::new(router.clone(), metrics, tls, limits, stopping);
        let accepting = Some(runtime.spawn(Arc::new(acceptor).accept(listener)));
        let runtime = Some(runtime);
        Ok(Self { address, secure, stop, drain_timeout, runtime, accepting, _router: router })
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The endpoint URL of clients: `http://127.0.0.1:8673`.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.secure { "https" } else { "http" }, self.address)
    }

    /// Takes no more connections, drains requests in progress for the drain timeout, and ends.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // An error means that the acceptor has ended already.
        let _ = self.stop.send(true);
        let deadline = Instant::now() + self.drain_timeout;
        if let (Some(runtime), Some(accepting)) = (self.runtime.take(), self.accepting.take()) {
            let drain_timeout = self.drain_timeout;
            // Requests that are still in progress then are dropped with the runtime.
            let _ =
                runtime.block_on(async { tokio::time::timeout(drain_timeout, accepting).await });
            runtime.shutdown_timeout(deadline.saturating_duration_since(Instant::now()));
        }
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.end();
    }
}
