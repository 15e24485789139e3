//! Gives an archive the metadata of an image whose disks it holds. The new archive is byte for byte
//! the one that a store of the image would make with the same level and version.

use std::ops::Range;

use super::stored::StoreOutcome;
use crate::base::{Error, ErrorCode, ErrorKind, Event, Result, Stage, StageGuard, hex};
use crate::engine::{
    Archive, CellLog, Context, Depth, PackOptions, Revision, digest_metadata, relay,
};
use crate::image::ImageDocument;
use crate::localfs::Overwrite;
use crate::object::{
    Attributes, Creation, ObjectStore, ObjectWriter, ResumableUpload, Splice, Spliced,
};

/// An archive that gets other metadata.
pub(super) struct Update<'a> {
    pub(super) archive: &'a Archive,
    pub(super) document: &'a ImageDocument,
    pub(super) store: &'a dyn ObjectStore,
    pub(super) key: &'a str,
    /// Metadata and tags of the new object.
    pub(super) attributes: Attributes,
    pub(super) options: &'a PackOptions,
}

/// Updates the archive, and opens the new one, which has to be the planned one.
pub(super) fn update(
    update: Update<'_>,
    changed: Vec<String>,
    resume: Option<ResumableUpload>,
    context: Context<'_>,
) -> Result<StoreOutcome> {
    let Update { archive, document, store, key, mut attributes, options } = update;
    let revision = archive.with_document(document, &options.writer)?;
    attributes.metadata.extend(digest_metadata(&revision.footer));
    let stage = StageGuard::begin(context.observer, Stage::Store, Some(revision.len()));
    let progress = |bytes: u64| -> Result<()> {
        context.observer.note(&Event::Advanced { bytes, stored: bytes });
        context.cancel.check()
    };
    let splice = Splice {
        head: &revision.head,
        body: revision.body.clone(),
        tail: Box::new(revision.tail()),
        identity: hex(&revision.footer.root),
        attributes: attributes.clone(),
        resume,
        progress: &progress,
    };
    let sent_whole = match store.splice(key, archive.reader(), splice)? {
        Spliced::Done => None,
        Spliced::Whole(reason) => {
            send_whole(archive, &revision, (store, key), attributes, context)?;
            Some(reason)
        }
    };
    stage.finish();
    check(store, key, &revision)?;
    let (archive_len, footer) = (revision.len(), revision.footer);
    Ok(StoreOutcome::MetadataUpdated { archive_len, footer, changed, sent_whole })
}

/// Sends all bytes of the new archive. Those of the old one are read and checked.
fn send_whole(
    archive: &Archive,
    revision: &Revision,
    (store, key): (&dyn ObjectStore, &str),
    attributes: Attributes,
    context: Context<'_>,
) -> Result<()> {
    let creation = Creation {
        overwrite: Overwrite::Yes,
        replaces: archive.reader().version(),
        at_most: revision.len(),
        attributes,
        ..Creation::default()
    };
    let mut part =
        BodyOf { writer: store.create(key, creation)?, body: revision.body.clone(), at: 0 };
    part.writer.append(&revision.head)?;
    relay(archive, &mut part, CellLog::none(), Depth::Blocks, context)?;
    let mut writer = part.writer;
    revision.tail().try_for_each(|piece| writer.append(&piece))?;
    context.cancel.check()?;
    writer.commit()
}

/// Appends only the bytes of an archive that lie in `body`.
struct BodyOf {
    writer: Box<dyn ObjectWriter>,
    body: Range<u64>,
    /// Offset of the next byte in the archive.
    at: u64,
}

impl ObjectWriter for BodyOf {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let end = self.at + bytes.len() as u64;
        let first = self.body.start.clamp(self.at, end) - self.at;
        let last = self.body.end.clamp(self.at, end) - self.at;
        self.at = end;
        if first >= last {
            return Ok(());
        }
        self.writer.append(&bytes[first as usize..last as usize])
    }

    fn commit(self: Box<Self>) -> Result<()> {
        self.writer.commit()
    }
}

/// Opens the new archive, which has to be the planned one.
fn check(store: &dyn ObjectStore, key: &str, revision: &Revision) -> Result<()> {
    let differs = || {
        Error::new(ErrorKind::Io, "the finished object is not the planned one: do not rely on it")
            .code_as(ErrorCode::FinishedObjectDiffers)
            .at("object", key)
    };
    let reader = store.open(key)?;
    let len = reader.len();
    match Archive::open(reader) {
        Ok(found) if len == revision.len() && found.footer().root == revision.footer.root => Ok(()),
        Err(error) if error.kind() != ErrorKind::Corrupt => Err(error),
        Err(error) => Err(differs().because(error)),
        Ok(_) => Err(differs().at("bytes", len).at("expected", revision.len())),
    }
}
