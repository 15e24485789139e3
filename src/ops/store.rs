//! Stores an image as an archive.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::existing::Existing;
use super::resume::{CELL_RECORD, RunningTask, Work, abort_uploads, is_existing};
use super::stored::{StoreOutcome, Stored};
use super::target::{ArchiveTarget, ObjectTarget};
use crate::base::{Event, Result, TaskKind, rfc3339};
use crate::codec::zstd;
use crate::engine::{Context, MadeCell, PackLog, PackOptions, pack};
use crate::format::layout::FORMAT_VERSION;
use crate::image::{ImageDocument, ImageSource};
use crate::object::Creation;
use crate::volume::BlockSource;

/// Stores `image`, and adds metadata about it to the object's attributes. The archive is visible
/// when this returns, and not before; after an error there is none.
pub fn store(
    image: &dyn ImageSource,
    target: ArchiveTarget<'_>,
    options: &PackOptions,
    context: Context<'_>,
) -> Result<Stored> {
    warn_of_odd_sizes(image, context);
    warn_of_root_device(image, context);
    warn_of_writers(image, context);
    let image_id = image.document().image_id().map(ToString::to_string);
    let target = match target {
        ArchiveTarget::Stream(writer) => {
            let report = pack(image, options, writer, PackLog::none(), context)?;
            return Ok(Stored { image_id, outcome: StoreOutcome::Made(report) });
        }
        ArchiveTarget::Object(target) => target,
    };
    let ObjectTarget { store, key, overwrite, mut attributes, at_most, segments, .. } = target;
    attributes.metadata.extend(image_metadata(image.document()));
    let existing = |policy| Existing {
        image,
        store,
        key: &key,
        options,
        policy,
        attributes: attributes.clone(),
        context,
    };
    let mut creation = Creation {
        overwrite,
        replaces: None,
        attributes: attributes.clone(),
        at_most,
        segments,
        repeatable: true,
        resume: None,
    };
    let Some(resumption) = target.resumption else {
        let made = store
            .create(&key, creation)
            .and_then(|writer| pack(image, options, writer, PackLog::none(), context));
        let outcome = match (made, target.on_metadata_change) {
            (Err(error), Some(policy)) if is_existing(&error) => {
                existing(policy).settle(error, None)?
            }
            (made, _) => StoreOutcome::Made(made?),
        };
        return Ok(Stored { image_id, outcome });
    };
    let policy = target.on_metadata_change.unwrap_or_default();
    let settle = |error, task: &RunningTask| existing(policy).settle(error, Some(task.upload()?));
    let (work, repeatable) =
        work(image, options, context.plan.level, (at_most, &creation.segments));
    creation.repeatable = repeatable;
    let task = resumption
        .begin(&work, context.observer, |prior| abort_uploads(store, prior.records()?))?;
    creation.resume = Some(task.upload()?);
    // The metadata of the image may have changed since the first run; the archive has that of the
    // first run.
    let pinned = match task.document()? {
        Some(document) => {
            Pinned { document: ImageDocument::parse(document)?, volumes: image.volumes() }
        }
        None => {
            task.record_document(image.document().bytes())?;
            Pinned { document: image.document().clone(), volumes: image.volumes() }
        }
    };
    let outcome = match store.create(&key, creation) {
        Err(error) if is_existing(&error) => settle(error, &task),
        Err(error) => Err(error),
        Ok(writer) => {
            let log = if repeatable { log_of(&task) } else { PackLog::none() };
            let packed = pack(&pinned, options, writer, log, context);
            match packed {
                // Another client created it meanwhile, or an earlier run whose answer was lost.
                Err(error) if is_existing(&error) => settle(error, &task),
                packed => packed.map(StoreOutcome::Made),
            }
        }
    };
    if outcome.as_ref().is_ok_and(|outcome| !matches!(outcome, StoreOutcome::Made(_))) {
        // Another client created the object; an upload of an earlier run would stay.
        task.abort_uploads(store)?;
    }
    let outcome = task.end(outcome, &resumption, |_| Ok(()))?;
    Ok(Stored { image_id, outcome })
}

/// The work of a store that can be continued, and whether every volume has an identity that changes
/// with its content. `at_most` and `segments` are those of the [`ObjectTarget`].
pub(super) fn work(
    image: &dyn ImageSource,
    options: &PackOptions,
    level: i32,
    (at_most, segments): (u64, &[u64]),
) -> (Work, bool) {
    let (fingerprint, repeatable) = fingerprint(image, at_most);
    let mut settings = vec![
        options.writer.clone(),
        options.sparse.to_string(),
        level.to_string(),
        zstd::library_version().to_owned(),
        FORMAT_VERSION.to_string(),
    ];
    if segments.len() > 1 {
        // Recorded offsets of cells and parts count from the start of their segment.
        settings.push("side by side".to_owned());
    }
    let work = Work {
        kind: TaskKind::Store,
        image_id: image.document().image_id().map(ToString::to_string),
        expected: at_most,
        fingerprint,
        settings,
        cell_record: CELL_RECORD,
    };
    (work, repeatable)
}

/// The cells of earlier runs, and a function that records those of this run.
fn log_of(task: &RunningTask) -> PackLog<'_> {
    PackLog {
        earlier: Box::new(|volume| task.cells_of::<MadeCell>(volume)),
        note: Box::new(|cell| task.record_cell(cell)),
    }
}

/// Identity of the image, without the length of its metadata, and whether every volume has an
/// identity that changes with its content: a block device has none.
fn fingerprint(image: &dyn ImageSource, at_most: u64) -> (Vec<String>, bool) {
    let mut parts = vec![
        image.fingerprint(),
        (at_most - at_most.min(image.document().bytes().len() as u64)).to_string(),
    ];
    let identities: Vec<Option<String>> =
        image.volumes().iter().map(|volume| volume.identity()).collect();
    let repeatable = identities.iter().all(Option::is_some);
    parts.extend(identities.into_iter().map(Option::unwrap_or_default));
    (parts, repeatable)
}

/// An image with the metadata of the first run.
struct Pinned<'a> {
    document: ImageDocument,
    volumes: &'a [Arc<dyn BlockSource>],
}

impl ImageSource for Pinned<'_> {
    fn document(&self) -> &ImageDocument {
        &self.document
    }

    fn volumes(&self) -> &[Arc<dyn BlockSource>] {
        self.volumes
    }
}

/// User metadata of an archive: the members that AWS sets on a stored image, under its names, and
/// ours.
pub fn image_metadata(document: &ImageDocument) -> BTreeMap<String, String> {
    let text = |name: &str| {
        document
            .value()
            .get("Image")
            .and_then(|image| image.get(name))
            .and_then(|value| value.as_str())
    };
    let pairs = [
        ("ami-name", text("Name")),
        ("ami-description", text("Description")),
        ("ami-registration-date", text("CreationDate")),
        ("ami-owner-account", text("OwnerId")),
    ];
    let known = pairs.into_iter().filter_map(|(name, value)| {
        Some((name.to_owned(), value.filter(|value| !value.is_empty())?.to_owned()))
    });
    let own = [
        ("ami-store-date", rfc3339(SystemTime::now())),
        ("amistore-format", FORMAT_VERSION.to_string()),
    ];
    known.chain(own.map(|(name, value)| (name.to_owned(), value))).collect()
}

/// Warns of volumes that may change while they are read.
fn warn_of_writers(image: &dyn ImageSource, context: Context<'_>) {
    for (snapshot, source) in image.document().snapshots().iter().zip(image.volumes()) {
        for writer in source.writers() {
            let message = format!(
                "the disk of {} is {writer}; it may change while it is read, so store a snapshot \
                 of it instead",
                snapshot.id
            );
            context.observer.note(&Event::Warning { message });
        }
    }
}

/// Warns of an image that EC2 cannot register as it is described.
fn warn_of_root_device(image: &dyn ImageSource, context: Context<'_>) {
    if let Some(root) = image.document().root_device_without_volume() {
        let root = if root.is_empty() { "which is not recorded" } else { root };
        let message = format!(
            "no volume of the image is at its root device, {root}: a restore to EC2 will need \
             --root-device"
        );
        context.observer.note(&Event::Warning { message });
    }
}

fn warn_of_odd_sizes(image: &dyn ImageSource, context: Context<'_>) {
    for (snapshot, source) in image.document().snapshots().iter().zip(image.volumes()) {
        let size = source.size().bytes();
        if !size.is_multiple_of(1 << 30) {
            let message = format!(
                "{} has {size} bytes, not whole GiB: a restore to EC2 will make its volume larger",
                snapshot.id
            );
            context.observer.note(&Event::Warning { message });
        }
    }
}
