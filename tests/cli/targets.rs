//! Targets: existing files, dry runs, and concurrent writers.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::{FlockOperation, flock};

use crate::support::cli::{DATA, IMAGE, ROOT, Sandbox, noise, sample_archive, text, wait_until};

/// A call that stores the sample image.
const STORE: [&str; 3] = ["store", "image", "a.bin"];
const SET_UP: [&str; 2] = ["image", "image/"];

#[test]
fn an_existing_archive_is_not_overwritten() {
    let sandbox = Sandbox::with_image().and("a.bin", "precious");
    sandbox.run(&STORE).failed(
        9,
        &[
            "the file exists",
            "path: ./a.bin",
            "hint: choose another name, or replace it with --force",
        ],
    );
    assert_eq!(sandbox.read("a.bin"), b"precious");
    assert_eq!(sandbox.left(&SET_UP), ["a.bin"]);
}

#[test]
fn an_existing_archive_is_replaced_by_force() {
    let sandbox = Sandbox::with_image().and("a.bin", "old");
    sandbox.run(&[&STORE[..], &["--force"]].concat()).succeeded();
    assert!(sandbox.read("a.bin") == sample_archive());
    assert_eq!(sandbox.left(&SET_UP), ["a.bin"]);
}

#[test]
fn an_archive_is_named_after_its_image_in_a_directory() {
    let sandbox = Sandbox::with_image();
    sandbox.make_directory("archives");
    sandbox.run(&["store", "image", "archives"]).succeeded();
    assert_eq!(sandbox.left(&SET_UP), ["archives/", &format!("archives/{IMAGE}.bin")]);
}

#[test]
fn the_directory_of_an_archive_must_exist() {
    let sandbox = Sandbox::with_image();
    for (archive, dry_run) in [("nowhere/", false), ("nowhere/a.bin", false), ("nowhere/", true)] {
        let args = [&["store", "image", archive][..], if dry_run { &["--dry-run"] } else { &[] }];
        sandbox.run(&args.concat()).failed(
            3,
            &[
                "the directory of the target does not exist",
                "directory: nowhere",
                "hint: its directory has to exist: make it with mkdir -p",
            ],
        );
    }
    assert!(sandbox.left(&SET_UP).is_empty());
}

#[test]
fn a_restored_image_equals_the_stored_one() {
    let sandbox = Sandbox::with_image().and("a.bin", sample_archive());
    sandbox.run(&["restore", "a.bin", "out"]).succeeded();
    assert_eq!(
        sandbox.left(&["a.bin", "image", "image/"]),
        ["out/", "out/image.json", &format!("out/{ROOT}.raw"), &format!("out/{DATA}.raw")]
    );
    assert_eq!(sandbox.read("out/image.json"), sandbox.read("image/image.json"));
    // A second store gives the same bytes: data, holes and written zeros are where they were.
    sandbox.run(&["store", "out", "again.bin"]).succeeded();
    assert!(sandbox.read("again.bin") == sample_archive());
}

#[test]
fn a_directory_with_an_image_is_not_a_restore_target() {
    let sandbox = Sandbox::with_archive();
    sandbox.make_directory("out");
    sandbox.write("out/image.json", "{}");
    sandbox
        .run(&["restore", "a.bin", "out"])
        .failed(9, &["the directory holds an image already", "path: out/image.json", "--force"]);
    assert_eq!(sandbox.left(&["a.bin"]), ["out/", "out/image.json"]);
    assert_eq!(sandbox.read("out/image.json"), b"{}");
}

#[test]
fn an_existing_raw_file_is_not_overwritten() {
    let sandbox = Sandbox::with_archive();
    sandbox.make_directory("out");
    let raw = format!("out/{DATA}.raw");
    sandbox.write(&raw, "precious");
    sandbox.run(&["restore", "a.bin", "out"]).failed(9, &["the file exists", &raw]);
    assert_eq!(sandbox.left(&["a.bin"]), ["out/", &raw]);
    assert_eq!(sandbox.read(&raw), b"precious");
}

#[test]
fn an_image_is_replaced_by_force() {
    let sandbox = Sandbox::with_archive();
    sandbox.sample_image("out");
    sandbox.write("out/image.json", "{}");
    sandbox.run(&["restore", "--force", "a.bin", "out"]).succeeded();
    assert_ne!(sandbox.read("out/image.json"), b"{}");
    assert_eq!(sandbox.left(&["a.bin"]).len(), 4);
}

#[test]
fn an_empty_directory_is_a_restore_target() {
    let sandbox = Sandbox::with_archive();
    sandbox.make_directory("out");
    sandbox.run(&["restore", "a.bin", "out"]).succeeded();
    assert_eq!(sandbox.left(&["a.bin"]).len(), 4);
}

#[test]
fn a_file_is_no_target_of_a_restore() {
    let sandbox = Sandbox::with_archive().and("out", "precious");
    sandbox.run(&["restore", "--force", "a.bin", "out"]).failed(
        9,
        &[
            "exists and is not a directory",
            "hint: choose another name: an archive is restored to a directory",
        ],
    );
    assert_eq!(sandbox.read("out"), b"precious");
}

#[test]
fn an_extracted_file_is_not_overwritten() {
    let sandbox = Sandbox::with_archive().and("x.raw", "precious");
    for what in [&["--device", "/dev/xvda"][..], &["--image-json"]] {
        sandbox
            .run(&[&["extract", "a.bin", "-o", "x.raw"], what].concat())
            .failed(9, &["the file exists", "path: x.raw", "--force"]);
    }
    assert_eq!(sandbox.left(&["a.bin"]), ["x.raw"]);
    sandbox.run(&["extract", "a.bin", "-o", "x.raw", "--snapshot", DATA, "--force"]).succeeded();
    assert_eq!(std::fs::metadata(sandbox.path("x.raw")).expect("a file").len(), 1 << 30);
}

#[test]
fn a_dry_run_writes_nothing() {
    let sandbox = Sandbox::with_image().and("a.bin", sample_archive());
    let set_up = ["a.bin", "image", "image/"];
    for (args, says) in [
        (&["store", "image", "b.bin"][..], "would store ami-0123456789abcdef0 as ./b.bin"),
        (&["store", "image", "b.bin", "--sparse"], "would store"),
        (&["restore", "a.bin", "out"], "would restore ami-0123456789abcdef0 to out"),
        (
            &["extract", "a.bin", "--device", "/dev/sdb", "-o", "x.raw"],
            "would extract snap-0bbbbbbbbbbbbbbbb to x.raw",
        ),
        (
            &["extract", "a.bin", "--image-json", "-o", "x.json"],
            "would extract image.json to x.json",
        ),
    ] {
        let outcome = sandbox.run(&[args, &["--dry-run"]].concat()).succeeded();
        assert!(outcome.text().starts_with(says), "{}", outcome.text());
        assert_eq!(sandbox.left(&set_up), [""; 0], "{args:?}");
    }
}

#[test]
fn a_dry_run_refuses_the_same_as_the_run() {
    let sandbox = Sandbox::with_image().and("a.bin", sample_archive());
    std::fs::write(sandbox.path("x.raw"), b"precious").expect("writes");
    for (args, refusal) in [
        (&["store", "image", "a.bin"][..], "the file exists"),
        (&["restore", "a.bin", "image"], "the directory holds an image already"),
        (&["extract", "a.bin", "--device", "/dev/sdb", "-o", "x.raw"], "the file exists"),
        (&["extract", "a.bin", "--image-json", "-o", "x.raw"], "the file exists"),
    ] {
        sandbox
            .run(&[args, &["--dry-run"]].concat())
            .failed(9, &[refusal, "hint: choose another name, or replace it with --force"]);
        sandbox.run(&[args, &["--dry-run", "--force"]].concat()).succeeded();
    }
    for (args, code, refusal) in [
        (&["restore", "a.bin", "nowhere/out"][..], 3, "hint: the directory above it has to exist"),
        (&["restore", "a.bin", "x.raw"], 9, "the target exists and is not a directory"),
        (&["extract", "a.bin", "--image-json", "-o", "nowhere/x"], 3, "its directory has to exist"),
    ] {
        sandbox.run(args).failed(code, &[refusal]);
        sandbox.run(&[args, &["--dry-run"]].concat()).failed(code, &[refusal]);
    }
}

#[test]
fn a_dry_run_of_a_stream_says_what_is_known_without_reading_it() {
    let sandbox = Sandbox::new().and("a.bin", sample_archive());
    let unknown = "(size and content are known when it is read)";
    for (args, says) in [
        (["copy", "-", "b.bin"], format!("would copy standard input to b.bin {unknown}")),
        (["restore", "-", "out"], format!("would restore standard input to out {unknown}")),
        (["copy", "a.bin", "-"], "would copy ami-0123456789abcdef0 from a.bin to".to_owned()),
    ] {
        let text = sandbox.run(&[&args[..], &["--dry-run"]].concat()).succeeded().text();
        assert!(text.starts_with(&says) && text.contains("\n  memory 256 MiB"), "{text}");
        let more = ["--dry-run", "--output", "json"];
        let plan = sandbox.run(&[&args[..], &more].concat()).succeeded().json();
        assert_eq!(plan["DryRun"], true);
        assert_eq!(plan["ArchiveBytes"].is_null(), args[1] == "-", "{plan}");
    }
    sandbox.run(&["copy", "-", "a.bin", "--dry-run"]).failed(9, &["the file exists"]);
    let missing = format!("file://{}", sandbox.path("nowhere/b.bin").display());
    for target in ["nowhere/b.bin", &missing] {
        sandbox.run(&["copy", "-", target, "--dry-run"]).failed(3, &["directory: ", "nowhere"]);
    }
    assert_eq!(sandbox.left(&["a.bin"]), [""; 0]);
}

#[test]
fn a_target_that_is_its_own_source_is_refused() {
    let sandbox = Sandbox::with_image().and("a.bin", sample_archive());
    let raw = format!("image/{DATA}.raw");
    for args in [
        &["store", "image", &raw, "--force"][..],
        &["store", "--disk", &format!("/dev/xvda={raw}"), "--name", "itself", &raw, "--force"],
        &["extract", "a.bin", "--device", "/dev/sdb", "-o", "a.bin", "--force"],
        &["extract", "a.bin", "--image-json", "-o", "a.bin", "--force"],
    ] {
        sandbox.run(args).failed(2, &["the target is one of the sources, and would be lost"]);
    }
    assert_eq!(sandbox.read("a.bin"), sample_archive());
}

#[test]
fn two_images_with_the_same_metadata_do_not_replace_each_other() {
    let sandbox = Sandbox::with_image();
    let disk = |byte: u8| {
        std::fs::write(sandbox.path("disk.raw"), vec![byte; 1 << 20]).expect("writes");
        sandbox.run(&["store", "--disk", "/dev/xvda=disk.raw", "--name", "nightly", "./"])
    };
    disk(1).succeeded();
    disk(2).failed(
        9,
        &[
            "derived from name, attributes and sizes",
            "hint: give the image another --name or an --image-id",
        ],
    );
}

#[test]
fn an_archive_is_within_the_length_of_its_dry_run() {
    let sandbox = Sandbox::with_image();
    let plan = sandbox
        .run(&["store", "image", "b.bin", "--dry-run", "--output", "json"])
        .succeeded()
        .json();
    let at_most = plan["ArchiveBytesAtMost"].as_u64().expect("a number");
    let len = sample_archive().len() as u64;
    assert!((len..len + (8 << 20)).contains(&at_most), "{at_most} for {len}");
}

#[test]
fn the_second_writer_of_a_file_is_refused() {
    let sandbox = Sandbox::with_image().and(".a.bin.partial", "of another store");
    let other = File::options()
        .read(true)
        .write(true)
        .open(sandbox.path(".a.bin.partial"))
        .expect("a file");
    flock(&other, FlockOperation::NonBlockingLockExclusive).expect("a lock");
    sandbox.run(&STORE).failed(
        9,
        &["another process is writing this file", "path: ./a.bin", "hint: wait for it to end"],
    );
    sandbox
        .run(&[&STORE[..], &["--force"]].concat())
        .failed(9, &["another process is writing this file"]);
    assert_eq!(sandbox.left(&SET_UP), [".a.bin.partial"]);
    let mut untouched = [0; 16];
    other.read_exact_at(&mut untouched, 0).expect("its content");
    assert_eq!(&untouched, b"of another store");
}

#[test]
fn one_of_two_concurrent_writers_wins() {
    let sandbox = Sandbox::with_image();
    let mut writers: Vec<_> = (0..2).map(|_| sandbox.start(&mut sandbox.command(&STORE))).collect();
    let mut codes: Vec<i32> = writers.drain(..).map(|writer| writer.wait().code).collect();
    codes.sort_unstable();
    assert_eq!(codes, [0, 9]);
    assert_eq!(sandbox.left(&SET_UP), ["a.bin"]);
    assert!(sandbox.read("a.bin") == sample_archive());
}

#[test]
fn a_killed_store_leaves_a_partial_file_for_the_next_one() {
    let sandbox = Sandbox::new();
    sandbox.disk("disk.raw", 1 << 30, &[(0, text(1, 16))]);
    let store = ["store", "--disk", "/dev/xvda=disk.raw", "--name", "sample", "a.bin"];
    let mut running =
        sandbox.start(&mut sandbox.command(&[&store[..], &["--level", "12"]].concat()));
    wait_until("the partial file", || sandbox.path(".a.bin.partial").exists());
    running.signal("KILL");
    assert_eq!(running.wait().code, -9);
    assert_eq!(sandbox.left(&["disk.raw"]), [".a.bin.partial"]);
    sandbox.write(".a.bin.partial", noise(1, 20));
    sandbox.run(&store).succeeded();
    assert_eq!(sandbox.left(&["disk.raw"]), ["a.bin"]);
    sandbox.run(&["verify", "a.bin"]).succeeded();
}
