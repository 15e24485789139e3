//! The progress of a running task, written to the task database by a thread of its own, at most
//! once a second.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::base::{Error, Event, Observer, Result, Stage};

/// Between two writes.
const PAUSE: Duration = Duration::from_secs(1);
/// The rate is the average over this many pauses.
const SAMPLES: usize = 10;

/// Records the progress of one task.
pub trait ProgressLog: Send + Sync {
    /// Records the percentage, and bytes of volumes.
    fn advance(&self, percent: u8, bytes: u64) -> Result<()>;
}

/// Counts the events of one task, and writes its progress until it is dropped. A task database that
/// cannot be written does not stop the work.
pub struct Recorder {
    count: Arc<Count>,
    thread: Option<JoinHandle<()>>,
}

/// The counts of events.
struct Count {
    inner: Arc<dyn Observer>,
    /// Whether the current stage is the work itself.
    counts: AtomicBool,
    expected: AtomicU64,
    grown: AtomicU64,
    /// The last percentage: it never decreases.
    percent: AtomicU8,
    /// By this run and by earlier ones.
    done: AtomicU64,
    /// By this run.
    worked: AtomicU64,
    ended: Mutex<bool>,
    wake: Condvar,
    samples: Mutex<VecDeque<(Instant, u64)>>,
}

impl Recorder {
    /// Starts to write the progress of a task, whose last percentage is `percent`. Events are
    /// passed on to `inner`.
    pub fn start(log: Arc<dyn ProgressLog>, percent: u8, inner: Arc<dyn Observer>) -> Result<Self> {
        let count = Arc::new(Count {
            inner,
            counts: AtomicBool::new(true),
            expected: AtomicU64::new(0),
            grown: AtomicU64::new(0),
            percent: AtomicU8::new(percent.min(99)),
            done: AtomicU64::new(0),
            worked: AtomicU64::new(0),
            ended: Mutex::new(false),
            wake: Condvar::new(),
            samples: Mutex::new(VecDeque::from([(Instant::now(), 0)])),
        });
        let noted = count.clone();
        let thread = std::thread::Builder::new()
            .name("amistore-record".to_owned())
            .spawn(move || noted.write(log.as_ref()));
        let thread = thread.map_err(|cause| {
            Error::io("cannot start the thread that keeps the record of tasks", cause)
        })?;
        Ok(Self { count, thread: Some(thread) })
    }

    /// The observer of the work.
    pub fn observer(&self) -> Arc<dyn Observer> {
        self.count.clone()
    }

    /// Sets the bytes of volumes, if they are known before the work begins.
    pub fn expect(&self, bytes: u64) {
        self.count.expected.store(bytes, Ordering::Relaxed);
    }

    /// Bytes of volumes a second, over the last ten seconds.
    pub fn rate(&self) -> Option<u64> {
        let samples = lock(&self.count.samples);
        let (since, before) = samples.front()?;
        let seconds = since.elapsed().as_secs_f64();
        let bytes = self.count.worked.load(Ordering::Relaxed).saturating_sub(*before);
        (seconds >= 0.5).then(|| (bytes as f64 / seconds) as u64)
    }

    /// The time for the rest of the work at the present rate; `None` while no byte is done or the
    /// work is unknown.
    pub fn time_left(&self) -> Option<Duration> {
        let rate = self.rate().filter(|rate| *rate > 0)?;
        let left = self.count.total()?.saturating_sub(self.count.done.load(Ordering::Relaxed));
        Some(Duration::from_secs(left.div_ceil(rate)))
    }

    /// From 0 to 99.
    pub fn percent(&self) -> u8 {
        self.count.percent()
    }
}

impl Drop for Recorder {
    /// Writes the last progress.
    fn drop(&mut self) {
        *lock(&self.count.ended) = true;
        self.count.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread would not concern the work.
            let _ = thread.join();
        }
    }
}

impl Count {
    /// Bytes of all work, as far as it is known.
    fn total(&self) -> Option<u64> {
        let (expected, grown) = (&self.expected, &self.grown);
        let total = expected.load(Ordering::Relaxed).max(grown.load(Ordering::Relaxed));
        (total > 0).then_some(total)
    }

    fn percent(&self) -> u8 {
        let done = u128::from(self.done.load(Ordering::Relaxed));
        // Of a stream no total is known.
        let percent =
            self.total().map_or(0, |total| (done * 100 / u128::from(total)).min(99) as u8);
        self.percent.fetch_max(percent, Ordering::Relaxed).max(percent)
    }

    fn write(&self, log: &dyn ProgressLog) {
        let mut noted = (0, 0);
        let mut ended = lock(&self.ended);
        loop {
            let over = *ended;
            drop(ended);
            let now = (self.percent(), self.done.load(Ordering::Relaxed));
            if now != noted && log.advance(now.0, now.1).is_ok() {
                noted = now;
            }
            if over {
                return;
            }
            let mut samples = lock(&self.samples);
            samples.push_back((Instant::now(), self.worked.load(Ordering::Relaxed)));
            if samples.len() > SAMPLES {
                samples.pop_front();
            }
            drop(samples);
            ended = lock(&self.ended);
            if !*ended {
                ended =
                    self.wake.wait_timeout(ended, PAUSE).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

impl Observer for Count {
    fn note(&self, event: &Event<'_>) {
        match event {
            Event::Started { stage, total } => {
                let is_work = matches!(stage, Stage::Store | Stage::Restore | Stage::Copy);
                self.counts.store(is_work, Ordering::Relaxed);
                if is_work {
                    self.grown.store(total.unwrap_or(0), Ordering::Relaxed);
                    self.done.store(0, Ordering::Relaxed);
                }
            }
            Event::Grew { bytes } if self.counts.load(Ordering::Relaxed) => {
                self.grown.fetch_add(*bytes, Ordering::Relaxed);
            }
            Event::Advanced { bytes, .. } if self.counts.load(Ordering::Relaxed) => {
                self.done.fetch_add(*bytes, Ordering::Relaxed);
                self.worked.fetch_add(*bytes, Ordering::Relaxed);
            }
            Event::Reused { bytes, .. } if self.counts.load(Ordering::Relaxed) => {
                self.done.fetch_add(*bytes, Ordering::Relaxed);
            }
            _ => {}
        }
        self.inner.note(event);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{NullObserver, TaskKind};
    use crate::taskdb::{NewTask, Origin, Run, recent_tasks};

    #[test]
    fn the_time_left_is_that_of_the_rest_at_the_present_rate() {
        let state = tempfile::tempdir().expect("a directory");
        let task = NewTask::new(TaskKind::Store, Origin::Command, "a", "b");
        let run = Arc::new(Run::begin(state.path(), &task).expect("begins"));
        let recorder = Recorder::start(run, 0, Arc::new(NullObserver)).expect("starts");
        assert_eq!(recorder.time_left(), None, "the work is unknown");
        recorder.expect(4 << 40);
        while recorder.rate().is_none() {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(recorder.time_left(), None, "no byte is done");
        recorder.observer().note(&Event::Advanced { bytes: 1 << 40, stored: 0 });
        // Three times as long as the first quarter took, at least.
        let (rate, left) = (recorder.rate().expect("a rate"), recorder.time_left());
        assert!(left >= Some(Duration::from_secs((3 << 40) / rate)), "{left:?} at {rate}");
        recorder.observer().note(&Event::Advanced { bytes: 3 << 40, stored: 0 });
        assert_eq!(recorder.time_left(), Some(Duration::ZERO));
    }

    #[test]
    fn progress_is_that_of_the_work_and_is_noted_at_the_end_at_the_latest() {
        let state = tempfile::tempdir().expect("a directory");
        let task = NewTask::new(TaskKind::Store, Origin::Command, "a", "b");
        let run = Arc::new(Run::begin(state.path(), &task).expect("begins"));
        let recorder = Recorder::start(run, 7, Arc::new(NullObserver)).expect("starts");
        let observer = recorder.observer();
        assert_eq!(recorder.percent(), 7);
        recorder.expect(1000);
        for event in [
            Event::Started { stage: Stage::Thaw, total: None },
            Event::Advanced { bytes: 900, stored: 0 },
            Event::Started { stage: Stage::Store, total: None },
            Event::Grew { bytes: 500 },
            Event::Reused { bytes: 100, stored: 0 },
            Event::Advanced { bytes: 150, stored: 0 },
        ] {
            observer.note(&event);
        }
        assert_eq!(recorder.percent(), 25);
        // The total grows, and the reported percentage does not fall.
        observer.note(&Event::Grew { bytes: 4500 });
        assert_eq!(recorder.percent(), 25);
        observer.note(&Event::Advanced { bytes: 4750, stored: 0 });
        drop(recorder);
        let row = recent_tasks(state.path()).expect("rows").remove(0);
        assert_eq!((row.percent, row.bytes), (99, 5000), "100 is for its end");
    }
}
