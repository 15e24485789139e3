//! Stores an image as an archive.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::resume::{NOTE, RunningTask, Work, abandon_uploads, is_existing};
use super::target::{ArchiveTarget, ObjectTarget};
use crate::base::{Error, ErrorKind, Event, Result, SnapshotId, Stage, VolumeSize, rfc3339};
use crate::checkpoint::TaskKind;
use crate::codec::zstd;
use crate::engine::{
    Archive, Context, MadeCell, PackLog, PackOptions, PackReport, content_of, pack, stored_blocks,
};
use crate::format::Footer;
use crate::format::layout::{CELL_ENTRY, FORMAT_VERSION, MAX_CELL_RECORD};
use crate::image::ImageDocument;
use crate::image::{ImageSource, Likeness};
use crate::object::{Creation, ObjectStore};
use crate::volume::BlockSource;

/// What was stored.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The AMI id, if the image has one.
    pub image_id: Option<String>,
    /// The object.
    pub key: Option<String>,
    /// What came of it.
    pub outcome: StoreOutcome,
}

/// What came of a store.
#[derive(Clone, Debug)]
pub enum StoreOutcome {
    /// The archive was made: volumes, length and digests.
    Made(PackReport),
    /// It was there already, and holds the same.
    Present {
        /// Its length.
        archive_len: u64,
        /// Its digests.
        footer: Footer,
    },
}

/// Stores `image`; metadata about it is added to what is kept with the object. The archive is
/// visible when this returns, and not before; after an error there is none.
pub fn store(
    image: &dyn ImageSource,
    target: ArchiveTarget<'_>,
    options: &PackOptions,
    context: Context<'_>,
) -> Result<Stored> {
    warn_of_odd_sizes(image, context);
    let image_id = image.document().image_id().map(ToString::to_string);
    let target = match target {
        ArchiveTarget::Stream(writer) => {
            let report = pack(image, options, writer, PackLog::none(), context)?;
            return Ok(Stored { image_id, key: None, outcome: StoreOutcome::Made(report) });
        }
        ArchiveTarget::Object(target) => target,
    };
    let ObjectTarget { store, key, overwrite, mut attributes, at_most, stretches, resumption } =
        target;
    attributes.metadata.extend(image_metadata(image.document()));
    let mut creation =
        Creation { overwrite, attributes, at_most, stretches, repeatable: true, task: None };
    let Some(resumption) = resumption else {
        let report = pack(image, options, store.create(&key, creation)?, PackLog::none(), context)?;
        return Ok(Stored { image_id, key: Some(key), outcome: StoreOutcome::Made(report) });
    };
    let (fingerprint, repeatable) = fingerprint(image, at_most);
    let (sparse, level, version) =
        (options.sparse.to_string(), context.plan.level.to_string(), FORMAT_VERSION.to_string());
    creation.repeatable = repeatable;
    let mut settings =
        vec![options.writer.as_str(), &sparse, &level, zstd::library_version(), &version];
    if creation.stretches.len() > 1 {
        // What was noted of cells and parts counts from where their stretch begins.
        settings.push("side by side");
    }
    let work = Work {
        kind: TaskKind::Store,
        image_id: image_id.clone(),
        expected: at_most,
        fingerprint: &fingerprint.iter().map(String::as_str).collect::<Vec<_>>(),
        settings: &settings,
        note: NOTE,
    };
    let task = resumption
        .begin(&work, context.observer, |earlier| abandon_uploads(store, earlier.records()?))?;
    creation.task = Some(task.shared());
    // What describes the image may say it in other words by now; the archive says what was true
    // when it was begun.
    let pinned = match task.document()? {
        Some(document) => {
            Pinned { document: ImageDocument::parse(document)?, volumes: image.volumes() }
        }
        None => {
            task.note_document(image.document().bytes())?;
            Pinned { document: image.document().clone(), volumes: image.volumes() }
        }
    };
    let outcome = match store.create(&key, creation) {
        Err(error) if is_existing(&error) => compare(image, store, &key, options, error, context),
        Err(error) => Err(error),
        Ok(writer) => {
            let log = if repeatable { log_of(&task) } else { PackLog::none() };
            let packed = pack(&pinned, options, writer, log, context);
            match packed {
                // Somebody else was there first, perhaps an earlier run whose end got lost.
                Err(error) if is_existing(&error) => {
                    compare(image, store, &key, options, error, context)
                }
                packed => packed.map(StoreOutcome::Made),
            }
        }
    };
    if let Ok(StoreOutcome::Present { .. }) = outcome {
        // Somebody else made the object; an upload of ours would stay behind.
        task.abandon_uploads(store)?;
    }
    let outcome = task.end(outcome, &resumption, |_| Ok(()))?;
    Ok(Stored { image_id, key: Some(key), outcome })
}

/// What earlier runs noted, and where this one notes.
fn log_of(task: &RunningTask) -> PackLog<'_> {
    PackLog {
        earlier: Box::new(|volume| task.cells_of::<MadeCell>(volume)),
        note: Box::new(|cell| task.note_cell(cell)),
    }
}

/// What the archive is made of, without the length of its metadata, and whether it is known that it
/// does not change: a device does not say when it was written.
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

/// Finds out whether the object that is there holds what would be stored. If not, that it is there
/// is the error.
fn compare(
    image: &dyn ImageSource,
    store: &dyn ObjectStore,
    key: &str,
    options: &PackOptions,
    exists: Error,
    context: Context<'_>,
) -> Result<StoreOutcome> {
    let reader = store.open(key)?;
    let archive = match Archive::open(reader.clone()) {
        Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported) => {
            return Err(exists.at("content", "no whole archive"));
        }
        archive => archive?,
    };
    let other = |what: &str| exists.at("content", what);
    let present =
        || StoreOutcome::Present { archive_len: reader.len(), footer: archive.footer().clone() };
    match image.likeness(archive.document()) {
        Likeness::Different => return Err(other("another image")),
        Likeness::Described(members) => {
            return Err(other(&format!("the same image with other metadata: {members}")));
        }
        Likeness::Whole => return Ok(present()),
        Likeness::Metadata => {}
    }
    let stage = context.stage(Stage::Verify);
    let content = content_of(image, options, context)?;
    stage.finish();
    if content != archive.footer().content_root {
        return Err(other("the same image with other data"));
    }
    Ok(present())
}

/// An image with the metadata that it had when its store was begun.
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

/// What AWS keeps with a stored image, under the names that it uses, and what we add.
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

/// What a store would do.
#[derive(Clone, Debug)]
pub struct StorePlan {
    /// The volumes: size, blocks to read, extents.
    pub volumes: Vec<PlannedVolume>,
    /// No archive of this image is longer.
    pub longest_archive: u64,
}

impl StorePlan {
    /// How long the stretch of each volume can become: what comes before the first belongs to that,
    /// and the index, which comes behind the last, to this.
    pub fn stretches(&self) -> Vec<u64> {
        let mut stretches: Vec<u64> = self.volumes.iter().map(|volume| volume.longest).collect();
        let all: u64 = stretches.iter().sum();
        if let Some(first) = stretches.first_mut() {
            *first += self.longest_archive - all;
        }
        if let Some(last) = stretches.last_mut() {
            // Of 512 KiB that are stored, the index and the seek table say less than 100 bytes.
            *last += all / 1024 + (1 << 20);
        }
        stretches
    }
}

/// A volume that would be stored.
#[derive(Clone, Debug)]
pub struct PlannedVolume {
    /// The snapshot.
    pub id: SnapshotId,
    /// Its size.
    pub size: VolumeSize,
    /// Blocks to be stored.
    pub blocks: u64,
    /// Runs of blocks.
    pub extents: u64,
    /// No archive holds more bytes for it.
    pub longest: u64,
}

/// Finds out what a store would do, without writing anything.
pub fn plan_store(
    image: &dyn ImageSource,
    options: &PackOptions,
    context: Context<'_>,
) -> Result<StorePlan> {
    let mut volumes = Vec::new();
    let mut longest = 1 << 20;
    for (snapshot, source) in image.document().snapshots().iter().zip(image.volumes()) {
        let map = stored_blocks(source.as_ref(), options, context)
            .map_err(|error| error.at("snapshot", &snapshot.id))?;
        let (blocks, extents, cells) =
            (map.stored_blocks(), map.extents().count() as u64, map.cells().count() as u64);
        // Data that cannot be compressed, and all the records: what a part size has to be planned
        // for.
        let volume = map.stored_bytes()
            + map.stored_bytes() / 256
            + cells * (MAX_CELL_RECORD + CELL_ENTRY + 16) as u64
            + extents * 24
            + (1 << 20);
        longest += volume;
        volumes.push(PlannedVolume {
            id: snapshot.id.clone(),
            size: map.size(),
            blocks,
            extents,
            longest: volume,
        });
    }
    Ok(StorePlan { volumes, longest_archive: longest + image.document().bytes().len() as u64 })
}
