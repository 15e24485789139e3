//! STS, of which one thing is asked: whose credentials these are.

use aws_config::{Region, SdkConfig};
use aws_sdk_sts::Client;
use aws_sdk_sts::config::Builder;

use super::error::classify;
use super::link::Service;
use super::{Access, Link};
use crate::base::{Error, ErrorKind, Result, Retry};

/// The Security Token Service.
#[derive(Clone, Copy, Debug)]
pub struct Sts;

/// One side's connection to STS.
pub type StsLink = Link<Sts>;

impl Service for Sts {
    type Client = Client;
    const NAME: &'static str = "STS";
    /// It is asked once.
    const MAX_REQUESTS: usize = 1;

    fn client(
        config: &SdkConfig,
        region: Region,
        _endpoint: &str,
        _access: &Access,
    ) -> Result<Client> {
        Ok(Client::from_conf(Builder::from(config).region(region).build()))
    }
}

impl StsLink {
    /// The account of the credentials: 12 digits. Everybody may ask for it. `None` if the endpoint
    /// is not AWS's and answers that it does not know.
    pub fn account(&self) -> Result<Option<String>> {
        let make = |client: Client, _| async move {
            client
                .get_caller_identity()
                .send()
                .await
                .map_err(|error| classify("cannot find out whose credentials these are", error))
        };
        // Whoever refuses these credentials may know them at another time.
        let does_not_know = |error: &Error| {
            let answered = !self.endpoint().is_empty() && error.fact("status").is_some();
            answered
                && error.retry() == Retry::No
                && !matches!(error.kind(), ErrorKind::Denied | ErrorKind::Limit)
        };
        match self.wait(self.request(make)) {
            Ok(identity) => match identity.account() {
                Some(account) => Ok(Some(account.to_owned())),
                None => {
                    Err(Error::new(ErrorKind::Io, "STS does not say whose credentials these are"))
                }
            },
            Err(error) if does_not_know(&error) => Ok(None),
            Err(error) => Err(error.at("action", "sts:GetCallerIdentity")),
        }
    }
}
