//! The walk over a damaged archive: from piece to piece, and over damage to the next piece.

use super::examine::{CellPosition, Examiner};
use super::lookahead::{Limit, Lookahead};
use super::pieces::{
    Piece, content_size, follows, frame_len, is_no_copy, next_candidate, recognise,
};
use super::run::Run;
use super::tail::Tail;
use super::volumes::Volumes;
use super::{Damage, Salvage, SalvageInput, SalvageSinks};
use crate::base::{Bitmap8, Error, ErrorKind, Result, SnapshotId};
use crate::codec::sha256;
use crate::engine::Context;
use crate::engine::archive::detect;
use crate::engine::archive::open::{inflate_meta, read_document};
use crate::format::layout::{
    CELL_ENTRY, CELL_HEAD, DATA_FRAME_RAW, GROUP_HEAD, MAX_CELL, MAX_FORMAT_TXT, MAX_IMAGE_JSON,
    META_FRAME_RAW,
};
use crate::format::{BlockMap, CellRecord, Digest, FOOTER_LEN, GroupIndex, tar};
use crate::image::ImageDocument;

/// Bytes that are looked at together: a cell, and the head of the piece behind it.
const LOOK: usize = MAX_CELL + 1024;
/// Bytes that show that pieces are no copy of an archive within a volume.
const LONG_LOOK: usize = MAX_CELL + (256 << 10);
/// Damaged positions that are listed.
const MOST_DAMAGE: usize = 1000;
/// Memory of the walk beside bitmaps: the lookahead, a cell, notes of cells. The buffers that a
/// plan has for its threads are not used.
const WALK_MEMORY: u64 = 8 << 20;

pub(super) struct Walk<'a> {
    ahead: Lookahead<'a>,
    examiner: Examiner,
    volumes: Volumes<'a>,
    tail: Tail,
    run: Run,
    /// Whether a piece begins at the start of the lookahead.
    is_synced: bool,
    /// Whether any piece was found.
    found_any: bool,
    document: Option<ImageDocument>,
    /// The prologue, as far as it was read.
    prologue: Option<Vec<u8>>,
    /// A tar header, as far as it was read.
    header: Option<(tar::VolumeHeaderReader, Vec<Digest>)>,
    /// The volume whose header was read last.
    volume: Option<u16>,
    damage: Vec<Damage>,
    damage_count: u64,
    causes: Vec<String>,
    context: Context<'a>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        input: &'a mut dyn SalvageInput,
        sinks: &'a mut dyn SalvageSinks,
        context: Context<'a>,
    ) -> Result<Self> {
        let room = context.plan.in_flight.saturating_sub(WALK_MEMORY);
        Ok(Self {
            ahead: Lookahead::new(input),
            examiner: Examiner::new()?,
            volumes: Volumes::new(sinks, room),
            tail: Tail::new(context.plan.in_flight / 2),
            run: Run::begin(0, true),
            is_synced: true,
            found_any: false,
            document: None,
            prologue: Some(Vec::new()),
            header: None,
            volume: None,
            damage: Vec::new(),
            damage_count: 0,
            causes: Vec::new(),
            context,
        })
    }

    pub(super) fn run(mut self) -> Result<Salvage> {
        let head = self.ahead.bytes(512)?;
        let head = head[..head.len().min(512)].to_vec();
        while !self.tail.is_complete() {
            self.context.cancel.check()?;
            if self.ahead.bytes(LOOK)?.is_empty() {
                match self.ahead.limit().clone() {
                    Limit::Unreadable(_, error) => self.unreadable(&error),
                    Limit::End | Limit::None => break,
                }
                continue;
            }
            if !self.is_synced {
                self.scan()?;
                continue;
            }
            match self.piece()? {
                Some(len) => self.step(len),
                None => self.broken()?,
            }
        }
        if !self.found_any {
            return Err(if crate::format::frame::begins(&head) {
                Error::corrupt("no part of an archive was found")
            } else {
                detect::not_an_archive(&head, &[])
            });
        }
        if !self.tail.is_complete() {
            let offset = self.ahead.offset();
            self.note_damage(offset, "the archive ends before its footer".to_owned());
        }
        if self.tail.is_complete() && !self.tail.check_seek_table(&mut self.ahead)? {
            let offset = self.ahead.offset();
            self.note_damage(
                offset,
                "the seek table is damaged, or something follows it".to_owned(),
            );
        }
        let root = self.tail.take(self.document.as_ref());
        let root = root.filter(|(root, _)| self.volumes.agree_with(root));
        for offset in root.iter().flat_map(|(root, _)| self.volumes.lost_indexes(root)) {
            self.damage_count += 1;
            if self.damage.len() < MOST_DAMAGE {
                let cause = "the index of a group is lost or damaged".to_owned();
                self.damage.push(Damage { offset, cause });
            }
        }
        self.damage.sort_by_key(|damage| damage.offset);
        if root.is_none() && self.tail.is_complete() {
            let offset = self.ahead.offset();
            let cause = "the root record is damaged, or is that of another archive".to_owned();
            self.note_damage(offset, cause);
        }
        let volumes = self.volumes.finish(root.as_ref().map(|(root, _)| root), &self.causes)?;
        Ok(Salvage {
            document: self.document,
            root,
            archive_len: self.ahead.offset(),
            volumes,
            damage: self.damage,
            damage_count: self.damage_count,
        })
    }

    /// Consumes a piece.
    fn step(&mut self, len: usize) {
        self.found_any = true;
        self.ahead.advance(len);
        for (volume, address) in self.run.reach(self.ahead.offset()) {
            self.volumes.confirm(volume, address);
        }
    }

    /// Whether the bytes in memory end with the archive.
    fn ends(&self) -> bool {
        matches!(self.ahead.limit(), Limit::End)
    }

    /// Handles the piece at the start of the lookahead. Returns its length; `None` if it is
    /// damaged.
    fn piece(&mut self) -> Result<Option<usize>> {
        let piece = recognise(self.ahead.known());
        if !matches!(piece, Some(Piece::Frame)) && (self.header.is_some() || self.in_prologue()) {
            (self.header, self.prologue) = (None, None);
            let offset = self.ahead.offset();
            self.note_damage(offset, "a tar header is cut short".to_owned());
        }
        match piece {
            Some(Piece::Cell { record, len }) => self.cell(&record, len),
            Some(Piece::Group { len }) => self.group(len),
            Some(Piece::Frame) => self.meta_frame(),
            Some(Piece::Root { len }) => {
                self.volume = None;
                self.tail.frame(len, 0);
                self.tail.root(&mut self.ahead, len)
            }
            Some(Piece::Footer) => {
                let whole = self.ahead.bytes(FOOTER_LEN)?;
                let Some(bytes) = whole.get(..FOOTER_LEN) else { return Ok(None) };
                let is_good = self.tail.footer(bytes, self.run.is_sure(), self.document.as_ref());
                self.tail.frame(FOOTER_LEN, 0);
                Ok(is_good.then_some(FOOTER_LEN))
            }
            Some(Piece::Other { len }) if self.tail.has_root() => {
                self.tail.frame(len, 0);
                Ok((self.ahead.bytes(len)?.len() >= len).then_some(len))
            }
            Some(Piece::SeekTable { .. } | Piece::Other { .. }) | None => Ok(None),
        }
    }

    fn in_prologue(&self) -> bool {
        self.prologue.as_ref().is_some_and(|bytes| !bytes.is_empty())
    }

    /// A cell whose record is a good one.
    fn cell(&mut self, record: &CellRecord, len: usize) -> Result<Option<usize>> {
        let end = len + record.frame_len as usize;
        let bytes = self.ahead.known();
        let is_cut = bytes.len() < end;
        if is_cut && matches!(self.ahead.limit(), Limit::None) {
            return Err(Error::internal("fewer bytes were read ahead than a cell has"));
        }
        let stored = &bytes[len..end.min(bytes.len())];
        let is_whole = !is_cut && sha256::digest(stored) == record.frame_digest;
        // A damaged frame has its length if a piece follows it.
        if !is_cut && !is_whole && !follows(bytes, end, self.ends()) {
            return Ok(None);
        }
        let Some(position) = self.volumes.position(record.volume, record.address, record.present)
        else {
            return Ok(None);
        };
        if record.check_within(position.size).is_err()
            || self.volumes.is_passed(position.volume, position.address)
            || (!is_cut && self.is_misplaced(&position, end))
        {
            return Ok(None);
        }
        self.take_cell(&position, len, end, Some(record))?;
        self.tail.cell(record.present, record.zero, record.frame_len, record.raw_len);
        if is_cut {
            // All other bytes are those of the frame.
            let rest = self.ahead.known().len();
            return Ok(Some(rest));
        }
        if !is_whole {
            let offset = self.ahead.offset();
            self.note_damage(offset, "the data of a cell is damaged".to_owned());
        }
        Ok(Some(end))
    }

    /// Whether the address of a cell is the damaged part of its record: the piece behind it says
    /// that the cell is the one that its neighbours lead to.
    fn is_misplaced(&self, position: &CellPosition, end: usize) -> bool {
        let Some(next) = self.expected() else { return false };
        (next.volume, next.address) != (position.volume, position.address)
            && self.is_confirmed(&next, end)
    }

    /// The cell that follows the last one of a run whose position is known.
    fn expected(&self) -> Option<CellPosition> {
        let (volume, last) = self.run.position()?;
        self.volumes.next(volume, last)
    }

    /// Whether the piece at `at` is the one that follows the cell `position`.
    fn is_confirmed(&self, position: &CellPosition, at: usize) -> bool {
        let Some(rest) = self.ahead.known().get(at..) else { return false };
        let following = self.volumes.next(position.volume, Some(position.address));
        let ends_group = following.is_none_or(|next| next.address.group != position.address.group);
        match recognise(rest) {
            Some(Piece::Cell { record, .. }) => following.is_some_and(|next| {
                !ends_group && (next.volume, next.address) == (record.volume, record.address)
            }),
            Some(Piece::Group { .. }) => {
                let field = |at: usize| rest.get(at..at + 4).and_then(|four| four.first_chunk());
                let is_volume = rest.get(16..18) == Some(&position.volume.to_le_bytes());
                ends_group && is_volume && field(20) == Some(&position.address.group.to_le_bytes())
            }
            _ => false,
        }
    }

    /// Keeps the blocks of the cell at the start of the lookahead: its record has `len` bytes, and
    /// its frame ends at `end` or with the bytes read ahead.
    fn take_cell(
        &mut self,
        position: &CellPosition,
        len: usize,
        end: usize,
        parsed: Option<&CellRecord>,
    ) -> Result<()> {
        let bytes = self.ahead.known();
        let (record, stored) = (&bytes[..len], &bytes[len..end.min(bytes.len())]);
        let examined = self.examiner.examine(position, record, parsed, stored)?;
        let fill: Bitmap8 = parsed.map_or(0, |record| record.fill);
        let (raw, frame) = (examined.raw.len() as u64, stored.len() as u64);
        self.volumes.add(position, &examined, record, fill)?;
        self.examiner.give_back(examined.raw);
        self.context.advanced(raw, frame);
        let is_next = self
            .run
            .last_of(position.volume)
            .is_some_and(|last| self.volumes.is_next(position, last));
        self.run.cell(position.volume, position.address, is_next);
        Ok(())
    }

    /// The index of a group.
    fn group(&mut self, len: usize) -> Result<Option<usize>> {
        let Some(bytes) = self.ahead.bytes(len)?.get(..len) else { return Ok(None) };
        let Ok(index) = GroupIndex::parse(bytes, crate::base::VolumeSize::LARGEST) else {
            return Ok(None);
        };
        // A record with a flipped number belongs to no group, or to another one.
        let is_sure =
            self.run.is_sure() && self.run.group_in_progress() == Some((index.volume, index.group));
        self.volumes.index(&index, bytes, is_sure)?;
        self.tail.frame(len, 0);
        let last = index
            .cells
            .last()
            .map(|cell| crate::base::CellAddress { group: index.group, index: cell.index });
        if let Some(last) = last.filter(|_| is_sure) {
            self.run.group(index.volume, last);
        }
        Ok(Some(len))
    }

    /// A frame of metadata: of the prologue, of a tar header, or the end of the tar.
    fn meta_frame(&mut self) -> Result<Option<usize>> {
        let bytes = self.ahead.known();
        let Some((len, true)) = frame_len(bytes, META_FRAME_RAW as u64) else { return Ok(None) };
        let Some(size) = content_size(&bytes[..len]) else { return Ok(None) };
        let Ok(raw) = inflate_meta(&bytes[..len], size) else { return Ok(None) };
        self.tail.frame(len, raw.len());
        if self.header.is_some() {
            return self.tar_header(&raw, len);
        }
        if self.in_prologue() || (self.ahead.offset() == 0 && raw.starts_with(b"image.json\0")) {
            return self.prologue(&raw, len);
        }
        if raw == tar::trailer() {
            self.volume = None;
            self.run.unlink();
            return Ok(Some(len));
        }
        self.tar_header(&raw, len)
    }

    fn prologue(&mut self, raw: &[u8], len: usize) -> Result<Option<usize>> {
        let Some(mut bytes) = self.prologue.take() else { return Ok(None) };
        bytes.extend_from_slice(raw);
        match tar::prologue_len(&bytes) {
            Ok(Some(whole)) if whole == bytes.len() => {}
            Ok(_)
                if raw.len() == META_FRAME_RAW
                    && bytes.len() as u64 <= MAX_IMAGE_JSON + MAX_FORMAT_TXT + 4096 =>
            {
                self.prologue = Some(bytes);
                return Ok(Some(len));
            }
            _ => return Ok(None),
        }
        let Ok((image_json, _)) = tar::parse_prologue(&bytes) else { return Ok(None) };
        match read_document(image_json) {
            Ok(document) => {
                self.volumes.name_all(&document);
                self.document = Some(document);
                Ok(Some(len))
            }
            Err(error) if error.kind() == ErrorKind::Unsupported => Err(error),
            Err(_) => Ok(None),
        }
    }

    fn tar_header(&mut self, raw: &[u8], len: usize) -> Result<Option<usize>> {
        let (mut reader, mut digests) = self.header.take().unwrap_or_default();
        if reader.read(raw).is_err() {
            return Ok(None);
        }
        digests.push(sha256::digest(raw));
        if !reader.is_complete() {
            if raw.len() != META_FRAME_RAW {
                return Ok(None);
            }
            self.header = Some((reader, digests));
            return Ok(Some(len));
        }
        let Ok((name, map)) = reader.finish() else { return Ok(None) };
        if !tar::volume_header(&name, &map).map(|piece| sha256::digest(&piece)).eq(digests) {
            return Ok(None);
        }
        self.open_volume(name, map, len)
    }

    /// Begins a volume, unless its header stands at an uncertain position and nothing else names
    /// it.
    fn open_volume(
        &mut self,
        name: SnapshotId,
        map: BlockMap,
        len: usize,
    ) -> Result<Option<usize>> {
        let behind = self.ahead.known().get(len..).and_then(recognise);
        let index = match (&self.document, behind) {
            (Some(_), _) => self.volumes.index_of(&name),
            (None, Some(Piece::Cell { record, .. })) if self.run.is_sure() => Some(record.volume),
            (None, _) if self.run.is_sure() => Some(self.volumes.next_index()),
            (None, _) => None,
        };
        let Some(index) = index else { return Ok(None) };
        let stored = map.stored_bytes();
        if !self.volumes.open(index, name, map)? {
            return Ok(None);
        }
        self.context.grew(stored);
        self.volume = Some(index);
        self.run.header(index);
        Ok(Some(len))
    }

    /// Gets over a damaged piece: by its neighbours, by its length, or to the next piece.
    fn broken(&mut self) -> Result<()> {
        let offset = self.ahead.offset();
        (self.header, self.prologue) = (None, None);
        if let Some(len) = self.damaged_record()? {
            self.note_damage(offset, "the record of a cell is damaged".to_owned());
            self.step(len);
            return Ok(());
        }
        self.note_damage(offset, "a part of the archive is damaged".to_owned());
        if let Some(len) = self.known_length() {
            self.ahead.advance(len);
            return Ok(());
        }
        if let Some(Piece::Cell { record, len }) = recognise(self.ahead.known()) {
            self.damaged_frame(&record, len)?;
        }
        self.ahead.advance(1);
        self.is_synced = false;
        Ok(())
    }

    /// Keeps a cell whose record is damaged, if the pieces before and behind it tell which one it
    /// is. Returns its length.
    fn damaged_record(&mut self) -> Result<Option<usize>> {
        let Some(position) = self.expected().filter(|_| self.run.is_sure()) else {
            return Ok(None);
        };
        let raw_len = position.size.cell_bytes(position.address, position.present);
        for digests in 0..=position.present.count_ones() as usize {
            let len = CELL_HEAD + 32 * digests;
            let Some(rest) = self.ahead.known().get(len..) else { break };
            if content_size(rest) != Some(raw_len) {
                continue;
            }
            let Some((frame, true)) = frame_len(rest, raw_len) else { continue };
            if self.is_confirmed(&position, len + frame) {
                self.take_cell(&position, len, len + frame, None)?;
                return Ok(Some(len + frame));
            }
        }
        Ok(None)
    }

    /// The length of a damaged piece behind which another one stands.
    fn known_length(&mut self) -> Option<usize> {
        let (bytes, ends) = (self.ahead.known(), self.ends());
        let declared = match recognise(bytes) {
            Some(Piece::Cell { record, len }) => Some(len + record.frame_len as usize),
            Some(Piece::Frame) => frame_len(bytes, DATA_FRAME_RAW as u64)
                .and_then(|(len, whole)| whole.then_some(len)),
            Some(Piece::Group { len } | Piece::Root { len } | Piece::Other { len }) => Some(len),
            Some(Piece::Footer) => Some(FOOTER_LEN),
            Some(Piece::SeekTable { .. }) | None => None,
        };
        let index = self.run.cells_of_group().map(|cells| GROUP_HEAD + CELL_ENTRY * cells);
        let header = bytes.get(4..8).and_then(|four| four.first_chunk());
        let prefix = header.map(|four| u32::from_le_bytes(*four) as usize + 8);
        let lengths = [declared, index, prefix];
        let len = lengths.into_iter().flatten().find(|&len| {
            (16..=LOOK).contains(&len) && bytes.len() > len && follows(bytes, len, ends)
        })?;
        let is_index = index == Some(len) || declared.is_none();
        if !is_index {
            self.run.unlink();
        }
        Some(len)
    }

    /// Keeps the blocks of a cell whose frame has lost its end, if they prove themselves.
    fn damaged_frame(&mut self, record: &CellRecord, len: usize) -> Result<()> {
        let is_next = self.expected().is_some_and(|next| {
            (next.volume, next.address, next.present)
                == (record.volume, record.address, record.present)
        });
        if !is_next || !self.run.is_sure() {
            return Ok(());
        }
        let Some(position) = self.expected() else { return Ok(()) };
        let end = len + record.frame_len as usize;
        self.take_cell(&position, len, end, Some(record))?;
        for (volume, address) in self.run.reach(self.ahead.offset()) {
            self.volumes.confirm(volume, address);
        }
        Ok(())
    }

    /// Looks for the next piece. Whatever is found in the midst of other bytes may be the content
    /// of a volume in which an archive is stored.
    fn scan(&mut self) -> Result<()> {
        let bytes = self.ahead.known();
        let Some(at) = next_candidate(bytes, 0) else {
            // A piece may begin with the last bytes.
            let rest = if matches!(self.ahead.limit(), Limit::None) { 16 } else { 0 };
            let len = bytes.len().saturating_sub(rest);
            self.ahead.advance(len);
            return Ok(());
        };
        self.ahead.advance(at);
        self.ahead.bytes(LONG_LOOK)?;
        let (bytes, ends) = (self.ahead.known(), self.ends());
        let begins = match recognise(bytes) {
            Some(Piece::Cell { record, len }) => {
                let end = len + record.frame_len as usize;
                let stored = &bytes[len.min(bytes.len())..end.min(bytes.len())];
                sha256::digest(stored) == record.frame_digest
                    || follows(bytes, end, ends)
                    || (bytes.len() < end
                        && content_size(stored) == Some(u64::from(record.raw_len)))
            }
            Some(Piece::Group { len }) => follows(bytes, len, ends),
            Some(Piece::Root { .. } | Piece::Footer) => true,
            Some(Piece::Frame) => self.is_meta_frame(),
            Some(Piece::Other { .. } | Piece::SeekTable { .. }) | None => false,
        };
        if !begins {
            self.ahead.advance(1);
            return Ok(());
        }
        let is_sure = is_no_copy(bytes, ends);
        self.run = Run::begin(self.ahead.offset(), is_sure);
        self.is_synced = true;
        Ok(())
    }

    /// Whether a frame at the start of the lookahead begins a tar header, or is the end of the tar.
    fn is_meta_frame(&self) -> bool {
        let bytes = self.ahead.known();
        let Some((len, true)) = frame_len(bytes, META_FRAME_RAW as u64) else { return false };
        let size = content_size(&bytes[..len]).filter(|size| size.is_multiple_of(512));
        let raw = size.and_then(|size| inflate_meta(&bytes[..len], size).ok());
        raw.is_some_and(|raw| {
            raw == tar::trailer() || tar::VolumeHeaderReader::new().read(&raw).is_ok()
        })
    }

    /// Goes on behind bytes that cannot be read.
    fn unreadable(&mut self, error: &Error) {
        let cause = error.causes().pop().unwrap_or_else(|| error.message().to_owned());
        let offset = self.ahead.offset();
        self.note_damage(offset, format!("the archive cannot be read: {cause}"));
        self.ahead.cross();
        (self.header, self.prologue) = (None, None);
        self.is_synced = false;
    }

    fn note_damage(&mut self, offset: u64, cause: String) {
        self.damage_count += 1;
        self.tail.lose_frames();
        let error = Error::corrupt(cause.clone()).at("offset", offset);
        self.context.damage(&error);
        if self.damage.len() < MOST_DAMAGE {
            self.damage.push(Damage { offset, cause: cause.clone() });
        }
        if self.causes.last() != Some(&cause) && self.causes.len() < MOST_DAMAGE {
            self.causes.push(cause);
        }
        let number = self.causes.len().saturating_sub(1);
        if let Some(volume) = self.run.volume().or(self.volume) {
            self.volumes.broke(volume, number);
        }
    }
}
