//! The EC2-compatible endpoint: HTTP before store and restore tasks.
//!
//! `service` is the interface without HTTP, `task_service` implements it. The layers of HTTP, from
//! the socket inwards: `http` has connections, `router` chooses the page or action, `signature` and
//! `origin` authenticate, `actions` has the three actions of this server, `forward` sends all
//! others to EC2, and `image_ids` translates reserved ids. `pages` and `metrics` show the state.
//! The server does not pack or restore anything itself: that is done by `ops`.

mod actions;
mod endpoint;
mod forward;
mod http;
mod image_ids;
mod metrics;
mod origin;
mod pages;
mod refusal;
mod router;
mod service;
mod settings;
mod signature;
mod task_service;
mod times;

pub use endpoint::HttpServer;
pub use forward::{Answered, Answering, Upstream};
pub use http::{Limits, TlsFiles};
pub use service::{
    Overview, Refusal, RestoreProgress, RestoreRequest, RestoredImage, Running, Service, StorePage,
    StoreQuery, StoreRequest, StoreResult,
};
pub use settings::{HttpSettings, check_exposure, check_upstream};
pub use signature::{AccessKeys, read_private};
pub use task_service::{TaskLimits, TaskService, TaskServiceSettings};
