//! The parsers that work on slices.

use amistore::internals::base::{
    BLOCK_BYTES, CellAddress, Error, ErrorKind, SnapshotId, VolumeSize,
};
use amistore::internals::codec::zstd::{Decoder, Encoder};
use amistore::internals::format::frame::{self, FrameEnd, FrameHeader, MAX_HEADER};
use amistore::internals::format::layout::{MAX_FRAME_WINDOW, MAX_VOLUMES, RECORD_PREFIX};
use amistore::internals::format::tar::{
    VolumeHeaderReader, parse_prologue, prologue, prologue_len, volume_header,
};
use amistore::internals::format::{
    BlockMap, CellEntry, CellRecord, Footer, GroupIndex, Position, Record, RootRecord,
};
use amistore::internals::image::ImageDocument;
use amistore::internals::object::MemoryReader;

use super::Choices;
use super::archives::{DOCUMENT, archive_seeds};

/// Volume sizes at the edges: one sector, a short last block, just over a group, the largest.
const SIZES: [u64; 4] = [512, 3 * BLOCK_BYTES + 512, (16 << 30) + 512, VolumeSize::MAX];

fn volume_size(bytes: u64) -> VolumeSize {
    VolumeSize::new(bytes).expect("a valid size")
}

/// The parsers of the container say corrupt or unsupported, and nothing else.
fn container_error(error: &Error) {
    assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported), "{error:?}");
}

/// Input: kind of record, a parameter of 8 bytes (offset of F or R, size of the volume of S), the
/// record.
pub fn records(data: &[u8]) {
    let mut choices = Choices(data);
    let (kind, parameter) = (choices.byte(), choices.number::<8>());
    let bytes = choices.0;
    for position in [Position::Volume, Position::Root, Position::BehindRoot] {
        match Record::parse_prefix(bytes, position) {
            Ok(record) => {
                assert!(record.len >= RECORD_PREFIX as u64 && Record::begins(bytes));
                let _ = record.check_version().map_err(|error| container_error(&error));
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}"),
        }
    }
    // C, S and F have no room for anything that is not said: what parses is what would be written.
    match kind % 4 {
        0 => match CellRecord::parse(bytes) {
            Ok(record) => {
                assert_eq!(record.encode(), bytes);
                let _ = record.content();
                for size in SIZES {
                    let _ = record
                        .check_within(volume_size(size))
                        .map_err(|error| container_error(&error));
                }
                // Where a cell belongs is said in every message about it.
                let _ = record.address.blocks().to_string();
            }
            Err(error) => container_error(&error),
        },
        1 => {
            let size = VolumeSize::new(parameter).unwrap_or(volume_size(VolumeSize::MAX));
            match GroupIndex::parse(bytes, size) {
                Ok(index) => {
                    assert_eq!(index.encode(), bytes);
                    assert!(index.group < size.groups());
                    assert!(index.cells.iter().all(|cell| cell.frame_len() > 0));
                }
                Err(error) => container_error(&error),
            }
        }
        2 => match Footer::parse(bytes, parameter) {
            Ok(footer) => {
                assert_eq!(footer.encode(), bytes);
                assert!(footer.root_offset + footer.root_len <= footer.offset);
            }
            Err(error) => container_error(&error),
        },
        _ => match RootRecord::parse(bytes, parameter) {
            Ok(root) => {
                // JSON may be written in many ways, so only the meaning comes back.
                assert_eq!(
                    RootRecord::parse(&root.encode(), parameter).expect("what was written parses"),
                    root
                );
                for volume in 0..root.manifest.volumes.len() as u16 {
                    assert!(
                        root.groups_of(volume)
                            .iter()
                            .all(|group| group.index_offset() <= parameter)
                    );
                }
            }
            Err(error) => container_error(&error),
        },
    }
}

fn record_seed(kind: u8, parameter: u64, record: &[u8]) -> Vec<u8> {
    [&[kind], &parameter.to_le_bytes()[..], record].concat()
}

pub fn record_seeds() -> Vec<Vec<u8>> {
    let cell = CellRecord {
        volume: 1,
        address: CellAddress { group: 2, index: 3 },
        frame_len: 70,
        raw_len: 3 * BLOCK_BYTES as u32,
        present: 0b1011,
        zero: 0b1000,
        fill: 0b1000,
        frame_digest: [1; 32],
        block_digests: vec![[2; 32], [3; 32]],
    };
    let cell_entry = |index, present, zero| CellEntry {
        cell_len: 300,
        index,
        present,
        zero,
        fill: 0,
        record_digest: [index as u8; 32],
    };
    let index = GroupIndex {
        volume: 3,
        group: 1,
        cells_len: 600,
        content: [9; 32],
        cells: vec![cell_entry(0, 1, 0), cell_entry(4095, 0x81, 0x80)],
    };
    let mut seeds =
        vec![record_seed(0, 0, &cell.encode()), record_seed(1, 32 << 30, &index.encode())];
    for bytes in archive_seeds() {
        let reader = MemoryReader::new("seed", bytes.clone());
        let archive = amistore::internals::engine::Archive::open(std::sync::Arc::new(reader))
            .expect("a valid archive");
        let footer = archive.footer();
        let root = &bytes[footer.root_offset as usize..][..footer.root_len as usize];
        seeds.push(record_seed(2, footer.offset, &footer.encode()));
        seeds.push(record_seed(3, footer.root_offset, root));
    }
    seeds
}

/// Whether a block of a whole frame is above Block_Maximum_Size, or the frame too long or too short
/// for its content.
fn sizes_are_wrong(data: &[u8], header: &FrameHeader) -> bool {
    let (mut at, mut room, mut too_large) = (header.len, 0u128, false);
    loop {
        let word = u32::from_le_bytes([data[at], data[at + 1], data[at + 2], 0]);
        let (size, kind) = (u64::from(word >> 3), word >> 1 & 3);
        too_large |= size > header.max_block;
        room += u128::from(if kind == 2 { header.max_block } else { size });
        at += 3 + if kind == 1 { 1 } else { size as usize };
        if word & 1 == 1 {
            let content = u128::from(header.content_size);
            let longest = content + content / 256 + 4096;
            return too_large || room < content || at as u128 + 4 > longest;
        }
    }
}

/// Input: bytes that may begin with a frame.
pub fn zstd_frame(data: &[u8]) {
    let header = FrameHeader::parse(data, u64::MAX);
    let end = frame::find_end(data, u64::MAX);
    let header = match header {
        Err(error) => {
            container_error(&error);
            return assert!(end.is_err(), "a frame has an end and no header");
        }
        Ok(None) => {
            let end = end.expect("too short to tell");
            let more = data.len() + 1..=MAX_HEADER;
            return assert!(matches!(end, FrameEnd::Beyond(end) if more.contains(&end)));
        }
        Ok(Some(header)) => header,
    };
    assert!(header.len <= MAX_HEADER && header.len <= data.len());
    // libzstd follows the same blocks, without a look at their sizes; neither may see an end where
    // the other sees none.
    let oracle = zstd::zstd_safe::find_frame_compressed_size(data).ok();
    match end {
        Err(error) => {
            container_error(&error);
            assert!(oracle.is_none() || sizes_are_wrong(data, &header), "{error:?}");
        }
        Ok(FrameEnd::Beyond(more)) => {
            assert!(more > data.len());
            assert_eq!(oracle, None);
        }
        Ok(FrameEnd::At(end)) => {
            assert!(end <= data.len());
            assert_eq!(oracle, Some(end));
            for len in [0, header.len, end / 2, end - 1] {
                let more = frame::find_end(&data[..len], u64::MAX).expect("a prefix of a frame");
                let longest = end.max(MAX_HEADER);
                assert!(matches!(more, FrameEnd::Beyond(more) if more > len && more <= longest));
            }
            assert_eq!(frame::check(data, header.content_size).is_ok(), end == data.len());
            assert!(frame::check(&data[..end], header.content_size.wrapping_add(1)).is_err());
            if header.content_size <= MAX_FRAME_WINDOW / 2 {
                let mut raw = Vec::new();
                match Decoder::new().expect("a decoder").decode(
                    &data[..end],
                    header.content_size as usize,
                    &mut raw,
                ) {
                    Ok(()) => assert_eq!(raw.len() as u64, header.content_size),
                    Err(error) => container_error(&error),
                }
            }
        }
    }
}

pub fn frame_seeds() -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new(3).expect("an encoder");
    let noise = |len: u32| {
        (0..len).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect::<Vec<_>>()
    };
    let raws = [
        vec![],
        b"a".to_vec(),
        b"hello ".repeat(60),
        noise(200),
        vec![0; 70_000],
        noise(3000).repeat(2),
    ];
    let mut frame = Vec::new();
    raws.iter()
        .map(|raw| {
            encoder.encode(raw, &mut frame).expect("encodes");
            frame.clone()
        })
        .collect()
}

/// Input: how it is cut, then a prologue or the header of a volume.
pub fn tar(data: &[u8]) {
    let mut choices = Choices(data);
    let cut = choices.byte();
    let bytes = choices.0;
    match (parse_prologue(bytes), prologue_len(bytes)) {
        (Ok((image_json, format_txt)), len) => {
            assert_eq!(len.expect("a prologue has a length"), Some(bytes.len()));
            assert_eq!(prologue(image_json, format_txt), bytes);
        }
        (Err(error), len) => {
            container_error(&error);
            let _ = len.map_err(|error| container_error(&error));
        }
    }
    let mut reader = VolumeHeaderReader::new();
    let piece = if cut == 255 { 500 } else { 512 * (1 + usize::from(cut % 8)) };
    for piece in bytes.chunks(piece) {
        match reader.read(piece) {
            Ok(()) => {}
            Err(error) => return container_error(&error),
        }
        if reader.is_complete() {
            break;
        }
    }
    match reader.finish() {
        Ok(read) => {
            let (name, map) = &read;
            // The reader is careful and not strict; what it understood is what the header says that
            // is made of it.
            let mut again = VolumeHeaderReader::new();
            for piece in volume_header(name, map) {
                again.read(&piece).expect("a header of our own");
            }
            assert_eq!(again.finish().expect("a whole header of our own"), read);
        }
        Err(error) => container_error(&error),
    }
}

pub fn tar_seeds() -> Vec<Vec<u8>> {
    let name = SnapshotId::parse("snap-0123456789abcdef0").expect("a name");
    let mut seeds = vec![[&[0], &prologue(b"{\"Snapshots\": []}", b"text")[..]].concat()];
    for (cut, size, extents) in [
        (0, 512, vec![]),
        (1, 3 * BLOCK_BYTES + 512, vec![(0, 1), (3, 1)]),
        (2, (1 << 40) + 512, (0..60).map(|i| (i * 40, 1 + i)).collect()),
        (0, VolumeSize::MAX, vec![(5, 3), ((1 << 27) - 1, 1)]),
    ] {
        let mut map = BlockMap::new(volume_size(size));
        for (first, count) in extents {
            map.insert(first, count);
        }
        let header: Vec<u8> = volume_header(&name, &map).flatten().collect();
        seeds.push([&[cut], &header[..]].concat());
    }
    seeds
}

/// Input: the document.
pub fn image_json(data: &[u8]) {
    match ImageDocument::parse(data.to_vec()) {
        Ok(document) => {
            assert_eq!(document.bytes(), data);
            assert!(document.snapshots().len() <= MAX_VOLUMES);
            assert!(!document.archive_name().contains(['/', '\0']));
            let mut names: Vec<_> = document
                .snapshots()
                .iter()
                .map(|snapshot| snapshot.id.as_str().to_ascii_lowercase())
                .collect();
            names.sort();
            assert!(names.is_sorted_by(|left, right| left < right), "two snapshots have one file");
            for snapshot in document.snapshots() {
                for size in SIZES {
                    let _ = document.check_size(&snapshot.id, volume_size(size));
                }
                for device in &snapshot.devices {
                    assert_eq!(
                        document.snapshot_of(device.as_str()).expect("a device of the document"),
                        &snapshot.id
                    );
                }
            }
        }
        Err(error) => assert!(
            matches!(error.kind(), ErrorKind::Usage | ErrorKind::Unsupported | ErrorKind::Limit),
            "{error:?}"
        ),
    }
}

pub fn json_seeds() -> Vec<Vec<u8>> {
    [
        DOCUMENT,
        r#"{"Snapshots": [{"SnapshotId": "a"},
            {"SnapshotId": "b", "VolumeSize": 18446744073709551615}]}"#,
        r#"{"format": "amibin", "version": 1, "Image": {"ImageId": "ami-01234567"},
            "x": [[[[1.5e300, null, true, "\ud83d\ude00"]]]]}"#,
    ]
    .map(|json| json.as_bytes().to_vec())
    .to_vec()
}
