//! Writes a range of a volume to standard output: only the cells that hold the range are read.
//!
//! ```text
//! cargo run --example read_a_range -- archives/ami-0123456789abcdef0.bin /dev/xvda 1024 512
//! ```

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use amistore::{Archive, BlockSource, Options, Result, open_store};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let range = |offset: &String, len: &String| Some((offset.parse().ok()?, len.parse().ok()?));
    let [archive, device, offset, len] = arguments.as_slice() else {
        eprintln!("usage: read_a_range ARCHIVE DEVICE OFFSET LENGTH");
        return ExitCode::from(2);
    };
    let Some((offset, len)) = range(offset, len) else {
        eprintln!("OFFSET and LENGTH are numbers of bytes");
        return ExitCode::from(2);
    };
    let bytes = match read(Path::new(archive), device, offset, len) {
        Ok(bytes) => bytes,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(error.kind().exit_code());
        }
    };
    match std::io::stdout().write_all(&bytes) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn read(path: &Path, device: &str, offset: u64, len: usize) -> Result<Vec<u8>> {
    let directory = path.parent().map(|path| path.display().to_string()).unwrap_or_default();
    let key = path.file_name().map(|name| name.display().to_string()).unwrap_or_default();
    let store = open_store(&directory, &Options::default())?;
    let volume = Archive::open(store.get(&key)?)?.volume(device)?;
    let mut bytes = vec![0; len];
    volume.read_at(offset, &mut bytes)?;
    Ok(bytes)
}
