//! Counts the bytes read of an object.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Attributes, ObjectReader, ObjectService};
use crate::base::Result;

/// A reader that counts its bytes.
pub struct CountingReader {
    inner: Arc<dyn ObjectReader>,
    bytes: AtomicU64,
}

impl CountingReader {
    /// Wraps `inner`.
    pub fn new(inner: Arc<dyn ObjectReader>) -> Self {
        Self { inner, bytes: AtomicU64::new(0) }
    }

    /// Bytes read so far; a byte that was read twice counts twice.
    pub fn bytes_read(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl ObjectReader for CountingReader {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.bytes.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        self.inner.read_at(offset, buffer)
    }

    fn prefetch(&self, offset: u64, len: u64) {
        self.inner.prefetch(offset, len);
    }

    fn cancel_prefetch(&self, offset: u64, len: u64) {
        self.inner.cancel_prefetch(offset, len);
    }

    fn drop_cache(&self) {
        self.inner.drop_cache();
    }

    fn service(&self) -> Option<ObjectService> {
        self.inner.service()
    }

    fn version(&self) -> Option<String> {
        self.inner.version()
    }

    fn file(&self) -> Option<&std::fs::File> {
        self.inner.file()
    }

    fn attributes(&self) -> Attributes {
        self.inner.attributes()
    }
}
