//! amistore stores an Amazon Machine Image as one compressed, indexed, verifiable object, and
//! restores it anywhere.
//!
//! The layers are drawn in `docs/architecture.md` and held by `tests/core/architecture.rs`.
//!
//! Start at [`ops`].

#[cfg(feature = "aws")]
pub mod aws;
pub mod base;
pub mod checkpoint;
#[cfg(feature = "cli")]
pub mod cli;
pub mod codec;
pub mod engine;
pub mod format;
pub mod image;
pub mod localfs;
pub mod object;
pub mod ops;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod taskdb;
pub mod volume;
