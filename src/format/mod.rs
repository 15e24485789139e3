//! The container, version 1: bytes in, records out, and back. The normative text is
//! `format-spec/container.md`; section numbers in this module are its.
//!
//! Everything here works on slices, so it can be fuzzed and run on any thread. It does not do I/O,
//! compress, or start threads.

mod block_map;
mod cell;
mod content;
mod footer;
pub mod frame;
mod group;
mod index_builder;
pub mod layout;
mod record;
mod root;
mod seek_table;
pub mod tar;

pub use block_map::{BlockMap, CellBits, Extent};
pub use cell::{CellRecord, ZERO_BLOCK_DIGEST};
pub use content::{GroupContent, VolumeContent, content_root};
pub use footer::{FOOTER_LEN, Footer};
pub use group::{CellEntry, GroupIndex};
pub use index_builder::{CellFacts, IndexBuilder, Tail};
pub use record::{Record, RecordKind};
pub use root::{Codec, GroupEntry, Manifest, MetaFrame, MetaRole, RootRecord, VolumeEntry};
pub use seek_table::{FrameLog, seek_table_len};

/// A SHA-256 digest.
pub type Digest = [u8; 32];
