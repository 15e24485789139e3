//! Takes each request before the protocol: finds its operation, logs it, injects faults, and checks
//! its date.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, DATE, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use s3s::dto::{Timestamp, TimestampFormat};
use s3s::service::S3Service;
use s3s::{Body, HttpRequest};

use super::super::wire::{Answer, Connection, percent_decoded};
use super::faults::{Call, FaultKind};
use super::{Shared, auth, checksum};

/// How far a request's date may be from the server's clock.
const MAX_SKEW: Duration = Duration::from_secs(900);
/// Bytes of all headers of a write.
const MAX_HEADERS: usize = 8 << 10;
/// Time before a broken answer breaks off, so that the bytes before it are sent.
const LINGER: Duration = Duration::from_millis(30);

/// Extension of an answer whose status is not the usual one of its operation.
#[derive(Clone)]
pub struct Status(pub StatusCode);

/// Extension of a request: its operation in the log. `auth` checks that the protocol routes the
/// request to this operation.
#[derive(Clone)]
pub struct Operation(pub &'static str);

type Log = Arc<Mutex<Call>>;
type Plain = Response<Bytes>;

/// Answers a request, or ends its connection.
pub async fn answer(
    shared: Arc<Shared>,
    service: S3Service,
    connection: Connection,
    request: Request<Incoming>,
) -> io::Result<Response<Answer>> {
    let (mut parts, body) = request.into_parts();
    let call = describe(&parts);
    parts.extensions.insert(Operation(call.operation));
    let (log, fault) = shared.log().begin(call);
    let latency = shared.world().latency;
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    match fault {
        Some(FaultKind::Reset) => return Err(connection.cut()),
        Some(FaultKind::Hang(time)) => {
            tokio::time::sleep(time).await;
            return Err(connection.cut());
        }
        _ => {}
    }
    let mut body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    log.lock().expect("no panic").bytes_in = body.len() as u64;
    if fault == Some(FaultKind::CorruptUpload) {
        body = corrupted(&parts.headers, &body);
    }
    let refusal = fault
        .and_then(|fault| error_of(fault, &shared, &log))
        .or_else(|| refused(&shared, &parts, &body));
    let mut answer = match refusal {
        Some(refusal) => refusal,
        None => served(&service, parts, body).await?,
    };
    if fault == Some(FaultKind::ResetAfter) {
        return Err(connection.cut());
    }
    if let Some(FaultKind::Late(time)) = fault {
        tokio::time::sleep(time).await;
    }
    if fault == Some(FaultKind::FlipBit) {
        *answer.body_mut() = flipped(answer.body(), answer.body().len() / 2);
    }
    decorate(&mut answer, &shared, &log);
    let counter = Arc::clone(&log);
    let answer = answer.map(|bytes| {
        Answer::new([bytes], move |sent| counter.lock().expect("no panic").bytes_out += sent as u64)
    });
    Ok(match fault {
        Some(FaultKind::TruncatedBody) => answer.map(|body| body.broken(LINGER)),
        Some(FaultKind::Stall(time)) => answer.map(|body| body.broken(time)),
        _ => answer,
    })
}

/// Hands a request to the protocol, and collects the whole answer.
async fn served(service: &S3Service, parts: Parts, body: Bytes) -> io::Result<Plain> {
    let request = HttpRequest::from_parts(parts, Body::from(body));
    let answer =
        service.call(request).await.map_err(|cause| io::Error::other(format!("{cause:?}")))?;
    let (mut parts, body) = answer.into_parts();
    if let Some(Status(status)) = parts.extensions.remove() {
        parts.status = status;
    }
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    Ok(Response::from_parts(parts, body))
}

/// Adds the headers of every answer of S3: request ids and a date; in errors the ids stand also in
/// the body.
fn decorate(answer: &mut Plain, shared: &Shared, log: &Log) {
    let mut log = log.lock().expect("no panic");
    log.status = answer.status().as_u16();
    log.answered = Some(Instant::now());
    let id = format!("TESTREQUEST{:05}", log.number);
    let headers = answer.headers_mut();
    headers.insert("x-amz-request-id", id.parse().expect("an id is a header value"));
    headers.insert("x-amz-id-2", HeaderValue::from_static("dGVzdA=="));
    headers.insert(DATE, http_date(shared.world().now()));
    if answer.body().starts_with(b"<?xml") && !answer.headers().contains_key(CONTENT_TYPE) {
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    }
    let ids = format!("<RequestId>{id}</RequestId><HostId>dGVzdA==</HostId></Error>");
    if let Some(text) =
        std::str::from_utf8(answer.body()).ok().filter(|text| text.ends_with("</Error>"))
    {
        *answer.body_mut() = text.replace("</Error>", &ids).into();
    }
}

fn http_date(time: SystemTime) -> HeaderValue {
    let mut text = Vec::new();
    Timestamp::from(time)
        .format(TimestampFormat::HttpDate, &mut text)
        .expect("a date of our times");
    HeaderValue::from_bytes(&text).expect("a date is a header value")
}

fn is_of_checksums(header: &str) -> bool {
    let prefixes = ["x-amz-checksum-", "x-amz-sdk-checksum-", "x-amz-trailer"];
    prefixes.iter().any(|prefix| header.starts_with(prefix))
}

/// Refuses requests that AWS refuses before the operation, and s3s does not.
fn refused(shared: &Shared, parts: &Parts, body: &Bytes) -> Option<Plain> {
    let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(date) = header("x-amz-date").and_then(parse_amz_date) {
        let now = shared.world().now();
        let off = now.duration_since(date).unwrap_or_else(|early| early.duration());
        if off > MAX_SKEW {
            return Some(too_skewed());
        }
    }
    let rejects = shared.world().quirks.rejects_checksum_headers;
    if rejects && let Some(name) = parts.headers.keys().find(|name| is_of_checksums(name.as_str()))
    {
        let message = format!("Unsupported header '{name}' received for this API call.");
        let answer = error(StatusCode::BAD_REQUEST, "InvalidArgument", &message);
        let is_head = parts.method == Method::HEAD;
        return Some(if is_head { plain(StatusCode::BAD_REQUEST, "") } else { answer });
    }
    if matches!(parts.method, Method::PUT | Method::POST) {
        let size: usize =
            parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if size > MAX_HEADERS {
            return Some(error(
                StatusCode::BAD_REQUEST,
                "RequestHeaderSectionTooLarge",
                "Your request header section exceeds the maximum allowed size.",
            ));
        }
    }
    let hash = header("x-amz-content-sha256").filter(|hash| hash.len() == 64);
    if hash.is_some_and(|hash| hash != checksum::sha256_hex(body)) {
        let message =
            "The provided 'x-amz-content-sha256' header does not match what was computed.";
        return Some(error(StatusCode::BAD_REQUEST, "XAmzContentSHA256Mismatch", message));
    }
    None
}

fn too_skewed() -> Plain {
    error(
        StatusCode::FORBIDDEN,
        "RequestTimeTooSkewed",
        "The difference between the request time and the current time is too large.",
    )
}

/// `20250131T235959Z`.
fn parse_amz_date(text: &str) -> Option<SystemTime> {
    let part = |range| text.get(range);
    let (year, month, day) = (part(0..4)?, part(4..6)?, part(6..8)?);
    let (hour, minute, second) = (part(9..11)?, part(11..13)?, part(13..15)?);
    let text = format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z");
    let time = Timestamp::parse(TimestampFormat::DateTime, &text).ok()?;
    // A `Timestamp` converts without another crate only by its text.
    let mut seconds = Vec::new();
    time.format(TimestampFormat::EpochSeconds, &mut seconds).ok()?;
    let seconds: f64 = String::from_utf8(seconds).ok()?.parse().ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds))
}

/// The error answer of a fault, if it has one.
fn error_of(fault: FaultKind, shared: &Shared, log: &Log) -> Option<Plain> {
    let call = log.lock().expect("no panic").clone();
    Some(match fault {
        FaultKind::SlowDown => {
            error(StatusCode::SERVICE_UNAVAILABLE, "SlowDown", "Please reduce your request rate.")
        }
        FaultKind::InternalError => error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalError",
            "We encountered an internal error. Please try again.",
        ),
        FaultKind::ServiceUnavailable => plain(StatusCode::SERVICE_UNAVAILABLE, ""),
        FaultKind::BadGateway => {
            plain(StatusCode::BAD_GATEWAY, "<html><body><h1>502 Bad Gateway</h1></body></html>")
        }
        FaultKind::RequestTimeout => {
            let message = "Your socket connection to the server was not read from or written to \
                           within the timeout period.";
            error(StatusCode::BAD_REQUEST, "RequestTimeout", message)
        }
        FaultKind::ExpiredToken => {
            error(StatusCode::BAD_REQUEST, "ExpiredToken", "The provided token has expired.")
        }
        FaultKind::AccessDenied => error(StatusCode::FORBIDDEN, "AccessDenied", "Access Denied"),
        FaultKind::RequestTimeTooSkewed => too_skewed(),
        FaultKind::ErrorIn200 => error(
            StatusCode::OK,
            "InternalError",
            "We encountered an internal error. Please try again.",
        ),
        FaultKind::NoSuchUpload => {
            if let (Some(bucket), Some(id)) =
                (shared.world().buckets.get_mut(&call.bucket), call.upload_id)
            {
                bucket.uploads.remove(&(call.key, id));
            }
            error(StatusCode::NOT_FOUND, "NoSuchUpload", "The specified upload does not exist.")
        }
        FaultKind::ConditionalRequestConflict => {
            if let (Some(bucket), Some(id)) =
                (shared.world().buckets.get_mut(&call.bucket), call.upload_id)
            {
                bucket.uploads.entry((call.key, id)).and_modify(|upload| upload.conflicted = true);
            }
            error(
                StatusCode::CONFLICT,
                "ConditionalRequestConflict",
                "The conditional request cannot succeed due to a conflicting operation.",
            )
        }
        _ => return None,
    })
}

/// An error as S3 writes it.
fn error(status: StatusCode, code: &str, message: &str) -> Plain {
    plain(
        status,
        &format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <Error><Code>{code}</Code><Message>{message}</Message></Error>"
        ),
    )
}

fn plain(status: StatusCode, body: &str) -> Plain {
    let mut answer = Response::new(Bytes::from(body.to_owned()));
    *answer.status_mut() = status;
    if body.starts_with("<html>") {
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    }
    answer
}

/// The body with a bit of its payload wrong. The first frame of `aws-chunked` begins behind the
/// first line.
fn corrupted(headers: &HeaderMap, body: &Bytes) -> Bytes {
    let chunked = headers
        .get("content-encoding")
        .is_some_and(|encoding| encoding.as_bytes().starts_with(b"aws-chunked"));
    let frame = body.windows(2).position(|two| two == b"\r\n").map(|line| line + 2);
    flipped(body, frame.filter(|_| chunked).unwrap_or(body.len() / 2))
}

fn flipped(bytes: &Bytes, at: usize) -> Bytes {
    let mut bytes = bytes.to_vec();
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1;
    }
    bytes.into()
}

/// The call that the head of a request describes.
fn describe(parts: &Parts) -> Call {
    let path = parts.uri.path().trim_start_matches('/');
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let query: Vec<(&str, &str)> = parts
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .collect();
    let value = |name| {
        query.iter().find(|(other, _)| *other == name).map(|(_, value)| percent_decoded(value))
    };
    let header = |name| {
        parts.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    Call {
        number: 0,
        operation: operation(
            &parts.method,
            !bucket.is_empty(),
            !key.is_empty(),
            &query,
            header("x-amz-copy-source").is_some(),
        ),
        bucket: percent_decoded(bucket),
        key: percent_decoded(key),
        part_number: value("partNumber").and_then(|number| number.parse().ok()),
        upload_id: value("uploadId"),
        range: header("range").or_else(|| header("x-amz-copy-source-range")),
        access_key: auth::access_key(&parts.headers).map(str::to_owned),
        checksum_headers: parts
            .headers
            .keys()
            .filter(|name| is_of_checksums(name.as_str()))
            .map(|name| name.as_str().to_owned())
            .collect(),
        bytes_in: 0,
        bytes_out: 0,
        status: 0,
        fault: None,
        started: Instant::now(),
        answered: None,
    }
}

/// The name of an operation in the API.
fn operation(
    method: &Method,
    bucket: bool,
    key: bool,
    query: &[(&str, &str)],
    copy: bool,
) -> &'static str {
    let has = |name| query.iter().any(|(other, _)| *other == name);
    match (method.as_str(), bucket, key) {
        ("GET", false, _) => "ListBuckets",
        ("HEAD", true, false) => "HeadBucket",
        ("PUT", true, false) => "CreateBucket",
        ("GET", true, false) if has("location") => "GetBucketLocation",
        ("GET", true, false) if has("versioning") => "GetBucketVersioning",
        ("GET", true, false) if has("object-lock") => "GetObjectLockConfiguration",
        ("GET", true, false) if has("policyStatus") => "GetBucketPolicyStatus",
        ("GET", true, false) if has("publicAccessBlock") => "GetPublicAccessBlock",
        ("GET", true, false) if has("acl") => "GetBucketAcl",
        ("GET", true, false) if has("uploads") => "ListMultipartUploads",
        ("GET", true, false) if has("list-type") => "ListObjectsV2",
        ("HEAD", true, true) => "HeadObject",
        ("GET", true, true) if has("tagging") => "GetObjectTagging",
        ("GET", true, true) if has("uploadId") => "ListParts",
        ("GET", true, true) => "GetObject",
        ("PUT", true, true) if has("tagging") => "PutObjectTagging",
        ("PUT", true, true) if has("uploadId") && copy => "UploadPartCopy",
        ("PUT", true, true) if has("uploadId") => "UploadPart",
        ("PUT", true, true) if copy => "CopyObject",
        ("PUT", true, true) => "PutObject",
        ("POST", true, true) if has("uploads") => "CreateMultipartUpload",
        ("POST", true, true) if has("uploadId") => "CompleteMultipartUpload",
        ("POST", true, true) if has("restore") => "RestoreObject",
        ("DELETE", true, true) if has("uploadId") => "AbortMultipartUpload",
        ("DELETE", true, true) => "DeleteObject",
        _ => "Unknown",
    }
}
