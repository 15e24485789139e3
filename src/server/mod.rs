//! The EC2-compatible endpoint: HTTP in front of store and restore tasks.
//!
//! `service` is what can be asked for, without HTTP; whoever answers HTTP knows nothing behind it.
//! Of what is in front of it, `http` has connections, `front` decides who answers, `signature` and
//! `guard` who may ask, `actions` are the three of our own, `forward` and `reserved` all others,
//! `pages` and `metrics` what people look at. `desk` is what is behind it. It does not pack or
//! restore anything itself.

mod actions;
mod forward;
mod http;
mod image_ids;
mod metrics;
mod origin;
mod pages;
mod refusal;
mod router;
mod service;
mod signature;
mod task_service;
mod times;

pub use forward::{Answered, Asked, Upstream};
pub use http::{HttpServer, HttpSettings, Limits, TlsFiles, check_exposure};
pub use service::{
    Overview, Refusal, RestoreProgress, RestoreRequest, RestoredImage, Running, Service, StorePage,
    StoreQuery, StoreRequest, StoreResult,
};
pub use signature::{AccessKeys, read_private};
pub use task_service::{TaskLimits, TaskService, TaskServiceSettings};
