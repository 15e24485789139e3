//! Makes archives directly from the text of `format-spec/container.md`: valid ones, to compare the
//! packer with, and invalid ones whose digests all match.
//!
//! It uses no code of `amistore::internals::format`, so that it does not share its mistakes.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub const BLOCK: u64 = 524_288;

pub fn sha(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A block of a forged volume.
#[derive(Clone)]
pub enum Block {
    Data(Vec<u8>),
    Zero,
    Fill,
}

#[derive(Clone)]
pub struct Volume {
    pub name: String,
    pub size: u64,
    pub blocks: Vec<(u32, Block)>,
}

/// Changes the bytes of a piece.
pub type Edit = Box<dyn Fn(&mut Vec<u8>)>;

/// An archive to make, and changes of its pieces before they are sealed.
pub struct Forge {
    pub image_json: Vec<u8>,
    pub format_txt: Vec<u8>,
    pub volumes: Vec<Volume>,
    pub level: i32,
    pub writer: String,
    /// Changes the data that is compressed into a cell; its record stays that of the original data.
    pub edit_raw: Edit,
    /// Changes a data frame before it is hashed.
    pub edit_frame: Edit,
    pub edit_cell: Edit,
    pub edit_index: Edit,
    /// Changes the tar header of a volume.
    pub edit_header: Edit,
    /// Inflated bytes of the meta frames that a header is cut into.
    pub header_cut: usize,
    pub edit_trailer: Edit,
    pub edit_manifest: Box<dyn Fn(&mut Value)>,
    /// Changes the text of the manifest before it is padded.
    pub edit_json: Edit,
    pub edit_root: Edit,
    /// Stands between R and F.
    pub extra: Vec<u8>,
    pub edit_footer: Edit,
    pub edit_table: Edit,
}

impl Forge {
    pub fn new(image_json: &str, volumes: Vec<Volume>) -> Self {
        let nothing = || -> Edit { Box::new(|_| {}) };
        Self {
            image_json: image_json.as_bytes().to_vec(),
            format_txt: amistore::internals::format::tar::format_text().into_bytes(),
            volumes,
            level: 1,
            writer: "forge".into(),
            edit_raw: nothing(),
            edit_frame: nothing(),
            edit_cell: nothing(),
            edit_index: nothing(),
            edit_header: nothing(),
            header_cut: META_CUT,
            edit_trailer: nothing(),
            edit_manifest: Box::new(|_| {}),
            edit_json: nothing(),
            edit_root: nothing(),
            extra: Vec::new(),
            edit_footer: nothing(),
            edit_table: nothing(),
        }
    }

    pub fn build(&self) -> Vec<u8> {
        let mut build = Build {
            forge: self,
            out: Vec::new(),
            table: Vec::new(),
            meta: Vec::new(),
            groups: Vec::new(),
            volumes: Vec::new(),
        };
        build.run();
        build.out
    }
}

pub fn record(kind: u8, version: u8, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = 0x184D_2A5B_u32.to_le_bytes().to_vec();
    bytes.extend_from_slice(&(body.len() as u32 + 8).to_le_bytes());
    bytes.extend_from_slice(b"AMIB");
    bytes.push(kind);
    bytes.push(version);
    bytes.extend_from_slice(&flags.to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

pub fn frame(raw: &[u8], level: i32) -> Vec<u8> {
    let mut compressor = zstd::bulk::Compressor::new(level).expect("a level");
    compressor.include_checksum(true).expect("a flag");
    compressor.compress(raw).expect("compresses")
}

/// A block of a frame made by hand.
pub enum FrameBlock<'a> {
    Raw(&'a [u8]),
    /// So many bytes of one value.
    Rle(u8, u32),
    /// Written by hand, too.
    Compressed(&'a [u8]),
}

/// A frame of `raw` made of these blocks, in a single segment or with a window descriptor.
pub fn frame_of(raw: &[u8], window_size: Option<u8>, blocks: &[FrameBlock<'_>]) -> Vec<u8> {
    let mut bytes = 0xFD2F_B528_u32.to_le_bytes().to_vec();
    bytes.push(if window_size.is_some() { 0x84 } else { 0xA4 });
    bytes.extend(window_size);
    bytes.extend_from_slice(&(raw.len() as u32).to_le_bytes());
    for (number, block) in blocks.iter().enumerate() {
        let (kind, size, content) = match block {
            FrameBlock::Raw(content) => (0, content.len() as u32, content.to_vec()),
            FrameBlock::Rle(value, size) => (1, *size, vec![*value]),
            FrameBlock::Compressed(content) => (2, content.len() as u32, content.to_vec()),
        };
        let is_last = u32::from(number + 1 == blocks.len());
        bytes.extend_from_slice(&(size << 3 | kind << 1 | is_last).to_le_bytes()[..3]);
        bytes.extend_from_slice(&content);
    }
    // The checksum is that of the content, whatever the blocks.
    let checksum = frame(raw, 1);
    bytes.extend_from_slice(&checksum[checksum.len() - 4..]);
    bytes
}

/// Bytes of a block that are stored: all of them for a block beyond the end of its volume.
fn stored_len(size: u64, block: u32) -> u64 {
    match size.saturating_sub(u64::from(block) * BLOCK).min(BLOCK) {
        0 => BLOCK,
        len => len,
    }
}

/// Inflated bytes of a meta frame that is not the last of its piece.
const META_CUT: usize = 1 << 20;

struct Build<'a> {
    forge: &'a Forge,
    out: Vec<u8>,
    table: Vec<(u32, u32)>,
    meta: Vec<Value>,
    groups: Vec<u8>,
    volumes: Vec<Value>,
}

impl Build<'_> {
    fn run(&mut self) {
        let forge = self.forge;
        let mut prologue = Vec::new();
        for (name, content) in
            [("image.json", &forge.image_json), ("FORMAT.txt", &forge.format_txt)]
        {
            prologue.extend_from_slice(&tar_header(name, b'0', content.len() as u64, None));
            prologue.extend_from_slice(content);
            prologue.resize(prologue.len().next_multiple_of(512), 0);
        }
        self.meta("prologue", None, &prologue, META_CUT);
        let mut content = b"AMIB content v1\0".to_vec();
        content.extend_from_slice(&sha(&forge.image_json));
        for (index, volume) in forge.volumes.iter().enumerate() {
            let digest = self.volume(index as u16, volume);
            content.extend_from_slice(&(index as u16).to_le_bytes());
            content.extend_from_slice(&volume.size.to_le_bytes());
            content.extend_from_slice(&digest);
        }
        let mut trailer = vec![0; 1024];
        (forge.edit_trailer)(&mut trailer);
        self.meta("end", None, &trailer, META_CUT);
        let content_root = sha(&content);
        let mut manifest = json!({
            "block_size": 524_288,
            "cell_blocks": 8,
            "window_blocks": 32_768,
            "features": [],
            "format": "amibin",
            "version": 1,
            "codec": {
                "name": "zstd",
                "level": forge.level,
                "lib": zstd::zstd_safe::version_string(),
            },
            "content_root": hex(&content_root),
            "meta": self.meta,
            "volumes": self.volumes,
            "writer": forge.writer,
        });
        (forge.edit_manifest)(&mut manifest);
        let mut json = manifest.to_string().into_bytes();
        (forge.edit_json)(&mut json);
        json.resize(json.len().next_multiple_of(8), b' ');
        let mut body = (json.len() as u32).to_le_bytes().to_vec();
        body.extend_from_slice(&((self.groups.len() / 96) as u32).to_le_bytes());
        body.extend_from_slice(&(self.meta.len() as u32).to_le_bytes());
        body.extend_from_slice(&[0; 4]);
        body.extend_from_slice(&json);
        body.extend_from_slice(&self.groups);
        let mut root = record(b'R', 1, 0, &body);
        (forge.edit_root)(&mut root);
        let root_offset = self.out.len() as u64;
        self.push(&root, 0);
        let mut extra = &forge.extra[..];
        while !extra.is_empty() {
            let len = 8 + u32::from_le_bytes(extra[4..8].try_into().expect("four bytes")) as usize;
            let (one, rest) = extra.split_at(len);
            self.push(one, 0);
            extra = rest;
        }
        let mut body = root_offset.to_le_bytes().to_vec();
        body.extend_from_slice(&(root.len() as u64).to_le_bytes());
        body.extend_from_slice(&sha(&root));
        body.extend_from_slice(&content_root);
        body.extend_from_slice(&(self.out.len() as u64).to_le_bytes());
        body.extend_from_slice(&[0; 16]);
        body.extend_from_slice(b"AMIBEND1");
        let mut footer = record(b'F', 1, 0, &body);
        (forge.edit_footer)(&mut footer);
        self.push(&footer, 0);
        let mut table = 0x184D_2A5E_u32.to_le_bytes().to_vec();
        table.extend_from_slice(&(8 * self.table.len() as u32 + 9).to_le_bytes());
        for (len, raw) in &self.table {
            table.extend_from_slice(&len.to_le_bytes());
            table.extend_from_slice(&raw.to_le_bytes());
        }
        table.extend_from_slice(&(self.table.len() as u32).to_le_bytes());
        table.push(0);
        table.extend_from_slice(&0x8F92_EAB1_u32.to_le_bytes());
        (forge.edit_table)(&mut table);
        self.out.extend_from_slice(&table);
    }

    fn push(&mut self, bytes: &[u8], raw: u32) {
        self.table.push((bytes.len() as u32, raw));
        self.out.extend_from_slice(bytes);
    }

    fn meta(&mut self, role: &str, volume: Option<u16>, raw: &[u8], cut: usize) {
        for piece in raw.chunks(cut) {
            let frame = frame(piece, self.forge.level);
            let mut entry = json!({
                "off": self.out.len(),
                "len": frame.len(),
                "raw": piece.len(),
                "role": role,
                "sha256": hex(&sha(&frame)),
            });
            if let Some(volume) = volume {
                entry["volume"] = json!(volume);
            }
            self.meta.push(entry);
            self.push(&frame, piece.len() as u32);
        }
    }

    fn volume(&mut self, index: u16, volume: &Volume) -> [u8; 32] {
        let len = |block: u32| stored_len(volume.size, block);
        let mut header = sparse_header(volume);
        (self.forge.edit_header)(&mut header);
        self.meta("volume", Some(index), &header, self.forge.header_cut);
        let mut content = Vec::new();
        let mut rest = &volume.blocks[..];
        while let Some((first, _)) = rest.first() {
            let group = first / 32_768;
            let (blocks, after) =
                rest.split_at(rest.partition_point(|(block, _)| block / 32_768 == group));
            rest = after;
            if let Some(digest) = self.group(index, group, blocks, &len) {
                content.extend_from_slice(&group.to_le_bytes());
                content.extend_from_slice(&digest);
            }
        }
        let count = |matches: fn(&Block) -> bool| {
            volume.blocks.iter().filter(|(_, block)| matches(block)).count()
        };
        self.volumes.push(json!({
            "name": volume.name,
            "size": volume.size,
            "blocks": volume.blocks.len(),
            "content": hex(&sha(&content)),
            "zero": count(|block| !matches!(block, Block::Data(_))),
            "fill": count(|block| matches!(block, Block::Fill)),
        }));
        sha(&content)
    }

    fn group(
        &mut self,
        index: u16,
        group: u32,
        blocks: &[(u32, Block)],
        len: &dyn Fn(u32) -> u64,
    ) -> Option<[u8; 32]> {
        let start = self.out.len();
        let (mut entries, mut content) = (Vec::new(), Vec::new());
        let mut rest = blocks;
        let mut count = 0u32;
        while let Some((first, _)) = rest.first() {
            let address = first / 8;
            let (cell, after) =
                rest.split_at(rest.partition_point(|(block, _)| block / 8 == address));
            rest = after;
            count += 1;
            let address = (address % 4096) as u16;
            let (mut present, mut zero, mut fill) = (0u16, 0u16, 0u16);
            let (mut raw, mut digests) = (Vec::new(), Vec::new());
            for (block, state) in cell {
                let bit = 1 << (block % 8);
                present |= bit;
                let mut data = match state {
                    Block::Data(data) => data.clone(),
                    Block::Zero | Block::Fill => Vec::new(),
                };
                data.resize(len(*block) as usize, 0);
                raw.extend_from_slice(&data);
                match state {
                    Block::Data(_) => {
                        data.resize(BLOCK as usize, 0);
                        digests.extend_from_slice(&sha(&data));
                    }
                    Block::Zero => zero |= bit,
                    Block::Fill => (zero |= bit, fill |= bit).1,
                }
            }
            let raw_len = raw.len() as u32;
            (self.forge.edit_raw)(&mut raw);
            let mut frame = frame(&raw, self.forge.level);
            (self.forge.edit_frame)(&mut frame);
            let mut body = index.to_le_bytes().to_vec();
            body.extend_from_slice(&address.to_le_bytes());
            body.extend_from_slice(&group.to_le_bytes());
            body.extend_from_slice(&(frame.len() as u32).to_le_bytes());
            body.extend_from_slice(&raw_len.to_le_bytes());
            for word in [present, zero, fill, 0] {
                body.extend_from_slice(&word.to_le_bytes());
            }
            body.extend_from_slice(&sha(&frame));
            body.extend_from_slice(&digests);
            let mut cell = record(b'C', 1, 0, &body);
            (self.forge.edit_cell)(&mut cell);
            entries.extend_from_slice(&((cell.len() + frame.len()) as u32).to_le_bytes());
            for word in [address, present, zero, fill] {
                entries.extend_from_slice(&word.to_le_bytes());
            }
            entries.extend_from_slice(&sha(&cell));
            if present & !zero != 0 {
                content.extend_from_slice(&address.to_le_bytes());
                content.extend_from_slice(&(present & !zero).to_le_bytes());
                content.extend_from_slice(&sha(&digests));
            }
            self.push(&cell, 0);
            self.push(&frame, raw_len);
        }
        let cells_len = (self.out.len() - start) as u64;
        let mut body = index.to_le_bytes().to_vec();
        body.extend_from_slice(&[0; 2]);
        body.extend_from_slice(&group.to_le_bytes());
        body.extend_from_slice(&count.to_le_bytes());
        body.extend_from_slice(&(blocks.len() as u32).to_le_bytes());
        body.extend_from_slice(&cells_len.to_le_bytes());
        body.extend_from_slice(&sha(&content));
        body.extend_from_slice(&entries);
        let mut record = record(b'S', 1, 0, &body);
        (self.forge.edit_index)(&mut record);
        self.groups.extend_from_slice(&index.to_le_bytes());
        self.groups.extend_from_slice(&[0; 2]);
        self.groups.extend_from_slice(&group.to_le_bytes());
        self.groups.extend_from_slice(&(start as u64).to_le_bytes());
        self.groups.extend_from_slice(&cells_len.to_le_bytes());
        self.groups.extend_from_slice(&(record.len() as u32).to_le_bytes());
        self.groups.extend_from_slice(&count.to_le_bytes());
        self.groups.extend_from_slice(&sha(&record));
        self.groups.extend_from_slice(&sha(&content));
        self.push(&record, 0);
        (!content.is_empty()).then(|| sha(&content))
    }
}

fn number(value: u64) -> [u8; 12] {
    let mut field = [0; 12];
    if value < 1 << 33 {
        field[..11].copy_from_slice(format!("{value:011o}").as_bytes());
    } else {
        field[0] = 0x80;
        field[4..].copy_from_slice(&value.to_be_bytes());
    }
    field
}

/// Map entries, whether more follow, real size.
type Sparse<'a> = (&'a [(u64, u64)], bool, u64);

/// A tar header; with map entries and real size for a sparse one.
fn tar_header(name: &str, kind: u8, size: u64, sparse: Option<Sparse<'_>>) -> [u8; 512] {
    let mut header = [0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(&number(size));
    header[136..148].copy_from_slice(&number(0));
    header[148..156].copy_from_slice(b"        ");
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar  \0");
    if let Some((entries, extended, real_size)) = sparse {
        put_entries(&mut header[386..482], entries);
        header[482] = u8::from(extended);
        header[483..495].copy_from_slice(&number(real_size));
    }
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

fn put_entries(field: &mut [u8], entries: &[(u64, u64)]) {
    for (entry, (offset, len)) in field.chunks_mut(24).zip(entries) {
        entry[..12].copy_from_slice(&number(*offset));
        entry[12..].copy_from_slice(&number(*len));
    }
}

pub fn sparse_header(volume: &Volume) -> Vec<u8> {
    let mut map: Vec<(u64, u64)> = Vec::new();
    let mut stored = 0;
    for (block, _) in &volume.blocks {
        let offset = u64::from(*block) * BLOCK;
        let len = stored_len(volume.size, *block);
        stored += len;
        match map.last_mut() {
            Some((first, count)) if *first + *count == offset => *count += len,
            _ => map.push((offset, len)),
        }
    }
    if map.last().is_none_or(|(first, len)| first + len != volume.size) {
        map.push((volume.size, 0));
    }
    let (first, rest) = map.split_at(map.len().min(4));
    let mut header = tar_header(
        &format!("{}.raw", volume.name),
        b'S',
        stored,
        Some((first, !rest.is_empty(), volume.size)),
    )
    .to_vec();
    let mut chunks = rest.chunks(21).peekable();
    while let Some(chunk) = chunks.next() {
        let mut block = [0; 512];
        put_entries(&mut block[..504], chunk);
        block[504] = u8::from(chunks.peek().is_some());
        header.extend_from_slice(&block);
    }
    header
}
