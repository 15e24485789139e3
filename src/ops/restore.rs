//! Restores an archive to a destination of images.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use super::resume::{
    CELL_RECORD_WITH_DIGESTS, Resumption, RunningTask, Work, is_existing, restore_record,
};
use crate::base::{BLOCK_BYTES, Error, Result, SnapshotId, Stage, TaskKind, VolumeSize, hex};
use crate::checkpoint::PriorTask;
use crate::engine::{
    Archive, ArchiveVolume, Context, Depth, RestoreLog, StreamSinks, read_stream, run_parallel,
    unpack_volume,
};
use crate::format::{Footer, RootRecord};
use crate::image::{ImageDestination, ImageDocument, ImageWriter};
use crate::volume::BlockSink;

/// Result of a restore.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The AMI id in the metadata, if it has one.
    pub image_id: Option<String>,
    /// The volumes.
    pub volumes: Vec<RestoredVolume>,
    /// Length of the archive.
    pub archive_len: u64,
    /// Root and content root of the archive.
    pub footer: Footer,
}

/// A volume that was restored.
#[derive(Clone, Debug)]
pub struct RestoredVolume {
    /// The snapshot.
    pub id: SnapshotId,
    /// Its size.
    pub size: VolumeSize,
    /// Blocks that were written, zero blocks included.
    pub blocks: u64,
}

impl Restored {
    fn new(document: &ImageDocument, root: &RootRecord, footer: &Footer, archive_len: u64) -> Self {
        let volumes = root.manifest.volumes.iter().map(|volume| RestoredVolume {
            id: volume.name.clone(),
            size: volume.size,
            blocks: volume.blocks - volume.fill,
        });
        Self {
            image_id: document.image_id().map(ToString::to_string),
            volumes: volumes.collect(),
            archive_len,
            footer: footer.clone(),
        }
    }
}

/// Plans a restore; nothing is written.
pub(super) fn plan_restore(archive: &Archive) -> Restored {
    Restored::new(archive.document(), archive.root(), archive.footer(), archive.reader().len())
}

/// Restores all volumes by random access. The image is visible when this returns, and not before;
/// after an error it is removed.
pub fn restore(
    archive: &Archive,
    target: Box<dyn ImageWriter>,
    context: Context<'_>,
) -> Result<Restored> {
    run(archive, target, &|_| Ok(RestoreLog::none()), context)
}

/// A resumable [`restore`]: after an error the written blocks stay, and the next run does not write
/// them again. With other `settings` a restore cannot be continued.
pub fn restore_resumable(
    archive: &Archive,
    destination: &dyn ImageDestination,
    settings: &[&str],
    resumption: &Resumption,
    context: Context<'_>,
) -> Result<Restored> {
    let work = work(archive, settings);
    let remove = |prior: &PriorTask| destination.remove_partial(&restore_record(prior)?);
    let task = resumption.begin(&work, context.observer, remove)?;
    let outcome = resume(archive, destination, &task, context);
    task.end(outcome, resumption, remove)
}

/// The work of a restore that can be continued.
pub(super) fn work(archive: &Archive, settings: &[&str]) -> Work {
    let volumes = archive.root().manifest.volumes.iter();
    Work {
        kind: TaskKind::Restore,
        image_id: archive.document().image_id().map(ToString::to_string),
        expected: volumes.map(|volume| (volume.blocks - volume.zero) * BLOCK_BYTES).sum(),
        fingerprint: vec![hex(&archive.footer().root)],
        settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
        cell_record: CELL_RECORD_WITH_DIGESTS,
    }
}

fn resume(
    archive: &Archive,
    destination: &dyn ImageDestination,
    task: &RunningTask,
    context: Context<'_>,
) -> Result<Restored> {
    let document = archive.document();
    let resumable = task.restore()?;
    match destination.begin(document, Some(&resumable)) {
        // The earlier run was killed after its last step, before it could remove the task file.
        Err(error)
            if is_existing(&error)
                && task.is_resumed()
                && destination.is_complete(document, &resumable.record) =>
        {
            Ok(plan_restore(archive))
        }
        target => run(archive, target?, &|volume| task.log(Some(volume)), context),
    }
}

/// Opens the log of the volume with this index.
type LogOf<'a> = dyn Fn(u16) -> Result<RestoreLog<'static>> + Sync + 'a;

fn run(
    archive: &Archive,
    mut target: Box<dyn ImageWriter>,
    log: &LogOf<'_>,
    context: Context<'_>,
) -> Result<Restored> {
    // All sinks first: one that cannot be created should be known before hours of work.
    let mut sinks = Vec::new();
    for volume in &archive.root().manifest.volumes {
        sinks.push(target.create_volume(&volume.name, volume.size)?);
    }
    let stage = context.stage(Stage::Restore);
    let volumes = archive.volumes().zip(sinks);
    if target.parallel_volumes() > 1 {
        let count = archive.root().manifest.volumes.len();
        let (workers, plan) = context.plan.divided(target.parallel_volumes().min(count));
        unpack_in_parallel(volumes, log, workers, Context { plan: &plan, ..context })?;
    } else {
        for (volume, sink) in volumes {
            unpack_volume(&volume, sink, log(volume.index())?, context)?;
        }
    }
    stage.finish();
    commit(target, archive.document(), context)?;
    Ok(plan_restore(archive))
}

/// Restores several volumes in parallel. The first error cancels the others and is returned.
fn unpack_in_parallel(
    volumes: impl Iterator<Item = (ArchiveVolume, Arc<dyn BlockSink>)> + Send,
    log: &LogOf<'_>,
    workers: usize,
    context: Context<'_>,
) -> Result<()> {
    let cancel = context.cancel.child();
    let context = Context { cancel: &cancel, ..context };
    let waiting = Mutex::new(volumes);
    let worker = || -> Result<()> {
        loop {
            let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((volume, sink)) = next else { return Ok(()) };
            unpack_volume(&volume, sink, log(volume.index())?, context)?;
        }
    };
    run_parallel(&cancel, vec![&worker; workers]).map(drop)
}

/// Restores from a stream. The image is visible when this returns, and not before: a stream is
/// complete only when its end was checked.
pub fn restore_stream(
    input: impl Read + Send,
    target: impl FnOnce(&ImageDocument) -> Result<Box<dyn ImageWriter>> + Send,
    context: Context<'_>,
) -> Result<Restored> {
    struct Sinks<F> {
        make: Option<F>,
        target: Arc<Mutex<Option<Box<dyn ImageWriter>>>>,
    }
    impl<F> StreamSinks for Sinks<F>
    where
        F: FnOnce(&ImageDocument) -> Result<Box<dyn ImageWriter>> + Send,
    {
        fn begin(&mut self, document: &ImageDocument) -> Result<()> {
            let make = self.make.take().ok_or_else(|| Error::internal("a stream began twice"))?;
            *self.target.lock().unwrap_or_else(PoisonError::into_inner) = Some(make(document)?);
            Ok(())
        }

        fn volume(
            &mut self,
            id: &SnapshotId,
            size: VolumeSize,
        ) -> Result<Option<Arc<dyn BlockSink>>> {
            let mut target = self.target.lock().unwrap_or_else(PoisonError::into_inner);
            target.as_mut().map(|target| target.create_volume(id, size)).transpose()
        }
    }
    let stage = context.stage(Stage::Restore);
    let begun = Arc::new(Mutex::new(None));
    let mut sinks = Sinks { make: Some(target), target: begun.clone() };
    let summary = read_stream(input, &mut sinks, Depth::Blocks, context)?;
    stage.finish();
    let target = begun.lock().unwrap_or_else(PoisonError::into_inner).take();
    commit(
        target.ok_or_else(|| Error::internal("a stream ended and there is no target"))?,
        &summary.document,
        context,
    )?;
    Ok(Restored::new(&summary.document, &summary.root, &summary.footer, summary.archive_len))
}

fn commit(
    target: Box<dyn ImageWriter>,
    document: &ImageDocument,
    context: Context<'_>,
) -> Result<()> {
    context.cancel.check()?;
    let stage = context.stage(Stage::Sync);
    target.commit(document)?;
    stage.finish();
    Ok(())
}
