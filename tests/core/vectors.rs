//! `format-spec/vectors/`: both readers give the recorded outcomes, and this code still makes the
//! same bytes.
//!
//! With `AMISTORE_WRITE_VECTORS=1` vectors that do not exist yet are written. Those that exist are
//! never touched.

use std::fs;
use std::path::{Path, PathBuf};

use amistore::internals::base::ErrorKind;
use amistore::internals::engine::Depth;
use serde_json::{Value, json};

use crate::rule_vectors::{self, edited};
use crate::support::forge::{self, BLOCK, Block, Forge};
use crate::support::image::{
    Random, UnpackedVolume, by_ranges, by_stream, stream_verdict, stream_verdict_to, verdict,
    verdict_to,
};
use crate::support::vector::{
    BARE, Vector, changed, corrupt, damaged, data, find, ok, set_number, simple, unsupported,
    volume,
};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("format-spec/vectors")
}

fn good() -> Vec<Vector> {
    let image = json!({
        "Image": {
            "ImageId": "ami-0123456789abcdef0", "Name": "golden (v1)",
            "Architecture": "arm64", "RootDeviceName": "/dev/xvda",
            "Tags": [{"Key": "größe", "Value": "日本語"}], "FutureMember": {"Nested": [1, 2.5, null]},
            "BlockDeviceMappings": [
                {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": "snap-a", "VolumeSize": 1}},
                {
                    "DeviceName": "/dev/sdb",
                    "Ebs": {"SnapshotId": "snap-b", "VolumeSize": 2, "Iops": 3000}
                },
                {"DeviceName": "/dev/sdc", "Ebs": {"SnapshotId": "snap-b"}},
                {"DeviceName": "/dev/sdd", "VirtualName": "ephemeral0"},
                {"DeviceName": "/dev/sde", "NoDevice": ""}
            ]
        },
        "Snapshots": [
            {"SnapshotId": "snap-c", "VolumeSize": 1},
            {"SnapshotId": "snap-b", "VolumeSize": 2, "Encrypted": true}
        ]
    });
    let large = json!({"Snapshots": [{"SnapshotId": "snap-1"}], "Padding": "x".repeat(1_500_000)});
    let many = (0..60).map(|index| (index * 2 + index / 7, data(index as u8 + 1))).collect();
    let mut random = Random(20);
    let noise =
        (0..2).map(|index| (index, Block::Data(random.noise(BLOCK as usize / 8)))).collect();
    vec![
        ok("worked-example", "the archive of section 11", simple()),
        ok(
            "bare-empty-volume",
            "a volume of which nothing was written",
            Forge::new(BARE, vec![volume("snap-1", 1 << 20, vec![])]),
        ),
        ok(
            "no-volumes",
            "an image without snapshots",
            Forge::new(r#"{"Image":{"ImageId":"ami-01234567"}}"#, vec![]),
        ),
        ok(
            "short-last-block",
            "a volume whose last block has 512 bytes, and is data",
            Forge::new(
                BARE,
                vec![volume(
                    "snap-1",
                    2 * BLOCK + 512,
                    vec![(0, Block::Zero), (2, Block::Data(vec![9; 512]))],
                )],
            ),
        ),
        ok(
            "short-last-block-zero",
            "a volume of one sector, written and zero",
            Forge::new(BARE, vec![volume("snap-1", 512, vec![(0, Block::Zero)])]),
        ),
        ok(
            "image",
            "an image: three volumes, one used twice, an ephemeral device, members and characters \
             from elsewhere",
            Forge::new(
                &format!("{image:#}\n"),
                vec![
                    volume("snap-a", 1 << 30, vec![(0, data(1)), (2047, data(2))]),
                    volume("snap-b", 2 << 30, vec![(5, Block::Zero), (6, data(3))]),
                    volume("snap-c", 1 << 30, vec![]),
                ],
            ),
        ),
        ok(
            "many-extents",
            "60 extents: a header with three extension blocks",
            Forge::new(BARE, vec![volume("snap-1", 1 << 27, many)]),
        ),
        ok(
            "windows",
            "blocks in three windows of a volume, one of them without data",
            Forge::new(
                BARE,
                vec![volume(
                    "snap-1",
                    64 << 30,
                    vec![
                        (7, data(1)),
                        (8, data(2)),
                        (32_767, data(3)),
                        (70_000, Block::Zero),
                        (131_071, data(4)),
                    ],
                )],
            ),
        ),
        ok(
            "64-tib",
            "the largest volume: its first and its last block; binary numbers in the tar header",
            Forge::new(
                BARE,
                vec![volume("snap-1", 1 << 46, vec![(0, data(1)), ((1 << 27) - 1, data(2))])],
            ),
        ),
        ok(
            "fill",
            "blocks that are stored only to shorten the map",
            Forge::new(
                BARE,
                vec![volume(
                    "snap-1",
                    8 << 20,
                    vec![
                        (0, data(1)),
                        (1, Block::Fill),
                        (2, data(2)),
                        (8, Block::Fill),
                        (9, Block::Zero),
                    ],
                )],
            ),
        ),
        ok(
            "incompressible",
            "data that does not shrink",
            Forge::new(BARE, vec![volume("snap-1", 1 << 20, noise)]),
        ),
        ok(
            "long-metadata",
            "image.json of more than one meta frame",
            Forge::new(&large.to_string(), vec![volume("snap-1", 512, vec![])]),
        ),
        ok("level-19", "another compression level", changed(|forge| forge.level = 19)),
        ok(
            "empty-format-txt",
            "FORMAT.txt may be empty",
            changed(|forge| forge.format_txt = Vec::new()),
        ),
        ok(
            "unknown-record",
            "records of unknown kind before the footer",
            changed(|forge| forge.extra = forge::record(b'X', 7, 1, b"vendor")),
        ),
        ok(
            "unknown-members",
            "the manifest has members of another tool",
            changed(|forge| forge.edit_manifest = set_number("zzz", 1)),
        ),
    ]
}

fn bad() -> Vec<Vector> {
    let reseal = edited;
    let refuse = |change: fn(&mut Forge)| changed(change);
    vec![
        unsupported(
            "version-2",
            "a newer format version",
            refuse(|forge| forge.edit_manifest = set_number("version", 2)),
        ),
        unsupported(
            "unknown-feature",
            "a feature that must not be ignored",
            refuse(|forge| {
                forge.edit_manifest = Box::new(|manifest| manifest["features"] = json!(["delta"]));
            }),
        ),
        unsupported(
            "cell-version-2",
            "a cell record of a newer version",
            changed(|forge| forge.edit_cell = reseal(|cell| cell[13] = 2)),
        ),
        unsupported(
            "critical-record",
            "an unknown record that must not be ignored",
            refuse(|forge| forge.extra = forge::record(b'X', 1, 1 << 15, b"")),
        ),
        unsupported(
            "block-size",
            "another geometry",
            refuse(|forge| forge.edit_manifest = set_number("block_size", 65_536)),
        ),
        unsupported("foreign-zstd", "a zstd file of something else", Forge { ..simple() })
            .replaced(|archive| *archive = forge::frame(b"hello", 1)),
        damaged("flipped-data", "one bit of a data frame", |archive| {
            let at = find(archive, b"AMIBC") + 136;
            archive[at] ^= 1;
        }),
        damaged("flipped-cell", "one bit of a cell record", |archive| {
            let at = find(archive, b"AMIBC") + 80;
            archive[at] ^= 1;
        }),
        damaged("flipped-index", "one bit of a window index", |archive| {
            let at = find(archive, b"AMIBS") + 40;
            archive[at] ^= 1;
        }),
        damaged("flipped-root", "one bit of the manifest", |archive| {
            let at = find(archive, b"content_root") + 20;
            archive[at] ^= 1;
        }),
        damaged("flipped-table", "one bit of the seek table", |archive| {
            let at = archive.len() - 20;
            archive[at] ^= 1;
        }),
        damaged("flipped-metadata", "one bit of the first meta frame", |archive| archive[100] ^= 1),
        damaged("truncated", "the last 100 bytes are missing", |archive| {
            archive.truncate(archive.len() - 100);
        }),
        damaged("no-table", "the seek table is missing", |archive| {
            let end = find(archive, b"AMIBEND1") + 8;
            archive.truncate(end);
        }),
        damaged("longer", "a byte too many", |archive| archive.push(0)),
        corrupt(
            "two-views",
            "the tar header names another file than the index",
            changed(|forge| {
                forge.edit_header = Box::new(|header| {
                    *header = forge::sparse_header(&volume(
                        "snap-2",
                        8 << 20,
                        vec![(0, Block::Zero), (1, Block::Zero), (3, Block::Zero)],
                    ));
                });
            }),
        ),
        corrupt(
            "two-maps",
            "the tar header has another map than the index",
            changed(|forge| {
                forge.edit_header = Box::new(|header| {
                    *header = forge::sparse_header(&volume(
                        "snap-1",
                        8 << 20,
                        vec![(0, Block::Zero), (1, Block::Zero), (4, Block::Zero)],
                    ));
                });
            }),
        ),
        corrupt(
            "bomb",
            "a data frame inflates to more than it should",
            changed(|forge| forge.edit_raw = reseal(|raw| raw.resize(64 << 20, 0))),
        ),
        corrupt(
            "short-frame",
            "a data frame inflates to less than it should",
            changed(|forge| forge.edit_raw = reseal(|raw| raw.truncate(1 << 20))),
        ),
        corrupt(
            "not-zero",
            "a block marked as zero has a byte in it",
            changed(|forge| forge.edit_raw = reseal(|raw| *raw.last_mut().expect("bytes") = 1)),
        ),
        corrupt(
            "wrong-block",
            "a block is not that of its digest",
            changed(|forge| forge.edit_raw = reseal(|raw| raw[0] = b'X')),
        ),
        corrupt(
            "data-is-zero",
            "a block of zeros is not marked as zero",
            Forge::new(BARE, vec![volume("snap-1", 8 << 20, vec![(0, data(0))])]),
        ),
        corrupt(
            "beyond-the-end",
            "a block lies beyond the end of its volume",
            Forge::new(BARE, vec![volume("snap-1", 1 << 20, vec![(0, data(1)), (5, data(2))])]),
        ),
        corrupt(
            "reserved",
            "a reserved field of a cell record is not zero",
            changed(|forge| forge.edit_cell = reseal(|cell| cell[38] = 1)),
        ),
        corrupt(
            "no-checksum",
            "a data frame without checksum",
            changed(|forge| forge.edit_frame = reseal(without_checksum)),
        ),
        corrupt(
            "duplicate-names",
            "two volumes whose names differ in case only",
            Forge::new(
                r#"{"Snapshots":[{"SnapshotId":"snap-1"},{"SnapshotId":"SNAP-1"}]}"#,
                vec![volume("snap-1", 1 << 20, vec![]), volume("SNAP-1", 1 << 20, vec![])],
            ),
        ),
        corrupt(
            "path",
            "a volume name that is a path",
            Forge::new(BARE, vec![volume("../snap-1", 1 << 20, vec![])]),
        ),
        corrupt(
            "other-volumes",
            "the volumes are not those of image.json",
            Forge::new(BARE, vec![volume("snap-2", 1 << 20, vec![])]),
        ),
        corrupt(
            "other-size",
            "image.json says another size",
            Forge::new(
                r#"{"Snapshots":[{"SnapshotId":"snap-1","VolumeSize":2}]}"#,
                vec![volume("snap-1", 1 << 20, vec![])],
            ),
        ),
        corrupt(
            "member-twice",
            "a member of image.json stands twice",
            Forge::new(
                r#"{"Snapshots":[{"SnapshotId":"snap-1","a":1,"a":2}]}"#,
                vec![volume("snap-1", 512, vec![])],
            ),
        ),
        corrupt(
            "known-record-before-footer",
            "a cell record between root and footer",
            refuse(|forge| forge.extra = forge::record(b'C', 1, 0, &[0; 56])),
        ),
        corrupt(
            "wrong-counts",
            "the manifest counts other zero blocks",
            refuse(|forge| {
                forge.edit_manifest =
                    Box::new(|manifest| manifest["volumes"][0]["zero"] = json!(0));
            }),
        ),
        corrupt(
            "wrong-content",
            "the content digest of a volume is another one",
            refuse(|forge| {
                forge.edit_manifest =
                    Box::new(|manifest| manifest["volumes"][0]["content"] = json!("0".repeat(64)));
            }),
        ),
    ]
}

/// Takes the checksum flag and the checksum off a frame.
fn without_checksum(frame: &mut Vec<u8>) {
    frame[4] &= !4;
    frame.truncate(frame.len() - 4);
}

fn name_of(kind: Option<ErrorKind>) -> &'static str {
    kind.map_or("ok", ErrorKind::name)
}

/// The vectors of the directory: name, archive, description.
fn stored_vectors() -> impl Iterator<Item = (String, Vec<u8>, Value)> {
    let paths = fs::read_dir(directory()).expect("vectors").map(|entry| entry.expect("one").path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "bin")).map(|path| {
        let description = fs::read(path.with_extension("json")).expect("a description");
        (
            path.file_stem().expect("a name").display().to_string(),
            fs::read(&path).expect("reads"),
            serde_json::from_slice(&description).expect("JSON"),
        )
    })
}

/// Vectors whose stored bytes match every digest, and whose frames inflate to something else than
/// their records say.
const SHOWN_BY_INFLATING: [&str; 4] = [
    "compressed-block-too-long-beside-short",
    "not-zero",
    "wrong-block",
    "zero-only-cell-holds-data",
];

#[test]
fn stored_bytes_show_all_damage_but_that_of_inflated_data() {
    let mut unseen = Vec::new();
    for (name, archive, expectation) in stored_vectors() {
        let found = name_of(verdict_to(Depth::Stored, &archive));
        assert_eq!(found, name_of(stream_verdict_to(Depth::Stored, &archive)), "{name}");
        if found != expectation["outcome"] {
            assert_eq!(found, "ok", "{name}");
            unseen.push(name);
        }
    }
    unseen.sort();
    assert_eq!(unseen, SHOWN_BY_INFLATING);
}

#[test]
fn both_readers_agree_with_every_vector() {
    let mut seen = 0;
    for (name, archive, expectation) in stored_vectors() {
        assert_eq!(name_of(verdict(&archive)), expectation["outcome"], "{name}, by ranges");
        assert_eq!(
            name_of(stream_verdict(&archive)),
            expectation["outcome"],
            "{name}, as a stream"
        );
        if expectation["outcome"] == "ok" {
            let (ranged, streamed) =
                (by_ranges(&archive).expect("restores"), by_stream(&archive).expect("restores"));
            assert!(ranged == streamed, "{name}");
            check(&ranged.volumes, &expectation, &name);
        }
        seen += 1;
    }
    assert!(seen >= 90, "only {seen} vectors");
}

fn check(volumes: &[UnpackedVolume], expectation: &Value, name: &str) {
    let expected = expectation["volumes"].as_array().expect("volumes");
    assert_eq!(volumes.len(), expected.len(), "{name}");
    for ((id, size, blocks), expected) in volumes.iter().zip(expected) {
        let listed = |member: &str| -> Vec<u64> {
            let runs = expected[member].as_array().expect("runs").iter();
            runs.flat_map(|run| {
                (0..run[1].as_u64().expect("a count"))
                    .map(|index| run[0].as_u64().expect("a block") + index)
            })
            .collect()
        };
        assert_eq!(
            (json!(id), json!(size)),
            (expected["name"].clone(), expected["size"].clone()),
            "{name}"
        );
        let found = |zero: bool| -> Vec<u64> {
            blocks
                .iter()
                .filter(|(_, data)| data.iter().all(|byte| *byte == 0) == zero)
                .map(|(block, _)| u64::from(*block))
                .collect()
        };
        assert_eq!((found(false), found(true)), (listed("data"), listed("zero")), "{name}");
    }
}

#[test]
fn the_vectors_follow_the_specification() {
    let write = std::env::var("AMISTORE_WRITE_VECTORS").is_ok_and(|value| value == "1");
    for vector in good().into_iter().chain(bad()).chain(rule_vectors::rules()) {
        let archive = vector.archive();
        let expectation = format!("{:#}\n", vector.expectation(&archive));
        let path = directory().join(format!("{}.bin", vector.name));
        if write && !path.exists() {
            fs::write(&path, &archive).expect("writes");
            fs::write(path.with_extension("json"), &expectation).expect("writes");
        }
        assert!(
            fs::read(&path).expect(vector.name) == archive,
            "{} differs from what is forged",
            vector.name
        );
        assert_eq!(
            fs::read_to_string(path.with_extension("json")).expect(vector.name),
            expectation,
            "{}",
            vector.name
        );
    }
}
