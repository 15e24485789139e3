//! Packs an image into an archive.
//!
//! The bytes are a function of the image, the level, the writer's name and libzstd: pieces are made
//! independently and put together in order. An error of the source is an error of the pack, and
//! never read as zeros.
//!
//! Because of that a pack can be continued: with a log of the cells that were made ([`MadeCell`]),
//! those whose bytes the writer still has are not made again.

mod feeder;
mod job;
mod options;
mod parallel;
mod segment;
mod worker;

use super::digest_metadata::digest_metadata;
use super::{Budget, Context};
use crate::base::{Result, Stage};
use crate::codec::{sha256, zstd};
use crate::format::{Codec, Footer};
use crate::image::ImageSource;
use crate::object::ObjectWriter;

use parallel::pack_parallel;
use segment::{Output, Packed, Packing};

pub use options::{NoteOfCells, PackLog, PackOptions, stored_blocks};
pub use segment::VolumeReport;

/// The outcome of a pack.
#[derive(Clone, Debug)]
pub struct PackReport {
    /// The volumes.
    pub volumes: Vec<VolumeReport>,
    /// Length of the archive.
    pub archive_len: u64,
    /// The footer: root and content root.
    pub footer: Footer,
}

/// Packs `image` and commits the archive. Volumes are packed in parallel if the writer supports it,
/// else one after the other; the bytes are the same.
pub fn pack(
    image: &dyn ImageSource,
    options: &PackOptions,
    mut writer: Box<dyn ObjectWriter>,
    log: PackLog<'_>,
    context: Context<'_>,
) -> Result<PackReport> {
    let stage = context.stage(Stage::Store);
    let packing = Packing { image, options, log: &log };
    let Packed { mut index, volumes } = match writer.parallel() {
        Some(parallel) => pack_parallel(&packing, parallel, context)?,
        None => packing.segment(
            0..image.volumes().len(),
            &mut Output::Object(writer.as_mut()),
            &Budget::new(context.plan.in_flight),
            context,
        )?,
    };
    let codec = Codec {
        level: context.plan.level.into(),
        lib: zstd::library_version().to_owned(),
        name: "zstd".to_owned(),
    };
    let tail = index.finish(&sha256::digest(image.document().bytes()), codec, &options.writer);
    writer.append(&tail.root_record)?;
    writer.append(&tail.footer)?;
    for piece in index.seek_table() {
        writer.append(&piece)?;
    }
    stage.finish();
    let stage = context.stage(Stage::Sync);
    context.cancel.check()?;
    writer.identify(&digest_metadata(&tail.root));
    writer.commit()?;
    stage.finish();
    Ok(PackReport {
        volumes,
        archive_len: index.offset() + index.seek_table_len(),
        footer: tail.root,
    })
}
