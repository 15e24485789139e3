//! The EC2-compatible endpoint: HTTP in front of store and restore tasks.
//!
//! `service` is what can be asked for, without HTTP; whoever answers HTTP knows nothing behind it. `desk` is what is behind it. It does not pack or restore anything itself.

mod desk;
mod service;

pub use desk::{Desk, DeskSettings, Limits};
pub use service::{
    Overview, Refusal, RestoreProgress, RestoreRequest, RestoredImage, Running, Service, StorePage, StoreQuery, StoreRequest, StoreResult,
};
