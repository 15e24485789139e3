//! A service in memory: it remembers what it was asked for and says what it was told.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use amistore::internals::aws::ec2_query::Params;
use amistore::internals::base::{Clock, ImageId};
use amistore::internals::server::{
    Overview, Refusal, RestoreProgress, RestoreRequest, RestoredImage, Running, Service, StorePage,
    StoreQuery, StoreRequest, StoreResult,
};

pub const RESERVED: &str = "ami-00000000000000aaa";

#[derive(Debug, PartialEq)]
pub enum Heard {
    Store(StoreRequest, bool),
    Tasks(StoreQuery),
    Restore(RestoreRequest, bool),
}

#[derive(Default)]
pub struct Memory {
    pub heard: Mutex<Vec<Heard>>,
    pub tasks: Mutex<Vec<StoreResult>>,
    pub images: Mutex<BTreeMap<String, RestoredImage>>,
    /// Said instead of anything else.
    pub refusal: Mutex<Option<Refusal>>,
    pub panics: AtomicBool,
    pub used: Mutex<BTreeMap<[u8; 32], SystemTime>>,
    pub clock: Clock,
    /// Whether creations wait until they are let go.
    is_paused: Mutex<bool>,
    let_go: Condvar,
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

pub fn id(text: &str) -> ImageId {
    ImageId::parse(text).expect("an image id")
}

pub fn task(image: &str, state: &'static str, seconds: u64) -> StoreResult {
    StoreResult {
        image_id: image.to_owned(),
        started: SystemTime::UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 1),
        bucket: "my-bucket".to_owned(),
        object_key: format!("a&b/{image}.bin"),
        percent: 17,
        state,
        reason: (state == "Failed").then(|| "the <bucket> is full".to_owned()),
    }
}

pub fn restored(reserved: &str, real: Option<&str>, progress: RestoreProgress) -> RestoredImage {
    RestoredImage {
        reserved: id(reserved),
        image_id: real.map(id),
        name: Some("restored & named".to_owned()),
        location: "my-bucket/a.bin".to_owned(),
        started: SystemTime::UNIX_EPOCH + Duration::from_secs(1_759_887_105),
        progress,
        percent: 40,
        reason: (progress == RestoreProgress::Failed).then(|| "no such object".to_owned()),
        owner: None,
        attributes: Params::new(),
        snapshots: Vec::new(),
    }
}

impl Memory {
    pub fn with_clock(clock: Clock) -> Self {
        Self { clock, ..Self::default() }
    }

    pub fn hold(&self) {
        *lock(&self.is_paused) = true;
    }

    pub fn let_go(&self) {
        *lock(&self.is_paused) = false;
        self.let_go.notify_all();
    }

    pub fn add(&self, image: RestoredImage) {
        lock(&self.images).insert(image.reserved.to_string(), image);
    }

    fn hear(&self, heard: Heard) -> Result<(), Refusal> {
        let waits = !matches!(heard, Heard::Tasks(_));
        lock(&self.heard).push(heard);
        assert!(!self.panics.load(Ordering::SeqCst), "asked to panic");
        let mut is_paused = lock(&self.is_paused);
        while waits && *is_paused {
            is_paused =
                self.let_go.wait(is_paused).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        lock(&self.refusal).clone().map_or(Ok(()), Err)
    }
}

impl Service for Memory {
    fn create_store(&self, request: &StoreRequest, dry_run: bool) -> Result<String, Refusal> {
        self.hear(Heard::Store(request.clone(), dry_run))?;
        Ok(format!("{}{}.bin", request.prefix, request.image_id))
    }

    fn store_tasks(&self, query: &StoreQuery) -> Result<StorePage, Refusal> {
        self.hear(Heard::Tasks(query.clone()))?;
        let from = query.after.as_deref().map_or(0, |after| {
            after.trim_start_matches("at-").parse().expect("what was given out")
        });
        let tasks = lock(&self.tasks);
        let page: Vec<StoreResult> = tasks.iter().skip(from).take(query.limit).cloned().collect();
        let next = (from + page.len() < tasks.len()).then(|| format!("at-{}", from + page.len()));
        Ok(StorePage { tasks: page, next })
    }

    fn create_restore(&self, request: &RestoreRequest, dry_run: bool) -> Result<ImageId, Refusal> {
        self.hear(Heard::Restore(request.clone(), dry_run))?;
        Ok(id(RESERVED))
    }

    fn is_foreign(&self, request: &RestoreRequest) -> Result<bool, Refusal> {
        Ok(request.object_key.starts_with("foreign"))
    }

    fn restored(&self, reserved: &ImageId) -> Result<Option<RestoredImage>, Refusal> {
        Ok(lock(&self.images).get(reserved.as_str()).cloned())
    }

    fn pending(&self) -> Result<Vec<RestoredImage>, Refusal> {
        let images = lock(&self.images);
        let pending = |image: &&RestoredImage| image.progress == RestoreProgress::Pending;
        Ok(images.values().filter(pending).cloned().collect())
    }

    fn restored_ids(&self) -> Result<HashMap<String, String>, Refusal> {
        let pair = |image: &RestoredImage| {
            Some((image.image_id.as_ref()?.to_string(), image.reserved.to_string()))
        };
        Ok(lock(&self.images).values().filter_map(pair).collect())
    }

    fn overview(&self) -> Result<Overview, Refusal> {
        let running = Running {
            kind: "store",
            image_id: Some("ami-0123456789abcdef0".to_owned()),
            name: Some("web <b>2026</b>".to_owned()),
            size: Some(8 << 30),
            restored_id: None,
            source: "<script>alert(1)</script>".to_owned(),
            target: "s3://my-bucket/".to_owned(),
            started: SystemTime::UNIX_EPOCH,
            ended: None,
            state: "InProgress",
            queued: false,
            percent: 42,
            rate: Some(1 << 20),
            time_left: Some(Duration::from_secs(75)),
            reason: None,
            origin: "server",
        };
        Ok(Overview {
            tasks: vec![running],
            queued: 3,
            running: 1,
            bytes: 7,
            ..Overview::default()
        })
    }

    fn use_signature(
        &self,
        signature: &[u8; 32],
        _until: SystemTime,
    ) -> Result<Option<SystemTime>, Refusal> {
        let mut used = lock(&self.used);
        let before = used.get(signature).copied();
        used.entry(*signature).or_insert_with(|| self.clock.now());
        Ok(before)
    }

    fn release_signature(&self, signature: &[u8; 32]) -> Result<(), Refusal> {
        lock(&self.used).remove(signature);
        Ok(())
    }
}
