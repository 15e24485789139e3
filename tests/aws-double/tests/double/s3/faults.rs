//! Faults, latency, clock skew and network outages.

use std::time::{Duration, Instant};

use amistore_aws_double::s3::{Fault, FaultKind, ObjectOptions, TestS3, When};
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};

use super::client::{Client, Failure, body, failure, raw};

/// A server that holds `images/a`.
fn start() -> (TestS3, Client) {
    let s3 = TestS3::start();
    s3.create_bucket("images");
    s3.put_object("images", "a", vec![7; 100_000], ObjectOptions::default());
    let client = Client::new(&s3);
    (s3, client)
}

fn get(client: &Client) -> Result<bool, Failure> {
    Ok(client.get("images", "a")?.is_some_and(|bytes| bytes == vec![7; 100_000]))
}

fn next(kind: FaultKind) -> Fault {
    Fault::new(kind, When::Next("GetObject", 1))
}

#[test]
fn errors_have_the_form_of_s3() {
    let (s3, client) = start();
    let errors = [
        (FaultKind::SlowDown, 503, "SlowDown"),
        (FaultKind::InternalError, 500, "InternalError"),
        (FaultKind::ServiceUnavailable, 503, ""),
        (FaultKind::BadGateway, 502, ""),
        (FaultKind::RequestTimeout, 400, "RequestTimeout"),
        (FaultKind::ExpiredToken, 400, "ExpiredToken"),
        (FaultKind::AccessDenied, 403, "AccessDenied"),
        (FaultKind::RequestTimeTooSkewed, 403, "RequestTimeTooSkewed"),
    ];
    for (kind, status, code) in errors {
        s3.fail(next(kind));
        let error = client
            .wait(client.sdk.get_object().bucket("images").key("a").send())
            .expect_err("an error");
        let answer = error.raw_response().expect("an answer");
        let id = answer.headers().get("x-amz-request-id").expect("an id");
        let body = String::from_utf8_lossy(answer.body().bytes().unwrap_or_default()).into_owned();
        assert_eq!(answer.status().as_u16(), status);
        assert!(
            code.is_empty()
                || (body.contains(&format!("<Code>{code}</Code>")) && body.contains(id)),
            "{body}"
        );
        assert_eq!(s3.calls().last().and_then(|call| call.fault), Some(kind));
    }
    assert!(s3.calls().iter().all(|call| call.status >= 400));
    assert_eq!(get(&client), Ok(true));
}

#[test]
fn faults_match_calls_by_number_operation_and_part() {
    let (s3, client) = start();
    let outcomes = |count: usize| {
        (0..count).map(|_| if get(&client) == Ok(true) { '.' } else { 'x' }).collect::<String>()
    };
    let head = || client.run(client.sdk.head_object().bucket("images").key("a").send()).map(drop);
    let with = |when| {
        s3.clear_faults();
        s3.reset_calls();
        s3.fail(Fault::new(FaultKind::SlowDown, when));
    };
    with(When::Call(2));
    assert_eq!(outcomes(4), ".x..");
    with(When::CallOf("GetObject", 2));
    assert_eq!(head(), Ok(()));
    assert_eq!(outcomes(4), ".x..");
    with(When::Every(3));
    assert_eq!(outcomes(7), "..x..x.");
    with(When::EveryOf("GetObject", 2));
    assert_eq!(head(), Ok(()));
    assert_eq!(outcomes(4), ".x.x");
    with(When::Next("GetObject", 2));
    assert_eq!(head(), Ok(()));
    assert_eq!(outcomes(4), "xx..");
    with(When::Next("HeadObject", 1));
    assert_eq!(outcomes(1), ".");
    assert_eq!(head().map_err(|failure| failure.0), Err(503));
    let log: Vec<_> =
        s3.calls().iter().map(|call| (call.number, call.operation, call.status)).collect();
    assert_eq!(log, [(1, "GetObject", 200), (2, "HeadObject", 503)]);
    assert!(s3.calls()[0].answered.is_some_and(|answered| answered >= s3.calls()[0].started));
}

#[test]
fn answers_are_broken_off_by_faults() {
    let (s3, client) = start();
    s3.fail(next(FaultKind::TruncatedBody));
    assert_eq!(client.get("images", "a"), Ok(None));
    assert_eq!(s3.calls()[0].bytes_out, 50_000);
    s3.fail(next(FaultKind::Stall(Duration::from_millis(300))));
    let start = Instant::now();
    assert_eq!(client.get("images", "a"), Ok(None));
    assert!(start.elapsed() >= Duration::from_millis(300));
    s3.fail(next(FaultKind::FlipBit));
    assert_eq!(get(&client), Ok(false));
    assert_eq!(get(&client), Ok(true));
}

#[test]
fn connections_are_reset_before_or_after_the_operation() {
    let (s3, client) = start();
    let put = |key: &str| {
        client
            .run(client.sdk.put_object().bucket("images").key(key).body(body(b"x")).send())
            .map(drop)
    };
    s3.fail(Fault::new(FaultKind::Reset, When::Next("PutObject", 1)));
    assert_eq!(put("before"), Err(failure(0, "")));
    assert!(s3.object("images", "before").is_none());
    s3.fail(Fault::new(FaultKind::ResetAfter, When::Next("PutObject", 1)));
    assert_eq!(put("after"), Err(failure(0, "")));
    assert!(s3.object("images", "after").is_some());
    s3.fail(Fault::new(FaultKind::Hang(Duration::from_millis(200)), When::Next("PutObject", 1)));
    let start = Instant::now();
    assert_eq!(put("never"), Err(failure(0, "")));
    assert!(start.elapsed() >= Duration::from_millis(200));
    assert!(
        s3.calls().iter().all(
            |call| call.status == 0 && call.answered.is_none() || call.operation != "PutObject"
        )
    );
    assert_eq!(put("never"), Ok(()));
    for kind in [FaultKind::Reset, FaultKind::ResetAfter] {
        s3.fail(next(kind));
        let answer = raw(&s3, "GET", "/images/a", &[("range", "bytes=0-1")]);
        assert_eq!(answer.map_err(|cause| cause.kind()), Err(std::io::ErrorKind::ConnectionReset));
    }
}

#[test]
fn the_answer_of_a_completion_is_lost_or_an_error() {
    let (s3, client) = start();
    let upload = |key: &str| {
        let id = client
            .run(client.sdk.create_multipart_upload().bucket("images").key(key).send())
            .expect("creates")
            .upload_id;
        let part = client
            .sdk
            .upload_part()
            .bucket("images")
            .key(key)
            .set_upload_id(id.clone())
            .part_number(1)
            .body(body(b"x"));
        let etag = client.run(part.send()).expect("uploads").e_tag;
        let part = CompletedPart::builder().part_number(1).set_e_tag(etag).build();
        let complete =
            client.sdk.complete_multipart_upload().bucket("images").key(key).set_upload_id(id);
        client
            .run(
                complete
                    .multipart_upload(CompletedMultipartUpload::builder().parts(part).build())
                    .send(),
            )
            .map(drop)
    };
    s3.fail(Fault::new(FaultKind::ResetAfter, When::Next("CompleteMultipartUpload", 1)));
    assert_eq!(upload("lost"), Err(failure(0, "")));
    assert!(s3.object("images", "lost").is_some());
    s3.fail(Fault::new(FaultKind::ErrorIn200, When::Next("CompleteMultipartUpload", 1)));
    assert_eq!(upload("failed"), Err(failure(200, "InternalError")));
    assert!(s3.object("images", "failed").is_none());
}

#[test]
fn a_flipped_bit_of_an_upload_is_detected() {
    let (s3, client) = start();
    s3.fail(Fault::new(FaultKind::CorruptUpload, When::Next("PutObject", 1)));
    let put = || client.sdk.put_object().bucket("images").key("b").body(body(b"hello"));
    assert_eq!(client.run(put().send()).map(drop), Err(failure(400, "XAmzContentSHA256Mismatch")));
    // If the body is not signed, only a checksum detects a flipped bit.
    s3.fail(Fault::new(FaultKind::CorruptUpload, When::Next("PutObject", 1)));
    let unsigned = put().checksum_crc64_nvme("M3eFcAZSQlc=").customize().disable_payload_signing();
    assert_eq!(client.run(unsigned.send()).map(drop), Err(failure(400, "BadDigest")));
    assert!(s3.object("images", "b").is_none());
}

#[test]
fn the_client_corrects_its_clock() {
    let (s3, client) = start();
    s3.set_clock_skew(3600);
    let error =
        client.wait(client.sdk.get_object().bucket("images").key("a").send()).expect_err("skewed");
    assert_eq!(error.raw_response().map(|answer| answer.status().as_u16()), Some(403));
    let patient = Client::with(&s3, |config| {
        config.retry_config(RetryConfig::standard().with_initial_backoff(Duration::from_millis(1)))
    });
    s3.reset_calls();
    assert_eq!(get(&patient), Ok(true));
    let statuses: Vec<_> = s3.calls().iter().map(|call| call.status).collect();
    assert_eq!(statuses, [403, 200]);
    s3.set_clock_skew(-3600);
    assert_eq!(get(&Client::new(&s3)), Err(failure(403, "RequestTimeTooSkewed")));
    s3.set_clock_skew(600);
    assert_eq!(get(&Client::new(&s3)), Ok(true));
}

#[test]
fn latency_delays_requests() {
    let (s3, client) = start();
    s3.set_latency(Duration::from_millis(120));
    let start = Instant::now();
    assert_eq!(get(&client), Ok(true));
    assert!(start.elapsed() >= Duration::from_millis(120));
}

#[test]
fn a_network_outage_ends() {
    let (s3, client) = start();
    assert_eq!(get(&client), Ok(true));
    assert_eq!(s3.open_connections(), 1);
    s3.stop_accepting();
    assert_eq!(s3.open_connections(), 0);
    assert_eq!(get(&client), Err(failure(0, "")));
    let address = s3.endpoint().replace("http://", "");
    let refused = std::net::TcpStream::connect(&address).map(drop).map_err(|cause| cause.kind());
    assert_eq!(refused, Err(std::io::ErrorKind::ConnectionRefused));
    s3.resume();
    assert_eq!(get(&Client::new(&s3)), Ok(true));
}

#[test]
fn a_dropped_server_closes_its_port() {
    let (s3, client) = start();
    s3.fail(next(FaultKind::Hang(Duration::from_secs(60))));
    let timeouts =
        TimeoutConfig::builder().operation_attempt_timeout(Duration::from_millis(100)).build();
    let impatient = Client::with(&s3, |config| config.timeout_config(timeouts));
    assert_eq!(get(&impatient), Err(failure(0, "")));
    s3.fail(next(FaultKind::Stall(Duration::from_secs(60))));
    let answer =
        client.run(client.sdk.get_object().bucket("images").key("a").send()).expect("begins");
    assert!(s3.open_connections() > 0);
    let address = s3.endpoint().replace("http://", "");
    let start = Instant::now();
    drop(s3);
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(client.wait(answer.body.collect()).is_err());
    assert!(std::net::TcpStream::connect(address).is_err());
}
