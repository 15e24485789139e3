//! The container, version 1: records to bytes and back. The normative text is
//! `format-spec/container.md`; section numbers in this module are its.
//!
//! Two words differ from the text. Its *window*, 16 GiB of a volume, is a group here, because a
//! zstd frame has a window of its own; its *slot* is a [`CellAddress`](crate::base::CellAddress).
//!
//! Everything here works on slices, so it can be fuzzed and run on any thread. It does not do I/O,
//! compress, or start threads. [`BlockMap`] stands here and not in `volume`: tar headers are made
//! from it, and this room depends on none that does I/O.

mod block_map;
mod cell;
mod cell_facts;
mod content_digest;
mod footer;
pub mod frame;
mod group;
mod heading;
mod index_builder;
mod json;
pub mod layout;
mod manifest;
mod record;
mod root;
mod seek_table;
pub mod tar;

pub use block_map::{BlockMap, CellBits, Extent};
pub use cell::{CellRecord, ZERO_BLOCK_DIGEST};
pub use cell_facts::CellFacts;
pub use content_digest::{GroupContent, VolumeContent, content_root};
pub use footer::{FOOTER_LEN, Footer};
pub use group::{CellEntry, GroupIndex};
pub use index_builder::{IndexBuilder, Tail};
pub use manifest::{Codec, Manifest, MetaFrame, MetaRole, VolumeEntry};
pub use record::{Position, Record, RecordKind};
pub use root::{GroupEntry, RootRecord};
pub use seek_table::{FrameLog, SEEK_TABLE_TAIL, seek_table_frames, seek_table_len};

/// A SHA-256 digest.
pub type Digest = [u8; 32];
