//! Constants of the layout and its limits (sections 1, 3 and 6).

use crate::base::{BLOCK_BYTES, CELL_BLOCKS, CELLS_PER_GROUP, GROUP_BLOCKS, VolumeSize};

pub use crate::base::MAX_VOLUMES;

/// The format's name in manifest and `image.json`.
pub const FORMAT_NAME: &str = "amibin";
/// The format version this crate writes and reads.
pub const FORMAT_VERSION: u64 = 1;

/// Most groups of a volume: 64 TiB of 16 GiB each.
pub const MAX_GROUPS: u32 = (VolumeSize::MAX / (BLOCK_BYTES * GROUP_BLOCKS as u64)) as u32;
/// Longest `image.json`, in bytes.
pub const MAX_IMAGE_JSON: u64 = 8 << 20;
/// Longest `FORMAT.txt`, in bytes.
pub const MAX_FORMAT_TXT: u64 = 64 << 10;
/// Longest inflated meta frame; longer metadata is cut into frames of exactly this length and a
/// rest.
pub const META_FRAME_RAW: usize = 1 << 20;
/// Longest inflated data frame.
pub const DATA_FRAME_RAW: usize = (BLOCK_BYTES * CELL_BLOCKS as u64) as usize;
/// Largest zstd window a frame may ask for.
pub const MAX_FRAME_WINDOW: u64 = 8 << 20;

/// Length of the prefix that all records share.
pub const RECORD_PREFIX: usize = 16;
/// Length of a C record without its digests.
pub const CELL_HEAD: usize = 72;
/// Length of an S record without its entries.
pub const GROUP_HEAD: usize = 72;
/// Length of an entry of an S record: one cell.
pub const CELL_ENTRY: usize = 44;
/// Length of an R record before the manifest.
pub const ROOT_HEAD: usize = 32;
/// Length of an entry of an R record: one group.
pub const GROUP_ENTRY: usize = 96;
/// Longest C record.
pub const MAX_CELL_RECORD: usize = CELL_HEAD + 32 * CELL_BLOCKS as usize;
/// Longest S record.
pub const MAX_GROUP_RECORD: usize = GROUP_HEAD + CELL_ENTRY * CELLS_PER_GROUP as usize;
/// Longest manifest.
pub const MAX_MANIFEST: u64 = 16 << 20;
/// Longest R record: room for the longest manifest and all groups of 256 volumes of 64 TiB.
pub const MAX_ROOT_RECORD: u64 = 128 << 20;
/// Most bytes of unknown records between R and F.
pub const MAX_EXTRA_RECORDS: u64 = 1 << 20;
/// Most frames a seek table lists; with more the table is left out.
pub const MAX_SEEK_FRAMES: u64 = 1 << 24;

/// Longest compressed form of a frame that inflates to `raw` bytes (3.1). libzstd's own bound is
/// `raw + raw / 256` and at most 64 more.
pub const fn max_frame_len(raw: u64) -> u64 {
    raw.saturating_add(raw / 256).saturating_add(4096)
}

/// Longest cell: C record and data frame.
pub const MAX_CELL: usize = MAX_CELL_RECORD + max_frame_len(DATA_FRAME_RAW as u64) as usize;
