//! Restores an archive to a place where images live.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use super::resume::{NOTE_WITH_DIGESTS, Resumption, Work, is_existing};
use crate::base::{BLOCK_BYTES, Error, Result, SnapshotId, Stage, VolumeSize, hex};
use crate::checkpoint::TaskKind;
use crate::engine::{
    Archive, Context, Purpose, RestoreLog, StreamSinks, read_stream, run_lanes, unpack,
};
use crate::format::{Footer, RootRecord};
use crate::image::ImageDocument;
use crate::image::{ImagePlace, ImageTarget};
use crate::volume::BlockSink;

/// What was restored.
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

/// What a restore would do; nothing is written.
pub fn plan_restore(archive: &Archive) -> Restored {
    Restored::new(archive.document(), archive.root(), archive.footer(), archive.reader().len())
}

/// Restores all volumes by random access. The image is visible when this returns, and not before;
/// after an error nothing is left of it.
pub fn restore(
    archive: &Archive,
    target: Box<dyn ImageTarget>,
    context: Context<'_>,
) -> Result<Restored> {
    run(archive, target, &|_| Ok(RestoreLog::none()), context)
}

/// The same, so that it can be continued: what was written is kept after an error, and is not
/// written again by the next run. With other `settings` it cannot be continued.
pub fn restore_resumable(
    archive: &Archive,
    place: &dyn ImagePlace,
    settings: &[&str],
    resumption: &Resumption,
    context: Context<'_>,
) -> Result<Restored> {
    let work = Work {
        kind: TaskKind::Restore,
        image_id: archive.document().image_id().map(ToString::to_string),
        expected: archive
            .root()
            .manifest
            .volumes
            .iter()
            .map(|volume| (volume.blocks - volume.zero) * BLOCK_BYTES)
            .sum(),
        fingerprint: &[&hex(&archive.footer().root)],
        settings,
        note: NOTE_WITH_DIGESTS,
    };
    let task = resumption.begin(&work, context.observer, |earlier| place.clean(earlier))?;
    let shared = task.shared();
    let outcome = match place.begin(archive.document(), Some(&shared)) {
        // The earlier run was killed after the last name, and before it could forget the task.
        Err(error)
            if is_existing(&error) && task.is_resumed() && place.is_there(archive.document()) =>
        {
            Ok(plan_restore(archive))
        }
        target => {
            target.and_then(|target| run(archive, target, &|volume| task.log(volume), context))
        }
    };
    task.end(outcome, resumption, |earlier| place.clean(earlier))
}

/// What was noted of a volume, or of all, and where to note more.
type LogOf<'a> = dyn Fn(Option<u16>) -> Result<RestoreLog<'static>> + Sync + 'a;

fn run(
    archive: &Archive,
    mut target: Box<dyn ImageTarget>,
    log: &LogOf<'_>,
    context: Context<'_>,
) -> Result<Restored> {
    // All targets first: one that cannot be made should be known before hours of work.
    let mut sinks = Vec::new();
    for volume in &archive.root().manifest.volumes {
        sinks.push(Some(target.create_volume(&volume.name, volume.size)?));
    }
    let stage = context.stage(Stage::Restore);
    // What was noted of such volumes is told apart by volume, even if there is memory for one at a
    // time only.
    if target.lanes() > 1 {
        let (lanes, plan) = context.plan.divided(target.lanes().min(sinks.len()));
        side_by_side(archive, sinks, log, lanes, Context { plan: &plan, ..context })?;
    } else {
        let mut sink_for = |volume: u16| Ok(sinks[usize::from(volume)].take());
        unpack(archive, Purpose::Restore(&mut sink_for, log(None)?), context)?;
    }
    stage.finish();
    commit(target, archive.document(), context)?;
    Ok(plan_restore(archive))
}

/// Restores several volumes at a time. The first error ends all, and is the one that is returned.
fn side_by_side(
    archive: &Archive,
    sinks: Vec<Option<Arc<dyn BlockSink>>>,
    log: &LogOf<'_>,
    lanes: usize,
    context: Context<'_>,
) -> Result<()> {
    let cancel = context.cancel.child();
    let context = Context { cancel: &cancel, ..context };
    let waiting = Mutex::new(sinks.into_iter().enumerate());
    let lane = || -> Result<()> {
        loop {
            let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((index, mut sink)) = next else { return Ok(()) };
            let volume = index as u16;
            let mut sink_for = |wanted: u16| Ok(if wanted == volume { sink.take() } else { None });
            unpack(archive, Purpose::Restore(&mut sink_for, log(Some(volume))?), context)?;
        }
    };
    run_lanes(&cancel, vec![&lane; lanes]).map(drop)
}

/// Restores from a stream. The image is visible when this returns, and not before: until the end of
/// the stream nobody knows whether it is whole.
pub fn restore_stream(
    input: impl Read + Send,
    target: impl FnOnce(&ImageDocument) -> Result<Box<dyn ImageTarget>> + Send,
    context: Context<'_>,
) -> Result<Restored> {
    struct Sinks<F> {
        make: Option<F>,
        target: Arc<Mutex<Option<Box<dyn ImageTarget>>>>,
    }
    impl<F: FnOnce(&ImageDocument) -> Result<Box<dyn ImageTarget>> + Send> StreamSinks for Sinks<F> {
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
    let slot = Arc::new(Mutex::new(None));
    let summary =
        read_stream(input, &mut Sinks { make: Some(target), target: slot.clone() }, context)?;
    stage.finish();
    let target = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
    commit(
        target.ok_or_else(|| Error::internal("a stream ended and there is no target"))?,
        &summary.document,
        context,
    )?;
    Ok(Restored::new(&summary.document, &summary.root, &summary.footer, summary.archive_len))
}

fn commit(
    target: Box<dyn ImageTarget>,
    document: &ImageDocument,
    context: Context<'_>,
) -> Result<()> {
    context.cancel.check()?;
    let stage = context.stage(Stage::Sync);
    target.commit(document)?;
    stage.finish();
    Ok(())
}
