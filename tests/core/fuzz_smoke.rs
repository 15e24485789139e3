//! A short, seeded run of the fuzz targets over mutations of valid inputs, on the stable toolchain.
//! The long runs are those of `cargo fuzz` (`tests/fuzz`).

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::Command;

use crate::support::image::Random;

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

/// A number below `bound`; 0 if there is none.
fn below(random: &mut Random, bound: usize) -> usize {
    random.below(bound.max(1) as u64) as usize
}

/// Numbers at which lengths and counts go wrong.
const EDGES: [u64; 12] = [
    0,
    1,
    7,
    8,
    15,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFF8,
    0xFFFF_FFFF,
    1 << 46,
    i64::MAX as u64,
    u64::MAX,
];

/// One to three changes: bits, bytes, lengths, pieces of this or another input.
fn mutate(input: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    for _ in 0..=below(random, 3) {
        let at = below(random, input.len());
        let end = (at + 1 + below(random, 64)).min(input.len());
        match below(random, 7) {
            0 => input.truncate(at),
            1 => drop(input.drain(at.min(end)..end)),
            2 => {
                let run = input[at.min(end)..end].to_vec();
                input.splice(at.min(end)..at.min(end), run);
            }
            3 => {
                let other = &seeds[below(random, seeds.len())];
                let from = below(random, other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            4 | 5 => {
                let width = 1 << below(random, 4);
                let value = EDGES[below(random, EDGES.len())].to_le_bytes();
                input
                    .iter_mut()
                    .skip(at)
                    .take(width)
                    .zip(value)
                    .for_each(|(byte, new)| *byte = new);
            }
            _ => input.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << below(random, 8)),
        }
    }
}

fn target(name: &str) -> fuzz::Target {
    fuzz::TARGETS.iter().find(|(target, _)| *target == name).expect("a target of this name").1
}

/// Runs a target over its first `limit` seeds and `rounds` mutations of them.
fn smoke(name: &str, rounds: usize, limit: usize) {
    let target = target(name);
    let mut seeds = fuzz::seeds(name);
    seeds.truncate(limit);
    for seed in &seeds {
        target(seed);
    }
    let mut random = Random(0xA111);
    for round in 0..rounds {
        let mut input = seeds[below(&mut random, seeds.len())].clone();
        mutate(&mut input, &seeds, &mut random);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(&input))) {
            let digits: String =
                input.iter().take(4096).map(|byte| format!("{byte:02x}")).collect();
            eprintln!("target {name}, round {round}, {} bytes: {digits}", input.len());
            resume_unwind(panic);
        }
    }
}

#[test]
fn records() {
    smoke("records", 10_000, usize::MAX);
}

#[test]
fn zstd_frames() {
    smoke("zstd_frame", 10_000, usize::MAX);
}

#[test]
fn tar_headers() {
    smoke("tar", 5000, usize::MAX);
}

#[test]
fn image_json() {
    smoke("image_json", 10_000, usize::MAX);
}

#[test]
fn whole_archives() {
    // The others hold data, whose digests are slow to compute without optimisation.
    smoke("archive", 1500, 2);
}

#[test]
fn resealed_archives() {
    // Without edits, an archive that is taken apart and put together is the same archive, also for
    // images with data.
    for image in [8, 12] {
        target("resealed")(&[image]);
    }
    smoke("resealed", 300, 34);
}

#[test]
fn round_trips() {
    smoke("round_trip", 10, usize::MAX);
}

/// A tenth of the smallest memory that a claim of 2^32 bytes would take, and several times what the
/// test itself needs.
const MEMORY_KIB: u32 = 400 << 10;

#[test]
fn hostile_counts_reserve_no_memory() {
    // The limit is one of the process, so the process is another one.
    let exe = std::env::current_exe().expect("the test knows where it is");
    let output = Command::new("sh")
        .args(["-c", &format!("ulimit -v {MEMORY_KIB} && exec \"$0\" \"$@\"")])
        .arg(exe)
        .args(["--exact", "fuzz_smoke::hostile_counts", "--ignored", "--test-threads=1"])
        .env("MALLOC_ARENA_MAX", "1")
        .output()
        .expect("a shell runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
#[ignore = "needs a limit of memory to say anything; hostile_counts_reserve_no_memory sets it"]
fn hostile_counts() {
    let huge = [&[0xFF; 4][..], &[0xFF; 8], &[0, 0, 0, 0x10], b"99999999"];
    // Every field of every record alone, and with it every count and length.
    for seed in fuzz::seeds("records") {
        for at in 9..seed.len() {
            for value in huge {
                let mut input = seed.clone();
                input.iter_mut().skip(at).zip(value).for_each(|(byte, new)| *byte = *new);
                target("records")(&input);
            }
        }
    }
    // The end of the object, which no digest covers: footer and seek table, whose fields stand at
    // multiples of 4 before the number of frames.
    let archive = &fuzz::seeds("archive")[1];
    for at in (0..70).map(|word| archive.len() - 9 - 4 * word) {
        for value in &huge[..2] {
            let mut input = archive.clone();
            input.iter_mut().skip(at).zip(*value).for_each(|(byte, new)| *byte = *new);
            target("archive")(&input);
        }
    }
    // The rest under digests that are right; the manifest's numbers are digits.
    for (part, len) in fuzz::SIZED_PARTS {
        for at in (0..*len).step_by(4) {
            let all =
                [(2, u64::from(u32::MAX)), (3, u64::MAX), (3, u64::from_le_bytes(*b"99999999"))];
            for (operation, value) in if at < 80 { &all[..] } else { &all[2..] } {
                target("resealed")(&fuzz::resealing_input(1, *part, *operation, at, *value));
            }
        }
    }
}
