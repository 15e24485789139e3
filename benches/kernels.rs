//! Throughput of what the work is made of: SHA-256, zero test, zstd, group index, block map. On
//! one thread.
//!
//! `cargo bench --bench kernels` takes less than a minute; a part of a name after `--` picks some
//! of them. The whole tool is timed by `compare.py`.

mod timer;

use std::hint::black_box;

use amistore::internals::base::{BLOCK_BYTES, CELLS_PER_GROUP, CellAddress, VolumeSize};
use amistore::internals::codec::sha256::{self, Digest};
use amistore::internals::codec::zero::is_zero;
use amistore::internals::codec::zstd::{Decoder, Encoder};
use amistore::internals::format::layout::DATA_FRAME_RAW;
use amistore::internals::format::{BlockMap, CellEntry, GroupIndex};
use sha2::{Digest as _, Sha256};
use timer::{Timer, Work};

const BLOCK: usize = BLOCK_BYTES as usize;
const CELL: usize = DATA_FRAME_RAW;
const LEVELS: [i32; 3] = [1, 3, 9];

/// Splitmix64: small, and the same bytes on every machine.
struct Generator(u64);

impl Generator {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Below `limit`, small numbers far more often: what words and addresses in logs are like.
    fn skewed(&mut self, limit: u64) -> u64 {
        let part = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        (part * part * part * limit as f64) as u64
    }

    fn noise(&mut self, len: usize) -> Vec<u8> {
        (0..len.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(len).collect()
    }

    /// Lines of a log: they shrink to about a third.
    fn log(&mut self, len: usize) -> Vec<u8> {
        const SYLLABLES: [&str; 16] = [
            "al", "ba", "con", "der", "es", "fi", "gra", "hol", "in", "jor", "ka", "lum", "men",
            "nor", "os", "pre",
        ];
        let mut word =
            || (0..=self.below(4)).map(|_| SYLLABLES[self.below(16) as usize]).collect::<String>();
        let words: Vec<String> = (0..4000).map(|_| word()).collect();
        let (mut text, mut time) = (String::with_capacity(len + 256), 1_760_000_000_000u64);
        while text.len() < len {
            use std::fmt::Write;
            time += self.below(40);
            let level = ["INFO", "DEBUG", "WARN", "ERROR"][self.skewed(4) as usize];
            let (service, first, second) = (self.skewed(25), self.skewed(4000), self.skewed(4000));
            let line = format_args!(
                "{time} {level} {} request={:08x} user={} ms={} {} {}\n",
                words[service as usize],
                self.next() as u32,
                self.skewed(500_000),
                self.skewed(900),
                words[first as usize],
                words[second as usize]
            )
            .to_string();
            text.write_str(&line).expect("a string takes all");
        }
        text.truncate(len);
        text.into_bytes()
    }
}

/// The lengths the pipeline works with: the blocks of a cell together, and a frame alone.
fn sha256(timer: &Timer) {
    let data = Generator(1).noise(CELL);
    let blocks: Vec<&[u8]> = data.chunks_exact(BLOCK).collect();
    let work = Work::Bytes(CELL as u64);
    let mut digests = [Digest::default(); 8];
    timer.time("sha256/digest_many/8x512KiB", work, || {
        sha256::digest_many(black_box(&blocks), &mut digests);
    });
    timer.time("sha256/digest/4MiB", work, || sha256::digest(black_box(&data)));
    timer.time("sha256/sha2/8x512KiB", work, || {
        blocks
            .iter()
            .map(|block| Sha256::digest(black_box(block))[0])
            .fold(0, |all, byte| all ^ byte)
    });
    timer.time("sha256/sha2/4MiB", work, || Sha256::digest(black_box(&data)));
}

/// All of a block has to be looked at when it is zero, or when only its end is not. Data ends at
/// the first bytes: its time is the price of the test, and its rate means nothing.
fn zero(timer: &Timer) {
    let zeros = vec![0; BLOCK];
    let mut late = zeros.clone();
    late[BLOCK - 1] = 1;
    let noise = Generator(2).noise(BLOCK);
    let work = Work::Bytes(BLOCK as u64);
    timer.time("is_zero/zeros/512KiB", work, || is_zero(black_box(&zeros)));
    timer.time("is_zero/last-byte-set/512KiB", work, || is_zero(black_box(&late)));
    timer.time("is_zero/data/512KiB", Work::Items(1), || is_zero(black_box(&noise)));
}

/// A whole cell, as the packer makes it, with the length of the frame: a speed without its ratio
/// says little.
fn zstd(timer: &Timer) {
    let work = Work::Bytes(CELL as u64);
    for (name, raw) in [("log", Generator(3).log(CELL)), ("noise", Generator(4).noise(CELL))] {
        for level in LEVELS {
            let mut encoder = Encoder::new(level).expect("a level of the format");
            let mut frame = Vec::new();
            encoder.encode(&raw, &mut frame).expect("encodes");
            let share = frame.len() as f64 * 100.0 / raw.len() as f64;
            timer.time(&format!("zstd-encode/{name}/{level} ({share:.1} %)"), work, || {
                encoder.encode(black_box(&raw), &mut frame)
            });
            // Level 1 stores noise, and so do the others: their frames are the same.
            if name == "noise" && level > 1 {
                continue;
            }
            let mut decoder = Decoder::new().expect("a decoder");
            let mut decoded = Vec::new();
            timer.time(&format!("zstd-decode/{name}/{level}"), work, || {
                decoder.decode(black_box(&frame), CELL, &mut decoded).expect("decodes");
            });
        }
    }
}

/// The index of a full group: 16 GiB of volume in 176 KiB.
fn group_index(timer: &Timer) {
    let size = VolumeSize::new(u64::from(CELLS_PER_GROUP) * CELL as u64).expect("a size");
    let mut generator = Generator(5);
    let cells: Vec<CellEntry> = (0..CELLS_PER_GROUP as u16)
        .map(|index| {
            let cell_len = 1_000_000 + generator.below(1_000_000) as u32;
            let present = 1 + generator.below(255) as u8;
            let zero = present & generator.next() as u8;
            let record_digest = generator.noise(32).try_into().expect("32 bytes");
            CellEntry {
                cell_len,
                index,
                present,
                zero,
                fill: zero & generator.next() as u8,
                record_digest,
            }
        })
        .collect();
    let cells_len = cells.iter().map(|cell| u64::from(cell.cell_len)).sum();
    let record = GroupIndex { volume: 0, group: 0, cells_len, content: [7; 32], cells }.encode();
    timer.time("group-index/parse/4096", Work::Items(1), || {
        GroupIndex::parse(black_box(&record), size).expect("parses")
    });
}

/// A fragmented volume of 1 TiB: runs of 1 to 32 blocks with gaps of as many.
fn block_map(timer: &Timer) {
    const LOOKUPS: usize = 4096;
    let size = VolumeSize::new(1 << 40).expect("a size");
    let mut generator = Generator(6);
    let mut runs = Vec::new();
    let mut at = 0;
    while at < size.blocks() {
        let (count, gap) = (1 + generator.below(32) as u32, 1 + generator.below(32) as u32);
        runs.push((at, count));
        at += count + gap;
    }
    let build = || {
        let mut map = BlockMap::new(size);
        for (first, count) in &runs {
            map.insert(*first, *count);
        }
        map
    };
    let map = build();
    let extents = map.extents().count() as u64;
    let addresses: Vec<CellAddress> = (0..LOOKUPS)
        .map(|_| CellAddress {
            group: generator.below(u64::from(size.groups())) as u32,
            index: generator.below(u64::from(CELLS_PER_GROUP)) as u16,
        })
        .collect();

    timer.time("block-map/1TiB/insert", Work::Items(runs.len() as u64), build);
    timer.time("block-map/1TiB/get", Work::Items(LOOKUPS as u64), || {
        addresses.iter().map(|address| u64::from(map.get(black_box(*address)).present)).sum::<u64>()
    });
    timer.time("block-map/1TiB/extents", Work::Items(extents), || {
        black_box(&map).extents().map(|extent| u64::from(extent.count)).sum::<u64>()
    });
}

fn main() {
    let timer = Timer::from_args();
    sha256(&timer);
    zero(&timer);
    zstd(&timer);
    group_index(&timer);
    block_map(&timer);
}
