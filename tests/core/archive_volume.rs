//! The volume of an archive as a block source: the bytes of the source at any position, each cell
//! fetched once, in bounded memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex, OnceLock};

use amistore::internals::base::{Cancel, ErrorKind, NullObserver, Result};
use amistore::internals::engine::{
    Archive, ArchiveVolume, Context, Plan, RangePart, compare_volume,
};
use amistore::internals::image::ImageSource;
use amistore::internals::object::{MemoryReader, ObjectReader};
use amistore::internals::volume::BlockSource;

use crate::support::image::{BLOCK, Random, TestImage};

const CELL: usize = 8 * BLOCK;
/// Whole cells of the volume.
const CELLS: u32 = 24;
/// A volume that ends in the middle of a block.
const SIZE: u64 = CELLS as u64 * CELL as u64 + 3 * BLOCK as u64 + 1024;
/// The largest cell and a little more.
const ONE_CELL: u64 = (CELL as u64) + (64 << 10);

/// Counts and records the calls of a reader, and calls `watch` at each read.
struct Watched {
    inner: MemoryReader,
    reads: Mutex<Vec<(u64, u64)>>,
    prefetched: Mutex<Vec<(u64, u64)>>,
    withdrawn: AtomicU64,
    cache_drops: AtomicU64,
    watch: Mutex<Box<dyn FnMut() + Send>>,
}

impl Watched {
    fn new(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryReader::new("a.bin", bytes),
            reads: Mutex::default(),
            prefetched: Mutex::default(),
            withdrawn: AtomicU64::new(0),
            cache_drops: AtomicU64::new(0),
            watch: Mutex::new(Box::new(|| {})),
        })
    }

    /// The reads since the call before.
    fn take_reads(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut *self.reads.lock().expect("no panic"))
    }

    /// The prefetches since the call before.
    fn take_prefetched(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut *self.prefetched.lock().expect("no panic"))
    }
}

impl ObjectReader for Watched {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.reads.lock().expect("no panic").push((offset, buffer.len() as u64));
        (self.watch.lock().expect("no panic"))();
        self.inner.read_at(offset, buffer)
    }

    fn prefetch(&self, offset: u64, len: u64) {
        self.prefetched.lock().expect("no panic").push((offset, len));
    }

    fn cancel_prefetch(&self, _offset: u64, _len: u64) {
        self.withdrawn.fetch_add(1, Ordering::SeqCst);
    }

    fn drop_cache(&self) {
        self.cache_drops.fetch_add(1, Ordering::SeqCst);
    }
}

/// Cells of data, of zeros, of both, cells that are absent, and a short last block.
fn image() -> TestImage {
    let mut random = Random(7);
    let mut blocks = BTreeMap::new();
    for cell in 0..CELLS {
        for bit in 0..8 {
            let block = match (cell % 6, bit % 4) {
                (0, _) => random.text(BLOCK),
                (1, 0) => random.noise(BLOCK),
                (1, 1) => vec![0; BLOCK],
                (2, _) => vec![0; BLOCK],
                (3, 3) => random.text(BLOCK),
                (5, 0 | 1) => random.text(BLOCK),
                _ => continue,
            };
            blocks.insert(cell * 8 + bit, block);
        }
    }
    blocks.insert(CELLS * 8 + 3, random.noise(BLOCK));
    TestImage::new(vec![(SIZE, blocks)])
}

/// The image and its archive, made once.
fn packed() -> (&'static TestImage, Vec<u8>) {
    static PACKED: OnceLock<(TestImage, Vec<u8>)> = OnceLock::new();
    let (image, bytes) = PACKED.get_or_init(|| {
        let image = image();
        let bytes = image.pack(1, 2);
        (image, bytes)
    });
    (image, bytes.clone())
}

/// The image, its archive and the archive's reader.
fn opened() -> (&'static TestImage, Archive, Arc<Watched>) {
    let (image, bytes) = packed();
    let reader = Watched::new(bytes);
    let archive = Archive::open(reader.clone()).expect("opens");
    (image, archive, reader)
}

fn expected(image: &TestImage, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xEE; len];
    image.volumes()[0].read_at(offset, &mut bytes).expect("reads");
    bytes
}

fn read(volume: &ArchiveVolume, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xAA; len];
    volume.read_at(offset, &mut bytes).expect("reads");
    bytes
}

/// Offset and length in the archive of the cell with this number, counted among all cells.
fn cell(archive: &Archive, number: usize) -> (u64, u64) {
    let group = &archive.root().groups[0];
    let cells = archive.group_index(group).expect("an index").cells;
    let before: u64 = cells[..number].iter().map(|cell| u64::from(cell.cell_len)).sum();
    (group.offset + before, cells[number].cell_len.into())
}

#[test]
fn eight_threads_read_the_bytes_of_the_source_at_random_offsets() {
    let (image, archive, _) = opened();
    let volume = archive.volume("snap-0").expect("a volume").with_cell_cache(4 * ONE_CELL);
    assert_eq!(volume.size().bytes(), SIZE);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let volume = volume.clone();
            scope.spawn(move || {
                let mut random = Random(thread);
                for _ in 0..25 {
                    let len = 1 + random.below(random.0 % 3 * 3_000_000 + 70_000);
                    let offset = random.below(SIZE - len + 1);
                    let found = read(&volume, offset, len as usize);
                    assert!(found == expected(image, offset, len as usize), "{len} at {offset}");
                }
            });
        }
    });
}

#[test]
fn the_block_map_and_the_digests_are_those_of_the_source() {
    let (image, archive, _) = opened();
    let volume = archive.volume("snap-0").expect("a volume");
    let map = image.volumes()[0].block_map().expect("a map");
    assert_eq!(volume.block_map().expect("a map"), map);
    let (mut bytes, mut digests) = (vec![0; 3 * BLOCK], Vec::new());
    volume.read_blocks(8 * BLOCK as u64, &mut bytes, &mut digests).expect("reads");
    let expected = bytes.chunks(BLOCK).map(amistore::internals::codec::sha256::digest);
    assert!(digests.iter().copied().eq(expected));
    let last = SIZE / BLOCK as u64 * BLOCK as u64;
    let (mut bytes, mut digests) = (vec![0; (SIZE - last) as usize], Vec::new());
    volume.read_blocks(last, &mut bytes, &mut digests).expect("reads");
    bytes.resize(BLOCK, 0);
    assert_eq!(digests, [amistore::internals::codec::sha256::digest(&bytes)]);
}

#[test]
fn the_volume_of_an_archive_equals_its_source() {
    let (image, archive, reader) = opened();
    let volume = archive.volume("snap-0").expect("a volume");
    let plan = Plan::new(2, 64 << 20, 1).expect("a plan");
    let cancel = Cancel::new();
    let context = Context { plan: &plan, observer: &NullObserver, cancel: &cancel };
    reader.take_reads();
    let (errors, more) =
        compare_volume(&volume, image.volumes()[0].as_ref(), context).expect("compares");
    assert_eq!((errors.len(), more), (0, 0));
    let read: u64 = reader.take_reads().iter().map(|(_, len)| len).sum();
    assert!(read < 64 << 10, "records and indexes are compared, and no data: {read}");
}

#[test]
fn one_cell_is_fetched_once_however_many_ask() {
    let (image, archive, reader) = opened();
    let volume = archive.volume("snap-0").expect("a volume");
    let expected = expected(image, 0, CELL);
    reader.take_reads();
    let barrier = Barrier::new(8);
    std::thread::scope(|scope| {
        for thread in 0..8usize {
            let (volume, barrier, expected) = (volume.clone(), &barrier, &expected);
            scope.spawn(move || {
                barrier.wait();
                let start = thread * BLOCK + 17;
                assert!(read(&volume, start as u64, 4096) == expected[start..start + 4096]);
            });
        }
    });
    let reads = reader.take_reads();
    assert_eq!(reads.iter().filter(|read| **read == cell(&archive, 0)).count(), 1, "{reads:?}");
    assert_eq!(reads.len(), 2, "the index and the cell: {reads:?}");
}

#[test]
fn absent_and_zero_blocks_are_not_fetched() {
    let (_, archive, reader) = opened();
    let volume = archive.volume("snap-0").expect("a volume");
    assert!(read(&volume, 2 * CELL as u64, 5).iter().all(|byte| *byte == 0));
    reader.take_reads();
    // Cell 2 is all zeros, of cell 3 and 4 the rest is absent.
    let zeros = read(&volume, 2 * CELL as u64 + 100, CELL + 2 * BLOCK);
    assert!(zeros.iter().all(|byte| *byte == 0));
    assert!(read(&volume, 4 * CELL as u64, CELL).iter().all(|byte| *byte == 0));
    // A zero block of a cell that holds data, too.
    assert!(read(&volume, 9 * BLOCK as u64, BLOCK).iter().all(|byte| *byte == 0));
    assert_eq!(reader.take_reads(), []);
}

#[test]
fn the_cache_never_exceeds_its_budget() {
    for budget in [ONE_CELL, 3 * ONE_CELL] {
        let (image, archive, reader) = opened();
        let volume = archive.volume("snap-0").expect("a volume").with_cell_cache(budget);
        let most = Arc::new(AtomicU64::new(0));
        let (watched, seen) = (volume.clone(), most.clone());
        *reader.watch.lock().expect("no panic") = Box::new(move || {
            seen.fetch_max(watched.cached_bytes(), Ordering::SeqCst);
        });
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let volume = volume.clone();
                scope.spawn(move || {
                    let mut random = Random(thread);
                    for _ in 0..20 {
                        let offset = random.below(SIZE - 9000);
                        assert!(read(&volume, offset, 9000) == expected(image, offset, 9000));
                    }
                });
            }
        });
        let most = most.load(Ordering::SeqCst);
        assert!(most > 0 && most <= budget, "{most} of {budget}");
        assert!(volume.cached_bytes() <= budget);
    }
}

#[test]
fn cells_behind_a_sequential_read_are_prefetched_and_behind_a_random_one_not() {
    let (_, archive, reader) = opened();
    let volume = archive.volume("snap-0").expect("a volume");
    let mut random = Random(3);
    for _ in 0..100 {
        read(&volume, random.below(SIZE - 5000), 5000);
    }
    assert_eq!(reader.take_prefetched(), [], "random reads");
    let volume = archive.volume("snap-0").expect("a volume");
    let step = |number: u64| read(&volume, number * 65_536, 65_536);
    (0..2).for_each(|number| drop(step(number)));
    assert_eq!(reader.take_prefetched(), [], "two reads are no sequence");
    step(2);
    // Cells 0 and 1 hold data, cell 2 only zeros, cell 3 data, cell 4 is absent.
    let prefetched = reader.take_prefetched();
    assert_eq!(prefetched[..2], [cell(&archive, 1), cell(&archive, 3)]);
    assert!(prefetched.len() <= 8, "{prefetched:?}");
    reader.take_reads();
    (3..=(CELL as u64 / 65_536)).for_each(|number| drop(step(number)));
    assert_eq!(reader.take_reads(), [cell(&archive, 1)], "it is read as it was announced");
    // Announcements that led to no read are withdrawn.
    let before = reader.withdrawn.load(Ordering::SeqCst);
    drop(volume);
    assert!(reader.withdrawn.load(Ordering::SeqCst) > before);
}

#[test]
fn a_damaged_cell_is_an_error_each_time_and_harms_no_other() {
    let (image, mut bytes) = packed();
    let archive = Archive::open(Watched::new(bytes.clone())).expect("opens");
    let (offset, len) = cell(&archive, 1);
    bytes[(offset + len - 100) as usize] ^= 1;
    let reader = Watched::new(bytes);
    let archive = Archive::open(reader.clone()).expect("opens");
    let volume = archive.volume("snap-0").expect("a volume");
    for _ in 0..2 {
        reader.take_reads();
        let error = volume.read_at(CELL as u64 + 5, &mut [0; 10]).expect_err("damaged");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(
            ["snapshot", "blocks", "offset", "archive"].map(|fact| error.fact(fact)),
            [Some("snap-0"), Some("8..15"), Some(offset.to_string().as_str()), Some("a.bin")]
        );
        let reads = reader.take_reads();
        let cells = reads.iter().filter(|read| **read == (offset, len)).count();
        assert_eq!(cells, 2, "it is read once more before it is called damaged: {reads:?}");
    }
    assert_eq!(reader.cache_drops.load(Ordering::SeqCst), 2);
    for number in [0, 3, 5, 6] {
        let at = number * CELL as u64;
        assert!(read(&volume, at, CELL) == expected(image, at, CELL), "cell {number}");
    }
    assert!(volume.read_at(SIZE - 1, &mut [0; 2]).is_err_and(|e| e.kind() == ErrorKind::Usage));
}

#[test]
fn a_bit_that_flips_once_in_transit_is_no_damage() {
    struct Flips(Arc<Watched>, AtomicU64, u64);
    impl ObjectReader for Flips {
        fn name(&self) -> &str {
            self.0.name()
        }
        fn len(&self) -> u64 {
            self.0.len()
        }
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
            self.0.read_at(offset, buffer)?;
            if offset == self.2 && self.1.fetch_add(1, Ordering::SeqCst) == 0 {
                buffer[3000] ^= 4;
            }
            Ok(())
        }
    }
    let (image, archive, reader) = opened();
    let (offset, _) = cell(&archive, 0);
    let flips = Arc::new(Flips(reader, AtomicU64::new(0), offset));
    let archive = Archive::open(flips.clone()).expect("opens");
    let volume = archive.volume("snap-0").expect("a volume");
    assert!(read(&volume, 0, CELL) == expected(image, 0, CELL));
    assert_eq!(flips.1.load(Ordering::SeqCst), 2);
}

#[test]
fn a_range_is_delivered_in_order_and_equals_the_source() {
    let (image, archive, reader) = opened();
    let volume = archive.volume("snap-0").expect("a volume");
    let cancel = Cancel::new();
    for (threads, memory) in [(1, 40 << 20), (4, 256 << 20)] {
        let plan = Plan::new(threads, memory, 1).expect("a plan");
        let context = Context { plan: &plan, observer: &NullObserver, cancel: &cancel };
        for (offset, len) in [(0, SIZE), (3, 5), (BLOCK as u64 * 7 - 1, 20_000_001), (SIZE - 7, 7)]
        {
            let planned = volume.cells_of_range(offset, len).expect("an index");
            reader.take_reads();
            let mut found = Vec::new();
            let write = |part: RangePart<'_>| {
                match part {
                    RangePart::Data(bytes) => found.extend_from_slice(bytes),
                    RangePart::Zeros(len) => found.resize(found.len() + len as usize, 0),
                }
                Ok(())
            };
            volume.read_range(offset, len, context, write).expect("reads");
            assert!(found == expected(image, offset, len as usize), "{len} at {offset}");
            let read: u64 = reader.take_reads().iter().map(|(_, len)| len).sum();
            let index = u64::from(archive.root().groups[0].index_len);
            assert_eq!(read, planned.stored + index, "{len} at {offset}");
        }
    }
}
