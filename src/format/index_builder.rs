//! Builds the index of an archive from its pieces, in their order: the S records, and at the end R,
//! F and T.
//!
//! The packer writes the index that is built here, and the stream reader compares it with the one
//! in the archive. One implementation serves both, so the two cannot disagree.

use super::manifest::{Codec, Manifest, MetaFrame, MetaRole, VolumeEntry};
use super::root::{GroupEntry, RootRecord};
use super::{
    CellEntry, CellFacts, Digest, FOOTER_LEN, Footer, FrameLog, GroupContent, GroupIndex,
    VolumeContent, content_root,
};
use crate::base::{Error, Result, SnapshotId, VolumeSize};
use crate::codec::sha256;

struct OpenVolume {
    name: SnapshotId,
    size: VolumeSize,
    blocks: u64,
    zero: u64,
    fill: u64,
    content: VolumeContent,
    last_group: Option<u32>,
    group: Option<OpenGroup>,
}

struct OpenGroup {
    offset: u64,
    index: GroupIndex,
    content: GroupContent,
}

/// The end of an archive: the records after the last meta frame.
pub struct Tail {
    /// The R record.
    pub root_record: Vec<u8>,
    /// The F record.
    pub footer: Vec<u8>,
    /// The footer, decoded.
    pub root: Footer,
}

/// Adds up pieces to an index. Takes 96 bytes of memory a group and 4 bytes a cell.
#[derive(Default)]
pub struct IndexBuilder {
    /// Index of the first volume.
    first_volume: u16,
    offset: u64,
    meta: Vec<MetaFrame>,
    groups: Vec<GroupEntry>,
    volumes: Vec<VolumeEntry>,
    open: Option<OpenVolume>,
    frames: FrameLog,
}

impl IndexBuilder {
    /// The index of an empty archive.
    pub fn new() -> Self {
        Self::default()
    }

    /// The index of a segment that begins with this volume, and will be [appended](Self::append) to
    /// that of the segments before it. Offsets count from the start of the segment.
    pub fn from_volume(first_volume: u16) -> Self {
        Self { first_volume, ..Self::default() }
    }

    /// Appends the index of the segment that follows. All volumes of both are closed.
    pub fn append(&mut self, other: Self) -> Result<()> {
        if other.first_volume != self.volume_index() || self.open.is_some() || other.open.is_some()
        {
            return Err(Error::internal("an index is appended to one that does not precede it")
                .at("volume", other.first_volume));
        }
        let offset = self.offset;
        self.meta.extend(
            other
                .meta
                .into_iter()
                .map(|frame| MetaFrame { offset: frame.offset + offset, ..frame }),
        );
        self.groups.extend(
            other
                .groups
                .into_iter()
                .map(|group| GroupEntry { offset: group.offset + offset, ..group }),
        );
        self.volumes.extend(other.volumes);
        self.frames.append(other.frames);
        self.offset += other.offset;
        Ok(())
    }

    /// Bytes of archive so far: the offset of the next piece.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Number of closed groups.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Index of the volume that is open, or comes next: the number of complete volumes.
    pub fn volume_index(&self) -> u16 {
        self.first_volume + self.volumes.len() as u16
    }

    /// Adds a meta frame.
    pub fn meta_frame(&mut self, role: MetaRole, len: u64, raw_len: u64, digest: Digest) {
        self.meta.push(MetaFrame { offset: self.offset, len, raw_len, digest, role });
        self.frames.frame(len as u32, raw_len as u32);
        self.offset += len;
    }

    /// Begins a volume, before or after the meta frames of its header.
    pub fn open_volume(&mut self, name: SnapshotId, size: VolumeSize) {
        debug_assert!(self.open.is_none(), "the volume before was closed");
        let content = VolumeContent::default();
        self.open = Some(OpenVolume {
            name,
            size,
            blocks: 0,
            zero: 0,
            fill: 0,
            content,
            last_group: None,
            group: None,
        });
    }

    /// Adds a cell of the open volume. Cells out of order, or of two groups without
    /// [`close_group`](Self::close_group) between them, are corrupt.
    pub fn cell(&mut self, cell: &CellFacts) -> Result<()> {
        let volume_index = self.volume_index();
        let volume = self
            .open
            .as_mut()
            .ok_or_else(|| Error::corrupt("a cell stands outside of a volume"))?;
        let address = cell.address;
        if volume.group.is_none() {
            if volume.last_group.is_some_and(|last| last >= address.group) {
                return Err(Error::corrupt("the groups of a volume are not in order")
                    .at("group", address.group));
            }
            let index = GroupIndex {
                volume: volume_index,
                group: address.group,
                cells_len: 0,
                content: [0; 32],
                cells: Vec::new(),
            };
            volume.group =
                Some(OpenGroup { offset: self.offset, index, content: GroupContent::default() });
        }
        let Some(group) = &mut volume.group else {
            return Err(Error::internal("a group was opened and is not there"));
        };
        if group.index.group != address.group
            || group.index.cells.last().is_some_and(|last| last.index >= address.index)
        {
            return Err(Error::corrupt("the cells of a volume are not in order")
                .at("group", address.group)
                .at("cell", address.index));
        }
        let cell_len = cell.record_len() + cell.frame_len;
        group.index.cells.push(CellEntry {
            cell_len,
            index: address.index,
            present: cell.present,
            zero: cell.zero,
            fill: cell.fill,
            record_digest: cell.record_digest,
        });
        group.index.cells_len += u64::from(cell_len);
        group.content.add(cell);
        volume.blocks += u64::from(cell.present.count_ones());
        volume.zero += u64::from(cell.zero.count_ones());
        volume.fill += u64::from(cell.fill.count_ones());
        self.frames.cell(cell.present, cell.zero, cell.frame_len, cell.raw_len);
        self.offset += u64::from(cell_len);
        Ok(())
    }

    /// Ends the open group and returns its S record.
    pub fn close_group(&mut self) -> Result<Vec<u8>> {
        let volume = self.open.as_mut();
        let (volume, mut group) = volume
            .and_then(|volume| volume.group.take().map(|group| (volume, group)))
            .ok_or_else(|| Error::corrupt("a group index stands where no group ends"))?;
        group.index.content = group.content.digest();
        let record = group.index.encode();
        if group.content.has_data() {
            volume.content.add(group.index.group, &group.index.content);
        }
        volume.last_group = Some(group.index.group);
        self.groups.push(GroupEntry {
            volume: group.index.volume,
            group: group.index.group,
            offset: group.offset,
            cells_len: group.index.cells_len,
            index_len: record.len() as u32,
            entries: group.index.cells.len() as u32,
            index_digest: sha256::digest(&record),
            content: group.index.content,
        });
        self.frames.frame(record.len() as u32, 0);
        self.offset += record.len() as u64;
        Ok(record)
    }

    /// Ends the open volume.
    pub fn close_volume(&mut self) -> Result<VolumeEntry> {
        let volume =
            self.open.take().ok_or_else(|| Error::corrupt("a volume ends that did not begin"))?;
        if volume.group.is_some() {
            return Err(Error::corrupt("a volume ends without the index of its last group"));
        }
        let entry = VolumeEntry {
            name: volume.name,
            size: volume.size,
            blocks: volume.blocks,
            zero: volume.zero,
            fill: volume.fill,
            content: volume.content.digest(),
        };
        self.volumes.push(entry.clone());
        Ok(entry)
    }

    /// The R record of this index.
    pub fn root(&self, image_json: &Digest, codec: Codec, writer: &str) -> RootRecord {
        let manifest = Manifest {
            codec,
            writer: writer.to_owned(),
            volumes: self.volumes.clone(),
            meta: self.meta.clone(),
            content_root: content_root(image_json, &self.volumes),
        };
        RootRecord { manifest, groups: self.groups.clone() }
    }

    /// Makes R and F, and adds them. They are followed by the [`seek_table`](Self::seek_table).
    pub fn finish(&mut self, image_json: &Digest, codec: Codec, writer: &str) -> Tail {
        let root = self.root(image_json, codec, writer);
        let root_record = root.encode();
        let footer = Footer {
            root_offset: self.offset,
            root_len: root_record.len() as u64,
            root: sha256::digest(&root_record),
            content_root: root.manifest.content_root,
            offset: self.offset + root_record.len() as u64,
        };
        self.record(root_record.len() as u64);
        self.record(FOOTER_LEN as u64);
        Tail { root_record, footer: footer.encode(), root: footer }
    }

    /// Adds a record after the last meta frame.
    pub fn record(&mut self, len: u64) {
        self.frames.frame(len as u32, 0);
        self.offset += len;
    }

    /// The seek table of all pieces so far, in parts.
    pub fn seek_table(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        self.frames.table()
    }

    /// The length of the seek table.
    pub fn seek_table_len(&self) -> u64 {
        self.frames.table_len()
    }
}
