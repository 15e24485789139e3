//! Requests to one service: how often they are tried, how many are under way, how long one may be
//! silent.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_config::{Region, SdkConfig};

use super::access::host_of;
use super::body::Progress;
use super::error::Failure;
use super::limiter::Limiter;
use super::retry::random;
use super::runtime::cancelled;
use super::{Access, Pace, RetryPolicy, Runtime};
use crate::base::{Cancel, Error, ErrorKind, Event, Observer, Result, Retry};

/// Requests under way to begin with. On a local network 8 to 16 carry as much as 64.
const START: usize = 16;

/// A service that is spoken to.
pub trait Service: Send + Sync + 'static {
    /// What requests are made with.
    type Client: Clone + Send + Sync;
    /// As in `AWS_ENDPOINT_URL_S3`.
    const NAME: &'static str;
    /// Requests under way at most. Latency decides how many are of use, throttling and memory how
    /// many there are.
    const MAX_REQUESTS: usize;

    /// A client for `region`. `endpoint` is empty for AWS's own.
    fn client(
        config: &SdkConfig,
        region: Region,
        endpoint: &str,
        access: &Access,
    ) -> Result<Self::Client>;
}

/// As long as services take for requests that make something, and not so long that a person
/// believes that nothing happens.
const GRACE: Duration = Duration::from_secs(10);

/// What is the same for all requests of an operation.
#[derive(Clone)]
pub struct LinkOptions {
    /// How often requests are repeated.
    pub retry: RetryPolicy,
    /// No request may be silent for longer: no byte sent or received, no answer.
    pub silence: Duration,
    /// Bytes a second, if they are limited.
    pub pace: Option<Pace>,
    /// Hears of bytes and retries.
    pub observer: Arc<dyn Observer>,
    /// Asks to stop.
    pub cancel: Cancel,
}

impl LinkOptions {
    /// Bytes came in: whoever listens hears of them, and the next may have to wait.
    pub(super) async fn received(&self, bytes: usize, progress: &Progress) {
        self.observer.note(&Event::Received { bytes: bytes as u64 });
        let next = self
            .pace
            .as_ref()
            .map_or_else(tokio::time::Instant::now, |pace| pace.admit(bytes as u64));
        progress.moved(next);
        tokio::time::sleep_until(next).await;
    }
}

/// One side's connection to a service. Clones share everything.
pub struct Link<S: Service>(Arc<Inner<S>>);

impl<S: Service> Clone for Link<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Inner<S: Service> {
    access: Access,
    options: LinkOptions,
    runtime: Runtime,
    limiter: Limiter,
    /// How long a request that is under way is waited for when the operation is cancelled.
    grace: Duration,
    state: Mutex<State<S>>,
}

struct State<S: Service> {
    client: S::Client,
    /// Counts clients: whoever was refused with an old one need not make another.
    generation: u64,
    region: String,
    endpoint: String,
}

impl<S: Service> Link<S> {
    /// Reads the configuration. No request is made.
    pub fn open(runtime: &Runtime, access: Access, options: LinkOptions) -> Result<Self> {
        let state = runtime.wait(&options.cancel, Duration::ZERO, State::new(&access, None, 0))?;
        let limiter = Limiter::new(START, S::MAX_REQUESTS);
        Ok(Self(Arc::new(Inner {
            access,
            options,
            runtime: runtime.clone(),
            limiter,
            grace: Duration::ZERO,
            state: Mutex::new(state),
        })))
    }

    /// The Region that requests go to.
    pub fn region(&self) -> String {
        self.lock().region.clone()
    }

    /// The endpoint, if it is not AWS's own.
    pub fn endpoint(&self) -> String {
        self.lock().endpoint.clone()
    }

    /// The profile that was named.
    pub fn profile(&self) -> Option<String> {
        self.0.access.profile.clone()
    }

    /// Whether both links reach the same service with the same credentials.
    pub fn is_same_side(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.0.access == other.0.access && self.endpoint() == other.endpoint())
    }

    /// The same connection for what has to be done although the operation was cancelled. It does
    /// not try for long.
    pub(super) fn for_cleaning_up(&self) -> Self {
        let retry = RetryPolicy {
            max_attempts: self.0.options.retry.max_attempts.min(3),
            ..self.0.options.retry
        };
        self.with(
            LinkOptions { cancel: Cancel::new(), retry, ..self.0.options.clone() },
            Duration::ZERO,
        )
    }

    /// The same connection for what makes something that only the answer names: a request that is
    /// under way when the operation is cancelled is waited for, so that nothing is left that nobody
    /// knows of. It is not made again then.
    pub(super) fn until_answered(&self) -> Self {
        self.with(self.0.options.clone(), GRACE)
    }

    fn with(&self, options: LinkOptions, grace: Duration) -> Self {
        let (access, runtime, limiter) =
            (self.0.access.clone(), self.0.runtime.clone(), self.0.limiter.clone());
        Self(Arc::new(Inner {
            access,
            options,
            runtime,
            limiter,
            grace,
            state: Mutex::new(self.lock().clone()),
        }))
    }

    /// What requests are made with at the moment.
    pub(super) fn client(&self) -> S::Client {
        self.lock().client.clone()
    }

    pub(super) fn runtime(&self) -> &Runtime {
        &self.0.runtime
    }

    pub(super) fn options(&self) -> &LinkOptions {
        &self.0.options
    }

    /// Whether bodies have to be signed: what TLS does not protect, a signature does. On this
    /// machine itself nobody listens.
    pub(super) fn signs_bodies(&self) -> bool {
        let endpoint = self.endpoint();
        let host = host_of(&endpoint);
        endpoint.starts_with("http://")
            && !(host == "localhost" || host == "[" || host.starts_with("127."))
    }

    fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a request.
    pub(super) fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.0.runtime.wait(&self.0.options.cancel, self.0.grace, work)
    }

    /// Makes a request until it succeeds, cannot succeed, or was tried often enough.
    pub(super) async fn request<T, F, R>(&self, make: F) -> Result<T>
    where
        F: Fn(S::Client, Progress) -> R,
        R: Future<Output = Result<T, Failure>>,
    {
        self.request_within(self.0.options.silence, make).await
    }

    /// The same for a request that the service may work on for minutes.
    pub(super) async fn slow_request<T, F, R>(&self, make: F) -> Result<T>
    where
        F: Fn(S::Client, Progress) -> R,
        R: Future<Output = Result<T, Failure>>,
    {
        self.request_within(self.0.options.silence * 10, make).await
    }

    async fn request_within<T, F, R>(&self, silence: Duration, make: F) -> Result<T>
    where
        F: Fn(S::Client, Progress) -> R,
        R: Future<Output = Result<T, Failure>>,
    {
        let mut attempt = 1;
        let (mut refreshed, mut corrected) = (false, false);
        loop {
            self.0.options.cancel.check()?;
            let (client, generation) = {
                let state = self.lock();
                (state.client.clone(), state.generation)
            };
            let outcome = {
                let _permit = tokio::select! {
                    permit = self.0.limiter.acquire() => permit,
                    // No request is under way that had to be waited for.
                    () = self.0.options.cancel.cancelled() => return Err(Error::interrupted()),
                };
                self.attempt(silence, &make, client).await
            };
            let failure = match outcome {
                Ok(value) => {
                    self.0.limiter.succeeded();
                    return Ok(value);
                }
                Err(failure) => failure,
            };
            if let Some(region) = failure.region.filter(|region| *region != self.region()) {
                // Once for each Region it names; the service would not send us round in circles.
                if attempt < self.0.options.retry.max_attempts {
                    self.reconnect(generation, Some(region)).await?;
                    attempt += 1;
                    continue;
                }
            }
            if failure.skewed && !corrected && attempt < self.0.options.retry.max_attempts {
                corrected = true;
                attempt += 1;
                continue;
            }
            let error = failure.error;
            match error.retry() {
                Retry::Throttle => self.0.limiter.throttled(),
                // Credentials that are refused although they are fresh will be refused again.
                Retry::Stale if refreshed => return Err(self.finish(error, attempt)),
                Retry::Stale => {
                    refreshed = true;
                    self.reconnect(generation, None).await?;
                }
                Retry::No | Retry::Transient => {}
            }
            let Some(delay) = self.0.options.retry.delay(error.retry(), attempt, random()) else {
                return Err(self.finish(error, attempt));
            };
            self.0.options.observer.note(&Event::Retried { error: &error, attempt, delay });
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                // No request is under way that had to be waited for.
                () = self.0.options.cancel.cancelled() => {}
            }
            attempt += 1;
        }
    }

    async fn attempt<T, F, R>(
        &self,
        silence: Duration,
        make: &F,
        client: S::Client,
    ) -> Result<T, Failure>
    where
        F: Fn(S::Client, Progress) -> R,
        R: Future<Output = Result<T, Failure>>,
    {
        let progress = Progress::new();
        let watch = async {
            loop {
                let silent = progress.silence();
                if silent >= silence {
                    return;
                }
                tokio::time::sleep(silence - silent).await;
            }
        };
        tokio::select! {
            biased;
            outcome = make(client, progress.clone()) => outcome,
            () = watch => Err(Error::new(ErrorKind::Io, "a request was silent for too long").at("seconds", silence.as_secs()).retry_as(Retry::Transient).into()),
            () = cancelled(&self.0.options.cancel, self.0.grace) => Err(Error::interrupted().into()),
        }
    }

    /// Says how often it was tried, if that was more than once, and, of a service that did not
    /// answer, where it should be.
    fn finish(&self, error: Error, attempts: u32) -> Error {
        let mut error = error;
        if attempts > 1 {
            error = error.at("attempts", attempts);
        }
        if error.fact("status").is_some() || error.kind() == ErrorKind::Interrupted {
            return error;
        }
        match (&self.0.access.profile, self.endpoint()) {
            (Some(profile), _) if error.kind() == ErrorKind::Denied => error.at("profile", profile),
            (_, endpoint) if error.kind() == ErrorKind::Denied || endpoint.is_empty() => {
                error.at("region", self.region())
            }
            (_, endpoint) => error.at("endpoint", endpoint),
        }
    }

    /// Makes a new client, unless somebody else has done so since `generation`.
    async fn reconnect(&self, generation: u64, region: Option<String>) -> Result<()> {
        if self.lock().generation != generation {
            return Ok(());
        }
        let fresh = State::new(&self.0.access, region, generation + 1).await?;
        let mut state = self.lock();
        if state.generation == generation {
            *state = fresh;
        }
        Ok(())
    }
}

impl<S: Service> Clone for State<S> {
    fn clone(&self) -> Self {
        let Self { client, generation, region, endpoint } = self;
        Self {
            client: client.clone(),
            generation: *generation,
            region: region.clone(),
            endpoint: endpoint.clone(),
        }
    }
}

impl<S: Service> State<S> {
    async fn new(access: &Access, region: Option<String>, generation: u64) -> Result<Self> {
        let config = access.load().await?;
        let endpoint = endpoint_of::<S>(&config, access);
        let region = region.or_else(|| config.region().map(ToString::to_string));
        // A compatible store rarely cares, but a signature names a Region.
        let region = match (region, endpoint.is_empty()) {
            (Some(region), _) => region,
            (None, false) => "us-east-1".to_owned(),
            (None, true) => {
                return Err(Error::usage(
                    "no Region is known: give --region, set AWS_REGION, or name a profile that has one",
                ));
            }
        };
        let client = S::client(&config, Region::new(region.clone()), &endpoint, access)?;
        Ok(Self { client, generation, region, endpoint })
    }
}

/// The endpoint that was asked for, by whatever means; empty for AWS's own.
fn endpoint_of<S: Service>(config: &SdkConfig, access: &Access) -> String {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let ignored = variable("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")
        .is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let configured = || {
        // Of this service alone: by a variable, or in a section `services` of the profile.
        let key = aws_types::service_config::ServiceConfigKey::builder();
        let key =
            key.service_id(S::NAME).env("AWS_ENDPOINT_URL").profile("endpoint_url").build().ok();
        let own = key.and_then(|key| config.service_config()?.load_config(key));
        let general = || {
            config.endpoint_url().map(ToOwned::to_owned).or_else(|| variable("AWS_ENDPOINT_URL"))
        };
        own.or_else(general)
    };
    access
        .endpoint_url
        .clone()
        .or_else(|| if ignored { None } else { configured() })
        .unwrap_or_default()
}
