//! What the endpoint can be asked for, without HTTP.

use std::time::SystemTime;

use crate::base::ImageId;

/// Answers what was asked; every method may block for as long as a few requests to AWS take, and
/// may be called from many threads.
pub trait Service: Send + Sync {
    /// CreateStoreImageTask: checks what can be checked at once, remembers the task durably and
    /// returns the key of the object. With `dry_run` nothing is remembered, and success is for the
    /// caller to name `DryRunOperation`.
    fn create_store(&self, request: &StoreRequest, dry_run: bool) -> Result<String, Refusal>;

    /// DescribeStoreImageTasks: store tasks of the last 31 days, newest first; with image ids only
    /// the newest task of each.
    fn store_tasks(&self, query: &StoreQuery) -> Result<StorePage, Refusal>;

    /// CreateRestoreImageTask: checks what can be checked at once, remembers the task durably and
    /// returns a reserved id, by which [`restored`](Self::restored) finds the image: EC2 makes its
    /// own id only at the end.
    fn create_restore(&self, request: &RestoreRequest, dry_run: bool) -> Result<ImageId, Refusal>;

    /// What became of a reserved id; `None` if this is none of ours.
    fn restored(&self, reserved: &ImageId) -> Result<Option<RestoredImage>, Refusal>;

    /// What goes on, for people and for monitoring.
    fn overview(&self) -> Result<Overview, Refusal>;

    /// Remembers durably, and for all servers that share their tasks, that a signature was used; it
    /// has to be remembered until `until`. Returns when it was used before, if it was.
    fn use_signature(
        &self,
        signature: &[u8; 32],
        until: SystemTime,
    ) -> Result<Option<SystemTime>, Refusal>;

    /// Forgets that a signature was used: its request came to nothing.
    fn release_signature(&self, signature: &[u8; 32]) -> Result<(), Refusal>;
}

/// A refusal in the words of EC2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// Such as `InvalidAMIID.NotFound`.
    pub code: String,
    /// For people: what is wrong, and what to do.
    pub message: String,
}

/// Parameters of CreateStoreImageTask, checked for their form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreRequest {
    /// The image.
    pub image_id: ImageId,
    /// The bucket, without a path.
    pub bucket: String,
    /// What comes before `<ami-id>.bin` in the key: empty, or with `/` at its end.
    pub prefix: String,
    /// Tags of the object.
    pub tags: Vec<(String, String)>,
}

/// Parameters of CreateRestoreImageTask, checked for their form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreRequest {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub object_key: String,
    /// The name of the new image; that of the stored one, if nothing is said.
    pub name: Option<String>,
    /// Tags of the new image, beside those it had.
    pub image_tags: Vec<(String, String)>,
    /// Tags of the new snapshots, beside those they had.
    pub snapshot_tags: Vec<(String, String)>,
}

/// Which store tasks are asked for. Empty lists ask for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreQuery {
    /// Only these images, and of each only the newest task.
    pub image_ids: Vec<ImageId>,
    /// Filters of states, which are `InProgress`, `Completed` and `Failed`: a task has to fit one
    /// pattern of each.
    pub states: Vec<Vec<String>>,
    /// Filters of buckets: the same.
    pub buckets: Vec<Vec<String>>,
    /// At most so many.
    pub limit: usize,
    /// Where the page before ended.
    pub after: Option<String>,
}

/// Store tasks, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorePage {
    /// The tasks.
    pub tasks: Vec<StoreResult>,
    /// Where to go on, if there are more: letters, digits and `-` only. It stays good while tasks
    /// come and end.
    pub next: Option<String>,
}

/// A store task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreResult {
    /// The image.
    pub image_id: String,
    /// When it was asked for.
    pub started: SystemTime,
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub object_key: String,
    /// From 0 to 100, of real work; 100 only when it is completed.
    pub percent: u8,
    /// `InProgress`, `Completed` or `Failed`.
    pub state: &'static str,
    /// Why it failed, and what to do.
    pub reason: Option<String>,
}

/// What became of a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreProgress {
    /// Waiting or under way.
    Pending,
    /// The image is registered.
    Available,
    /// It ended with an error.
    Failed,
}

/// The image of a restore, under the id that was reserved for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredImage {
    /// The id that was given to whoever asked.
    pub reserved: ImageId,
    /// EC2's own id, once there is an image.
    pub image_id: Option<ImageId>,
    /// The name it has or will have, if that is known already.
    pub name: Option<String>,
    /// The object: `bucket/key`.
    pub location: String,
    /// When it was asked for.
    pub started: SystemTime,
    /// How far it is.
    pub progress: RestoreProgress,
    /// From 0 to 100.
    pub percent: u8,
    /// Why it failed, and what to do.
    pub reason: Option<String>,
}

/// What goes on.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    /// Waiting and running tasks, and those that ended lately, newest first; at most 200.
    pub tasks: Vec<Running>,
    /// How many wait.
    pub queued: u64,
    /// How many are worked on.
    pub running: u64,
    /// How many ended well since the server began.
    pub completed: u64,
    /// How many failed since the server began.
    pub failed: u64,
    /// Bytes of volumes handled since the server began.
    pub bytes: u64,
    /// Bytes sent and received since the server began.
    pub transferred: u64,
    /// Requests that were made again since the server began.
    pub retries: u64,
}

/// A task of any kind, as it is shown.
#[derive(Clone, Debug)]
pub struct Running {
    /// `store`, `restore` or `copy`.
    pub kind: &'static str,
    /// Its image, if that is known.
    pub image_id: Option<String>,
    /// EC2's id of a restored image.
    pub restored_id: Option<String>,
    /// From where.
    pub source: String,
    /// To where.
    pub target: String,
    /// When it was asked for.
    pub started: SystemTime,
    /// When it ended.
    pub ended: Option<SystemTime>,
    /// `InProgress`, `Completed` or `Failed`.
    pub state: &'static str,
    /// Whether it waits for its turn.
    pub queued: bool,
    /// From 0 to 100.
    pub percent: u8,
    /// Bytes of volumes a second, lately.
    pub rate: Option<u64>,
    /// Why it failed, or what it waits for.
    pub reason: Option<String>,
    /// Who works on it: `server`, or `command` for a run of the program.
    pub origin: &'static str,
}
