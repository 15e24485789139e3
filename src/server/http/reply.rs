//! Answers, before hyper has them.

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

/// A body that is at hand, or comes piece by piece.
pub(in super::super) type Body = UnsyncBoxBody<Bytes, Box<dyn StdError + Send + Sync>>;

/// An answer.
pub(in super::super) struct Reply {
    pub(in super::super) status: u16,
    pub(in super::super) content_type: String,
    pub(in super::super) headers: Vec<(&'static str, String)>,
    pub(in super::super) body: Body,
    /// What is counted: a code of EC2, or `ok`.
    pub(in super::super) code: String,
    /// Whether the connection ends: what was not read of the request cannot be told from the next
    /// one.
    pub(in super::super) last: bool,
}

impl Reply {
    pub(in super::super) fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let body = AtHand(body.into()).boxed_unsync();
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

    /// Keeps something until the body is sent, or whoever takes it is gone.
    #[must_use]
    pub(in super::super) fn until_sent<T: Send + Unpin + 'static>(mut self, kept: T) -> Self {
        self.body = Keeping { body: self.body, _kept: kept }.boxed_unsync();
        self
    }

    #[must_use]
    pub(in super::super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// As hyper sends it. Nothing of it is kept by caches, and no browser guesses what it is.
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

/// Pieces of a body that is at hand. What hyper has taken it counts as sent, and of a piece it
/// takes all.
const PIECE_BYTES: usize = 16 << 10;

/// A body that is at hand.
struct AtHand(Bytes);

impl hyper::body::Body for AtHand {
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

/// A body, and what is kept as long as it is there.
struct Keeping<T> {
    body: Body,
    _kept: T,
}

impl<T: Unpin> hyper::body::Body for Keeping<T> {
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
