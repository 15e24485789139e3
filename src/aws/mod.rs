//! AWS, and services that speak its protocols: adapters behind the ports of the layers below. The
//! only place that names the SDK.
//!
//! The ports are synchronous and the SDK is not: each adapter hands its requests to the tasks of
//! one small runtime ([`Runtime`]) and waits. Nothing here computes for long on those tasks.
//! Requests are made by [`Link`]: it decides what is tried again and when, how many are under way,
//! and how long one may be silent. The SDK's own retries are off, so that the two cannot multiply.

mod access;
pub mod base64;
mod body;
pub mod ebs;
pub mod ec2;
pub mod ec2_query;
mod error;
mod fetch;
mod limiter;
mod link;
mod pace;
mod partition;
mod rate;
mod retry;
mod runtime;
pub mod s3;
pub mod sts;

pub use access::{Access, Addressing, Credentials, StaticCredentials};
pub use error::needs_other_credentials;
pub use link::{Link, LinkOptions};
pub use pace::Pace;
pub use partition::{Partition, is_of_aws, partition_of};
pub use retry::RetryPolicy;
pub use runtime::Runtime;
