//! A connection to one service: repeats requests, limits how many are sent concurrently, and ends
//! those that are idle for too long.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_s3::config::{RequestChecksumCalculation, ResponseChecksumValidation};

use super::body::Progress;
use super::error::Failure;
use super::limits::{ConcurrencyLimit, Pauses};
use super::runtime::cancelled;
use super::{Access, BandwidthLimit, Endpoint, RetryPolicy, Runtime};
use crate::base::{
    AwsService, Cancel, Error, ErrorCode, ErrorKind, Event, Observer, Result, Retry,
};

/// A service of AWS.
pub trait Service: Send + Sync + 'static {
    /// The client that sends requests.
    type Client: Clone + Send + Sync;
    /// As in `AWS_ENDPOINT_URL_S3`.
    const NAME: &'static str;
    /// The service that is named in errors.
    const SERVICE: AwsService;
    /// Concurrent requests of a new connection. On a local network 8 to 16 carry as much as 64.
    const START_REQUESTS: usize = 16;
    /// Concurrent requests at most.
    const MAX_REQUESTS: usize;

    /// A client for `endpoint`, with the credentials of `config`.
    fn client(config: &SdkConfig, endpoint: &Endpoint, access: &Access) -> Result<Self::Client>;
}

/// The time for which a cancelled operation waits for the answer of a request that creates a
/// resource: longer than services take for it, and short enough for a person who pressed Ctrl-C.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Options of all requests of a connection.
#[derive(Clone)]
pub struct ConnectionOptions {
    /// Attempts, and the pauses between them.
    pub retry: RetryPolicy,
    /// The longest time without a byte sent or received, and without an answer. A request that is
    /// idle for longer is repeated.
    pub idle_timeout: Duration,
    /// Limits bytes a second.
    pub bandwidth: Option<BandwidthLimit>,
    /// Gets an event for bytes and for repeated requests.
    pub observer: Arc<dyn Observer>,
    /// Ends all requests.
    pub cancel: Cancel,
}

impl ConnectionOptions {
    /// Reports `bytes` that were received, and waits for the bandwidth limit.
    pub(super) async fn received(&self, bytes: usize, progress: &Progress) {
        self.observer.note(&Event::Received { bytes: bytes as u64 });
        let Some(limit) = &self.bandwidth else {
            progress.moved(tokio::time::Instant::now());
            return;
        };
        let next = limit.admit(bytes as u64);
        progress.moved(next);
        tokio::time::sleep_until(next).await;
    }
}

/// A connection to a service with the credentials of one side. Clones share everything.
pub struct Connection<S: Service>(Arc<Inner<S>>);

impl<S: Service> Clone for Connection<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Inner<S: Service> {
    access: Access,
    options: ConnectionOptions,
    runtime: Runtime,
    limit: ConcurrencyLimit,
    /// The time for which a cancelled operation waits for requests that were sent.
    drain_timeout: Duration,
    state: Mutex<State<S>>,
}

struct State<S: Service> {
    client: S::Client,
    /// Counts clients: a request that was refused with an old client uses the new one.
    generation: u64,
    endpoint: Endpoint,
    checksums: ChecksumSettings,
}

/// The settings `AWS_REQUEST_CHECKSUM_CALCULATION` and `AWS_RESPONSE_CHECKSUM_VALIDATION`, or those
/// of the profile: false for `when_required`.
#[derive(Clone, Copy)]
struct ChecksumSettings {
    requests: bool,
    responses: bool,
}

impl ChecksumSettings {
    fn of(config: &SdkConfig) -> Self {
        let (request, response) =
            (config.request_checksum_calculation(), config.response_checksum_validation());
        Self {
            requests: request != Some(RequestChecksumCalculation::WhenRequired),
            responses: response != Some(ResponseChecksumValidation::WhenRequired),
        }
    }
}

impl<S: Service> Connection<S> {
    /// Reads the configuration and resolves the endpoint. Sends no request.
    pub fn open(runtime: &Runtime, access: Access, options: ConnectionOptions) -> Result<Self> {
        let state = runtime.wait(&options.cancel, Duration::ZERO, State::new(&access, None, 0))?;
        let limit = ConcurrencyLimit::new(S::START_REQUESTS, S::MAX_REQUESTS);
        Ok(Self(Arc::new(Inner {
            access,
            options,
            runtime: runtime.clone(),
            limit,
            drain_timeout: Duration::ZERO,
            state: Mutex::new(state),
        })))
    }

    /// The Region that requests go to.
    pub fn region(&self) -> String {
        self.lock().endpoint.region().to_owned()
    }

    /// The endpoint.
    pub fn endpoint(&self) -> Endpoint {
        self.lock().endpoint.clone()
    }

    /// The profile that was given.
    pub fn profile(&self) -> Option<String> {
        self.0.access.profile.clone()
    }

    /// Whether both connections reach the same service with the same credentials.
    pub fn is_same_side(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.0.access == other.0.access && self.endpoint().url() == other.endpoint().url())
    }

    /// This connection for requests that clean up, which are sent although the operation was
    /// cancelled: at most three attempts each.
    pub(super) fn for_cleaning_up(&self) -> Self {
        let retry = RetryPolicy {
            max_attempts: self.0.options.retry.max_attempts.min(3),
            ..self.0.options.retry
        };
        self.with(
            ConnectionOptions { cancel: Cancel::new(), retry, ..self.0.options.clone() },
            Duration::ZERO,
        )
    }

    /// This connection for requests that create a resource and return its id: a cancelled operation
    /// waits for the answer, so that the resource can be deleted. The request is not repeated
    /// then.
    pub(super) fn until_answered(&self) -> Self {
        self.with(self.0.options.clone(), DRAIN_TIMEOUT)
    }

    fn with(&self, options: ConnectionOptions, drain_timeout: Duration) -> Self {
        let (access, runtime, limit) =
            (self.0.access.clone(), self.0.runtime.clone(), self.0.limit.clone());
        Self(Arc::new(Inner {
            access,
            options,
            runtime,
            limit,
            drain_timeout,
            state: Mutex::new(self.lock().clone()),
        }))
    }

    /// The current client.
    pub(super) fn client(&self) -> S::Client {
        self.lock().client.clone()
    }

    pub(super) fn runtime(&self) -> &Runtime {
        &self.0.runtime
    }

    pub(super) fn options(&self) -> &ConnectionOptions {
        &self.0.options
    }

    /// Whether requests carry a checksum that no service requires.
    pub(super) fn sends_checksums(&self) -> bool {
        self.lock().checksums.requests
    }

    /// Whether answers are requested with a checksum.
    pub(super) fn requests_checksums(&self) -> bool {
        self.lock().checksums.responses
    }

    /// Whether bodies have to be signed: a signature protects them where TLS does not.
    pub(super) fn signs_bodies(&self) -> bool {
        self.lock().endpoint.is_exposed()
    }

    fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks until `work` has ended or the operation is cancelled.
    pub(super) fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.0.runtime.wait(&self.0.options.cancel, self.0.drain_timeout, work)
    }

    /// Sends a request, and repeats it until it succeeds, fails for good, or the retry policy
    /// allows no further attempt.
    pub(super) async fn request<T, F, R>(&self, make: F) -> Result<T>
    where
        F: Fn(S::Client, Progress) -> R,
        R: Future<Output = Result<T, Failure>>,
    {
        self.request_within(self.0.options.idle_timeout, make).await
    }

    /// [`request`](Self::request) with ten times the idle timeout, for requests that the service
    /// works on for minutes.
    pub(super) async fn slow_request<T, F, R>(&self, make: F) -> Result<T>
    where
        F: Fn(S::Client, Progress) -> R,
        R: Future<Output = Result<T, Failure>>,
    {
        self.request_within(self.0.options.idle_timeout * 10, make).await
    }

    async fn request_within<T, F, R>(&self, idle_timeout: Duration, make: F) -> Result<T>
    where
        F: Fn(S::Client, Progress) -> R,
        R: Future<Output = Result<T, Failure>>,
    {
        let (mut attempt, mut pauses) = (1, Pauses::default());
        let (mut refreshed, mut corrected) = (false, false);
        loop {
            self.0.options.cancel.check()?;
            let (client, generation, sent_to) = {
                let state = self.lock();
                (state.client.clone(), state.generation, state.endpoint.region().to_owned())
            };
            let outcome = {
                let _permit = tokio::select! {
                    permit = self.0.limit.acquire() => permit,
                    // No request is in progress, so there is no answer to wait for.
                    () = self.0.options.cancel.cancelled() => return Err(Error::interrupted()),
                };
                self.attempt(idle_timeout, &make, client).await
            };
            let failure = match outcome {
                Ok(value) => {
                    self.0.limit.succeeded();
                    return Ok(value);
                }
                Err(failure) => failure,
            };
            // Another request may have been redirected, too, and have connected there meanwhile.
            if let Some(region) = failure.region.filter(|region| *region != sent_to) {
                // Each redirect counts as an attempt.
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
                Retry::Throttle => self.0.limit.throttled(),
                // Fresh credentials that are refused will be refused again.
                Retry::Stale if refreshed => return Err(self.finish(error, attempt)),
                Retry::Stale => {
                    refreshed = true;
                    self.reconnect(generation, None).await?;
                }
                Retry::No | Retry::Transient | Retry::Damaged => {}
            }
            let (policy, is_random) =
                (&self.0.options.retry, self.0.limit.is_throttled_at_random());
            let Some(delay) = pauses.next(policy, error.retry(), is_random, fastrand::f64()) else {
                return Err(self.finish(error, attempt));
            };
            self.0.options.observer.note(&Event::Retried { error: &error, attempt, delay });
            let pause = async {
                match error.retry() {
                    Retry::Throttle => pauses.sleep(delay, policy, &self.0.limit).await,
                    _ => tokio::time::sleep(delay).await,
                }
            };
            tokio::select! {
                () = pause => {}
                // No request is in progress, so there is no answer to wait for.
                () = self.0.options.cancel.cancelled() => {}
            }
            attempt += 1;
        }
    }

    async fn attempt<T, F, R>(
        &self,
        idle_timeout: Duration,
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
                let idle = progress.idle();
                if idle >= idle_timeout {
                    return;
                }
                tokio::time::sleep(idle_timeout.saturating_sub(idle)).await;
            }
        };
        tokio::select! {
            biased;
            outcome = make(client, progress.clone()) => outcome,
            () = watch => Err(idle_for(idle_timeout).into()),
            () = cancelled(&self.0.options.cancel, self.0.drain_timeout) => {
                Err(Error::interrupted().into())
            }
        }
    }

    /// Adds the number of attempts, if it is more than one, and, without an answer of the service,
    /// its endpoint or Region.
    fn finish(&self, error: Error, attempts: u32) -> Error {
        let error = error.after_attempts(attempts).of_service(S::SERVICE);
        if error.answer().is_some() || error.kind() == ErrorKind::Interrupted {
            return error;
        }
        let (is_denied, endpoint) = (error.kind() == ErrorKind::Denied, self.endpoint());
        match (&self.0.access.profile, endpoint.url()) {
            (Some(profile), _) if is_denied => error.at("profile", profile),
            (_, Some(url)) if !is_denied => error.at("endpoint", url),
            _ => error.at("region", endpoint.region()),
        }
    }

    /// Makes a new client, unless another request has done so since `generation`.
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

fn idle_for(idle_timeout: Duration) -> Error {
    Error::new(ErrorKind::Io, "a request was idle for too long")
        .code_as(ErrorCode::Unreachable)
        .at("seconds", idle_timeout.as_secs())
        .retry_as(Retry::Transient)
}

impl<S: Service> Clone for State<S> {
    fn clone(&self) -> Self {
        let Self { client, generation, endpoint, checksums } = self;
        Self {
            client: client.clone(),
            generation: *generation,
            endpoint: endpoint.clone(),
            checksums: *checksums,
        }
    }
}

impl<S: Service> State<S> {
    async fn new(access: &Access, region: Option<String>, generation: u64) -> Result<Self> {
        let config = access.load().await?;
        let endpoint =
            Endpoint::resolve(&config, S::NAME, region.as_deref(), access.endpoint_url.as_deref())?;
        let client = S::client(&config, &endpoint, access)?;
        Ok(Self { client, generation, endpoint, checksums: ChecksumSettings::of(&config) })
    }
}
