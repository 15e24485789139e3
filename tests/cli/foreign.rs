//! Files that are no archives, or not whole, or of another version.

use std::io::Write;

use serde_json::{Value, json};

use crate::support::cli::{Anatomy, Sandbox, noise, resealed, sample_archive};

/// A file that is no archive is refused with exit code 8, from a file and from a pipe, and its
/// format is named.
#[track_caller]
fn refused(bytes: &[u8], looks_like: &str) {
    let sandbox = Sandbox::new().and("f", bytes);
    let words = ["this is not an amistore archive", &format!("looks like: {looks_like}")];
    for args in [
        &["verify", "f"][..],
        &["inspect", "f"],
        &["restore", "f", "out"],
        &["extract", "f", "--image-json"],
    ] {
        sandbox.run(args).failed(8, &words).says(&["archive: f"]);
    }
    for args in [&["verify", "-"][..], &["inspect", "-"], &["restore", "-", "out"]] {
        sandbox.run_with_input(args, bytes).failed(8, &words);
    }
    assert!(sandbox.left(&["f"]).is_empty(), "{:?}", sandbox.left(&["f"]));
}

#[test]
fn an_empty_file_is_no_archive() {
    refused(b"", "an empty file");
}

#[test]
fn a_few_bytes_are_no_archive() {
    refused(&sample_archive()[..3], "a few bytes");
}

#[test]
fn text_is_no_archive() {
    refused(b"To whom it may concern:\n\tnothing.\n", "text");
}

#[test]
fn json_is_no_archive() {
    refused(b"{\"Image\": {}}\n", "JSON text");
}

#[test]
fn gzip_is_no_archive() {
    refused(b"\x1F\x8B\x08\0\0\0\0\0\0\x03", "gzip data");
}

#[test]
fn a_tar_file_is_no_archive() {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    tar.append_data(&mut header, "hello.txt", &b"hello"[..]).expect("a member");
    refused(&tar.into_inner().expect("a tar file"), "a tar file");
}

#[test]
fn a_raw_disk_image_is_no_archive() {
    let mut disk = noise(1, 1);
    disk[510..512].copy_from_slice(&[0x55, 0xAA]);
    refused(&disk, "a raw disk image");
    let sandbox = Sandbox::new().and("f", disk);
    sandbox.run(&["verify", "f"]).failed(8, &["hint: to pack a disk image: amistore store --disk"]);
}

#[test]
fn a_qcow2_disk_image_is_no_archive() {
    refused(b"QFI\xFB\0\0\0\x03\0\0\0\0", "a qcow2 disk image");
}

#[test]
fn zstd_data_of_something_else_is_no_archive() {
    for (checksum, content_size) in [(false, false), (false, true), (true, true)] {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
        encoder.include_checksum(checksum).expect("a checksum");
        encoder.set_pledged_src_size(content_size.then_some(5)).expect("a size");
        encoder.write_all(b"hello").expect("data");
        refused(&encoder.finish().expect("a frame"), "zstd data of something else");
    }
}

#[test]
fn an_object_of_aws_is_refused_with_a_hint_to_restore_it() {
    let object = noise(9, 1);
    refused(&object, "unknown data, which is what objects made by AWS");
    let sandbox = Sandbox::new();
    let words = ["hint: an object made by AWS is restored by AWS: amistore restore --via-aws"];
    sandbox.run_with_input(&["restore", "-", "out"], &object).failed(8, &words);
}

#[test]
fn an_archive_that_is_truncated_anywhere_is_corrupt() {
    let archive = sample_archive();
    let sandbox = Sandbox::new();
    let near_end = (1..400).step_by(133).map(|less| archive.len() - less);
    for len in
        [4, 8, 20, 700, 5000, archive.len() / 3, archive.len() / 2].into_iter().chain(near_end)
    {
        sandbox.write("t.bin", &archive[..len]);
        for (args, input) in
            [(["restore", "t.bin", "out"], &b""[..]), (["restore", "-", "out"], &archive[..len])]
        {
            let outcome = sandbox.run_with_input(&args, input);
            assert_eq!(outcome.code, 5, "{len}: {}", outcome.stderr);
            outcome.failed(5, &["offset: ", "hint: fetch it again"]);
            assert_eq!(sandbox.left(&["t.bin"]), [""; 0], "{len}");
        }
    }
}

#[test]
fn a_truncated_archive_is_reported_as_truncated() {
    let archive = sample_archive();
    let sandbox = Sandbox::new().and("t.bin", &archive[..archive.len() / 2]);
    sandbox
        .run(&["inspect", "t.bin"])
        .failed(5, &["the archive is truncated", "hint: fetch it again, and compare its size"]);
    sandbox.run(&["extract", "t.bin", "--image-json"]).failed(5, &["the archive is truncated"]);
}

#[test]
fn an_archive_without_its_seek_table_can_be_restored_but_fails_verification() {
    let archive = sample_archive();
    let end = Anatomy::of(archive).footer.offset as usize + amistore::internals::format::FOOTER_LEN;
    let sandbox = Sandbox::new().and("t.bin", &archive[..end]);
    sandbox.run(&["restore", "t.bin", "out"]).succeeded();
    let outcome = sandbox.run(&["verify", "t.bin"]);
    assert_eq!(outcome.code, 5);
    assert!(
        outcome.text().starts_with("corrupt: the seek table is not that of the archive's frames"),
        "{}",
        outcome.text()
    );
}

#[test]
fn bytes_behind_an_archive_are_corrupt_in_a_stream() {
    let longer = [sample_archive(), b"more"].concat();
    let sandbox = Sandbox::new();
    sandbox
        .run_with_input(&["restore", "-", "out"], &longer)
        .failed(5, &["something follows the end of the archive"]);
    assert!(sandbox.left(&[]).is_empty());
}

/// An archive whose manifest was changed, and whose seals are whole, is unsupported, not corrupt.
#[track_caller]
fn unsupported(change: impl FnOnce(&mut Value), words: &[&str]) {
    let newer = resealed(sample_archive(), change);
    let sandbox = Sandbox::new().and("n.bin", &newer);
    for args in [&["verify", "n.bin"][..], &["inspect", "n.bin"], &["restore", "n.bin", "out"]] {
        sandbox.run(args).failed(8, words).says(&["hint: use a newer amistore"]);
    }
    for args in [&["verify", "-"][..], &["restore", "-", "out"]] {
        sandbox.run_with_input(args, &newer).failed(8, words);
    }
    assert!(sandbox.left(&["n.bin"]).is_empty());
}

#[test]
fn a_newer_format_version_is_unsupported() {
    unsupported(
        |manifest| manifest["version"] = json!(2),
        &["another format version", "version: 2", "supported: 1"],
    );
}

#[test]
fn an_unknown_feature_is_unsupported() {
    unsupported(
        |manifest| manifest["features"] = json!(["zap"]),
        &["a feature that this version does not know", "feature: zap"],
    );
}

#[test]
fn a_resealed_archive_is_valid() {
    let sandbox = Sandbox::new().and("a.bin", resealed(sample_archive(), |_| {}));
    sandbox.run(&["verify", "a.bin"]).succeeded();
}
