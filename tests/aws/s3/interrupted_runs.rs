//! Leftovers of an interrupted run meet another run: of another image, with other options, or of
//! another process.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use amistore::internals::aws::s3::{ObjectOptions, S3Store};
use amistore::internals::base::{Cancel, ErrorKind, NullObserver, Result};
use amistore::internals::engine::{Archive, Context, PackOptions, Plan};
use amistore::internals::image::{
    DirectoryDestination, ImageDirectoryWriter, ImageSource, ImageWriter, Leftovers,
};
use amistore::internals::localfs::{Durability, Overwrite};
use amistore::internals::object::{Attributes, Creation, ObjectStore};
use amistore::internals::ops::{self, ArchiveTarget, ObjectTarget, Resumption};
use amistore_aws_double::s3::{Fault, FaultKind, ObjectOptions as ServedOptions, When};

use super::setup::{BUCKET, Bench, image, small_parts, store, with_context};
use crate::support::image::{BLOCK, Random, TestImage};

/// Two images with the same names and sizes, and different blocks. Each volume is longer than the
/// first read at the end of an archive.
fn two_images() -> (TestImage, TestImage) {
    let make = |seed: u64, within: u32| {
        let mut random = Random(seed);
        // The first half of each block becomes a hole of the file.
        let mut block = || [vec![0; BLOCK / 2], random.noise(100 << 10)].concat();
        let mut volume = |cells: &[u32]| -> BTreeMap<u32, Vec<u8>> {
            cells.iter().map(|cell| (8 * cell + within, block())).collect()
        };
        TestImage::new(vec![
            (80 * BLOCK as u64, volume(&[0, 2, 4, 6])),
            (40 * BLOCK as u64, volume(&[0, 1, 3])),
        ])
    };
    (make(11, 0), make(12, 1))
}

fn restore(bench: &Bench, key: &str, target: &Path) -> Result<()> {
    let reader = bench.store().open(key)?;
    let archive = Archive::open(reader)?;
    let destination = DirectoryDestination {
        path: target.to_owned(),
        overwrite: Overwrite::No,
        durability: Durability::Cached,
    };
    let resumption = Resumption { target: target.display().to_string(), ..bench.resumption(key) };
    with_context(|context| {
        ops::restore_resumable(&archive, &destination, &[], &resumption, context)
    })
    .map(drop)
}

/// Lets a restore fail at one of its last reads, so that it leaves partial files.
fn interrupt(bench: &Bench, key: &str, target: &Path) {
    let whole = bench.directory.path().join("whole");
    bench.server.reset_calls();
    restore(bench, key, &whole).expect("restores");
    fs::remove_dir_all(&whole).expect("removes");
    let reads = bench.server.count("GetObject") as u64;
    for nth in (1..=reads).rev() {
        bench.server.reset_calls();
        bench.server.fail(Fault::new(FaultKind::AccessDenied, When::CallOf("GetObject", nth)));
        let outcome = restore(bench, key, target);
        bench.server.clear_faults();
        let error = outcome.expect_err("denied");
        assert_eq!(
            error.fact("resume_with").is_some(),
            partials(target) > 0,
            "what is left is named, and nothing else"
        );
        if partials(target) > 0 {
            return;
        }
    }
    panic!("nothing was left, so nothing is tested");
}

fn assert_restored(target: &Path, image: &TestImage) {
    for (snapshot, volume) in image.document().snapshots().iter().zip(image.volumes()) {
        let found = fs::read(target.join(snapshot.id.file_name())).expect("a volume");
        let mut expected = vec![0; volume.size().bytes() as usize];
        volume.read_at(0, &mut expected).expect("reads");
        assert!(found == expected, "{}", snapshot.id);
    }
}

fn partials(target: &Path) -> usize {
    let Ok(entries) = fs::read_dir(target) else { return 0 };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(".partial"))
        .count()
}

#[test]
fn partial_volumes_of_one_archive_never_reach_another() {
    let (one, other) = two_images();
    for between in
        ["nothing", "a whole restore of the other", "an interrupted restore of the other"]
    {
        let bench = Bench::new();
        for (key, image) in [("one.bin", &one), ("other.bin", &other)] {
            store(image, &bench.store(), key, None).expect("stores");
        }
        let target = bench.directory.path().join("restored");
        let interrupt = |key| interrupt(&bench, key, &target);
        interrupt("one.bin");
        match between {
            "a whole restore of the other" => {
                restore(&bench, "other.bin", &target).expect("restores");
                assert_restored(&target, &other);
                assert_eq!(partials(&target), 0);
                fs::remove_dir_all(&target).expect("removes");
            }
            "an interrupted restore of the other" => interrupt("other.bin"),
            _ => {}
        }
        restore(&bench, "one.bin", &target).expect("restores");
        assert_restored(&target, &one);
        assert_eq!(partials(&target), 0, "{between}");
    }
}

#[test]
fn a_local_restore_keeps_the_partial_files_of_a_remote_one() {
    let bench = Bench::new();
    let (one, other) = two_images();
    store(&one, &bench.store(), "one.bin", None).expect("stores");
    let target = bench.directory.path().join("restored");
    interrupt(&bench, "one.bin", &target);
    // It writes the other image's volumes under their partial names, and is killed.
    let mut local = ImageDirectoryWriter::create(&target, Overwrite::No, Durability::Cached)
        .expect("begins")
        .leaving(Leftovers::Remove);
    for (snapshot, volume) in other.document().snapshots().iter().zip(other.volumes()) {
        let sink = local.create_volume(&snapshot.id, volume.size()).expect("a volume");
        sink.write_data(0, &vec![0xEE; 16 * BLOCK], &[]).expect("writes");
    }
    // Links keep its files: a writer that ends removes their names, and its end frees the lock.
    let saved = bench.directory.path().join("saved");
    fs::create_dir(&saved).expect("a directory");
    for entry in fs::read_dir(&target).expect("a directory").map(|entry| entry.expect("an entry")) {
        fs::hard_link(entry.path(), saved.join(entry.file_name())).expect("a link");
    }
    drop(local);
    for entry in fs::read_dir(&saved).expect("a directory").map(|entry| entry.expect("an entry")) {
        let name = target.join(entry.file_name());
        if !name.exists() {
            fs::rename(entry.path(), name).expect("renames");
        }
    }
    fs::remove_dir_all(&saved).expect("removes");
    restore(&bench, "one.bin", &target).expect("continues");
    assert_restored(&target, &one);
}

#[test]
fn an_upload_with_other_options_does_not_resume_silently() {
    let bench = Bench::new();
    let image = image();
    let attempt = |options: ObjectOptions, restart| {
        let bucket = S3Store::new(bench.connect(bench.options()), BUCKET, options);
        let resumption = Resumption { restart, ..bench.resumption("a.bin") };
        store(&image, &bucket, "a.bin", Some(resumption))
    };
    bench.server.fail(Fault::new(FaultKind::AccessDenied, When::CallOf("UploadPart", 4)));
    let error = attempt(small_parts(), false).expect_err("denied");
    assert!(error.fact("resume_with").is_some());
    bench.server.clear_faults();
    let encrypted = || ObjectOptions { sse: Some("AES256".into()), ..small_parts() };
    let error = attempt(encrypted(), false).expect_err("begun without");
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.fact("begun_with").is_some() && error.fact("resume_with").is_none(), "{error:?}");
    assert_eq!(bench.open_uploads(), 1);
    attempt(encrypted(), true).expect("begins anew");
    assert_eq!(bench.open_uploads(), 0);
}

#[test]
fn another_level_keeps_the_parts_that_were_sent() {
    let bench = Bench::new();
    let image = image();
    let attempt = |level: i32, restart| {
        let plan = Plan::new(2, 128 << 20, level).expect("a plan");
        let context = Context { plan: &plan, observer: &NullObserver, cancel: &Cancel::new() };
        let at_most = ops::plan_volumes(&image)?.longest_archive;
        let bucket = bench.store();
        let resumption = Some(Box::new(Resumption { restart, ..bench.resumption("a.bin") }));
        let (overwrite, attributes) = (Overwrite::No, Attributes::default());
        let target = ObjectTarget {
            store: &bucket,
            key: "a.bin".into(),
            overwrite,
            attributes,
            at_most,
            segments: Vec::new(),
            resumption,
            on_metadata_change: None,
        };
        ops::store(&image, ArchiveTarget::Object(target), &PackOptions::default(), context)
            .map(drop)
    };
    bench.server.fail(Fault::new(FaultKind::AccessDenied, When::CallOf("UploadPart", 4)));
    attempt(1, false).expect_err("denied");
    bench.server.clear_faults();
    let error = attempt(3, false).expect_err("begun with level 1");
    assert_eq!((error.kind(), bench.open_uploads()), (ErrorKind::Usage, 1));
    attempt(1, false).expect("goes on");
    assert_eq!((bench.open_uploads(), bench.bytes("a.bin")), (0, Some(image.pack(1, 1))));
}

#[test]
fn a_small_object_does_not_replace_a_concurrent_one() {
    let bench = Bench::new();
    for ignores in [false, true] {
        bench.server.set_quirks(amistore_aws_double::s3::Quirks {
            ignores_if_none_match: ignores,
            ..Default::default()
        });
        let key = format!("small-{ignores}.bin");
        let mut writer = bench
            .store()
            .create(&key, Creation { at_most: 1000, ..Creation::default() })
            .expect("begins");
        writer.append(b"ours").expect("appends");
        bench.server.put_object(BUCKET, &key, b"theirs".to_vec(), ServedOptions::default());
        assert_eq!(writer.commit().expect_err("exists").kind(), ErrorKind::Exists);
        assert_eq!(bench.bytes(&key).as_deref(), Some(&b"theirs"[..]));
    }
}
