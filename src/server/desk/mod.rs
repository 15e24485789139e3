//! The service with real work behind it: requests are checked and recorded, and workers do what is recorded, one after the other and some at a time.
//!
//! Whatever ends a server, the next one on the same state directory goes on where it stopped; several of them share the work. It does not know HTTP.

mod refusal;
mod requests;
mod tally;
mod views;
mod worker;

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::SystemTime;

use super::{Overview, Refusal, RestoreRequest, RestoredImage, Service, StorePage, StoreQuery, StoreRequest};
use crate::aws::Access;
use crate::aws::s3::{ObjectOptions, S3Link};
use crate::base::{Cancel, Error, ErrorKind, ImageId, Observer, Result};
use crate::setup::{Compute, LinkSettings, Links, Recorder, Resources};
use crate::state::StateDirectory;
use crate::tasks::{Ledger, Owner, Rules};
use tally::Tally;

/// The level at which servers compress.
const LEVEL: i32 = 1;

/// How much is taken on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskLimits {
    /// Tasks that are worked on at once.
    pub max_tasks: usize,
    /// Tasks that wait.
    pub max_queued: u64,
    /// Bytes of volumes in all unfinished stores. One task alone may be larger.
    pub store_bytes: u64,
    /// The same of restores.
    pub restore_bytes: u64,
}

impl Default for TaskLimits {
    /// Two at once, a hundred that wait, and as many bytes as AWS allows an account.
    fn default() -> Self {
        Self { max_tasks: 2, max_queued: 100, store_bytes: 1_200 << 30, restore_bytes: 600 << 30 }
    }
}

/// What a desk needs.
#[derive(Clone)]
pub struct DeskSettings {
    /// Where tasks are recorded, and unfinished work is remembered.
    pub state: StateDirectory,
    /// Threads that compute, and memory of all tasks together: each gets its part of the memory.
    pub resources: Resources,
    /// Credentials, Region and endpoint of EC2 and EBS.
    pub compute: Access,
    /// How requests to EC2 and EBS are made.
    pub compute_link: LinkSettings,
    /// The account of the credentials for EC2, if it is not to be asked for.
    pub account_id: Option<String>,
    /// Blocks a second that the account may read or write, if it is not what the Region gives.
    pub account_rate: Option<u32>,
    /// Credentials, Region and endpoint of S3.
    pub archive: Access,
    /// How requests to S3 are made.
    pub archive_link: LinkSettings,
    /// What is asked for with every object. The memory for parts is planned.
    pub objects: ObjectOptions,
    /// Whether archives may go to a bucket that everybody may read.
    pub allow_public_bucket: bool,
    /// How much is taken on.
    pub limits: TaskLimits,
    /// What `amistore tasks` shows as the command that continues the work.
    pub command: Vec<String>,
    /// Asks everything to stop; [`Desk::stop`] sets it. It must not be a part of another one.
    pub cancel: Cancel,
    /// Hears of warnings, notes and repeated requests of all tasks.
    pub observer: Arc<dyn Observer>,
}

/// Takes requests, and works on them until it is stopped or dropped.
pub struct Desk {
    shared: Arc<Shared>,
    workers: Mutex<Vec<JoinHandle<()>>>,
}

/// What requests and workers share.
struct Shared {
    settings: DeskSettings,
    ledger: Arc<Ledger>,
    owner: Arc<Owner>,
    links: Links,
    compute: Compute,
    archive: S3Link,
    /// What this server is for, once that is known: others leave its tasks alone.
    scope: OnceLock<String>,
    asking: Mutex<()>,
    tally: Arc<Tally>,
    /// Tasks that are worked on, by their number.
    running: Mutex<HashMap<i64, Recorder>>,
    /// Workers wait here.
    idle: Mutex<()>,
    wake: Condvar,
}

impl Desk {
    /// Opens the record of tasks and starts to work on what is in it. No request is made before there is a task.
    pub fn start(settings: DeskSettings) -> Result<Arc<Self>> {
        let limits = settings.limits;
        if limits.max_tasks == 0 || limits.max_queued == 0 {
            return Err(Error::usage("a server that may do nothing is of no use: allow at least one task, running and waiting"));
        }
        let share = share_of(&settings);
        share.check_smallest_store(LEVEL).map_err(|error| {
            let least = limits.max_tasks as u64 * (Resources::LEAST_FOR_STORE >> 20);
            Error::new(
                ErrorKind::Limit,
                format!(
                    "the memory is too little for {} tasks at a time: give --memory {least}MiB, or allow fewer tasks",
                    limits.max_tasks
                ),
            )
            .because(error)
        })?;
        let tally = Arc::new(Tally::new(settings.observer.clone()));
        let links = Links::new(tally.clone(), settings.cancel.clone());
        let compute = links.compute(&settings.compute, &settings.compute_link, settings.account_rate)?;
        let archive = links.objects(settings.archive.clone(), &settings.archive_link)?;
        let ledger = Arc::new(Ledger::open(settings.state.path())?);
        let owner = Arc::new(Owner::register(settings.state.path())?);
        let shared = Arc::new(Shared {
            scope: OnceLock::new(),
            asking: Mutex::default(),
            ledger,
            owner,
            links,
            compute,
            archive,
            tally,
            running: Mutex::default(),
            idle: Mutex::default(),
            wake: Condvar::new(),
            settings,
        });
        let desk = Self { shared: shared.clone(), workers: Mutex::default() };
        for number in 0..limits.max_tasks {
            let shared = shared.clone();
            let worker = std::thread::Builder::new().name(format!("amistore-task-{number}")).spawn(move || worker::work(&shared));
            lock(&desk.workers).push(worker.map_err(|cause| Error::io("cannot start the threads that work on tasks", cause))?);
        }
        Ok(Arc::new(desk))
    }

    /// Stops all work, and returns when nobody works any more. Tasks stay in progress: the next server goes on with them.
    pub fn stop(&self) {
        self.shared.settings.cancel.cancel();
        self.shared.wake_all();
        let workers = std::mem::take(&mut *lock(&self.workers));
        for worker in workers {
            // A panic in it was caught, and is the failure of its task.
            let _ = worker.join();
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Service for Desk {
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

    fn use_signature(&self, signature: &[u8; 32], until: SystemTime) -> Result<Option<SystemTime>, Refusal> {
        self.shared.ledger.use_signature(signature, until).map_err(|error| refusal::of_record(&error))
    }

    fn release_signature(&self, signature: &[u8; 32]) -> Result<(), Refusal> {
        self.shared.ledger.release_signature(signature).map_err(|error| refusal::of_record(&error))
    }
}

impl Shared {
    fn wake_all(&self) {
        let _idle = lock(&self.idle);
        self.wake.notify_all();
    }

    /// Account, Region and endpoints. The account is asked for when it is needed for the first time, and not by the names of keys: those change, and tasks would be nobody's.
    fn scope(&self) -> Result<&str> {
        if let Some(scope) = self.scope.get() {
            return Ok(scope);
        }
        // Of those who need it at the same time one asks.
        let _asking = lock(&self.asking);
        if let Some(scope) = self.scope.get() {
            return Ok(scope);
        }
        let settings = &self.settings;
        let account = match &settings.account_id {
            Some(account) => Some(account.clone()),
            None => self.links.account(&settings.compute, &settings.compute_link)?,
        };
        // Where nobody knows accounts, profiles may tell them apart.
        let profile = || settings.compute.profile.clone().or_else(|| std::env::var("AWS_PROFILE").ok()).unwrap_or_default();
        let who = account.unwrap_or_else(|| format!("profile {}", profile()));
        let archive_profile = settings.archive.profile.as_deref().unwrap_or_default();
        let (region, ec2, ebs) = (self.compute.ec2.region(), self.compute.ec2.endpoint(), self.compute.ebs.endpoint());
        let scope = format!("{who} {region} ec2={ec2} ebs={ebs} s3={} as={archive_profile}", self.archive.endpoint());
        Ok(self.scope.get_or_init(|| scope))
    }

    fn rules(&self, max_bytes: u64) -> Rules {
        Rules { max_queued: self.settings.limits.max_queued, max_bytes }
    }
}

/// What one task may take.
fn share_of(settings: &DeskSettings) -> Resources {
    Resources { threads: settings.resources.threads, memory: settings.resources.memory / settings.limits.max_tasks.max(1) as u64 }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
