//! S3 as a service of a connection.

use aws_config::{Region, SdkConfig};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{Builder, RequestChecksumCalculation, ResponseChecksumValidation};

use super::super::connection::Service;
use super::super::{Access, Addressing, Connection, Endpoint};
use crate::base::{AwsService, Result};

/// S3, or a store that speaks its protocol.
#[derive(Clone, Copy, Debug)]
pub struct S3;

/// A connection to S3.
pub type S3Connection = Connection<S3>;

impl Service for S3 {
    type Client = Client;
    const NAME: &'static str = "S3";
    const SERVICE: AwsService = AwsService::S3;
    /// S3 gives a connection 85 to 90 MB/s (S3 user guide, "Performance guidelines").
    const START_REQUESTS: usize = 32;
    /// At 100 ms a request, 64 of 4 MiB are 2.5 GiB a second.
    const MAX_REQUESTS: usize = 64;

    fn client(config: &SdkConfig, endpoint: &Endpoint, access: &Access) -> Result<Client> {
        let path_style = match access.addressing {
            Addressing::Auto => endpoint.is_custom(),
            Addressing::Path => true,
            Addressing::Virtual => false,
        };
        let builder = Builder::from(config)
            .force_path_style(path_style)
            // This crate computes and compares checksums by itself.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .region(Region::new(endpoint.region().to_owned()));
        Ok(Client::from_conf(match endpoint.url() {
            Some(url) => builder.endpoint_url(url).build(),
            None => builder.build(),
        }))
    }
}
