//! The interface of the endpoint, without HTTP.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use crate::aws::ec2_query::Params;
use crate::base::ImageId;

/// Performs the actions. Every method may block for the time of a few requests to AWS, and may be
/// called from many threads.
pub trait Service: Send + Sync {
    /// CreateStoreImageTask: checks the request, records the task durably and returns the key of
    /// the object. With `dry_run` nothing is recorded; the caller answers `DryRunOperation`.
    fn create_store(&self, request: &StoreRequest, dry_run: bool) -> Result<String, Refusal>;

    /// DescribeStoreImageTasks: store tasks of the last 31 days, newest first; with image ids only
    /// the newest task of each.
    fn store_tasks(&self, query: &StoreQuery) -> Result<StorePage, Refusal>;

    /// CreateRestoreImageTask: checks the request, records the task durably and returns a reserved
    /// id, by which [`restored`](Self::restored) finds the image: EC2 makes its
    /// own id only at the end.
    fn create_restore(&self, request: &RestoreRequest, dry_run: bool) -> Result<ImageId, Refusal>;

    /// Whether EC2 restores the object of a request, because it is not an archive of amistore. A
    /// name that a restore of this server has is refused.
    fn is_foreign(&self, request: &RestoreRequest) -> Result<bool, Refusal>;

    /// The image of a reserved id; `None` if this server did not reserve the id.
    fn restored(&self, reserved: &ImageId) -> Result<Option<RestoredImage>, Refusal>;

    /// The images that are being restored.
    fn pending(&self) -> Result<Vec<RestoredImage>, Refusal>;

    /// The images that were restored: of each the id of EC2, and the reserved one.
    fn restored_ids(&self) -> Result<HashMap<String, String>, Refusal>;

    /// Tasks and counters, for the status page and the metrics.
    fn overview(&self) -> Result<Overview, Refusal>;

    /// Records durably, and for all servers that share their tasks, that a signature was used; the
    /// record lasts until `until`. Returns the time of an earlier use. A signature whose record may
    /// be lost is refused.
    fn use_signature(
        &self,
        signature: &[u8; 32],
        until: SystemTime,
    ) -> Result<Option<SystemTime>, Refusal>;

    /// Forgets the use of a signature whose request failed in the server.
    fn release_signature(&self, signature: &[u8; 32]) -> Result<(), Refusal>;
}

/// A refusal in the words of EC2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// The code of EC2, such as `InvalidAMIID.NotFound`.
    pub code: String,
    /// The message: the problem, and the way to solve it.
    pub message: String,
}

/// Parameters of CreateStoreImageTask, checked for their form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreRequest {
    /// The image.
    pub image_id: ImageId,
    /// The bucket, without a path.
    pub bucket: String,
    /// The prefix of `<ami-id>.bin` in the key: empty, or with `/` at its end.
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
    /// The name of the new image; `None` for the name of the stored image.
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
    /// Filters of buckets: a task has to fit one pattern of each.
    pub buckets: Vec<Vec<String>>,
    /// The most tasks of the page.
    pub limit: usize,
    /// The `next` of the page before.
    pub after: Option<String>,
}

/// Store tasks, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorePage {
    /// The tasks.
    pub tasks: Vec<StoreResult>,
    /// The token of the next page: letters, digits and `-` only. It stays valid while tasks start
    /// and end.
    pub next: Option<String>,
}

/// A store task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreResult {
    /// The image.
    pub image_id: String,
    /// The time of the request.
    pub started: SystemTime,
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub object_key: String,
    /// From 0 to 100, of real work; 100 only when it is completed.
    pub percent: u8,
    /// `InProgress`, `Completed` or `Failed`.
    pub state: &'static str,
    /// The reason of a failure, and the way to solve it.
    pub reason: Option<String>,
}

/// The progress of a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreProgress {
    /// The task waits or runs.
    Pending,
    /// The image is registered.
    Available,
    /// It ended with an error.
    Failed,
}

/// The image of a restore, under the id that was reserved for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredImage {
    /// The reserved id.
    pub reserved: ImageId,
    /// EC2's own id, once there is an image.
    pub image_id: Option<ImageId>,
    /// The name it has or will have, if that is known already.
    pub name: Option<String>,
    /// The object: `bucket/key`.
    pub location: String,
    /// The time of the request.
    pub started: SystemTime,
    /// The state of the restore.
    pub progress: RestoreProgress,
    /// From 0 to 100.
    pub percent: u8,
    /// The reason of a failure, and the way to solve it.
    pub reason: Option<String>,
    /// The account that will own it, if that is known.
    pub owner: Option<String>,
    /// The parameters of its registration, in which the snapshots of the archive stand for those to
    /// come; empty if they are not recorded.
    pub attributes: Params,
    /// The snapshots that were begun: of each the id in the archive, and EC2's.
    pub snapshots: Vec<(String, String)>,
}

/// Tasks and counters.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    /// Waiting and running tasks, and those that ended lately, newest first; at most 200.
    pub tasks: Vec<Running>,
    /// Waiting tasks.
    pub queued: u64,
    /// Running tasks.
    pub running: u64,
    /// Tasks that completed since the server started.
    pub completed: u64,
    /// Tasks that failed since the server started.
    pub failed: u64,
    /// Bytes of volumes read or written since the server started.
    pub bytes: u64,
    /// Bytes sent and received since the server started.
    pub transferred: u64,
    /// Requests that were repeated since the server started.
    pub retries: u64,
}

/// A task of any kind, as it is shown.
#[derive(Clone, Debug)]
pub struct Running {
    /// `store`, `restore` or `copy`.
    pub kind: &'static str,
    /// Its image, if that is known.
    pub image_id: Option<String>,
    /// The name of the stored or of the new image, if that is known.
    pub name: Option<String>,
    /// Bytes of the volumes; `None` while they are unknown.
    pub size: Option<u64>,
    /// EC2's id of a restored image.
    pub restored_id: Option<String>,
    /// The source, for people.
    pub source: String,
    /// The target, for people.
    pub target: String,
    /// The time of the request.
    pub started: SystemTime,
    /// The time of its end.
    pub ended: Option<SystemTime>,
    /// `InProgress`, `Completed` or `Failed`.
    pub state: &'static str,
    /// True if it waits for a worker.
    pub queued: bool,
    /// From 0 to 100.
    pub percent: u8,
    /// Bytes of volumes a second, lately.
    pub rate: Option<u64>,
    /// The time to the end of the work at this rate.
    pub time_left: Option<Duration>,
    /// The reason of a failure, or of a wait.
    pub reason: Option<String>,
    /// `server`, or `command` for a run of the program.
    pub origin: &'static str,
}
