//! An archive with another `image.json`: its first frames, root record, footer and seek table are
//! made anew, and everything between them stays, because no record of a volume has an offset of the
//! archive.

use std::ops::Range;

use super::Archive;
use super::check::volume_frames;
use crate::base::{Error, Result};
use crate::codec::sha256;
use crate::codec::zstd::{Encoder, LEVELS};
use crate::format::layout::META_FRAME_RAW;
use crate::format::{
    FOOTER_LEN, Footer, FrameLog, GroupEntry, Manifest, MetaFrame, MetaRole, RootRecord,
    content_root, tar,
};
use crate::image::ImageDocument;

/// The pieces of the archive, in their order: `head`, the bytes `body` of the old archive, and the
/// [`tail`](Self::tail).
pub struct Revision {
    /// The frames of `image.json` and `FORMAT.txt`.
    pub head: Vec<u8>,
    /// The range of the old archive that stays.
    pub body: Range<u64>,
    /// Root and content root of the new archive.
    pub footer: Footer,
    root_record: Vec<u8>,
    frames: FrameLog,
}

impl Revision {
    /// Bytes of root record, footer and seek table.
    pub fn tail_len(&self) -> u64 {
        self.root_record.len() as u64 + FOOTER_LEN as u64 + self.frames.table_len()
    }

    /// Root record, footer and seek table, in pieces.
    pub fn tail(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        [self.root_record.clone(), self.footer.encode()].into_iter().chain(self.frames.table())
    }

    /// Bytes of the whole archive.
    pub fn len(&self) -> u64 {
        self.head.len() as u64 + (self.body.end - self.body.start) + self.tail_len()
    }

    /// False: an archive has a footer.
    pub fn is_empty(&self) -> bool {
        false
    }
}

impl Archive {
    /// This archive with `document` as its metadata, written by `writer`. Volumes, level and
    /// compressor are those of this archive; records of unknown kinds between root record and
    /// footer may depend on the old root, and are left out. Reads and checks all indexes. The
    /// document has to name the volumes of this archive.
    pub fn with_document(&self, document: &ImageDocument, writer: &str) -> Result<Revision> {
        super::open::check_volumes(document, &self.root().manifest.volumes)
            .map_err(|error| Error::internal("an archive gets foreign metadata").because(error))?;
        let old = self.root();
        let old_head = old.manifest.meta.iter().filter(|meta| meta.role == MetaRole::Prologue);
        let body = old_head.map(|meta| meta.len).sum()..self.footer().root_offset;
        let (head, mut meta) = prologue(document, old.manifest.codec.level)?;
        // An archive is shorter than 2^63 bytes.
        let moved = |offset: u64| offset - body.start + head.len() as u64;
        let others = old.manifest.meta.iter().filter(|meta| meta.role != MetaRole::Prologue);
        meta.extend(others.map(|meta| MetaFrame { offset: moved(meta.offset), ..meta.clone() }));
        let content = content_root(&sha256::digest(document.bytes()), &old.manifest.volumes);
        let groups = old.groups.iter();
        let root = RootRecord {
            manifest: Manifest {
                meta,
                writer: writer.to_owned(),
                content_root: content,
                ..old.manifest.clone()
            },
            groups: groups
                .map(|group| GroupEntry { offset: moved(group.offset), ..group.clone() })
                .collect(),
        };
        let root_record = root.encode();
        let root_offset = moved(body.end);
        let footer = Footer {
            root_offset,
            root_len: root_record.len() as u64,
            root: sha256::digest(&root_record),
            content_root: content,
            offset: root_offset + root_record.len() as u64,
        };
        self.check_trailer()?;
        let mut frames = FrameLog::default();
        let is_prologue = |meta: &&MetaFrame| meta.role == MetaRole::Prologue;
        for meta in root.manifest.meta.iter().filter(is_prologue) {
            frames.frame(meta.len as u32, meta.raw_len as u32);
        }
        frames.append(volume_frames(self)?);
        frames.frame(root_record.len() as u32, 0);
        frames.frame(FOOTER_LEN as u32, 0);
        Ok(Revision { head, body, footer, root_record, frames })
    }
}

/// The frames of the first tar members, and their entries in the manifest. A level that this
/// version does not know becomes the lowest: the data frames stay as they are.
fn prologue(document: &ImageDocument, level: i64) -> Result<(Vec<u8>, Vec<MetaFrame>)> {
    let level = i32::try_from(level).ok().filter(|level| LEVELS.contains(level));
    let mut encoder = Encoder::new(level.unwrap_or(*LEVELS.start()))?;
    let (mut head, mut meta, mut frame) = (Vec::new(), Vec::new(), Vec::new());
    for raw in tar::prologue(document.bytes(), tar::format_text().as_bytes()).chunks(META_FRAME_RAW)
    {
        encoder.encode(raw, &mut frame)?;
        meta.push(MetaFrame {
            offset: head.len() as u64,
            len: frame.len() as u64,
            raw_len: raw.len() as u64,
            digest: sha256::digest(&frame),
            role: MetaRole::Prologue,
        });
        head.extend_from_slice(&frame);
    }
    Ok((head, meta))
}
