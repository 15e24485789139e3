//! A worker: performs recorded tasks, one after the other.
//!
//! A task that is stopped waits for the next server; a task without valid credentials waits for
//! them. A task that fails has ended, as with AWS; a new request continues its work, because the
//! task file stays.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::requests::{RestoreWork, StoreWork};
use super::site::Site;
use super::{Shared, lock, share_of};
use crate::aws::ec2::{Ec2Destination, Ec2Options, Ec2Source};
use crate::aws::{Compute, Session, needs_other_credentials};
use crate::base::{BLOCK_BYTES, Error, ErrorCode, Event, ImageId, Observer, Result, TaskKind};
use crate::engine::Archive;
use crate::localfs::exists;
use crate::object::{Attributes, ObjectStore};
use crate::ops::{
    BucketDestination, Destination, PlannedRestore, PlannedStore, Resumption, StoreOptions,
    open_ec2_image,
};
use crate::taskdb::{ClaimedTask, NewTask, Recorder, TaskRow, failure_reason, one_line_of};

/// The poll interval for tasks that other servers recorded or left.
const PAUSE: Duration = Duration::from_secs(1);
/// Attempts to record the end of a task.
const ATTEMPTS: u32 = 5;

/// The end of the work on a task.
enum Ending {
    Completed,
    /// The server stops.
    Left,
    /// The task waits for the given condition.
    Postponed(String),
    Failed(String),
}

/// Performs tasks until the service stops.
pub(super) fn work(shared: &Arc<Shared>) {
    let mut failures = 0_u32;
    while !shared.settings.cancel.is_cancelled() {
        match claim(shared) {
            Ok(Some(row)) => {
                failures = 0;
                run(shared, &row);
            }
            Ok(None) => {
                failures = 0;
                wait(shared);
            }
            Err(error) => {
                // Once a minute while it lasts.
                if failures.is_multiple_of(60) && !shared.settings.cancel.is_cancelled() {
                    warn(shared, format!("no task can be claimed: {}", one_line_of(&error)));
                }
                failures += 1;
                wait(shared);
            }
        }
    }
}

/// Claims the oldest task of all sites. STS is asked for the account of a site only if a task for
/// its endpoints is recorded, and none of a known account is to be done. An ended one suffices: the
/// status page shows it to its own account.
fn claim(shared: &Shared) -> Result<Option<TaskRow>> {
    let claim_known = || match shared.known_scopes().as_slice() {
        [] => Ok(None),
        scopes => shared.task_db.claim(scopes, &shared.owner),
    };
    if let Some(row) = claim_known()? {
        return Ok(Some(row));
    }
    let (mut failed, mut learned) = (None, false);
    for site in shared.sites.iter().filter(|site| site.known_scope().is_none()) {
        if shared.task_db.has_tasks_at(&site.endpoints())? {
            match shared.scope(site) {
                Ok(_) => learned = true,
                Err(error) => failed = Some(error),
            }
        }
    }
    if learned && let Some(row) = claim_known()? {
        return Ok(Some(row));
    }
    failed.map_or(Ok(None), Err)
}

fn wait(shared: &Shared) {
    let idle = lock(&shared.idle);
    if !shared.settings.cancel.is_cancelled() {
        drop(shared.wake.wait_timeout(idle, PAUSE));
    }
}

fn warn(shared: &Shared, message: String) {
    shared.counters.note(&Event::Warning { message });
}

fn run(shared: &Arc<Shared>, row: &TaskRow) {
    let (task_db, owner) = (shared.task_db.clone(), shared.owner.clone());
    let claimed = Arc::new(ClaimedTask { task_db, owner, id: row.id });
    let begun = Recorder::start(claimed, row.percent, shared.counters.clone());
    let outcome = begun.and_then(|recorder| {
        let observer = recorder.observer();
        lock(&shared.running).insert(row.id, recorder);
        let outcome = catch_unwind(AssertUnwindSafe(|| perform(shared, row, &observer)));
        // Dropped before the task ends: this records the last progress.
        let recorder = lock(&shared.running).remove(&row.id);
        drop(recorder);
        outcome.unwrap_or_else(|_| Err(Error::internal("the work ended in a defect of amistore")))
    });
    let ending = ending(shared, outcome);
    // Before the end is recorded: a client that reads a task as ended finds it in the counters.
    match ending {
        Ending::Completed => shared.counters.ended(true),
        Ending::Failed(_) => shared.counters.ended(false),
        Ending::Left | Ending::Postponed(_) => {}
    }
    note(shared, row, &ending);
    let what = format!("{} to {}", row.task.source, row.task.target);
    match ending {
        Ending::Left => {}
        Ending::Completed => {
            shared.counters.note(&Event::Note { message: format!("{what} is completed") });
        }
        Ending::Failed(reason) => warn(shared, format!("{what} failed: {reason}")),
        Ending::Postponed(reason) => warn(shared, format!("{what} waits for {reason}")),
    }
}

/// The end of a task with this outcome.
fn ending(shared: &Shared, outcome: Result<()>) -> Ending {
    match outcome {
        Ok(()) => Ending::Completed,
        Err(_) if shared.settings.cancel.is_cancelled() => Ending::Left,
        // The client is not the cause, and all other tasks would fail alike.
        Err(error) if needs_other_credentials(&error) => {
            Ending::Postponed(format!("valid credentials: {}", one_line_of(&error)))
        }
        Err(error) => Ending::Failed(failure_reason(&error)),
    }
}

/// Records the end of a task; repeats that until it succeeds.
fn note(shared: &Shared, row: &TaskRow, ending: &Ending) {
    for attempt in 1_u32.. {
        let (id, owner) = (row.id, shared.owner.as_ref());
        let noted = match ending {
            Ending::Completed => shared.task_db.complete(id, owner),
            Ending::Left => shared.task_db.release(id, owner),
            Ending::Postponed(reason) => shared.task_db.postpone(id, owner, reason),
            Ending::Failed(reason) => shared.task_db.fail(id, owner, reason),
        };
        match noted {
            Ok(()) => return,
            // The next server continues from the recorded state.
            Err(_) if shared.settings.cancel.is_cancelled() && attempt >= ATTEMPTS => return,
            Err(error) => {
                if attempt == ATTEMPTS {
                    warn(
                        shared,
                        format!(
                            "how a task ended cannot be noted, and is tried again until it can: {}",
                            one_line_of(&error)
                        ),
                    );
                }
                std::thread::sleep(PAUSE);
            }
        }
    }
}

fn perform(shared: &Arc<Shared>, row: &TaskRow, observer: &Arc<dyn Observer>) -> Result<()> {
    // An earlier server completed the task and was killed before it recorded that. If the task file
    // is there as well, continuing finds the image and removes the file.
    if row.restored_id.is_some() && !exists(&shared.settings.state.task_file(&row.task.target))? {
        return Ok(());
    }
    let once = |restart: bool| match row.task.kind {
        TaskKind::Store => store(shared, row, observer, restart),
        TaskKind::Restore => restore(shared, row, observer, restart),
        TaskKind::Copy => Err(Error::internal("a server does not copy")),
    };
    match once(false) {
        // The failed task had other tags, or was begun by another version.
        Err(error) if error.is(ErrorCode::BegunWithOtherSettings) => once(true),
        outcome => outcome,
    }
}

fn request<'a, T: serde::Deserialize<'a>>(row: &'a TaskRow) -> Result<T> {
    let text = row.task.request.as_deref().unwrap_or_default();
    serde_json::from_str(text)
        .map_err(|cause| Error::internal("cannot read what was asked for").because(cause))
}

fn resumption(shared: &Shared, row: &TaskRow, restart: bool) -> Resumption {
    Resumption { restart, ..shared.resumption(&row.task) }
}

impl Shared {
    /// The continuation of a task by the next server.
    pub(super) fn resumption(&self, task: &NewTask) -> Resumption {
        Resumption {
            directory: self.settings.state.clone(),
            command: self.settings.command.clone(),
            working_directory: std::env::current_dir()
                .map(|path| path.display().to_string())
                .unwrap_or_default(),
            source: task.source.clone(),
            target: task.target.clone(),
            restart: false,
        }
    }
}

/// Records the bytes of volumes of a task.
fn expect(shared: &Shared, row: &TaskRow, bytes: u64) {
    if let Some(recorder) = lock(&shared.running).get(&row.id) {
        recorder.expect(bytes);
    }
}

/// Connections of one task. All tasks share the quotas of the account.
fn compute(shared: &Shared, site: &Site, session: &Session) -> Result<Compute> {
    let settings = &shared.settings;
    let compute = session.compute(
        &site.settings.compute,
        &settings.compute_requests,
        settings.account_rate,
    )?;
    Ok(Compute { quotas: site.compute.quotas.clone(), ..compute })
}

fn store(
    shared: &Arc<Shared>,
    row: &TaskRow,
    observer: &Arc<dyn Observer>,
    restart: bool,
) -> Result<()> {
    let settings = &shared.settings;
    let work: StoreWork = request(row)?;
    let site = shared.site_of(row.task.scope.as_deref(), work.profile.as_deref())?;
    let session = shared.session.observed_by(observer.clone());
    let compute = compute(shared, site, &session)?;
    let source = Ec2Source::Image(ImageId::parse(&work.image_id)?);
    let account_rate = settings.account_rate;
    let (image, ebs) = open_ec2_image(&compute, &source, None, account_rate, observer.as_ref())?;
    let (access, requests) = (site.settings.archive.clone(), &settings.archive_requests);
    let store = session.bucket(&work.bucket, access, requests, settings.objects.clone())?;
    let destination = Destination::Bucket(Box::new(BucketDestination {
        is_checked: site.was_checked(&work.bucket, &work.object_key),
        allow_public: settings.allow_public_bucket,
        resumption: Some(resumption(shared, row, restart)),
        ..BucketDestination::new(store, work.object_key)
    }));
    let tags = work.tags.into_iter().collect();
    let options = StoreOptions {
        level: settings.level,
        attributes: Attributes { tags, ..Attributes::default() },
        ..StoreOptions::default()
    };
    let resources = share_of(settings);
    let planned = PlannedStore::new(&image, Some(&ebs), destination, options, &resources)?;
    expect(shared, row, planned.plan().volumes.bytes());
    planned.run(observer.as_ref(), &settings.cancel).map(drop)
}

fn restore(
    shared: &Arc<Shared>,
    row: &TaskRow,
    observer: &Arc<dyn Observer>,
    restart: bool,
) -> Result<()> {
    let settings = &shared.settings;
    let work: RestoreWork = request(row)?;
    let site = shared.site_of(row.task.scope.as_deref(), work.profile.as_deref())?;
    let session = shared.session.observed_by(observer.clone());
    let compute = compute(shared, site, &session)?;
    let (access, requests) = (site.settings.archive.clone(), &settings.archive_requests);
    let bucket = session.bucket(&work.bucket, access, requests, settings.objects.clone())?;
    let archive = Archive::open(bucket.open(&work.object_key)?)?;
    let volumes = &archive.root().manifest.volumes;
    let bytes = volumes.iter().map(|volume| (volume.blocks - volume.zero) * BLOCK_BYTES).sum();
    expect(shared, row, bytes);
    let (edits, observer) = (work.edits(), observer.clone());
    let options = Ec2Options::new(compute, edits, observer.clone());
    let (noting, id) = (shared.clone(), row.id);
    let destination = Ec2Destination::new(options).on_finished(Arc::new(move |restored| {
        match &restored.image_id {
            Some(image_id) => noting.task_db.note_image(id, &noting.owner, image_id.as_str()),
            None => Ok(()),
        }
    }));
    let noting = shared.clone();
    let destination = destination.on_snapshot(Arc::new(move |archived, snapshot| {
        let (archived, snapshot) = (archived.as_str(), snapshot.as_str());
        noting.task_db.note_snapshot(id, &noting.owner, archived, snapshot)
    }));
    let resumption = Some(resumption(shared, row, restart));
    let resources = &share_of(settings);
    let planned = PlannedRestore::to_ec2(
        &archive,
        &destination,
        resumption,
        resources,
        settings.account_rate,
    )?;
    planned.run(observer.as_ref(), &settings.cancel).map(drop)
}
