//! The feeder of a stream reader: reads the archive front to back, checks its structure, and hands
//! cells to the workers.

use std::io::Read;
use std::sync::Arc;

use super::super::archive::check::two_views;
use super::super::archive::detect;
use super::super::archive::open::{check_volumes, inflate_meta, read_document};
use super::super::cell::Depth;
use super::super::cell_reader::longest_run;
use super::super::pipeline::Feed;
use super::super::seek_table_lease::SeekTableLease;
use super::super::{Context, Lease};
use super::input::StreamInput;
use super::sinks::StreamSinks;
use super::worker::{StreamCell, StreamJob, StreamPiece};
use crate::base::{CellAddress, Error, ErrorKind, Result, SnapshotId, VolumeSize};
use crate::codec::sha256;
use crate::format::frame::{self, EndFinder, FrameEnd, FrameHeader};
use crate::format::layout::{
    DATA_FRAME_RAW, GROUP_ENTRY, MAX_CELL_RECORD, MAX_EXTRA_RECORDS, MAX_FORMAT_TXT,
    MAX_GROUP_RECORD, MAX_IMAGE_JSON, MAX_MANIFEST, MAX_SEEK_FRAMES, MAX_VOLUMES, META_FRAME_RAW,
    RECORD_PREFIX, ROOT_HEAD,
};
use crate::format::{
    BlockMap, CellBits, CellFacts, CellRecord, FOOTER_LEN, Footer, IndexBuilder, MetaRole,
    Position, Record, RecordKind, RootRecord, SEEK_TABLE_TAIL, seek_table_frames, seek_table_len,
    tar,
};
use crate::image::ImageDocument;
use crate::volume::BlockSink;

/// The content of a stream that was read to its end.
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

/// Cells on their way to a worker.
struct Batch {
    job: StreamJob,
    lease: Lease,
    /// Bytes of their frames.
    bytes: usize,
}

impl Batch {
    fn add(&mut self, cell: StreamCell, lease: Lease) {
        self.bytes += cell.frame.len();
        self.job.cells.push(cell);
        self.lease.merge(lease);
    }

    /// A batch ends when it has frames enough to be hashed together, or zeros enough to be a long
    /// job. With little memory every cell is a batch, because a batch that grows holds its lease.
    fn is_full(&self, in_flight: u64, longest: u64) -> bool {
        self.bytes as u64 >= longest
            || self.job.cells.len() >= 16
            || in_flight < 8 * DATA_FRAME_RAW as u64
    }

    fn take(&mut self) -> (StreamJob, Lease) {
        self.bytes = 0;
        let cells = std::mem::take(&mut self.job.cells);
        let StreamJob { size, name, sink, .. } = &self.job;
        let job = StreamJob { cells, size: *size, name: name.clone(), sink: sink.clone() };
        (job, std::mem::take(&mut self.lease))
    }
}

/// Adds the offset, unless a better one is known.
fn at_offset(error: Error, offset: u64) -> Error {
    error.at_once("offset", offset)
}

pub(super) struct StreamFeeder<'a, 'f, R> {
    input: StreamInput<R>,
    index: IndexBuilder,
    seek_table_lease: SeekTableLease,
    feed: &'a mut Feed<'f, StreamJob, StreamPiece>,
    context: Context<'a>,
    /// The bytes of frames that end a batch.
    longest: u64,
}

impl<'a, 'f, R: Read> StreamFeeder<'a, 'f, R> {
    pub(super) fn new(
        input: R,
        feed: &'a mut Feed<'f, StreamJob, StreamPiece>,
        depth: Depth,
        context: Context<'a>,
    ) -> Self {
        Self {
            input: StreamInput::new(input),
            index: IndexBuilder::new(),
            seek_table_lease: SeekTableLease::default(),
            feed,
            context,
            longest: longest_run(depth, context.plan.in_flight),
        }
    }

    pub(super) fn run(mut self, sinks: &mut dyn StreamSinks) -> Result<StreamSummary> {
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
            return Err(detect::not_an_archive(&head, &[]));
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
        // The bytes are a header of this map. They are the one that a writer makes if making it
        // again gives the same bytes.
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
        let _map_lease = self.feed.reserve(map.memory())?;
        self.seek_table_lease.grow(map.cells().count() as u64, self.feed)?;
        let sink = sinks.volume(&name, map.size())?;
        self.index.open_volume(name.clone(), map.size());
        self.cells(volume, &name, &map, sink).map_err(|error| {
            if error.kind() == ErrorKind::Corrupt { error.at("snapshot", &name) } else { error }
        })?;
        self.index.close_volume()?;
        Ok(())
    }

    /// Reads the windows of a volume: cells go to the workers, indexes are compared with those that
    /// the cells lead to.
    fn cells(
        &mut self,
        volume: u16,
        name: &SnapshotId,
        map: &BlockMap,
        sink: Option<Arc<dyn BlockSink>>,
    ) -> Result<()> {
        let job = StreamJob { cells: Vec::new(), size: map.size(), name: name.clone(), sink };
        let mut batch = Batch { job, lease: Lease::none(), bytes: 0 };
        let read = self.read_cells(volume, map, &mut batch);
        // Also after an error: cells before it are checked first, whatever the size of a batch.
        if !batch.job.cells.is_empty() {
            self.send(&mut batch)?;
        }
        read
    }

    fn send(&mut self, batch: &mut Batch) -> Result<()> {
        let (job, lease) = batch.take();
        self.feed.work(job, lease)
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
            let lease = self.feed.lease(u64::from(record.frame_len) + bytes.len() as u64)?;
            let mut frame = Vec::with_capacity(record.frame_len as usize);
            self.input.read(record.frame_len as usize, &mut frame)?;
            batch.add(StreamCell { record, frame, offset }, lease);
            if batch.is_full(self.context.plan.in_flight, self.longest) {
                self.send(batch)?;
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
        let prefix = Record::parse_prefix(&bytes, Position::Volume)?;
        prefix.check_version()?;
        let limit =
            if prefix.kind == RecordKind::Cell { MAX_CELL_RECORD } else { MAX_GROUP_RECORD };
        if prefix.len > limit as u64 {
            return Err(Error::corrupt("a record is longer than the format allows")
                .at("length", prefix.len));
        }
        self.input.read(prefix.len as usize - RECORD_PREFIX, &mut bytes)?;
        Ok((prefix.kind, bytes))
    }

    /// Refuses an S record that is not the one of the cells before it.
    fn group_index(&mut self, bytes: &[u8]) -> Result<()> {
        if self.index.close_group()? == bytes {
            Ok(())
        } else {
            Err(Error::corrupt("the index of a window does not say what its cells say"))
        }
    }

    /// Adds a C record to the index, if it is the one that the tar header announced.
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
        let located = |error: Error| error.at_once("offset", root_offset);
        let root_bytes = self.root_record().map_err(located)?;
        let (footer, critical) =
            self.extra_records_and_footer(root_offset, root_bytes.len() as u64)?;
        if sha256::digest(&root_bytes) != footer.root {
            return Err(located(Error::corrupt("the root record does not match the footer")));
        }
        let root = RootRecord::parse(&root_bytes, root_offset).map_err(located)?;
        critical.map_or(Ok(()), Err)?;
        let manifest = &root.manifest;
        let expected = self.index.root(
            &sha256::digest(document.bytes()),
            manifest.codec.clone(),
            &manifest.writer,
        );
        if root != expected || footer.content_root != manifest.content_root {
            return Err(located(Error::corrupt(
                "the root record does not say what the archive holds",
            )));
        }
        check_volumes(&document, &manifest.volumes)?;
        self.seek_table()?;
        Ok(StreamSummary { document, root, footer, archive_len: self.input.offset })
    }

    /// Reads the R record. Everything but its place is judged only when F has confirmed its digest.
    fn root_record(&mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.input.read(RECORD_PREFIX, &mut bytes)?;
        let prefix = Record::parse_prefix(&bytes, Position::Root)?;
        let limit = (ROOT_HEAD + GROUP_ENTRY * self.index.groups()) as u64 + MAX_MANIFEST;
        if prefix.len > limit {
            return Err(Error::corrupt("the root record is longer than the format allows")
                .at("length", prefix.len));
        }
        self.input.read(prefix.len as usize - RECORD_PREFIX, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads what stands behind R up to the end of F. Returns F, and the error of a critical record
    /// before it: a record that runs over F would hide F, so the place of all comes first.
    fn extra_records_and_footer(
        &mut self,
        root_offset: u64,
        root_len: u64,
    ) -> Result<(Footer, Option<Error>)> {
        self.index.record(root_len);
        let start = self.input.offset;
        let mut critical = None;
        loop {
            let offset = self.input.offset;
            let located = |error: Error| error.at_once("offset", offset);
            let mut bytes = Vec::new();
            self.input.read(RECORD_PREFIX, &mut bytes)?;
            let prefix = Record::parse_prefix(&bytes, Position::BehindRoot).map_err(located)?;
            if prefix.kind == RecordKind::Footer {
                let footer = self.footer(&prefix, bytes, offset).map_err(located)?;
                if (footer.root_offset, footer.root_len) != (root_offset, root_len) {
                    return Err(located(Error::corrupt(
                        "the footer does not lead to the root record",
                    )));
                }
                self.index.record(FOOTER_LEN as u64);
                return Ok((footer, critical));
            }
            if offset - start + prefix.len > MAX_EXTRA_RECORDS {
                return Err(located(Error::corrupt(
                    "more stands between root record and footer than the format allows",
                )));
            }
            critical = critical.or(prefix.check_version().err().map(located));
            self.input.read(prefix.len as usize - RECORD_PREFIX, &mut bytes)?;
            self.index.record(prefix.len);
        }
    }

    /// Reads the rest of a footer. One of another version is the footer only if nothing but a seek
    /// table follows; otherwise it stands where it must not.
    fn footer(&mut self, prefix: &Record, mut bytes: Vec<u8>, offset: u64) -> Result<Footer> {
        if prefix.len != FOOTER_LEN as u64 {
            return Err(Error::corrupt("the footer has not the length of a footer"));
        }
        self.input.read(FOOTER_LEN - RECORD_PREFIX, &mut bytes)?;
        let footer = Footer::parse(&bytes, offset);
        let is_newer = footer.as_ref().is_err_and(|error| error.kind() == ErrorKind::Unsupported);
        if is_newer && !self.ends_with_seek_table()? {
            return Err(Error::corrupt("a footer stands before the end of the archive"));
        }
        footer
    }

    /// Whether nothing or a seek table is left, by its last bytes, as a reader by ranges finds it.
    fn ends_with_seek_table(&mut self) -> Result<bool> {
        let (mut len, mut bytes) = (0, Vec::new());
        loop {
            let read = self.input.read_some(META_FRAME_RAW, &mut bytes)?;
            len += read as u64;
            bytes.drain(..bytes.len().saturating_sub(SEEK_TABLE_TAIL));
            if read == 0 || len > seek_table_len(MAX_SEEK_FRAMES) {
                let table = seek_table_frames(&bytes).map_or(0, seek_table_len);
                return Ok(len == table);
            }
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

    fn meta_frame(&mut self, role: MetaRole) -> Result<Vec<u8>> {
        let offset = self.input.offset;
        let (raw, digest) = self.read_meta_frame()?;
        self.index.meta_frame(role, self.input.offset - offset, raw.len() as u64, digest);
        Ok(raw)
    }

    /// Reads a meta frame, whose length follows from its own blocks alone, and inflates it.
    fn read_meta_frame(&mut self) -> Result<(Vec<u8>, [u8; 32])> {
        let offset = self.input.offset;
        let located = |error: Error| error.at_once("offset", offset);
        let mut bytes = Vec::new();
        let mut finder = EndFinder::new(META_FRAME_RAW as u64);
        while let FrameEnd::Beyond(end) = finder.find(&bytes).map_err(located)? {
            self.input.read(end - bytes.len(), &mut bytes)?;
        }
        let header = FrameHeader::parse(&bytes, META_FRAME_RAW as u64).map_err(located)?;
        let raw_len = header.map_or(0, |header| header.content_size);
        let digest = sha256::digest(&bytes);
        Ok((inflate_meta(&bytes, raw_len).map_err(located)?, digest))
    }
}
