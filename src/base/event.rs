//! What happens, as said by the library. Who shows it, and how, is decided at the edge.

use super::Error;

/// What an operation is doing with the bytes it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Finding out which blocks are allocated.
    Scan,
    /// Packing blocks into an archive.
    Store,
    /// Writing blocks of an archive to their target.
    Restore,
    /// Checking an archive.
    Verify,
    /// Carrying an archive from one store to another.
    Copy,
    /// Waiting until an archived object can be read.
    Thaw,
    /// Making what was written durable: on disk, or completed by the service.
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

/// Something worth knowing happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A stage begins. `total` is the number of volume bytes it will handle, if that is known.
    Started {
        /// What is done.
        stage: Stage,
        /// Bytes of volume data to come.
        total: Option<u64>,
    },
    /// More volume bytes became known to be ahead.
    Grew {
        /// How many.
        bytes: u64,
    },
    /// Work was done.
    Advanced {
        /// Bytes of volume data handled since the event before.
        bytes: u64,
        /// Bytes of archive written or read for them.
        stored: u64,
    },
    /// Bytes were sent to a service, each as often as it was sent.
    Sent {
        /// How many, since the event before.
        bytes: u64,
    },
    /// Bytes were received from a service.
    Received {
        /// How many, since the event before.
        bytes: u64,
    },
    /// A request failed and will be made again.
    Retried {
        /// Why.
        error: &'a Error,
        /// Which attempt failed, counted from 1.
        attempt: u32,
        /// How long it waits before the next.
        delay: std::time::Duration,
    },
    /// Work of an earlier run was found whole, and need not be done again.
    Kept {
        /// Bytes of volume data.
        bytes: u64,
        /// Bytes of archive.
        stored: u64,
    },
    /// The stage is over.
    Finished {
        /// What was done.
        stage: Stage,
    },
    /// Something is wrong, and the work goes on.
    Damage {
        /// What, and where.
        error: &'a Error,
    },
    /// Something the user should know.
    Warning {
        /// One sentence.
        message: String,
    },
    /// Something that was found out or decided.
    Note {
        /// One sentence.
        message: String,
    },
}

/// Hears events. Called from several threads; must return at once.
pub trait Observer: Send + Sync {
    /// Takes note of one event.
    fn note(&self, event: &Event<'_>);
}

/// Hears nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NullObserver;

impl Observer for NullObserver {
    fn note(&self, _event: &Event<'_>) {}
}
