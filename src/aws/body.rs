//! The body of an upload: counted as it goes, and no faster than is allowed.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use aws_sdk_s3::primitives::SdkBody;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::Pace;
use crate::base::{Event, Observer};

/// Handed to the connection at once when nothing limits the rate.
const PIECE: usize = 256 << 10;

/// When something last moved, for whoever watches for stalls.
#[derive(Clone, Debug)]
pub(super) struct Progress(Arc<(Instant, AtomicU64)>);

impl Progress {
    pub(super) fn new() -> Self {
        Self(Arc::new((Instant::now(), AtomicU64::new(0))))
    }

    /// Something moved, or will at `at`.
    pub(super) fn moved(&self, at: Instant) {
        self.0.1.fetch_max(
            at.saturating_duration_since(self.0.0).as_millis() as u64,
            Ordering::Relaxed,
        );
    }

    /// How long nothing has moved.
    pub(super) fn silence(&self) -> Duration {
        self.0.0.elapsed().saturating_sub(Duration::from_millis(self.0.1.load(Ordering::Relaxed)))
    }
}

/// Bytes on their way up.
pub(super) struct MeteredBody {
    data: Bytes,
    pace: Option<Pace>,
    progress: Progress,
    observer: Arc<dyn Observer>,
    /// The next piece may not go earlier.
    pause: Option<Pin<Box<Sleep>>>,
}

impl MeteredBody {
    pub(super) fn sdk_body(
        data: Bytes,
        pace: Option<Pace>,
        progress: Progress,
        observer: Arc<dyn Observer>,
    ) -> SdkBody {
        SdkBody::from_body_1_x(Self { data, pace, progress, observer, pause: None })
    }
}

impl Body for MeteredBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.data.is_empty() {
            return Poll::Ready(None);
        }
        let mut piece = PIECE.min(self.data.len());
        if let Some(pace) = self.pace.clone() {
            piece = pace.piece().min(self.data.len());
            if self.pause.is_none() {
                let at = pace.admit(piece as u64);
                self.progress.moved(at);
                self.pause = Some(Box::pin(sleep_until(at)));
            }
            if let Some(pause) = &mut self.pause {
                std::task::ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
        }
        self.progress.moved(Instant::now());
        self.observer.note(&Event::Sent { bytes: piece as u64 });
        Poll::Ready(Some(Ok(Frame::data(self.data.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.len() as u64)
    }
}

use std::future::Future as _;
