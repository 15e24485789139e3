//! The search for blocks of zeros in a volume.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::BlockSource;
use crate::base::{BLOCK_BYTES, BlockIndex, Cancel, Error, Result, bits_of};
use crate::codec::zero::is_zero;
use crate::format::BlockMap;

/// Removes the blocks from `map` whose bytes are all zero. Reads every block of the map, on
/// `threads` threads. For images that lost their holes in a copy.
pub fn scan_zero_blocks(
    source: &dyn BlockSource,
    map: &mut BlockMap,
    threads: usize,
    cancel: &Cancel,
) -> Result<()> {
    let scanned = Mutex::new(Ok(BlockMap::new(map.size())));
    let cells = Mutex::new(map.cells());
    let failed = AtomicBool::new(false);
    let next = || {
        cells
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .next()
            .filter(|_| !failed.load(Ordering::Relaxed))
    };
    let scan = || -> Result<()> {
        let mut buffer = vec![0; BLOCK_BYTES as usize];
        while let Some((address, mut bits)) = next() {
            cancel.check()?;
            for bit in bits_of(bits.present) {
                let block = BlockIndex(address.first_block().0 + bit);
                let data = &mut buffer[..source.size().block_len(block) as usize];
                source.read_at(block.offset(), data)?;
                bits.present &= !(u8::from(is_zero(data)) << bit);
            }
            if bits.present != 0
                && let Ok(map) = &mut *scanned.lock().unwrap_or_else(PoisonError::into_inner)
            {
                map.set(address, bits);
            }
        }
        Ok(())
    };
    let end_with = |error: Error| {
        if !failed.swap(true, Ordering::Relaxed) {
            *scanned.lock().unwrap_or_else(PoisonError::into_inner) = Err(error);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            let work = || scan().unwrap_or_else(end_with);
            if let Err(cause) = std::thread::Builder::new().spawn_scoped(scope, work) {
                end_with(Error::io("cannot start a thread", cause));
                break;
            }
        }
    });
    drop(cells);
    *map = scanned.into_inner().unwrap_or_else(PoisonError::into_inner)?;
    Ok(())
}
