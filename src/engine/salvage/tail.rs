//! The end of a damaged archive: root record and footer, which prove each other.

use super::lookahead::{Limit, Lookahead};
use crate::base::{Bitmap8, Result};
use crate::codec::sha256;
use crate::format::{FOOTER_LEN, Footer, FrameLog, RootRecord, content_root};
use crate::image::ImageDocument;

/// The offset of a footer's own offset in it.
const OWN_OFFSET: usize = 96;

/// Root record and footer.
pub(super) struct Tail {
    /// The longest root record that is kept, in bytes.
    room: u64,
    root: Option<Vec<u8>>,
    found: Option<(RootRecord, Footer)>,
    is_complete: bool,
    /// All frames so far, for the seek table; `None` once one is missing.
    frames: Option<FrameLog>,
}

impl Tail {
    pub(super) fn new(room: u64) -> Self {
        Self {
            room,
            root: None,
            found: None,
            is_complete: false,
            frames: Some(FrameLog::default()),
        }
    }

    /// Whether the footer of the archive was met.
    pub(super) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Whether a root record was met, and no footer.
    pub(super) fn has_root(&self) -> bool {
        self.root.is_some()
    }

    /// Keeps a root record of `len` bytes at the start of the lookahead. It proves itself with the
    /// footer.
    pub(super) fn root(&mut self, ahead: &mut Lookahead<'_>, len: usize) -> Result<Option<usize>> {
        if len as u64 > self.room {
            return Ok(None);
        }
        let bytes = ahead.bytes(len)?;
        let Some(bytes) = bytes.get(..len) else { return Ok(None) };
        self.root = Some(bytes.to_vec());
        Ok(Some(len))
    }

    /// Judges a footer. One that stands at an uncertain position counts if its root record is that
    /// of the metadata. Returns whether it is a footer.
    pub(super) fn footer(
        &mut self,
        bytes: &[u8],
        is_sure: bool,
        document: Option<&ImageDocument>,
    ) -> bool {
        let Some(own) = bytes.get(OWN_OFFSET..).and_then(|rest| rest.first_chunk()) else {
            return false;
        };
        // Bytes before it may be lost: it counts where it stood.
        let Ok(footer) = Footer::parse(bytes, u64::from_le_bytes(*own)) else { return false };
        let root = self.root.take().filter(|root| sha256::digest(root) == footer.root);
        let root = root.and_then(|root| RootRecord::parse(&root, footer.root_offset).ok());
        let of_document =
            root.as_ref().is_some_and(|root| document.is_some_and(|it| is_of(root, &footer, it)));
        if is_sure || of_document {
            self.is_complete = true;
            self.found = root.map(|root| (root, footer));
        }
        true
    }

    /// Adds a frame to the expected seek table.
    pub(super) fn frame(&mut self, len: usize, raw_len: usize) {
        if let Some(frames) = &mut self.frames {
            frames.frame(len as u32, raw_len as u32);
        }
    }

    /// Adds a cell to the expected seek table.
    pub(super) fn cell(&mut self, present: Bitmap8, zero: Bitmap8, frame_len: u32, raw_len: u32) {
        if let Some(frames) = &mut self.frames {
            frames.cell(present, zero, frame_len, raw_len);
        }
    }

    /// A piece is missing: the seek table cannot be checked.
    pub(super) fn lose_frames(&mut self) {
        self.frames = None;
    }

    /// Whether the bytes behind the footer are the seek table of all frames, and nothing else. True
    /// if that cannot be told.
    pub(super) fn check_seek_table(&mut self, ahead: &mut Lookahead<'_>) -> Result<bool> {
        let Some(frames) = self.frames.take() else { return Ok(true) };
        for expected in frames.table() {
            if !ahead.bytes(expected.len())?.starts_with(&expected) {
                return Ok(false);
            }
            ahead.advance(expected.len());
        }
        Ok(ahead.bytes(1)?.is_empty() && matches!(ahead.limit(), Limit::End))
    }

    /// Root record and footer, if they are those of the metadata or if that is lost.
    pub(super) fn take(
        &mut self,
        document: Option<&ImageDocument>,
    ) -> Option<(RootRecord, Footer)> {
        let found = self.found.take();
        found.filter(|(root, footer)| document.is_none_or(|document| is_of(root, footer, document)))
    }
}

/// Whether metadata and root record belong together.
fn is_of(root: &RootRecord, footer: &Footer, document: &ImageDocument) -> bool {
    let expected = content_root(&sha256::digest(document.bytes()), &root.manifest.volumes);
    (footer.content_root, root.manifest.content_root) == (expected, expected)
}

const _: () = assert!(OWN_OFFSET + 8 < FOOTER_LEN);
