//! Opens an archive: finds its footer, reads root record and metadata.

use std::sync::Arc;

use super::{Archive, Opened, detect};
use crate::base::{Error, ErrorCode, ErrorKind, Result};
use crate::codec::sha256;
use crate::codec::zstd::Decoder;
use crate::format::layout::{MAX_EXTRA_RECORDS, MAX_ROOT_RECORD, MAX_SEEK_FRAMES, RECORD_PREFIX};
use crate::format::{
    FOOTER_LEN, Footer, MetaFrame, MetaRole, Position, Record, RecordKind, RootRecord, VolumeEntry,
    content_root, frame, seek_table_frames, seek_table_len, tar,
};
use crate::image::ImageDocument;
use crate::object::ObjectReader;

/// Bytes of the first read, at the end of the object: the footer and, in small archives, all.
const TAIL: u64 = 64 << 10;

impl Archive {
    /// Opens the archive in `object`: reads footer, root record and prologue. Data that is no
    /// archive is an error of kind `Unsupported` that says what the data looks like.
    pub fn open(object: Arc<dyn ObjectReader>) -> Result<Self> {
        let reader = object.as_ref();
        let located = |error: Error| error.at("archive", reader.name());
        let mut head = [0; 512];
        let head_len = reader.len().min(512) as usize;
        reader.read_at(0, &mut head[..head_len])?;
        if !frame::begins(&head) {
            reader.drop_cache();
            reader.read_at(0, &mut head[..head_len])?;
        }
        if !frame::begins(&head) {
            let mut tail = [0; 512];
            reader.read_at(reader.len() - head_len as u64, &mut tail[..head_len])?;
            return Err(located(detect::not_an_archive(&head[..head_len], &tail[..head_len])));
        }
        let footer = match twice(reader, || find_footer(reader)) {
            Ok(footer) => footer,
            Err(error) => {
                return Err(located(detect::explain_missing_footer(reader, error)));
            }
        };
        let open = || -> Result<(RootRecord, Vec<u64>, ImageDocument)> {
            let (root, extra) = twice(reader, || read_root(reader, &footer))?;
            let prologue = read_meta(reader, &root.manifest.meta, MetaRole::Prologue)?;
            let (image_json, _) =
                tar::parse_prologue(&prologue).map_err(|error| error.at("offset", 0))?;
            let document = read_document(image_json)?;
            check_content_root(&document, &footer, &root)?;
            Ok((root, extra, document))
        };
        let (root, extra_records, document) = open().map_err(located)?;
        check_volumes(&document, &root.manifest.volumes).map_err(located)?;
        Ok(Self(Arc::new(Opened { reader: object, footer, root, extra_records, document })))
    }
}

/// The footer of the archive in `object`, whose root is that of the root record in it. Reads
/// nothing else.
pub fn read_footer(object: &dyn ObjectReader) -> Result<Footer> {
    let read = || -> Result<Footer> {
        let footer = find_footer(object)?;
        read_root(object, &footer)?;
        Ok(footer)
    };
    twice(object, read).map_err(|error| error.at("archive", object.name()))
}

/// The metadata of an archive; a document that breaks the rules makes the archive corrupt.
pub(in super::super) fn read_document(image_json: &[u8]) -> Result<ImageDocument> {
    ImageDocument::parse(image_json.to_vec()).map_err(|error| match error.kind() {
        ErrorKind::Unsupported => error,
        _ => Error::corrupt("the metadata of the archive breaks the rules of the format")
            .because(error),
    })
}

/// Checks that the volumes are those that the metadata names, and have the sizes it says.
pub(in super::super) fn check_volumes(
    document: &ImageDocument,
    volumes: &[VolumeEntry],
) -> Result<()> {
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

/// Checks that the content root is that of metadata and volumes, before any reader prints it.
fn check_content_root(document: &ImageDocument, footer: &Footer, root: &RootRecord) -> Result<()> {
    let expected = content_root(&sha256::digest(document.bytes()), &root.manifest.volumes);
    if (footer.content_root, root.manifest.content_root) == (expected, expected) {
        return Ok(());
    }
    Err(Error::corrupt("the content root is not that of metadata and volumes")
        .at("offset", footer.root_offset))
}

fn find_footer(reader: &dyn ObjectReader) -> Result<Footer> {
    let len = reader.len();
    let tail_len = len.min(TAIL);
    let mut tail = vec![0; tail_len as usize];
    reader.read_at(len - tail_len, &mut tail)?;
    let missing = || {
        Error::corrupt("the archive has no footer at its end")
            .code_as(ErrorCode::FooterMissing)
            .at("missing", "footer")
            .at("offset", len)
    };
    let frames = seek_table_frames(&tail);
    if let Some(frames) = frames.filter(|frames| *frames > MAX_SEEK_FRAMES) {
        return Err(
            Error::corrupt("the seek table is longer than the format allows").at("frames", frames)
        );
    }
    let table_len = frames.map_or(0, seek_table_len);
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
    let mut critical = None;
    let mut at = start;
    while at < end {
        let mut prefix = [0; RECORD_PREFIX];
        if end - at < RECORD_PREFIX as u64 {
            return Err(Error::corrupt("something that is no record stands before the footer")
                .at("offset", at));
        }
        reader.read_at(at, &mut prefix)?;
        let record = extra_record(&prefix, end - at).map_err(|error| error.at("offset", at))?;
        critical = critical.or(record.check_version().err().map(|error| error.at("offset", at)));
        lengths.push(record.len);
        at += record.len;
    }
    // All of them stand where they may; now versions count.
    critical.map_or(Ok(lengths), Err)
}

/// The record of unknown kind with this prefix, before the footer or the end of `room` bytes.
fn extra_record(prefix: &[u8], room: u64) -> Result<Record> {
    let record = Record::parse_prefix(prefix, Position::BehindRoot)?;
    if record.kind == RecordKind::Footer {
        return Err(Error::corrupt("a footer stands before the footer"));
    }
    if record.len > room {
        return Err(Error::corrupt("a record runs past the place where it has to end"));
    }
    Ok(record)
}

/// Calls `read`, and once more, past all caches, if the first result is corrupt: a bit that flipped
/// on the network is not damage.
pub(in super::super) fn twice<T>(
    reader: &dyn ObjectReader,
    mut read: impl FnMut() -> Result<T>,
) -> Result<T> {
    match read() {
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            reader.drop_cache();
            read()
        }
        outcome => outcome,
    }
}

/// All frames of a role, inflated and concatenated.
pub(super) fn read_meta(
    reader: &dyn ObjectReader,
    meta: &[MetaFrame],
    role: MetaRole,
) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for frame in meta.iter().filter(|frame| frame.role == role) {
        bytes.extend_from_slice(
            &twice(reader, || read_frame(reader, frame))
                .map_err(|error| error.at("offset", frame.offset))?,
        );
    }
    Ok(bytes)
}

pub(super) fn read_frame(reader: &dyn ObjectReader, meta: &MetaFrame) -> Result<Vec<u8>> {
    let mut bytes = vec![0; meta.len as usize];
    reader.read_at(meta.offset, &mut bytes)?;
    if sha256::digest(&bytes) != meta.digest {
        return Err(Error::corrupt("a metadata frame does not match its digest"));
    }
    inflate_meta(&bytes, meta.raw_len)
}

/// Inflates a meta frame that should have `raw_len` bytes.
pub(in super::super) fn inflate_meta(bytes: &[u8], raw_len: u64) -> Result<Vec<u8>> {
    frame::check(bytes, raw_len)?;
    let mut raw = Vec::new();
    Decoder::new()?.decode(bytes, raw_len as usize, &mut raw)?;
    Ok(raw)
}
