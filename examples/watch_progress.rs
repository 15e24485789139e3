//! Verifies an archive with a progress line, and stops after a time limit.
//!
//! ```text
//! cargo run --example watch_progress -- archives/ ami-0123456789abcdef0.bin [SECONDS]
//! ```

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use amistore::{Cancel, Event, Observer, Options, Result, open_store};

/// Prints stages, and a line for each 64 MiB.
#[derive(Default)]
struct Progress(AtomicU64);

impl Observer for Progress {
    fn note(&self, event: &Event<'_>) {
        match event {
            Event::Started { stage, .. } => println!("{} begins", stage.name()),
            Event::Advanced { bytes, .. } => {
                let before = self.0.fetch_add(*bytes, Ordering::Relaxed);
                let after = before + bytes;
                if before >> 26 != after >> 26 {
                    println!("{} MiB", after >> 20);
                }
            }
            Event::Finished { stage } => println!("{} has ended", stage.name()),
            Event::Damage { error } => println!("damage: {error}"),
            _ => {}
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (directory, key, seconds) = match arguments.as_slice() {
        [directory, key] => (directory, key, None),
        [directory, key, seconds] => (directory, key, seconds.parse().ok()),
        _ => {
            eprintln!("usage: watch_progress DIRECTORY ARCHIVE [SECONDS]");
            return ExitCode::from(2);
        }
    };
    match verify(directory, key, Duration::from_secs(seconds.unwrap_or(3600))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(error.kind().exit_code())
        }
    }
}

fn verify(directory: &str, key: &str, limit: Duration) -> Result<bool> {
    let cancel = Cancel::new();
    let options = Options::default().observer(Arc::new(Progress::default())).cancel(&cancel);
    let timer = cancel.clone();
    std::thread::spawn(move || {
        std::thread::sleep(limit);
        timer.cancel();
    });
    let store = open_store(directory, &options)?;
    let verified = amistore::verify(store.get(key)?, &options)?;
    println!("{} blocks are checked", verified.blocks);
    Ok(verified.is_ok())
}
