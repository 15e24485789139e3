//! An archive that can be read at any position: footer, root, indexes and metadata, fetched and
//! checked.

use crate::base::{Error, ErrorKind, Result};
use crate::codec::sha256;
use crate::codec::zstd::Decoder;
use crate::format::layout::{MAX_EXTRA_RECORDS, MAX_ROOT_RECORD, MAX_SEEK_FRAMES, RECORD_PREFIX};
use crate::format::{
    BlockMap, FOOTER_LEN, Footer, MetaFrame, MetaRole, Record, RecordKind, RootRecord, SlotBits,
    VolumeEntry, WindowEntry, WindowIndex, frame, seek_table_len, tar,
};
use crate::image::ImageDocument;
use crate::object::ObjectReader;

/// What is read first: enough for the footer and, of small archives, everything.
const TAIL: u64 = 64 << 10;
/// Indexes under way while one is read: at most 1.5 MiB.
const INDEXES_AHEAD: usize = 8;
/// The end of a seek table: number of frames, descriptor, magic.
const SEEK_TAIL: usize = 9;

/// An open archive. What is in memory matched the root; cells are checked when they are read.
pub struct Archive<'a> {
    reader: &'a dyn ObjectReader,
    footer: Footer,
    root: RootRecord,
    /// Lengths of the records between R and F.
    extra_records: Vec<u64>,
    document: ImageDocument,
}

impl<'a> Archive<'a> {
    /// Opens an archive: reads footer, root record and prologue. Something that is no archive is
    /// unsupported, and said what it looks like.
    pub fn open(reader: &'a dyn ObjectReader) -> Result<Self> {
        let located = |error: Error| error.at("archive", reader.name());
        let mut head = [0; 512];
        let head_len = reader.len().min(512) as usize;
        reader.read_at(0, &mut head[..head_len])?;
        if !frame::begins(&head) {
            reader.distrust();
            reader.read_at(0, &mut head[..head_len])?;
        }
        if !frame::begins(&head) {
            return Err(located(super::foreign::not_an_archive(&head[..head_len])));
        }
        let footer = match twice(reader, || find_footer(reader)) {
            Ok(footer) => footer,
            Err(error) => {
                return Err(located(super::foreign::explain_missing_footer(reader, error)));
            }
        };
        let open = || -> Result<(RootRecord, Vec<u64>, ImageDocument)> {
            let (root, extra) = twice(reader, || read_root(reader, &footer))?;
            let prologue = read_meta(reader, &root.manifest.meta, MetaRole::Prologue)?;
            let (image_json, _) =
                tar::parse_prologue(&prologue).map_err(|error| error.at("offset", 0))?;
            let document = read_document(image_json)?;
            Ok((root, extra, document))
        };
        let (root, extra_records, document) = open().map_err(located)?;
        check_volumes(&document, &root.manifest.volumes).map_err(located)?;
        Ok(Self { reader, footer, root, extra_records, document })
    }

    /// The metadata.
    pub fn document(&self) -> &ImageDocument {
        &self.document
    }

    /// The footer.
    pub fn footer(&self) -> &Footer {
        &self.footer
    }

    /// The root record.
    pub fn root(&self) -> &RootRecord {
        &self.root
    }

    /// Lengths of the unknown records between root record and footer.
    pub fn extra_records(&self) -> &[u64] {
        &self.extra_records
    }

    /// The object the archive is in.
    pub fn reader(&self) -> &'a dyn ObjectReader {
        self.reader
    }

    /// A volume of the archive.
    pub fn volume(&self, index: u16) -> &VolumeEntry {
        &self.root.manifest.volumes[usize::from(index)]
    }

    /// Reads and checks the index of a window.
    pub fn window_index(&self, entry: &WindowEntry) -> Result<WindowIndex> {
        let read = || {
            let mut bytes = vec![0; entry.index_len as usize];
            self.reader.read_at(entry.index_offset(), &mut bytes)?;
            if sha256::digest(&bytes) != entry.index_digest {
                return Err(Error::corrupt("the index of a window does not match its digest"));
            }
            let index = WindowIndex::parse(&bytes, self.volume(entry.volume).size)?;
            let agree = index.volume == entry.volume
                && index.window == entry.window
                && index.cells_len == entry.cells_len
                && index.slots.len() == entry.entries as usize
                && index.content == entry.content;
            if agree {
                Ok(index)
            } else {
                Err(Error::corrupt("the index of a window contradicts the table of windows"))
            }
        };
        twice(self.reader, read).map_err(|error| self.locate_window(error, entry))
    }

    /// Begins to fetch the index that is read some windows after window `number`, or, with the
    /// first window, all up to it. Whoever reads them one after the other then does not wait for
    /// each.
    pub(super) fn prefetch_indexes(&self, volume: u16, number: usize) {
        let windows = self.root.windows_of(volume);
        let from = if number == 0 { 0 } else { number + INDEXES_AHEAD };
        for entry in windows.iter().take(number + INDEXES_AHEAD + 1).skip(from) {
            self.reader.prefetch(entry.index_offset(), entry.index_len.into());
        }
    }

    /// Adds snapshot, blocks and offset of a window whose index is damaged.
    pub(super) fn locate_window(&self, error: Error, entry: &WindowEntry) -> Error {
        let volume = self.volume(entry.volume);
        let first = crate::base::SlotAddress { window: entry.window, slot: 0 }.first_block();
        let count = crate::base::WINDOW_BLOCKS.min(volume.size.blocks() - first.0);
        error
            .at("snapshot", &volume.name)
            .at("blocks", crate::base::BlockRange { first, count })
            .at("offset", entry.index_offset())
    }

    /// Checks that the tar header of a volume says what its `map` says, so that stock tools and we
    /// see one disk.
    pub fn check_header(&self, volume: u16, map: &BlockMap) -> Result<()> {
        let name = &self.volume(volume).name;
        let mut expected = tar::volume_header(name, map);
        for meta in self.meta(MetaRole::Volume(volume)) {
            let located = |error: Error| error.at("snapshot", name).at("offset", meta.offset);
            let raw = twice(self.reader, || read_frame(self.reader, meta)).map_err(located)?;
            if expected.next().as_deref() != Some(&raw) {
                return Err(located(two_views()));
            }
        }
        match expected.next() {
            None => Ok(()),
            Some(_) => Err(two_views().at("snapshot", name)),
        }
    }

    /// Checks the end of the tar.
    pub fn check_trailer(&self) -> Result<()> {
        if read_meta(self.reader, &self.root.manifest.meta, MetaRole::End)? == tar::trailer() {
            Ok(())
        } else {
            Err(Error::corrupt("the tar in the archive does not end as it should"))
        }
    }

    /// The meta frames of one role, in order.
    pub fn meta(&self, role: MetaRole) -> impl Iterator<Item = &MetaFrame> {
        self.root.manifest.meta.iter().filter(move |meta| meta.role == role)
    }
}

/// What [`BlockMap`] a window index stands for.
pub(super) fn add_to_map(index: &WindowIndex, map: &mut BlockMap) {
    for slot in &index.slots {
        let address = crate::base::SlotAddress { window: index.window, slot: slot.slot };
        map.set(address, SlotBits { present: slot.present, fill: slot.fill });
    }
}

pub(super) fn two_views() -> Error {
    Error::corrupt(
        "the tar header of a volume does not say what the index says: stock tools would see another disk",
    )
}

/// The metadata of an archive; a document that breaks the rules makes the archive corrupt.
pub(super) fn read_document(image_json: &[u8]) -> Result<ImageDocument> {
    ImageDocument::parse(image_json.to_vec()).map_err(|error| match error.kind() {
        ErrorKind::Unsupported => error,
        _ => Error::corrupt("the metadata of the archive breaks the rules of the format")
            .because(error),
    })
}

/// Checks that the volumes are those that the metadata names, and have the sizes it says.
pub(super) fn check_volumes(document: &ImageDocument, volumes: &[VolumeEntry]) -> Result<()> {
    if !document
        .snapshots()
        .iter()
        .map(|snapshot| &snapshot.id)
        .eq(volumes.iter().map(|volume| &volume.name))
    {
        return Err(Error::corrupt(
            "the volumes of the archive are not those that its image.json names",
        ));
    }
    volumes.iter().try_for_each(|volume| check_size(document, volume))
}

fn check_size(document: &ImageDocument, volume: &VolumeEntry) -> Result<()> {
    document.check_size(&volume.name, volume.size).map_err(|error| {
        Error::corrupt("a volume of the archive has not the size that its image.json says")
            .at("snapshot", &volume.name)
            .because(error)
    })
}

fn find_footer(reader: &dyn ObjectReader) -> Result<Footer> {
    let len = reader.len();
    let tail_len = len.min(TAIL);
    let mut tail = vec![0; tail_len as usize];
    reader.read_at(len - tail_len, &mut tail)?;
    let missing = || {
        Error::corrupt("the archive has no footer at its end")
            .at("missing", "footer")
            .at("offset", len)
    };
    let table_len = match tail.last_chunk::<SEEK_TAIL>() {
        Some([a, b, c, d, _, 0xB1, 0xEA, 0x92, 0x8F]) => {
            let frames = u64::from(u32::from_le_bytes([*a, *b, *c, *d]));
            if frames > MAX_SEEK_FRAMES {
                return Err(Error::corrupt("the seek table is longer than the format allows")
                    .at("frames", frames));
            }
            seek_table_len(frames)
        }
        _ => 0,
    };
    let offset = len.checked_sub(table_len + FOOTER_LEN as u64).ok_or_else(missing)?;
    let mut bytes = [0; FOOTER_LEN];
    reader.read_at(offset, &mut bytes)?;
    if !Record::begins(&bytes) {
        return Err(missing());
    }
    Footer::parse(&bytes, offset).map_err(|error| error.at("offset", offset))
}

fn read_root(reader: &dyn ObjectReader, footer: &Footer) -> Result<(RootRecord, Vec<u64>)> {
    let located = |error: Error| error.at("offset", footer.root_offset);
    if footer.root_len > MAX_ROOT_RECORD {
        return Err(located(
            Error::corrupt("the root record is longer than the format allows")
                .at("length", footer.root_len),
        ));
    }
    let mut bytes = vec![0; footer.root_len as usize];
    reader.read_at(footer.root_offset, &mut bytes)?;
    if sha256::digest(&bytes) != footer.root {
        return Err(located(Error::corrupt("the root record does not match the footer")));
    }
    let root = RootRecord::parse(&bytes, footer.root_offset).map_err(located)?;
    if root.manifest.content_root != footer.content_root {
        return Err(located(Error::corrupt("manifest and footer have two content roots")));
    }
    let extra = read_extra_records(reader, footer.root_offset + footer.root_len, footer.offset)?;
    Ok((root, extra))
}

/// Walks the records between R and F, which may only be of kinds that may be ignored, and tells
/// their lengths.
fn read_extra_records(reader: &dyn ObjectReader, start: u64, end: u64) -> Result<Vec<u64>> {
    if end - start > MAX_EXTRA_RECORDS {
        return Err(Error::corrupt(
            "more stands between root record and footer than the format allows",
        )
        .at("offset", start));
    }
    let mut lengths = Vec::new();
    let mut at = start;
    while at < end {
        let mut prefix = [0; RECORD_PREFIX];
        if end - at < RECORD_PREFIX as u64 {
            return Err(Error::corrupt("something that is no record stands before the footer")
                .at("offset", at));
        }
        reader.read_at(at, &mut prefix)?;
        let record = Record::parse_prefix(&prefix).map_err(|error| error.at("offset", at))?;
        check_extra_record(&record, end - at).map_err(|error| error.at("offset", at))?;
        lengths.push(record.len);
        at += record.len;
    }
    Ok(lengths)
}

pub(super) fn check_extra_record(record: &Record, room: u64) -> Result<()> {
    match record.kind {
        RecordKind::Unknown(_) if record.len <= room => Ok(()),
        RecordKind::Unknown(_) => {
            Err(Error::corrupt("a record runs past the place where it has to end"))
        }
        _ => Err(Error::corrupt("a record stands where it must not")),
    }
}

/// Reads something, and reads it once more if it is corrupt, because a wrong bit on the way is no
/// damage.
pub(super) fn twice<T>(reader: &dyn ObjectReader, read: impl Fn() -> Result<T>) -> Result<T> {
    match read() {
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            reader.distrust();
            read()
        }
        outcome => outcome,
    }
}

/// All frames of a role, inflated and put together.
fn read_meta(reader: &dyn ObjectReader, meta: &[MetaFrame], role: MetaRole) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for frame in meta.iter().filter(|frame| frame.role == role) {
        bytes.extend_from_slice(
            &twice(reader, || read_frame(reader, frame))
                .map_err(|error| error.at("offset", frame.offset))?,
        );
    }
    Ok(bytes)
}

fn read_frame(reader: &dyn ObjectReader, meta: &MetaFrame) -> Result<Vec<u8>> {
    let mut bytes = vec![0; meta.len as usize];
    reader.read_at(meta.offset, &mut bytes)?;
    if sha256::digest(&bytes) != meta.digest {
        return Err(Error::corrupt("a metadata frame does not match its digest"));
    }
    inflate_meta(&bytes, meta.raw_len)
}

/// Inflates a meta frame that should have `raw_len` bytes.
pub(super) fn inflate_meta(bytes: &[u8], raw_len: u64) -> Result<Vec<u8>> {
    frame::check(bytes, raw_len)?;
    let mut raw = Vec::new();
    Decoder::new()?.decode(bytes, raw_len as usize, &mut raw)?;
    Ok(raw)
}
