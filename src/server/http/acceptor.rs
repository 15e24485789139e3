//! Accepts connections, serves them, and rejects those above the limit.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use super::super::metrics::Metrics;
use super::connections::{Connection, Connections};
use super::timeouts::WriteTimeout;
use super::{Body, Handler, Limits};

/// The longest head of a request. S3 and EC2 allow 8 KiB of headers.
const MAX_HEAD_BYTES: usize = 32 << 10;
/// The most headers. An SDK sends about 12.
const MAX_HEADERS: usize = 64;
/// Rejections with a reply at one moment; over TLS each takes a handshake.
const MAX_REJECTIONS: usize = 32;
/// The time for a rejection with a reply.
const REJECTION_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause after `accept` failed, mostly because too many files are open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The reply to a connection above the limit.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
content-type: text/xml;charset=UTF-8\r\n\
content-length: 163\r\n\
connection: close\r\n\
retry-after: 1\r\n\
\r\n\
<Response><Errors><Error><Code>RequestLimitExceeded</Code>\
<Message>too many connections: try again</Message></Error></Errors>\
<RequestID>none</RequestID></Response>";

/// State that all connections share.
pub(in super::super) struct Acceptor<H> {
    handler: Arc<H>,
    metrics: Arc<Metrics>,
    tls: Option<TlsAcceptor>,
    connections: Arc<Connections>,
    rejections: Semaphore,
    limits: Limits,
    stopping: watch::Receiver<bool>,
}

impl<H: Handler> Acceptor<H> {
    /// `stopping` turns true when the server stops.
    pub(in super::super) fn new(
        handler: Arc<H>,
        metrics: Arc<Metrics>,
        tls: Option<TlsAcceptor>,
        limits: Limits,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let connections = Connections::new(limits.max_connections);
        let rejections = Semaphore::new(MAX_REJECTIONS);
        Self { handler, metrics, tls, connections, rejections, limits, stopping }
    }

    /// Accepts connections until the server stops, then waits for the end of open connections.
    pub(in super::super) async fn accept(self: Arc<Self>, listener: TcpListener) {
        let graceful = GracefulShutdown::new();
        let mut stopping = self.stopping.clone();
        loop {
            let accepted = tokio::select! {
                biased;
                () = stopped(&mut stopping) => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let watcher = graceful.watcher();
                    drop(tokio::spawn(self.clone().open(stream, peer.ip(), watcher)));
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
        drop(listener);
        graceful.shutdown().await;
    }

    /// A connection from its beginning to its end.
    async fn open(self: Arc<Self>, stream: TcpStream, peer: IpAddr, watcher: Watcher) {
        // Replies are written whole: Nagle's algorithm only delays them.
        let _ = stream.set_nodelay(true);
        let Some(connection) = self.connections.take(peer) else {
            drop(watcher);
            self.metrics.rejected();
            return self.reject(stream).await;
        };
        tokio::select! {
            biased;
            () = connection.evicted() => self.metrics.evicted(),
            () = self.serve(stream, &connection, watcher) => {}
        }
    }

    async fn serve(&self, stream: TcpStream, connection: &Connection, watcher: Watcher) {
        match &self.tls {
            None => self.answer(stream, connection, watcher).await,
            Some(tls) => {
                let mut stopping = self.stopping.clone();
                let handshake = tokio::time::timeout(self.limits.head_timeout, tls.accept(stream));
                let stream = tokio::select! {
                    stream = handshake => stream,
                    () = stopped(&mut stopping) => return,
                };
                if let Ok(Ok(stream)) = stream {
                    self.answer(stream, connection, watcher).await;
                }
            }
        }
    }

    async fn answer<S>(&self, stream: S, connection: &Connection, watcher: Watcher)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let _open = self.metrics.clone().opened();
        let (handler, connection) = (self.handler.clone(), connection.handle());
        let service = service_fn(move |request: Request<Incoming>| {
            let (handler, connection) = (handler.clone(), connection.clone());
            async move {
                let reply = handler.answer(request, connection).await;
                Ok::<Response<Body>, Infallible>(reply.response())
            }
        });
        let stream = WriteTimeout::new(stream, self.limits.write_timeout);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head_timeout)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        // A broken connection concerns only its client.
        let _ = watcher.watch(connection).await;
    }

    /// Sends the reason to a client that reads it within a second; at most [`MAX_REJECTIONS`]
    /// clients get it at one moment.
    async fn reject(&self, stream: TcpStream) {
        let Ok(_permit) = self.rejections.try_acquire() else { return };
        let send = async {
            match &self.tls {
                None => send_full(stream).await,
                Some(tls) => send_full(tls.accept(stream).await?).await,
            }
        };
        let _ = tokio::time::timeout(REJECTION_TIMEOUT, send).await;
    }
}

async fn send_full<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> io::Result<()> {
    stream.write_all(FULL).await?;
    stream.shutdown().await?;
    // Closing a socket with unread bytes resets it, and the client loses the reply.
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map(drop)
}

/// Returns when the server stops.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error means that the server is gone.
    let _ = stopping.wait_for(|stop| *stop).await;
}
