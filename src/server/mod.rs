//! The EC2-compatible endpoint: HTTP before store and restore tasks.
//!
//! `service` is the interface without HTTP, `task_service` implements it. The layers of HTTP, from
//! the socket inwards: `http` has connections, `router` chooses the page or action, `signature` and
//! `origin` authenticate, `sites` chooses Region and profile, `actions` has the three actions of
//! this server, `forward` sends all others to EC2, `image_ids` translates reserved ids, and
//! `pending_image` and `images_set` add images that EC2 does not have yet to its answers. `pages`
//! and `metrics` show the state. The server does not pack or restore anything itself: that is done
//! by `ops`.

mod actions;
mod endpoint;
mod forward;
mod http;
mod image_ids;
mod images_set;
mod metrics;
mod origin;
mod pages;
mod pending_image;
mod refusal;
mod router;
mod service;
mod settings;
mod signature;
mod sites;
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
pub use sites::ServedSite;
pub use task_service::{SiteSettings, TaskLimits, TaskService, TaskServiceSettings};
