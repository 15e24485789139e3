//! Requests of clients that are forwarded to EC2 unchanged, and EC2's answers.
//!
//! The requests run on the threads of the connection. They are not repeated: the client knows
//! whether its request may be sent again.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::sync::{mpsc, oneshot};

use super::super::error::classify;
use super::client::RawAnswer;
use super::{Ec2Client, Ec2Connection};
use crate::base::{Error, ErrorKind, Result, Retry};

/// The longest answer that is forwarded.
const MAX_BYTES: u64 = 1 << 30;
/// Pieces of an answer that wait for a slow reader.
const PIECES: usize = 4;

/// EC2's answer.
pub struct Forwarded {
    /// HTTP status.
    pub status: u16,
    /// The type of the body, if it has one.
    pub content_type: Option<String>,
    /// The id of the request.
    pub request_id: Option<String>,
    /// The body.
    pub body: ForwardedBody,
}

/// The body of an answer, piece by piece. It fails if it ends early, is idle for too long, or is
/// longer than 1 GiB.
pub struct ForwardedBody(mpsc::Receiver<Result<Bytes>>);

impl Body for ForwardedBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

impl Ec2Connection {
    /// Sends `form` once, signed with the credentials of this connection. `action` is its action. A
    /// refusal is an answer; after an error it is not known whether EC2 executed the form.
    pub async fn forward(&self, action: &str, form: Bytes) -> Result<Forwarded> {
        let (client, idle_timeout, action) =
            (self.client(), self.options().idle_timeout, action.to_owned());
        let (sender, receiver) = oneshot::channel();
        // The task ends with its answer, or when the receiver is dropped.
        self.runtime().spawn(forward(client, idle_timeout, action, form, sender));
        receiver.await.map_err(|_| Error::interrupted())?
    }
}

async fn forward(
    client: Ec2Client,
    idle_timeout: Duration,
    action: String,
    form: Bytes,
    sender: oneshot::Sender<Result<Forwarded>>,
) {
    let doing = "cannot forward the request to EC2";
    let answer = match tokio::time::timeout(idle_timeout, client.send(&action, form)).await {
        Ok(answer) => answer.map_err(|error| classify(doing, error).error),
        Err(_) => Err(idle_for(idle_timeout)),
    };
    let RawAnswer { status, content_type, request_id, mut body } = match answer {
        Ok(answer) => answer,
        Err(error) => return drop(sender.send(Err(error.at("action", action)))),
    };
    let (pieces, receiver) = mpsc::channel(PIECES);
    let mut left = MAX_BYTES;
    if sender
        .send(Ok(Forwarded { status, content_type, request_id, body: ForwardedBody(receiver) }))
        .is_err()
    {
        return;
    }
    loop {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
        let piece = match tokio::time::timeout(idle_timeout, frame).await {
            Err(_) => Err(idle_for(idle_timeout)),
            Ok(None) => return,
            Ok(Some(Err(cause))) => {
                Err(Error::new(ErrorKind::Io, "the answer of EC2 ended early").because(cause))
            }
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Err(_) => continue,
                Ok(data) => match left.checked_sub(data.len() as u64) {
                    Some(rest) => {
                        left = rest;
                        Ok(data)
                    }
                    None => Err(Error::new(ErrorKind::Limit, "the answer of EC2 is too long")
                        .at("limit", MAX_BYTES)),
                },
            },
        };
        let is_last = piece.is_err();
        if pieces.send(piece).await.is_err() || is_last {
            return;
        }
    }
}

fn idle_for(idle_timeout: Duration) -> Error {
    Error::new(ErrorKind::Io, "EC2 was idle for too long")
        .at("seconds", idle_timeout.as_secs())
        .retry_as(Retry::Transient)
}
