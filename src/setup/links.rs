//! Connections to EC2, EBS and S3.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::aws::ebs::{EbsLink, Quotas};
use crate::aws::ec2::Ec2Link;
use crate::aws::s3::{ObjectOptions, S3Link, S3Store};
use crate::aws::sts::StsLink;
use crate::aws::{Access, Credentials, LinkOptions, Pace, RetryPolicy, Runtime, is_of_aws};
use crate::base::{Cancel, Error, Observer, Result};

/// How requests are made, whatever they ask for.
#[derive(Clone, Debug)]
pub struct LinkSettings {
    /// How often they are repeated.
    pub retry: RetryPolicy,
    /// No request may be silent for longer.
    pub silence: Duration,
    /// Bytes a second of each connection, if they are limited.
    pub limit_rate: Option<u64>,
    /// The account that has to own the bucket.
    pub expected_bucket_owner: Option<String>,
    /// Whether the requester agrees to pay.
    pub request_payer: bool,
}

impl Default for LinkSettings {
    /// As the program does if nothing is said.
    fn default() -> Self {
        Self {
            retry: RetryPolicy::default(),
            silence: Duration::from_secs(60),
            limit_rate: None,
            expected_bucket_owner: None,
            request_payer: false,
        }
    }
}

/// Makes connections that are heard by one observer, and stop together.
#[derive(Clone)]
pub struct Links {
    observer: Arc<dyn Observer>,
    cancel: Cancel,
    runtime: Arc<OnceLock<Runtime>>,
}

impl Links {
    /// Nothing is started yet.
    pub fn new(observer: Arc<dyn Observer>, cancel: Cancel) -> Self {
        Self { observer, cancel, runtime: Arc::default() }
    }

    /// The same with another observer, on the same threads.
    #[must_use]
    pub fn heard_by(&self, observer: Arc<dyn Observer>) -> Self {
        Self { observer, ..self.clone() }
    }

    /// The threads of requests: started when there is one to make.
    fn runtime(&self) -> Result<&Runtime> {
        if self.runtime.get().is_none() {
            // Whoever was first is right.
            let _ = self.runtime.set(Runtime::new()?);
        }
        self.runtime.get().ok_or_else(|| Error::internal("threads were started and are gone"))
    }

    fn options(&self, settings: &LinkSettings) -> LinkOptions {
        LinkOptions {
            retry: settings.retry,
            silence: settings.silence,
            pace: settings.limit_rate.map(Pace::new),
            observer: self.observer.clone(),
            cancel: self.cancel.clone(),
        }
    }

    /// EC2's control plane with these credentials.
    pub fn control(&self, access: &Access, settings: &LinkSettings) -> Result<Ec2Link> {
        Ec2Link::open(self.runtime()?, access.clone(), self.options(settings))
    }

    /// EC2 and EBS with these credentials. `account_rate` is how many blocks a second the account
    /// may read or write, if it is not what the Region gives.
    pub fn compute(
        &self,
        access: &Access,
        settings: &LinkSettings,
        account_rate: Option<u32>,
    ) -> Result<Compute> {
        let ec2 = self.control(access, settings)?;
        let ebs = EbsLink::open(self.runtime()?, access.clone(), self.options(settings))?;
        let quotas = Quotas::new(&ebs.region(), account_rate);
        Ok(Compute { ec2, ebs, quotas })
    }

    /// The account of these credentials, if somebody knows it: STS, or where EC2 is not AWS's own,
    /// whoever stands in for STS.
    pub fn account(&self, access: &Access, settings: &LinkSettings) -> Result<Option<String>> {
        if access.credentials == Credentials::Anonymous {
            return Ok(None);
        }
        let sts = StsLink::open(self.runtime()?, access.clone(), self.options(settings))?;
        // AWS does not know the keys of others, and is not asked about them.
        let asks_aws = sts.endpoint().is_empty();
        if asks_aws && !is_of_aws(&self.control(access, settings)?.endpoint()) {
            Ok(None)
        } else {
            sts.account()
        }
    }

    /// S3 with these credentials.
    pub fn objects(&self, access: Access, settings: &LinkSettings) -> Result<S3Link> {
        S3Link::open(self.runtime()?, access, self.options(settings))
    }

    /// A bucket with these credentials.
    pub fn bucket(
        &self,
        bucket: &str,
        access: Access,
        settings: &LinkSettings,
        options: ObjectOptions,
    ) -> Result<S3Store> {
        Ok(S3Store::new(self.objects(access, settings)?, bucket, settings.of_objects(options)))
    }
}

impl LinkSettings {
    /// What is asked for with every object, and of the bucket.
    pub fn of_objects(&self, options: ObjectOptions) -> ObjectOptions {
        ObjectOptions {
            expected_bucket_owner: self.expected_bucket_owner.clone(),
            request_payer: self.request_payer,
            ..options
        }
    }
}

/// EC2 on one side: where images are described and registered, where blocks are read and written,
/// and how fast.
pub struct Compute {
    /// The control plane.
    pub ec2: Ec2Link,
    /// The data plane.
    pub ebs: EbsLink,
    /// The account's limits.
    pub quotas: Quotas,
}
