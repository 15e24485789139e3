//! A token that asks an operation to stop, and that threads and futures can wait on.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::{Error, Result};

/// Shared by all threads of one operation: clones are the same token. Once cancelled it stays
/// cancelled.
///
/// It does not interrupt a system call. Code that may block for long waits for the token as well:
/// with [`wait_timeout`](Self::wait_timeout) instead of a sleep, with
/// [`cancelled`](Self::cancelled) in a future, with a `Monitor` instead of a
/// condition variable, and with [`on_cancel`](Self::on_cancel) elsewhere.
#[derive(Clone, Default)]
pub struct Cancel(Arc<Token>);

#[derive(Default)]
struct Token {
    cancelled: AtomicBool,
    listeners: Mutex<Listeners>,
    changed: Condvar,
    /// Keeps a child registered with its parent, as long as the child exists.
    parent: OnceLock<CancelListener>,
}

#[derive(Default)]
struct Listeners {
    next_id: u64,
    callbacks: BTreeMap<u64, Box<dyn FnOnce() + Send>>,
}

impl Cancel {
    /// A token that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// A token for a part of the work: cancelled with this one, or alone.
    #[must_use]
    pub fn child(&self) -> Self {
        let child = Self::default();
        let token = Arc::downgrade(&child.0);
        let listener = self.on_cancel(move || {
            if let Some(token) = token.upgrade() {
                Self(token).cancel();
            }
        });
        // Nothing else sets it: the child was made above.
        let _ = child.0.parent.set(listener);
        child
    }

    /// Cancels the token and its children, and wakes all that wait for them.
    pub fn cancel(&self) {
        let callbacks = {
            let mut listeners = self.0.lock();
            self.0.cancelled.store(true, Ordering::SeqCst);
            std::mem::take(&mut listeners.callbacks)
        };
        self.0.changed.notify_all();
        // Outside of the lock: a callback may take locks of its own.
        for callback in callbacks.into_values() {
            callback();
        }
    }

    /// Whether the token is cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    /// An [`Interrupted`](super::ErrorKind::Interrupted) error if the token is cancelled.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::interrupted()) } else { Ok(()) }
    }

    /// Blocks the thread until the token is cancelled.
    pub fn wait(&self) {
        let listeners = self.0.lock();
        drop(self.0.changed.wait_while(listeners, |_| !self.is_cancelled()));
    }

    /// Blocks the thread for `timeout`, or until the token is cancelled. Returns whether it is.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        let listeners = self.0.lock();
        drop(self.0.changed.wait_timeout_while(listeners, timeout, |_| !self.is_cancelled()));
        self.is_cancelled()
    }

    /// Completes when the token is cancelled. Needs no particular runtime.
    pub fn cancelled(&self) -> Cancelled {
        Cancelled { cancel: self.clone(), registered: None }
    }

    /// Calls `callback` once, on the thread that cancels, unless the listener is dropped before. On
    /// a token that is cancelled already the callback is called before this returns: the caller
    /// holds no lock that the callback takes.
    pub fn on_cancel(&self, callback: impl FnOnce() + Send + 'static) -> CancelListener {
        let mut listeners = self.0.lock();
        let id = listeners.next_id;
        listeners.next_id += 1;
        if self.is_cancelled() {
            drop(listeners);
            callback();
        } else {
            listeners.callbacks.insert(id, Box::new(callback));
        }
        CancelListener { token: self.0.clone(), id }
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Cancel").field(&self.is_cancelled()).finish()
    }
}

impl Token {
    fn lock(&self) -> MutexGuard<'_, Listeners> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A callback that was registered with a token. Dropping it takes the callback back.
#[must_use = "the callback is taken back when the listener is dropped"]
pub struct CancelListener {
    token: Arc<Token>,
    id: u64,
}

impl Drop for CancelListener {
    fn drop(&mut self) {
        // The callback itself is dropped after the lock is released.
        let _callback = self.token.lock().callbacks.remove(&self.id);
    }
}

/// The future of [`Cancel::cancelled`].
#[must_use = "a future does nothing unless it is awaited"]
pub struct Cancelled {
    cancel: Cancel,
    registered: Option<(Waker, CancelListener)>,
}

impl Future for Cancelled {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.cancel.is_cancelled() {
            return Poll::Ready(());
        }
        let waker = context.waker();
        if self.registered.as_ref().is_none_or(|(known, _)| !known.will_wake(waker)) {
            let wake = waker.clone();
            let listener = self.cancel.on_cancel(move || wake.wake());
            self.registered = Some((waker.clone(), listener));
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::task::Wake;

    use super::*;

    #[test]
    fn a_child_of_a_child_stops_with_the_whole_and_not_the_other_way_round() {
        let whole = Cancel::new();
        let child = whole.child();
        let (one, other) = (child.child(), whole.child());
        child.cancel();
        assert_eq!(
            [&whole, &child, &one, &other].map(Cancel::is_cancelled),
            [false, true, true, false]
        );
        whole.cancel();
        assert!(other.is_cancelled() && whole.child().is_cancelled());
    }

    #[test]
    fn cancelling_wakes_threads_that_wait() {
        let cancel = Cancel::new();
        let child = cancel.child();
        std::thread::scope(|scope| {
            let for_ever = scope.spawn(|| child.wait());
            let bounded = scope.spawn(|| child.wait_timeout(Duration::MAX));
            cancel.cancel();
            for_ever.join().expect("no panic");
            assert!(bounded.join().expect("no panic"));
        });
        assert!(!Cancel::new().wait_timeout(Duration::from_millis(1)));
    }

    #[test]
    fn a_callback_is_called_once_and_not_after_its_listener_is_gone() {
        let cancel = Cancel::new();
        let (calls, called) = channel();
        let listen = |name: &'static str| {
            let calls = calls.clone();
            cancel.on_cancel(move || calls.send(name).expect("the test listens"))
        };
        let listening = listen("listening");
        drop(listen("dropped"));
        cancel.cancel();
        cancel.cancel();
        let late = listen("late");
        drop((listening, late));
        assert_eq!(called.try_iter().collect::<Vec<_>>(), ["listening", "late"]);
    }

    #[test]
    fn a_child_that_is_gone_leaves_nothing_with_its_parent() {
        let whole = Cancel::new();
        drop(whole.child());
        assert!(whole.0.lock().callbacks.is_empty());
    }

    #[test]
    fn a_future_is_woken_by_its_last_waker() {
        struct Name(&'static str, std::sync::mpsc::Sender<&'static str>);
        impl Wake for Name {
            fn wake(self: Arc<Self>) {
                self.1.send(self.0).expect("the test listens");
            }
        }
        let cancel = Cancel::new();
        let (woken, wakes) = channel();
        let mut future = Box::pin(cancel.cancelled());
        for name in ["first", "second"] {
            let waker = Waker::from(Arc::new(Name(name, woken.clone())));
            let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
            assert_eq!(polled, Poll::Pending);
        }
        cancel.cancel();
        assert_eq!(wakes.try_iter().collect::<Vec<_>>(), ["second"]);
        let polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(polled, Poll::Ready(()));
    }
}
