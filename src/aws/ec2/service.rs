//! EC2 as a service of a connection.

use std::time::Duration;

use aws_config::SdkConfig;
use serde_json::Value;

use super::super::connection::Service;
use super::super::error::classify;
use super::super::{Access, Connection, Endpoint};
use super::client::Ec2Client;
use crate::aws::ec2_query::Params;
use crate::base::{AwsService, Result};

/// The control plane of EC2.
#[derive(Clone, Copy, Debug)]
pub struct Ec2;

/// A connection to EC2.
pub type Ec2Connection = Connection<Ec2>;

impl Service for Ec2 {
    type Client = Ec2Client;
    const NAME: &'static str = "EC2";
    const SERVICE: AwsService = AwsService::Ec2;
    /// Requests are sent one after the other, far below EC2's limits.
    const MAX_REQUESTS: usize = 8;

    fn client(config: &SdkConfig, endpoint: &Endpoint, _access: &Access) -> Result<Ec2Client> {
        Ec2Client::new(config, endpoint)
    }
}

impl Ec2Connection {
    /// Calls an action, repeats it by the retry policy, and returns its answer with the member
    /// names of the AWS CLI. `doing` is the message of the error.
    pub(super) fn call(
        &self,
        doing: &'static str,
        action: &'static str,
        params: Params,
    ) -> Result<Value> {
        let make = |client: Ec2Client, _| {
            let params = params.clone();
            async move { client.call(action, params).await.map_err(|error| classify(doing, error)) }
        };
        self.wait(self.request(make)).map_err(|error| error.at("action", action))
    }

    /// Sleeps, unless the operation is cancelled. At most for the longest pause between two
    /// attempts.
    pub(super) fn pause(&self, time: Duration) -> Result<()> {
        let time = time.min(self.options().retry.cap);
        self.wait(async {
            tokio::time::sleep(time).await;
            Ok(())
        })
    }
}
