//! Routes requests: to the status page, to an action of this server, or to EC2.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::actions::Action;
use super::forward::Plan;
use super::http::{Bodies, BodyError, ConnectionHandle, Handler, Reply, is_long};
use super::metrics::Metrics;
use super::origin::{has_password, is_cross_site, names_loopback};
use super::signature::{Head, Verified, Verifier, stated_region};
use super::sites::Sites;
use super::{HttpSettings, Refusal, ServedSite, Service, pages};
use crate::aws::ec2_query::{MAX_FORM_BYTES, Params, refusal};
use crate::base::{Clock, random_id};

/// Calls of CreateStoreImageTask and CreateRestoreImageTask, which ask AWS, at one moment.
const SLOW: usize = 24;
/// Calls that read the task database, at one moment. With the slow ones they are fewer than the
/// blocking threads.
const QUICK: usize = 24;
/// Requests that are forwarded to EC2 at one moment.
const FORWARDED: usize = 64;
/// The longest wait for one of the permits above.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(20);
/// A client that signs again after this time makes another signature.
const NEXT_SECOND: Duration = Duration::from_secs(1);
/// A signature that arrives again within this time is a repetition by its client.
const REPETITION: Duration = Duration::from_secs(5);

/// Answers requests with the services of their sites, the pages and EC2.
pub(super) struct Router {
    sites: Sites,
    verifier: Option<Verifier>,
    status_password: Option<String>,
    /// Whether the address is a loopback address.
    is_local: bool,
    clock: Clock,
    bodies: Bodies,
    metrics: Arc<Metrics>,
    slow: Arc<Semaphore>,
    quick: Arc<Semaphore>,
    forwarded: Arc<Semaphore>,
}

/// The id of a request, and the action by which it is counted.
struct Trace {
    id: String,
    action: &'static str,
}

impl Router {
    pub(super) fn new(
        settings: HttpSettings,
        address: SocketAddr,
        service: Arc<dyn Service>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let own = ServedSite {
            profile: None,
            region: settings.region,
            is_default: true,
            service,
            upstream: settings.upstream,
        };
        let sites = Sites::new(own, settings.others);
        Self {
            verifier: settings.keys.map(|keys| Verifier::new(keys, sites.regions())),
            sites,
            status_password: settings.status_password,
            is_local: address.ip().to_canonical().is_loopback(),
            clock: settings.clock,
            bodies: Bodies::new(MAX_FORM_BYTES, settings.limits.body_timeout),
            metrics,
            slow: Arc::new(Semaphore::new(SLOW)),
            quick: Arc::new(Semaphore::new(QUICK)),
            forwarded: Arc::new(Semaphore::new(FORWARDED)),
        }
    }

    async fn route(
        self: Arc<Self>,
        request: Request<Incoming>,
        handle: &ConnectionHandle,
        trace: &mut Trace,
    ) -> Result<Reply, Refusal> {
        let path = request.uri().path();
        if request.method() == Method::POST && path == "/" {
            trace.action = "unknown";
            return self.protocol(request, handle, trace).await;
        }
        if path == "/healthz" {
            return Ok(Reply::new(200, "text/plain", "ok\n"));
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Err(Refusal::new(405, "InvalidHttpMethod", "an action is asked for by POST /"));
        }
        let query = request.uri().query().unwrap_or_default();
        if path == "/" && (query.contains("Action=") || query.contains("Signature=")) {
            return Err(Refusal::new(
                405,
                "InvalidHttpMethod",
                "an action is asked for by POST, signed in the header Authorization and not in the \
                 URL",
            ));
        }
        self.page(path, request.headers(), handle).await
    }

    /// The status page, its data and the metrics: for this machine, or for a client with the
    /// password.
    async fn page(
        &self,
        path: &str,
        headers: &HeaderMap,
        handle: &ConnectionHandle,
    ) -> Result<Reply, Refusal> {
        let missing = || Refusal::new(404, "NotFound", "there is nothing here");
        if self.is_local && !names_loopback(headers) {
            return Err(Refusal::new(
                403,
                "InvalidHost",
                "this server is for this machine: ask for it by its address or as localhost",
            ));
        }
        match &self.status_password {
            Some(password) if !has_password(headers, password) => {
                let reply = Reply::new(
                    401,
                    "text/plain",
                    "the status page takes the password of --status-password-file\n",
                );
                return Ok(
                    reply.with("www-authenticate", "Basic realm=\"amistore\", charset=\"UTF-8\"")
                );
            }
            None if !self.is_local => return Err(missing()),
            _ => {}
        }
        if let Some(file) = pages::file(path) {
            return Ok(file);
        }
        if !matches!(path, "/tasks.json" | "/metrics") {
            return Err(missing());
        }
        let guard = handle.begin_request();
        // Each service knows the tasks of all sites.
        let service = self.sites.own().service.clone();
        let overview = blocking(&self.quick, move || service.overview()).await?;
        let reply = match path {
            "/metrics" => Reply::new(
                200,
                "text/plain; version=0.0.4; charset=utf-8",
                self.metrics.text(&overview),
            ),
            _ => pages::tasks(&overview),
        };
        Ok(reply.until_sent(guard))
    }

    /// An action of EC2's protocol.
    async fn protocol(
        &self,
        request: Request<Incoming>,
        handle: &ConnectionHandle,
        trace: &mut Trace,
    ) -> Result<Reply, Refusal> {
        let (parts, body) = request.into_parts();
        self.admit(&parts)?;
        let (form, verified) = self.form(&parts, body, handle).await?;
        let site = match &verified {
            Some(verified) => self.sites.of_key(verified)?,
            None => self.sites.of_region(stated_region(head_of(&parts))?)?,
        };
        let guard = handle.begin_request();
        let params = Params::decode(&form)
            .map_err(|error| Refusal::client("MalformedQueryString", error.message()))?;
        let action = action_of(&params)?;
        let own = Action::parse(&action);
        trace.action = own.map_or("other", Action::name);
        // A client that polls twice within a second sends one signature twice.
        let only_reads =
            ["Describe", "Get", "List", "Search"].iter().any(|verb| action.starts_with(verb));
        let once = verified.as_ref().filter(|_| !only_reads);
        let once = once.map(|verified| (verified.signature, verified.until));
        if let Some(signature) = once {
            self.use_up(signature).await?;
        }
        let outcome = match own {
            Some(own) => self.own(site, own, (params, form), trace).await,
            None => self.other(site, &action, params, form, trace).await,
        };
        let failed =
            outcome.as_ref().map_or_else(|refusal| refusal.status, |reply| reply.status) >= 500;
        if let (Some((signature, _)), true) = (once, failed) {
            // A client repeats a request that failed in the server, within a second with its old
            // signature: as long as that is used, the client has to sign again.
            let service = site.service.clone();
            let _ = blocking(&self.quick, move || service.release_signature(&signature)).await;
        }
        outcome.map(|reply| reply.until_sent(guard))
    }

    /// Uses the signature up: an attacker who saw the request cannot repeat it.
    async fn use_up(&self, (signature, until): ([u8; 32], SystemTime)) -> Result<(), Refusal> {
        let service = self.sites.own().service.clone();
        let before =
            blocking(&self.quick, move || service.use_signature(&signature, until)).await?;
        let now = self.clock.now();
        // The request may have waited for a permit until the first use was forgotten.
        if now > until {
            return Err(Refusal::client("RequestExpired", "Request has expired: sign it again"));
        }
        let Some(before) = before else { return Ok(()) };
        // Most likely the client repeats its request because the answer was lost: asked to wait, it
        // signs again, and makes another signature.
        if now.duration_since(before).is_ok_and(|since| since < REPETITION) {
            tokio::time::sleep(NEXT_SECOND).await;
            return Err(Refusal::busy(
                "this signed request was made already, a moment ago: sign it again",
            ));
        }
        Err(Refusal::new(401, "AuthFailure", "this signed request was made already: sign it again"))
    }

    /// Checks the head of a request, before the body is read.
    fn admit(&self, parts: &Parts) -> Result<(), Refusal> {
        if self.verifier.is_none() && !names_loopback(&parts.headers) {
            return Err(Refusal::new(
                403,
                "InvalidHost",
                "without --access-keys this server is for this machine: ask for it by its address \
                 or as localhost",
            ));
        }
        if is_cross_site(&parts.headers) {
            return Err(Refusal::new(
                403,
                "UnauthorizedOperation",
                "requests that a page of another site makes are not answered",
            ));
        }
        let presigned = parts.uri.query().is_some_and(|query| query.contains("Signature="));
        if self.verifier.is_some() && !parts.headers.contains_key(AUTHORIZATION) && !presigned {
            let message = "Request is missing Authentication Token: \
                 sign it with an access key of this server";
            return Err(Refusal::new(403, "MissingAuthenticationToken", message));
        }
        let kind = parts
            .headers
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .unwrap_or("application/x-www-form-urlencoded");
        if !kind.trim_start().to_ascii_lowercase().starts_with("application/x-www-form-urlencoded")
        {
            return Err(Refusal::client(
                "UnsupportedProtocol",
                "an action is sent as application/x-www-form-urlencoded",
            ));
        }
        Ok(())
    }

    /// Reads the form, and verifies the signature. Without keys there is none.
    async fn form(
        &self,
        parts: &Parts,
        body: Incoming,
        handle: &ConnectionHandle,
    ) -> Result<(Bytes, Option<Verified>), Refusal> {
        let claims =
            self.verifier.as_ref().map(|verifier| verifier.read(head_of(parts), self.clock.now()));
        let mut is_proved = handle.is_known();
        if let (true, Some(claims)) = (is_long(&body), &claims) {
            // A long body is worth its memory only if its signature can be right.
            let claims = claims.as_ref().map_err(Refusal::clone)?;
            is_proved |= claims.verify_stated()?;
        }
        let form = self.bodies.read(body, handle, is_proved).await.map_err(of_body)?;
        let verified = match claims {
            Some(claims) => Some(claims?.verify(&form)?),
            None => None,
        };
        Ok((form, verified))
    }

    async fn own(
        &self,
        site: &ServedSite,
        action: Action,
        (params, form): (Params, Bytes),
        trace: &Trace,
    ) -> Result<Reply, Refusal> {
        if let Some(upstream) = &site.upstream
            && action == Action::CreateRestore
        {
            let (service, params) = (site.service.clone(), params.clone());
            let is_for_ec2 = move || action.is_for_ec2(&params, &*service);
            if blocking(&self.slow, is_for_ec2).await? {
                let permit = permit(&self.forwarded).await?;
                let answer = upstream.ask(action.name(), form).await?;
                return Ok(Plan::default().finish(answer).await?.until_sent(permit));
            }
        }
        let service = site.service.clone();
        let permits = if action == Action::StoreTasks { &self.quick } else { &self.slow };
        let xml = blocking(permits, move || action.answer(&params, &*service)).await?;
        Ok(Reply::xml(200, &trace.id, xml.response(action.name(), &trace.id)))
    }

    async fn other(
        &self,
        site: &ServedSite,
        action: &str,
        params: Params,
        form: Bytes,
        trace: &Trace,
    ) -> Result<Reply, Refusal> {
        let (service, name, forwards) =
            (site.service.clone(), action.to_owned(), site.upstream.is_some());
        let is_dry = params.get("DryRun") == Some("true");
        let mut plan =
            blocking(&self.quick, move || Plan::of(&name, &params, &*service, forwards)).await?;
        let (Some(upstream), Some(rewritten)) = (&site.upstream, plan.form.take()) else {
            if is_dry {
                return Err(Refusal::dry_run());
            }
            return Ok(Reply::xml(200, &trace.id, plan.own_answer().response(action, &trace.id)));
        };
        let permit = permit(&self.forwarded).await?;
        let form = rewritten.map_or(form, |params| params.encode().into());
        Ok(plan.finish(upstream.ask(action, form).await?).await?.until_sent(permit))
    }
}

impl Handler for Router {
    /// Answers; a request that was begun is finished even if the client disconnects.
    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        connection: ConnectionHandle,
    ) -> Reply {
        let began = Instant::now();
        let trace = Trace { id: request_id(), action: "page" };
        let (id, router) = (trace.id.clone(), self.clone());
        let handled = tokio::spawn(async move {
            let mut trace = trace;
            let reply = match router.route(request, &connection, &mut trace).await {
                Ok(reply) => reply,
                Err(refusal) => refused(&refusal, &trace.id),
            };
            (reply, trace.action)
        });
        let (reply, action) =
            handled.await.unwrap_or_else(|_| (refused(&Refusal::internal(), &id), "unknown"));
        self.metrics.answered(action, &reply.code, began.elapsed());
        reply
    }
}

fn head_of(parts: &Parts) -> Head<'_> {
    Head {
        method: parts.method.as_str(),
        query: parts.uri.query().unwrap_or_default(),
        headers: &parts.headers,
    }
}

fn of_body(error: BodyError) -> Refusal {
    match error {
        BodyError::TooLong => Refusal::new(
            413,
            "RequestEntityTooLarge",
            format!("the form is longer than {MAX_FORM_BYTES} bytes"),
        ),
        BodyError::TimedOut => {
            Refusal::new(408, "RequestTimeout", "the body of the request did not arrive in time")
        }
        BodyError::Incomplete => {
            Refusal::client("IncompleteBody", "the body of the request ended early")
        }
        BodyError::Evicted => Refusal::busy("too many long requests at a time: try again"),
    }
}

fn action_of(params: &Params) -> Result<String, Refusal> {
    // Of two actions EC2 may take the other one.
    if params.pairs().iter().filter(|(name, _)| name == "Action").count() > 1 {
        return Err(Refusal::value("The parameter Action is given more than once"));
    }
    let action = params.get("Action").filter(|action| !action.is_empty());
    action
        .map(ToOwned::to_owned)
        .ok_or_else(|| Refusal::client("MissingAction", "The request is missing an action"))
}

/// Waits for a permit for at most 20 seconds.
async fn permit(permits: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Refusal> {
    match tokio::time::timeout(PERMIT_TIMEOUT, permits.clone().acquire_owned()).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(Refusal::busy("too many requests at a time: try again")),
    }
}

/// Calls the service on a blocking thread. A panic there fails this request alone.
async fn blocking<T, F>(permits: &Arc<Semaphore>, work: F) -> Result<T, Refusal>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, Refusal> + Send + 'static,
{
    let permit = permit(permits).await?;
    let work = tokio::task::spawn_blocking(move || {
        let outcome = work();
        drop(permit);
        outcome
    });
    work.await.unwrap_or_else(|_| Err(Refusal::internal()))
}

fn refused(refused: &Refusal, id: &str) -> Reply {
    let mut reply = Reply::xml(refused.status, id, refusal(&refused.code, &refused.message, id));
    reply.code.clone_from(&refused.code);
    // Perhaps a part of the body is unread.
    reply.last = matches!(refused.status, 401 | 403 | 405 | 408 | 413);
    reply
}

/// A random id in the form of a UUID; zeros if the operating system gives no random bits: the id
/// only connects an answer with its line in the log.
fn request_id() -> String {
    let digits = format!("{:032x}", random_id().unwrap_or_default());
    format!(
        "{}-{}-4{}-8{}-{}",
        &digits[..8],
        &digits[8..12],
        &digits[13..16],
        &digits[17..20],
        &digits[20..]
    )
}
