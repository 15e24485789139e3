//! Panics of libraries that become errors.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static CATCHES: Cell<bool> = const { Cell::new(false) };
}

/// Calls `work`; `None` if it panics. Meanwhile [`catches_panic`] is true of this thread. `work`
/// must leave nothing behind that a panic spoils.
pub fn caught<T>(work: impl FnOnce() -> T) -> Option<T> {
    let before = CATCHES.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work)).ok();
    CATCHES.set(before);
    done
}

/// Whether a panic of this thread becomes an error: a panic hook says nothing then.
#[cfg(feature = "cli")]
pub fn catches_panic() -> bool {
    CATCHES.get()
}
