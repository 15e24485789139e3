//! `fixtures/`: archives of released versions stay readable, and packing still gives the same
//! bytes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use amistore::internals::base::{ErrorKind, hex};
use amistore::internals::engine::{PackOptions, Plan};
use serde_json::{Value, json};

use crate::support::image::{
    BLOCK, Random, TestImage, by_ranges, by_stream, stream_verdict, verdict,
};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/v1")
}

/// The image that the fixtures hold.
fn image() -> TestImage {
    let json = concat!(
        r#"{"Image":{"ImageId":"ami-0123456789abcdef0","Name":"golden","BlockDeviceMappings":["#,
        r#"{"DeviceName":"/dev/xvda","Ebs":{"SnapshotId":"snap-0"}},"#,
        r#"{"DeviceName":"/dev/sdb","Ebs":{"SnapshotId":"snap-1"}}]}}"#
    );
    let mut random = Random(2026);
    let mut small = BTreeMap::new();
    for block in 0..41 {
        match random.below(4) {
            0 => small.insert(block, random.text(3000)),
            1 => small.insert(block, random.noise(500)),
            2 => small.insert(block, vec![0]),
            _ => None,
        };
    }
    let wide = BTreeMap::from([
        (0, b"first".to_vec()),
        (32_767, b"end of a window".to_vec()),
        (32_768, vec![0]),
        (81_919, b"last".to_vec()),
    ]);
    TestImage::with_document(json.into(), vec![(41 * BLOCK as u64 - 512, small), (40 << 30, wide)])
}

fn pack(level: i32) -> Vec<u8> {
    let options = PackOptions { writer: "amistore/0.1.0".into(), ..PackOptions::default() };
    image().pack_with(&Plan::new(2, 256 << 20, level).expect("a plan"), &options).0
}

/// Damaged archives, by name.
fn damaged(archive: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let find = |word: &[u8]| {
        archive.windows(word.len()).position(|found| found == word).expect("the word is there") - 8
    };
    let cell = |nth: usize| {
        let starts = archive.windows(5).enumerate().filter(|(_, found)| found == b"AMIBC");
        starts.map(|(at, _)| at - 8).nth(nth).expect("a cell")
    };
    let flipped = |at: usize| {
        let mut bytes = archive.to_vec();
        bytes[at] ^= 4;
        bytes
    };
    let (first, second, third) = (cell(0), cell(1), cell(2));
    let swapped =
        [&archive[..first], &archive[second..third], &archive[first..second], &archive[third..]]
            .concat();
    vec![
        ("damaged-data", flipped(second - 20)),
        ("damaged-cell", flipped(first + 100)),
        ("damaged-index", flipped(find(b"AMIBS") + 90)),
        ("damaged-root", flipped(find(b"AMIBR") + 60)),
        ("damaged-footer", flipped(find(b"AMIBF") + 40)),
        ("damaged-swapped", swapped),
        (
            "damaged-hole",
            [&archive[..second], &vec![0; third - second], &archive[third..]].concat(),
        ),
        ("damaged-cut", archive[..archive.len() / 2].to_vec()),
    ]
}

#[test]
fn packing_gives_the_bytes_of_the_fixtures() {
    let write = std::env::var("AMISTORE_WRITE_FIXTURES").is_ok_and(|value| value == "1");
    let level_1 = pack(1);
    let mut files: Vec<(String, Vec<u8>)> =
        vec![("level-3.bin".into(), pack(3)), ("level-19.bin".into(), pack(19))];
    files.extend(damaged(&level_1).into_iter().map(|(name, bytes)| (format!("{name}.bin"), bytes)));
    files.push(("level-1.bin".into(), level_1));
    let mut expected = BTreeMap::new();
    for (name, bytes) in &files {
        let kind = |kind: Option<ErrorKind>| kind.map_or("ok", ErrorKind::name);
        let content = if name.starts_with("level") {
            json!(hex(&crate::support::forge::sha(bytes)))
        } else {
            Value::Null
        };
        let outcome = json!({
            "ranges": kind(verdict(bytes)),
            "stream": kind(stream_verdict(bytes)),
            "sha256": content,
        });
        expected.insert(name.clone(), outcome);
        let path = directory().join(name);
        if write && !path.exists() {
            fs::write(path, bytes).expect("writes");
        }
    }
    let path = directory().join("expected.json");
    if write && !path.exists() {
        fs::write(&path, format!("{:#}\n", json!(expected))).expect("writes");
    }
    let recorded: Value =
        serde_json::from_slice(&fs::read(path).expect("expected.json")).expect("JSON");
    assert_eq!(json!(expected), recorded);
    for (name, bytes) in files {
        assert!(fs::read(directory().join(&name)).expect("a fixture") == bytes, "{name}");
    }
}

#[test]
fn every_fixture_is_read_as_recorded() {
    let recorded: BTreeMap<String, Value> =
        serde_json::from_slice(&fs::read(directory().join("expected.json")).expect("reads"))
            .expect("JSON");
    assert!(recorded.len() >= 11);
    let blocks = image().blocks;
    for (name, expected) in recorded {
        let bytes = fs::read(directory().join(&name)).expect("a fixture");
        let kind = |kind: Option<ErrorKind>| json!(kind.map_or("ok", ErrorKind::name));
        assert_eq!(kind(verdict(&bytes)), expected["ranges"], "{name}");
        assert_eq!(kind(stream_verdict(&bytes)), expected["stream"], "{name}");
        if expected["ranges"] == "ok" {
            for unpacked in
                [by_ranges(&bytes).expect("restores"), by_stream(&bytes).expect("restores")]
            {
                assert!(unpacked.volumes.iter().map(|(_, _, blocks)| blocks).eq(&blocks), "{name}");
            }
        }
    }
}
