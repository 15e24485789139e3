//! Limits of requests: how many are sent concurrently, how many a second, how many bytes a second,
//! and how often one is repeated.

mod bandwidth;
mod concurrency;
mod request_rate;
mod retry;
mod throttling;

pub use bandwidth::BandwidthLimit;
pub(super) use concurrency::ConcurrencyLimit;
pub(super) use request_rate::RequestRate;
pub(super) use retry::Pauses;
pub use retry::RetryPolicy;
