//! Stores an image as an archive.

use crate::base::{Event, Result, SnapshotId, VolumeSize};
use crate::catalog::ImageSource;
use crate::disk::Overwrite;
use crate::engine::{Context, PackOptions, PackReport, pack, stored_blocks};
use crate::format::layout::{MAX_CELL_RECORD, WINDOW_SLOT};
use crate::store::{ObjectStore, ObjectWriter};

/// Where an archive goes.
pub enum StoreTarget<'a> {
    /// An object of a store.
    Object {
        /// The store.
        store: &'a dyn ObjectStore,
        /// The object; [`ImageDocument::archive_name`](crate::model::ImageDocument::archive_name) by convention.
        key: String,
        /// Whether it may be there already.
        overwrite: Overwrite,
    },
    /// A stream.
    Stream(Box<dyn ObjectWriter>),
}

/// What was stored.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The AMI id, if the image has one.
    pub image_id: Option<String>,
    /// The object.
    pub key: Option<String>,
    /// Volumes, length and digests.
    pub pack: PackReport,
}

/// Stores `image`. The archive is visible when this returns, and not before; after an error there is none.
pub fn store(image: &dyn ImageSource, target: StoreTarget<'_>, options: &PackOptions, context: Context<'_>) -> Result<Stored> {
    let (writer, key) = match target {
        StoreTarget::Object { store, key, overwrite } => (store.create(&key, overwrite)?, Some(key)),
        StoreTarget::Stream(writer) => (writer, None),
    };
    warn_of_odd_sizes(image, context);
    let pack = pack(image, options, writer, context)?;
    Ok(Stored { image_id: image.document().image_id().map(ToString::to_string), key, pack })
}

fn warn_of_odd_sizes(image: &dyn ImageSource, context: Context<'_>) {
    for (snapshot, source) in image.document().snapshots().iter().zip(image.volumes()) {
        let size = source.size().bytes();
        if !size.is_multiple_of(1 << 30) {
            let message = format!("{} has {size} bytes, not whole GiB: a restore to EC2 will make its volume larger", snapshot.id);
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
}

/// Finds out what a store would do, without writing anything.
pub fn plan_store(image: &dyn ImageSource, options: &PackOptions, context: Context<'_>) -> Result<StorePlan> {
    let mut volumes = Vec::new();
    let mut longest = 1 << 20;
    for (snapshot, source) in image.document().snapshots().iter().zip(image.volumes()) {
        let map = stored_blocks(source.as_ref(), options, context).map_err(|error| error.at("snapshot", &snapshot.id))?;
        let (blocks, extents, cells) = (map.stored_blocks(), map.extents().count() as u64, map.slots().count() as u64);
        // Data that cannot be compressed, and all the records: what a part size has to be planned for.
        longest +=
            map.stored_bytes() + map.stored_bytes() / 256 + cells * (MAX_CELL_RECORD + WINDOW_SLOT + 16) as u64 + extents * 24 + (1 << 20);
        volumes.push(PlannedVolume { id: snapshot.id.clone(), size: map.size(), blocks, extents });
    }
    Ok(StorePlan { volumes, longest_archive: longest + image.document().bytes().len() as u64 })
}
