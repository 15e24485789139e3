//! Takes each request: finds its operation, logs it, injects faults and latency, authenticates it,
//! and routes it to its service.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode};

use super::super::wire::{Answer, Connection, percent_decoded};
use super::ebs::Target;
use super::faults::{Call, FaultKind, Log};
use super::{Shared, auth, ebs, ec2};

/// The body of an answer, in pieces.
pub type Body = Vec<Bytes>;

/// Time before a broken answer breaks off, so that the bytes before it are sent.
const LINGER: Duration = Duration::from_millis(30);

/// Extension of an error answer, for the log.
#[derive(Clone)]
pub struct ErrorCode(pub String);

/// The service and operation of a request.
enum Route {
    Ebs(Target),
    Ec2(String),
    Unknown,
}

/// Answers a request, or ends its connection.
pub async fn answer(
    shared: Arc<Shared>,
    connection: Connection,
    request: Request<Incoming>,
) -> io::Result<Response<Answer>> {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let shared = addressed(shared, &parts);
    // The action of an EC2 request stands in its body, so the body is read first: a call is logged
    // after it has arrived completely.
    let mut body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let arrived = Instant::now();
    let target = Target::of(&parts);
    let parameters = match target {
        Some(_) => form(parts.uri.query().unwrap_or_default().as_bytes()),
        None => form(&body),
    };
    let route = match target {
        Some(target) => Route::Ebs(target),
        None if parts.uri.path() == "/" => {
            Route::Ec2(parameters.get("Action").cloned().unwrap_or_default())
        }
        None => Route::Unknown,
    };
    let call = describe(&parts, &route, &parameters, &body, connection.number, started);
    let (log, fault) = shared.log().begin(call);
    match fault {
        Some(FaultKind::Reset) => return Err(connection.cut()),
        Some(FaultKind::Hang(time)) => {
            tokio::time::sleep(time).await;
            return Err(connection.cut());
        }
        Some(FaultKind::CorruptUpload) => body = flipped(&body),
        Some(FaultKind::Vanish) => delete_snapshot(&shared, &log),
        _ => {}
    }
    let failure = fault.as_ref().and_then(|fault| error_of(fault, &shared, &route));
    let mut answer = failure.unwrap_or_else(|| served(&shared, &route, &parts, &parameters, &body));
    if let Some(fault) = &fault {
        alter(fault, &mut answer, &shared, &route);
    }
    let (latency, block_latency) = {
        let world = shared.world();
        (world.settings.latency, world.settings.block_latency)
    };
    let is_block = matches!(&route, Route::Ebs(target) if target.block.is_some());
    let mut until = arrived + if is_block { latency.max(block_latency) } else { latency };
    if let Some(FaultKind::Delay(time)) = fault {
        until += time;
    }
    if until > Instant::now() {
        tokio::time::sleep_until(until.into()).await;
    }
    if fault == Some(FaultKind::ResetAfter) {
        return Err(connection.cut());
    }
    finish(&mut answer, &log);
    shared.log().answered(&log);
    let counter = Arc::clone(&shared);
    let answer =
        answer.map(|pieces| Answer::new(pieces, move |sent| counter.log().sent(&log, sent)));
    Ok(match fault {
        Some(FaultKind::Truncated) => answer.map(|body| body.broken(LINGER)),
        Some(FaultKind::Stall(time)) => answer.map(|body| body.broken(time)),
        _ => answer,
    })
}

/// The server that a request is for: of several with one endpoint, the one in the Region of the
/// signature that knows the access key, else one in the Region.
fn addressed(shared: Arc<Shared>, parts: &Parts) -> Arc<Shared> {
    let peers = shared.world().peers.clone();
    let (false, Some((key, region))) = (peers.is_empty(), auth::scope(parts)) else {
        return shared;
    };
    let all = std::iter::once(shared.clone()).chain(peers.iter().filter_map(Weak::upgrade));
    let there: Vec<_> = all.filter(|server| server.world().region == region).collect();
    let known = there.iter().find(|server| server.world().keys.contains_key(key));
    known.or(there.first()).cloned().unwrap_or(shared)
}

/// Authenticates a request, and routes it to its service.
fn served(
    shared: &Shared,
    route: &Route,
    parts: &Parts,
    parameters: &BTreeMap<String, String>,
    body: &Bytes,
) -> Response<Body> {
    let mut world = shared.world();
    world.tick();
    let service = match route {
        Route::Ebs(_) => "ebs",
        Route::Ec2(action) if action == ec2::IDENTITY => "sts",
        Route::Ec2(_) => "ec2",
        Route::Unknown => return plain(StatusCode::NOT_FOUND, ""),
    };
    // The signature covers the whole body, and its check takes time: without the lock.
    let (keys, region, time) = (world.keys.clone(), world.region.clone(), world.signing_time());
    drop(world);
    let authenticated = auth::check(parts, body, &keys, &region, service, time);
    let mut world = shared.world();
    let access_key = match (authenticated, route) {
        (Ok(access_key), _) => access_key,
        (Err(failure), Route::Ebs(_)) => {
            return ebs::Error::unauthenticated(&failure).answer(&world);
        }
        (Err(failure), _) => return ec2::Error::unauthenticated(&failure).answer(),
    };
    let account = keys[&access_key].account.clone();
    match route {
        Route::Ebs(target) => {
            if let Some(reason) =
                world.throttled(&account, target.operation, target.snapshot.as_deref())
            {
                return ebs::Error::throttled(reason, world.settings.plain_throttling)
                    .answer(&world);
            }
            if world.denies(&access_key, "ebs", target.operation) {
                let message = format!(
                    "User: arn:aws:iam::{account}:user/test is not authorized to perform: ebs:{}",
                    target.operation
                );
                return ebs::Error::new(
                    403,
                    "AccessDeniedException",
                    "UNAUTHORIZED_ACCOUNT",
                    message,
                )
                .answer(&world);
            }
            drop(world);
            ebs::answer(
                shared,
                &ebs::Request {
                    target,
                    account: &account,
                    parameters,
                    headers: &parts.headers,
                    body,
                },
            )
        }
        Route::Ec2(action) if action == ec2::IDENTITY => ec2::identity(&world, &account),
        Route::Ec2(action) => {
            if world.throttled(&account, action, None).is_some() {
                return ec2::Error::throttled().answer();
            }
            ec2::answer(&mut world, action, &account, &access_key, parameters)
        }
        Route::Unknown => plain(StatusCode::NOT_FOUND, ""),
    }
}

/// The error answer of a fault, if it has one.
fn error_of(fault: &FaultKind, shared: &Shared, route: &Route) -> Option<Response<Body>> {
    let world = shared.world();
    let is_ebs = matches!(route, Route::Ebs(_));
    let error = |status: u16, code: &str, reason: &str| {
        let message = "This is an error that a test asked for.";
        if is_ebs {
            ebs::Error::new(status, code, reason, message).answer(&world)
        } else {
            ec2::Error::new(status, code, message).answer()
        }
    };
    Some(match fault {
        FaultKind::Error { status, code, reason } => error(*status, code, reason),
        FaultKind::BlockNotRead => {
            ebs::Error::invalid("WRITE_REQUEST_TIMEOUT", "Failed to read block data").answer(&world)
        }
        FaultKind::Throttle if is_ebs => {
            ebs::Error::throttled("ACCOUNT_THROTTLED", world.settings.plain_throttling)
                .answer(&world)
        }
        FaultKind::Throttle => ec2::Error::throttled().answer(),
        FaultKind::Unavailable => plain(StatusCode::SERVICE_UNAVAILABLE, ""),
        FaultKind::BadGateway => {
            plain(StatusCode::BAD_GATEWAY, "<html><body><h1>502 Bad Gateway</h1></body></html>")
        }
        FaultKind::ExpiredToken if is_ebs => ebs::Error::expired().answer(&world),
        FaultKind::ExpiredToken => ec2::Error::expired().answer(),
        _ => return None,
    })
}

/// Alters an answer as a fault says.
fn alter(fault: &FaultKind, answer: &mut Response<Body>, shared: &Shared, route: &Route) {
    let is_block = answer.headers().contains_key("x-amz-data-length");
    match fault {
        FaultKind::ErrorAfter { status, code } => {
            let instead =
                FaultKind::Error { status: *status, code: code.clone(), reason: String::new() };
            *answer = error_of(&instead, shared, route).expect("an error is an answer");
        }
        FaultKind::Garbage => *answer.body_mut() = vec![Bytes::from_static(b"\x00{<garbage")],
        FaultKind::FlipBit => {
            let body = Bytes::from(answer.body().concat());
            *answer.body_mut() = vec![flipped(&body)];
        }
        FaultKind::WrongChecksum if is_block => {
            let wrong = HeaderValue::from_static("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
            answer.headers_mut().insert("x-amz-checksum", wrong);
        }
        FaultKind::ShortBlock if is_block => {
            let body = Bytes::from(answer.body().concat());
            *answer.body_mut() = vec![body.slice(..body.len() / 2)];
        }
        FaultKind::WrongLength if is_block => {
            answer.headers_mut().insert("x-amz-data-length", 262_144.into());
        }
        _ => {}
    }
}

fn delete_snapshot(shared: &Shared, log: &Log) {
    let snapshot = log.lock().expect("no panic").snapshot.clone();
    snapshot.map(|id| shared.world().snapshots.remove(&id));
}

fn finish(answer: &mut Response<Body>, log: &Log) {
    let mut log = log.lock().expect("no panic");
    log.status = answer.status().as_u16();
    log.error = answer.extensions_mut().remove::<ErrorCode>().map(|code| code.0);
    log.answered = Some(Instant::now());
    let id = request_id(log.number);
    if answer.body().first().is_some_and(|first| first.starts_with(b"<?xml")) {
        let text = String::from_utf8_lossy(&answer.body().concat()).replace(ec2::REQUEST_ID, &id);
        *answer.body_mut() = vec![text.into()];
    }
    let id = id.parse().expect("an id is a header value");
    answer.headers_mut().insert("x-amzn-requestid", id);
}

fn request_id(number: u64) -> String {
    format!("7e57a350-0000-4000-8000-{number:012x}")
}

pub fn plain(status: StatusCode, body: &str) -> Response<Body> {
    let mut answer = Response::new(vec![Bytes::from(body.to_owned())]);
    *answer.status_mut() = status;
    if body.starts_with("<html>") {
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    }
    answer
}

fn flipped(bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
    bytes.into()
}

fn describe(
    parts: &Parts,
    route: &Route,
    parameters: &BTreeMap<String, String>,
    body: &Bytes,
    connection: u64,
    started: Instant,
) -> Call {
    let (service, operation, snapshot, block) = match route {
        Route::Ebs(target) => {
            ("ebs", target.operation.to_owned(), target.snapshot.clone(), target.block)
        }
        Route::Ec2(action) => {
            let snapshot =
                parameters.get("SnapshotId").or_else(|| parameters.get("SnapshotId.1")).cloned();
            ("ec2", action.clone(), snapshot, None)
        }
        Route::Unknown => ("ec2", "Unknown".to_owned(), None, None),
    };
    Call {
        number: 0,
        service,
        operation,
        snapshot,
        block,
        parameters: parameters.clone(),
        access_key: auth::access_key(parts).map(str::to_owned),
        connection,
        bytes_in: body.len() as u64,
        bytes_out: 0,
        status: 0,
        error: None,
        fault: None,
        started,
        answered: None,
    }
}

/// `a=b&c=d`. Later values of a name win.
pub fn form(text: &[u8]) -> BTreeMap<String, String> {
    let text = String::from_utf8_lossy(text);
    let pairs = text
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs
        .map(|(name, value)| {
            (percent_decoded(&name.replace('+', " ")), percent_decoded(&value.replace('+', " ")))
        })
        .collect()
}
