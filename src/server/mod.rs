//! The EC2-compatible endpoint: HTTP in front of store and restore tasks.
//!
//! `service` is what can be asked for, without HTTP; whoever answers HTTP knows nothing behind it. It does not pack or restore anything itself.

mod service;

pub use service::{
    Overview, Refusal, RestoreProgress, RestoreRequest, RestoredImage, Running, Service, StorePage, StoreQuery, StoreRequest, StoreResult,
};
