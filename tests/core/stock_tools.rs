//! Stock tools unpack an archive: the image directory, sparse, byte by byte.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use amistore::internals::base::{Cancel, NullObserver};
use amistore::internals::engine::{Context, PackOptions, Plan};
use amistore::internals::image::ImageDirectory;
use amistore::internals::object::MemoryReader;
use amistore::internals::ops;

use crate::support::directory::make_image;
use crate::support::image::pack;
use crate::support::tools::{has, memory_file_system, succeed};

struct Stored {
    directory: tempfile::TempDir,
    archive: PathBuf,
}

fn stored() -> Stored {
    let directory = tempfile::tempdir().expect("a directory");
    let (source, archive) = (directory.path().join("source"), directory.path().join("a.bin"));
    make_image(&source);
    fs::write(&archive, packed(&source)).expect("writes");
    Stored { directory, archive }
}

/// The archive of an image directory.
fn packed(directory: &Path) -> Vec<u8> {
    let image = ImageDirectory::open_as_is(directory).expect("an image directory");
    pack(&image, &plan(), &PackOptions::default()).0
}

fn plan() -> Plan {
    Plan::new(2, 256 << 20, 3).expect("a plan")
}

impl Stored {
    fn target(&self) -> PathBuf {
        let target = self.directory.path().join("unpacked");
        fs::create_dir(&target).expect("makes");
        target
    }

    /// The unpacked directory is a source, and makes the archive it came from: no byte, hole or
    /// written zero is lost.
    fn check(&self, target: &Path) {
        assert!(target.join("FORMAT.txt").is_file());
        assert!(fs::read(&self.archive).expect("reads") == packed(target));
    }
}

fn shell(script: &str, arguments: &[&Path]) {
    succeed(Command::new("sh").arg("-c").arg(script).arg("sh").args(arguments));
}

#[test]
fn zstd_and_gnu_tar_unpack_an_archive() {
    if has("zstd") && has("tar") {
        let stored = stored();
        let target = stored.target();
        shell("zstd -dc \"$1\" | tar -C \"$2\" -xSf -", &[&stored.archive, &target]);
        stored.check(&target);
    }
}

#[test]
fn gnu_tar_recognises_an_archive_by_itself() {
    if has("zstd") && has("tar") {
        let stored = stored();
        let target = stored.target();
        shell("tar -C \"$2\" -xSf \"$1\"", &[&stored.archive, &target]);
        stored.check(&target);
    }
}

#[test]
fn bsdtar_unpacks_an_archive() {
    if has("bsdtar") {
        let stored = stored();
        let target = stored.target();
        shell("bsdtar -C \"$2\" -xf \"$1\"", &[&stored.archive, &target]);
        stored.check(&target);
    }
}

#[test]
fn zstd_tests_an_archive_and_prints_its_length() {
    if has("zstd") {
        let stored = stored();
        shell("zstd -qt \"$1\" && zstd -l \"$1\"", &[&stored.archive]);
    }
}

#[test]
fn python_unpacks_an_archive() {
    if has("zstd") && has("python3") {
        let stored = stored();
        let target = stored.target();
        let script = concat!(
            "import sys, tarfile\n",
            "with tarfile.open(fileobj=sys.stdin.buffer, mode='r|') as tar:\n",
            "    tar.extractall(sys.argv[1])"
        );
        let mut zstd = Command::new("zstd")
            .arg("-dc")
            .arg(&stored.archive)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("runs");
        let output = zstd.stdout.take().expect("a pipe");
        succeed(Command::new("python3").arg("-c").arg(script).arg(&target).stdin(output));
        assert!(zstd.wait().expect("ends").success());
        stored.check(&target);
    }
}

#[test]
fn the_rust_crates_unpack_an_archive() {
    let stored = stored();
    let target = stored.target();
    let decoder = zstd::stream::read::Decoder::new(File::open(&stored.archive).expect("opens"))
        .expect("a decoder");
    tar::Archive::new(decoder).unpack(&target).expect("unpacks");
    stored.check(&target);
}

#[test]
fn the_reader_written_from_the_specification_agrees() {
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("format-spec/reader/amibin.py");
    let has_zstd = has("python3")
        && Command::new("python3")
            .arg("-c")
            .arg("import zstandard")
            .output()
            .is_ok_and(|output| output.status.success());
    assert!(
        has_zstd || std::env::var_os("AMISTORE_REQUIRE_TOOLS").is_none(),
        "python3 has no zstandard"
    );
    if !has_zstd {
        eprintln!("python3 has no zstandard: nothing is tested with it");
        return;
    }
    let stored = stored();
    let python = || {
        let mut command = Command::new("python3");
        command.arg(&reader);
        command
    };
    succeed(python().arg("verify").arg(&stored.archive));
    succeed(python().arg("verify").arg("-").stdin(File::open(&stored.archive).expect("opens")));
    let target = stored.directory.path().join("unpacked");
    succeed(python().arg("unpack").arg(&stored.archive).arg(&target));
    assert!(fs::read(&stored.archive).expect("reads") == packed(&target));
    succeed(
        python()
            .arg("vectors")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("format-spec/vectors")),
    );
}

#[test]
fn stock_tools_unpack_a_volume_of_64_tib() {
    let Some(memory) = memory_file_system() else { return };
    if !has("zstd") || !has("tar") || !has("bsdtar") {
        return;
    }
    let vector = Path::new(env!("CARGO_MANIFEST_DIR")).join("format-spec/vectors/64-tib.bin");
    for script in ["zstd -dc \"$1\" | tar -C \"$2\" -xSf -", "bsdtar -C \"$2\" -xf \"$1\""] {
        let directory = tempfile::tempdir_in(&memory).expect("a directory");
        let target = directory.path().join("unpacked");
        fs::create_dir(&target).expect("makes");
        shell(script, &[&vector, &target]);
        assert_eq!(fs::metadata(target.join("snap-1.raw")).expect("metadata").len(), 64 << 40);
        let image = ImageDirectory::open_as_is(&target).expect("an image directory");
        let plan = plan();
        let context = Context { plan: &plan, observer: &NullObserver, cancel: &Cancel::new() };
        for archive in [fs::read(&vector).expect("reads"), packed(&target)] {
            let archive = Arc::new(MemoryReader::new("archive", archive));
            let verified = ops::verify_against(archive, &image, context).expect("verifies");
            assert!(verified.is_ok() && !verified.differs);
        }
    }
}
