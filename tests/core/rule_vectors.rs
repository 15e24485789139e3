//! Vectors of one rule each: archives that keep or break it, and whose digests are right.

use serde_json::{Value, json};

use crate::support::forge::{self, BLOCK, Block, Edit, Forge, FrameBlock};
use crate::support::vector::{
    BARE, Vector, changed, corrupt, damaged, data, find, ok, set_number, simple, unsupported,
    volume,
};

/// Changes pieces of an archive before they are sealed.
pub fn edited(edit: fn(&mut Vec<u8>)) -> Edit {
    Box::new(edit)
}

/// All of them.
pub fn rules() -> Vec<Vector> {
    [frames(), zeros_and_roots(), manifests(), positions(), tar(), documents()]
        .into_iter()
        .flatten()
        .collect()
}

/// 128 KiB, the largest block of a zstd frame.
const MOST: u32 = 128 << 10;

/// A volume of one short block of `len` times `A`, whose data frame is this one.
fn one_block(len: usize, frame: Vec<u8>) -> Forge {
    let block = Block::Data(vec![b'A'; len]);
    let mut forge = Forge::new(BARE, vec![volume("snap-1", len as u64, vec![(0, block)])]);
    forge.edit_frame = Box::new(move |bytes| bytes.clone_from(&frame));
    forge
}

/// The frame of a volume of `len` times `A`, made of these blocks.
fn block_of_a(len: usize, window_size: Option<u8>, blocks: &[FrameBlock<'_>]) -> Forge {
    one_block(len, forge::frame_of(&vec![b'A'; len], window_size, blocks))
}

fn frames() -> Vec<Vector> {
    let rle = |size| FrameBlock::Rle(b'A', size);
    let whole = BLOCK as usize;
    let letters = [b'A'; 2048];
    // 510 literals of one value; one sequence: a literal, and a match of 131,074 bytes at offset 1.
    let long_match: [u8; 11] = [0xE5, 0x1F, b'A', 1, 0x54, 1, 0, 52, 0xFF, 0xFF, 1];
    // 512 literals of one value, and no sequence.
    let short: [u8; 4] = [0x05, 0x20, b'A', 0];
    vec![
        ok(
            "rle-blocks",
            "a data frame of four RLE blocks of 128 KiB",
            block_of_a(whole, None, &[rle(MOST), rle(MOST), rle(MOST), rle(MOST)]),
        ),
        corrupt(
            "rle-block-too-large",
            "a data frame of one RLE block of 512 KiB",
            block_of_a(whole, None, &[rle(4 * MOST)]),
        ),
        ok(
            "window-1-kib",
            "a data frame with a window size of 1 KiB, and blocks of that size",
            block_of_a(
                2048,
                Some(0),
                &[FrameBlock::Raw(&letters[..1024]), FrameBlock::Raw(&letters[1024..])],
            ),
        ),
        corrupt(
            "raw-block-above-window",
            "a raw block of 2 KiB in a data frame with a window size of 1 KiB",
            block_of_a(2048, Some(0), &[FrameBlock::Raw(&letters)]),
        ),
        corrupt(
            "compressed-block-too-long",
            "a compressed block that holds more than 128 KiB",
            block_of_a(131_584, None, &[FrameBlock::Compressed(&long_match)]),
        ),
        corrupt(
            "compressed-block-too-long-beside-short",
            "a compressed block that holds more than 128 KiB, and a short one behind it",
            block_of_a(
                131_584 + 512,
                None,
                // The second block is 512 literals of one value.
                &[FrameBlock::Compressed(&long_match), FrameBlock::Compressed(&short)],
            ),
        ),
        ok(
            "window-8-mib",
            "a data frame with a window size of 8 MiB",
            block_of_a(2048, Some(13 << 3), &[rle(2048)]),
        ),
        corrupt(
            "window-9-mib",
            "a data frame with a window size of 9 MiB",
            block_of_a(2048, Some(13 << 3 | 1), &[rle(2048)]),
        ),
        corrupt("first-frame-declares-more", "a first frame that declares 2 MiB", simple())
            .replaced(|archive| *archive = forge::frame(&vec![0; 2 << 20], 1)),
        corrupt(
            "first-frame-holds-more",
            "a first frame that inflates to more than 1 MiB",
            simple(),
        )
        .replaced(|archive| {
            let blocks: Vec<_> = (0..9).map(|_| FrameBlock::Rle(0, MOST)).collect();
            *archive = forge::frame_of(&vec![0; 1 << 20], None, &blocks);
        }),
        corrupt("first-frame-block-too-large", "a first frame of one RLE block of 1 MiB", simple())
            .replaced(|archive| {
                let block = FrameBlock::Rle(0, 1 << 20);
                *archive = forge::frame_of(&vec![0; 1 << 20], None, &[block]);
            }),
        unsupported("foreign-empty", "a zstd file of nothing", simple())
            .replaced(|archive| *archive = forge::frame(b"", 1)),
        unsupported("foreign-window", "a zstd file with a window size of 16 MiB", simple())
            .replaced(|archive| {
                let block = FrameBlock::Rle(0, 2048);
                *archive = forge::frame_of(&[0; 2048], Some(14 << 3), &[block]);
            }),
    ]
}

fn zeros_and_roots() -> Vec<Vector> {
    let zeros = || {
        Forge::new(
            BARE,
            vec![volume("snap-1", 8 << 20, vec![(0, data(1)), (8, Block::Zero), (9, Block::Zero)])],
        )
    };
    let mut other = zeros();
    other.edit_raw = Box::new(|raw| {
        if raw.iter().all(|byte| *byte == 0) {
            raw[100] = 1;
        }
    });
    vec![
        ok("zero-only-cell", "a cell of zero blocks alone", zeros()),
        corrupt(
            "zero-only-cell-holds-data",
            "a cell of zero blocks alone whose frame holds a one",
            other,
        ),
        corrupt(
            "wrong-content-root",
            "F and the manifest agree on a content root that is not that of the archive",
            changed(|forge| {
                forge.edit_manifest =
                    Box::new(|manifest| manifest["content_root"] = json!("07".repeat(32)));
                forge.edit_footer = edited(|footer| footer[64..96].fill(7));
            }),
        ),
    ]
}

/// Replaces a part of the text of a manifest that stands there once.
fn replace(json: &mut Vec<u8>, old: &str, new: &[u8]) {
    let mut at = json.windows(old.len()).enumerate().filter(|(_, found)| *found == old.as_bytes());
    let (start, None) = (at.next().expect("the part is there").0, at.next()) else {
        panic!("{old} stands there twice")
    };
    json.splice(start..start + old.len(), new.iter().copied());
}

fn manifest(edit: fn(&mut Vec<u8>)) -> Forge {
    changed(|forge| forge.edit_json = edited(edit))
}

/// Appends a member to the text of a manifest.
fn with_member(json: &mut Vec<u8>, member: &str) {
    assert_eq!(json.pop(), Some(b'}'));
    json.extend_from_slice(format!(",{member}}}").as_bytes());
}

fn nested(json: &mut Vec<u8>, depth: usize) {
    with_member(json, &format!("\"zzz\":{}{}", "[".repeat(depth - 1), "]".repeat(depth - 1)));
}

fn manifests() -> Vec<Vector> {
    vec![
        ok(
            "manifest-white-space",
            "a manifest with white space, its members in another order",
            manifest(|json| {
                let value: Value = serde_json::from_slice(json).expect("JSON");
                let members: Vec<_> = value.as_object().expect("an object").iter().rev().collect();
                let mut text = String::from("\n{");
                for (number, (name, value)) in members.into_iter().enumerate() {
                    let comma = if number == 0 { "" } else { " ,\t" };
                    text.push_str(&format!("{comma}\r\n\"{name}\" : {value:#}"));
                }
                *json = (text + "\n}\n\n            ").into_bytes();
            }),
        ),
        ok(
            "manifest-nested-64",
            "an unknown member, nested as deep as allowed",
            manifest(|json| nested(json, 64)),
        ),
        corrupt(
            "manifest-nested-65",
            "an unknown member, nested too deep",
            manifest(|json| nested(json, 65)),
        ),
        ok(
            "manifest-unknown-member-twice",
            "an unknown member that occurs twice",
            manifest(|json| with_member(json, "\"zzz\":1,\"zzz\":2")),
        ),
        corrupt(
            "manifest-member-twice",
            "a member of the format that occurs twice",
            manifest(|json| with_member(json, "\"writer\":\"forge\"")),
        ),
        corrupt(
            "manifest-invalid-utf-8",
            "a string that is not UTF-8, in an unknown member",
            manifest(|json| {
                with_member(json, "\"zzz\":\"?\"");
                replace(json, "?", b"\xff");
            }),
        ),
        corrupt(
            "manifest-lone-surrogate",
            "an escaped lone surrogate, in an unknown member",
            manifest(|json| with_member(json, r#""zzz":["\ud800"]"#)),
        ),
        corrupt(
            "manifest-number-out-of-range",
            "a number beyond a 64-bit float, in an unknown member",
            manifest(|json| with_member(json, "\"zzz\":1e999")),
        ),
        corrupt(
            "manifest-byte-order-mark",
            "a byte order mark before the manifest",
            manifest(|json| drop(json.splice(0..0, *b"\xef\xbb\xbf"))),
        ),
        corrupt(
            "manifest-volume-null",
            "a meta frame of the prologue with the member volume, null",
            manifest(|json| {
                replace(json, "\"role\":\"prologue\"", b"\"role\":\"prologue\",\"volume\":null");
            }),
        ),
        corrupt(
            "manifest-minus-zero",
            "a count of -0",
            manifest(|json| replace(json, "\"fill\":0", b"\"fill\":-0")),
        ),
        ok(
            "manifest-level-negative",
            "a negative compression level",
            changed(|forge| {
                forge.edit_manifest = Box::new(|manifest| manifest["codec"]["level"] = json!(-5));
            }),
        ),
        corrupt(
            "manifest-level-too-large",
            "a compression level of 2^63",
            changed(|forge| {
                forge.edit_manifest =
                    Box::new(|manifest| manifest["codec"]["level"] = json!(1u64 << 63));
            }),
        ),
        unsupported(
            "other-codec",
            "another codec, whose other members are unknown",
            changed(|forge| {
                forge.edit_manifest =
                    Box::new(|manifest| manifest["codec"] = json!({"name": "lz4"}));
            }),
        ),
        unsupported(
            "version-2-of-another-form",
            "a newer format version whose other members have other types",
            changed(|forge| {
                forge.edit_manifest = Box::new(|manifest| {
                    for member in ["features", "codec", "volumes", "meta", "block_size"] {
                        manifest[member] = json!({"all": "new"});
                    }
                    manifest["version"] = json!(2);
                });
            }),
        ),
        corrupt(
            "version-text",
            "a format version that is no number",
            changed(|forge| {
                forge.edit_manifest = Box::new(|manifest| manifest["version"] = json!("2"));
            }),
        ),
        unsupported(
            "other-format-version-and-counts",
            "a newer geometry, and counts that contradict each other",
            changed(|forge| {
                forge.edit_manifest = Box::new(|manifest| {
                    set_number("window_blocks", 65_536)(manifest);
                    manifest["volumes"][0]["zero"] = json!(9);
                });
            }),
        ),
    ]
}

/// Makes a record one of another version.
fn newer(record: &mut [u8]) {
    record[13] = 2;
}

/// Makes a record a critical one of unknown kind.
fn critical(record: &mut [u8]) {
    record[12] = b'X';
    record[15] = 0x80;
}

fn positions() -> Vec<Vector> {
    let end_of_footer = |version| {
        let body = [&[0; 104][..], b"AMIBEND1"].concat();
        changed(|forge| forge.extra = forge::record(b'F', version, 0, &body))
    };
    vec![
        unsupported(
            "index-version-2",
            "an index record of a newer version",
            changed(|forge| forge.edit_index = edited(|record| newer(record))),
        ),
        unsupported(
            "root-version-2",
            "a root record of a newer version",
            changed(|forge| forge.edit_root = edited(|record| newer(record))),
        ),
        unsupported(
            "footer-version-2",
            "a footer of a newer version",
            changed(|forge| forge.edit_footer = edited(|record| newer(record))),
        ),
        corrupt(
            "footer-version-2-of-other-length",
            "a footer of a newer version that is 8 bytes longer",
            changed(|forge| {
                forge.edit_footer = edited(|footer| {
                    newer(footer);
                    footer[4] += 8;
                    drop(footer.splice(104..104, [0; 8]));
                });
            }),
        ),
        corrupt(
            "footer-version-2-of-other-magic",
            "a footer of a newer version with another magic at its end",
            changed(|forge| {
                forge.edit_footer = edited(|footer| {
                    newer(footer);
                    footer[127] = b'2';
                });
            }),
        ),
        corrupt(
            "footer-before-footer",
            "a footer of version 1 before the footer",
            end_of_footer(1),
        ),
        corrupt(
            "newer-footer-before-footer",
            "a footer of version 2 before the footer",
            end_of_footer(2),
        ),
        corrupt(
            "newer-cell-before-footer",
            "a cell record of version 2 between root and footer",
            changed(|forge| forge.extra = forge::record(b'C', 2, 0, &[0; 56])),
        ),
        corrupt(
            "newer-root-before-footer",
            "a root record of version 2 between root and footer",
            changed(|forge| forge.extra = forge::record(b'R', 2, 0, &[0; 16])),
        ),
        corrupt(
            "critical-record-for-cell",
            "an unknown critical record in place of a cell record",
            changed(|forge| forge.edit_cell = edited(|record| critical(record))),
        ),
        corrupt(
            "critical-record-for-root",
            "an unknown critical record in place of the root record",
            changed(|forge| forge.edit_root = edited(|record| critical(record))),
        ),
        corrupt(
            "critical-record-over-footer",
            "an unknown critical record before the footer that ends behind it",
            changed(|forge| forge.extra = forge::record(b'X', 1, 1 << 15, &[0; 20])),
        )
        .replaced(|archive| {
            let at = find(archive, b"AMIBX");
            archive[at + 4] += 100;
        }),
        corrupt(
            "long-record-before-footer",
            "records of more than 1 MiB between root and footer",
            changed(|forge| forge.extra = forge::record(b'X', 1, 0, &vec![0; (1 << 20) - 15])),
        ),
    ]
}

fn tar() -> Vec<Vector> {
    let extents = || {
        let many = (0..60).map(|index| (index * 2, Block::Zero)).collect();
        Forge::new(BARE, vec![volume("snap-1", 1 << 27, many)])
    };
    let mut cut = extents();
    cut.header_cut = 512;
    let names: Vec<_> = (0..257).map(|number| format!("snap-{number}")).collect();
    let listed: Vec<_> = names.iter().map(|name| json!({"SnapshotId": name})).collect();
    vec![
        corrupt(
            "header-cut-wrongly",
            "a tar header of several meta frames, the first ones shorter than 1 MiB",
            cut,
        ),
        corrupt(
            "trailer-not-zero",
            "the end of the tar has a byte that is not zero",
            changed(|forge| forge.edit_trailer = edited(|trailer| trailer[700] = 1)),
        ),
        corrupt(
            "trailer-of-512-bytes",
            "the end of the tar has half its length",
            changed(|forge| forge.edit_trailer = edited(|trailer| trailer.truncate(512))),
        ),
        damaged("table-without-footer", "the footer before the seek table is missing", |archive| {
            let at = find(archive, b"AMIBF");
            archive.drain(at..at + 128);
        }),
        corrupt(
            "257-volumes",
            "one volume more than an archive holds",
            Forge::new(
                &json!({"Snapshots": listed}).to_string(),
                names.iter().map(|name| volume(name, 512, vec![])).collect(),
            ),
        ),
    ]
}

/// An archive of one empty volume with this `image.json`.
fn with_document(image_json: &[u8]) -> Forge {
    let mut forge = Forge::new(BARE, vec![volume("snap-1", 512, vec![])]);
    forge.image_json = image_json.to_vec();
    forge
}

fn image(mappings: &str) -> Forge {
    let image = format!(r#"{{"ImageId":"ami-01234567","BlockDeviceMappings":{mappings}}}"#);
    with_document(
        format!(r#"{{"Image":{image},"Snapshots":[{{"SnapshotId":"snap-1"}}]}}"#).as_bytes(),
    )
}

fn documents() -> Vec<Vector> {
    let member = |member: &str| {
        with_document(format!(r#"{{"Snapshots":[{{"SnapshotId":"snap-1"}}],{member}}}"#).as_bytes())
    };
    let utf_16: Vec<u8> =
        format!("\u{feff}{BARE}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    vec![
        ok(
            "image-json-null",
            "members of image.json that are null count as absent",
            member(r#""format":null,"version":null"#),
        ),
        unsupported(
            "image-json-version-2",
            "a newer version of image.json",
            member(r#""version":2"#),
        ),
        corrupt(
            "image-json-version-text",
            "a version of image.json that is text",
            member(r#""version":"1""#),
        ),
        corrupt(
            "image-json-version-float",
            "a version of image.json of 1.0",
            member(r#""version":1.0"#),
        ),
        corrupt("image-json-mappings-object", "BlockDeviceMappings is an object", image("{}")),
        corrupt(
            "image-json-ebs-text",
            "Ebs is a text",
            image(r#"[{"DeviceName":"/dev/xvda","Ebs":"snap-1"}]"#),
        ),
        corrupt(
            "image-json-volume-size-text",
            "VolumeSize is a text",
            with_document(br#"{"Snapshots":[{"SnapshotId":"snap-1","VolumeSize":"1"}]}"#),
        ),
        corrupt(
            "image-json-byte-order-mark",
            "image.json begins with a byte order mark",
            with_document(format!("\u{feff}{BARE}").as_bytes()),
        ),
        corrupt("image-json-utf-16", "image.json in UTF-16", with_document(&utf_16)),
    ]
}
