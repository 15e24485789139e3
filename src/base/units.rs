//! Numbers with a type of their own, so that they cannot be mixed up, and the geometry of format
//! version 1.

use std::fmt;

use super::{Error, Result};

/// Bytes of a block: the unit of EBS snapshots and of the format.
pub const BLOCK_BYTES: u64 = 512 * 1024;
/// Blocks of a cell: the unit of compression.
pub const CELL_BLOCKS: u32 = 8;
/// Cells of a group.
pub const CELLS_PER_GROUP: u32 = 4096;
/// Blocks of a group: 16 GiB of address space.
pub const GROUP_BLOCKS: u32 = CELLS_PER_GROUP * CELL_BLOCKS;

/// Most volumes of an archive: four times what EC2 attaches to an instance.
pub const MAX_VOLUMES: usize = 256;

/// One bit for each block of a cell, bit 0 for the first.
pub type Bitmap8 = u8;

/// The position of a block in its volume, counted in blocks. At most 2^27 - 1 (64 TiB).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockIndex(pub u32);

impl BlockIndex {
    /// Offset of the block in its volume, in bytes.
    pub fn offset(self) -> u64 {
        u64::from(self.0) * BLOCK_BYTES
    }

    /// The cell that holds the block.
    pub fn cell(self) -> CellAddress {
        CellAddress {
            group: self.0 / GROUP_BLOCKS,
            index: (self.0 % GROUP_BLOCKS / CELL_BLOCKS) as u16,
        }
    }

    /// The block's bit within its cell.
    pub fn bit(self) -> u32 {
        self.0 % CELL_BLOCKS
    }
}

impl fmt::Display for BlockIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Blocks `first .. first + count`, printed as `first..last` (both included) or as one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRange {
    /// The first block.
    pub first: BlockIndex,
    /// Number of blocks.
    pub count: u32,
}

impl fmt::Display for BlockRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            1 => write!(f, "{}", self.first),
            n => write!(f, "{}..{}", self.first, u64::from(self.first.0) + u64::from(n) - 1),
        }
    }
}

/// The position of a cell in its volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CellAddress {
    /// The group, counted from the start of the volume.
    pub group: u32,
    /// The cell, counted from the start of the group; below [`CELLS_PER_GROUP`].
    pub index: u16,
}

impl CellAddress {
    /// The first block of the cell.
    pub fn first_block(self) -> BlockIndex {
        BlockIndex(self.group * GROUP_BLOCKS + u32::from(self.index) * CELL_BLOCKS)
    }

    /// All blocks of the cell.
    pub fn blocks(self) -> BlockRange {
        BlockRange { first: self.first_block(), count: CELL_BLOCKS }
    }
}

/// The size of a volume in bytes: a multiple of 512, from 512 to 2^46 (64 TiB).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VolumeSize(u64);

impl VolumeSize {
    /// 64 TiB, the largest volume of EBS.
    pub const MAX: u64 = 1 << 46;

    /// The size of the largest volume.
    pub const LARGEST: Self = Self(Self::MAX);

    /// Checks `bytes`.
    pub fn new(bytes: u64) -> Result<Self> {
        if bytes == 0 {
            Err(Error::usage("the disk is empty: it has 0 bytes"))
        } else if !bytes.is_multiple_of(512) {
            Err(Error::usage("not a raw disk image: its size is not a multiple of 512 bytes")
                .code_as(super::ErrorCode::SizeNotOfSectors)
                .at("size", bytes))
        } else if bytes > Self::MAX {
            Err(Error::new(
                super::ErrorKind::Limit,
                "the disk is larger than 64 TiB, the largest volume of EBS",
            )
            .at("size", bytes))
        } else {
            Ok(Self(bytes))
        }
    }

    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// Number of blocks, a short last one included. At most 2^27.
    pub fn blocks(self) -> u32 {
        self.0.div_ceil(BLOCK_BYTES) as u32
    }

    /// Number of groups.
    pub fn groups(self) -> u32 {
        self.blocks().div_ceil(GROUP_BLOCKS)
    }

    /// The length of a block in bytes: 512 KiB, less for a short last block, 0 beyond the end.
    pub fn block_len(self, block: BlockIndex) -> u64 {
        self.0.saturating_sub(block.offset()).min(BLOCK_BYTES)
    }

    /// Bytes of all blocks of `bits` in `cell`.
    pub fn cell_bytes(self, cell: CellAddress, bits: Bitmap8) -> u64 {
        let first = cell.first_block().0;
        bits_of(bits).map(|bit| self.block_len(BlockIndex(first + bit))).sum()
    }

    /// The bits of `cell` that lie within the volume.
    pub fn cell_mask(self, cell: CellAddress) -> Bitmap8 {
        let inside = self.blocks().saturating_sub(cell.first_block().0).min(CELL_BLOCKS);
        ((1u16 << inside) - 1) as u8
    }
}

/// The set bits of `bits`, ascending.
pub fn bits_of(bits: Bitmap8) -> impl Iterator<Item = u32> {
    (0..CELL_BLOCKS).filter(move |bit| bits >> bit & 1 == 1)
}

/// Whole GiB, rounded up: the unit of EBS volume sizes.
pub fn gib_rounded_up(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 30)
}

/// Lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A size for people, in binary units: `613 MiB`, `8.0 GiB`.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value < 99.95 {
        format!("{value:.1} {}", UNITS[unit])
    } else {
        format!("{value:.0} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_indexes_agree() {
        for index in [0, 7, 8, 32_767, 32_768, 134_217_727] {
            let block = BlockIndex(index);
            assert_eq!(block.cell().first_block().0 + block.bit(), index);
        }
    }

    #[test]
    fn a_short_last_block_counts_its_own_bytes() {
        let size = VolumeSize::new(BLOCK_BYTES * 2 + 512).expect("a valid size");
        assert_eq!(size.blocks(), 3);
        assert_eq!(size.block_len(BlockIndex(2)), 512);
        assert_eq!(size.cell_mask(BlockIndex(0).cell()), 0b111);
        assert_eq!(size.cell_bytes(BlockIndex(0).cell(), 0b101), BLOCK_BYTES + 512);
    }

    #[test]
    fn sizes_that_are_no_disk_are_refused() {
        for bytes in [0, 511, 513, VolumeSize::MAX + 512] {
            assert!(VolumeSize::new(bytes).is_err(), "{bytes}");
        }
        assert_eq!(VolumeSize::new(VolumeSize::MAX).expect("64 TiB").blocks(), 1 << 27);
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(human_bytes(0), "0 B");
        assert_eq!(human_bytes(1536), "1.5 KiB");
        assert_eq!(human_bytes(1 << 30), "1.0 GiB");
        assert_eq!(human_bytes((1 << 30) - 1), "1.0 GiB");
        assert_eq!(human_bytes(613 << 20), "613 MiB");
    }
}
