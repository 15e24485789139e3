//! The service: it checks requests and records them as tasks, and workers perform the tasks.
//!
//! However a server ends, the next one on the same state directory continues its tasks; several
//! servers share the work. It does not know HTTP.

mod counters;
mod refusal;
mod requests;
mod site;
mod views;
mod worker;

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::SystemTime;

use super::{
    Overview, Refusal, RestoreRequest, RestoredImage, Service, StorePage, StoreQuery, StoreRequest,
};
use crate::aws::ec2::Edits;
use crate::aws::s3::ObjectOptions;
use crate::aws::{Access, RequestSettings, Session};
use crate::base::{Cancel, Clock, Error, ErrorKind, ImageId, Observer, Result};
use crate::checkpoint::StateDirectory;
use crate::engine::Resources;
use crate::ops::smallest_store;
use crate::taskdb::{Owner, Recorder, Rules, SignatureUse, TaskDb};
use counters::Counters;
use site::Site;

/// Limits of the tasks of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskLimits {
    /// Tasks that run at one moment.
    pub max_tasks: usize,
    /// Tasks that wait.
    pub max_queued: u64,
    /// Bytes of the volumes of all unfinished stores. One task alone may be larger.
    pub store_bytes: u64,
    /// Bytes of the volumes of all unfinished restores. One task alone may be larger.
    pub restore_bytes: u64,
}

impl Default for TaskLimits {
    /// Two running tasks, a hundred waiting ones, and the bytes that AWS allows an account.
    fn default() -> Self {
        Self { max_tasks: 2, max_queued: 100, store_bytes: 1_200 << 30, restore_bytes: 600 << 30 }
    }
}

/// Settings of a [`TaskService`].
#[derive(Clone)]
pub struct TaskServiceSettings {
    /// The directory of the task database and of task files.
    pub state: StateDirectory,
    /// Threads, and the memory of all tasks together: each task gets an equal part of the memory.
    pub resources: Resources,
    /// Credentials, Region and endpoint of EC2 and EBS.
    pub compute: Access,
    /// Timeouts and retries of requests to EC2 and EBS.
    pub compute_requests: RequestSettings,
    /// The account of the credentials for EC2; `None` asks STS.
    pub account_id: Option<String>,
    /// Blocks a second that the account may read or write; `None` for the quota of the Region.
    pub account_rate: Option<u32>,
    /// Credentials, Region and endpoint of S3.
    pub archive: Access,
    /// Tags and encryption of restored images; the tags of a request come before these.
    pub edits: Edits,
    /// Other Regions, and other profiles that keys name.
    pub others: Vec<SiteSettings>,
    /// Timeouts and retries of requests to S3.
    pub archive_requests: RequestSettings,
    /// The zstd level of archives.
    pub level: i32,
    /// Options of all objects. The memory for parts is planned.
    pub objects: ObjectOptions,
    /// Whether archives may be stored in a public bucket.
    pub allow_public_bucket: bool,
    /// Limits of the tasks.
    pub limits: TaskLimits,
    /// The command that continues the work, for `amistore tasks`.
    pub command: Vec<String>,
    /// Stops all work; [`TaskService::stop`] cancels it. It must not be the child of another token.
    pub cancel: Cancel,
    /// Gets the warnings, notes and repeated requests of all tasks.
    pub observer: Arc<dyn Observer>,
    /// The wall clock of the task database.
    pub clock: Clock,
}

/// Settings of one more Region, or of the Region of one more profile.
#[derive(Clone)]
pub struct SiteSettings {
    /// The profile that access keys name; `None` for the server's own credentials.
    pub profile: Option<String>,
    /// Credentials, Region and endpoint of EC2 and EBS.
    pub compute: Access,
    /// The account of the credentials for EC2; `None` asks STS.
    pub account_id: Option<String>,
    /// Credentials, Region and endpoint of S3.
    pub archive: Access,
    /// As [`TaskServiceSettings::edits`]: a KMS key belongs to one Region.
    pub edits: Edits,
}

/// Records requests as tasks, and performs them until it is stopped or dropped.
pub struct TaskService {
    shared: Arc<Shared>,
    workers: Mutex<Vec<JoinHandle<()>>>,
}

/// The service of one site.
#[derive(Clone)]
struct SiteService {
    shared: Arc<Shared>,
    site: Arc<Site>,
}

/// State that requests and workers share.
struct Shared {
    settings: TaskServiceSettings,
    task_db: Arc<TaskDb>,
    owner: Arc<Owner>,
    session: Session,
    /// The server's own site first.
    sites: Vec<Arc<Site>>,
    counters: Arc<Counters>,
    /// Running tasks by their number.
    running: Mutex<HashMap<i64, Recorder>>,
    /// With `wake`: workers without a task wait here.
    idle: Mutex<()>,
    wake: Condvar,
}

impl TaskService {
    /// Opens the task database and starts its workers. No request to AWS is made before there is a
    /// task.
    pub fn start(settings: TaskServiceSettings) -> Result<Arc<Self>> {
        let limits = settings.limits;
        if limits.max_tasks == 0 || limits.max_queued == 0 {
            return Err(Error::usage(
                "a server that may do nothing is of no use: allow at least one task, running and \
                 waiting",
            ));
        }
        let share = share_of(&settings);
        let uses = smallest_store(settings.level);
        share.split(&uses).map_err(|error| {
            let least = limits.max_tasks as u64 * (Resources::least(&uses) >> 20);
            Error::new(
                ErrorKind::Limit,
                format!(
                    "the memory is too little for {} tasks at a time: give --memory {least}MiB, or \
                     allow fewer tasks",
                    limits.max_tasks
                ),
            )
            .because(error)
        })?;
        let counters = Arc::new(Counters::new(settings.observer.clone()));
        let session = Session::new(counters.clone(), settings.cancel.clone());
        let own = SiteSettings {
            profile: None,
            compute: settings.compute.clone(),
            account_id: settings.account_id.clone(),
            archive: settings.archive.clone(),
            edits: settings.edits.clone(),
        };
        let sites = std::iter::once(own).chain(settings.others.iter().cloned());
        let sites = sites
            .map(|site| Site::open(&session, &settings, site).map(Arc::new))
            .collect::<Result<Vec<_>>>()?;
        let task_db = TaskDb::with_clock(settings.state.path(), settings.clock.clone())?;
        let task_db = Arc::new(task_db);
        let owner = Arc::new(Owner::register(settings.state.path())?);
        let shared = Arc::new(Shared {
            task_db,
            owner,
            session,
            sites,
            counters,
            running: Mutex::default(),
            idle: Mutex::default(),
            wake: Condvar::new(),
            settings,
        });
        for site in &shared.sites {
            if let Some(account) = &site.settings.account_id {
                shared.know(site, account)?;
            }
        }
        let service = Self { shared: shared.clone(), workers: Mutex::default() };
        for number in 0..limits.max_tasks {
            let shared = shared.clone();
            let worker = std::thread::Builder::new()
                .name(format!("amistore-task-{number}"))
                .spawn(move || worker::work(&shared));
            lock(&service.workers).push(worker.map_err(|cause| {
                Error::io("cannot start the threads that work on tasks", cause)
            })?);
        }
        Ok(Arc::new(service))
    }

    /// The service of each of [`TaskServiceSettings::others`], with its Region.
    pub fn others(&self) -> Vec<(String, Arc<dyn Service>)> {
        let sites = self.shared.sites.iter().skip(1);
        sites
            .map(|site| {
                let service = SiteService { shared: self.shared.clone(), site: site.clone() };
                (site.compute.ec2.region(), Arc::new(service) as Arc<dyn Service>)
            })
            .collect()
    }

    /// The service of the server's own site.
    fn own(&self) -> SiteService {
        SiteService { shared: self.shared.clone(), site: self.shared.sites[0].clone() }
    }

    /// Stops all work, and returns when all workers have ended. Tasks stay in progress: the next
    /// server continues them.
    pub fn stop(&self) {
        self.shared.settings.cancel.cancel();
        self.shared.wake_all();
        let workers = std::mem::take(&mut *lock(&self.workers));
        for worker in workers {
            // The panic of a task was caught and recorded as its failure.
            let _ = worker.join();
        }
    }
}

impl Drop for TaskService {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Service for TaskService {
    fn create_store(&self, request: &StoreRequest, dry_run: bool) -> Result<String, Refusal> {
        self.own().create_store(request, dry_run)
    }

    fn store_tasks(&self, query: &StoreQuery) -> Result<StorePage, Refusal> {
        self.own().store_tasks(query)
    }

    fn create_restore(&self, request: &RestoreRequest, dry_run: bool) -> Result<ImageId, Refusal> {
        self.own().create_restore(request, dry_run)
    }

    fn is_foreign(&self, request: &RestoreRequest) -> Result<bool, Refusal> {
        self.own().is_foreign(request)
    }

    fn restored(&self, reserved: &ImageId) -> Result<Option<RestoredImage>, Refusal> {
        self.own().restored(reserved)
    }

    fn pending(&self) -> Result<Vec<RestoredImage>, Refusal> {
        self.own().pending()
    }

    fn restored_ids(&self) -> Result<HashMap<String, String>, Refusal> {
        self.own().restored_ids()
    }

    fn overview(&self) -> Result<Overview, Refusal> {
        self.own().overview()
    }

    fn use_signature(
        &self,
        signature: &[u8; 32],
        until: SystemTime,
    ) -> Result<Option<SystemTime>, Refusal> {
        self.own().use_signature(signature, until)
    }

    fn release_signature(&self, signature: &[u8; 32]) -> Result<(), Refusal> {
        self.own().release_signature(signature)
    }
}

impl Service for SiteService {
    fn create_store(&self, request: &StoreRequest, dry_run: bool) -> Result<String, Refusal> {
        self.shared.create_store(&self.site, request, dry_run)
    }

    fn store_tasks(&self, query: &StoreQuery) -> Result<StorePage, Refusal> {
        self.shared.store_tasks(&self.site, query)
    }

    fn create_restore(&self, request: &RestoreRequest, dry_run: bool) -> Result<ImageId, Refusal> {
        self.shared.create_restore(&self.site, request, dry_run)
    }

    fn is_foreign(&self, request: &RestoreRequest) -> Result<bool, Refusal> {
        self.shared.is_foreign(&self.site, request)
    }

    fn restored(&self, reserved: &ImageId) -> Result<Option<RestoredImage>, Refusal> {
        self.shared.restored(&self.site, reserved)
    }

    fn pending(&self) -> Result<Vec<RestoredImage>, Refusal> {
        self.shared.pending(&self.site)
    }

    fn restored_ids(&self) -> Result<HashMap<String, String>, Refusal> {
        self.shared.restored_ids(&self.site)
    }

    fn overview(&self) -> Result<Overview, Refusal> {
        self.shared.overview()
    }

    fn use_signature(
        &self,
        signature: &[u8; 32],
        until: SystemTime,
    ) -> Result<Option<SystemTime>, Refusal> {
        let used = self.shared.task_db.use_signature(signature, until);
        match used.map_err(|error| refusal::of_record(&error))? {
            SignatureUse::First => Ok(None),
            SignatureUse::Repeated(before) => Ok(Some(before)),
            SignatureUse::Forgotten => Err(refusal::of_forgotten_signature()),
        }
    }

    fn release_signature(&self, signature: &[u8; 32]) -> Result<(), Refusal> {
        self.shared.task_db.release_signature(signature).map_err(|error| refusal::of_record(&error))
    }
}

impl Shared {
    fn wake_all(&self) {
        let _idle = lock(&self.idle);
        self.wake.notify_all();
    }

    fn rules(&self, max_bytes: u64) -> Rules {
        Rules { max_queued: self.settings.limits.max_queued, max_bytes }
    }
}

/// The resources of one task.
fn share_of(settings: &TaskServiceSettings) -> Resources {
    Resources {
        threads: settings.resources.threads,
        memory: settings.resources.memory / settings.limits.max_tasks.max(1) as u64,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
