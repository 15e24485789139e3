//! HTTP/1.1 and TLS: connections, their limits, and their end.
//!
//! A client that is slow, silent or greedy costs one connection and no thread. Every question to
//! the service is put on a thread of its own kind, so that waiting for AWS
//! never holds up whoever only asks how far a task is. It does not know what requests mean: that is
//! [`super::front`].

mod connections;
mod reply;
mod timeouts;
mod tls;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use super::router::Router;
use super::{AccessKeys, Service, Upstream};
use crate::base::{Error, Result};
pub(super) use connections::ConnectionHandle;
use connections::{Connection, Connections};
pub(super) use reply::{Body, Reply};
use timeouts::WriteTimeout;

/// The longest head of a request. S3 and EC2 allow 8 KiB of headers.
const MAX_HEAD_BYTES: usize = 32 << 10;
/// The most headers. An SDK sends about 12.
const MAX_HEADERS: usize = 64;
/// Threads that read and write connections: they only parse.
const WORKERS: usize = 2;
/// Threads that questions to the service wait on; more than `front` admits at a time.
pub(super) const BLOCKING_THREADS: usize = 64;
/// Clients at a time that are told why they are turned away; over TLS that takes a handshake.
const MAX_REJECTIONS: usize = 32;
/// What a client hears for whom there is no connection left.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/xml;charset=UTF-8\r\ncontent-length: 163\r\nconnection: close\r\nretry-after: 1\r\n\r\n\
<Response><Errors><Error><Code>RequestLimitExceeded</Code><Message>too many connections: try again</Message></Error></Errors><RequestID>none</RequestID></Response>";

/// Where certificate and key are, in PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// How long clients may take, and how many there may be.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// For the head of a request, and between two requests.
    pub head: Duration,
    /// For the body of a request.
    pub body: Duration,
    /// For any progress of an answer that is being sent.
    pub answer: Duration,
    /// For requests under way when the server stops.
    pub stop: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let [head, body, answer, stop] = [20, 20, 30, 10].map(Duration::from_secs);
        Self { connections: 512, head, body, answer, stop }
    }
}

/// How the endpoint is to be.
#[derive(Clone)]
pub struct HttpSettings {
    /// Where to listen; port 0 takes any.
    pub listen: SocketAddr,
    /// TLS, if it is spoken.
    pub tls: Option<TlsFiles>,
    /// Whose signatures are believed. Without any, requests are not looked at for one, which only a
    /// loopback address may do.
    pub keys: Option<AccessKeys>,
    /// The Region that signatures have to name.
    pub region: String,
    /// Who answers other actions.
    pub upstream: Option<Arc<dyn Upstream>>,
    /// The password of the status page, and of what monitoring reads.
    pub status_password: Option<String>,
    /// Limits.
    pub limits: Limits,
}

impl Default for HttpSettings {
    /// This machine alone, on any port, without keys.
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

/// The endpoint. It stops when it is dropped.
pub struct HttpServer {
    address: SocketAddr,
    secure: bool,
    stop: watch::Sender<bool>,
    drain_timeout: Duration,
    runtime: Option<tokio::runtime::Runtime>,
    accepting: Option<tokio::task::JoinHandle<()>>,
    /// Kept to the end: what is behind it has threads of its own, which must not be waited for on
    /// those of the server.
    _router: Arc<Router>,
}

impl HttpServer {
    /// Listens, and answers with what `service` says.
    pub fn start(settings: HttpSettings, service: Arc<dyn Service>) -> Result<Self> {
        check_exposure(&settings)?;
        let tls = settings
            .tls
            .as_ref()
            .map(|files| tls::acceptor(&files.certificate, &files.key))
            .transpose()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_name("amistore-http")
            .enable_all()
            .build()
            .map_err(|cause| Error::io("cannot start the threads of the server", cause))?;
        let (listen, limits, secure) = (settings.listen, settings.limits.clone(), tls.is_some());
        let listener = runtime.block_on(TcpListener::bind(listen)).map_err(|cause| {
            Error::io("cannot listen: choose another --listen", cause).at("address", listen)
        })?;
        let address = listener
            .local_addr()
            .map_err(|cause| Error::io("cannot listen", cause).at("address", listen))?;
        let (stop, stopping) = watch::channel(false);
        let drain_timeout = limits.stop;
        let router = Arc::new(Router::new(settings, address, service));
        let connections = Connections::new(limits.connections);
        let acceptor = Acceptor {
            router: router.clone(),
            tls,
            connections,
            rejected: Semaphore::new(MAX_REJECTIONS),
            limits,
            stopping,
        };
        let accepting = Some(runtime.spawn(Arc::new(acceptor).accept(listener)));
        Ok(Self {
            address,
            secure,
            stop,
            drain_timeout,
            runtime: Some(runtime),
            accepting,
            _router: router,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What clients are told: `http://127.0.0.1:8673`.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.secure { "https" } else { "http" }, self.address)
    }

    /// Takes no more connections, lets requests under way finish for a while, and ends.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // Nobody listens if all is over already.
        let _ = self.stop.send(true);
        let deadline = Instant::now() + self.drain_timeout;
        if let (Some(runtime), Some(accepting)) = (self.runtime.take(), self.accepting.take()) {
            let drain_timeout = self.drain_timeout;
            // Whoever is not done by then is not waited for.
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

/// Refuses settings that would let others in by accident: an address that they can reach takes keys
/// and TLS.
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

/// What all connections share.
struct Acceptor {
    router: Arc<Router>,
    tls: Option<TlsAcceptor>,
    connections: Arc<Connections>,
    rejected: Semaphore,
    limits: Limits,
    stopping: watch::Receiver<bool>,
}

impl Acceptor {
    /// Takes connections until the server stops, and then waits for those that are open.
    async fn accept(self: Arc<Self>, listener: TcpListener) {
        let mut stopping = self.stopping.clone();
        loop {
            let accepted = tokio::select! {
                biased;
                () = stopped(&mut stopping) => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => drop(tokio::spawn(self.clone().open(stream, peer.ip()))),
                // Too many open files, mostly: the next moment may be better.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        drop(listener);
        self.connections.all_closed().await;
    }

    /// A connection from its beginning to its end.
    async fn open(self: Arc<Self>, stream: TcpStream, peer: IpAddr) {
        // What is written is written whole: waiting for more only delays it.
        let _ = stream.set_nodelay(true);
        let Some(connection) = self.connections.take(peer) else {
            self.router.metrics().rejected();
            return self.reject(stream).await;
        };
        tokio::select! {
            biased;
            () = connection.evicted() => self.router.metrics().evicted(),
            () = self.serve(stream, &connection) => {}
        }
    }

    async fn serve(&self, stream: TcpStream, connection: &Connection) {
        match &self.tls {
            None => {
                self.answer(WriteTimeout::new(stream, self.limits.answer), connection.handle())
                    .await
            }
            // One that does not finish its greeting is let go.
            Some(tls) => {
                let mut stopping = self.stopping.clone();
                let greeted = tokio::select! {
                    greeted = tokio::time::timeout(self.limits.head, tls.accept(stream)) => greeted,
                    () = stopped(&mut stopping) => return,
                };
                if let Ok(Ok(stream)) = greeted {
                    self.answer(WriteTimeout::new(stream, self.limits.answer), connection.handle())
                        .await;
                }
            }
        }
    }

    async fn answer<S>(&self, stream: S, handle: ConnectionHandle)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let _opened = self.router.opened();
        let router = self.router.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (router, handle) = (router.clone(), handle.clone());
            async move {
                Ok::<Response<Body>, Infallible>(router.answer(request, handle).await.response())
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let mut stopping = self.stopping.clone();
        tokio::select! {
            // A connection that breaks is the affair of whoever broke it.
            _ = connection.as_mut() => {}
            () = stopped(&mut stopping) => {
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            }
        }
    }

    /// Says why, to whoever listens within a second. Of many at a time only some are told.
    async fn reject(&self, stream: TcpStream) {
        let Ok(_told) = self.rejected.try_acquire() else { return };
        let say = async {
            match &self.tls {
                None => say_full(stream).await,
                Some(tls) => say_full(tls.accept(stream).await?).await,
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), say).await;
    }
}

async fn say_full<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> io::Result<()> {
    stream.write_all(FULL).await?;
    stream.shutdown().await?;
    // What is not read when the connection closes takes back what was said.
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map(drop)
}

/// Returns when the server stops.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error means that the server is gone.
    let _ = stopping.wait_for(|stop| *stop).await;
}
