//! Full disks, and readers that stop.

use crate::support::cli::{IMAGE, Sandbox, sample_archive};

/// Runs the program where files may have this many blocks of 512 bytes: a write beyond fails, as on
/// a disk that is full.
#[track_caller]
fn with_small_files(sandbox: &Sandbox, blocks: u64, args: &str, words: &[&str]) {
    sandbox
        .shell(&format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$AMISTORE\" {args}"))
        .failed(6, words)
        .says(&["File too large"]);
}

#[test]
fn a_store_that_runs_out_of_space_leaves_nothing() {
    let sandbox = Sandbox::with_image();
    with_small_files(
        &sandbox,
        2000,
        "store image a.bin",
        &["cannot write the archive", "path: ./a.bin"],
    );
    assert_eq!(sandbox.left(&["image", "image/"]), [""; 0]);
}

#[test]
fn a_restore_that_runs_out_of_space_leaves_nothing() {
    let sandbox = Sandbox::with_archive();
    with_small_files(
        &sandbox,
        2000,
        "restore a.bin out",
        &["the file system cannot hold a file of this size", "size: 1073741824", "XFS"],
    );
    assert_eq!(sandbox.left(&["a.bin"]), [""; 0]);
}

#[test]
fn an_extraction_that_runs_out_of_space_leaves_nothing() {
    let sandbox = Sandbox::with_archive();
    with_small_files(
        &sandbox,
        2000,
        "extract a.bin --device /dev/sdb -o x.raw",
        &["the file system cannot hold a file of this size", "path: x.raw"],
    );
    assert_eq!(sandbox.left(&["a.bin"]), [""; 0]);
}

/// Runs the program on a disk of 1 MiB, if this system lets users make one. The program must report
/// that the disk is full, and leave no file there.
#[track_caller]
fn on_a_full_disk(sandbox: &Sandbox, args: &str, words: &[&str]) {
    let full = [
        "No space left on device",
        "hint: free some space or choose another target; the partial file has been removed",
    ];
    on_a_small_disk(sandbox, args, &[words, &full[..]].concat());
}

/// Runs the program on a disk of 1 MiB, if this system lets users make one. It fails, and leaves no
/// file there.
#[track_caller]
fn on_a_small_disk(sandbox: &Sandbox, args: &str, words: &[&str]) {
    sandbox.make_directory("small");
    let script = format!(
        "mount -t tmpfs -o size=1m none small || exit 77; \"$AMISTORE\" {args}; code=$?; [ -z \
         \"$(ls -A small)\" ] || echo left: $(ls -AR small); exit $code"
    );
    let outcome = sandbox
        .shell(&format!("unshare --user --map-root-user --mount sh -c '{script}' || exit $?"));
    if outcome.stderr.contains("unshare") || outcome.code == 77 || outcome.code == 127 {
        return;
    }
    outcome.failed(6, words);
}

#[test]
fn a_store_to_a_full_disk_leaves_nothing() {
    on_a_full_disk(
        &Sandbox::with_image(),
        "store image small/",
        &["cannot write the archive", &format!("path: small/{IMAGE}.bin")],
    );
}

#[test]
fn a_restore_to_a_disk_with_too_little_room_fails_before_the_first_byte() {
    on_a_small_disk(
        &Sandbox::with_archive(),
        "restore a.bin small/out",
        &["too little room", "needed: ", "free: ", "path: small/out"],
    );
}

#[test]
fn a_restore_of_a_stream_to_a_full_disk_leaves_nothing() {
    on_a_full_disk(
        &Sandbox::with_archive(),
        "restore - small/out < a.bin",
        &["cannot write the disk image", "path: small/out/", "offset: "],
    );
}

#[test]
fn an_extraction_to_a_full_disk_leaves_nothing() {
    on_a_full_disk(
        &Sandbox::with_archive(),
        "extract a.bin --device /dev/sdb -o small/x.raw",
        &["cannot write the disk image", "path: small/x.raw"],
    );
}

#[test]
fn a_full_device_behind_stdout_is_an_error() {
    let sandbox = Sandbox::with_image().and("a.bin", sample_archive());
    for (args, says) in [
        ("inspect a.bin", "cannot write to standard output"),
        ("store image -", "path: standard output"),
        ("completions bash", "cannot write to standard output"),
    ] {
        sandbox
            .shell(&format!("exec \"$AMISTORE\" {args} > /dev/full"))
            .failed(6, &[says, "No space left on device", "what is there is not whole"]);
    }
}

#[test]
fn an_early_end_of_the_reader_of_an_archive_is_an_error() {
    let sandbox = Sandbox::with_image();
    let outcome =
        sandbox.shell("{ \"$AMISTORE\" store image -; echo $? > code; } | head -c 1000 | wc -c");
    assert_eq!(outcome.text().trim(), "1000");
    assert_eq!(sandbox.read("code"), b"6\n");
    outcome.says(&[
        "error: cannot write the archive",
        "path: standard output",
        "hint: the reader of the output stopped; what it got is not a whole archive",
    ]);
}

#[test]
fn a_result_on_a_closed_pipe_is_an_error() {
    let sandbox = Sandbox::with_archive();
    // A pipe whose reader has closed it before a byte is written.
    let outcome =
        sandbox.shell("mkfifo f; exec 8<>f; exec 9>f; exec 8<&-; \"$AMISTORE\" inspect a.bin >&9");
    outcome.failed(
        6,
        &[
            "cannot write to standard output",
            "Broken pipe",
            "hint: the reader of the output stopped\n",
        ],
    );
}
