//! Times a function: samples of at least 50 ms after a warm-up, of which the median and the spread
//! are printed.
//!
//! It is here because a benchmark library is compiled for every `cargo test`, and takes longer
//! to build than these kernels to run.

use std::hint::black_box;
use std::time::{Duration, Instant};

const WARM_UP: Duration = Duration::from_millis(300);
const SAMPLES: usize = 15;
const SAMPLE: Duration = Duration::from_millis(50);

/// A unit of work for each call of the timed function.
#[derive(Clone, Copy)]
pub enum Work {
    /// Bytes processed; the rate is printed in MiB/s.
    Bytes(u64),
    /// Items processed; the rate is printed in thousands a second.
    Items(u64),
}

/// Times the functions whose name contains the filter.
pub struct Timer {
    filter: String,
}

impl Timer {
    /// The filter is the first argument that is not a flag; cargo passes `--bench`.
    pub fn from_args() -> Self {
        let filter = std::env::args().skip(1).find(|word| !word.starts_with('-'));
        Self { filter: filter.unwrap_or_default() }
    }

    /// Prints time of a call and work per second of `run`, unless the filter leaves it out.
    pub fn time<T>(&self, name: &str, work: Work, mut run: impl FnMut() -> T) {
        if !name.contains(&self.filter) {
            return;
        }
        let (mut calls, started) = (0u32, Instant::now());
        while started.elapsed() < WARM_UP {
            black_box(run());
            calls += 1;
        }
        let call = started.elapsed() / calls;
        let calls = (SAMPLE.as_secs_f64() / call.as_secs_f64()).ceil().max(1.0) as u32;
        let mut samples = [Duration::ZERO; SAMPLES];
        for sample in &mut samples {
            let started = Instant::now();
            for _ in 0..calls {
                black_box(run());
            }
            *sample = started.elapsed() / calls;
        }
        samples.sort_unstable();
        let [low, median, high] = [0, SAMPLES / 2, SAMPLES - 1].map(|index| samples[index]);
        let rate = match work {
            Work::Bytes(bytes) => {
                format!("{:.1} MiB/s", bytes as f64 / median.as_secs_f64() / f64::from(1 << 20))
            }
            Work::Items(items) => {
                format!("{:.1} thousand/s", items as f64 / median.as_secs_f64() / 1e3)
            }
        };
        println!("{name:<36} {median:>12.3?}  [{low:.3?} .. {high:.3?}]  {rate}");
    }
}
