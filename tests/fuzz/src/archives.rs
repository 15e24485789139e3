//! Whole archives: made in memory, and read by both readers.

use std::collections::BTreeMap;
use std::sync::Arc;

use amistore::internals::base::{
    BLOCK_BYTES, BlockIndex, Cancel, Error, ErrorKind, NullObserver, Result, SnapshotId, VolumeSize,
};
use amistore::internals::engine::{
    Archive, Context, Depth, NoSinks, PackLog, PackOptions, Plan, RestoreLog, SalvagedPipe,
    Selection, StreamSinks, check_tail, check_volumes, pack, read_stream, salvage, unpack_volume,
};
use amistore::internals::format::Digest;
use amistore::internals::image::ImageDocument;
use amistore::internals::image::ImageSource;
use amistore::internals::object::{Creation, MemoryReader, MemoryStore, ObjectReader, ObjectStore};
use amistore::internals::volume::{BlockSink, BlockSource, MemorySink, MemorySource};

use super::Choices;

/// A document with every member that a tool has to understand.
pub const DOCUMENT: &str = r#"{"format": "amibin", "version": 1,
 "Image": {"ImageId": "ami-0123456789abcdef0", "Name": "web (v1)",
 "BlockDeviceMappings": [
 {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": "snap-a", "VolumeSize": 17}},
 {"DeviceName": "/dev/xvdb", "VirtualName": "ephemeral0"}]},
 "Snapshots": [{"SnapshotId": "snap-a", "VolumeSize": 17}, {"SnapshotId": "snap-b"}]}"#;

/// Volumes in memory, and their `image.json`.
pub struct MemoryImage {
    document: ImageDocument,
    volumes: Vec<Arc<dyn BlockSource>>,
}

impl MemoryImage {
    /// An image whose document names as many snapshots as there are volumes.
    pub fn new(json: &str, volumes: Vec<MemorySource>) -> Self {
        let document = ImageDocument::parse(json.as_bytes().to_vec()).expect("a valid document");
        assert_eq!(document.snapshots().len(), volumes.len());
        Self {
            document,
            volumes: volumes
                .into_iter()
                .map(|volume| Arc::new(volume) as Arc<dyn BlockSource>)
                .collect(),
        }
    }

    /// An image of bare snapshots called `snap-0`, `snap-1`, …
    pub fn of_snapshots(volumes: Vec<MemorySource>) -> Self {
        let ids: Vec<_> = (0..volumes.len())
            .map(|index| format!(r#"{{"SnapshotId": "snap-{index}"}}"#))
            .collect();
        let image = r#""Image": {"ImageId": "ami-01234567"}"#;
        Self::new(&format!(r#"{{{image}, "Snapshots": [{}]}}"#, ids.join(", ")), volumes)
    }
}

impl ImageSource for MemoryImage {
    fn document(&self) -> &ImageDocument {
        &self.document
    }

    fn volumes(&self) -> &[Arc<dyn BlockSource>] {
        &self.volumes
    }
}

fn with_context<T>(threads: usize, level: i32, run: impl FnOnce(Context<'_>) -> T) -> T {
    let plan = Plan { threads, in_flight: 64 << 20, level, reserve: 0 };
    run(Context { plan: &plan, observer: &NullObserver, cancel: &Cancel::new() })
}

/// Packs an image.
pub fn packed(image: &MemoryImage, sparse: bool, threads: usize, level: i32) -> Vec<u8> {
    let store = MemoryStore::default();
    let writer = store.create("archive", Creation::default()).expect("a new object");
    let options = PackOptions { sparse, writer: "fuzz/1".to_owned() };
    let report = with_context(threads, level, |context| {
        pack(image, &options, writer, PackLog::none(), context)
    })
    .expect("a good image is packed");
    let bytes = store.get("archive").expect("what was committed is there").to_vec();
    assert_eq!(report.archive_len, bytes.len() as u64);
    bytes
}

/// An object whose reader must never ask for what is not there: a length from the archive has to be
/// checked before memory is reserved for it.
struct StrictReader(MemoryReader);

impl ObjectReader for StrictReader {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        assert!(
            end.is_some_and(|end| end <= self.len()),
            "{} bytes at {offset} of {}",
            buffer.len(),
            self.len()
        );
        self.0.read_at(offset, buffer)
    }
}

/// Blocks of each volume by name: written ones, without fill.
pub type Contents = Vec<(String, BTreeMap<u32, Vec<u8>>)>;

/// Collects the content of a stream.
#[derive(Default)]
struct Collector(Vec<(String, MemorySink)>);

impl StreamSinks for Collector {
    fn begin(&mut self, _document: &ImageDocument) -> Result<()> {
        Ok(())
    }

    fn volume(&mut self, id: &SnapshotId, _size: VolumeSize) -> Result<Option<Arc<dyn BlockSink>>> {
        let sink = MemorySink::default();
        self.0.push((id.to_string(), sink.clone()));
        Ok(Some(Arc::new(sink)))
    }
}

fn contents(sinks: Vec<(String, MemorySink)>) -> Contents {
    sinks.into_iter().map(|(name, sink)| (name, sink.blocks())).collect()
}

fn restored_by_ranges(bytes: &[u8]) -> Contents {
    let reader = StrictReader(MemoryReader::new("archive", bytes.to_vec()));
    let archive = Archive::open(std::sync::Arc::new(reader)).expect("what was accepted opens");
    let mut sinks = Vec::new();
    for volume in archive.volumes() {
        let sink = MemorySink::default();
        sinks.push((volume.snapshot().to_string(), sink.clone()));
        with_context(1, 1, |context| {
            unpack_volume(&volume, Arc::new(sink), RestoreLog::none(), context)
        })
        .expect("what was accepted is restored");
    }
    contents(sinks)
}

fn restored_from_stream(bytes: &[u8]) -> Contents {
    let mut sinks = Collector::default();
    with_context(1, 1, |context| read_stream(bytes, &mut sinks, Depth::Blocks, context))
        .expect("what was accepted is restored");
    contents(sinks.0)
}

/// Verifies by ranges, all of it. Damage that is collected is damage that is returned.
fn checked_by_ranges(bytes: &[u8]) -> Result<Digest> {
    let reader = StrictReader(MemoryReader::new("archive", bytes.to_vec()));
    let archive = Archive::open(std::sync::Arc::new(reader))?;
    let report = with_context(1, 1, |context| {
        check_volumes(&archive, Selection::All, Depth::Blocks, context)
    })?;
    assert!(report.more_findings == 0 || !report.findings.is_empty());
    match report.findings.into_iter().chain(check_tail(&archive)?).next() {
        Some(damage) => Err(damage),
        None => Ok(archive.footer().root),
    }
}

fn checked_from_stream(bytes: &[u8]) -> Result<Digest> {
    let summary =
        with_context(1, 1, |context| read_stream(bytes, &mut NoSinks, Depth::Blocks, context))?;
    assert_eq!(summary.archive_len, bytes.len() as u64, "a stream is read to its end");
    Ok(summary.footer.root)
}

/// Gives bytes to both readers, which accept them as the same archive or refuse them for a fault of
/// the bytes. Returns the root.
pub fn both_readers(bytes: &[u8]) -> Option<Digest> {
    match (checked_by_ranges(bytes), checked_from_stream(bytes)) {
        (Ok(by_ranges), Ok(from_stream)) => {
            assert_eq!(by_ranges, from_stream);
            assert_eq!(restored_by_ranges(bytes), restored_from_stream(bytes));
            Some(by_ranges)
        }
        (Err(by_ranges), Err(from_stream)) => {
            archive_error(&by_ranges);
            archive_error(&from_stream);
            None
        }
        (by_ranges, from_stream) => {
            panic!("the readers disagree: by ranges {by_ranges:?}, from the stream {from_stream:?}")
        }
    }
}

/// Whatever is wrong with an archive, it is not wrong use, not a failure to read, and not a defect
/// of ours.
fn archive_error(error: &Error) {
    assert!(
        matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported | ErrorKind::Limit),
        "{error:?}"
    );
}

/// Input: the archive.
pub fn archive(data: &[u8]) {
    let root = both_readers(data);
    let rescued = rescued(data);
    // Whatever both readers accept is rescued as a whole.
    assert!(root.is_none() || rescued == Some(true), "{rescued:?}");
}

/// Whether a rescue finds the archive whole; `None` if it finds nothing.
fn rescued(data: &[u8]) -> Option<bool> {
    let mut input = SalvagedPipe::new(data, Cancel::new());
    let found = with_context(1, 0, |context| salvage(&mut input, &mut NoSinks, context));
    found.ok().map(|found| found.is_whole())
}

fn volume(bytes: u64, blocks: &[(u32, u8)]) -> MemorySource {
    let size = VolumeSize::new(bytes).expect("a valid size");
    MemorySource::new(
        size,
        blocks.iter().map(|(index, byte)| (*index, vec![*byte; BLOCK_BYTES as usize])),
    )
}

/// Images from which archives are made, the cheap ones first.
pub fn images() -> Vec<MemoryImage> {
    vec![
        MemoryImage::of_snapshots(vec![]),
        MemoryImage::of_snapshots(vec![
            volume(1024, &[(0, 0)]),
            volume((16 << 30) + 512, &[(32_768, 0)]),
        ]),
        MemoryImage::new(
            DOCUMENT,
            vec![volume((16 << 30) + 512, &[(32_768, 7)]), volume(BLOCK_BYTES + 512, &[])],
        ),
        MemoryImage::of_snapshots(vec![
            volume(20 * BLOCK_BYTES + 512, &[(0, 1), (1, 0), (3, 2), (9, 0), (20, 3)]),
            volume((32 << 30) + 512, &[(5, 1), (32_767, 0), (65_536, 0)]),
        ]),
    ]
}

/// Valid archives.
pub fn archive_seeds() -> Vec<Vec<u8>> {
    images().iter().map(|image| packed(image, false, 1, 3)).collect()
}

/// Input: how to pack, then volumes and their blocks.
pub fn round_trip(data: &[u8]) {
    let mut choices = Choices(data);
    let (sparse, threads, level) = (
        choices.byte() & 1 == 1,
        1 + usize::from(choices.byte() % 3),
        1 + i32::from(choices.byte() % 4),
    );
    let (mut volumes, mut expected) = (Vec::new(), Contents::new());
    // A dozen blocks are enough for every combination of slots, windows and ends.
    let mut budget = 12;
    for index in 0..choices.byte() % 4 {
        let sectors = match choices.byte() % 4 {
            0 => choices.number::<1>(),
            1 => choices.number::<2>(),
            2 => choices.number::<4>(),
            _ => choices.number::<5>(),
        };
        let size =
            VolumeSize::new((sectors * 512).clamp(512, VolumeSize::MAX)).expect("a valid size");
        let mut blocks = BTreeMap::new();
        let mut position = 0;
        for _ in 0..choices.byte() % 16 {
            let step = match choices.byte() % 4 {
                0 => 1,
                1 => choices.number::<1>(),
                2 => choices.number::<3>(),
                _ => u64::from(size.blocks()) - 1,
            };
            position = (position + step as u32) % size.blocks();
            if budget == 0 {
                break;
            }
            budget -= 1;
            let block =
                contents_of_block(choices.byte(), size.block_len(BlockIndex(position)) as usize);
            blocks.insert(position, block);
        }
        volumes.push(MemorySource::new(size, blocks.clone()));
        if sparse {
            blocks.retain(|_, block| block.iter().any(|byte| *byte != 0));
        }
        expected.push((format!("snap-{index}"), blocks));
    }
    let image = MemoryImage::of_snapshots(volumes);
    let bytes = packed(&image, sparse, threads, level);
    assert_eq!(packed(&image, sparse, 1, level), bytes, "threads do not change a byte");
    assert!(both_readers(&bytes).is_some());
    assert_eq!(restored_by_ranges(&bytes), expected);
}

/// Blocks of zeros, of one byte, with a single byte that is not zero at either end, and of noise.
fn contents_of_block(kind: u8, len: usize) -> Vec<u8> {
    let mut block = vec![0; len];
    match kind % 5 {
        0 => {}
        1 => block.fill(kind),
        2 => block[0] = kind,
        3 => block[len - 1] = kind,
        _ => {
            let mut state = u32::from(kind) | 1;
            for byte in &mut block {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *byte = (state >> 24) as u8;
            }
        }
    }
    block
}

pub fn round_trip_seeds() -> Vec<Vec<u8>> {
    vec![
        vec![0, 0, 0, 0],
        vec![0, 1, 2, 2, 0, 3, 1, 0, 1, 1, 0, 16, 2, 0, 0, 3, 7],
        vec![1, 2, 1, 1, 2, 1, 0, 8, 2, 3, 3, 4, 1, 200, 9, 2, 0, 0, 1, 0],
    ]
}
