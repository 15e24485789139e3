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
mod index_builder;
pub mod layout;
mod record;
mod root;
mod seek_table;
pub mod tar;
mod window;

pub use block_map::{BlockMap, Extent, SlotBits};
pub use cell::{CellRecord, ZERO_BLOCK_DIGEST};
pub use content::{VolumeContent, WindowContent, content_root};
pub use footer::{FOOTER_LEN, Footer};
pub use index_builder::{CellFacts, IndexBuilder, Tail};
pub use record::{Record, RecordKind};
pub use root::{Codec, Manifest, MetaFrame, MetaRole, RootRecord, VolumeEntry, WindowEntry};
pub use seek_table::{FrameLog, seek_table_len};
pub use window::{WindowIndex, WindowSlot};

/// A SHA-256 digest.
pub type Digest = [u8; 32];
