//! Archives and volumes as files: holes, zeros and data survive, on each file system, with any
//! state of the page cache, up to 64 TiB.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use amistore::internals::volume::{BlockSource, RawFileSource};
use serde_json::{Value, json};

use crate::support::directory::{make_image, sparse};
use crate::support::image::{BLOCK, Random};
use crate::support::listing::names;
use crate::support::program::{amistore, file_systems};
use crate::support::tools::{memory_file_system, succeed};

fn assert_same_image(left: &Path, right: &Path) {
    assert_eq!(names(left), names(right));
    for name in names(left) {
        let (left, right) = (left.join(&name), right.join(&name));
        let len = fs::metadata(&left).expect("metadata").len();
        assert_eq!(len, fs::metadata(&right).expect("metadata").len(), "{name}");
        if !name.ends_with(".raw") {
            assert!(fs::read(&left).expect("reads") == fs::read(&right).expect("reads"), "{name}");
            continue;
        }
        let open = |path: &Path| RawFileSource::open(path).expect("opens");
        let (left, right) = (open(&left), open(&right));
        let map = left.block_map().expect("a map");
        assert!(map == right.block_map().expect("a map"), "{name}: other blocks are written");
        for block in map.extents().flat_map(|extent| extent.first..extent.end()) {
            let offset = u64::from(block) * BLOCK as u64;
            let mut data = [
                vec![0; (len - offset).min(BLOCK as u64) as usize],
                vec![0; (len - offset).min(BLOCK as u64) as usize],
            ];
            left.read_at(offset, &mut data[0]).expect("reads");
            right.read_at(offset, &mut data[1]).expect("reads");
            assert!(data[0] == data[1], "{name}: block {block}");
        }
    }
}

#[test]
fn an_image_directory_survives_the_round_trip_on_every_file_system() {
    for directory in file_systems() {
        let directory = tempfile::tempdir_in(directory).expect("a directory");
        let (source, archives) =
            (directory.path().join("source"), directory.path().join("archives"));
        make_image(&source);
        fs::create_dir(&archives).expect("makes");
        succeed(amistore().arg("store").arg(&source).arg(&archives));
        assert_eq!(names(&archives), ["ami-0123456789abcdef0.bin"]);
        let archive = archives.join("ami-0123456789abcdef0.bin");
        let (ranged, streamed) =
            (directory.path().join("ranged"), directory.path().join("streamed"));
        succeed(amistore().arg("restore").arg(&archive).arg(&ranged));
        succeed(
            amistore()
                .arg("restore")
                .arg("-")
                .arg(&streamed)
                .stdin(File::open(&archive).expect("opens")),
        );
        assert_same_image(&source, &ranged);
        assert_same_image(&source, &streamed);
        succeed(amistore().args(["verify", "--against"]).arg(&source).arg(&archive));
        // The restored directory is a source again, and makes the same archive.
        let again = directory.path().join("again.bin");
        succeed(amistore().arg("store").arg(&ranged).arg(&again));
        assert!(
            fs::read(&archive).expect("reads") == fs::read(&again).expect("reads"),
            "{}",
            directory.path().display()
        );
    }
}

#[test]
fn the_page_cache_does_not_change_an_archive() {
    for directory in file_systems() {
        let directory = tempfile::tempdir_in(directory).expect("a directory");
        let source = directory.path().join("source");
        make_image(&source);
        let archive = |name: &str| {
            let path = directory.path().join(name);
            succeed(amistore().arg("store").arg(&source).arg(&path));
            fs::read(path).expect("reads")
        };
        let raw = File::open(source.join("snap-root.raw")).expect("opens");
        rustix::fs::fsync(&raw).expect("syncs");
        rustix::fs::fadvise(&raw, 0, None, rustix::fs::Advice::DontNeed).expect("drops");
        let cold = archive("cold.bin");
        // Reading an unwritten extent puts pages into the cache that SEEK_DATA takes for data.
        std::io::copy(&mut &raw, &mut std::io::sink()).expect("reads");
        assert!(cold == archive("hot.bin"), "{}", directory.path().display());
    }
}

#[test]
fn plain_disks_make_an_image_with_the_same_ids_each_time() {
    let directory = tempfile::tempdir().expect("a directory");
    let (root, data) = (directory.path().join("root.raw"), directory.path().join("data.raw"));
    sparse(&root, 8 << 20).write_all_at(b"boot", 0).expect("writes");
    sparse(&data, 3 << 20).write_all_at(b"data", 1 << 20).expect("writes");
    let store = |target: &str| -> Value {
        let output = succeed(
            amistore()
                .args([
                    "store",
                    "--output",
                    "json",
                    "--name",
                    "my image",
                    "--tag",
                    "Team=größe",
                    "--architecture",
                    "arm64",
                    "--boot-mode",
                    "uefi",
                ])
                .arg("--disk")
                .arg(format!("/dev/xvda={}", root.display()))
                .arg("--disk")
                .arg(format!("/dev/sdb={}", data.display()))
                .arg(directory.path().join(target)),
        );
        serde_json::from_slice(&output).expect("JSON")
    };
    let (first, second) = (store("1.bin"), store("2.bin"));
    assert_eq!(first["ImageId"], second["ImageId"]);
    assert_eq!(first["RootSha256"], second["RootSha256"]);
    assert_eq!(
        fs::read(directory.path().join("1.bin")).expect("reads"),
        fs::read(directory.path().join("2.bin")).expect("reads")
    );
    let json =
        succeed(amistore().args(["extract", "--image-json"]).arg(directory.path().join("1.bin")));
    let json: Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!(json["Image"]["BlockDeviceMappings"][1]["DeviceName"], "/dev/sdb");
    assert_eq!(json["Image"]["Tags"], json!([{"Key": "Team", "Value": "größe"}]));
    let out = directory.path().join("out.raw");
    succeed(
        amistore()
            .arg("extract")
            .arg(directory.path().join("1.bin"))
            .args(["--device", "/dev/sdb", "-o"])
            .arg(&out),
    );
    assert_eq!(fs::read(out).expect("reads"), fs::read(data).expect("reads"));
}

/// The program under a hard limit on its data: heap, stacks, private mappings.
fn limited(mib: u64) -> Command {
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("ulimit -d {} && exec \"$0\" \"$@\"", mib * 1024))
        .arg(env!("CARGO_BIN_EXE_amistore"));
    command
}

#[test]
fn a_volume_of_64_tib_is_stored_and_restored_within_the_memory_budget() {
    let directory = memory_file_system()
        .map_or_else(tempfile::tempdir, tempfile::tempdir_in)
        .expect("a directory");
    let directory = directory.path();
    let raw = directory.join("disk.raw");
    let file = File::options().write(true).create_new(true).open(&raw).expect("makes");
    // ext4 ends at 16 TiB; there is a file system in memory nearly everywhere.
    let size = [64u64 << 40, 15 << 40]
        .into_iter()
        .find(|size| file.set_len(*size).is_ok())
        .expect("a file system for large files");
    let mut random = Random(64);
    let mut written = std::collections::BTreeSet::from([0, size / BLOCK as u64 - 1]);
    for _ in 0..400 {
        written.insert(random.below(size / BLOCK as u64));
    }
    for block in &written {
        file.write_all_at(&random.noise(4096), block * BLOCK as u64 + random.below(127) * 4096)
            .expect("writes");
    }
    drop(file);
    let (archive, target) = (directory.join("a.bin"), directory.join("restored"));
    let disk = format!("/dev/xvda={}", raw.display());
    // The budget is 64 MiB; the limit leaves room for stacks of threads and the allocator's
    // reserves.
    let limited = || {
        let mut command = limited(96);
        command.args(["--memory", "64MiB", "--threads", "2"]);
        command
    };
    succeed(
        limited().args(["store", "--no-sync", "--name", "64 TiB", "--disk", &disk]).arg(&archive),
    );
    succeed(limited().arg("verify").arg(&archive));
    succeed(limited().args(["restore", "--no-sync"]).arg(&archive).arg(&target));
    succeed(limited().args(["verify"]).arg("-").stdin(File::open(&archive).expect("opens")));
    let restored =
        names(&target).into_iter().find(|name| name.ends_with(".raw")).expect("a raw file");
    let open = |path: &Path| RawFileSource::open(path).expect("opens");
    let (source, restored) = (open(&raw), open(&target.join(restored)));
    let map = source.block_map().expect("a map");
    assert_eq!(map.stored_blocks(), written.len() as u64);
    assert!(map == restored.block_map().expect("a map"));
    for block in written {
        let mut data = [vec![0; BLOCK], vec![0; BLOCK]];
        source.read_at(block * BLOCK as u64, &mut data[0]).expect("reads");
        restored.read_at(block * BLOCK as u64, &mut data[1]).expect("reads");
        assert!(data[0] == data[1], "block {block}");
    }
}

#[test]
fn memory_stays_within_the_budget_on_dense_data_and_many_threads() {
    let directory = tempfile::tempdir().expect("a directory");
    let raw = directory.path().join("disk.raw");
    let file = sparse(&raw, 240 << 20);
    let mut random = Random(3);
    for mib in 0..240 {
        let bytes = if mib % 2 == 0 { random.noise(1 << 20) } else { random.text(1 << 20) };
        file.write_all_at(&bytes, mib << 20).expect("writes");
    }
    let (archive, target) = (directory.path().join("a.bin"), directory.path().join("restored"));
    let disk = format!("/dev/xvda={}", raw.display());
    let limited = || {
        let mut command = limited(160);
        command.args(["--memory", "128MiB", "--threads", "64"]);
        command
    };
    succeed(
        limited().args(["store", "--no-sync", "--name", "dense", "--disk", &disk]).arg(&archive),
    );
    succeed(limited().args(["restore", "--no-sync"]).arg(&archive).arg(&target));
    succeed(
        limited()
            .args(["restore", "--no-sync", "--force"])
            .arg("-")
            .arg(&target)
            .stdin(File::open(&archive).expect("opens")),
    );
    assert_eq!(fs::metadata(&archive).expect("metadata").mode() & 0o777, 0o666 & !umask());
}

/// The mode that new files lose.
fn umask() -> u32 {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("a"), b"").expect("writes");
    !fs::metadata(directory.path().join("a")).expect("metadata").mode() & 0o666
}
