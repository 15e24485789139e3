//! A session: connections to EC2, EBS, S3 and STS that share an observer, a cancel token and the
//! threads of requests.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::ebs::{EbsConnection, Quotas};
use super::ec2::Ec2Connection;
use super::s3::{ObjectOptions, S3Connection, S3Store};
use super::sts::StsConnection;
use super::{Access, BandwidthLimit, ConnectionOptions, Credentials, RetryPolicy, Runtime};
use crate::base::{Cancel, Error, Observer, Result};

/// Options of requests, of one side of a transfer.
#[derive(Clone, Debug)]
pub struct RequestSettings {
    /// Attempts, and the pauses between them.
    pub retry: RetryPolicy,
    /// The longest time without a byte sent or received, and without an answer.
    pub idle_timeout: Duration,
    /// Bytes a second of each connection.
    pub limit_rate: Option<u64>,
    /// The account that has to own the bucket.
    pub expected_bucket_owner: Option<String>,
    /// Whether the requester pays.
    pub request_payer: bool,
}

impl Default for RequestSettings {
    /// The defaults of the command line.
    fn default() -> Self {
        Self {
            retry: RetryPolicy::default(),
            idle_timeout: Duration::from_secs(60),
            limit_rate: None,
            expected_bucket_owner: None,
            request_payer: false,
        }
    }
}

/// Opens connections. Clones share the threads of requests.
#[derive(Clone)]
pub struct Session {
    observer: Arc<dyn Observer>,
    cancel: Cancel,
    runtime: Arc<OnceLock<Runtime>>,
}

/// EC2 and EBS with one side's credentials, and the quotas of their account.
pub struct Compute {
    /// The control plane.
    pub ec2: Ec2Connection,
    /// The direct APIs.
    pub ebs: EbsConnection,
    /// The account's quotas.
    pub quotas: Quotas,
}

impl Session {
    /// A session whose requests report to `observer` and end with `cancel`. Starts no thread.
    pub fn new(observer: Arc<dyn Observer>, cancel: Cancel) -> Self {
        Self { observer, cancel, runtime: Arc::default() }
    }

    /// This session with another observer.
    #[must_use]
    pub fn observed_by(&self, observer: Arc<dyn Observer>) -> Self {
        Self { observer, ..self.clone() }
    }

    /// The threads of requests, started by the first connection.
    fn runtime(&self) -> Result<&Runtime> {
        if self.runtime.get().is_none() {
            // If another thread was first, its runtime is used.
            let _ = self.runtime.set(Runtime::new()?);
        }
        self.runtime.get().ok_or_else(|| Error::internal("threads were started and are gone"))
    }

    fn options(&self, settings: &RequestSettings) -> ConnectionOptions {
        ConnectionOptions {
            retry: settings.retry,
            idle_timeout: settings.idle_timeout,
            bandwidth: settings.limit_rate.map(BandwidthLimit::new),
            observer: self.observer.clone(),
            cancel: self.cancel.clone(),
        }
    }

    /// EC2's control plane.
    pub fn ec2(&self, access: &Access, settings: &RequestSettings) -> Result<Ec2Connection> {
        Ec2Connection::open(self.runtime()?, access.clone(), self.options(settings))
    }

    /// EC2 and EBS. `account_rate` is the account's quota of blocks a second, if it is not that of
    /// the Region.
    pub fn compute(
        &self,
        access: &Access,
        settings: &RequestSettings,
        account_rate: Option<u32>,
    ) -> Result<Compute> {
        let ec2 = self.ec2(access, settings)?;
        let ebs = EbsConnection::open(self.runtime()?, access.clone(), self.options(settings))?;
        let quotas = Quotas::new(&ebs.region(), account_rate);
        Ok(Compute { ec2, ebs, quotas })
    }

    /// The account of the credentials, by STS; `None` for anonymous access, and where EC2 is not
    /// AWS's and no STS endpoint is configured: AWS does not know the keys of other services, and
    /// should not get them.
    pub fn account(&self, access: &Access, settings: &RequestSettings) -> Result<Option<String>> {
        if access.credentials == Credentials::Anonymous {
            return Ok(None);
        }
        let sts = StsConnection::open(self.runtime()?, access.clone(), self.options(settings))?;
        if !sts.endpoint().is_custom() && !self.ec2(access, settings)?.endpoint().is_aws() {
            Ok(None)
        } else {
            sts.account()
        }
    }

    /// S3.
    pub fn s3(&self, access: Access, settings: &RequestSettings) -> Result<S3Connection> {
        S3Connection::open(self.runtime()?, access, self.options(settings))
    }

    /// A bucket in S3.
    pub fn bucket(
        &self,
        bucket: &str,
        access: Access,
        settings: &RequestSettings,
        options: ObjectOptions,
    ) -> Result<S3Store> {
        Ok(S3Store::new(self.s3(access, settings)?, bucket, settings.object_options(options)))
    }
}

impl RequestSettings {
    /// `options` with the bucket's expected owner and the payer.
    pub fn object_options(&self, options: ObjectOptions) -> ObjectOptions {
        ObjectOptions {
            expected_bucket_owner: self.expected_bucket_owner.clone(),
            request_payer: self.request_payer,
            ..options
        }
    }
}
