//! Copies an archive from one store to another.

use std::io::Read;
use std::sync::{Mutex, PoisonError};

use super::resume::{CELL_RECORD, Work, abort_uploads, is_existing};
use super::target::{ArchiveTarget, ObjectTarget};
use crate::base::{Error, ErrorCode, ErrorKind, Result, Stage, StageGuard, TaskKind, hex};
use crate::engine::{
    Archive, CellLog, Context, Depth, MadeCell, NoSinks, digest_metadata, read_stream, relay,
};
use crate::format::Footer;
use crate::object::{Creation, ObjectStore, ObjectWriter};

/// The evidence that a copy has the bytes of its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyProof {
    /// Every byte that was written had been compared with a digest under the root; to this depth.
    Digests(Depth),
    /// The service copied the object by itself; the copy has the root of its source.
    Service,
    /// The archive was there already, with the same root. Its data was not read.
    Root,
}

/// Result of a copy.
#[derive(Clone, Debug)]
pub struct Copied {
    /// The AMI id, if the image has one.
    pub image_id: Option<String>,
    /// Length of the archive.
    pub archive_len: u64,
    /// Its digests.
    pub footer: Footer,
    /// Whether the object existed, with the same archive as content.
    pub present: bool,
    /// The evidence that the bytes are those of the source.
    pub proof: CopyProof,
}

impl Copied {
    /// An archive that was there already.
    pub(super) fn present(self) -> Self {
        Self { present: true, proof: CopyProof::Root, ..self }
    }
}

/// Plans a copy; nothing is written.
pub(super) fn plan_copy(archive: &Archive, proof: CopyProof) -> Copied {
    Copied {
        image_id: archive.document().image_id().map(ToString::to_string),
        archive_len: archive.reader().len(),
        footer: archive.footer().clone(),
        present: false,
        proof,
    }
}

/// Copies `archive`, and checks every byte of it, its blocks if `depth` says so. The copy is
/// visible when this returns, and not before. An existing object with the same archive is no error.
pub fn copy(
    archive: &Archive,
    target: ArchiveTarget<'_>,
    depth: Depth,
    context: Context<'_>,
) -> Result<Copied> {
    let footer = archive.footer().clone();
    let archive_len = archive.reader().len();
    let copied = |present| match plan_copy(archive, CopyProof::Digests(depth)) {
        copied if present => copied.present(),
        copied => copied,
    };
    let stage = context.stage(Stage::Copy);
    let target = match target {
        ArchiveTarget::Stream(writer) => {
            carry(archive, writer, CellLog::none(), depth, stage, context)?;
            return Ok(copied(false));
        }
        ArchiveTarget::Object(target) => target,
    };
    let ObjectTarget { store, key, overwrite, mut attributes, at_most, resumption, .. } = target;
    attributes.metadata.extend(digest_metadata(&footer));
    let mut creation = Creation {
        overwrite,
        at_most,
        attributes,
        segments: Vec::new(),
        replaces: None,
        resume: None,
        repeatable: true,
    };
    let run = |writer: Result<Box<dyn ObjectWriter>>, log: CellLog<'_, MadeCell>| match writer
        .and_then(|writer| carry(archive, writer, log, depth, stage, context))
    {
        Err(error) if is_existing(&error) => same_archive(store, &key, &footer, archive_len, error),
        outcome => outcome.map(|()| false),
    };
    let Some(resumption) = resumption else {
        let present = run(store.create(&key, creation), CellLog::none())?;
        return Ok(copied(present));
    };
    let task = resumption.begin(&work(archive, false), context.observer, |prior| {
        abort_uploads(store, prior.records()?)
    })?;
    creation.resume = Some(task.upload()?);
    let writer = store.create(&key, creation);
    let outcome = run(writer, task.log(None)?);
    if let Ok(true) = outcome {
        // Another client created the object; an upload of an earlier run would stay.
        task.abort_uploads(store)?;
    }
    if let Err(error) = &outcome
        && error.kind() == ErrorKind::Corrupt
        && task.give_up(store)?
    {
        // A damaged archive cannot be copied by a later run either.
        return outcome.map(copied);
    }
    let present = task.end(outcome, &resumption, |_| Ok(()))?;
    Ok(copied(present))
}

/// The work of a copy. One by the service is other work than one through this process: its upload
/// is aborted by the next run, and not continued.
pub(super) fn work(archive: &Archive, by_service: bool) -> Work {
    let archive_len = archive.reader().len();
    let mut fingerprint = vec![hex(&archive.footer().root), archive_len.to_string()];
    if by_service {
        fingerprint.push("by the service".to_owned());
    }
    Work {
        kind: TaskKind::Copy,
        image_id: archive.document().image_id().map(ToString::to_string),
        expected: archive_len,
        fingerprint,
        settings: Vec::new(),
        cell_record: CELL_RECORD,
    }
}

/// Copies all bytes of the archive and commits them.
fn carry(
    archive: &Archive,
    mut writer: Box<dyn ObjectWriter>,
    log: CellLog<'_, MadeCell>,
    depth: Depth,
    stage: StageGuard<'_>,
    context: Context<'_>,
) -> Result<()> {
    relay(archive, writer.as_mut(), log, depth, context)?;
    writer.identify(&digest_metadata(archive.footer()));
    context.cancel.check()?;
    stage.finish();
    let stage = context.stage(Stage::Sync);
    writer.commit()?;
    stage.finish();
    Ok(())
}

/// Compares the existing object with the archive. Returns the error `exists` if they differ.
pub(super) fn same_archive(
    store: &dyn ObjectStore,
    key: &str,
    footer: &Footer,
    len: u64,
    exists: Error,
) -> Result<bool> {
    let reader = match store.open(key) {
        // Credentials that may only write: the store has said that the object exists.
        Err(error) if error.kind() == ErrorKind::Denied => {
            return Err(exists.at("content", "not readable with these credentials"));
        }
        reader => reader?,
    };
    let found = match Archive::open(reader.clone()) {
        Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported) => None,
        archive => Some(archive?.footer().root),
    };
    match found {
        Some(root) if root == footer.root && reader.len() == len => Ok(true),
        Some(_) => {
            Err(exists.code_as(ErrorCode::OtherObjectExists).at("content", "another archive"))
        }
        None => Err(exists.code_as(ErrorCode::OtherObjectExists).at("content", "no whole archive")),
    }
}

/// Copies a stream, and checks every byte of it, its blocks if `depth` says so. The copy is visible
/// when this returns: a stream is complete only when its end was checked.
pub fn copy_stream(
    input: impl Read + Send,
    writer: Box<dyn ObjectWriter>,
    depth: Depth,
    context: Context<'_>,
) -> Result<Copied> {
    let writer = Mutex::new(writer);
    let stage = context.stage(Stage::Copy);
    let summary = read_stream(Tee { input, writer: &writer }, &mut NoSinks, depth, context)?;
    let mut writer = writer.into_inner().unwrap_or_else(PoisonError::into_inner);
    stage.finish();
    writer.identify(&digest_metadata(&summary.footer));
    context.cancel.check()?;
    writer.commit()?;
    Ok(Copied {
        image_id: summary.document.image_id().map(ToString::to_string),
        archive_len: summary.archive_len,
        footer: summary.footer,
        present: false,
        proof: CopyProof::Digests(depth),
    })
}

/// A reader that appends each byte it reads to a writer.
struct Tee<'a, R> {
    input: R,
    writer: &'a Mutex<Box<dyn ObjectWriter>>,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let len = self.input.read(buffer)?;
        self.writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .append(&buffer[..len])
            .map_err(std::io::Error::other)?;
        Ok(len)
    }
}
