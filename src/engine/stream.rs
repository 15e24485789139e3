//! Reads an archive front to back, from a pipe: restores all of it, or only checks it.
//!
//! What is read is kept in the same books as when an archive is packed; at the end the books are
//! compared with what root record, footer and seek table say. It stops at the first damage. Whoever
//! gets the blocks must not call them complete before [`read_stream`] has returned.

use std::io::{BufReader, Read};
use std::sync::Arc;

use super::archive::check::two_views;
use super::archive::detect;
use super::archive::open::{check_extra_record, check_volumes, inflate_meta, read_document};
use super::budget::SeekTableLease;
use super::cell::{CellOpener, StoredCell, check_frames, deliver, delivered};
use super::memory::IN_FLIGHT_FLOOR;
use super::{Budget, Context, Lease, run_ordered};
use crate::base::{
    CellAddress, Error, ErrorCode, ErrorKind, Event, Result, SnapshotId, VolumeSize,
};
use crate::codec::sha256;
use crate::format::frame::{self, EndFinder, FrameEnd, FrameHeader};
use crate::format::layout::{
    DATA_FRAME_RAW, GROUP_ENTRY, MAX_CELL_RECORD, MAX_EXTRA_RECORDS, MAX_FORMAT_TXT,
    MAX_GROUP_RECORD, MAX_IMAGE_JSON, MAX_MANIFEST, MAX_VOLUMES, META_FRAME_RAW, RECORD_PREFIX,
    ROOT_HEAD, max_frame_len,
};
use crate::format::{
    BlockMap, CellBits, CellFacts, CellRecord, FOOTER_LEN, Footer, IndexBuilder, MetaRole, Record,
    RecordKind, RootRecord, tar,
};
use crate::image::ImageDocument;
use crate::volume::BlockSink;

/// Who gets what a stream holds.
pub trait StreamSinks: Send {
    /// The metadata, which comes first.
    fn begin(&mut self, document: &ImageDocument) -> Result<()>;
    /// The next volume; without a sink it is only checked.
    fn volume(&mut self, id: &SnapshotId, size: VolumeSize) -> Result<Option<Arc<dyn BlockSink>>>;
}

/// Takes nothing: the stream is only checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSinks;

impl StreamSinks for NoSinks {
    fn begin(&mut self, _document: &ImageDocument) -> Result<()> {
        Ok(())
    }

    fn volume(
        &mut self,
        _id: &SnapshotId,
        _size: VolumeSize,
    ) -> Result<Option<Arc<dyn BlockSink>>> {
        Ok(None)
    }
}

/// Cells on their way to a worker.
struct Batch {
    job: Job,
    /// Bytes of their frames.
    bytes: usize,
}

impl Batch {
    fn add(&mut self, cell: Cell, lease: Lease) {
        self.bytes += cell.frame.len();
        self.job.cells.push(cell);
        self.job.lease.push(lease);
    }

    /// A batch ends when it has frames enough to be hashed side by side, or zeros enough to be a
    /// long job. With little memory every cell goes alone: a batch that waits for company holds its
    /// lease.
    fn is_full(&self, in_flight: u64) -> bool {
        self.bytes >= DATA_FRAME_RAW
            || self.job.cells.len() >= 16
            || in_flight < 8 * DATA_FRAME_RAW as u64
    }

    fn take(&mut self) -> Job {
        self.bytes = 0;
        let (cells, lease) =
            (std::mem::take(&mut self.job.cells), std::mem::take(&mut self.job.lease));
        Job {
            cells,
            size: self.job.size,
            name: self.job.name.clone(),
            sink: self.job.sink.clone(),
            lease,
        }
    }
}

/// Adds where it happened, unless that is known better.
fn at_offset(error: Error, offset: u64) -> Error {
    error.at_once("offset", offset)
}

/// What a stream held.
#[derive(Debug)]
pub struct StreamSummary {
    /// The metadata.
    pub document: ImageDocument,
    /// The root record.
    pub root: RootRecord,
    /// The footer.
    pub footer: Footer,
    /// Bytes read.
    pub archive_len: u64,
}

/// Cells that are hashed side by side, and what they lease.
struct Job {
    cells: Vec<Cell>,
    size: VolumeSize,
    name: SnapshotId,
    sink: Option<Arc<dyn BlockSink>>,
    lease: Vec<Lease>,
}

struct Cell {
    record: CellRecord,
    frame: Vec<u8>,
    offset: u64,
}

struct Done {
    /// What has to be confirmed, and to whom.
    sink: Option<Arc<dyn BlockSink>>,
    records: Vec<CellRecord>,
    bytes: u64,
    stored: u64,
    lease: Vec<Lease>,
}

/// Reads a whole archive from `input`, which has to end with it.
pub fn read_stream(
    input: impl Read + Send,
    sinks: &mut dyn StreamSinks,
    context: Context<'_>,
) -> Result<StreamSummary> {
    let budget = Budget::new(context.plan.in_flight);
    let mut summary = None;
    run_ordered(
        context.plan.threads,
        context.cancel,
        |emit| {
            let input =
                Input { inner: BufReader::with_capacity(256 << 10, input), head: None, offset: 0 };
            summary = Some(
                Feeder {
                    input,
                    index: IndexBuilder::new(),
                    budget: &budget,
                    seek_table_lease: SeekTableLease::default(),
                    context,
                    emit,
                }
                .run(sinks)?,
            );
            Ok(())
        },
        || {
            let mut opener = CellOpener::new()?;
            Ok(move |job: Job| work(&mut opener, job))
        },
        |done| {
            drop(done.lease);
            if let Some(sink) = &done.sink {
                done.records.iter().try_for_each(|record| sink.confirm(&delivered(record)))?;
            }
            context.observer.note(&Event::Advanced { bytes: done.bytes, stored: done.stored });
            Ok(())
        },
    )?;
    summary.ok_or_else(|| Error::internal("a stream was read and there is no summary"))
}

fn work(opener: &mut CellOpener, job: Job) -> Result<Done> {
    let offsets: Vec<u64> = job.cells.iter().map(|cell| cell.offset).collect();
    let cells: Vec<StoredCell<'_>> = job
        .cells
        .iter()
        .map(|cell| StoredCell { record: cell.record.clone(), frame: &cell.frame })
        .collect();
    let (mut bytes, mut stored) = (0, 0);
    for ((cell, checked), offset) in cells.iter().zip(check_frames(&cells)).zip(offsets) {
        let opened = checked.and_then(|()| {
            let raw = opener.open(cell, job.size)?;
            job.sink
                .as_ref()
                .map_or(Ok(()), |sink| deliver(raw, &cell.record, job.size, sink.as_ref()))
        });
        opened.map_err(|error| match error.kind() {
            ErrorKind::Corrupt => cell.locate(error, offset).at("snapshot", &job.name),
            _ => error.at("snapshot", &job.name),
        })?;
        bytes += u64::from(cell.record.raw_len);
        stored += cell.frame.len() as u64;
    }
    let records = cells.into_iter().map(|cell| cell.record).collect();
    Ok(Done { sink: job.sink, records, bytes, stored, lease: job.lease })
}

/// The stream, and how far it was read.
struct Input<R> {
    inner: BufReader<R>,
    /// The first bytes of the next frame, when they were looked at.
    head: Option<[u8; 4]>,
    offset: u64,
}

impl<R: Read> Input<R> {
    /// The magic number of the next frame.
    fn peek(&mut self) -> Result<[u8; 4]> {
        if let Some(head) = self.head {
            return Ok(head);
        }
        let mut head = [0; 4];
        self.inner.read_exact(&mut head).map_err(|cause| self.failed(cause))?;
        self.head = Some(head);
        Ok(head)
    }

    /// The first bytes of the stream: 4, which are read again, if they begin a zstd frame;
    /// otherwise enough to say what it is.
    fn first_bytes(&mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        (&mut self.inner).take(4).read_to_end(&mut bytes).map_err(|cause| self.failed(cause))?;
        if frame::begins(&bytes) {
            self.head = bytes.first_chunk().copied();
        } else {
            (&mut self.inner)
                .take(508)
                .read_to_end(&mut bytes)
                .map_err(|cause| self.failed(cause))?;
        }
        Ok(bytes)
    }

    /// Appends the next `len` bytes to `bytes`, without believing that there are so many.
    fn read(&mut self, len: usize, bytes: &mut Vec<u8>) -> Result<()> {
        let mut len = len as u64;
        if let Some(head) = self.head.take() {
            bytes.extend_from_slice(&head);
            self.offset += 4;
            len -= 4;
        }
        let read =
            (&mut self.inner).take(len).read_to_end(bytes).map_err(|cause| self.failed(cause))?;
        self.offset += read as u64;
        if (read as u64) < len {
            Err(self.failed(std::io::ErrorKind::UnexpectedEof.into()))
        } else {
            Ok(())
        }
    }

    fn at_end(&mut self) -> Result<bool> {
        let mut byte = [0];
        Ok(self.head.is_none()
            && self.inner.read(&mut byte).map_err(|cause| self.failed(cause))? == 0)
    }

    fn failed(&self, cause: std::io::Error) -> Error {
        match cause.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                Error::corrupt("the archive is truncated: the stream ends in the middle of it")
                    .code_as(ErrorCode::Truncated)
                    .at("offset", self.offset)
            }
            _ => Error::io("cannot read the archive", cause).at("offset", self.offset),
        }
    }
}

struct Feeder<'a, R> {
    input: Input<R>,
    index: IndexBuilder,
    budget: &'a Budget,
    seek_table_lease: SeekTableLease,
    context: Context<'a>,
    emit: &'a mut dyn FnMut(Job) -> Result<()>,
}

impl<R: Read> Feeder<'_, R> {
    fn run(mut self, sinks: &mut dyn StreamSinks) -> Result<StreamSummary> {
        let document = self.prologue()?;
        sinks.begin(&document)?;
        while let Some(raw) = self.header_or_trailer()? {
            self.volume(raw, &document, sinks)?;
        }
        self.tail(document)
    }

    fn prologue(&mut self) -> Result<ImageDocument> {
        let head = self.input.first_bytes()?;
        if !frame::begins(&head) {
            return Err(detect::not_an_archive(&head));
        }
        let mut bytes = Vec::new();
        loop {
            let first = bytes.is_empty();
            let raw = self
                .meta_frame(MetaRole::Prologue)
                .map_err(|error| if first { detect::explain_first_frame(error) } else { error })?;
            if first && !raw.starts_with(b"image.json\0") {
                return Err(detect::other_zstd_data());
            }
            let whole = raw.len() == META_FRAME_RAW;
            bytes.extend_from_slice(&raw);
            match tar::prologue_len(&bytes)? {
                Some(len) if len == bytes.len() => break,
                Some(len) if len > bytes.len() && whole => {}
                None if whole && bytes.len() as u64 <= MAX_IMAGE_JSON + MAX_FORMAT_TXT + 4096 => {}
                _ => {
                    return Err(Error::corrupt(
                        "the metadata of the archive is cut into frames in a wrong way",
                    ));
                }
            }
        }
        let (image_json, _) = tar::parse_prologue(&bytes)?;
        read_document(image_json)
    }

    /// The first frame of the next volume's header; `None` at the end of the tar.
    fn header_or_trailer(&mut self) -> Result<Option<Vec<u8>>> {
        let offset = self.input.offset;
        if !frame::begins(&self.input.peek()?) {
            return Err(Error::corrupt("a tar header should stand here").at("offset", offset));
        }
        let (raw, digest) = self.read_meta_frame()?;
        let role = if raw == tar::trailer() {
            MetaRole::End
        } else {
            MetaRole::Volume(self.index.volume_index())
        };
        self.index.meta_frame(role, self.input.offset - offset, raw.len() as u64, digest);
        Ok((role != MetaRole::End).then_some(raw))
    }

    fn volume(
        &mut self,
        mut raw: Vec<u8>,
        document: &ImageDocument,
        sinks: &mut dyn StreamSinks,
    ) -> Result<()> {
        let offset = self.input.offset;
        let located = |error: Error| error.at("offset", offset);
        let volume = self.index.volume_index();
        if usize::from(volume) >= MAX_VOLUMES {
            return Err(located(Error::corrupt(
                "the archive has more volumes than the format allows",
            )));
        }
        let mut header = tar::VolumeHeaderReader::new();
        let mut digests = Vec::new();
        loop {
            header.read(&raw).map_err(located)?;
            digests.push(sha256::digest(&raw));
            if header.is_complete() {
                break;
            }
            if raw.len() != META_FRAME_RAW {
                return Err(located(Error::corrupt(
                    "a tar header is cut into frames in a wrong way",
                )));
            }
            raw = self.meta_frame(MetaRole::Volume(volume))?;
        }
        let (name, map) = header.finish().map_err(located)?;
        // What was read is a header; whether it is *the* header of this map shows when it is made
        // again.
        if !tar::volume_header(&name, &map).map(|piece| sha256::digest(&piece)).eq(digests) {
            return Err(located(two_views()).at("snapshot", &name));
        }
        let known = document.snapshots().get(usize::from(volume));
        if known.is_none_or(|snapshot| snapshot.id != name) {
            return Err(located(Error::corrupt(
                "a volume is not the one that image.json names here",
            ))
            .at("snapshot", &name));
        }
        let _map_lease = self.budget.reserve(map.memory(), IN_FLIGHT_FLOOR, self.context.cancel)?;
        self.seek_table_lease.grow(
            map.cells().count() as u64,
            self.budget,
            IN_FLIGHT_FLOOR,
            self.context.cancel,
        )?;
        let sink = sinks.volume(&name, map.size())?;
        self.context.observer.note(&Event::Grew { bytes: map.stored_bytes() });
        self.index.open_volume(name.clone(), map.size());
        self.cells(volume, &name, &map, sink).map_err(|error| {
            if error.kind() == ErrorKind::Corrupt { error.at("snapshot", &name) } else { error }
        })?;
        self.index.close_volume()?;
        Ok(())
    }

    /// Reads the windows of a volume: cells go to the workers, indexes are compared with the books.
    fn cells(
        &mut self,
        volume: u16,
        name: &SnapshotId,
        map: &BlockMap,
        sink: Option<Arc<dyn BlockSink>>,
    ) -> Result<()> {
        let mut batch = Batch {
            job: Job {
                cells: Vec::new(),
                size: map.size(),
                name: name.clone(),
                sink,
                lease: Vec::new(),
            },
            bytes: 0,
        };
        let read = self.read_cells(volume, map, &mut batch);
        // Also after an error: what was read before it is looked at first, whatever the size of a
        // batch.
        if !batch.job.cells.is_empty() {
            (self.emit)(batch.take())?;
        }
        read
    }

    fn read_cells(&mut self, volume: u16, map: &BlockMap, batch: &mut Batch) -> Result<()> {
        let mut expected = map.cells();
        while Record::begins(&self.input.peek()?) {
            let offset = self.input.offset;
            let (kind, bytes) = self.cell_or_index().map_err(|error| at_offset(error, offset))?;
            if kind == RecordKind::Group {
                self.group_index(&bytes).map_err(|error| at_offset(error, offset))?;
                continue;
            }
            let record = CellRecord::parse(&bytes).map_err(|error| at_offset(error, offset))?;
            let blocks = record.address.blocks();
            self.expect_cell(&record, &bytes, volume, map.size(), expected.next())
                .map_err(|error| at_offset(error, offset).at("blocks", blocks))?;
            let lease = self
                .budget
                .lease(u64::from(record.frame_len) + bytes.len() as u64, self.context.cancel)?;
            let mut frame = Vec::with_capacity(record.frame_len as usize);
            self.input.read(record.frame_len as usize, &mut frame)?;
            batch.add(Cell { record, frame, offset }, lease);
            if batch.is_full(self.context.plan.in_flight) {
                (self.emit)(batch.take())?;
            }
        }
        match expected.next() {
            None => Ok(()),
            Some((address, _)) => {
                Err(two_views().at("blocks", address.blocks()).at("offset", self.input.offset))
            }
        }
    }

    /// Reads the next record, which within a volume is C or S.
    fn cell_or_index(&mut self) -> Result<(RecordKind, Vec<u8>)> {
        let mut bytes = Vec::with_capacity(MAX_CELL_RECORD);
        self.input.read(RECORD_PREFIX, &mut bytes)?;
        let prefix = Record::parse_prefix(&bytes)?;
        let limit = match prefix.kind {
            RecordKind::Cell => MAX_CELL_RECORD,
            RecordKind::Group => MAX_GROUP_RECORD,
            _ => return Err(Error::corrupt("a record stands where it must not")),
        };
        if prefix.len > limit as u64 {
            return Err(Error::corrupt("a record is longer than the format allows")
                .at("length", prefix.len));
        }
        self.input.read(prefix.len as usize - RECORD_PREFIX, &mut bytes)?;
        Ok((prefix.kind, bytes))
    }

    /// The S record has to be the one that the cells before it lead to.
    fn group_index(&mut self, bytes: &[u8]) -> Result<()> {
        if self.index.close_group()? == bytes {
            Ok(())
        } else {
            Err(Error::corrupt("the index of a window does not say what its cells say"))
        }
    }

    /// The C record has to be the one that the tar header announced, and goes into the books.
    fn expect_cell(
        &mut self,
        record: &CellRecord,
        bytes: &[u8],
        volume: u16,
        size: VolumeSize,
        expected: Option<(CellAddress, CellBits)>,
    ) -> Result<()> {
        record.check_within(size)?;
        let announced = expected.is_some_and(|(address, bits)| {
            (address, bits.present) == (record.address, record.present)
        });
        if !announced || record.volume != volume {
            return Err(two_views());
        }
        self.index.cell(&CellFacts::new(record, bytes))
    }

    fn tail(mut self, document: ImageDocument) -> Result<StreamSummary> {
        let root_offset = self.input.offset;
        let (prefix, bytes) = self.record()?;
        let limit = (ROOT_HEAD + GROUP_ENTRY * self.index.groups()) as u64 + MAX_MANIFEST;
        if prefix.kind != RecordKind::Root || prefix.len > limit {
            return Err(
                Error::corrupt("the root record should stand here").at("offset", root_offset)
            );
        }
        let mut root_bytes = bytes;
        self.input.read(prefix.len as usize - RECORD_PREFIX, &mut root_bytes)?;
        let footer = self.extra_records_and_footer(root_offset, prefix.len)?;
        if sha256::digest(&root_bytes) != footer.root {
            return Err(Error::corrupt("the root record does not match the footer")
                .at("offset", root_offset));
        }
        let root = RootRecord::parse(&root_bytes, root_offset)
            .map_err(|error| error.at("offset", root_offset))?;
        let manifest = &root.manifest;
        let expected = self.index.root(
            &sha256::digest(document.bytes()),
            manifest.codec.clone(),
            &manifest.writer,
        );
        if root != expected || footer.content_root != manifest.content_root {
            return Err(Error::corrupt("the root record does not say what the archive holds")
                .at("offset", root_offset));
        }
        check_volumes(&document, &manifest.volumes)?;
        self.seek_table()?;
        Ok(StreamSummary { document, root, footer, archive_len: self.input.offset })
    }

    fn extra_records_and_footer(&mut self, root_offset: u64, root_len: u64) -> Result<Footer> {
        self.index.record(root_len);
        let start = self.input.offset;
        loop {
            let offset = self.input.offset;
            let located = |error: Error| error.at("offset", offset);
            let (prefix, mut bytes) = self.record()?;
            if prefix.kind == RecordKind::Footer {
                if prefix.len != FOOTER_LEN as u64 {
                    return Err(located(Error::corrupt(
                        "the footer has not the length of a footer",
                    )));
                }
                self.input.read(FOOTER_LEN - RECORD_PREFIX, &mut bytes)?;
                let footer = Footer::parse(&bytes, offset).map_err(located)?;
                if (footer.root_offset, footer.root_len) != (root_offset, root_len) {
                    return Err(located(Error::corrupt(
                        "the footer does not lead to the root record",
                    )));
                }
                self.index.record(FOOTER_LEN as u64);
                return Ok(footer);
            }
            check_extra_record(&prefix, MAX_EXTRA_RECORDS.saturating_sub(offset - start))
                .map_err(located)?;
            self.input.read(prefix.len as usize - RECORD_PREFIX, &mut bytes)?;
            self.index.record(prefix.len);
        }
    }

    fn seek_table(&mut self) -> Result<()> {
        let mut found = Vec::new();
        for expected in self.index.seek_table() {
            let offset = self.input.offset;
            found.clear();
            self.input.read(expected.len(), &mut found)?;
            if found != expected {
                return Err(Error::corrupt("the seek table is not that of the archive's frames")
                    .at("offset", offset));
            }
        }
        let offset = self.input.offset;
        if self.input.at_end()? {
            Ok(())
        } else {
            Err(Error::corrupt("something follows the end of the archive").at("offset", offset))
        }
    }

    /// The prefix of the next record, and its bytes.
    fn record(&mut self) -> Result<(Record, Vec<u8>)> {
        let offset = self.input.offset;
        let mut bytes = Vec::new();
        self.input.read(RECORD_PREFIX, &mut bytes)?;
        let record = Record::parse_prefix(&bytes).map_err(|error| error.at("offset", offset))?;
        Ok((record, bytes))
    }

    fn meta_frame(&mut self, role: MetaRole) -> Result<Vec<u8>> {
        let offset = self.input.offset;
        let (raw, digest) = self.read_meta_frame()?;
        self.index.meta_frame(role, self.input.offset - offset, raw.len() as u64, digest);
        Ok(raw)
    }

    /// Reads a meta frame, whose length nothing tells but its own blocks, and inflates it.
    fn read_meta_frame(&mut self) -> Result<(Vec<u8>, [u8; 32])> {
        let offset = self.input.offset;
        let located = |error: Error| error.at_once("offset", offset);
        let mut bytes = Vec::new();
        let mut finder = EndFinder::default();
        loop {
            match finder.find(&bytes).map_err(located)? {
                FrameEnd::At(end) if end == bytes.len() => break,
                FrameEnd::Beyond(end) if end as u64 <= max_frame_len(META_FRAME_RAW as u64) => {
                    self.input.read(end - bytes.len(), &mut bytes)?;
                }
                _ => return Err(located(detect::impossible_meta_frame())),
            }
        }
        let header = FrameHeader::parse(&bytes).map_err(located)?;
        let raw_len = header.map_or(0, |header| header.content_size);
        if raw_len == 0
            || raw_len > META_FRAME_RAW as u64
            || bytes.len() as u64 > max_frame_len(raw_len)
        {
            return Err(located(detect::impossible_meta_frame()));
        }
        let digest = sha256::digest(&bytes);
        Ok((inflate_meta(&bytes, raw_len).map_err(located)?, digest))
    }
}
