//! State and log of a server, which all of its connections share.

use std::sync::{Mutex, MutexGuard};

pub struct Shared<W, L> {
    world: Mutex<W>,
    log: Mutex<L>,
}

impl<W, L: Default> Shared<W, L> {
    pub fn new(world: W) -> Self {
        Self { world: Mutex::new(world), log: Mutex::default() }
    }

    pub fn world(&self) -> MutexGuard<'_, W> {
        self.world.lock().expect("no panic")
    }

    pub fn log(&self) -> MutexGuard<'_, L> {
        self.log.lock().expect("no panic")
    }
}
