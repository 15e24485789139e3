//! Reads the bodies of requests: a limit on their length, a timeout, and a limit on long bodies.
//!
//! A signature covers the body, so most callers are unknown until their body has arrived. Callers
//! that proved a key before have permits of their own. Of the others a new one evicts a slow one:
//! no number of slow strangers keeps a caller with a key out.

use std::cmp::Reverse;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use tokio::sync::{Notify, Semaphore};

use super::connections::{ConnectionHandle, Peer};

/// The longest body that is read without a permit.
const SHORT_BYTES: u64 = 64 << 10;
/// Long bodies of callers that proved a key, at one moment.
const PROVED: usize = 32;
/// Long bodies of other callers, at one moment.
const UNPROVED: usize = 32;

/// The reason why a body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum BodyError {
    /// It is longer than the limit.
    TooLong,
    /// It did not arrive in time.
    TimedOut,
    /// Its connection ended.
    Incomplete,
    /// The body of another caller needed its permit.
    Evicted,
}

/// Tells whether a body needs a permit. A chunked body does not state its length.
pub(in super::super) fn is_long(body: &Incoming) -> bool {
    body.size_hint().upper().is_none_or(|length| length > SHORT_BYTES)
}

/// Reads bodies of all connections.
pub(in super::super) struct Bodies {
    max_bytes: usize,
    timeout: Duration,
    proved: Semaphore,
    unproved: Arc<Unproved>,
}

impl Bodies {
    pub(in super::super) fn new(max_bytes: usize, timeout: Duration) -> Self {
        let proved = Semaphore::new(PROVED);
        Self { max_bytes, timeout, proved, unproved: Arc::default() }
    }

    /// Reads a body. `is_proved` tells whether the caller proved a key already.
    pub(in super::super) async fn read(
        &self,
        body: Incoming,
        connection: &ConnectionHandle,
        is_proved: bool,
    ) -> Result<Bytes, BodyError> {
        if body.size_hint().lower() > self.max_bytes as u64 {
            return Err(BodyError::TooLong);
        }
        if !is_long(&body) {
            return self.collect(body).await;
        }
        if is_proved && let Ok(_permit) = self.proved.try_acquire() {
            return self.collect(body).await;
        }
        let form = self.unproved.take(connection.peer());
        tokio::select! {
            biased;
            () = form.evict.notified() => Err(BodyError::Evicted),
            read = self.collect(body) => read,
        }
    }

    async fn collect(&self, body: Incoming) -> Result<Bytes, BodyError> {
        let whole = Limited::new(body, self.max_bytes).collect();
        match tokio::time::timeout(self.timeout, whole).await {
            Err(_) => Err(BodyError::TimedOut),
            Ok(Ok(whole)) => Ok(whole.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(BodyError::TooLong),
            Ok(Err(_)) => Err(BodyError::Incomplete),
        }
    }
}

/// The long bodies of callers that did not prove a key, in the order of their beginning.
#[derive(Default)]
struct Unproved(Mutex<Vec<(Peer, Arc<Notify>)>>);

/// A long body that is being read, until it is dropped.
struct UnprovedBody {
    all: Arc<Unproved>,
    evict: Arc<Notify>,
}

impl Unproved {
    fn lock(&self) -> MutexGuard<'_, Vec<(Peer, Arc<Notify>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a body. At the limit the oldest body of the peer with the most bodies is evicted.
    fn take(self: &Arc<Self>, peer: Peer) -> UnprovedBody {
        let mut bodies = self.lock();
        if bodies.len() >= UNPROVED {
            let of_peer = |peer: Peer| bodies.iter().filter(|(other, _)| *other == peer).count();
            let greediest = bodies
                .iter()
                .enumerate()
                .max_by_key(|(at, (peer, _))| (of_peer(*peer), Reverse(*at)))
                .map(|(at, _)| at);
            if let Some(at) = greediest {
                bodies.remove(at).1.notify_one();
            }
        }
        let evict = Arc::new(Notify::new());
        bodies.push((peer, evict.clone()));
        UnprovedBody { all: self.clone(), evict }
    }
}

impl Drop for UnprovedBody {
    fn drop(&mut self) {
        self.all.lock().retain(|(_, evict)| !Arc::ptr_eq(evict, &self.evict));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_evicted(body: &UnprovedBody) -> bool {
        !body.all.lock().iter().any(|(_, evict)| Arc::ptr_eq(evict, &body.evict))
    }

    #[test]
    fn the_oldest_body_of_the_peer_with_the_most_bodies_is_evicted() {
        let unproved = Arc::<Unproved>::default();
        let peer = |address: &str| Peer::of(address.parse().expect("an address"));
        let quiet = unproved.take(peer("10.0.0.1"));
        let greedy: Vec<_> = (0..UNPROVED).map(|_| unproved.take(peer("10.0.0.2"))).collect();
        let late = unproved.take(peer("10.0.0.3"));
        assert!(!is_evicted(&quiet) && !is_evicted(&late));
        let evicted: Vec<bool> = greedy.iter().map(is_evicted).collect();
        assert_eq!((evicted[..2].to_vec(), evicted[2..].contains(&true)), (vec![true; 2], false));
        drop((quiet, greedy, late));
        assert!(unproved.lock().is_empty(), "a body that was read is no longer counted");
    }
}
