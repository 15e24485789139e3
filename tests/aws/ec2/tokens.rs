//! Lists of blocks and their tokens: pages of every shape, and tokens that expire at any time.

use std::time::Duration;

use amistore::internals::engine::PackOptions;
use amistore::internals::object::{Creation, MemoryStore, ObjectStore};
use amistore::internals::ops::{self, ArchiveTarget};
use amistore_aws_double::aws::{Content, Fault, FaultKind};

use super::bench::{BLOCKS, Bench, small_image, words};
use crate::support::image::by_ranges;

/// Stores the image with the current settings of the server, and compares the archive with that of
/// default settings.
#[track_caller]
fn assert_stored(bench: &Bench, ami: &str, expected: &[u8]) {
    let stored = bench.store(ami).unwrap_or_else(|error| panic!("{}", words(&error)));
    assert!(stored == expected, "another archive");
}

fn stored() -> (Bench, String, Vec<u8>) {
    let bench = Bench::new();
    let ami = small_image(&bench.aws);
    let archive = bench.store(&ami).expect("an archive");
    bench.aws.reset_calls();
    (bench, ami, archive)
}

#[test]
fn an_archive_has_exactly_the_written_blocks() {
    let (bench, ami, archive) = stored();
    let image = bench.aws.image(&ami).expect("an image");
    let unpacked = by_ranges(&archive).expect("unpacks");
    for (mapping, (name, size, blocks)) in image.mappings.iter().zip(&unpacked.volumes) {
        let snapshot =
            bench.aws.snapshot(mapping.snapshot_id().expect("a snapshot")).expect("there");
        assert_eq!((name, *size), (&snapshot.id, snapshot.volume_size << 30));
        assert!(blocks.keys().eq(snapshot.blocks.keys()));
        assert!(blocks.iter().all(|(index, data)| *data == snapshot.block(*index)), "{name}");
    }
}

#[test]
fn pages_of_three_blocks_lead_to_the_same_archive() {
    let (bench, ami, archive) = stored();
    bench.aws.set(|settings| settings.page_cap = Some(3));
    assert_stored(&bench, &ami, &archive);
    assert!(bench.aws.count("ListSnapshotBlocks") > 10);
}

#[test]
fn an_empty_page_with_a_token_is_not_the_last() {
    let (bench, ami, archive) = stored();
    // Blocks are read in any order while the first pages are empty.
    for (cap, empty) in [(3, 1), (100, 2), (100, 2), (100, 1), (100, 1)] {
        bench.aws.set(|settings| (settings.page_cap, settings.empty_pages) = (Some(cap), empty));
        assert_stored(&bench, &ami, &archive);
    }
}

#[test]
fn invalidated_block_tokens_are_renewed_by_all_readers() {
    let bench = Bench::new();
    let snapshot = bench.aws.snapshot_of(1, (0..64).map(|index| (index * 2, Content::random(1))));
    let archive = bench.store(&snapshot).expect("an archive");
    bench.aws.reset_calls();
    bench.aws.set(|settings| settings.block_latency = Duration::from_millis(20));
    std::thread::scope(|scope| {
        let running = scope.spawn(|| assert_stored(&bench, &snapshot, &archive));
        for at in [2, 20, 40] {
            crate::support::wait::wait_until("some blocks", || {
                bench.aws.count("GetSnapshotBlock") >= at || running.is_finished()
            });
            bench.aws.expire_block_tokens(&snapshot);
        }
        running.join().expect("no panic");
    });
    assert!(bench.aws.counts()["GetSnapshotBlock"].failed > 2, "none was refused");
}

#[test]
fn a_snapshot_with_tokens_that_are_always_invalid_is_an_error() {
    let bench = Bench::new();
    let ami = small_image(&bench.aws);
    let refused = FaultKind::Error {
        status: 400,
        code: "ValidationException".into(),
        reason: "INVALID_BLOCK_TOKEN".into(),
    };
    let snapshot = bench.aws.image(&ami).expect("an image").mappings[1]
        .snapshot_id()
        .expect("a snapshot")
        .to_owned();
    bench.aws.fail(Fault::on("GetSnapshotBlock", refused).snapshot(&snapshot).block(9).always());
    let error = bench.store(&ami).expect_err("given up");
    let text = words(&error);
    assert!(
        text.contains("INVALID_BLOCK_TOKEN")
            && text.contains(&snapshot)
            && text.contains("block 9"),
        "{text}"
    );
    assert!(bench.aws.count("GetSnapshotBlock") < 40);
}

#[test]
fn block_tokens_are_renewed_before_they_expire() {
    let (bench, ami, archive) = stored();
    // Three quarters of the life have passed when the next page is requested.
    bench.aws.set(|settings| {
        (settings.block_token_life, settings.page_cap) = (Duration::from_secs(1), Some(5));
    });
    bench.aws.set(|settings| settings.block_latency = Duration::from_millis(300));
    bench.aws.reset_calls();
    assert_stored(&bench, &ami, &archive);
}

#[test]
fn a_list_continues_after_its_page_token_expired() {
    let (bench, ami, archive) = stored();
    bench.aws.set(|settings| {
        (settings.page_cap, settings.latency) = (Some(1), Duration::from_millis(2));
    });
    let snapshot = bench.aws.image(&ami).expect("an image").mappings[0]
        .snapshot_id()
        .expect("a snapshot")
        .to_owned();
    for at in [6, 25] {
        bench.aws.reset_calls();
        std::thread::scope(|scope| {
            let running = scope.spawn(|| assert_stored(&bench, &ami, &archive));
            crate::support::wait::wait_until("some pages", || {
                bench.aws.count("ListSnapshotBlocks") >= at || running.is_finished()
            });
            bench.aws.expire_page_tokens(&snapshot);
            running.join().expect("no panic");
        });
        assert!(bench.aws.counts()["ListSnapshotBlocks"].failed > 0, "none was refused");
    }
}

#[test]
fn page_tokens_that_always_expire_are_an_error() {
    let (bench, ami, _) = stored();
    bench
        .aws
        .set(|settings| (settings.empty_pages, settings.page_token_life) = (1, Duration::ZERO));
    let error = bench.store(&ami).expect_err("it gets no further");
    assert!(words(&error).contains("INVALID_PAGE_TOKEN"), "{}", words(&error));
}

#[test]
fn a_list_with_gaps_and_a_short_run_at_its_end_is_read_to_the_last_block() {
    let bench = Bench::new();
    let indexes: Vec<u32> = (0..2048).filter(|index| index % 37 < 2 || *index > 2040).collect();
    let snapshot = bench
        .aws
        .snapshot_of(1, indexes.iter().map(|index| (*index, Content::bytes(index.to_le_bytes()))));
    bench.aws.set(|settings| settings.page_cap = Some(29));
    let unpacked = by_ranges(&bench.store(&snapshot).expect("an archive")).expect("unpacks");
    let (_, _, blocks) = &unpacked.volumes[0];
    assert!(blocks.keys().eq(&indexes));
    assert!(blocks.iter().all(|(index, data)| data[..4] == index.to_le_bytes()[..]));
}

#[test]
fn an_empty_snapshot_is_stored() {
    let bench = Bench::new();
    let snapshot = bench.aws.snapshot_of(1, []);
    let unpacked = by_ranges(&bench.store(&snapshot).expect("an archive")).expect("unpacks");
    assert_eq!((unpacked.volumes[0].1, unpacked.volumes[0].2.len()), (1 << 30, 0));
    assert_eq!(bench.aws.count("GetSnapshotBlock"), 0);
}

#[test]
fn a_block_that_is_no_longer_listed_is_an_error() {
    let (bench, ami, _) = stored();
    let snapshot = bench.aws.image(&ami).expect("an image").mappings[0]
        .snapshot_id()
        .expect("a snapshot")
        .to_owned();
    let image = bench.open(&ami).expect("opens");
    bench.aws.change_snapshot(&snapshot, |snapshot| {
        snapshot.blocks.remove(&41);
        snapshot.generation += 1;
    });
    let source = amistore::internals::image::ImageSource::volumes(&image)[0].clone();
    let error = source.read_at(41 * (512 << 10), &mut vec![0; 512 << 10]).expect_err("no zeros");
    assert!(error.message().contains("lacks a block of the first"), "{}", words(&error));
}

#[test]
fn every_block_is_requested_once() {
    let (bench, ami, _) = stored();
    bench.store(&ami).expect("an archive");
    // One block of each snapshot is read by the preflight.
    assert_eq!(bench.aws.count("GetSnapshotBlock"), BLOCKS + 2);
}

/// Stores a snapshot with a plan made before, like a store to a bucket, and returns the number of
/// ListSnapshotBlocks requests.
fn listings_of_a_store(bench: &Bench, snapshot: &str) -> u64 {
    bench.aws.reset_calls();
    let image = bench.open(snapshot).expect("opens");
    ops::plan_volumes(&image).expect("a plan");
    let store = MemoryStore::default();
    let writer = store.create("a.bin", Creation::default()).expect("a writer");
    let packed = bench.with_context(|context| {
        ops::store(&image, ArchiveTarget::Stream(writer), &PackOptions::default(), context)
    });
    packed.expect("packs");
    bench.aws.count("ListSnapshotBlocks")
}

#[test]
fn a_volume_is_listed_twice_unless_one_page_has_it() {
    let bench = Bench::new();
    let small = bench.aws.snapshot_of(1, [0, 1, 9, 2047].map(|block| (block, Content::random(1))));
    assert_eq!(listings_of_a_store(&bench, &small), 1, "one page");
    let pages = bench.aws.snapshot_of(1, (0..23).map(|block| (block * 7, Content::random(1))));
    bench.aws.set(|settings| settings.page_cap = Some(5));
    assert_eq!(listings_of_a_store(&bench, &pages), 2 * 5, "five pages");
}

#[test]
fn a_large_volume_is_listed_twice_whatever_its_size() {
    let bench = Bench::new();
    // 64 TiB with a block in every 8 TiB: one page.
    let blocks = |step: u32| (0..8).map(move |index| (index * step + 5, Content::random(1)));
    let sparse = bench.aws.snapshot_of(65_536, blocks(1 << 24));
    assert_eq!(listings_of_a_store(&bench, &sparse), 1, "one page");
    // 6 TiB in pages of two: the rest after the first page is listed in eight sections, each of
    // which may end with a page that the next section lists as well.
    let pages = bench.aws.snapshot_of(6144, blocks(1 << 20));
    bench.aws.set(|settings| settings.page_cap = Some(2));
    let lists = listings_of_a_store(&bench, &pages);
    assert!((2 * 4..=2 * 4 + 8).contains(&lists), "{lists}");
}
