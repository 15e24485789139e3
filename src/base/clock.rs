//! The wall clock, which a test replaces.

use std::sync::Arc;
use std::time::SystemTime;

/// A wall clock. It can be wrong, and can be set at any moment, so a decision that cannot be taken
/// back needs a bound that does not depend on it.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Clock {
    /// A clock that shows the time that `read` returns.
    pub fn new(read: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// The time of this clock.
    pub fn now(&self) -> SystemTime {
        (self.0)()
    }
}

impl Default for Clock {
    /// The clock of the operating system.
    fn default() -> Self {
        Self::new(SystemTime::now)
    }
}
