//! Throughput of what the work is made of: SHA-256, zero test, zstd, window index, block map. On
//! one thread.
//!
//! `cargo bench --bench kernels` takes less than a minute; a part of a name after `--` picks some
//! of them. The whole tool is timed by `compare.py`.

use std::hint::black_box;
use std::time::Duration;

use amistore::base::{BLOCK_BYTES, SLOTS_PER_WINDOW, SlotAddress, VolumeSize};
use amistore::codec::sha256::{self, Digest};
use amistore::codec::zero::is_zero;
use amistore::codec::zstd::{Decoder, Encoder};
use amistore::format::layout::DATA_FRAME_RAW;
use amistore::format::{BlockMap, WindowIndex, WindowSlot};
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use sha2::{Digest as _, Sha256};

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
        let mut word = || {
            (0..1 + self.below(4)).map(|_| SYLLABLES[self.below(16) as usize]).collect::<String>()
        };
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
fn sha256(criterion: &mut Criterion) {
    let data = Generator(1).noise(CELL);
    let blocks: Vec<&[u8]> = data.chunks_exact(BLOCK).collect();
    let mut group = criterion.benchmark_group("sha256");
    group.throughput(Throughput::Bytes(CELL as u64));
    group.bench_function("digest_many/8x512KiB", |bencher| {
        let mut digests = [Digest::default(); 8];
        bencher.iter(|| sha256::digest_many(black_box(&blocks), &mut digests));
    });
    group
        .bench_function("digest/4MiB", |bencher| bencher.iter(|| sha256::digest(black_box(&data))));
    group.bench_function("sha2/8x512KiB", |bencher| {
        bencher.iter(|| {
            blocks
                .iter()
                .map(|block| Sha256::digest(black_box(block))[0])
                .fold(0, |all, byte| all ^ byte)
        });
    });
    group.bench_function("sha2/4MiB", |bencher| bencher.iter(|| Sha256::digest(black_box(&data))));
    group.finish();
}

/// All of a block has to be looked at when it is zero, or when only its end is not.
fn zero(criterion: &mut Criterion) {
    let zeros = vec![0; BLOCK];
    let mut late = zeros.clone();
    late[BLOCK - 1] = 1;
    let mut group = criterion.benchmark_group("is_zero");
    group.throughput(Throughput::Bytes(BLOCK as u64));
    group.bench_function("zeros/512KiB", |bencher| bencher.iter(|| is_zero(black_box(&zeros))));
    group.bench_function("last-byte-set/512KiB", |bencher| {
        bencher.iter(|| is_zero(black_box(&late)))
    });
    group.finish();

    // Ends at the first bytes, so it has no throughput: this is the price of asking, for data.
    let noise = Generator(2).noise(BLOCK);
    criterion.bench_function("is_zero/data/512KiB", |bencher| {
        bencher.iter(|| is_zero(black_box(&noise)))
    });
}

/// A whole cell, as the packer makes it. Sizes go to stderr: a speed without its ratio says little.
fn zstd(criterion: &mut Criterion) {
    let contents = [("log", Generator(3).log(CELL)), ("noise", Generator(4).noise(CELL))];
    let mut frames = Vec::new();
    let mut group = criterion.benchmark_group("zstd-encode/4MiB");
    group.throughput(Throughput::Bytes(CELL as u64)).sampling_mode(SamplingMode::Flat);
    for (name, raw) in &contents {
        for level in LEVELS {
            let mut encoder = Encoder::new(level).expect("a level of the format");
            let mut frame = Vec::new();
            encoder.encode(raw, &mut frame).expect("encodes");
            eprintln!(
                "zstd {name}, level {level}: {:.1} % of the input",
                frame.len() as f64 * 100.0 / raw.len() as f64
            );
            group.bench_function(BenchmarkId::new(*name, level), |bencher| {
                bencher.iter(|| encoder.encode(black_box(raw), &mut frame))
            });
            frames.push((name, level, frame));
        }
    }
    group.finish();

    let mut group = criterion.benchmark_group("zstd-decode/4MiB");
    group.throughput(Throughput::Bytes(CELL as u64));
    for (name, level, frame) in &frames {
        // Noise is kept as level 1 made it: the frames of all levels are the same.
        if **name == "noise" && *level > 1 {
            continue;
        }
        let mut decoder = Decoder::new().expect("a decoder");
        let mut raw = Vec::new();
        group.bench_function(BenchmarkId::new(**name, level), |bencher| {
            bencher.iter(|| decoder.decode(black_box(frame), CELL, &mut raw).expect("decodes"));
        });
    }
    group.finish();
}

/// The index of a full window: 16 GiB of volume in 176 KiB.
fn window_index(criterion: &mut Criterion) {
    let size = VolumeSize::new(u64::from(SLOTS_PER_WINDOW) * CELL as u64).expect("a size");
    let mut generator = Generator(5);
    let slots: Vec<WindowSlot> = (0..SLOTS_PER_WINDOW as u16)
        .map(|slot| {
            let cell_len = 1_000_000 + generator.below(1_000_000) as u32;
            let present = 1 + generator.below(255) as u8;
            let zero = present & generator.next() as u8;
            let record_digest = generator.noise(32).try_into().expect("32 bytes");
            WindowSlot {
                cell_len,
                slot,
                present,
                zero,
                fill: zero & generator.next() as u8,
                record_digest,
            }
        })
        .collect();
    let cells_len = slots.iter().map(|slot| u64::from(slot.cell_len)).sum();
    let record = WindowIndex { volume: 0, window: 0, cells_len, content: [7; 32], slots }.encode();
    let mut group = criterion.benchmark_group("window-index");
    group.throughput(Throughput::Elements(u64::from(SLOTS_PER_WINDOW)));
    group.bench_function("parse/4096", |bencher| {
        bencher.iter(|| WindowIndex::parse(black_box(&record), size).expect("parses"))
    });
    group.finish();
}

/// A fragmented volume of 1 TiB: runs of 1 to 32 blocks with gaps of as many.
fn block_map(criterion: &mut Criterion) {
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
    let asked: Vec<SlotAddress> = (0..LOOKUPS)
        .map(|_| SlotAddress {
            window: generator.below(u64::from(size.windows())) as u32,
            slot: generator.below(u64::from(SLOTS_PER_WINDOW)) as u16,
        })
        .collect();

    let mut group = criterion.benchmark_group("block-map/1TiB");
    group.throughput(Throughput::Elements(runs.len() as u64));
    group.bench_function("insert", |bencher| bencher.iter(build));
    group.throughput(Throughput::Elements(LOOKUPS as u64));
    group.bench_function("get", |bencher| {
        bencher.iter(|| {
            asked.iter().map(|address| u64::from(map.get(black_box(*address)).present)).sum::<u64>()
        });
    });
    group.throughput(Throughput::Elements(extents));
    group.bench_function("extents", |bencher| {
        bencher
            .iter(|| black_box(&map).extents().map(|extent| u64::from(extent.count)).sum::<u64>());
    });
    group.finish();
}

fn main() {
    // Some twenty benchmarks: each may take two seconds.
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1200))
        .sample_size(15)
        .configure_from_args();
    sha256(&mut criterion);
    zero(&mut criterion);
    zstd(&mut criterion);
    window_index(&mut criterion);
    block_map(&mut criterion);
    criterion.final_summary();
}
