//! The library as an embedder sees it: nothing but the public names of the crate.

use std::fs;
use std::path::PathBuf;

use amistore::plan::{self, Existing};
use amistore::report::StoreReport;
use amistore::{Archive, BlockSource, Disks, ErrorKind, Image, MemoryStore, Options, Store};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

struct Bench {
    directory: TempDir,
    store: Store,
    options: Options,
}

impl Bench {
    fn new() -> Self {
        let store = Store::new(MemoryStore::default());
        let options = Options::default().threads(1).no_sync();
        Self { directory: TempDir::new().expect("a directory"), store, options }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// An image of one disk of 9 MiB.
    fn image(&self) -> Image {
        fs::write(self.path("root.raw"), vec![7; 9 << 20]).expect("a disk");
        let disks = Disks::named("web").disk("/dev/xvda", self.path("root.raw"));
        disks.open().expect("an image")
    }

    fn stored(&self) -> (StoreReport, Archive) {
        let report = amistore::store(&self.image(), &self.store, &self.options).expect("stores");
        let reader = self.store.get(&report.key).expect("an object");
        (report, Archive::open(reader).expect("an archive"))
    }
}

#[test]
fn an_archive_tells_its_content() {
    let bench = Bench::new();
    let (report, archive) = bench.stored();
    let found = amistore::inspect(&archive).expect("an inspection");
    assert_eq!((found.archive_len, found.footer.root), (report.archive_len, report.root));
    assert_eq!(found.document.name(), Some("web"));
    let [volume] = found.volumes.as_slice() else { panic!("one volume: {found:?}") };
    assert_eq!((volume.entry.size.bytes(), volume.entry.blocks), (9 * MIB, 18));
    assert!(volume.map.iter().all(|cell| cell.data > 0.9), "{:?}", volume.map);
}

#[test]
fn a_planned_store_writes_nothing_and_bounds_the_run() {
    let bench = Bench::new();
    let planned = plan::store(&bench.image(), &bench.store, &bench.options).expect("a plan");
    assert!(bench.store.list().expect("lists").is_empty());
    assert_eq!(planned.existing, Existing::None);
    assert_eq!((planned.plan.volumes.bytes(), planned.plan.memory.plan.threads), (9 * MIB, 1));
    assert!(planned.plan.aws.is_empty() && planned.plan.upload.is_none());
    let (report, _) = bench.stored();
    assert!(report.archive_len <= planned.plan.volumes.longest_archive);
    // A dry run refuses what the run refuses.
    for memory in [1, 8 << 20] {
        let little = bench.options.clone().memory(memory);
        let refused = plan::store(&bench.image(), &bench.store, &little).expect_err("too little");
        assert_eq!(refused.kind(), ErrorKind::Limit);
        let run = amistore::store(&bench.image(), &bench.store, &little).expect_err("too little");
        assert_eq!((run.kind(), run.message()), (refused.kind(), refused.message()));
    }
    let exists = plan::store(&bench.image(), &bench.store, &bench.options).expect_err("it exists");
    assert_eq!(exists.kind(), ErrorKind::Exists);
}

#[test]
fn a_planned_copy_writes_nothing() {
    let bench = Bench::new();
    let (report, archive) = bench.stored();
    let other = Store::new(MemoryStore::default());
    let planned = plan::copy(&archive, &other, &bench.options).expect("a plan");
    assert_eq!(planned.plan.archive.archive_len, report.archive_len);
    assert!(planned.plan.aws.is_empty(), "nothing is read from a service");
    assert!(other.list().expect("lists").is_empty());
    amistore::copy(&archive, &other, &bench.options).expect("copies");
    let exists = plan::copy(&archive, &other, &bench.options).expect_err("it exists");
    assert_eq!(exists.kind(), ErrorKind::Exists);
}

#[test]
fn a_planned_restore_or_extraction_writes_nothing_and_refuses_what_the_run_refuses() {
    let bench = Bench::new();
    let (_, archive) = bench.stored();
    let (target, file) = (bench.path("restored"), bench.path("volume.raw"));
    let planned = plan::restore(&archive, &target, &bench.options).expect("a plan");
    assert_eq!(planned.archive.volumes.len(), 1);
    let volume = archive.volume("/dev/xvda").expect("a volume");
    let extracted = plan::extract(&volume, &file, &bench.options).expect("a plan");
    assert_eq!((extracted.size.bytes(), extracted.allocated), (volume.size().bytes(), 9 * MIB));
    assert!(!target.exists() && !file.exists());

    amistore::restore(&archive, &target, &bench.options).expect("restores");
    amistore::extract(&volume, &file, &bench.options).expect("extracts");
    assert_eq!(fs::read(&file).expect("a volume"), vec![7; 9 << 20]);
    for refused in [
        plan::restore(&archive, &target, &bench.options).map(drop),
        plan::extract(&volume, &file, &bench.options).map(drop),
    ] {
        assert_eq!(refused.expect_err("it exists").kind(), ErrorKind::Exists);
    }
    plan::extract(&volume, &file, &bench.options.clone().overwrite()).expect("it may be replaced");
}

#[test]
fn tasks_are_those_of_the_state_directory() {
    let bench = Bench::new();
    let error = amistore::tasks(&bench.options).expect_err("no state directory");
    assert_eq!(error.kind(), ErrorKind::Usage);
    let options = bench.options.clone().state_directory(bench.path("state"));
    assert_eq!(amistore::tasks(&options).expect("a list"), []);
}
