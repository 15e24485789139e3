//! A shared value that threads wait on until it has some state, or their operation is cancelled.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{Cancel, Result};

/// A mutex with a condition variable. Clones share the value.
#[derive(Debug, Default)]
pub struct Monitor<T>(Arc<Shared<T>>);

#[derive(Debug, Default)]
struct Shared<T> {
    value: Mutex<T>,
    changed: Condvar,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Monitor<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Monitor<T> {
    /// Locks the value. A change that a waiting thread should see is followed by a notification.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock()
    }

    /// Wakes all threads that wait.
    pub fn notify_all(&self) {
        self.0.changed.notify_all();
    }

    /// Blocks the thread until `ready` returns a value, which is returned. `ready` is called with
    /// the lock held, at once and after each notification. A cancelled token is an
    /// [`Interrupted`](super::ErrorKind::Interrupted) error, unless `ready` returns a value.
    pub fn wait<R>(&self, cancel: &Cancel, mut ready: impl FnMut(&mut T) -> Option<R>) -> Result<R>
    where
        T: Send + 'static,
    {
        let mut listener = None;
        let mut value = self.lock();
        loop {
            if let Some(result) = ready(&mut value) {
                return Ok(result);
            }
            cancel.check()?;
            if listener.is_none() {
                // The callback locks the value, so that its notification cannot fall between our
                // look at the token and the wait.
                drop(value);
                let shared = self.0.clone();
                listener = Some(cancel.on_cancel(move || {
                    drop(shared.lock());
                    shared.changed.notify_all();
                }));
                value = self.lock();
                continue;
            }
            value = self.0.changed.wait(value).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ErrorKind;

    #[test]
    fn a_wait_ends_with_the_value_or_with_the_operation() {
        let (monitor, cancel) = (Monitor::<i32>::default(), Cancel::new());
        std::thread::scope(|scope| {
            let waits = |least: i32| {
                monitor.wait(&cancel, move |value| (*value >= least).then_some(*value))
            };
            let (served, cancelled) =
                (scope.spawn(move || waits(1)), scope.spawn(move || waits(9)));
            *monitor.lock() = 2;
            monitor.notify_all();
            assert_eq!(served.join().expect("no panic").expect("is served"), 2);
            cancel.cancel();
            let error = cancelled.join().expect("no panic").expect_err("is cancelled");
            assert_eq!(error.kind(), ErrorKind::Interrupted);
        });
        // A value that is there is returned even then.
        assert_eq!(monitor.wait(&cancel, |value| Some(*value)).expect("is there"), 2);
    }
}
