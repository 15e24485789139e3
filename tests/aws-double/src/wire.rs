//! HTTP servers of the tests: listener, connections, and how they end. A handler makes the answers.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;
use tokio::time::Sleep;

/// Bytes that are given to a connection at a time, so that the count is close to the bytes sent.
const PIECE: usize = 256 << 10;

/// The connection of a request, and the means to end it.
#[derive(Clone)]
pub struct Connection {
    /// Connections are numbered from 1.
    pub number: u64,
    reset: Arc<AtomicBool>,
}

impl Connection {
    /// The error that ends the connection with a reset.
    pub fn cut(&self) -> io::Error {
        self.reset.store(true, Ordering::SeqCst);
        io::Error::other("the connection is to be reset")
    }
}

/// A command for the server's thread. The sender is dropped after the command was carried out.
enum Command {
    Accept(bool, Sender<()>),
    Stop,
}

/// A server on a port of this machine. It stops, with all of its connections and threads, when it
/// is dropped.
pub struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    commands: UnboundedSender<Command>,
    thread: Option<JoinHandle<()>>,
    /// Keeps the port.
    _reserved: TcpSocket,
}

impl Server {
    /// Starts a thread with a runtime, on which `handler` answers requests.
    pub fn start<H, F>(name: &'static str, handler: H) -> Self
    where
        H: Fn(Connection, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = io::Result<Response<Answer>>> + Send + 'static,
    {
        let (commands, receiver) = tokio::sync::mpsc::unbounded_channel();
        let (ready, started) = mpsc::channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let serve = move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .thread_name(name)
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(async {
                let (reserved, address) = reserve();
                let listener = listen(address);
                ready.send((reserved, address)).expect("the test waits");
                serve(counter, handler, address, listener, receiver).await;
            });
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(serve).expect("a thread");
        let (reserved, address) = started.recv().expect("the server starts");
        Self { address, connections, commands, thread: Some(thread), _reserved: reserved }
    }

    /// The endpoint: `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The network fails: connections end, and new ones are refused.
    pub fn stop_accepting(&self) {
        self.accept(false);
    }

    /// The network works again.
    pub fn resume(&self) {
        self.accept(true);
    }

    /// Opens or closes the listener. To close it ends all connections.
    fn accept(&self, accept: bool) {
        let (done, finished) = mpsc::channel();
        self.commands.send(Command::Accept(accept, done)).expect("the server runs");
        // The thread drops the sender at the end.
        assert!(finished.recv().is_err());
    }

    pub fn open_connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone_already = self.commands.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the server panicked");
        }
    }
}

/// A socket that is bound and does not listen: it reserves the port while the listener is closed
/// and connections are refused.
fn reserve() -> (TcpSocket, SocketAddr) {
    let socket = bound(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let address = socket.local_addr().expect("a bound socket has an address");
    (socket, address)
}

fn bound(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("an option");
    socket.bind(address).expect("an address of our own");
    socket
}

fn listen(address: SocketAddr) -> TcpListener {
    bound(address).listen(1024).expect("listens")
}

/// Serves until `Stop`. Connections end with it.
async fn serve<H, F>(
    open: Arc<AtomicUsize>,
    handler: H,
    address: SocketAddr,
    listener: TcpListener,
    mut commands: UnboundedReceiver<Command>,
) where
    H: Fn(Connection, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = io::Result<Response<Answer>>> + Send + 'static,
{
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    let mut number = 0;
    loop {
        tokio::select! {
            stream = accept(listener.as_ref()) => {
                number += 1;
                connections.spawn(connection(Arc::clone(&open), number, handler.clone(), stream));
            }
            Some(_) = connections.join_next() => {}
            command = commands.recv() => match command {
                Some(Command::Accept(true, done)) => {
                    listener.get_or_insert_with(|| listen(address));
                    drop(done);
                }
                Some(Command::Accept(false, done)) => {
                    listener = None;
                    connections.shutdown().await;
                    drop(done);
                }
                Some(Command::Stop) | None => return,
            },
        }
    }
}

/// The next connection; pending while the listener is closed.
async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    let Some(listener) = listener else { return std::future::pending().await };
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            return stream;
        }
        // Out of file descriptors: other connections have to end first.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn connection<H, F>(open: Arc<AtomicUsize>, number: u64, handler: H, stream: TcpStream)
where
    H: Fn(Connection, Request<Incoming>) -> F,
    F: Future<Output = io::Result<Response<Answer>>>,
{
    let _gone_already = stream.set_nodelay(true);
    open.fetch_add(1, Ordering::SeqCst);
    let reset = Arc::new(AtomicBool::new(false));
    let connection = Connection { number, reset: Arc::clone(&reset) };
    let socket = Socket { stream, reset, open };
    let answer = service_fn(move |request| handler(connection.clone(), request));
    // An error is a client that disconnected, or an injected fault.
    let _ended = http1::Builder::new().serve_connection(TokioIo::new(socket), answer).await;
}

/// A connection that can end with a reset.
struct Socket {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
    open: Arc<AtomicUsize>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.reset.load(Ordering::SeqCst) {
            let _gone_already = self.stream.set_zero_linger();
        }
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The body of an answer; a fault may break it off.
pub struct Answer {
    pieces: VecDeque<Bytes>,
    /// Bytes left of the announced length, and bytes left to send.
    announced: usize,
    left: usize,
    end: Option<End>,
    count: Box<dyn Fn(usize) + Send + Sync>,
}

/// The end of a broken answer: how long the connection stays open.
struct End {
    open_for: Duration,
    open: Option<Pin<Box<Sleep>>>,
}

impl Answer {
    /// Calls `count` with the bytes of every piece that is sent.
    pub fn new(
        pieces: impl IntoIterator<Item = Bytes>,
        count: impl Fn(usize) + Send + Sync + 'static,
    ) -> Self {
        let pieces: VecDeque<Bytes> =
            pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
        let len = pieces.iter().map(Bytes::len).sum();
        Self { pieces, announced: len, left: len, end: None, count: Box::new(count) }
    }

    /// Sends only half of the body.
    pub fn broken(mut self, open_for: Duration) -> Self {
        self.left /= 2;
        self.end = Some(End { open_for, open: None });
        self
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let left = self.left;
        if let Some(piece) = self.pieces.front_mut().filter(|_| left > 0) {
            let sent = piece.split_to(piece.len().min(left).min(PIECE));
            if piece.is_empty() {
                self.pieces.pop_front();
            }
            self.left -= sent.len();
            self.announced -= sent.len();
            (self.count)(sent.len());
            return Poll::Ready(Some(Ok(Frame::data(sent))));
        }
        let Some(end) = &mut self.end else { return Poll::Ready(None) };
        let open = end.open.get_or_insert_with(|| Box::pin(tokio::time::sleep(end.open_for)));
        open.as_mut()
            .poll(context)
            .map(|()| Some(Err(io::Error::other("the answer is to break off"))))
    }

    fn is_end_stream(&self) -> bool {
        self.end.is_none() && self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.announced as u64)
    }
}

/// Text of a URL, with `%41` for `A`.
pub fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail
            .get(..2)
            .and_then(|code| std::str::from_utf8(code).ok())
            .and_then(|code| u8::from_str_radix(code, 16).ok());
        let (byte, after) =
            code.filter(|_| *first == b'%').map_or((*first, tail), |code| (code, &tail[2..]));
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
