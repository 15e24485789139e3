//! Types that every layer shares: errors, events, units, identifiers, cancellation.
//!
//! It does not do I/O, start threads or know any wire or file format.

mod cancel;
#[cfg(feature = "aws")]
mod caught;
mod clock;
mod error;
mod event;
mod ids;
mod monitor;
mod pattern;
mod printable;
mod random;
mod task;
mod time;
mod units;

pub use cancel::{Cancel, CancelListener, Cancelled};
#[cfg(feature = "cli")]
pub use caught::catches_panic;
#[cfg(feature = "aws")]
pub use caught::caught;
pub use clock::Clock;
pub use error::{
    AwsService, Error, ErrorCode, ErrorKind, NameHolder, Result, Resume, Retry, ServiceAnswer,
};
pub use event::{Event, NullObserver, Observer, Stage, StageGuard};
pub use ids::{DeviceName, ImageId, SnapshotId, check_image_name};
pub use monitor::Monitor;
pub use pattern::fits_pattern;
pub use printable::{Printable, steers_terminal};
pub use random::random_id;
pub use task::{TaskKind, TaskState};
pub use time::{rfc3339, rfc3339_millis};
pub use units::{
    BLOCK_BYTES, Bitmap8, BlockIndex, BlockRange, CELL_BLOCKS, CELLS_PER_GROUP, CellAddress,
    GROUP_BLOCKS, MAX_VOLUMES, VolumeSize, bits_of, gib_rounded_up, hex, human_bytes,
};
