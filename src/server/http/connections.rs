//! A limit on open connections: a new connection evicts an idle one.
//!
//! Timeouts alone do not suffice: one client that opens connections and sends nothing would fill
//! the limit and keep all others out for the length of the timeout, again and again.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// All open connections.
pub(super) struct Connections {
    limit: usize,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// A logical clock: it advances with each new connection, request and reply.
    now: u64,
    entries: HashMap<u64, Entry>,
}

struct Entry {
    peer: Peer,
    /// Whether an authenticated request has arrived on it.
    is_known: bool,
    /// The logical time since which it is idle; `None` during an authenticated request.
    idle_since: Option<u64>,
    evict: Arc<Notify>,
}

/// The client of a connection: an IPv4 address, or the /64 network of an IPv6 address, which one
/// site has.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Peer([u8; 8]);

impl Peer {
    pub(super) fn of(address: IpAddr) -> Self {
        let bytes = match address.to_canonical() {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets().split_at(8).1.to_vec(),
            IpAddr::V6(address) => address.octets().split_at(8).0.to_vec(),
        };
        Self(bytes.try_into().unwrap_or_default())
    }
}

/// An open connection; it is closed when it is dropped.
pub(super) struct Connection {
    connections: Arc<Connections>,
    number: u64,
    peer: Peer,
    evict: Arc<Notify>,
}

/// Begins requests on a connection.
#[derive(Clone)]
pub(in super::super) struct ConnectionHandle {
    connections: Arc<Connections>,
    number: u64,
    peer: Peer,
}

/// An authenticated request in progress: it protects its connection from eviction.
pub(in super::super) struct RequestGuard(ConnectionHandle);

impl Connections {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit: limit.max(1), table: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection. At the limit an idle connection is evicted; `None` if all connections
    /// have a request in progress.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Connection> {
        let mut table = self.lock();
        if table.entries.len() >= self.limit {
            let number = table.to_evict()?;
            table.entries.remove(&number)?.evict.notify_one();
        }
        let evict = Arc::new(Notify::new());
        table.now += 1;
        let number = table.now;
        let (peer, idle_since) = (Peer::of(address), Some(number));
        let entry = Entry { peer, is_known: false, idle_since, evict: evict.clone() };
        table.entries.insert(number, entry);
        Some(Connection { connections: self.clone(), number, peer, evict })
    }
}

impl Table {
    /// The connection to evict: connections without an authenticated request come first, of those
    /// the peer with the most connections, of its connections the longest idle one.
    fn to_evict(&self) -> Option<u64> {
        let idle = || {
            self.entries
                .iter()
                .filter_map(|(number, entry)| Some((entry, entry.idle_since?, *number)))
        };
        let mut counts: HashMap<(bool, Peer), usize> = HashMap::new();
        idle()
            .for_each(|(entry, ..)| *counts.entry((entry.is_known, entry.peer)).or_default() += 1);
        let first = idle().max_by_key(|(entry, since, _)| {
            (!entry.is_known, counts[&(entry.is_known, entry.peer)], Reverse(*since))
        });
        first.map(|(.., number)| number)
    }
}

impl Connection {
    /// Returns when the connection is evicted.
    pub(super) async fn evicted(&self) {
        self.evict.notified().await;
    }

    pub(super) fn handle(&self) -> ConnectionHandle {
        let connections = self.connections.clone();
        ConnectionHandle { connections, number: self.number, peer: self.peer }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.connections.lock().entries.remove(&self.number);
    }
}

impl ConnectionHandle {
    /// Begins an authenticated request, which ends when the guard is dropped.
    pub(in super::super) fn begin_request(&self) -> RequestGuard {
        self.set(|_| None);
        RequestGuard(self.clone())
    }

    /// Tells whether an authenticated request has arrived on the connection.
    pub(in super::super) fn is_known(&self) -> bool {
        self.connections.lock().entries.get(&self.number).is_some_and(|entry| entry.is_known)
    }

    /// The client of the connection.
    pub(super) fn peer(&self) -> Peer {
        self.peer
    }

    /// Does nothing for a request that outlives its connection.
    fn set(&self, idle_since: impl FnOnce(u64) -> Option<u64>) {
        let mut table = self.connections.lock();
        table.now += 1;
        let now = table.now;
        if let Some(entry) = table.entries.get_mut(&self.number) {
            entry.idle_since = idle_since(now);
            entry.is_known = true;
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

    async fn is_evicted(connection: &Connection) -> bool {
        tokio::time::timeout(Duration::from_millis(1), connection.evicted()).await.is_ok()
    }

    fn from(address: &str) -> IpAddr {
        address.parse().expect("an address")
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_connection_is_evicted_and_none_with_a_request() {
        let connections = Connections::new(3);
        let take = || connections.take(from("10.0.0.1"));
        let [one, two, three] =
            [take(), take(), take()].map(|connection| connection.expect("a connection"));
        // The first one has a request in progress, the second one had one.
        let first = one.handle().begin_request();
        drop(two.handle().begin_request());
        let four = take().expect("the third one never had a request");
        assert!(is_evicted(&three).await && !is_evicted(&one).await && !is_evicted(&two).await);
        // A request that outlives its connection takes no entry.
        drop(three.handle().begin_request());
        let others = [two.handle().begin_request(), four.handle().begin_request()];
        assert!(take().is_none(), "all have requests in progress");
        drop((two, three, four));
        assert!(!is_evicted(&one).await);
        assert_eq!(connections.lock().entries.len(), 1);
        drop(one);
        assert!(connections.lock().entries.is_empty());
        drop((first, others));
        assert!(connections.lock().entries.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_peer_with_the_most_connections_is_evicted_first() {
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
            !is_evicted(&quiet).await && !is_evicted(&other).await && !is_evicted(&known).await
        );
        let mut evicted = 0;
        for connection in &greedy {
            evicted += usize::from(is_evicted(connection).await);
        }
        assert_eq!(evicted, 18);
    }
}
