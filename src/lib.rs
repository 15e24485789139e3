//! amistore stores an Amazon Machine Image as one compressed, indexed, verifiable object, and restores it anywhere.
//!
//! The layers, lowest first; a module uses only those above its own line (`tests/it/architecture.rs` holds that):
//!
//! ```text
//! base     words all share: errors, events, units, ids           no I/O
//! codec    SHA-256, zero test, zstd                              buffer in, buffer out
//! model    image.json                                            no I/O
//! format   the container: bytes in, records out, and back        no I/O
//! disk     local files: partial files, holes
//! block    ports to volumes; raw files, memory
//! store    ports to archives; directory, memory, pipe
//! catalog  ports to images; image directory, plain disks
//! engine   budget, pipeline, pack, unpack
//! ops      store, restore, verify, extract, inspect: one file each
//! cli      arguments, commands, output, exit                     the only place that names clap and indicatif
//! ```
//!
//! Start at [`ops`].

pub mod base;
pub mod block;
pub mod catalog;
#[cfg(feature = "cli")]
pub mod cli;
pub mod codec;
pub mod disk;
pub mod engine;
pub mod format;
pub mod model;
pub mod ops;
pub mod store;
