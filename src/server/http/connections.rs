//! Connections, of which there are only so many: whoever does nothing makes room for whoever comes.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// All connections.
pub(super) struct Connections {
    count: usize,
    taken: Mutex<Taken>,
    /// Somebody left.
    left: Notify,
}

#[derive(Default)]
struct Taken {
    /// Counts what happens: a seat, or the end of an answer.
    now: u64,
    connections: HashMap<u64, Place>,
}

struct Place {
    peer: Peer,
    /// Whether it was ever used by somebody who may ask.
    is_known: bool,
    /// Since when nothing is done for it; `None` while a request of somebody who may ask is
    /// answered.
    idle_since: Option<u64>,
    leave: Arc<Notify>,
}

/// Whose connection it is, as far as that can be told: an address, or of IPv6 the network that one
/// site has.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Peer([u8; 8]);

impl Peer {
    fn of(address: IpAddr) -> Self {
        let bytes = match address.to_canonical() {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets().split_at(8).1.to_vec(),
            IpAddr::V6(address) => address.octets().split_at(8).0.to_vec(),
        };
        Self(bytes.try_into().unwrap_or_default())
    }
}

/// A connection, until it is dropped.
pub(super) struct Connection {
    connections: Arc<Connections>,
    number: u64,
    leave: Arc<Notify>,
}

/// What asks that its connection be left alone.
#[derive(Clone)]
pub(in super::super) struct ConnectionHandle {
    connections: Arc<Connections>,
    number: u64,
}

/// As long as this is there, the connection is left alone.
pub(in super::super) struct RequestGuard(ConnectionHandle);

impl Connections {
    pub(super) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self { count: count.max(1), taken: Mutex::default(), left: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a seat. If there is none left, somebody for whom nothing is done has to leave; `None`
    /// if all are being answered.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Connection> {
        let mut taken = self.lock();
        if taken.connections.len() >= self.count {
            let number = taken.least()?;
            taken.connections.remove(&number)?.leave.notify_one();
        }
        let leave = Arc::new(Notify::new());
        taken.now += 1;
        let number = taken.now;
        taken.connections.insert(
            number,
            Place {
                peer: Peer::of(address),
                is_known: false,
                idle_since: Some(number),
                leave: leave.clone(),
            },
        );
        Some(Connection { connections: self.clone(), number, leave })
    }

    /// Returns when nobody is there any more.
    pub(super) async fn all_closed(&self) {
        while !self.lock().connections.is_empty() {
            self.left.notified().await;
        }
    }
}

impl Taken {
    /// Who has to leave: those first who never asked what they may ask, of them one of the peer
    /// that has most, and of its connections the one that has been idle for longest.
    fn least(&self) -> Option<u64> {
        let idle = || {
            self.connections
                .iter()
                .filter_map(|(number, place)| Some((place, place.idle_since?, *number)))
        };
        let mut counts: HashMap<(bool, Peer), usize> = HashMap::new();
        idle()
            .for_each(|(place, ..)| *counts.entry((place.is_known, place.peer)).or_default() += 1);
        let first = idle().max_by_key(|(place, since, _)| {
            (!place.is_known, counts[&(place.is_known, place.peer)], Reverse(*since))
        });
        first.map(|(.., number)| number)
    }
}

impl Connection {
    /// Returns when the connection has to end.
    pub(super) async fn evicted(&self) {
        self.leave.notified().await;
    }

    pub(super) fn handle(&self) -> ConnectionHandle {
        ConnectionHandle { connections: self.connections.clone(), number: self.number }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.connections.lock().connections.remove(&self.number);
        self.connections.left.notify_one();
    }
}

impl ConnectionHandle {
    /// A request is being answered, of somebody who may ask.
    pub(in super::super) fn begin_request(&self) -> RequestGuard {
        self.set(|_| None);
        RequestGuard(self.clone())
    }

    /// What outlives its connection finds no seat.
    fn set(&self, idle_since: impl FnOnce(u64) -> Option<u64>) {
        let mut taken = self.connections.lock();
        taken.now += 1;
        let now = taken.now;
        if let Some(place) = taken.connections.get_mut(&self.number) {
            place.idle_since = idle_since(now);
            place.is_known = true;
        }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.set(Some);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn has_to_leave(connection: &Connection) -> bool {
        tokio::time::timeout(Duration::from_millis(1), connection.evicted()).await.is_ok()
    }

    fn from(address: &str) -> IpAddr {
        address.parse().expect("an address")
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_was_idle_for_longest_makes_room_and_nobody_who_is_answered() {
        let connections = Connections::new(3);
        let take = || connections.take(from("10.0.0.1"));
        let [one, two, three] =
            [take(), take(), take()].map(|connection| connection.expect("a connection"));
        // The first one is being answered, the second one was.
        let first = one.handle().begin_request();
        drop(two.handle().begin_request());
        let four = take().expect("the place of the third, who never asked");
        assert!(
            has_to_leave(&three).await && !has_to_leave(&one).await && !has_to_leave(&two).await
        );
        // What goes on without a connection takes nobody's seat.
        drop(three.handle().begin_request());
        let others = [two.handle().begin_request(), four.handle().begin_request()];
        assert!(take().is_none(), "all are being answered");
        drop((two, three, four));
        assert!(!has_to_leave(&one).await);
        assert!(
            tokio::time::timeout(Duration::from_secs(1), connections.all_closed()).await.is_err()
        );
        drop(one);
        connections.all_closed().await;
        drop((first, others));
        assert!(connections.lock().connections.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_takes_most_makes_room_for_others() {
        let connections = Connections::new(5);
        let quiet = connections.take(from("10.0.0.1")).expect("a connection");
        let known = connections.take(from("10.0.0.3")).expect("a connection");
        drop(known.handle().begin_request());
        // One site, however many addresses it has.
        let greedy: Vec<Connection> = (0..20)
            .map(|at| connections.take(from(&format!("2001:db8::{at}"))).expect("a connection"))
            .collect();
        let other = connections.take(from("10.0.0.2")).expect("a connection");
        assert!(
            !has_to_leave(&quiet).await
                && !has_to_leave(&other).await
                && !has_to_leave(&known).await
        );
        let mut gone = 0;
        for connection in &greedy {
            gone += usize::from(has_to_leave(connection).await);
        }
        assert_eq!(gone, 18);
    }
}
