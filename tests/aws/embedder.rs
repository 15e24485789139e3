//! The library as an embedder sees it: nothing but the public names of the crate.

use std::collections::BTreeMap;

use amistore::{Disks, ErrorKind, Options, Result, StoreReport, open_store, store};
use amistore_aws_double::s3::{Fault, FaultKind, When};
use tempfile::TempDir;

use super::s3::setup::{BUCKET, Bench};
use crate::support::image::Random;

/// Bytes of the disk: random, so that its archive has several parts of the least size.
const DISK: usize = 40 << 20;

/// The parts that the server accepted since the last reset, with their number.
fn accepted_parts(bench: &Bench) -> BTreeMap<u32, usize> {
    let mut parts = BTreeMap::new();
    for call in bench.server.calls() {
        if call.operation == "UploadPart" && call.status == 200 {
            *parts.entry(call.part_number.expect("a number")).or_default() += 1;
        }
    }
    parts
}

#[test]
fn a_state_directory_lets_a_failed_store_continue_and_sends_no_part_twice() {
    let bench = Bench::new();
    let directory = TempDir::new().expect("a directory");
    let disk = directory.path().join("disk.raw");
    std::fs::write(&disk, Random(11).noise(DISK)).expect("a disk");
    let options = Options::default()
        .threads(2)
        .access(bench.access())
        .state_directory(directory.path().join("state"));
    let run = |prefix: &str, options: &Options| -> Result<StoreReport> {
        let image = Disks::named("web").disk("/dev/xvda", &disk).open()?;
        store(&image, &open_store(&format!("s3://{BUCKET}/{prefix}"), options)?, options)
    };

    bench.server.fail(Fault::new(FaultKind::AccessDenied, When::CallOf("UploadPart", 4)));
    let error = run("a/", &options).expect_err("a part is refused");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    let first = accepted_parts(&bench);
    assert!(first.len() >= 2, "{first:?}");
    assert_eq!(bench.open_uploads(), 1, "the upload stays for the next run");

    bench.server.clear_faults();
    bench.server.reset_calls();
    let report = run("a/", &options).expect("it continues");
    let second = accepted_parts(&bench);
    assert!(second.keys().all(|number| !first.contains_key(number)), "{first:?} {second:?}");
    assert_eq!(bench.open_uploads(), 0);

    // Without a state directory nothing stays, and the bytes are those of one run.
    let without = Options::default().threads(2).access(bench.access());
    let whole = run("b/", &without).expect("a store");
    assert_eq!(bench.bytes(&report.key), bench.bytes(&whole.key));
    bench.server.fail(Fault::new(FaultKind::AccessDenied, When::CallOf("UploadPart", 4)));
    bench.server.reset_calls();
    run("c/", &without).expect_err("a part is refused");
    assert_eq!(bench.open_uploads(), 0, "no task file names it");
}
