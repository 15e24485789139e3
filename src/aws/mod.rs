//! AWS, and services that speak its protocols: adapters behind the ports of the layers below. No
//! other module names the SDK.
//!
//! The ports are synchronous and the SDK is not: each adapter runs its requests as tasks of one
//! small runtime ([`Runtime`]) and waits. No task computes for long.
//! A [`Session`] opens a [`Connection`] to each service. The connection repeats requests, limits
//! how many are sent concurrently, and ends idle ones. The SDK's own retries are off, so that the
//! two do not multiply.

mod access;
pub mod base64;
mod body;
mod connection;
pub mod ebs;
pub mod ec2;
pub mod ec2_query;
mod endpoint;
mod error;
mod fetch;
mod http_client;
mod in_parallel;
mod limits;
mod partition;
pub mod percent;
mod prices;
mod runtime;
pub mod s3;
mod session;
#[cfg(feature = "server")]
pub mod signature_v4;
pub mod sts;

pub use access::{Access, Addressing, Credentials, StaticCredentials};
pub use connection::{Connection, ConnectionOptions};
pub use endpoint::{Endpoint, check_region};
pub use error::needs_other_credentials;
pub use limits::{BandwidthLimit, RetryPolicy};
pub use partition::{Partition, partition_of};
pub use prices::{EbsPrices, S3Prices, ebs_prices, s3_prices};
pub use runtime::Runtime;
#[cfg(feature = "server")]
pub(crate) use runtime::start_threads;
pub use session::{Compute, RequestSettings, Session};
