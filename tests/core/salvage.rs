//! A rescue from a damaged archive gives no wrong byte, lists every missing block, and is never
//! beaten by `zstd -dc | tar -xS`, whatever the damage is.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

use amistore::internals::base::{
    Cancel, Error, ErrorKind, NullObserver, Result, SnapshotId, VolumeSize,
};
use amistore::internals::engine::{
    Context, Plan, Salvage, SalvageInput, SalvageSink, SalvageSinks, SalvagedObject, SalvagedPipe,
    salvage,
};
use amistore::internals::format::frame::{FrameEnd, find_end};
use amistore::internals::object::{MemoryReader, ObjectReader};

use crate::support::image::{BLOCK, Random, TestImage};
use crate::support::tools::has;

const GIB: u64 = 1 << 30;
/// The document of [`sample`].
const DOCUMENT: &str = r#"{"Image":{"ImageId":"ami-0123456789abcdef0","Name":"damaged",
"BlockDeviceMappings":[{"DeviceName":"/dev/xvda","Ebs":{"SnapshotId":"snap-0"}},
{"DeviceName":"/dev/sdb","Ebs":{"SnapshotId":"snap-1"}},
{"DeviceName":"/dev/sdc","Ebs":{"SnapshotId":"snap-2"}}]},
"Snapshots":[{"SnapshotId":"snap-0","VolumeSize":1},{"SnapshotId":"snap-1","VolumeSize":20},
{"SnapshotId":"snap-2","VolumeSize":1}]}"#;

type Blocks = BTreeMap<u32, Vec<u8>>;

/// An archive, and the blocks of its volumes.
struct Sample {
    bytes: Vec<u8>,
    volumes: Vec<Blocks>,
    pieces: Vec<Piece>,
}

/// A piece of an archive: its kind (C, S, R, F, T, or M and D for frames) and its range.
#[derive(Clone, Copy, Debug)]
struct Piece {
    kind: char,
    start: usize,
    end: usize,
}

/// Cells of noise, which are longer than 128 KiB, of text, which are much shorter, and of zeros; a
/// volume of two groups; a volume in which an archive is stored.
fn sample() -> &'static Sample {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let mut random = Random(11);
        let mut first = Blocks::new();
        for block in [0, 1, 2, 9, 10, 16, 17, 24, 40, 41, 42, 43, 48, 56, 57, 64, 80, 2047] {
            let data = match block % 4 {
                0 => random.noise(BLOCK),
                3 => vec![0; BLOCK],
                _ => random.text(BLOCK),
            };
            first.insert(block, data);
        }
        let mut second = Blocks::new();
        for block in (0..96).chain(32_768..32_800) {
            if block % 5 != 4 {
                let data = if block % 3 == 0 { vec![0; BLOCK] } else { random.text(BLOCK) };
                second.insert(block, data);
            }
        }
        // As it would stand in a file on the disk: not compressible, so it is stored as it is.
        let inner: Blocks = (0..6).map(|at| (at * 8, random.text(BLOCK))).collect();
        let inner = TestImage::with_document(
            br#"{"Snapshots":[{"SnapshotId":"snap-0","VolumeSize":1}]}"#.to_vec(),
            vec![(GIB, inner)],
        )
        .pack(1, 1);
        let mut third = Blocks::new();
        for block in 0..16 {
            let mut data = random.noise(BLOCK);
            if block % 3 == 1 {
                let len = inner.len().min(BLOCK - 4096);
                data[4096..4096 + len].copy_from_slice(&inner[..len]);
            }
            third.insert(block, data);
        }
        let volumes = vec![(GIB, first), (20 * GIB, second), (GIB, third)];
        let image = TestImage::with_document(DOCUMENT.as_bytes().to_vec(), volumes);
        let bytes = image.pack(1, 2);
        let pieces = pieces(&bytes);
        Sample { bytes, volumes: image.blocks, pieces }
    })
}

fn pieces(bytes: &[u8]) -> Vec<Piece> {
    let (mut at, mut pieces) = (0, Vec::<Piece>::new());
    while at < bytes.len() {
        let rest = &bytes[at..];
        let skippable = u32::from_le_bytes(rest[4..8].try_into().expect("4 bytes")) as usize + 8;
        let (kind, len) = match rest[0] {
            0x5B => (rest[12] as char, skippable),
            0x5E => ('T', skippable),
            _ => {
                let Ok(FrameEnd::At(end)) = find_end(rest, 4 << 20) else { panic!("no frame") };
                let is_data = pieces.last().is_some_and(|last| last.kind == 'C');
                (if is_data { 'D' } else { 'M' }, end)
            }
        };
        pieces.push(Piece { kind, start: at, end: at + len });
        at += len;
    }
    pieces
}

impl Sample {
    fn of_kind(&self, kind: char) -> Vec<Piece> {
        self.pieces.iter().copied().filter(|piece| piece.kind == kind).collect()
    }

    fn flipped(&self, at: usize, mask: u8) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes[at] ^= mask;
        bytes
    }

    fn without(&self, range: std::ops::Range<usize>) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes.drain(range);
        bytes
    }
}

/// A volume in memory, block by block.
#[derive(Clone, Default)]
struct Rescued(Arc<Mutex<BTreeMap<u64, Vec<u8>>>>);

impl SalvageSink for Rescued {
    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.0.lock().expect("no panic").insert(offset / BLOCK as u64, data.to_vec());
        Ok(())
    }

    fn write_zeros(&self, offset: u64, len: u64) -> Result<()> {
        self.write(offset, &vec![0; len as usize])
    }

    fn withdraw(&self, offset: u64, len: u64) -> Result<()> {
        assert!(len <= BLOCK as u64);
        self.0.lock().expect("no panic").remove(&(offset / BLOCK as u64));
        Ok(())
    }

    fn resize(&self, _size: VolumeSize) -> Result<()> {
        Ok(())
    }
}

#[derive(Default)]
struct Directory(BTreeMap<u16, Rescued>);

impl SalvageSinks for Directory {
    fn volume(
        &mut self,
        index: u16,
        _name: Option<&SnapshotId>,
        _size: Option<VolumeSize>,
    ) -> Result<Option<Arc<dyn SalvageSink>>> {
        Ok(Some(Arc::new(self.0.entry(index).or_default().clone())))
    }
}

/// A report, and the rescued blocks by volume.
type Found = (Salvage, BTreeMap<u16, BTreeMap<u64, Vec<u8>>>);

fn rescue(input: &mut dyn SalvageInput) -> Result<Found> {
    let plan = Plan::new(1, 40 << 20, 0).expect("a plan");
    let context = Context { plan: &plan, observer: &NullObserver, cancel: &Cancel::new() };
    let mut directory = Directory::default();
    let found = salvage(input, &mut directory, context)?;
    let blocks = directory
        .0
        .into_iter()
        .map(|(index, volume)| (index, std::mem::take(&mut *volume.0.lock().expect("no panic"))));
    Ok((found, blocks.collect()))
}

fn rescue_bytes(bytes: &[u8]) -> Result<Found> {
    rescue(&mut SalvagedPipe::new(bytes, Cancel::new()))
}

/// Rescues, and asserts that no rescued byte is wrong, and that each missing block is listed.
/// Returns the number of missing blocks of the named volumes.
#[track_caller]
fn check(sample: &Sample, bytes: &[u8], what: &str) -> (Found, usize) {
    let found = rescue_bytes(bytes).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let (report, volumes) = &found;
    let mut missing = 0;
    for volume in &report.volumes {
        let index = volume.index;
        let none = BTreeMap::new();
        let rescued = volumes.get(&index).unwrap_or(&none);
        let original = &sample.volumes[usize::from(index)];
        for (block, data) in rescued {
            let right = original.get(&(*block as u32));
            assert!(right == Some(data), "{what}: volume {index}, block {block} is wrong");
        }
        let Some(ranges) = &volume.missing else { continue };
        let listed = |block: u64| {
            let offset = block * BLOCK as u64;
            ranges.iter().any(|range| (range.offset..range.offset + range.len).contains(&offset))
        };
        for block in original.keys().map(|block| u64::from(*block)) {
            let (is_rescued, is_listed) = (rescued.contains_key(&block), listed(block));
            assert!(is_rescued != is_listed, "{what}: volume {index}, block {block}: {is_rescued}");
            missing += usize::from(!is_rescued);
        }
        assert!(volume.is_whole() == ranges.is_empty());
    }
    (found, missing)
}

/// The blocks with data that `zstd -dc | tar -xS` gives back whole, by volume.
fn by_stock_tools(sample: &Sample, bytes: &[u8], directory: &Path) -> Vec<Vec<u32>> {
    let target = directory.join("tar");
    let _ = fs::remove_dir_all(&target);
    fs::create_dir(&target).expect("a directory");
    fs::write(directory.join("a.bin"), bytes).expect("writes");
    let mut zstd = Command::new("zstd")
        .args(["-dcq", "--no-check"])
        .arg(directory.join("a.bin"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("zstd");
    let output = zstd.stdout.take().expect("a pipe");
    let tar = ["-xSf", "-", "--ignore-zeros", "-C"];
    let mut tar = Command::new("tar")
        .args(tar)
        .arg(&target)
        .stdin(output)
        .stderr(Stdio::null())
        .spawn()
        .expect("tar");
    let _ = (tar.wait().expect("tar ends"), zstd.wait().expect("zstd ends"));
    let volume = |(index, blocks): (usize, &Blocks)| {
        let Ok(file) = File::open(target.join(format!("snap-{index}.raw"))) else {
            return Vec::new();
        };
        let mut buffer = vec![0; BLOCK];
        let mut is_whole = |(block, data): &(&u32, &Vec<u8>)| {
            let is_data = data.iter().any(|byte| *byte != 0);
            let offset = u64::from(**block) * BLOCK as u64;
            is_data && file.read_exact_at(&mut buffer, offset).is_ok() && buffer == **data
        };
        blocks.iter().filter(|block| is_whole(block)).map(|(block, _)| *block).collect()
    };
    sample.volumes.iter().enumerate().map(volume).collect()
}

/// [`check`], and a comparison with stock tools.
#[track_caller]
fn compare(sample: &Sample, bytes: &[u8], directory: Option<&Path>, what: &str) -> (Found, usize) {
    let (found, missing) = check(sample, bytes, what);
    let Some(directory) = directory else { return (found, missing) };
    for (index, blocks) in by_stock_tools(sample, bytes, directory).into_iter().enumerate() {
        let none = BTreeMap::new();
        let ours = found.1.get(&(index as u16)).unwrap_or(&none);
        for block in blocks {
            assert!(
                ours.contains_key(&u64::from(block)),
                "{what}: zstd and tar rescue block {block} of volume {index}"
            );
        }
    }
    (found, missing)
}

/// A directory for stock tools, if they are installed.
fn tools() -> Option<tempfile::TempDir> {
    (has("zstd") && has("tar")).then(|| tempfile::tempdir().expect("a directory"))
}

#[test]
fn a_whole_archive_is_rescued_whole_and_said_to_be() {
    let sample = sample();
    let ((report, _), missing) = check(sample, &sample.bytes, "whole");
    assert_eq!(missing, 0);
    assert!(report.is_whole() && report.error("a.bin").is_none(), "{:?}", report.damage);
    for volume in &report.volumes {
        assert_eq!(volume.proved_by.total(), volume.proved_by.root);
    }
}

#[test]
fn a_pipe_gives_as_much_as_a_file() {
    let sample = sample();
    let len = sample.bytes.len();
    for bytes in [
        sample.bytes[..len / 2].to_vec(),
        sample.bytes[len / 3..].to_vec(),
        sample.without(len / 2..len / 2 + 5000),
    ] {
        let reader = Arc::new(MemoryReader::new("a.bin", bytes.clone()));
        let input = &mut SalvagedObject::new(reader, false, Cancel::new());
        let by_file = rescue(input).expect("a rescue");
        let by_pipe = rescue_bytes(&bytes).expect("a rescue");
        assert!(by_pipe.1 == by_file.1);
        assert_eq!(by_pipe.0.damage, by_file.0.damage);
    }
}

#[test]
fn an_archive_that_is_cut_short_anywhere_gives_all_before_the_cut() {
    let (sample, tools) = (sample(), tools());
    let mut random = Random(3);
    let mut cuts: Vec<usize> =
        (0..16).map(|_| random.below(sample.bytes.len() as u64) as usize).collect();
    for kind in ['C', 'D', 'S', 'M', 'R', 'F', 'T'] {
        let pieces = sample.of_kind(kind);
        let middle = pieces[pieces.len() / 2];
        cuts.extend([middle.start, middle.start + 9, middle.end - 2]);
    }
    for cut in cuts.into_iter().filter(|cut| *cut > sample.pieces[0].end) {
        let directory = tools.as_ref().map(tempfile::TempDir::path);
        let what = format!("cut at {cut}");
        let ((report, volumes), _) = compare(sample, &sample.bytes[..cut], directory, &what);
        assert_eq!(report.error("a.bin").expect("damaged").kind(), ErrorKind::Corrupt);
        assert!(report.document.is_some() && report.volumes.len() == 3, "{what}");
        // Every cell that ends before the cut.
        let cells = sample.of_kind('D').iter().filter(|frame| frame.end <= cut).count();
        let rescued: std::collections::BTreeSet<(u16, u64)> = volumes
            .iter()
            .flat_map(|(index, blocks)| blocks.keys().map(|block| (*index, block / 8)))
            .collect();
        assert!(rescued.len() >= cells, "{what}: {} of {cells} cells", rescued.len());
    }
}

#[test]
fn a_flipped_byte_costs_at_most_the_data_that_it_is_in() {
    let (sample, tools) = (sample(), tools());
    let directory = tools.as_ref().map(tempfile::TempDir::path);
    for kind in ['C', 'D', 'S', 'M', 'R', 'F', 'T'] {
        let pieces = sample.of_kind(kind);
        let picked = [0, pieces.len() / 3, pieces.len() - 1];
        let offsets: &[usize] = match kind {
            'C' => &[0, 4, 8, 12, 13, 14, 16, 18, 20, 24, 28, 32, 34, 36, 38, 40, 71, 72, 100],
            'S' => &[0, 4, 8, 12, 13, 14, 16, 18, 20, 24, 28, 32, 40, 72, 76, 78, 80, 84, 90],
            'R' => &[0, 4, 12, 16, 20, 24, 28, 32, 100, 1000],
            'F' => &[0, 4, 12, 16, 24, 32, 64, 96, 104, 120],
            _ => &[0, 4, 5, 6, 20, 60],
        };
        for piece in picked.map(|at| pieces[at]) {
            for offset in offsets.iter().filter(|offset| **offset < piece.end - piece.start) {
                let what = format!("{kind} at {}, byte {offset}", piece.start);
                let bytes = sample.flipped(piece.start + offset, 1 << (offset % 8));
                // Stock tools meet few of these damages differently.
                let directory = directory.filter(|_| piece.start == pieces[pieces.len() / 3].start);
                let (_, missing) = compare(sample, &bytes, directory, &what);
                let most = match kind {
                    'D' => 8,
                    // Without its header, a volume is known by its indexes.
                    _ => 0,
                };
                assert!(missing <= most, "{what}: {missing} blocks are missing");
            }
        }
    }
}

#[test]
fn pieces_that_are_cut_out_or_overwritten_or_doubled_cost_little_more_than_themselves() {
    let (sample, tools) = (sample(), tools());
    let directory = tools.as_ref().map(tempfile::TempDir::path);
    let mut random = Random(5);
    let len = sample.bytes.len() as u64;
    for round in 0..16 {
        let start = random.below(len - 600_000) as usize;
        let size = 1 + random.below(500_000) as usize;
        let range = start..start + size;
        let mut overwritten = sample.bytes.clone();
        overwritten[range.clone()].copy_from_slice(&random.noise(size));
        let mut doubled = sample.bytes.clone();
        let copy = doubled[range.clone()].to_vec();
        doubled.splice(range.end..range.end, copy);
        let damages = [
            ("cut out", sample.without(range.clone())),
            ("noise", overwritten),
            ("twice", doubled),
        ];
        for (damage, bytes) in damages {
            let directory = directory.filter(|_| round < 6);
            let what = format!("{damage}, {range:?}");
            let ((_, volumes), _) = compare(sample, &bytes, directory, &what);
            let cells: usize = volumes.values().map(BTreeMap::len).sum();
            assert!(cells > 90, "{what}: only {cells} blocks");
        }
    }
    // Whole cells, so that the pieces before and behind fit together.
    for cells in [1, 3] {
        let pieces = sample.of_kind('C');
        for first in [2, pieces.len() / 2] {
            let range = pieces[first].start..pieces[first + cells].start;
            let bytes = sample.without(range.clone());
            let (_, missing) = compare(sample, &bytes, directory, &format!("without {range:?}"));
            assert!(missing <= 8 * (cells + 1), "{range:?}: {missing}");
        }
    }
}

#[test]
fn an_archive_without_its_head_gives_all_that_its_tail_names() {
    let (sample, tools) = (sample(), tools());
    let directory = tools.as_ref().map(tempfile::TempDir::path);
    let headers = sample.of_kind('M');
    let cells = sample.of_kind('C');
    for start in [100, headers[1].start, headers[1].start + 20, cells[2].start, cells[2].start + 5]
    {
        let what = format!("from {start}");
        let ((report, _), missing) = compare(sample, &sample.bytes[start..], directory, &what);
        assert!(report.document.is_none() && report.root.is_some(), "{what}");
        assert_eq!(report.volumes.len(), 3, "{what}");
        assert!(report.volumes.iter().all(|volume| volume.name.is_some()), "{what}");
        assert!(missing <= 24, "{what}: {missing}");
        // Without the tail, too.
        let end = headers[3].start;
        compare(sample, &sample.bytes[start..end], directory, &format!("{start} to {end}"));
    }
}

#[test]
fn an_archive_that_is_stored_in_a_volume_is_not_taken_for_a_part_of_the_archive() {
    let sample = sample();
    // The last volume holds copies of an archive whose cells have addresses of its own cells.
    let frames: Vec<Piece> = sample.of_kind('D');
    let last = sample.of_kind('M')[3].start;
    let mut random = Random(9);
    for frame in frames.iter().filter(|frame| frame.start > last) {
        for cut_tail in [false, true] {
            let at = frame.start + random.below((frame.end - frame.start - 5000) as u64) as usize;
            let mut bytes = sample.without(at..at + 4500);
            if cut_tail {
                bytes.truncate(frame.end - 4500);
            }
            check(sample, &bytes, &format!("within the frame at {}", frame.start));
        }
    }
}

/// An object of which some bytes cannot be read.
struct Unreadable(Vec<u8>, std::ops::Range<u64>);

impl ObjectReader for Unreadable {
    fn name(&self) -> &'static str {
        "unreadable"
    }

    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset + buffer.len() as u64;
        if offset < self.1.end && end > self.1.start {
            let cause = std::io::Error::from_raw_os_error(5);
            return Err(Error::io("cannot read the archive", cause));
        }
        buffer.copy_from_slice(&self.0[offset as usize..end as usize]);
        Ok(())
    }
}

#[test]
fn bytes_that_cannot_be_read_cost_their_cells_and_are_listed_with_the_cause() {
    let sample = sample();
    let frame = sample.of_kind('D')[4];
    let middle = u64::midpoint(frame.start as u64, frame.end as u64);
    let reader = Arc::new(Unreadable(sample.bytes.clone(), middle..middle + 1));
    let input = &mut SalvagedObject::new(reader, false, Cancel::new());
    let (report, volumes) = rescue(input).expect("a rescue");
    let ranges: Vec<_> =
        report.volumes.iter().flat_map(|volume| volume.missing.iter().flatten()).collect();
    assert!((1..=2).contains(&ranges.len()), "{ranges:?}");
    assert!(ranges[0].cause.contains("Input/output error"), "{ranges:?}");
    let missing: u64 = ranges.iter().map(|range| range.missing).sum();
    assert!(missing <= 16 * BLOCK as u64, "{missing}");
    for (index, blocks) in volumes {
        for (block, data) in blocks {
            assert!(sample.volumes[usize::from(index)][&(block as u32)] == data);
        }
    }
}

#[test]
fn cells_of_another_archive_with_the_same_layout_are_refused_by_the_root_record() {
    let mut random = Random(21);
    let mut archive = || {
        let blocks: Blocks = (0..64).map(|block| (block, random.noise(BLOCK))).collect();
        let json = br#"{"Snapshots":[{"SnapshotId":"snap-0","VolumeSize":1}]}"#.to_vec();
        TestImage::with_document(json, vec![(GIB, blocks)])
    };
    let (ours, theirs) = (archive(), archive());
    let (bytes, other) = (ours.pack(1, 1), theirs.pack(1, 1));
    let cells: Vec<Piece> = pieces(&bytes).into_iter().filter(|piece| piece.kind == 'C').collect();
    let range = cells[2].start..cells[5].start;
    let mut mixed = bytes.clone();
    mixed[range.clone()].copy_from_slice(&other[range]);
    let sample = Sample { pieces: pieces(&bytes), bytes, volumes: ours.blocks };
    let (_, missing) = check(&sample, &mixed, "cells of another archive");
    assert_eq!(missing, 24);
    // The head of one and the tail of the other.
    let half = cells[4].start;
    let spliced = [&sample.bytes[..half], &other[half..]].concat();
    let (report, volumes) = rescue_bytes(&spliced).expect("a rescue");
    let their_cells = theirs.blocks[0].iter().filter(|(block, _)| **block >= 32);
    assert!(
        volumes[&0]
            .iter()
            .map(|(block, data)| (*block as u32, data))
            .eq(their_cells.map(|(block, data)| (*block, data)))
    );
    assert_eq!(report.volumes[0].missing_bytes(), 32 * BLOCK as u64);
}

#[test]
fn other_files_are_no_archives() {
    for bytes in [&b"{\"a\": 1}"[..], &[0; 4096], b"", b"\x28\xB5\x2F\xFD nothing of ours"] {
        let error = rescue_bytes(bytes).map(drop).expect_err("no archive");
        assert!(matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Corrupt), "{error:?}");
    }
}

#[test]
fn mutated_archives_give_no_wrong_byte() {
    let mut random = Random(77);
    let blocks: Blocks = (0..30)
        .map(|at| (at * 3, if at % 4 == 0 { vec![0; BLOCK] } else { random.text(BLOCK) }))
        .collect();
    let json = br#"{"Snapshots":[{"SnapshotId":"snap-0","VolumeSize":1}]}"#.to_vec();
    let image = TestImage::with_document(json, vec![(GIB, blocks)]);
    let bytes = image.pack(1, 1);
    let sample = Sample { pieces: pieces(&bytes), bytes, volumes: image.blocks };
    for round in 0..100 {
        let mut bytes = sample.bytes.clone();
        for _ in 0..=random.below(3) {
            let len = bytes.len() as u64;
            let at = random.below(len) as usize;
            let end = (at + 1 + random.below(3000) as usize).min(bytes.len());
            match random.below(5) {
                0 => bytes.truncate(at.max(600)),
                1 => drop(bytes.drain(at..end)),
                2 => {
                    let copy = bytes[at..end].to_vec();
                    bytes.splice(at..at, copy);
                }
                3 => bytes[at..end].fill(0),
                _ => bytes[at] ^= 1 << random.below(8),
            }
        }
        if rescue_bytes(&bytes).is_ok() {
            check(&sample, &bytes, &format!("round {round}"));
        }
    }
}
