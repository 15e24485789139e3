//! Events that the library reports while it works. The command line and the server show them.

use super::Error;

/// The kind of work that an operation counts bytes of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Listing allocated blocks.
    Scan,
    /// Packing blocks into an archive.
    Store,
    /// Writing blocks of an archive to their target.
    Restore,
    /// Checking an archive.
    Verify,
    /// Copying an archive from one store to another.
    Copy,
    /// Waiting until an archived object can be read.
    Thaw,
    /// Making written data durable: synced to disk, or completed by the service.
    Sync,
}

impl Stage {
    /// The stable name, as printed in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scan => "scan",
            Self::Store => "store",
            Self::Restore => "restore",
            Self::Verify => "verify",
            Self::Copy => "copy",
            Self::Thaw => "thaw",
            Self::Sync => "sync",
        }
    }
}

/// An event of an operation.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A stage begins. `total` is the number of volume bytes it will handle, if that is known.
    Started {
        /// The kind of work.
        stage: Stage,
        /// Bytes of volume data to handle.
        total: Option<u64>,
    },
    /// The total of the stage grew.
    Grew {
        /// Volume bytes to add to the total.
        bytes: u64,
    },
    /// Data was handled.
    Advanced {
        /// Bytes of volume data handled since the event before.
        bytes: u64,
        /// Bytes of archive written or read for them.
        stored: u64,
    },
    /// Bytes were sent to a service. Bytes that are sent again count again.
    Sent {
        /// Bytes since the event before.
        bytes: u64,
    },
    /// Bytes were received from a service.
    Received {
        /// Bytes since the event before.
        bytes: u64,
    },
    /// A request failed and will be repeated.
    Retried {
        /// The failure.
        error: &'a Error,
        /// Number of the failed attempt, counted from 1.
        attempt: u32,
        /// Delay before the next attempt.
        delay: std::time::Duration,
    },
    /// Work of an earlier run was found complete and is not repeated.
    Reused {
        /// Bytes of volume data.
        bytes: u64,
        /// Bytes of archive.
        stored: u64,
    },
    /// The stage ended well. After an error there is none.
    Finished {
        /// The kind of work.
        stage: Stage,
    },
    /// Damage was found, and the work goes on.
    Damage {
        /// The damage and its position.
        error: &'a Error,
    },
    /// A message for the user that calls for attention.
    Warning {
        /// One sentence.
        message: String,
    },
    /// A message for the user about a finding or a decision.
    Note {
        /// One sentence.
        message: String,
    },
}

/// Receives events. Called from several threads; an implementation returns at once.
pub trait Observer: Send + Sync {
    /// Receives one event.
    fn note(&self, event: &Event<'_>);
}

/// Ignores all events.
#[derive(Clone, Copy, Debug, Default)]
pub struct NullObserver;

impl Observer for NullObserver {
    fn note(&self, _event: &Event<'_>) {}
}

/// A stage that was reported as [`Started`](Event::Started).
///
/// [`finish`](Self::finish) reports it as [`Finished`](Event::Finished). A guard that is dropped
/// reports nothing, because a stage that ends with an error has no such event.
#[must_use = "a stage is finished by `finish`; dropping the guard means that it failed"]
pub struct StageGuard<'a> {
    observer: &'a dyn Observer,
    stage: Stage,
}

impl<'a> StageGuard<'a> {
    /// Reports that `stage` begins, with the volume bytes it will handle if they are known.
    pub fn begin(observer: &'a dyn Observer, stage: Stage, total: Option<u64>) -> Self {
        observer.note(&Event::Started { stage, total });
        Self { observer, stage }
    }

    /// Reports that the stage ended well.
    pub fn finish(self) {
        self.observer.note(&Event::Finished { stage: self.stage });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Names(Mutex<Vec<String>>);

    impl Observer for Names {
        fn note(&self, event: &Event<'_>) {
            let name = match event {
                Event::Started { stage, total } => format!("started {} {total:?}", stage.name()),
                Event::Finished { stage } => format!("finished {}", stage.name()),
                _ => "other".to_owned(),
            };
            self.0.lock().expect("no panic").push(name);
        }
    }

    #[test]
    fn a_stage_that_is_finished_is_a_pair_and_one_that_fails_has_no_end() {
        let names = Names::default();
        StageGuard::begin(&names, Stage::Store, None).finish();
        drop(StageGuard::begin(&names, Stage::Sync, Some(7)));
        let names = names.0.into_inner().expect("no panic");
        assert_eq!(names, ["started store None", "finished store", "started sync Some(7)"]);
    }
}
