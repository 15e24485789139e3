//! Buffers in, buffers out: SHA-256, zero test, zstd.
//!
//! It does not start threads, do I/O or know the container. Everything here may be called from any
//! thread.

pub mod sha256;
pub mod zero;
pub mod zstd;
