//! The service: it checks requests and records them as tasks, and workers perform the tasks.
//!
//! However a server ends, the next one on the same state directory continues its tasks; several
//! servers share the work. It does not know HTTP.

mod counters;
mod refusal;
mod requests;
mod views;
mod worker;

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use super::{
    Overview, Refusal, RestoreRequest, RestoredImage, Service, StorePage, StoreQuery, StoreRequest,
};
use crate::aws::s3::{ObjectOptions, S3Connection};
use crate::aws::{Access, Compute, Credentials, RequestSettings, RetryPolicy, Session};
use crate::base::{Cancel, Clock, Error, ErrorKind, ImageId, Observer, Result};
use crate::checkpoint::StateDirectory;
use crate::engine::Resources;
use crate::ops::smallest_store;
use crate::taskdb::{Owner, Recorder, Rules, ScopeFilter, SignatureUse, TaskDb, one_line_of};
use counters::Counters;

/// The zstd level of servers.
const LEVEL: i32 = 1;

/// The pause after a failed request for the account, and the longest time of each of its parts.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// The account of credentials without any identity.
const ANY_ACCOUNT: &str = "unknown";

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
    /// Timeouts and retries of requests to S3.
    pub archive_requests: RequestSettings,
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

/// Records requests as tasks, and performs them until it is stopped or dropped.
pub struct TaskService {
    shared: Arc<Shared>,
    workers: Mutex<Vec<JoinHandle<()>>>,
}

/// State that requests and workers share.
struct Shared {
    settings: TaskServiceSettings,
    task_db: Arc<TaskDb>,
    owner: Arc<Owner>,
    session: Session,
    compute: Compute,
    archive: S3Connection,
    /// The account, Region and endpoints of this server, once the account is known: servers of
    /// other scopes leave its tasks alone.
    scope: OnceLock<String>,
    /// The time and error of the last failed request for the account.
    failed_lookup: Mutex<Option<(Instant, Error)>>,
    counters: Arc<Counters>,
    /// Buckets and keys that were checked when their requests arrived, and the times.
    checks: Mutex<HashMap<(String, String), Instant>>,
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
        let uses = smallest_store(LEVEL);
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
        let compute = session.compute(
            &settings.compute,
            &settings.compute_requests,
            settings.account_rate,
        )?;
        let archive = session.s3(settings.archive.clone(), &settings.archive_requests)?;
        let task_db = TaskDb::with_clock(settings.state.path(), settings.clock.clone())?;
        let task_db = Arc::new(task_db);
        let owner = Arc::new(Owner::register(settings.state.path())?);
        let shared = Arc::new(Shared {
            scope: OnceLock::new(),
            failed_lookup: Mutex::default(),
            task_db,
            owner,
            session,
            compute,
            archive,
            counters,
            checks: Mutex::default(),
            running: Mutex::default(),
            idle: Mutex::default(),
            wake: Condvar::new(),
            settings,
        });
        if let Some(account) = &shared.settings.account_id {
            shared.know(account)?;
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
        self.shared.create_store(request, dry_run)
    }

    fn store_tasks(&self, query: &StoreQuery) -> Result<StorePage, Refusal> {
        self.shared.store_tasks(query)
    }

    fn create_restore(&self, request: &RestoreRequest, dry_run: bool) -> Result<ImageId, Refusal> {
        self.shared.create_restore(request, dry_run)
    }

    fn restored(&self, reserved: &ImageId) -> Result<Option<RestoredImage>, Refusal> {
        self.shared.restored(reserved)
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

    /// The scope: account, Region and endpoints. STS is asked for the account when it is needed for
    /// the first time. Access keys do not identify it: they are rotated, and their tasks would be
    /// orphaned.
    fn scope(&self) -> Result<&str> {
        if let Some(scope) = self.scope.get() {
            return Ok(scope);
        }
        // Of concurrent callers one asks, and all get its result.
        let mut failed = lock(&self.failed_lookup);
        if let Some(scope) = self.scope.get() {
            return Ok(scope);
        }
        if let Some((_, error)) = failed.as_ref().filter(|(at, _)| at.elapsed() < ASK_AGAIN) {
            return Err(unknown(error));
        }
        match self.who() {
            Ok(who) => self.know(&who),
            Err(error) => {
                let unknown = unknown(&error);
                *failed = Some((Instant::now(), error));
                Err(unknown)
            }
        }
    }

    fn know(&self, who: &str) -> Result<&str> {
        let scope = format!("{who} {}", self.endpoints());
        // These may be other credentials than the ones for which tasks wait.
        self.task_db.rouse(&scope)?;
        Ok(self.scope.get_or_init(|| scope))
    }

    fn who(&self) -> Result<String> {
        let access = &self.settings.compute;
        // Short timeouts: with valid credentials it is one short request.
        let requests = &self.settings.compute_requests;
        let retry =
            RetryPolicy { max_attempts: requests.retry.max_attempts.min(2), ..requests.retry };
        let settings = RequestSettings {
            retry,
            idle_timeout: requests.idle_timeout.min(ASK_AGAIN),
            ..requests.clone()
        };
        let access_to_sts = Access {
            connect_timeout: Some(access.connect_timeout.unwrap_or(ASK_AGAIN).min(ASK_AGAIN)),
            ..access.clone()
        };
        if let Some(account) = self.session.account(&access_to_sts, &settings)? {
            return Ok(account);
        }
        // A compatible service without accounts: profiles and long-lived keys distinguish users.
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Ok(match (&access.credentials, &access.profile) {
            (Credentials::Static(credentials), _) => credentials.access_key_id.clone(),
            (Credentials::Anonymous, _) => "anonymous".to_owned(),
            (Credentials::Chain, profile) => {
                let key = variable("AWS_ACCESS_KEY_ID").filter(|key| !key.starts_with("ASIA"));
                profile
                    .clone()
                    .or_else(|| variable("AWS_PROFILE"))
                    .or(key)
                    .unwrap_or_else(|| ANY_ACCOUNT.to_owned())
            }
        })
    }

    fn endpoints(&self) -> String {
        let archive_profile = self.settings.archive.profile.as_deref().unwrap_or_default();
        let (region, ec2, ebs) =
            (self.compute.ec2.region(), self.compute.ec2.endpoint(), self.compute.ebs.endpoint());
        format!("{region} ec2={ec2} ebs={ebs} s3={} as={archive_profile}", self.archive.endpoint())
    }

    /// Reads the tasks of this server. The account may be unknown: no request to AWS is made for
    /// reading.
    fn with_scope<T>(&self, read: impl FnOnce(&ScopeFilter<'_>) -> T) -> T {
        match self.scope.get() {
            Some(scope) => read(&ScopeFilter::Scope(scope)),
            None => read(&ScopeFilter::Endpoints(&self.endpoints())),
        }
    }

    fn rules(&self, max_bytes: u64) -> Rules {
        Rules { max_queued: self.settings.limits.max_queued, max_bytes }
    }
}

fn unknown(cause: &Error) -> Error {
    Error::new(
        cause.kind(),
        "it is not known whose tasks these credentials are for: name the account with --account-id",
    )
    .because(one_line_of(cause))
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
