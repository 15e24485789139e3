//! `extract` and `inspect`: parts of an archive, without reads of the rest.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use crate::support::cli::{BLOCK, DATA, IMAGE, ROOT, Sandbox, sample_archive, sample_json};

/// Asserts that an extracted disk has the data of its source, and is as sparse.
#[track_caller]
fn same_disk(sandbox: &Sandbox, one: &str, other: &str) {
    let [one, other] = [one, other].map(|name| File::open(sandbox.path(name)).expect("a disk"));
    let [one_is, other_is] = [&one, &other].map(|disk| disk.metadata().expect("metadata"));
    assert_eq!(one_is.len(), other_is.len());
    assert!(one_is.blocks() * 512 < 16 << 20, "holes were filled");
    for block in [0, 1, 2, 9, 20, 21, 100, 1000, 2047] {
        let [mut data, mut expected] = [vec![1; BLOCK as usize], vec![2; BLOCK as usize]];
        one.read_exact_at(&mut data, block * BLOCK).expect("a block");
        other.read_exact_at(&mut expected, block * BLOCK).expect("a block");
        assert!(data == expected, "block {block} differs");
    }
}

#[test]
fn a_volume_is_extracted_by_device() {
    let sandbox = Sandbox::with_image().and("a.bin", sample_archive());
    let outcome =
        sandbox.run(&["extract", "a.bin", "--device", "/dev/xvda", "-o", "x.raw"]).succeeded();
    assert!(
        outcome.text().starts_with(&format!("extracted {ROOT} to x.raw: 1.0 GiB")),
        "{}",
        outcome.text()
    );
    assert_eq!(sandbox.left(&["a.bin", "image", "image/"]), ["x.raw"]);
    same_disk(&sandbox, "x.raw", &format!("image/{ROOT}.raw"));
}

#[test]
fn a_volume_is_extracted_by_snapshot() {
    let sandbox = Sandbox::with_image().and("a.bin", sample_archive());
    sandbox.run(&["extract", "a.bin", "--snapshot", DATA, "-o", "x.raw"]).succeeded();
    same_disk(&sandbox, "x.raw", &format!("image/{DATA}.raw"));
}

#[test]
fn the_image_document_is_extracted_byte_by_byte() {
    let sandbox = Sandbox::with_archive();
    let expected = sample_json().to_string();
    assert_eq!(sandbox.run(&["extract", "a.bin", "--image-json"]).succeeded().text(), expected);
    assert_eq!(
        sandbox.run(&["extract", "a.bin", "--image-json", "-o", "-"]).succeeded().text(),
        expected
    );
    assert_eq!(
        sandbox.run(&["extract", "a.bin", "--image-json", "-o", "i.json"]).succeeded().text(),
        format!("extracted image.json to i.json: {} bytes\n", expected.len())
    );
    assert_eq!(sandbox.read("i.json"), expected.as_bytes());
    assert_eq!(sandbox.left(&["a.bin"]), ["i.json"]);
}

#[test]
fn an_unknown_device_is_answered_with_the_known_ones() {
    let sandbox = Sandbox::with_archive();
    let words = [
        "the image has no such device",
        "device: /dev/sdz",
        "devices: /dev/xvda, /dev/sdb, /dev/sdc",
    ];
    sandbox.run(&["extract", "a.bin", "--device", "/dev/sdz", "-o", "x.raw"]).failed(3, &words);
    assert_eq!(sandbox.left(&["a.bin"]), [""; 0]);
}

#[test]
fn an_unknown_snapshot_is_answered_with_the_known_ones() {
    let sandbox = Sandbox::with_archive();
    let words = [
        "the archive has no such snapshot",
        "snapshot: snap-0",
        &format!("snapshots: {ROOT}, {DATA}"),
    ];
    sandbox.run(&["extract", "a.bin", "--snapshot", "snap-0", "-o", "x.raw"]).failed(3, &words);
    assert_eq!(sandbox.left(&["a.bin"]), [""; 0]);
}

#[test]
fn an_ephemeral_device_cannot_be_extracted() {
    let sandbox = Sandbox::with_archive();
    let words = ["the device has no snapshot: it is ephemeral", "device: /dev/sdc"];
    sandbox.run(&["extract", "a.bin", "--device", "/dev/sdc", "-o", "x.raw"]).failed(3, &words);
    assert_eq!(sandbox.left(&["a.bin"]), [""; 0]);
}

#[test]
fn extraction_reads_only_the_volume() {
    let sandbox = Sandbox::with_archive();
    let report = sandbox
        .run(&["extract", "a.bin", "--device", "/dev/xvda", "-o", "x.raw", "--output", "json"])
        .succeeded()
        .json();
    let number = |member: &str| report[member].as_u64().expect("a number");
    assert!(number("BytesRead") < number("StoredBytes") + (160 << 10), "{report}");
    assert!(number("BytesRead") < sample_archive().len() as u64 / 2, "{report}");
    assert_eq!(
        (&report["SnapshotId"], &report["File"], &report["DryRun"]),
        (&ROOT.into(), &"x.raw".into(), &false.into())
    );
    assert_eq!((number("VolumeBytes"), number("AllocatedBytes")), (1 << 30, 4 << 19));
}

#[test]
fn an_extraction_of_the_image_document_reads_little() {
    // Damage in the data is not detected, because no data is read.
    let sandbox = Sandbox::new();
    let mut damaged = sample_archive().to_vec();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    sandbox.write("a.bin", damaged);
    sandbox.run(&["extract", "a.bin", "--image-json"]).succeeded();
    sandbox.run(&["inspect", "a.bin"]).succeeded();
}

#[test]
fn inspection_reads_only_head_and_index() {
    let sandbox = Sandbox::with_archive();
    let report = sandbox.run(&["inspect", "a.bin", "--output", "json"]).succeeded().json();
    assert!(report["BytesRead"].as_u64().is_some_and(|read| read < 200 << 10), "{report}");
    assert_eq!(report["ArchiveBytes"], sample_archive().len());
    assert_eq!((&report["Format"], &report["FormatVersion"]), (&"amibin".into(), &1.into()));
    assert_eq!(report["Image"]["ImageId"], IMAGE);
    assert_eq!(report["Volumes"][0]["SnapshotId"], ROOT);
    assert_eq!(report["Volumes"][0]["DeviceNames"], serde_json::json!(["/dev/xvda"]));
    assert_eq!(report["Volumes"][0]["AllocatedBytes"], 4 << 19);
    assert_eq!(report["Volumes"][0]["ZeroBytes"], 1 << 19);
    assert_eq!(report["Volumes"][0]["Map"].as_array().map(Vec::len), Some(128));
}

#[test]
fn inspection_prints_the_content_of_an_archive() {
    let text = Sandbox::with_archive().run(&["inspect", "a.bin"]).succeeded().text();
    for words in [
        "a.bin  (",
        "format   amibin 1, zstd",
        &format!("image {IMAGE}"),
        "Name                sample",
        "/dev/sdc            no snapshot",
        ROOT,
        DATA,
    ] {
        assert!(text.contains(words), "`{words}` is missing in {text}");
    }
}

#[test]
fn a_stream_is_inspected_to_its_end() {
    let report = Sandbox::new()
        .run_with_input(&["inspect", "-", "--output", "json"], sample_archive())
        .succeeded()
        .json();
    assert_eq!(report["BytesRead"], sample_archive().len());
    assert_eq!(
        (&report["Archive"], &report["Image"]["ImageId"]),
        (&"standard input".into(), &IMAGE.into())
    );
}

#[test]
fn control_characters_of_an_archive_do_not_reach_the_terminal() {
    let sandbox = Sandbox::with_image();
    let mut document = sample_json();
    document["Image"]["Description"] = "\u{1B}[2J".into();
    sandbox.write("image/image.json", document.to_string());
    sandbox.run(&["store", "image", "a.bin"]).succeeded();
    let outcome = sandbox.run(&["inspect", "a.bin"]).succeeded();
    assert!(
        !outcome.stdout.contains(&0x1B) && outcome.text().contains("[2J"),
        "{}",
        outcome.text()
    );
}
