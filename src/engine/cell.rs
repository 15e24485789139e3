//! Opens a cell: checks, inflates, checks again, and delivers its blocks. The one place where
//! stored bytes become volume data.

use crate::base::{
    BLOCK_BYTES, Bitmap8, BlockIndex, BlockRange, CellAddress, Error, ErrorCode, ErrorKind, Result,
    VolumeSize, bits_of,
};
use crate::codec::zstd::Decoder;
use crate::codec::{sha256, zero};
use crate::format::{CellEntry, CellRecord, frame};
use crate::volume::{BlockSink, Delivered};

/// Bytes of a whole block.
pub(super) const BLOCK: usize = BLOCK_BYTES as usize;

/// How far cells are checked that are not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Every stored byte against its digest: records and frames, and no frame is inflated.
    Stored,
    /// The blocks as well: every frame is inflated.
    Blocks,
}

/// A cell as it was stored, its record read.
pub(super) struct StoredCell<'a> {
    pub(super) record: CellRecord,
    pub(super) frame: &'a [u8],
}

impl StoredCell<'_> {
    /// Adds where the damage is: blocks and, for people with a hex editor, the offset of the cell's
    /// record in the archive.
    pub(super) fn locate(&self, error: Error, offset: u64) -> Error {
        locate(error, self.record.address, offset)
    }
}

/// Adds the blocks of a slot, unless a narrower range is known, and the offset of its cell.
pub(super) fn locate(error: Error, address: CellAddress, offset: u64) -> Error {
    let error = match error.kind() {
        ErrorKind::Corrupt => error.or_code(ErrorCode::VolumeDamaged),
        _ => error,
    };
    error.at_once("blocks", address.blocks()).at("offset", offset)
}

/// Parses the record of a cell, and checks that it is the one that the index of its window lists.
pub(super) fn read_record(
    bytes: &[u8],
    entry: &CellEntry,
    address: CellAddress,
    volume: u16,
) -> Result<CellRecord> {
    if sha256::digest(bytes) != entry.record_digest {
        return Err(Error::corrupt("the record of a cell does not match its digest"));
    }
    let record = CellRecord::parse(bytes)?;
    let agree = (record.volume, record.address) == (volume, address)
        && (record.present, record.zero, record.fill) == (entry.present, entry.zero, entry.fill)
        && record.frame_len == entry.frame_len();
    if agree {
        Ok(record)
    } else {
        Err(Error::corrupt("a cell contradicts the index of its window"))
    }
}

/// Checks the digests of frames against their records, all at once.
pub(super) fn check_frames(cells: &[StoredCell<'_>]) -> Vec<Result<()>> {
    let inputs: Vec<&[u8]> = cells.iter().map(|cell| cell.frame).collect();
    let mut digests = vec![[0; 32]; inputs.len()];
    sha256::digest_many(&inputs, &mut digests);
    let check = |(cell, digest): (&StoredCell<'_>, [u8; 32])| {
        if digest == cell.record.frame_digest {
            Ok(())
        } else {
            Err(Error::corrupt("the data of a cell does not match its digest"))
        }
    };
    cells.iter().zip(digests).map(check).collect()
}

/// Checks that a cell, whose frame matched its digest, lies within a volume of `size`, and that its
/// frame has the form that the format asks for. Neither needs more than the headers of its blocks.
pub(super) fn check_form(cell: &StoredCell<'_>, size: VolumeSize) -> Result<()> {
    cell.record.check_within(size)?;
    frame::check(cell.frame, cell.record.raw_len.into())
}

/// Inflates cells and checks their blocks.
pub(super) struct CellOpener {
    decoder: Decoder,
    raw: Vec<u8>,
}

impl CellOpener {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { decoder: Decoder::new()?, raw: Vec::new() })
    }

    /// The bytes that the last call of [`Self::open`] returned.
    pub(super) fn take_raw(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.raw)
    }

    /// The blocks of a cell of a volume of `size`, whose frame matched its digest.
    pub(super) fn open(&mut self, cell: &StoredCell<'_>, size: VolumeSize) -> Result<&[u8]> {
        let record = &cell.record;
        check_form(cell, size)?;
        self.decoder.decode(cell.frame, record.raw_len as usize, &mut self.raw)?;
        let address = record.address;
        let located = |error: Error, bit| {
            error.at(
                "blocks",
                BlockRange { first: BlockIndex(address.first_block().0 + bit), count: 1 },
            )
        };
        let mut padded = Vec::new();
        let mut data = Vec::with_capacity(8);
        for (bit, block) in blocks_of(&self.raw, record.present, size, address) {
            if record.zero >> bit & 1 == 0 {
                data.push((bit, block));
            } else if !zero::is_zero(block) {
                return Err(located(Error::corrupt("a block that is marked as zero is not"), bit));
            }
        }
        if let Some((_, block)) = data.last_mut().filter(|(_, block)| block.len() < BLOCK) {
            padded.extend_from_slice(block);
            padded.resize(BLOCK, 0);
            *block = &padded;
        }
        let inputs: Vec<&[u8]> = data.iter().map(|(_, block)| *block).collect();
        let mut digests = vec![[0; 32]; inputs.len()];
        sha256::digest_many(&inputs, &mut digests);
        for (((bit, _), digest), expected) in data.iter().zip(&digests).zip(&record.block_digests) {
            if digest != expected {
                return Err(located(Error::corrupt("a block does not match its digest"), *bit));
            }
        }
        Ok(&self.raw)
    }
}

/// The present blocks of a slot, with their bits, out of what its frame inflates to.
pub(super) fn blocks_of(
    raw: &[u8],
    present: Bitmap8,
    size: VolumeSize,
    address: CellAddress,
) -> impl Iterator<Item = (u32, &[u8])> {
    let mut rest = raw;
    bits_of(present).map(move |bit| {
        let len = size.block_len(BlockIndex(address.first_block().0 + bit)) as usize;
        let (block, after) = rest.split_at(len.min(rest.len()));
        rest = after;
        (bit, block)
    })
}

/// Writes the blocks of a cell that exist in the source, one call for each run of data or of zeros.
/// Fill blocks stay absent.
pub(super) fn deliver(
    raw: &[u8],
    record: &CellRecord,
    size: VolumeSize,
    sink: &dyn BlockSink,
) -> Result<()> {
    let mut run: Option<Run> = None;
    let mut at = 0;
    for (bit, block) in blocks_of(raw, record.present, size, record.address) {
        let here = at..at + block.len();
        at = here.end;
        if record.fill >> bit & 1 == 1 {
            continue;
        }
        let offset = BlockIndex(record.address.first_block().0 + bit).offset();
        let zero = record.zero >> bit & 1 == 1;
        let data_before = (record.present & !record.zero & ((1 << bit) - 1)).count_ones() as usize;
        let digests = data_before..data_before + usize::from(!zero);
        match &mut run {
            Some(run)
                if run.zero == zero
                    && run.offset + run.raw.len() as u64 == offset
                    && run.raw.end == here.start =>
            {
                run.raw.end = here.end;
                run.digests.end = digests.end;
            }
            _ => {
                if let Some(run) = run.replace(Run { offset, raw: here, zero, digests }) {
                    run.write(raw, record, sink)?;
                }
            }
        }
    }
    run.map_or(Ok(()), |run| run.write(raw, record, sink))
}

/// The blocks that a sink gets of a cell with this record.
pub(super) fn delivered(record: &CellRecord) -> Delivered<'_> {
    Delivered::new(
        record.address,
        (record.present, record.zero, record.fill),
        &record.block_digests,
    )
}

/// Blocks that are neighbours in the volume and in the cell, and have one state.
struct Run {
    offset: u64,
    raw: std::ops::Range<usize>,
    zero: bool,
    /// Which of the record's digests are theirs.
    digests: std::ops::Range<usize>,
}

impl Run {
    fn write(self, raw: &[u8], record: &CellRecord, sink: &dyn BlockSink) -> Result<()> {
        if self.zero {
            return sink.write_zeros(self.offset, self.raw.len() as u64);
        }
        sink.write_data(self.offset, &raw[self.raw], &record.block_digests[self.digests])
    }
}
