//! S3 as a service that a link leads to.

use aws_config::{Region, SdkConfig};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::Builder;

use super::super::link::Service;
use super::super::{Access, Addressing, Link};
use crate::base::Result;

/// S3, or a store that speaks its protocol.
#[derive(Clone, Copy, Debug)]
pub struct S3;

/// One side's connection to S3.
pub type S3Link = Link<S3>;

impl Service for S3 {
    type Client = Client;
    const NAME: &'static str = "S3";
    /// At 100 ms a request, 64 of 8 MiB are 5 GiB a second.
    const MAX_REQUESTS: usize = 64;

    fn client(
        config: &SdkConfig,
        region: Region,
        endpoint: &str,
        access: &Access,
    ) -> Result<Client> {
        let path_style = match access.addressing {
            Addressing::Auto => !endpoint.is_empty(),
            Addressing::Path => true,
            Addressing::Virtual => false,
        };
        Ok(Client::from_conf(
            Builder::from(config).force_path_style(path_style).region(region).build(),
        ))
    }
}
