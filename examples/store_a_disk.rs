//! Stores a raw disk image or block device as an archive in a directory, and checks the archive.
//!
//! ```text
//! cargo run --example store_a_disk -- disk.raw archives/
//! ```

use std::process::ExitCode;

use amistore::{Disks, Options, Result, open_store};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [disk, directory] = arguments.as_slice() else {
        eprintln!("usage: store_a_disk DISK DIRECTORY");
        return ExitCode::from(2);
    };
    match run(disk, directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(error.kind().exit_code())
        }
    }
}

fn run(disk: &str, directory: &str) -> Result<()> {
    let options = Options::default();
    let image = Disks::named("an example").disk("/dev/xvda", disk).open()?;
    let store = open_store(directory, &options)?;
    let report = amistore::store(&image, &store, &options)?;
    println!("{} has {} bytes", report.key, report.archive_len);

    // Success says that the archive is on disk. A second look reads it back.
    let verified = amistore::verify(store.get(&report.key)?, &options)?;
    println!("{} blocks are checked, {} are damaged", verified.blocks, verified.findings.len());
    Ok(())
}
