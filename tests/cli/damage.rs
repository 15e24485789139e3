//! Findings of `verify`: kind and position of all damage.

use std::path::Path;

use amistore::internals::format::MetaRole;
use serde_json::Value;

use crate::support::cli::{Anatomy, DATA, IMAGE, Outcome, ROOT, Sandbox, sample_archive, text};

/// The outcome of a failed verification in JSON, and its findings. The error on stderr must agree.
#[track_caller]
fn findings(bytes: &[u8]) -> Vec<Value> {
    let sandbox = Sandbox::new().and("a.bin", bytes);
    let outcome = sandbox.run(&["verify", "a.bin", "--output", "json", "--threads", "2"]);
    assert_eq!(outcome.code, 5, "{}", outcome.stderr);
    let (report, error) = (outcome.json(), outcome.json_error());
    assert_eq!(report["Outcome"], "corrupt");
    assert_eq!(report["Archive"], "a.bin");
    assert_eq!(report["FindingsNotListed"], 0);
    let findings = report["Findings"].as_array().expect("a list").clone();
    assert_eq!(error["kind"], "corrupt");
    assert_eq!(error["context"]["findings"], findings.len());
    // The stored bytes alone show it as well, and a copy refuses it.
    let outcome = sandbox.run(&["verify", "a.bin", "--stored", "--output", "json"]);
    assert_eq!(
        (outcome.code, &outcome.json()["Findings"]),
        (5, &Value::Array(findings.clone())),
        "{}",
        outcome.stderr
    );
    sandbox.run(&["copy", "a.bin", "b.bin"]).failed(5, &[]);
    assert_eq!(sandbox.left(&["a.bin"]), [""; 0]);
    check_stream(bytes);
    findings
}

/// Asserts that the verification of a stream stops at the first damage.
#[track_caller]
fn check_stream(bytes: &[u8]) {
    let sandbox = Sandbox::new();
    let outcome = sandbox.run_with_input(&["verify", "-", "--output", "json"], bytes);
    assert_eq!(outcome.code, 5, "{}", outcome.stderr);
    assert_eq!(outcome.json()["Findings"].as_array().map(Vec::len), Some(1));
    for args in
        [&["restore", "-", "out"][..], &["copy", "-", "b.bin"], &["verify", "-", "--stored"]]
    {
        assert_eq!(sandbox.run_with_input(args, bytes).code, 5, "{args:?}");
    }
    assert_eq!(sandbox.left(&[]), [""; 0]);
}

/// A test vector of the format.
fn vector(name: &str) -> Vec<u8> {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("format-spec/vectors");
    std::fs::read(vectors.join(name).with_extension("bin")).expect("a vector")
}

#[test]
fn a_cell_of_zeros_alone_is_checked_by_every_restore() {
    let archive = vector("zero-only-cell-holds-data");
    let words = ["a block that is marked as zero is not", "snapshot: snap-1", "blocks: 8"];
    let sandbox = Sandbox::new().and("a.bin", &archive);
    sandbox.run(&["restore", "a.bin", "out"]).failed(5, &words);
    sandbox.run_with_input(&["restore", "-", "out"], &archive).failed(5, &words);
    assert_eq!(sandbox.run(&["verify", "a.bin"]).code, 5);
    assert_eq!(sandbox.run_with_input(&["verify", "-"], &archive).code, 5);
    sandbox.run(&["copy", "a.bin", "b.bin", "--verify-blocks"]).failed(5, &words);
    sandbox.run_with_input(&["copy", "-", "b.bin", "--verify-blocks"], &archive).failed(5, &words);
    assert_eq!(sandbox.left(&["a.bin"]), [""; 0]);
}

#[test]
fn a_copy_proves_the_stored_bytes_and_says_so() {
    // Its bytes match their digests, and a block that it calls zero is not.
    let archive = vector("zero-only-cell-holds-data");
    let sandbox = Sandbox::new().and("a.bin", &archive);
    let line = "every stored byte matched its digest; no block was inflated: `amistore verify`";
    let text = sandbox.run(&["copy", "a.bin", "b.bin"]).succeeded().text();
    assert!(text.contains(line), "{text}");
    let text = sandbox.run_with_input(&["copy", "-", "c.bin"], &archive).succeeded().text();
    assert!(text.contains(line), "{text}");
    assert!(sandbox.read("b.bin") == archive && sandbox.read("c.bin") == archive);
    assert_eq!(sandbox.run(&["verify", "b.bin"]).code, 5);
    let report = sandbox.run(&["verify", "b.bin", "--stored", "--output", "json"]).succeeded();
    assert_eq!(report.json()["Checked"], "stored");
    let text = sandbox.run(&["verify", "b.bin", "--stored"]).succeeded().text();
    assert!(text.contains("checked as they are stored, not inflated"), "{text}");
    sandbox.write("good.bin", sample_archive());
    for (options, checked) in [(&[][..], "stored"), (&["--verify-blocks"], "blocks")] {
        let args = [&["copy", "good.bin", "d.bin", "--force", "--output", "json"][..], options];
        assert_eq!(sandbox.run(&args.concat()).succeeded().json()["Checked"], checked);
    }
    assert!(sandbox.read("d.bin") == sample_archive());
    let report = sandbox.run(&["verify", "d.bin", "--output", "json"]).succeeded().json();
    assert_eq!(report["Checked"], "blocks");
}

#[test]
fn no_command_prints_a_content_root_that_is_not_that_of_the_archive() {
    let archive = vector("wrong-content-root");
    let sandbox = Sandbox::new().and("a.bin", &archive);
    let words = ["the content root is not that of metadata and volumes"];
    for args in [
        &["inspect", "a.bin"][..],
        &["restore", "a.bin", "out"],
        &["copy", "a.bin", "b.bin"],
        &["extract", "a.bin", "--image-json"],
    ] {
        sandbox.run(args).failed(5, &words);
    }
    for args in
        [&["verify", "a.bin"][..], &["verify", "-"], &["inspect", "-"], &["restore", "-", "o"]]
    {
        let outcome = sandbox.run_with_input(args, &archive);
        assert_eq!(outcome.code, 5, "{}", outcome.stderr);
        assert!(!outcome.text().contains(&"07".repeat(32)), "{}", outcome.text());
    }
}

/// The sample archive with one bit flipped in the middle of a piece.
fn flipped(piece: (usize, usize)) -> Vec<u8> {
    let mut bytes = sample_archive().to_vec();
    bytes[piece.0 + piece.1 / 2] ^= 0x10;
    bytes
}

fn anatomy() -> Anatomy {
    Anatomy::of(sample_archive())
}

/// Asserts that a finding names this snapshot, these blocks, and this offset.
#[track_caller]
fn locates(finding: &Value, snapshot: &str, blocks: &str, offset: usize) {
    let context = &finding["context"];
    assert_eq!(
        (&context["snapshot"], &context["blocks"], &context["offset"]),
        (&snapshot.into(), &blocks.into(), &offset.into()),
        "{finding}"
    );
}

#[test]
fn a_whole_archive_is_ok() {
    let sandbox = Sandbox::with_archive();
    let report = sandbox.run(&["verify", "a.bin", "--output", "json"]).succeeded().json();
    assert_eq!((&report["Outcome"], &report["ImageId"]), (&"ok".into(), &IMAGE.into()));
    assert_eq!((&report["BlocksChecked"], &report["CellsChecked"]), (&7.into(), &6.into()));
    assert_eq!(report["Findings"], Value::Array(Vec::new()));
    assert_eq!(report["RootSha256"].as_str().map(str::len), Some(64));
    assert_eq!(report["ContentSha256"].as_str().map(str::len), Some(64));
    let text = sandbox.run(&["verify", "a.bin"]).succeeded().text();
    assert!(text.starts_with("ok a.bin: 7 blocks in 6 cells checked\n"), "{text}");
}

#[test]
fn a_stream_is_verified_like_a_file() {
    let report = Sandbox::new()
        .run_with_input(&["verify", "-", "--output", "json"], sample_archive())
        .succeeded()
        .json();
    assert_eq!((&report["Outcome"], &report["BlocksChecked"]), (&"ok".into(), &7.into()));
}

#[test]
fn a_sample_finds_a_damaged_index() {
    let sandbox = Sandbox::new().and("a.bin", flipped(anatomy().index(0)));
    assert_eq!(sandbox.run(&["verify", "a.bin", "--sample", "1%"]).code, 5);
}

#[test]
fn a_flipped_bit_in_a_data_frame_is_found() {
    let [record, frame] = anatomy().cell(0, 1);
    let findings = findings(&flipped(frame));
    assert_eq!(findings.len(), 1);
    locates(&findings[0], ROOT, "8..15", record.0);
}

#[test]
fn a_flipped_bit_in_a_cell_record_is_found() {
    let [record, _] = anatomy().cell(1, 1);
    let findings = findings(&flipped(record));
    assert_eq!(findings.len(), 1);
    locates(&findings[0], DATA, "96..103", record.0);
}

#[test]
fn a_flipped_bit_in_a_group_index_is_found() {
    let index = anatomy().index(1);
    let findings = findings(&flipped(index));
    assert_eq!(findings.len(), 1);
    // A volume of 1 GiB lies in one window.
    locates(&findings[0], DATA, "0..2047", index.0);
}

#[test]
fn a_flipped_bit_in_the_root_record_is_found() {
    let footer = anatomy().footer;
    let findings = findings(&flipped((footer.root_offset as usize, footer.root_len as usize)));
    assert_eq!(findings[0]["message"], "the root record does not match the footer");
    assert_eq!(findings[0]["context"]["offset"], footer.root_offset);
}

#[test]
fn a_flipped_bit_in_the_footer_is_found() {
    let footer = anatomy().footer;
    for at in [0, 40, 100, 124] {
        let mut bytes = sample_archive().to_vec();
        bytes[footer.offset as usize + at] ^= 1;
        assert_eq!(findings(&bytes).len(), 1, "{at}");
    }
}

#[test]
fn a_flipped_bit_in_the_seek_table_is_found() {
    let start = anatomy().footer.offset as usize + amistore::internals::format::FOOTER_LEN;
    let findings = findings(&flipped((start, 40)));
    assert_eq!(findings[0]["message"], "the seek table is not that of the archive's frames");
    assert_eq!(findings[0]["context"]["offset"], start);
}

#[test]
fn a_flipped_bit_in_the_metadata_is_found() {
    let frame = anatomy().meta(MetaRole::Prologue);
    let findings = findings(&flipped(frame));
    assert_eq!(findings[0]["message"], "a metadata frame does not match its digest");
    assert_eq!(findings[0]["context"]["offset"], frame.0);
}

#[test]
fn a_flipped_bit_in_a_tar_header_is_found() {
    let frame = anatomy().meta(MetaRole::Volume(1));
    let findings = findings(&flipped(frame));
    assert_eq!(findings.len(), 1);
    assert_eq!(
        (&findings[0]["context"]["snapshot"], &findings[0]["context"]["offset"]),
        (&DATA.into(), &frame.0.into())
    );
}

#[test]
fn a_flipped_bit_in_the_end_of_the_tar_is_found() {
    let frame = anatomy().meta(MetaRole::End);
    let findings = findings(&flipped(frame));
    assert_eq!((findings.len(), &findings[0]["context"]["offset"]), (1, &frame.0.into()));
}

#[test]
fn two_swapped_cells_are_both_found() {
    let anatomy = anatomy();
    let [(first, _), (first_frame, first_len)] = anatomy.cell(0, 0);
    let [(second, _), (second_frame, second_len)] = anatomy.cell(0, 1);
    let bytes = sample_archive();
    let swapped = [
        &bytes[..first],
        &bytes[second..second_frame + second_len],
        &bytes[first..first_frame + first_len],
        &bytes[second_frame + second_len..],
    ]
    .concat();
    let findings = findings(&swapped);
    assert_eq!(findings.len(), 2);
    locates(&findings[0], ROOT, "0..7", first);
    locates(&findings[1], ROOT, "8..15", second);
}

#[test]
fn the_index_of_another_archive_is_found() {
    let sandbox = Sandbox::with_image();
    sandbox.disk(&format!("image/{DATA}.raw"), 1 << 30, &[(0, text(7, 2)), (100, text(8, 1))]);
    sandbox.run(&["store", "image", "other.bin"]).succeeded();
    let other = sandbox.read("other.bin");
    let (to, from) = (anatomy().index(1), Anatomy::of(&other).index(1));
    assert_eq!(to.1, from.1);
    let mut bytes = sample_archive().to_vec();
    bytes[to.0..to.0 + to.1].copy_from_slice(&other[from.0..from.0 + from.1]);
    let findings = findings(&bytes);
    assert_eq!(findings.len(), 1);
    locates(&findings[0], DATA, "0..2047", to.0);
}

#[test]
fn a_truncated_archive_is_not_reported_as_extractable() {
    let bytes = &sample_archive()[..sample_archive().len() - 1000];
    let found = findings(bytes);
    assert!(
        found[0]["message"]
            .as_str()
            .is_some_and(|message| message.starts_with("the archive is truncated")),
        "{found:?}"
    );
    let sandbox = Sandbox::new().and("a.bin", bytes);
    let outcome = sandbox
        .run(&["verify", "a.bin"])
        .says(&["its index cannot be read", "hint: fetch it again, and compare its size"]);
    assert!(!outcome.stderr.contains("extract"));
}

#[test]
fn all_damage_is_listed_in_the_order_of_the_archive() {
    let anatomy = anatomy();
    let mut bytes = sample_archive().to_vec();
    let frames =
        [anatomy.cell(0, 0), anatomy.cell(0, 3), anatomy.cell(1, 0)].map(|[_, frame]| frame);
    for frame in &frames {
        bytes[frame.0 + frame.1 / 2] ^= 1;
    }
    let findings = findings(&bytes);
    assert_eq!(findings.len(), 3);
    let offsets: Vec<_> =
        findings.iter().map(|finding| finding["context"]["offset"].as_u64()).collect();
    assert!(offsets.is_sorted(), "{offsets:?}");
}

#[test]
fn each_finding_is_one_line_of_text() {
    let [record, frame] = anatomy().cell(0, 1);
    let sandbox = Sandbox::new().and("a.bin", flipped(frame));
    let outcome: Outcome = sandbox.run(&["verify", "a.bin"]).says(&[
        "error: the archive failed verification\n",
        "findings: 1",
        "hint: fetch it again",
    ]);
    let text = outcome.text();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("corrupt: "), "{text}");
    for fact in
        [format!("snapshot {ROOT}"), "blocks 8..15".to_owned(), format!("offset {}", record.0)]
    {
        assert!(text.contains(&fact), "`{fact}` is missing in {text}");
    }
}

#[test]
fn an_undamaged_volume_of_a_damaged_archive_can_be_extracted() {
    let [_, frame] = anatomy().cell(0, 1);
    let sandbox = Sandbox::new().and("a.bin", flipped(frame));
    sandbox
        .run(&["extract", "a.bin", "--device", "/dev/xvda", "-o", "x.raw"])
        .failed(5, &[&format!("snapshot: {ROOT}"), "blocks: 8..15", "offset: "]);
    assert_eq!(sandbox.left(&["a.bin"]), [""; 0]);
    sandbox.run(&["extract", "a.bin", "--device", "/dev/sdb", "-o", "x.raw"]).succeeded();
}

#[test]
fn a_damaged_archive_is_not_restored() {
    let [_, frame] = anatomy().cell(1, 0);
    let sandbox = Sandbox::new().and("a.bin", flipped(frame));
    sandbox.run(&["restore", "a.bin", "out"]).failed(
        5,
        &[&format!("snapshot: {DATA}"), "blocks: 0..7", "hint: fetch it again if it is a copy"],
    );
    assert_eq!(sandbox.left(&["a.bin"]), [""; 0]);
}

#[test]
fn an_archive_is_compared_with_its_source() {
    let sandbox = Sandbox::with_image().and("a.bin", sample_archive());
    sandbox.run(&["verify", "a.bin", "--against", "image"]).succeeded();
    let raw = std::fs::File::options()
        .write(true)
        .open(sandbox.path(&format!("image/{ROOT}.raw")))
        .expect("a raw file");
    std::os::unix::fs::FileExt::write_all_at(&raw, b"changed", 9 << 19).expect("a write");
    let outcome = sandbox.run(&["verify", "a.bin", "--against", "image"]);
    assert_eq!(outcome.code, 5);
    assert!(
        outcome.text().contains(&format!("snapshot {ROOT}")) && outcome.text().contains('9'),
        "{}",
        outcome.text()
    );
}

#[test]
fn the_smallest_sample_looks_at_each_volume() {
    let report = Sandbox::with_archive()
        .run(&["verify", "a.bin", "--sample", "0.00001%", "--output", "json"])
        .succeeded()
        .json();
    assert_eq!(report["Sampled"], true);
    assert!(report["CellsChecked"].as_u64().expect("a number") >= 2, "{report}");
}

#[test]
fn an_archive_that_differs_from_its_source_is_not_called_corrupt() {
    let sandbox = Sandbox::with_image().and("a.bin", sample_archive());
    sandbox.write(
        "image/image.json",
        sandbox.read("image/image.json").iter().chain(b"\n").copied().collect::<Vec<u8>>(),
    );
    let outcome = sandbox.run(&["verify", "a.bin", "--against", "image"]);
    assert_eq!(
        (outcome.code, outcome.text().as_str()),
        (5, "different: the archive's image.json is not that of the source\n")
    );
    outcome.says(&["archive and source differ", "hint: one of the two changed"]);
}
