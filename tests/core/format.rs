//! The archive as bytes: the packer and both readers.

use std::collections::BTreeMap;

use amistore::internals::base::ErrorKind;
use amistore::internals::engine::{Depth, PackOptions, Plan};
use proptest::prelude::*;

use crate::support::forge::{self, Block, Forge, Volume};
use crate::support::image::{
    BLOCK, Random, TestImage, Unpacked, by_ranges, by_stream, stream_verdict, stream_verdict_to,
    verdict, verdict_to,
};

/// The blocks that a restore should give.
fn expected(image: &TestImage) -> Unpacked {
    use amistore::internals::image::ImageSource;
    let sizes = image.volumes().iter().map(|volume| volume.size().bytes());
    let ids = image.document().snapshots().iter().map(|snapshot| snapshot.id.to_string());
    let volumes = ids
        .zip(sizes)
        .zip(&image.blocks)
        .map(|((id, size), blocks)| (id, size, blocks.clone()))
        .collect();
    Unpacked { image_json: image.document().bytes().to_vec(), volumes }
}

/// A volume with some of everything: noise, text, zeros, holes, a short end.
fn mixed(seed: u64, blocks: u32) -> (u64, BTreeMap<u32, Vec<u8>>) {
    let mut random = Random(seed);
    let mut volume = BTreeMap::new();
    for block in 0..blocks {
        match random.below(5) {
            0 => volume.insert(block, random.noise(BLOCK)),
            1 | 2 => volume.insert(block, random.text(BLOCK)),
            3 => volume.insert(block, vec![0; BLOCK]),
            _ => None,
        };
    }
    (u64::from(blocks) * BLOCK as u64 - 1024, volume)
}

#[test]
fn both_readers_give_back_every_block_and_its_state() {
    let image = TestImage::new(vec![mixed(1, 40), (BLOCK as u64, BTreeMap::new()), mixed(2, 9)]);
    let archive = image.pack(1, 2);
    assert_eq!(by_ranges(&archive).expect("restores"), expected(&image));
    assert_eq!(by_stream(&archive).expect("restores"), expected(&image));
    assert_eq!((verdict(&archive), stream_verdict(&archive)), (None, None));
}

#[test]
fn the_bytes_do_not_depend_on_threads_and_memory() {
    let image = TestImage::new(vec![mixed(3, 60), mixed(4, 30)]);
    let archive = image.pack(1, 1);
    for (threads, memory) in [(2, 256u64 << 20), (7, 256 << 20), (1, 64 << 20), (16, 1 << 30)] {
        let plan = Plan::new(threads, memory, 1).expect("a plan");
        assert!(
            image.pack_with(&plan, &PackOptions::default()).0 == archive,
            "{threads} threads, {memory} bytes"
        );
    }
}

#[test]
fn the_level_changes_the_bytes_and_not_the_content() {
    let image = TestImage::new(vec![mixed(5, 20)]);
    let plan = |level| Plan::new(2, 256 << 20, level).expect("a plan");
    let (fast, fast_report) = image.pack_with(&plan(1), &PackOptions::default());
    let (small, small_report) = image.pack_with(&plan(9), &PackOptions::default());
    assert!(small.len() < fast.len());
    assert_eq!(fast_report.footer.content_root, small_report.footer.content_root);
    assert_ne!(fast_report.footer.root, small_report.footer.root);
    assert_eq!(by_ranges(&small).expect("restores"), expected(&image));
}

#[test]
fn the_packer_agrees_with_the_specification() {
    let json = r#"{"Snapshots":[{"SnapshotId":"snap-0"},{"SnapshotId":"snap-1"}]}"#;
    let volumes = vec![
        mixed(6, 30),
        (
            40 << 30,
            BTreeMap::from([(0, vec![1]), (9, vec![0]), (32_768, vec![2]), (81_919, vec![3])]),
        ),
    ];
    let image = TestImage::with_document(json.into(), volumes);
    let block = |data: &Vec<u8>| {
        if data.iter().all(|byte| *byte == 0) { Block::Zero } else { Block::Data(data.clone()) }
    };
    let forged = expected(&image).volumes.into_iter().map(|(name, size, blocks)| Volume {
        name,
        size,
        blocks: blocks.iter().map(|(index, data)| (*index, block(data))).collect(),
    });
    let mut forge = Forge::new(json, forged.collect());
    forge.writer = PackOptions::default().writer;
    assert!(forge.build() == image.pack(1, 2));
}

#[test]
fn written_zeros_do_not_change_the_content_digest_and_are_restored_as_zeros() {
    let data = BTreeMap::from([(3, vec![7; BLOCK])]);
    let mut with_zeros = data.clone();
    with_zeros.extend([(0, vec![0; BLOCK]), (4, vec![0; BLOCK]), (20, vec![0; BLOCK])]);
    let (plain, zeros) =
        (TestImage::new(vec![(16 << 20, data)]), TestImage::new(vec![(16 << 20, with_zeros)]));
    let plan = Plan::new(1, 256 << 20, 1).expect("a plan");
    let (_, plain_report) = plain.pack_with(&plan, &PackOptions::default());
    let (archive, report) = zeros.pack_with(&plan, &PackOptions::default());
    assert_eq!(plain_report.footer.content_root, report.footer.content_root);
    assert_eq!(by_ranges(&archive).expect("restores"), expected(&zeros));
    let sparse = PackOptions { sparse: true, ..PackOptions::default() };
    assert!(
        zeros.pack_with(&plan, &sparse).0 == plain.pack(1, 1),
        "--sparse takes zeros for absent"
    );
}

#[test]
fn fill_blocks_are_not_restored() {
    let volume = Volume {
        name: "snap-0".into(),
        size: 16 << 20,
        blocks: vec![
            (0, Block::Data(vec![1])),
            (1, Block::Fill),
            (2, Block::Data(vec![2])),
            (3, Block::Zero),
        ],
    };
    let archive = Forge::new(r#"{"Snapshots":[{"SnapshotId":"snap-0"}]}"#, vec![volume]).build();
    for unpacked in [by_ranges(&archive).expect("restores"), by_stream(&archive).expect("restores")]
    {
        assert_eq!(unpacked.volumes[0].2.keys().copied().collect::<Vec<_>>(), [0, 2, 3]);
    }
    assert_eq!((verdict(&archive), stream_verdict(&archive)), (None, None));
}

#[test]
fn a_cell_of_zeros_alone_that_holds_data_is_restored_by_no_reader() {
    let volume = Volume {
        name: "snap-0".into(),
        size: 16 << 20,
        blocks: vec![(0, Block::Data(vec![1])), (8, Block::Zero), (17, Block::Fill)],
    };
    for cell in [1, 2] {
        let forge = || {
            let json = r#"{"Snapshots":[{"SnapshotId":"snap-0"}]}"#;
            Forge::new(json, vec![volume.clone()])
        };
        let archive = forge().build();
        assert!(by_ranges(&archive).is_ok() && by_stream(&archive).is_ok());
        let seen = std::cell::Cell::new(0);
        let mut other = forge();
        other.edit_raw = Box::new(move |raw| {
            if seen.replace(seen.get() + 1) == cell {
                raw[9] = 1;
            }
        });
        let archive = other.build();
        for outcome in [by_ranges(&archive), by_stream(&archive)] {
            assert_eq!(outcome.expect_err("refused").kind(), ErrorKind::Corrupt, "cell {cell}");
        }
        assert_eq!(
            (verdict(&archive), stream_verdict(&archive)),
            (Some(ErrorKind::Corrupt), Some(ErrorKind::Corrupt))
        );
    }
}

#[test]
#[ignore = "inflates 21 GiB of zeros, twice: half a minute"]
fn a_tar_header_of_several_meta_frames_is_read_by_both_readers() {
    // 4 extents in the first 512 bytes, 21 in each of the others.
    let extents = 4 + 21 * (1 << 20) / 512;
    let volume = Volume {
        name: "snap-0".into(),
        size: 2 * u64::from(extents) * BLOCK as u64,
        blocks: (0..extents).map(|extent| (2 * extent, Block::Zero)).collect(),
    };
    let header = forge::sparse_header(&volume);
    assert!(header.len() > 1 << 20, "more than one meta frame");
    let archive = Forge::new(r#"{"Snapshots":[{"SnapshotId":"snap-0"}]}"#, vec![volume]).build();
    assert_eq!((verdict(&archive), stream_verdict(&archive)), (None, None));
}

#[test]
fn both_readers_detect_every_flipped_bit_and_truncation() {
    let image = TestImage::new(vec![(
        BLOCK as u64 * 3 + 512,
        BTreeMap::from([(0, b"hello".to_vec()), (1, vec![0]), (3, b"end".to_vec())]),
    )]);
    let archive = image.pack(1, 1);
    let mut random = Random(7);
    for at in 0..archive.len() {
        let mut damaged = archive.clone();
        damaged[at] ^= 1 << random.below(8);
        for kind in verdicts(&damaged) {
            assert!(
                matches!(kind, Some(ErrorKind::Corrupt | ErrorKind::Unsupported)),
                "byte {at}: {kind:?}"
            );
        }
    }
    for len in 0..archive.len() {
        for kind in verdicts(&archive[..len]) {
            assert!(
                matches!(kind, Some(ErrorKind::Corrupt | ErrorKind::Unsupported)),
                "{len} bytes: {kind:?}"
            );
        }
    }
    let mut longer = archive;
    longer.push(0);
    assert!(verdicts(&longer).iter().all(Option::is_some));
}

/// The outcomes of both readers, of blocks and of stored bytes.
fn verdicts(archive: &[u8]) -> [Option<ErrorKind>; 4] {
    [
        verdict(archive),
        stream_verdict(archive),
        verdict_to(Depth::Stored, archive),
        stream_verdict_to(Depth::Stored, archive),
    ]
}

#[test]
fn an_unknown_record_before_the_footer_is_skipped_unless_it_is_critical() {
    let volume =
        || Volume { name: "snap-0".into(), size: 1 << 20, blocks: vec![(1, Block::Data(vec![1]))] };
    let mut forge = Forge::new(r#"{"Snapshots":[{"SnapshotId":"snap-0"}]}"#, vec![volume()]);
    forge.extra = [forge::record(b'X', 9, 0, b"whatever"), forge::record(b'G', 1, 3, b"")].concat();
    let archive = forge.build();
    assert_eq!((verdict(&archive), stream_verdict(&archive)), (None, None));
    forge.extra = forge::record(b'X', 1, 1 << 15, b"");
    let archive = forge.build();
    assert_eq!(
        (verdict(&archive), stream_verdict(&archive)),
        (Some(ErrorKind::Unsupported), Some(ErrorKind::Unsupported))
    );
    forge.extra = forge::record(b'C', 1, 0, &[0; 56]);
    let archive = forge.build();
    assert_eq!(
        (verdict(&archive), stream_verdict(&archive)),
        (Some(ErrorKind::Corrupt), Some(ErrorKind::Corrupt))
    );
}

fn volumes() -> impl Strategy<Value = Vec<(u64, BTreeMap<u32, Vec<u8>>)>> {
    let state = prop_oneof![Just(Vec::new()), prop::collection::vec(any::<u8>(), 1..50)];
    let volume = (1u64..80_000, 0u64..1024).prop_flat_map(move |(blocks, tail)| {
        let size = blocks * BLOCK as u64 - tail * 512;
        (Just(size.max(512)), prop::collection::btree_map(0..blocks as u32, state.clone(), 0..20))
    });
    prop::collection::vec(volume, 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_image_survives_the_round_trip(volumes in volumes(), threads in 1usize..4) {
        let image = TestImage::new(volumes);
        let archive = image.pack(1, threads);
        prop_assert!(by_ranges(&archive).expect("restores") == expected(&image));
        prop_assert!(by_stream(&archive).expect("restores") == expected(&image));
        prop_assert_eq!((verdict(&archive), stream_verdict(&archive)), (None, None));
    }
}
