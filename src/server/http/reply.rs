//! Replies, before hyper sends them.

use std::error::Error as StdError;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Frame, SizeHint};
use hyper::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};

/// A body in memory, or one that is streamed.
pub(in super::super) type Body = UnsyncBoxBody<Bytes, Box<dyn StdError + Send + Sync>>;

/// A reply to a request.
pub(in super::super) struct Reply {
    pub(in super::super) status: u16,
    pub(in super::super) content_type: String,
    pub(in super::super) headers: Vec<(&'static str, String)>,
    pub(in super::super) body: Body,
    /// The code by which the reply is counted: one of EC2, or `ok`.
    pub(in super::super) code: String,
    /// Whether the connection closes after it: an unread part of the body would be taken for the
    /// next request.
    pub(in super::super) last: bool,
}

impl Reply {
    pub(in super::super) fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let body = InMemory(body.into()).boxed_unsync();
        Self {
            status,
            content_type: content_type.to_owned(),
            headers: Vec::new(),
            body,
            code: "ok".to_owned(),
            last: false,
        }
    }

    pub(in super::super) fn xml(status: u16, request_id: &str, body: String) -> Self {
        Self::new(status, "text/xml;charset=UTF-8", body).with("x-amzn-requestid", request_id)
    }

    /// Drops `guard` when the body is sent, or when the client is gone.
    #[must_use]
    pub(in super::super) fn until_sent<T: Send + Unpin + 'static>(mut self, guard: T) -> Self {
        self.body = Guarded { body: self.body, _guard: guard }.boxed_unsync();
        self
    }

    #[must_use]
    pub(in super::super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The response for hyper. It forbids caches, and browsers that guess content types.
    pub(super) fn response(self) -> Response<Body> {
        let mut response = Response::new(self.body);
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_GATEWAY);
        let headers = response.headers_mut();
        if let Ok(value) = HeaderValue::try_from(self.content_type) {
            headers.insert(CONTENT_TYPE, value);
        }
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if self.last {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        response
    }
}

/// The length of the frames of a body in memory. hyper takes frames whole, and counts them as sent.
const PIECE_BYTES: usize = 16 << 10;

/// A body in memory.
struct InMemory(Bytes);

impl hyper::body::Body for InMemory {
    type Data = Bytes;
    type Error = Box<dyn StdError + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let length = self.0.len().min(PIECE_BYTES);
        let piece = (length > 0).then(|| self.0.split_to(length));
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}

/// A body, and a guard that is dropped with it.
struct Guarded<T> {
    body: Body,
    _guard: T,
}

impl<T: Unpin> hyper::body::Body for Guarded<T> {
    type Data = Bytes;
    type Error = Box<dyn StdError + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
