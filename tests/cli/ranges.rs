//! `extract --range` and `extract -o -`: a part of a volume, without reads of the rest.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::OnceLock;

use serde_json::Value;

use crate::support::cli::{
    Anatomy, BLOCK, DATA, ROOT, Sandbox, noise, sample_archive, text, wait_until,
};

/// 3 cells of noise, zeros, a cell whose second block is absent, and a short last block of text.
const SIZE: u64 = 60 * BLOCK + 1536;
const LAST: u64 = 60;

fn pieces() -> Vec<(u64, Vec<u8>)> {
    vec![
        (0, noise(1, 24)),
        (24, vec![0; 2 * BLOCK as usize]),
        (32, text(2, 1)),
        (34, text(3, 1)),
        (LAST, text(4, 1)[..1536].to_vec()),
    ]
}

/// A sandbox with the disk `d.raw` and its archive `a.bin`.
fn sandbox() -> Sandbox {
    static ARCHIVE: OnceLock<Vec<u8>> = OnceLock::new();
    let sandbox = Sandbox::new();
    sandbox.disk("d.raw", SIZE, &pieces());
    let archive = ARCHIVE.get_or_init(|| {
        let sandbox = Sandbox::new();
        sandbox.disk("d.raw", SIZE, &pieces());
        let store = ["store", "--disk", "/dev/xvda=d.raw", "--name", "disk", "a.bin"];
        sandbox.run(&store).succeeded();
        sandbox.read("a.bin")
    });
    sandbox.and("a.bin", archive)
}

fn range_of(sandbox: &Sandbox, range: &str, output: &str) -> Vec<u8> {
    let args = ["extract", "a.bin", "--device", "/dev/xvda", "--range", range, "-o", output];
    let outcome = sandbox.run(&args).succeeded();
    if output == "-" { outcome.stdout } else { sandbox.read(output) }
}

fn expected(sandbox: &Sandbox, offset: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0xEE; len as usize];
    let disk = File::open(sandbox.path("d.raw")).expect("a disk");
    disk.read_exact_at(&mut bytes, offset).expect("its bytes");
    bytes
}

fn number(report: &Value, member: &str) -> u64 {
    report[member].as_u64().unwrap_or_else(|| panic!("{member} is no number: {report}"))
}

#[test]
fn a_range_is_the_same_bytes_in_a_file_and_on_stdout() {
    let sandbox = sandbox();
    for (number, (offset, len)) in [
        (0, 1),
        // Within a block, over the end of a block and of a cell, with odd numbers.
        (777, 3333),
        (BLOCK - 3, 7),
        (8 * BLOCK - 1, 8 * BLOCK + 2),
        // Over data, zero blocks, absent blocks and data again.
        (23 * BLOCK + 5, 12 * BLOCK - 11),
        // Only zeros, only absent blocks.
        (24 * BLOCK + 1, 1000),
        (40 * BLOCK, 10 * BLOCK),
        // The short last block, and all.
        (LAST * BLOCK - 5, 1541),
        (SIZE - 1, 1),
        (0, SIZE),
    ]
    .into_iter()
    .enumerate()
    {
        let range = format!("{offset}+{len}");
        let expected = expected(&sandbox, offset, len);
        assert!(range_of(&sandbox, &range, "-") == expected, "{range} on stdout");
        assert!(range_of(&sandbox, &range, &format!("{number}.raw")) == expected, "{range}");
    }
    assert!(range_of(&sandbox, "2MiB+1KiB", "-") == expected(&sandbox, 2 << 20, 1024));
}

#[test]
fn a_range_is_as_sparse_as_its_volume() {
    let sandbox = sandbox();
    let range = format!("{}+{}", 24 * BLOCK, 36 * BLOCK);
    range_of(&sandbox, &range, "x.raw");
    let metadata = std::fs::metadata(sandbox.path("x.raw")).expect("a file");
    assert_eq!(metadata.len(), 36 * BLOCK);
    assert!(metadata.blocks() * 512 <= 4 * BLOCK, "{} blocks", metadata.blocks());
}

#[test]
fn a_range_reads_its_cells_and_the_index_and_no_more() {
    let sandbox = sandbox();
    let all = sandbox.read("a.bin").len() as u64;
    let report = |range: &str, more: &[&str]| {
        let args = ["extract", "a.bin", "--device", "/dev/xvda", "--output", "json"];
        let args = [&args[..], &["--range", range, "-o", "x.raw", "--force"], more].concat();
        sandbox.run(&args).succeeded().json()
    };
    // Head, index and metadata; then one cell of noise, which takes 4 MiB and little more.
    let zeros = number(&report("12MiB+1MiB", &[]), "BytesRead");
    assert!(zeros < 200 << 10, "{zeros}");
    let one = report("100+1", &[]);
    assert!(number(&one, "BytesRead") < zeros + (4 << 20) + (64 << 10), "{one}");
    assert!(number(&one, "BytesRead") < all / 2, "{one}");
    assert_eq!(number(&one, "BytesRead"), zeros + number(&one, "StoredBytes"));
    assert_eq!(["Offset", "Length", "AllocatedBytes"].map(|name| number(&one, name)), [100, 1, 1]);
    let planned = report("100+1", &["--dry-run"]);
    assert_eq!(planned["DryRun"], true);
    assert_eq!(number(&planned, "StoredBytes"), number(&one, "StoredBytes"));
}

#[test]
fn a_volume_goes_to_stdout_and_its_report_does_not() {
    let sandbox = sandbox();
    let args = ["extract", "a.bin", "--device", "/dev/xvda", "-o", "-"];
    let outcome = sandbox.run(&args).succeeded();
    assert!(outcome.stdout == expected(&sandbox, 0, SIZE));
    outcome.says(&["extracted ", " to standard output: 30.0 MiB"]);
    let outcome = sandbox.run(&[&args[..], &["--output", "json"]].concat()).succeeded();
    assert!(outcome.stdout == expected(&sandbox, 0, SIZE));
    let report: Value = serde_json::from_str(&outcome.stderr).expect("a report on stderr");
    assert_eq!(
        (&report["File"], number(&report, "VolumeBytes")),
        (&"standard output".into(), SIZE)
    );
    // A file with this name is not used, and no file is made.
    assert_eq!(sandbox.left(&["a.bin", "d.raw"]), [""; 0]);
}

#[test]
fn an_invalid_range_is_refused() {
    let sandbox = Sandbox::with_archive();
    let run = |range: &str| {
        let args = ["extract", "a.bin", "--snapshot", DATA, "-o", "x.raw", "--range", range];
        sandbox.run(&args)
    };
    for range in ["", "5", "5+", "+5", "5+0", "5-6", "1+2+3", "x+1", "1.5GiB+1"] {
        run(range).failed(2, &["not a "]);
    }
    for range in ["1GiB+1", "1073741823+2", "1+1GiB", "18446744073709551615+1"] {
        run(range).failed(2, &["past the end of the volume", DATA, "size: 1073741824"]);
    }
    sandbox.run(&["extract", "a.bin", "--image-json", "--range", "0+1"]).failed(2, &["--range"]);
    assert_eq!(sandbox.left(&["a.bin"]), [""; 0]);
}

#[test]
fn a_range_does_not_replace_a_file_or_the_archive() {
    let sandbox = Sandbox::with_archive().and("x.raw", "precious");
    let args = ["extract", "a.bin", "--snapshot", DATA, "--range", "0+1", "-o"];
    sandbox.run(&[&args[..], &["x.raw"]].concat()).failed(9, &["the file exists"]);
    sandbox.run(&[&args[..], &["x.raw", "--dry-run"]].concat()).failed(9, &["the file exists"]);
    sandbox.run(&[&args[..], &["a.bin", "--force"]].concat()).failed(2, &["would be lost"]);
    sandbox.run(&[&args[..], &["x.raw", "--force"]].concat()).succeeded();
    assert_eq!(sandbox.read("x.raw").len(), 1);
}

#[test]
fn damage_is_an_error_only_inside_of_the_range() {
    let [record, frame] = Anatomy::of(sample_archive()).cell(0, 1);
    let mut damaged = sample_archive().to_vec();
    damaged[frame.0 + frame.1 / 2] ^= 1;
    let sandbox = Sandbox::with_image().and("a.bin", damaged);
    let run = |range: &str, output: &str| {
        sandbox.run(&["extract", "a.bin", "--snapshot", ROOT, "--range", range, "-o", output])
    };
    // Block 9 is in the damaged cell, as block 8 is, which is absent.
    for output in ["x.raw", "-"] {
        run(&format!("{}+1", 9 * BLOCK), output).failed(
            5,
            &[ROOT, "blocks: 8..15", &format!("offset: {}", record.0), "hint: fetch it again"],
        );
    }
    assert_eq!(sandbox.left(&["a.bin", "image", "image/"]), [""; 0]);
    let around = [(0, 9 * BLOCK), (10 * BLOCK, 100 * BLOCK), (2047 * BLOCK, BLOCK)];
    for (offset, len) in around {
        let found = run(&format!("{offset}+{len}"), "-").succeeded().stdout;
        let mut expected = vec![1; len as usize];
        let disk = File::open(sandbox.path(&format!("image/{ROOT}.raw"))).expect("a disk");
        disk.read_exact_at(&mut expected, offset).expect("its bytes");
        assert!(found == expected, "{len} at {offset}");
    }
    // The bytes before the damage are on stdout, and the exit code reports the error.
    let outcome = run(&format!("0+{}", 10 * BLOCK), "-");
    assert_eq!(outcome.code, 5, "{}", outcome.stderr);
    assert!(outcome.stdout.len() as u64 <= 8 * BLOCK);
}

#[test]
fn an_early_end_of_the_reader_of_a_volume_is_an_error() {
    let sandbox = sandbox();
    let outcome = sandbox.shell(
        "{ \"$AMISTORE\" extract a.bin --device /dev/xvda -o -; echo $? > code; } | head -c 1000 \
         | wc -c",
    );
    assert_eq!(outcome.text().trim(), "1000");
    assert_eq!(sandbox.read("code"), b"6\n");
    outcome.says(&[
        "error: cannot write the volume",
        "path: standard output",
        "hint: the reader of the output stopped\n",
    ]);
    let outcome = sandbox
        .shell("exec \"$AMISTORE\" extract a.bin --device /dev/xvda -o - > /dev/full")
        .failed(6, &["cannot write the volume", "No space left on device"]);
    assert!(!outcome.stderr.contains("archive"), "{}", outcome.stderr);
}

#[test]
fn an_extraction_to_a_pipe_can_be_interrupted() {
    let sandbox = sandbox();
    let args = ["extract", "a.bin", "--device", "/dev/xvda", "-o", "-"];
    let mut running = sandbox.start(&mut sandbox.command(&args));
    // The pipe is full, and stays so.
    let mut pipe = running.child().stdout.take().expect("its output");
    let mut first = [0; 1];
    std::io::Read::read_exact(&mut pipe, &mut first).expect("a byte");
    wait_until("a write that waits", || {
        let wchan = std::fs::read_to_string(format!("/proc/{}/stat", running.child().id()));
        wchan.is_ok_and(|stat| stat.contains(") S "))
    });
    running.signal("INT");
    let outcome = running.wait();
    assert_eq!((outcome.code, outcome.stderr.contains("interrupted")), (130, true));
}
