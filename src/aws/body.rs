//! The body of an upload: reports the bytes that were sent, and obeys the bandwidth limit.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use aws_sdk_s3::primitives::SdkBody;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::BandwidthLimit;
use crate::base::{Event, Observer};

/// Bytes of a piece without a bandwidth limit.
const PIECE: usize = 256 << 10;

/// The time at which a request last sent or received a byte, for its idle timeout.
#[derive(Clone, Debug)]
pub(super) struct Progress(Arc<(Instant, AtomicU64)>);

impl Progress {
    pub(super) fn new() -> Self {
        Self(Arc::new((Instant::now(), AtomicU64::new(0))))
    }

    /// Records that a byte was sent or received, or will be at `at`.
    pub(super) fn moved(&self, at: Instant) {
        self.0.1.fetch_max(
            at.saturating_duration_since(self.0.0).as_millis() as u64,
            Ordering::Relaxed,
        );
    }

    /// The time since a byte was last sent or received.
    pub(super) fn idle(&self) -> Duration {
        self.0.0.elapsed().saturating_sub(Duration::from_millis(self.0.1.load(Ordering::Relaxed)))
    }
}

/// The bytes of an upload.
pub(super) struct MeteredBody {
    data: Bytes,
    bandwidth: Option<BandwidthLimit>,
    progress: Progress,
    observer: Arc<dyn Observer>,
    /// Until the next piece may be sent.
    pause: Option<Pin<Box<Sleep>>>,
}

impl MeteredBody {
    pub(super) fn sdk_body(
        data: Bytes,
        bandwidth: Option<BandwidthLimit>,
        progress: Progress,
        observer: Arc<dyn Observer>,
    ) -> SdkBody {
        SdkBody::from_body_1_x(Self { data, bandwidth, progress, observer, pause: None })
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
        if let Some(limit) = self.bandwidth.clone() {
            piece = limit.piece().min(self.data.len());
            if self.pause.is_none() {
                let at = limit.admit(piece as u64);
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
