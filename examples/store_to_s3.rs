//! Stores a raw disk image to a bucket, continues after an interruption, and lists the bucket.
//!
//! ```text
//! cargo run --example store_to_s3 -- disk.raw s3://bucket/prefix/ [ENDPOINT]
//! ```
//!
//! Region and credentials are those of the environment and of AWS's configuration files.

use std::process::ExitCode;

use amistore::{Access, Disks, Options, Result, open_store};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (disk, url, endpoint) = match arguments.as_slice() {
        [disk, url] => (disk, url, None),
        [disk, url, endpoint] => (disk, url, Some(endpoint.clone())),
        _ => {
            eprintln!("usage: store_to_s3 DISK s3://BUCKET/PREFIX/ [ENDPOINT]");
            return ExitCode::from(2);
        }
    };
    match run(disk, url, endpoint) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(error.kind().exit_code())
        }
    }
}

fn run(disk: &str, url: &str, endpoint: Option<String>) -> Result<()> {
    let options = Options::default()
        .access(Access { endpoint_url: endpoint, ..Access::default() })
        // After an interruption the same call sends only the parts that are missing.
        .state_directory(std::env::temp_dir().join("amistore-example"));
    let image = Disks::named("an example").disk("/dev/xvda", disk).open()?;
    let store = open_store(url, &options)?;
    let report = amistore::store(&image, &store, &options)?;
    println!("{} {}", report.key, if report.existed { "existed" } else { "is stored" });
    for listed in store.list()? {
        println!("{} has {} bytes", listed.key, listed.len);
    }
    Ok(())
}
