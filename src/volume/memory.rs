//! Volumes in memory, for tests and benchmarks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::sink::for_zeros;
use super::{BlockSink, BlockSource};
use crate::base::{BLOCK_BYTES, BlockIndex, Result, VolumeSize};
use crate::format::{BlockMap, Digest};

/// A volume of listed blocks. Blocks that are not listed are absent.
#[derive(Clone, Debug)]
pub struct MemorySource {
    size: VolumeSize,
    blocks: Arc<BTreeMap<u32, Vec<u8>>>,
}

impl MemorySource {
    /// A volume of `size` with these blocks, each cut or padded with zeros to its length.
    pub fn new(size: VolumeSize, blocks: impl IntoIterator<Item = (u32, Vec<u8>)>) -> Self {
        let fit = |(index, mut data): (u32, Vec<u8>)| {
            data.resize(size.block_len(BlockIndex(index)) as usize, 0);
            (index, data)
        };
        Self {
            size,
            blocks: Arc::new(
                blocks.into_iter().filter(|(index, _)| *index < size.blocks()).map(fit).collect(),
            ),
        }
    }
}

impl BlockSource for MemorySource {
    fn size(&self) -> VolumeSize {
        self.size
    }

    fn block_map(&self) -> Result<BlockMap> {
        let mut map = BlockMap::new(self.size);
        self.blocks.keys().for_each(|block| map.insert(*block, 1));
        Ok(map)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let (block, within) = ((at / BLOCK_BYTES) as u32, (at % BLOCK_BYTES) as usize);
            let len = (buffer.len() - done).min(BLOCK_BYTES as usize - within);
            match self.blocks.get(&block) {
                Some(data) => buffer[done..done + len].copy_from_slice(&data[within..within + len]),
                None => buffer[done..done + len].fill(0),
            }
            done += len;
        }
        Ok(())
    }

    fn check_unchanged(&self) -> Result<()> {
        Ok(())
    }

    fn identity(&self) -> Option<String> {
        // The address serves: the blocks do not change, and do not outlive the process.
        Some(format!("memory:{:p}", Arc::as_ptr(&self.blocks)))
    }
}

/// A volume that keeps the written blocks. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct MemorySink(Arc<Mutex<BTreeMap<u32, Vec<u8>>>>);

impl MemorySink {
    /// The blocks that were written.
    pub fn blocks(&self) -> BTreeMap<u32, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl BlockSink for MemorySink {
    fn write_zeros(&self, offset: u64, len: u64) -> Result<()> {
        for_zeros(offset, len, |offset, zeros| self.write_data(offset, zeros, &[]))
    }

    fn write_data(&self, offset: u64, data: &[u8], _digests: &[Digest]) -> Result<()> {
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, block) in data.chunks(BLOCK_BYTES as usize).enumerate() {
            blocks.insert((offset / BLOCK_BYTES) as u32 + index as u32, block.to_vec());
        }
        Ok(())
    }
}
