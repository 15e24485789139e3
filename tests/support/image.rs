//! Images in memory, and the unpacked content of archives.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use amistore::internals::base::{Cancel, ErrorKind, NullObserver, Result, SnapshotId, VolumeSize};
use amistore::internals::engine::{Context, Depth, PackOptions, PackReport, Plan, Selection};
use amistore::internals::image::ImageDocument;
use amistore::internals::image::{ImageSource, ImageWriter};
use amistore::internals::object::{MemoryReader, MemoryStore, ObjectStore};
use amistore::internals::ops;
use amistore::internals::volume::{BlockSink, BlockSource, MemorySink, MemorySource};

pub const BLOCK: usize = 512 * 1024;

/// A random sequence (splitmix64): the same everywhere and for ever.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Incompressible bytes.
    pub fn noise(&mut self, len: usize) -> Vec<u8> {
        (0..len.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(len).collect()
    }

    /// Bytes that compress about 10:1.
    pub fn text(&mut self, len: usize) -> Vec<u8> {
        let words = ["alpha ", "beta ", "gamma ", "delta\n", "epsilon ", "zeta "];
        let mut text = Vec::with_capacity(len + 16);
        while text.len() < len {
            text.extend_from_slice(words[self.below(6) as usize].as_bytes());
        }
        text.truncate(len);
        text
    }
}

/// An image whose volumes are lists of blocks.
pub struct TestImage {
    document: ImageDocument,
    volumes: Vec<Arc<dyn BlockSource>>,
    /// The blocks of each volume.
    pub blocks: Vec<BTreeMap<u32, Vec<u8>>>,
}

impl TestImage {
    /// An image with bare snapshots `snap-0`, `snap-1`, ...
    pub fn new(volumes: Vec<(u64, BTreeMap<u32, Vec<u8>>)>) -> Self {
        let ids: Vec<String> =
            (0..volumes.len()).map(|index| format!(r#"{{"SnapshotId":"snap-{index}"}}"#)).collect();
        let json = if ids.is_empty() {
            r#"{"Image":{"ImageId":"ami-00000000"}}"#.to_owned()
        } else {
            format!(r#"{{"Snapshots":[{}]}}"#, ids.join(","))
        };
        Self::with_document(json.into_bytes(), volumes)
    }

    pub fn with_document(json: Vec<u8>, volumes: Vec<(u64, BTreeMap<u32, Vec<u8>>)>) -> Self {
        let document = ImageDocument::parse(json).expect("a good document");
        let mut sources: Vec<Arc<dyn BlockSource>> = Vec::new();
        let mut blocks = Vec::new();
        for (size, volume) in volumes {
            let size = VolumeSize::new(size).expect("a good size");
            let source = MemorySource::new(size, volume);
            let map = source.block_map().expect("a map");
            let stored = map.extents().flat_map(|extent| extent.first..extent.end());
            let read = |block: u32| {
                let offset = u64::from(block) * BLOCK as u64;
                let mut data = vec![0; (size.bytes() - offset).min(BLOCK as u64) as usize];
                source.read_at(offset, &mut data).expect("reads");
                (block, data)
            };
            blocks.push(stored.map(read).collect());
            sources.push(Arc::new(source));
        }
        Self { document, volumes: sources, blocks }
    }

    /// Packs the image, and returns the archive.
    pub fn pack(&self, level: i32, threads: usize) -> Vec<u8> {
        self.pack_with(
            &Plan::new(threads, 256 << 20, level).expect("a plan"),
            &PackOptions::default(),
        )
        .0
    }

    pub fn pack_with(&self, plan: &Plan, options: &PackOptions) -> (Vec<u8>, PackReport) {
        pack(self, plan, options)
    }
}

/// Packs an image, and returns the archive and the report.
pub fn pack(image: &dyn ImageSource, plan: &Plan, options: &PackOptions) -> (Vec<u8>, PackReport) {
    let store = MemoryStore::default();
    let writer =
        store.create("a.bin", amistore::internals::object::Creation::default()).expect("creates");
    let context = Context { plan, observer: &NullObserver, cancel: &Cancel::new() };
    let log = amistore::internals::engine::PackLog::none();
    let report =
        amistore::internals::engine::pack(image, options, writer, log, context).expect("packs");
    (store.get("a.bin").expect("committed").to_vec(), report)
}

impl ImageSource for TestImage {
    fn document(&self) -> &ImageDocument {
        &self.document
    }

    fn volumes(&self) -> &[Arc<dyn BlockSource>] {
        &self.volumes
    }
}

/// The content that a reader unpacked from an archive.
#[derive(Debug, PartialEq)]
pub struct Unpacked {
    pub image_json: Vec<u8>,
    pub volumes: Vec<UnpackedVolume>,
}

/// Name, size, and the blocks that were written.
pub type UnpackedVolume = (String, u64, BTreeMap<u32, Vec<u8>>);

#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Vec<(String, u64, MemorySink)>>>, Arc<Mutex<Option<Vec<u8>>>>);

impl ImageWriter for Collected {
    fn create_volume(&mut self, id: &SnapshotId, size: VolumeSize) -> Result<Arc<dyn BlockSink>> {
        let sink = MemorySink::default();
        self.0.lock().expect("no panic").push((id.to_string(), size.bytes(), sink.clone()));
        Ok(Arc::new(sink))
    }

    fn commit(self: Box<Self>, document: &ImageDocument) -> Result<()> {
        *self.1.lock().expect("no panic") = Some(document.bytes().to_vec());
        Ok(())
    }
}

impl Collected {
    fn unpacked(&self) -> Unpacked {
        let volumes = self
            .0
            .lock()
            .expect("no panic")
            .iter()
            .map(|(name, size, sink)| (name.clone(), *size, sink.blocks()))
            .collect();
        Unpacked {
            image_json: self.1.lock().expect("no panic").clone().expect("committed"),
            volumes,
        }
    }
}

fn with_context<T>(work: impl FnOnce(Context<'_>) -> T) -> T {
    let plan = Plan::new(2, 256 << 20, 1).expect("a plan");
    work(Context { plan: &plan, observer: &NullObserver, cancel: &Cancel::new() })
}

/// Restores by random access.
pub fn by_ranges(archive: &[u8]) -> Result<Unpacked> {
    let reader = MemoryReader::new("test", archive.to_vec());
    let archive = amistore::internals::engine::Archive::open(std::sync::Arc::new(reader))?;
    let collected = Collected::default();
    with_context(|context| ops::restore(&archive, Box::new(collected.clone()), context))?;
    Ok(collected.unpacked())
}

/// Restores a stream.
pub fn by_stream(archive: &[u8]) -> Result<Unpacked> {
    let collected = Collected::default();
    let target = collected.clone();
    with_context(|context| ops::restore_stream(archive, |_| Ok(Box::new(target)), context))?;
    Ok(collected.unpacked())
}

/// Outcome of a verification by random access: none, or the kind of the error.
pub fn verdict(archive: &[u8]) -> Option<ErrorKind> {
    verdict_to(Depth::Blocks, archive)
}

/// Outcome of a verification by random access to a depth.
pub fn verdict_to(depth: Depth, archive: &[u8]) -> Option<ErrorKind> {
    let reader = MemoryReader::new("test", archive.to_vec());
    match with_context(|context| {
        ops::verify(std::sync::Arc::new(reader), Selection::All, depth, context)
    }) {
        Ok(verified) => (!verified.is_ok()).then_some(ErrorKind::Corrupt),
        Err(error) => Some(error.kind()),
    }
}

/// Outcome of a verification of a stream.
pub fn stream_verdict(archive: &[u8]) -> Option<ErrorKind> {
    stream_verdict_to(Depth::Blocks, archive)
}

/// Outcome of a verification of a stream to a depth.
pub fn stream_verdict_to(depth: Depth, archive: &[u8]) -> Option<ErrorKind> {
    match with_context(|context| ops::verify_stream(archive, depth, context)) {
        Ok(verified) => (!verified.is_ok()).then_some(ErrorKind::Corrupt),
        Err(error) => Some(error.kind()),
    }
}
