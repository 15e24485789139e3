//! amistore stores an Amazon Machine Image as one compressed, indexed, verifiable object, and restores it anywhere.
//!
//! The layers, lowest first; a module uses only those above its own line (`tests/it/architecture.rs` holds that):
//!
//! ```text
//! base     words all share: errors, events, units, ids           no I/O
//! codec    SHA-256, zero test, zstd                              buffer in, buffer out
//! model    image.json                                            no I/O
//! format   the container: bytes in, records out, and back        no I/O
//! query    EC2's protocol: forms out, XML in                     no I/O
//! disk     local files: partial files, holes
//! state    unfinished work: what survives a killed process
//! tasks    what was asked for and what became of it: SQLite
//! block    ports to volumes; raw files, memory
//! store    ports to archives; directory, memory, pipe
//! catalog  ports to images; image directory, plain disks
//! engine   budget, pipeline, pack, unpack
//! ops      store, restore, verify, extract, inspect, copy: one file each
//! aws      S3 behind the ports of store; EC2                     the only place that names the SDK
//! setup    builds what a use case needs out of settings
//! server   the HTTP face of store and restore tasks              the only place that names hyper
//! cli      arguments, commands, output, exit                     the only place that names clap and indicatif
//! ```
//!
//! Start at [`ops`].

#[cfg(feature = "aws")]
pub mod aws;
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
#[cfg(feature = "aws")]
pub mod query;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod setup;
pub mod state;
pub mod store;
#[cfg(feature = "server")]
pub mod tasks;
