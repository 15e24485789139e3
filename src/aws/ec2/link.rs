//! EC2 as a service that a link leads to.

use std::time::Duration;

use aws_config::{Region, SdkConfig};
use serde_json::Value;

use super::super::error::classify;
use super::super::link::Service;
use super::super::{Access, Link};
use super::client::Ec2Client;
use crate::aws::ec2_query::Params;
use crate::base::Result;

/// The control plane of EC2.
#[derive(Clone, Copy, Debug)]
pub struct Ec2;

/// One side's connection to EC2.
pub type Ec2Link = Link<Ec2>;

impl Service for Ec2 {
    type Client = Ec2Client;
    const NAME: &'static str = "EC2";
    /// Requests come one after the other; what there is of them is far below EC2's limits.
    const MAX_REQUESTS: usize = 8;

    fn client(
        config: &SdkConfig,
        region: Region,
        endpoint: &str,
        _access: &Access,
    ) -> Result<Ec2Client> {
        Ec2Client::new(
            config,
            Some(region.as_ref()),
            Some(endpoint).filter(|endpoint| !endpoint.is_empty()),
        )
    }
}

impl Ec2Link {
    /// Calls an action, again if that can help, and returns its answer with the member names of the
    /// AWS CLI. `doing` says what could not be done if it fails.
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

    /// Waits, unless the operation is cancelled. Not longer than the longest pause between two
    /// attempts.
    pub(super) fn pause(&self, time: Duration) -> Result<()> {
        let time = time.min(self.options().retry.cap);
        self.wait(async {
            tokio::time::sleep(time).await;
            Ok(())
        })
    }
}
