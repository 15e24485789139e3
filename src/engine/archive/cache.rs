//! A cache of values that are expensive to make: bounded in bytes, and each value made by one
//! thread while the others wait for it.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::base::{Error, Result};

/// Values `V` by key `K`. A reservation `R` holds the room of a value that will probably be asked
/// for soon; it is dropped when another value needs the room.
pub(super) struct Cache<K, V, R> {
    state: Mutex<State<K, V, R>>,
    /// Signalled when a value was made, was not made, or can be evicted again.
    changed: Condvar,
    budget: u64,
}

struct State<K, V, R> {
    entries: HashMap<K, Entry<V, R>>,
    used: u64,
    /// Counts accesses: the order of eviction.
    clock: u64,
}

struct Entry<V, R> {
    weight: u64,
    last_used: u64,
    /// Guards on the value; one that is used is not evicted.
    users: usize,
    value: Value<V, R>,
}

enum Value<V, R> {
    Reserved(R),
    /// A thread makes the value, or leaves the error here.
    InFlight(Arc<OnceLock<Error>>),
    Ready(Arc<V>),
}

impl<K: Copy + Eq + Hash, V, R> Cache<K, V, R> {
    /// A cache whose entries together never weigh more than `budget` bytes.
    pub(super) fn new(budget: u64) -> Self {
        let state = State { entries: HashMap::new(), used: 0, clock: 0 };
        Self { state: Mutex::new(state), changed: Condvar::new(), budget }
    }

    /// Most bytes of all entries together.
    pub(super) fn budget(&self) -> u64 {
        self.budget
    }

    /// Bytes of all entries: values, values being made, reservations.
    pub(super) fn used(&self) -> u64 {
        self.lock().used
    }

    /// The value of `key`, made by `make` if it is not there. Of several threads that ask at once
    /// one makes it, and all get its value or its error. Waits until `weight` bytes, at most the
    /// whole budget, can be had: a thread must not hold a guard when it calls this.
    pub(super) fn get(
        &self,
        key: K,
        weight: u64,
        make: impl FnOnce() -> Result<V>,
    ) -> Result<Guard<'_, K, V, R>> {
        // Dropped behind the lock, and the reservation of this key behind `make`, which uses it.
        let mut dropped = Vec::new();
        let mut state = self.lock();
        let flight = Arc::new(OnceLock::new());
        loop {
            let clock = state.tick();
            if let Some(entry) = state.entries.get_mut(&key) {
                match &mut entry.value {
                    Value::Ready(value) => {
                        entry.users += 1;
                        entry.last_used = clock;
                        return Ok(Guard { cache: self, key, value: value.clone() });
                    }
                    Value::InFlight(other) => {
                        let other = other.clone();
                        while state.is_in_flight(key, &other) {
                            state =
                                self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                        }
                        if let Some(error) = other.get() {
                            return Err(error.clone());
                        }
                        continue;
                    }
                    reserved @ Value::Reserved(_) => {
                        dropped.push(std::mem::replace(reserved, Value::InFlight(flight.clone())));
                        break;
                    }
                }
            }
            let weight = weight.min(self.budget);
            if state.make_room(weight, self.budget, true, &mut dropped) {
                state.insert(key, weight, Value::InFlight(flight.clone()));
                break;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        let mut claim = Claim { cache: self, key, made: false };
        match make() {
            Ok(value) => {
                let value = Arc::new(value);
                let mut state = self.lock();
                if let Some(entry) = state.entries.get_mut(&key) {
                    entry.value = Value::Ready(value.clone());
                    entry.users += 1;
                }
                claim.made = true;
                drop(state);
                self.changed.notify_all();
                Ok(Guard { cache: self, key, value })
            }
            Err(error) => {
                let _ = flight.set(error.clone());
                Err(error)
            }
        }
    }

    /// Reserves the room of a value that is not there. Values are evicted for it, other
    /// reservations are not. Returns false if there is no room.
    pub(super) fn reserve(&self, key: K, weight: u64, make: impl FnOnce() -> R) -> bool {
        let mut dropped = Vec::new();
        let mut state = self.lock();
        if state.entries.contains_key(&key) {
            return true;
        }
        if !state.make_room(weight, self.budget, false, &mut dropped) {
            return false;
        }
        state.insert(key, weight, Value::Reserved(make()));
        true
    }

    fn lock(&self) -> MutexGuard<'_, State<K, V, R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Copy + Eq + Hash, V, R> State<K, V, R> {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn is_in_flight(&self, key: K, flight: &Arc<OnceLock<Error>>) -> bool {
        self.entries.get(&key).is_some_and(
            |entry| matches!(&entry.value, Value::InFlight(other) if Arc::ptr_eq(other, flight)),
        )
    }

    fn insert(&mut self, key: K, weight: u64, value: Value<V, R>) {
        let last_used = self.tick();
        self.used += weight;
        self.entries.insert(key, Entry { weight, last_used, users: 0, value });
    }

    /// Evicts until `weight` more bytes fit: values first, the least recently used before the
    /// others, then reservations if they may be `dropped`.
    fn make_room(
        &mut self,
        weight: u64,
        budget: u64,
        reservations: bool,
        dropped: &mut Vec<Value<V, R>>,
    ) -> bool {
        while self.used.saturating_add(weight) > budget {
            let oldest = |reserved: bool| {
                let candidates = self.entries.iter().filter(|(_, entry)| match entry.value {
                    Value::Reserved(_) => reserved,
                    Value::Ready(_) => !reserved && entry.users == 0,
                    Value::InFlight(_) => false,
                });
                candidates.min_by_key(|(_, entry)| entry.last_used).map(|(key, _)| *key)
            };
            let victim = oldest(false).or_else(|| reservations.then(|| oldest(true)).flatten());
            let Some(entry) = victim.and_then(|key| self.entries.remove(&key)) else {
                return false;
            };
            self.used -= entry.weight;
            dropped.push(entry.value);
        }
        true
    }
}

/// The right to make a value. Dropped without a value, also by a panic, it removes the entry and
/// wakes the threads that wait for it.
struct Claim<'a, K: Copy + Eq + Hash, V, R> {
    cache: &'a Cache<K, V, R>,
    key: K,
    made: bool,
}

impl<K: Copy + Eq + Hash, V, R> Drop for Claim<'_, K, V, R> {
    fn drop(&mut self) {
        if self.made {
            return;
        }
        let mut state = self.cache.lock();
        if let Some(entry) = state.entries.remove(&self.key) {
            state.used -= entry.weight;
        }
        drop(state);
        self.cache.changed.notify_all();
    }
}

/// A value in use: it is not evicted before this is dropped.
pub(super) struct Guard<'a, K: Copy + Eq + Hash, V, R> {
    cache: &'a Cache<K, V, R>,
    key: K,
    value: Arc<V>,
}

impl<K: Copy + Eq + Hash, V, R> Deref for Guard<'_, K, V, R> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.value
    }
}

impl<K: Copy + Eq + Hash, V, R> Drop for Guard<'_, K, V, R> {
    fn drop(&mut self) {
        let mut state = self.cache.lock();
        if let Some(entry) = state.entries.get_mut(&self.key) {
            entry.users -= 1;
            if entry.users == 0 {
                drop(state);
                self.cache.changed.notify_all();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn one_thread_makes_a_value_and_all_get_it() {
        let cache: Cache<u32, u32, ()> = Cache::new(10);
        let (made, barrier) = (AtomicUsize::new(0), Barrier::new(8));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    barrier.wait();
                    let value = cache.get(1, 5, || {
                        made.fetch_add(1, Ordering::SeqCst);
                        std::thread::sleep(std::time::Duration::from_millis(20));
                        Ok(7)
                    });
                    assert_eq!(*value.expect("made"), 7);
                });
            }
        });
        assert_eq!((made.into_inner(), cache.used()), (1, 5));
    }

    #[test]
    fn the_error_of_one_thread_is_the_error_of_all_and_is_not_cached() {
        let cache: Cache<u32, u32, ()> = Cache::new(10);
        let (made, ready) = (AtomicUsize::new(0), Barrier::new(2));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let failed = cache.get(1, 5, || {
                    ready.wait();
                    std::thread::sleep(std::time::Duration::from_millis(50));
                    made.fetch_add(1, Ordering::SeqCst);
                    Err(Error::corrupt("broken"))
                });
                assert_eq!(failed.err().expect("fails").message(), "broken");
            });
            ready.wait();
            let failed = cache.get(1, 5, || Err(Error::internal("not called")));
            assert_eq!(failed.err().expect("fails").message(), "broken");
        });
        assert_eq!((made.into_inner(), cache.used()), (1, 0));
        assert_eq!(*cache.get(1, 5, || Ok(3)).expect("made"), 3);
    }

    #[test]
    fn the_least_recently_used_value_is_evicted_and_one_in_use_is_not() {
        let cache: Cache<u32, u32, ()> = Cache::new(10);
        let get = |key| cache.get(key, 5, || Ok(key)).expect("made");
        drop((get(1), get(2)));
        let first = get(1);
        drop(get(3));
        assert_eq!(cache.used(), 10);
        let made_again = |key| {
            let mut made = false;
            let make = || {
                made = true;
                Ok(key)
            };
            drop(cache.get(key, 5, make).expect("made"));
            made
        };
        assert!(!made_again(3), "it was used last");
        assert!(made_again(2), "it made room for 3");
        assert!(made_again(3), "it made room for 2, because 1 is in use");
        drop(first);
        assert!(!made_again(1));
    }

    #[test]
    fn a_thread_waits_for_room_until_a_value_is_not_used() {
        let cache: Cache<u32, u32, ()> = Cache::new(5);
        let first = cache.get(1, 5, || Ok(1)).expect("made");
        std::thread::scope(|scope| {
            let second = scope.spawn(|| *cache.get(2, 5, || Ok(2)).expect("made"));
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert!(!second.is_finished(), "there is no room yet");
            drop(first);
            assert_eq!(second.join().expect("no panic"), 2);
        });
        assert_eq!(cache.used(), 5);
    }

    #[test]
    fn a_reservation_yields_to_values_and_not_to_other_reservations() {
        struct Counted<'a>(&'a AtomicUsize);
        impl Drop for Counted<'_> {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let gone = AtomicUsize::new(0);
        let cache: Cache<u32, u32, Counted<'_>> = Cache::new(10);
        drop(cache.get(1, 5, || Ok(1)).expect("made"));
        assert!(cache.reserve(2, 5, || Counted(&gone)));
        assert!(cache.reserve(2, 5, || unreachable!("it is reserved")));
        assert!(cache.reserve(3, 5, || Counted(&gone)), "the value makes room");
        assert!(!cache.reserve(4, 5, || Counted(&gone)), "there is no room");
        assert_eq!((gone.load(Ordering::SeqCst), cache.used()), (0, 10));
        drop(cache.get(5, 5, || Ok(5)).expect("made"));
        assert_eq!(gone.load(Ordering::SeqCst), 1);
        // Its value is made in its room.
        drop(cache.get(3, 5, || Ok(3)).expect("made"));
        assert_eq!((gone.load(Ordering::SeqCst), cache.used()), (2, 10));
    }

    #[test]
    fn a_panic_wakes_the_threads_that_wait() {
        let cache: Cache<u32, u32, ()> = Cache::new(10);
        let ready = Barrier::new(2);
        std::thread::scope(|scope| {
            let panics = scope.spawn(|| {
                let make = || -> Result<u32> {
                    ready.wait();
                    std::thread::sleep(std::time::Duration::from_millis(20));
                    panic!("on purpose")
                };
                drop(cache.get(1, 5, make));
            });
            ready.wait();
            assert_eq!(*cache.get(1, 5, || Ok(4)).expect("made"), 4);
            assert!(panics.join().is_err());
        });
    }
}
