//! STS, for GetCallerIdentity: the account of the credentials.

use aws_config::{Region, SdkConfig};
use aws_sdk_sts::Client;
use aws_sdk_sts::config::Builder;

use super::connection::Service;
use super::error::classify;
use super::{Access, Connection, Endpoint};
use crate::base::{AwsService, Error, ErrorKind, Result, Retry};

/// The Security Token Service.
#[derive(Clone, Copy, Debug)]
pub struct Sts;

/// A connection to STS.
pub type StsConnection = Connection<Sts>;

impl Service for Sts {
    type Client = Client;
    const NAME: &'static str = "STS";
    const SERVICE: AwsService = AwsService::Sts;
    /// One request is sent.
    const MAX_REQUESTS: usize = 1;

    fn client(config: &SdkConfig, endpoint: &Endpoint, _access: &Access) -> Result<Client> {
        let builder = Builder::from(config).region(Region::new(endpoint.region().to_owned()));
        Ok(Client::from_conf(match endpoint.url() {
            Some(url) => builder.endpoint_url(url).build(),
            None => builder.build(),
        }))
    }
}

impl StsConnection {
    /// The account of the credentials: 12 digits. Needs no permission. `None` if the endpoint is
    /// not AWS's and does not know the action.
    pub fn account(&self) -> Result<Option<String>> {
        let make = |client: Client, _| async move {
            client
                .get_caller_identity()
                .send()
                .await
                .map_err(|error| classify("cannot read the account of the credentials", error))
        };
        // A service that refuses the credentials knows the action.
        let does_not_know = |error: &Error| {
            let answered = self.endpoint().is_custom() && error.answer().is_some();
            answered
                && error.retry() == Retry::No
                && !matches!(error.kind(), ErrorKind::Denied | ErrorKind::Limit)
        };
        match self.wait(self.request(make)) {
            Ok(identity) => match identity.account() {
                Some(account) => Ok(Some(account.to_owned())),
                None => Err(Error::new(ErrorKind::Io, "the answer of STS has no account")),
            },
            Err(error) if does_not_know(&error) => Ok(None),
            Err(error) => Err(error.at("action", "sts:GetCallerIdentity")),
        }
    }
}
