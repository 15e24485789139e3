//! Archives with something wrong in one structure and every digest above it right, so that what is
//! wrong gets past the hash chain.

use std::collections::VecDeque;

use amistore::internals::base::{BlockIndex, SnapshotId, VolumeSize, bits_of};
use amistore::internals::codec::sha256;
use amistore::internals::codec::zstd::{Decoder, Encoder};
use amistore::internals::engine::Archive;
use amistore::internals::format::layout::META_FRAME_RAW;
use amistore::internals::format::{
    BlockMap, CellBits, CellEntry, CellFacts, CellRecord, Codec, Footer, FrameLog, GroupContent,
    GroupEntry, GroupIndex, Manifest, MetaFrame, MetaRole, RootRecord, VolumeContent, VolumeEntry,
    content_root, tar,
};
use amistore::internals::object::MemoryReader;

use super::Choices;
use super::archives::{both_readers, images, packed};

/// A part of an archive that can be edited.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Part {
    ImageJson,
    Prologue,
    MetaCut,
    MetaFrame,
    VolumeSize,
    TarHeader,
    CellOrder,
    CellRaw,
    CellFrame,
    CellRecord,
    Group,
    Trailer,
    Root,
    Extra,
    Footer,
    SeekTable,
}

const PARTS: [Part; 16] = [
    Part::ImageJson,
    Part::Prologue,
    Part::MetaCut,
    Part::MetaFrame,
    Part::VolumeSize,
    Part::TarHeader,
    Part::CellOrder,
    Part::CellRaw,
    Part::CellFrame,
    Part::CellRecord,
    Part::Group,
    Part::Trailer,
    Part::Root,
    Part::Extra,
    Part::Footer,
    Part::SeekTable,
];

/// A change of the bytes of one part.
#[derive(Clone, Debug)]
struct Edit {
    part: Part,
    /// Which of the parts of this kind, modulo 4.
    which: u8,
    operation: u8,
    at: usize,
    value: u64,
}

impl Edit {
    fn read(choices: &mut Choices<'_>) -> Self {
        let (part, which) = (PARTS[usize::from(choices.byte()) % PARTS.len()], choices.byte() % 4);
        Self {
            part,
            which,
            operation: choices.byte(),
            at: choices.number::<2>() as usize,
            value: choices.number::<8>(),
        }
    }

    fn apply(&self, bytes: &mut Vec<u8>) {
        let at = self.at.min(bytes.len());
        let mut put = |width: usize| {
            let end = (at + width).min(bytes.len());
            bytes[at..end].copy_from_slice(&self.value.to_le_bytes()[..end - at]);
        };
        match self.operation % 8 {
            0 => put(1),
            1 => put(2),
            2 => put(4),
            3 => put(8),
            4 => {
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (self.value % 8));
            }
            5 => {
                let end = at.saturating_add(1 + self.value as usize % 64).min(bytes.len());
                bytes.drain(at..end);
            }
            6 => {
                let run = vec![(self.value >> 8) as u8; 1 + self.value as usize % 64];
                bytes.splice(at..at, run);
            }
            _ => {
                let end = at.saturating_add(1 + self.value as usize % 512).min(bytes.len());
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
        }
    }
}

struct Cell {
    record: CellRecord,
    frame: Vec<u8>,
}

struct Group {
    group: u32,
    cells: Vec<Cell>,
}

struct Volume {
    name: SnapshotId,
    size: VolumeSize,
    groups: Vec<Group>,
}

/// A valid archive, taken apart.
struct Pieces {
    image_json: Vec<u8>,
    codec: Codec,
    writer: String,
    volumes: Vec<Volume>,
}

fn take_apart(bytes: &[u8]) -> Pieces {
    let reader = MemoryReader::new("seed", bytes.to_vec());
    let archive = Archive::open(std::sync::Arc::new(reader)).expect("a valid archive");
    let manifest = &archive.root().manifest;
    let volumes = manifest.volumes.iter().enumerate().map(|(volume, entry)| {
        let groups = archive.root().groups_of(volume as u16).iter().map(|group| {
            let mut at = group.offset as usize;
            let entries = archive.group_index(group).expect("a valid index").cells;
            let cells = entries.iter().map(|cell| {
                let (record, frame) =
                    bytes[at..][..cell.cell_len as usize].split_at(cell.record_len() as usize);
                at += cell.cell_len as usize;
                Cell {
                    record: CellRecord::parse(record).expect("a valid record"),
                    frame: frame.to_vec(),
                }
            });
            Group { group: group.group, cells: cells.collect() }
        });
        Volume { name: entry.name.clone(), size: entry.size, groups: groups.collect() }
    });
    Pieces {
        image_json: archive.document().bytes().to_vec(),
        codec: manifest.codec.clone(),
        writer: manifest.writer.clone(),
        volumes: volumes.collect(),
    }
}

/// Puts pieces together again, edited, and seals each with the digests of what it is then.
struct Assembler {
    edits: Vec<Edit>,
    /// Indexes, tar headers and manifest say what edited cells say, as far as those can be
    /// understood.
    follow: bool,
    /// Records have the length that their prefix says, even if an edit made them longer or shorter.
    fit_lengths: bool,
    encoder: Encoder,
    bytes: Vec<u8>,
    frames: FrameLog,
    meta: Vec<MetaFrame>,
    seen: [u8; PARTS.len()],
}

impl Assembler {
    fn edit(&mut self, part: Part, bytes: &mut Vec<u8>) {
        let which = self.seen[part as usize] % 4;
        self.seen[part as usize] += 1;
        self.edits
            .iter()
            .filter(|edit| edit.part == part && edit.which == which)
            .for_each(|edit| edit.apply(bytes));
    }

    fn edit_record(&mut self, part: Part, mut record: Vec<u8>) -> Vec<u8> {
        let before = record.len();
        self.edit(part, &mut record);
        if self.fit_lengths && record.len() != before && record.len() >= 8 {
            let len = record.len() as u32 - 8;
            record[4..8].copy_from_slice(&len.to_le_bytes());
        }
        record
    }

    /// The value of the edit of a part that is not bytes.
    fn choice(&mut self, part: Part) -> Option<u64> {
        let which = self.seen[part as usize] % 4;
        self.seen[part as usize] += 1;
        self.edits
            .iter()
            .find(|edit| edit.part == part && edit.which == which)
            .map(|edit| edit.value)
    }

    fn compressed(&mut self, raw: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        self.encoder.encode(raw, &mut frame).expect("encodes");
        frame
    }

    fn append_meta(&mut self, role: MetaRole, raw: &[u8]) {
        let mut pieces: VecDeque<&[u8]> = raw.chunks(META_FRAME_RAW).collect();
        if let Some(cut) = self.choice(Part::MetaCut) {
            // Cut where it must not be cut; also at an end, into something and nothing.
            let (head, rest) = raw.split_at(cut as usize % (raw.len() + 1));
            pieces = [head, rest].into();
        }
        for piece in pieces {
            let mut frame = self.compressed(piece);
            self.edit(Part::MetaFrame, &mut frame);
            self.frames.frame(frame.len() as u32, piece.len() as u32);
            self.meta.push(MetaFrame {
                offset: self.bytes.len() as u64,
                len: frame.len() as u64,
                raw_len: piece.len() as u64,
                digest: sha256::digest(&frame),
                role,
            });
            self.bytes.extend_from_slice(&frame);
        }
    }

    fn append_record(&mut self, record: &[u8]) {
        self.frames.frame(record.len() as u32, 0);
        self.bytes.extend_from_slice(record);
    }

    /// The edited bytes of a cell and what the index is to say of it.
    fn cell(&mut self, cell: &Cell, size: VolumeSize) -> (Vec<u8>, Vec<u8>, CellRecord) {
        let mut record = cell.record.clone();
        let mut frame = cell.frame.clone();
        if self.edits.iter().any(|edit| edit.part == Part::CellRaw) {
            let mut raw = Vec::new();
            Decoder::new()
                .expect("a decoder")
                .decode(&frame, record.raw_len as usize, &mut raw)
                .expect("a valid frame");
            let before = raw.clone();
            self.edit(Part::CellRaw, &mut raw);
            if raw != before {
                frame = self.compressed(&raw);
            }
            if self.follow && raw.len() == before.len() {
                record.block_digests = digests_of(&raw, &record, size);
            }
        }
        self.edit(Part::CellFrame, &mut frame);
        record.frame_len = frame.len() as u32;
        record.frame_digest = sha256::digest(&frame);
        let encoded = self.edit_record(Part::CellRecord, record.encode());
        let said = CellRecord::parse(&encoded)
            .ok()
            .filter(|said| self.follow && said.check_within(size).is_ok());
        (encoded, frame, said.unwrap_or(record))
    }

    fn volume(&mut self, index: u16, volume: &Volume, table: &mut Vec<GroupEntry>) -> VolumeEntry {
        let size = self
            .choice(Part::VolumeSize)
            .and_then(|bytes| VolumeSize::new(bytes).ok())
            .unwrap_or(volume.size);
        let mut map = BlockMap::new(size);
        let mut groups = Vec::new();
        for group in &volume.groups {
            let mut cells: Vec<_> = group.cells.iter().map(|cell| self.cell(cell, size)).collect();
            match (self.choice(Part::CellOrder), cells.len()) {
                (None, _) | (_, 0) => {}
                (Some(choice), len) if choice % 3 == 0 => cells.swap(0, len - 1),
                (Some(choice), len) if choice % 3 == 1 => {
                    drop(cells.remove((choice >> 8) as usize % len));
                }
                (Some(choice), len) => cells.push(cells[(choice >> 8) as usize % len].clone()),
            }
            groups.push((group.group, cells));
        }
        for (_, cells) in &groups {
            for (_, _, said) in cells.iter().filter(|(_, _, said)| said.check_within(size).is_ok())
            {
                map.set(said.address, CellBits { present: said.present, fill: said.fill });
            }
        }
        let mut header: Vec<u8> = tar::volume_header(&volume.name, &map).flatten().collect();
        self.edit(Part::TarHeader, &mut header);
        self.append_meta(MetaRole::Volume(index), &header);
        let mut content = VolumeContent::default();
        let (mut blocks, mut zero, mut fill) = (0, 0, 0);
        for (group, cells) in groups {
            let offset = self.bytes.len() as u64;
            let mut entries = Vec::new();
            let mut group_content = GroupContent::default();
            for (encoded, frame, said) in &cells {
                self.append_record(encoded);
                self.frames.frame(frame.len() as u32, said.raw_len);
                self.bytes.extend_from_slice(frame);
                entries.push(CellEntry {
                    cell_len: (encoded.len() + frame.len()) as u32,
                    index: said.address.index,
                    present: said.present,
                    zero: said.zero,
                    fill: said.fill,
                    record_digest: sha256::digest(encoded),
                });
                group_content.add(&CellFacts::new(said, encoded));
                blocks += u64::from(said.present.count_ones());
                zero += u64::from(said.zero.count_ones());
                fill += u64::from(said.fill.count_ones());
            }
            let moved =
                cells.first().map(|(_, _, said)| said.address.group).filter(|_| self.follow);
            let (group, cells_len) = (moved.unwrap_or(group), self.bytes.len() as u64 - offset);
            let digest = group_content.digest();
            if group_content.has_data() {
                content.add(group, &digest);
            }
            let s = GroupIndex { volume: index, group, cells_len, content: digest, cells: entries };
            let entries = s.cells.len() as u32;
            let s = self.edit_record(Part::Group, s.encode());
            self.append_record(&s);
            let (index_len, index_digest) = (s.len() as u32, sha256::digest(&s));
            table.push(GroupEntry {
                volume: index,
                group,
                offset,
                cells_len,
                index_len,
                entries,
                index_digest,
                content: digest,
            });
        }
        VolumeEntry {
            name: volume.name.clone(),
            size,
            blocks,
            zero,
            fill,
            content: content.digest(),
        }
    }

    fn run(mut self, pieces: &Pieces) -> Vec<u8> {
        let mut image_json = pieces.image_json.clone();
        self.edit(Part::ImageJson, &mut image_json);
        let mut prologue = tar::prologue(&image_json, tar::format_text().as_bytes());
        self.edit(Part::Prologue, &mut prologue);
        self.append_meta(MetaRole::Prologue, &prologue);
        let mut groups = Vec::new();
        let mut volumes = Vec::new();
        for (index, volume) in pieces.volumes.iter().enumerate() {
            volumes.push(self.volume(index as u16, volume, &mut groups));
        }
        let mut trailer = tar::trailer();
        self.edit(Part::Trailer, &mut trailer);
        self.append_meta(MetaRole::End, &trailer);
        let content_root = content_root(&sha256::digest(&image_json), &volumes);
        let manifest = Manifest {
            codec: pieces.codec.clone(),
            writer: pieces.writer.clone(),
            volumes,
            meta: std::mem::take(&mut self.meta),
            content_root,
        };
        let root_offset = self.bytes.len() as u64;
        let root = self.edit_record(Part::Root, RootRecord { manifest, groups }.encode());
        self.append_record(&root);
        if self.edits.iter().any(|edit| edit.part == Part::Extra) {
            // A vendor's record, which may stand here.
            let mut extra = b"\x5B\x2A\x4D\x18\x10\0\0\0AMIBX\x01\0\0vendor_1".to_vec();
            self.edit(Part::Extra, &mut extra);
            self.append_record(&extra);
        }
        let offset = self.bytes.len() as u64;
        let footer = Footer {
            root_offset,
            root_len: root.len() as u64,
            root: sha256::digest(&root),
            content_root,
            offset,
        };
        let footer = self.edit_record(Part::Footer, footer.encode());
        self.append_record(&footer);
        let mut table: Vec<u8> = self.frames.table().flatten().collect();
        self.edit(Part::SeekTable, &mut table);
        self.bytes.extend_from_slice(&table);
        self.bytes
    }
}

/// The digests that the data blocks of a cell have now.
fn digests_of(raw: &[u8], record: &CellRecord, size: VolumeSize) -> Vec<[u8; 32]> {
    let mut rest = raw;
    let mut digests = Vec::new();
    for bit in bits_of(record.present) {
        let len = size.block_len(BlockIndex(record.address.first_block().0 + bit)) as usize;
        let (block, after) = rest.split_at(len.min(rest.len()));
        rest = after;
        if record.zero >> bit & 1 == 0 {
            let mut padded = block.to_vec();
            padded.resize(amistore::internals::base::BLOCK_BYTES as usize, 0);
            digests.push(sha256::digest(&padded));
        }
    }
    digests
}

/// How an input says which edits it means.
struct Request {
    image: usize,
    follow: bool,
    fit_lengths: bool,
    edits: Vec<Edit>,
}

impl Request {
    fn read(data: &[u8]) -> Self {
        let mut choices = Choices(data);
        let flags = choices.byte();
        let mut edits = Vec::new();
        // More than a few edits only hide each other.
        while !choices.is_empty() && edits.len() < 4 {
            edits.push(Edit::read(&mut choices));
        }
        Self {
            image: usize::from(flags >> 2),
            follow: flags & 1 == 1,
            fit_lengths: flags & 2 == 2,
            edits,
        }
    }
}

/// The bytes of an archive that was edited and sealed again.
fn edited(request: Request, archive: &[u8]) -> Vec<u8> {
    let assembler = Assembler {
        edits: request.edits,
        follow: request.follow,
        fit_lengths: request.fit_lengths,
        encoder: Encoder::new(3).expect("an encoder"),
        bytes: Vec::new(),
        frames: FrameLog::default(),
        meta: Vec::new(),
        seen: [0; PARTS.len()],
    };
    assembler.run(&take_apart(archive))
}

thread_local! {
    /// Packing takes longer than the checks of an archive.
    static ARCHIVES: Vec<Vec<u8>> =
        images().iter().map(|image| packed(image, false, 1, 3)).collect();
}

/// Input: flags and the number of an image, then up to four edits.
pub fn resealed(data: &[u8]) {
    let request = Request::read(data);
    let untouched = request.edits.is_empty();
    ARCHIVES.with(|archives| {
        let archive = &archives[request.image % archives.len()];
        let bytes = edited(request, archive);
        let root = both_readers(&bytes);
        // An archive that is put together without edits equals the packed one; so a refusal is
        // never for a fault of the assembly.
        if untouched {
            assert!(bytes == *archive && root.is_some());
        }
    });
}

/// The parts that hold counts and lengths, and how long they are at least, in archives of small
/// images.
pub const SIZED_PARTS: &[(Part, u16)] = &[
    (Part::CellRecord, 72),
    (Part::Group, 80),
    (Part::Root, 1500),
    (Part::TarHeader, 512),
    (Part::Prologue, 140),
    (Part::MetaFrame, 16),
    (Part::Extra, 16),
];

/// An input of [`resealed`] with one edit: of the first part of its kind, in the archive of image
/// number `image`.
pub fn resealing_input(image: u8, part: Part, operation: u8, at: u16, value: u64) -> Vec<u8> {
    [&[image << 2 | 3, part as u8, 0, operation], &at.to_le_bytes()[..], &value.to_le_bytes()[..]]
        .concat()
}

/// One edit of each part for each image, and none.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for image in 0..4 {
        seeds.push(vec![image << 2]);
        for part in PARTS {
            seeds.push(resealing_input(image, part, 0, 30, 1 << 20));
        }
    }
    seeds
}
